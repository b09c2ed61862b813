"""The codec as a PyTorch module, in floating point: what is trained."""

from __future__ import annotations

import math
from typing import Optional, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import _tensors
from .._errors import InvalidInput
from .._narrows import Profile
from .blocks import Branch
from .quantise import LN2, laplace_bits, straight_round

# Quality indices in an octave, and octaves beyond the trained range at which gains grow no further.
STEPS_PER_OCTAVE = 32
_BEYOND = 1.0


class Shape:
    """The features of a profile as planes ``[batch, channels, height, width]``, and back."""

    def __init__(self, profile: Profile) -> None:
        dims, channel, batch = list(profile.shape), profile.channel_axis, profile.batch_axis
        if batch is not None:
            if dims[batch] != 1 or batch != 0:
                raise InvalidInput("training wants a profile whose features hold one batch item each, on the first axis")
            dims, channel = dims[1:], channel - 1
        if not 1 <= len(dims) <= 3:
            raise InvalidInput(f"training wants features of one or two axes of positions, not of shape {profile.shape}")
        self.dims = tuple(dims)
        self.channel = channel
        self.has_batch = batch is not None
        self.channels = dims.pop(channel)
        self.height, self.width = [1, 1, *dims][-2:]

    def planes(self, features: Tensor) -> Tensor:
        """Features, joined along a first axis of batch items, as planes."""
        if tuple(features.shape[1:]) != self.dims:
            raise InvalidInput(f"the head makes features of shape {tuple(features.shape[1:])}, the profile is for {self.dims}")
        planes = features.movedim(self.channel + 1, 1).reshape(-1, self.channels, self.height, self.width)
        return planes.contiguous(memory_format=torch.channels_last)

    def features(self, planes: Tensor) -> Tensor:
        """Planes as what the tail reads."""
        dims = [size for axis, size in enumerate(self.dims) if axis != self.channel]
        features = planes.reshape(len(planes), self.channels, *dims).movedim(1, self.channel + 1)
        if features.dim() == 4 and self.channel == 0:
            return features.contiguous(memory_format=torch.channels_last)
        return features.contiguous()

    def samples(self, features: Tensor) -> list[NDArray[np.float32]]:
        """Features as what a profile is fitted to."""
        return [f[None] if self.has_batch else f for f in features.detach().cpu().contiguous().float().numpy()]


class Codec(nn.Module):
    """Analysis, transform, quantisation, inverse transform and synthesis, with a model of the rate.

    It begins as the profile that it is made of. Quality is a number of octaves for each sample: 0 stands for the profile's
    own steps, 1 for steps twice as large.
    """

    dct_rows: Tensor
    dct_columns: Tensor
    band_matrix: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        profile: Profile,
        analysis: Sequence[int] = (),
        synthesis: Sequence[int] = (),
        qualities: tuple[float, float] = (-0.8, 1.2),
    ) -> None:
        super().__init__()
        self.shape = Shape(profile)
        tensors, metadata = _tensors.read(profile.to_bytes())
        scalars = metadata["profile"]
        if scalars["version"] != 1:
            raise InvalidInput("training starts from a fitted profile, this one has networks or gains already")
        channels, (rows, columns) = self.shape.channels, profile.block
        self.block, self.channels, self.bands = (rows, columns), channels, rows * columns
        self.exponent: int = scalars["exponent"]
        unit = 2.0**-self.exponent

        def of(name: str) -> Tensor:
            return torch.from_numpy(tensors[name].astype(np.float32))

        for name, side, shift in zip(("dct_rows", "dct_columns"), (rows, columns), scalars["dct_shifts"]):
            self.register_buffer(name, of(name.replace("_", ".")).reshape(side, side) / 2.0**shift)
        if tensors["matrix.forward"].size:
            shifts = torch.tensor(scalars["matrix_shifts"], dtype=torch.float32).reshape(-1, 2)
            forward, inverse = (
                of(name).reshape(-1, channels, channels) / (2 ** shifts[:, i])[:, None, None]
                for i, name in enumerate(("matrix.forward", "matrix.inverse"))
            )
            bands = torch.from_numpy(tensors["band_matrix"].astype(np.int64))
        else:
            forward = inverse = torch.eye(channels)[None]
            bands = torch.zeros(self.bands, dtype=torch.int64)
        self.matrix_shifts: list[int] = scalars["matrix_shifts"] or [14, 14]
        # A product picks the matrices of the bands: the gradient of an index is slow.
        self.register_buffer("band_matrix", F.one_hot(bands, len(forward)).float())
        self.forward_matrices = nn.Parameter(forward.clone())
        self.inverse_matrices = nn.Parameter(inverse.clone())
        steps = of("step").reshape(self.bands, channels)
        self.log_steps = nn.Parameter((steps / STEPS_PER_OCTAVE - 3) * LN2 + math.log(unit))
        self.means = nn.Parameter(of("mean").reshape(self.bands, channels) / 4 * unit)
        self.gains = nn.Parameter(torch.zeros(self.bands, channels))
        self.log_spread = nn.Parameter(torch.zeros(self.bands, channels))
        bounds = of("range").reshape(channels, 2) * unit
        self.register_buffer("low", bounds[:, 0].reshape(1, -1, 1, 1).clone())
        self.register_buffer("high", bounds[:, 1].reshape(1, -1, 1, 1).clone())
        self.scale = max(float((bounds[:, 1] - bounds[:, 0]).mean() / 8), 1e-30)
        self.gained = (qualities[0] - _BEYOND, qualities[1] + _BEYOND)
        self.analysis = nn.ModuleList([Branch(channels, width, int8=True) for width in analysis])
        self.synthesis = nn.ModuleList([Branch(channels, width, int8=False) for width in synthesis])
        self.to(memory_format=torch.channels_last)

    def blocks(self, planes: Tensor) -> Tensor:
        """The DCT of planes: ``[bands, blocks, channels]``."""
        count, channels, height, width = planes.shape
        rows, columns = self.block
        below, right = -height % rows, -width % columns
        if below or right:
            planes = F.pad(planes, (0, right, 0, below), mode="replicate")
        planes = planes.reshape(count, channels, (height + below) // rows, rows, (width + right) // columns, columns)
        planes = planes.permute(0, 2, 4, 1, 3, 5)
        return (self.dct_rows @ planes @ self.dct_columns.T).reshape(-1, channels, self.bands).permute(2, 0, 1)

    def _by_band(self, matrices: Tensor) -> Tensor:
        return (self.band_matrix @ matrices.reshape(len(matrices), -1)).reshape(-1, self.channels, self.channels)

    def coefficients(self, latent: Tensor) -> Tensor:
        """What is quantised: ``[bands, blocks, components]``, without the means."""
        return torch.bmm(self.blocks(latent), self._by_band(self.forward_matrices)) - self.means[:, None]

    def inverse(self, coefficients: Tensor, count: int) -> Tensor:
        """The reverse of :meth:`coefficients`, for so many planes."""
        blocks = torch.bmm(coefficients + self.means[:, None], self._by_band(self.inverse_matrices))
        (rows, columns), (height, width) = self.block, (self.shape.height, self.shape.width)
        down, across = -(-height // rows), -(-width // columns)
        blocks = blocks.permute(1, 2, 0).reshape(count, down, across, self.channels, rows, columns)
        planes = (self.dct_rows.T @ blocks @ self.dct_columns).permute(0, 3, 1, 4, 2, 5)
        return planes.reshape(count, self.channels, down * rows, across * columns)[:, :, :height, :width]

    def analyse(self, planes: Tensor, t: Tensor) -> Tensor:
        """Features to latents, on the device."""
        for branch in self.analysis:
            planes = branch(planes, t, self.scale)
        return planes

    def synthesise(self, latent: Tensor, t: Tensor) -> Tensor:
        """Latents to features, on the server."""
        if not len(self.analysis) or not len(self.synthesis):
            latent = torch.minimum(torch.maximum(latent, self.low), self.high)
        if not len(self.synthesis):
            return latent
        planes = latent.contiguous(memory_format=torch.channels_last)
        for branch in self.synthesis:
            planes = branch(planes, t, self.scale)
        return planes.clamp(float(self.low.min()), float(self.high.max()))

    def octaves(self, t: Tensor) -> Tensor:
        """Octaves that the steps of the coder channels gain: ``[bands, samples, components]``."""
        limited = t.clamp(*self.gained)
        return t[None, :, None] + limited[None, :, None] * self.gains[:, None]

    def quantities(self, planes: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients in steps, the steps, and octaves of the steps: each ``[bands, blocks, components]``."""
        coefficients = self.coefficients(self.analyse(planes, t))
        octaves = self.octaves(t).repeat_interleave(coefficients.shape[1] // len(planes), 1)
        steps = torch.exp(self.log_steps[:, None] + LN2 * octaves)
        return coefficients / steps, steps, octaves

    def forward(
        self, planes: Tensor, t: Tensor, generator: Optional[torch.Generator] = None
    ) -> tuple[Tensor, Tensor]:
        """What arrives at the other end, and about how many bits each sample takes.

        With a generator the rate is that of coefficients with uniform noise, whose gradient is a good one; without, that
        of the rounded ones.
        """
        in_steps, steps, octaves = self.quantities(planes, t)
        rounded = straight_round(in_steps)
        if generator is None:
            coded = rounded
        else:
            noise = torch.rand(in_steps.shape, generator=generator, device=in_steps.device)
            coded = in_steps + noise - 0.5
        spread = torch.exp(self.log_spread[:, None] - LN2 * octaves).clamp(min=0.02) + 0.03
        bits = laplace_bits(coded, spread).sum((0, 2)).reshape(len(planes), -1).sum(1)
        return self.synthesise(self.inverse(rounded * steps, len(planes)), t), bits

    def symbols(self, planes: Tensor, t: float) -> Tensor:
        """Symbols at a quality, as :meth:`narrows.Profile.symbols` gives them, for each sample."""
        with torch.no_grad():
            in_steps, _, _ = self.quantities(planes, planes.new_full((len(planes),), t))
        rows, columns = self.block
        down, across = -(-self.shape.height // rows), -(-self.shape.width // columns)
        symbols = torch.round(in_steps).permute(1, 0, 2).reshape(len(planes), down, across, -1)
        return symbols.to(torch.int64)

    def fit_spread(self, planes: Tensor) -> None:
        """Fits the model of the rate to features."""
        with torch.no_grad():
            mean = self.coefficients(planes).abs().mean(1) / torch.exp(self.log_steps)
            self.log_spread.copy_(torch.log(mean.clamp(min=0.02)))
