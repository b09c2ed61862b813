"""The device's half of a profile in PyTorch and NumPy, integer by integer, as FORMAT.md defines it.

It shares nothing with the library but the format, and nothing with the codec that is trained: where it and
:meth:`narrows.Profile.symbols` agree, the symbols are those of the format.
"""

from __future__ import annotations

from typing import Any, Union

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .. import _tensors
from .._errors import Unsupported
from .._narrows import Profile

_POWERS = np.array([round(2048 * 2 ** (i / 32)) for i in range(32)], np.int64)
_COEFFICIENT_MAX = (1 << 17) - 1
_MAX_QUALITY = 128
_TABLES = 104


def round_shift(values: Tensor, shift: int) -> Tensor:
    """Values over a power of two, to the nearest integer, halves up."""
    return values if shift == 0 else (values + (1 << (shift - 1))) >> shift


def clamp16(values: Tensor) -> Tensor:
    """Values limited to 16 bits."""
    return values.clamp(-32_768, 32_767)


def _exact(values: Tensor) -> Tensor:
    """Integers below 2^53, as which products and sums in double precision are exact."""
    return values.double()


class IntegerCodec:
    """The device's half of a profile: features of its shape to symbols."""

    def __init__(self, profile: Profile) -> None:
        tensors, metadata = _tensors.read(profile.to_bytes())
        self.tensors, self.scalars = tensors, metadata["profile"]
        self.profile = profile
        analysis = self.scalars.get("analysis")
        if analysis is not None and analysis["arithmetic"] != "integer":
            raise Unsupported("an analysis network in floating point", what="an analysis network in floating point")
        self.nodes: list[dict[str, Any]] = analysis["nodes"] if analysis else []

    def integers(self, planes: Tensor) -> Tensor:
        """Planes of f32 as integers."""
        x = torch.where(torch.isnan(planes) | (planes.abs() < 2.0**-126), torch.zeros_like(planes), planes)
        scaled = (x.float() * 2.0 ** self.scalars["exponent"]).clamp(-32_768, 32_767)
        # To nearest, halves to even.
        return torch.round(scaled).to(torch.int64)

    def analyse(self, planes: Tensor, quality: int) -> Tensor:
        """The latent of integer planes."""
        values = [planes]
        weights, constants = self.tensors.get("analysis.weights"), self.tensors.get("analysis.constants")
        quality = min(max(quality, -_MAX_QUALITY), _MAX_QUALITY)
        weight_at = constant_at = 0
        for node in self.nodes:
            if node["op"] != "convolution" or node["transposed"] is not None:
                raise Unsupported("a node of the analysis network", what="a node of the analysis network")
            assert weights is not None and constants is not None
            x, outputs = values[node["input"]], node["channels"]
            inputs = 1 if node["depthwise"] else x.shape[1]
            rows, columns = node["kernel"]
            size = outputs * rows * columns * inputs
            weight = torch.from_numpy(weights[weight_at : weight_at + size].astype(np.int64))
            weight = weight.reshape(outputs, rows, columns, inputs).permute(0, 3, 1, 2)
            weight_at += size

            def take() -> Tensor:
                nonlocal constant_at
                constant_at += outputs
                assert constants is not None
                return torch.from_numpy(constants[constant_at - outputs : constant_at].astype(np.int64))

            bias = take()
            if node["quality"]:
                bias = bias + take() * quality
            multiplier = take()[:, None, None]
            slope = take()[:, None, None] if node["slope"] else None
            groups = x.shape[1] if node["depthwise"] else 1
            sums = F.conv2d(_exact(x), _exact(weight), None, node["stride"], tuple(node["padding"]), 1, groups)
            made = sums.round().to(torch.int64) + bias[:, None, None]
            assert int(made.abs().max()) < 1 << 31
            first, second = node["shifts"]
            made = clamp16(round_shift(clamp16(round_shift(made, first)) * multiplier, second))
            if slope is not None:
                made = torch.where(made < 0, round_shift(made * slope, 15), made)
            if node["add"] is not None:
                made = made + values[node["add"]]
            values.append(made.clamp(*node["bounds"]))
        return values[-1]

    def coefficients(self, latent: Tensor) -> Tensor:
        """Block DCT and channel matrices: ``[planes, block rows, block columns, bands, components]``."""
        rows, columns = self.profile.block
        count, channels, height, width = latent.shape
        y = torch.arange(-(-height // rows) * rows).clamp(max=height - 1)
        x = torch.arange(-(-width // columns) * columns).clamp(max=width - 1)
        blocks = latent[:, :, y][:, :, :, x]
        blocks = blocks.reshape(count, channels, len(y) // rows, rows, len(x) // columns, columns)
        blocks = blocks.permute(0, 2, 4, 3, 5, 1)  # planes, down, across, y, x, channel
        if rows * columns > 1:
            for name, shift, axes in (
                ("dct.rows", self.scalars["dct_shifts"][0], "uy,ndayxc->ndauxc"),
                ("dct.columns", self.scalars["dct_shifts"][1], "vx,ndayxc->ndayvc"),
            ):
                side = round(self.tensors[name].size ** 0.5)
                matrix = torch.from_numpy(self.tensors[name].reshape(side, side).astype(np.float64))
                sums = torch.einsum(axes, matrix, _exact(blocks)).round().to(torch.int64)
                blocks = clamp16(round_shift(sums, shift))
        blocks = blocks.reshape(*blocks.shape[:3], rows * columns, channels)
        shifts = self.scalars["matrix_shifts"]
        if not shifts:
            return blocks << 2
        matrices = torch.from_numpy(self.tensors["matrix.forward"].reshape(-1, channels, channels).astype(np.float64))
        made = torch.empty_like(blocks)
        for band, group in enumerate(self.tensors["band_matrix"].tolist()):
            sums = (_exact(blocks[..., band, :]) @ matrices[group]).round().to(torch.int64)
            made[..., band, :] = round_shift(sums, shifts[2 * group] - 2)
        return made

    def steps(self, quality: int) -> NDArray[np.int64]:
        """The step indices of the coder channels."""
        steps = self.tensors["step"].reshape(-1).astype(np.int64) + quality
        gains = self.tensors.get("gain")
        if gains is not None and gains.size:
            anchors = self.tensors["anchor"].astype(np.int64)
            table = gains.reshape(len(anchors), -1).astype(np.int64)
            above = int(np.searchsorted(anchors, quality))
            if above in (0, len(anchors)):
                steps = steps + table[min(above, len(anchors) - 1)]
            else:
                low, high = int(anchors[above - 1]), int(anchors[above])
                run = (table[above] - table[above - 1]) * (quality - low) + (high - low) // 2
                steps = steps + table[above - 1] + run // (high - low)
        return np.clip(steps, 0, 543)

    def active(self, quality: int) -> NDArray[np.bool_]:
        """Which coder channels are coded."""
        anchors = self.tensors["anchor"].astype(np.int64)
        nearest = int(np.argmin(np.abs(anchors - quality)))
        down = (quality - int(anchors[nearest]) + 2) // 4
        levels = self.tensors["level"].reshape(len(anchors), -1)[nearest].astype(np.int64)
        made: NDArray[np.bool_] = (levels > 0) & (levels > down)
        return made

    def symbols(self, planes: Union[Tensor, NDArray[np.float32]], quality: int) -> NDArray[np.int64]:
        """The symbols of planes ``[batch, channels, height, width]`` at a quality index, as the library lays them out."""
        planes = torch.as_tensor(planes)
        values = self.coefficients(self.analyse(self.integers(planes), quality))
        values = values.reshape(*values.shape[:3], -1)
        steps = self.steps(quality)
        mantissa, shift = _POWERS[steps % 32], steps // 32 + 13
        multiplier = ((1 << 25) + mantissa // 2) // mantissa
        thrift = 36 - min(max(quality, 0), 36)
        rounding = 128 - (128 - self.scalars["rounding"]) * thrift // 36
        centred = values.numpy() - self.tensors["mean"].reshape(-1).astype(np.int64)
        centred = np.clip(centred, -_COEFFICIENT_MAX, _COEFFICIENT_MAX)
        magnitude = (np.abs(centred) * multiplier + (rounding << (shift - 8))) >> shift
        symbols = np.sign(centred) * np.minimum(magnitude, 65_535)
        return np.where(self.active(quality), symbols, 0)
