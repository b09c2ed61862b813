"""A trained codec as a draft of a profile: what was trained, in integers where the device works with it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Optional

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import _tensors
from .._errors import InvalidInput
from .._narrows import Profile
from .blocks import KERNEL, Branch
from .codec import STEPS_PER_OCTAVE, Codec
from .quantise import LN2, to_int8

# Largest magnitude that values of calibration may have, and how far above them others may lie.
_LARGEST = 32_000.0
_HEADROOM = 1.3
# Quality indices at which tables are fitted and gains are given.
_ANCHORS = range(-256, 97, 16)
# Biases that leave a sum of _LARGEST_SUM times 2^15 within 32 bits.
_LARGEST_BIAS = 100_000_000
_LARGEST_BY_QUALITY = 500_000


@dataclasses.dataclass
class _Layer:
    """A convolution of an analysis network before it is integers."""

    weight: Tensor
    bias: Tensor
    quality: Optional[Tensor]
    # Integers in a unit of what it reads, and of what it makes.
    unit_in: float
    unit_out: float
    # Largest sum by output channel, in units: of those above zero alone if the others are cut off.
    largest: Tensor
    rectified: bool
    reads: int
    adds: Optional[int]


def requantisation(ratio: Tensor, largest: Tensor) -> tuple[int, int, Tensor]:
    """Two shifts, and a multiplier of 15 bits for each channel, that multiply sums by ratios.

    The first shift brings sums of at most ``largest`` to 16 bits, the second follows the multiplication.
    """
    first = max(0, math.ceil(math.log2(max(float(largest.max()), 1.0) / _LARGEST)))
    ratio = ratio * 2.0**first
    second = math.floor(math.log2(32_767 / max(float(ratio.max()), 2.0**-15)))
    second = min(max(second, 0), 30)
    multiplier = torch.round(ratio * 2.0**second).clamp(0, 32_767)
    if first > 30:
        raise InvalidInput("a sum of the analysis network is too large for 16 bits and 30 more")
    return first, second, multiplier


class _Integers:
    """The nodes and numbers of an analysis network."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.weights: list[NDArray[np.int8]] = []
        self.constants: list[NDArray[np.int32]] = []

    def add(self, layer: _Layer) -> int:
        integers, scale = to_int8(layer.weight)
        depthwise = layer.weight.shape[1] == 1 and layer.weight.shape[0] > 1 and layer.weight.shape[2] > 1
        # A unit of the sums stands for this much.
        unit = scale / layer.unit_in
        first, second, multiplier = requantisation(unit * layer.unit_out, layer.largest / unit)
        numbers = [torch.round(layer.bias / unit).clamp(-_LARGEST_BIAS, _LARGEST_BIAS)]
        if layer.quality is not None:
            by_index = torch.round(layer.quality / STEPS_PER_OCTAVE / unit)
            numbers.append(by_index.clamp(-_LARGEST_BY_QUALITY, _LARGEST_BY_QUALITY))
        numbers.append(multiplier)
        self.weights.append(integers.permute(0, 2, 3, 1).reshape(-1).numpy().astype(np.int8))
        self.constants.append(torch.cat(numbers).numpy().astype(np.int32))
        side = layer.weight.shape[2]
        bounds = [0 if layer.rectified else -32_768, 32_767]
        self.nodes.append(
            _node(len(layer.weight), side, depthwise, layer.quality is not None, layer.reads, layer.adds)
            | {"shifts": [first, second], "bounds": bounds}
        )
        return len(self.nodes)


def _node(
    channels: int, side: int, depthwise: bool, quality: bool, reads: int, adds: Optional[int]
) -> dict[str, Any]:
    return {
        "op": "convolution",
        "kernel": [side, side],
        "stride": 1,
        "padding": [side // 2, side // 2],
        "depthwise": depthwise,
        "transposed": None,
        "quality": quality,
        "slope": False,
        "input": reads,
        "add": adds,
        "channels": channels,
    }


def _parts(branch: Branch) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of a branch, in double precision."""
    layers = (branch.expand, branch.spread, branch.reduce)
    biases = [layer.bias for layer in layers]
    return [layer.weight.detach().double() for layer in layers], [b.detach().double() for b in biases if b is not None]


def _qualities(codec: Codec) -> list[float]:
    low, high = codec.gained
    return [low, (low + high) / 2, high]


def _largest(codec: Codec, planes: Tensor) -> float:
    """Largest magnitude of what must fit 16 bits: features, latents, their DCT, components."""
    largest = float(planes.abs().max())
    for t in _qualities(codec) if len(codec.analysis) else [0.0]:
        latent = codec.analyse(planes, planes.new_full((len(planes),), t))
        components = codec.coefficients(latent) + codec.means[:, None]
        for values in (latent, codec.blocks(latent), components):
            largest = max(largest, float(values.abs().max()))
    return largest


def _analysis(codec: Codec, planes: Tensor, exponent: int) -> _Integers:
    made = _Integers()
    unit = 2.0**exponent * codec.scale
    own = 0
    values = [planes] * len(_qualities(codec))
    for branch in codec.analysis:
        assert isinstance(branch, Branch)
        # What the layers make of the calibration features at several qualities.
        stages = [
            branch.stages(x, x.new_full((len(x),), t), codec.scale) for x, t in zip(values, _qualities(codec))
        ]

        def reached(number: int, rectified: bool) -> Tensor:
            ends = [stage[number] if rectified else stage[number].abs() for stage in stages]
            return torch.stack([x.amax((0, 2, 3)) for x in ends]).amax(0).clamp(min=0).double() * _HEADROOM

        largest = [reached(number, number < 2) for number in range(3)]
        units = [_LARGEST / max(float(x.max()), 1e-6) for x in largest[:2]]
        weights, biases = _parts(branch)
        quality = branch.quality.detach().double()
        first = made.add(_Layer(weights[0], biases[0], quality, unit, units[0], largest[0], True, own, None))
        second = made.add(_Layer(weights[1], biases[1], None, units[0], units[1], largest[1], True, first, None))
        own = made.add(_Layer(weights[2], biases[2], None, units[1], unit, largest[2], False, second, own))
        values = [x + codec.scale * stage[2] for x, stage in zip(values, stages)]
    return made


def _synthesis(codec: Codec) -> tuple[list[dict[str, Any]], NDArray[np.float16]]:
    nodes: list[dict[str, Any]] = []
    numbers: list[Tensor] = []
    own = 0
    for number, branch in enumerate(codec.synthesis):
        assert isinstance(branch, Branch)
        weights, biases = _parts(branch)
        width = len(weights[0])
        last = number + 1 == len(codec.synthesis)
        bounds = [float(codec.low.min()), float(codec.high.max())] if last else [None, None]
        numbers += [(weights[0] / codec.scale).permute(0, 2, 3, 1), biases[0], branch.quality.detach().double()]
        nodes.append(_node(width, 1, False, True, own, None) | {"bounds": [0.0, None]})
        numbers += [weights[1], biases[1]]
        nodes.append(_node(width, KERNEL, True, False, len(nodes), None) | {"bounds": [0.0, None]})
        numbers += [(weights[2] * codec.scale).permute(0, 2, 3, 1), biases[2] * codec.scale]
        nodes.append(_node(codec.channels, 1, False, False, len(nodes), own) | {"bounds": bounds})
        own = len(nodes)
    flat = torch.cat([x.reshape(-1) for x in numbers]) if numbers else torch.zeros(0)
    values = flat.numpy().astype(np.float16)
    if not np.isfinite(values).all():
        raise InvalidInput("a number of the synthesis network is too large for 16 bits")
    return nodes, values


def integer_matrices(matrices: Tensor, shifts: list[int], fewest: int) -> tuple[NDArray[np.int16], list[int]]:
    """Matrices as integers with fractional bits, so many that sums with 16-bit values fit 32 bits.

    :param shifts: fractional bits that are kept where they are possible
    :param fewest: least fractional bits that the format allows
    """
    made, used = [], []
    for number, matrix in enumerate(matrices.detach().double()):
        for shift in (shifts[number], *range(16, fewest - 1, -1)):
            integers = torch.round(matrix * 2.0**shift)
            most = max(float(integers.abs().sum(0).max()), float(integers.abs().sum(1).max()))
            if most <= 65_535 and float(integers.max()) <= 32_767 and float(integers.min()) >= -32_768:
                break
        else:
            raise InvalidInput("a trained channel matrix has entries too large for 16 bits: a smaller linear_rate may help")
        made.append(integers.numpy().astype(np.int16))
        used.append(shift)
    return np.stack(made), used


def make_draft(codec: Codec, profile: Profile, features: Tensor, notes: str = "") -> bytes:
    """The draft that :meth:`narrows.Profile.assemble` reads.

    :param profile: what training began with
    :param features: what ranges are measured with, as the head gives them
    """
    tensors, metadata = _tensors.read(profile.to_bytes())
    scalars = metadata["profile"]
    with torch.no_grad():
        planes = codec.shape.planes(features)
        # The profile's own, or a smaller one if latents are larger than its features.
        exponent = min(codec.exponent, math.floor(math.log2(_LARGEST / max(_largest(codec, planes), 1e-30))))
        unit = 2.0**exponent
        integers = _analysis(codec, planes, exponent)
        nodes, values = _synthesis(codec)
        matrices: dict[str, NDArray[Any]] = {"band_matrix": tensors["band_matrix"]}
        eye = torch.eye(codec.channels)
        plain = bool((codec.forward_matrices == eye).all() and (codec.inverse_matrices == eye).all())
        if plain and not tensors["matrix.forward"].size:
            empty = np.zeros((0, codec.channels, codec.channels), np.int16)
            matrices.update({"matrix.forward": empty, "matrix.inverse": empty})
            scalars["matrix_shifts"] = []
        else:
            old = codec.matrix_shifts
            forward, forward_shifts = integer_matrices(codec.forward_matrices, old[0::2], 2)
            inverse, inverse_shifts = integer_matrices(codec.inverse_matrices, old[1::2], 0)
            matrices.update({"matrix.forward": forward, "matrix.inverse": inverse})
            matrices["band_matrix"] = codec.band_matrix.argmax(1).numpy().astype(np.uint8)
            scalars["matrix_shifts"] = [s for pair in zip(forward_shifts, inverse_shifts) for s in pair]
        steps = (codec.log_steps.double() / LN2 + exponent + 3) * STEPS_PER_OCTAVE
        means = torch.round(codec.means.double() * 4 * unit).clamp(-131_071, 131_071)
        gains = _gains(codec)
        if len(codec.analysis) and len(codec.synthesis):
            low, high = torch.full((codec.channels,), -32_768.0), torch.full((codec.channels,), 32_767.0)
        else:
            low, high = (torch.round(x.flatten() * unit).clamp(-32_768, 32_767) for x in (codec.low, codec.high))
    draft: dict[str, NDArray[Any]] = {
        **matrices,
        "dct.rows": tensors["dct.rows"],
        "dct.columns": tensors["dct.columns"],
        "step": torch.round(steps).clamp(0, 4095).reshape(-1).numpy().astype(np.uint16),
        "mean": means.reshape(-1).numpy().astype(np.int32),
        "range": torch.stack([low, high], 1).numpy().astype(np.int16),
        "gain": gains,
        "analysis.weights": _joined(integers.weights, np.int8),
        "analysis.constants": _joined(integers.constants, np.int32),
        "analysis.values": np.zeros(0, np.float32),
        "synthesis.values": values,
    }
    if gains.size:
        draft["anchor"] = np.array(list(_ANCHORS), np.int16)
    scalars.update(version=2, exponent=exponent, latent_exponent=exponent, rounding=128, context=0)
    scalars["lambda"] = 0
    scalars["analysis"] = {"arithmetic": "integer", "nodes": integers.nodes} if integers.nodes else None
    scalars["synthesis"] = {"nodes": nodes} if nodes else None
    return _tensors.write(draft, {"profile": scalars, "notes": notes})


def _gains(codec: Codec) -> NDArray[np.int16]:
    """What the steps of the coder channels gain at each anchor; nothing if that is nowhere a unit."""
    octaves = torch.tensor([anchor / STEPS_PER_OCTAVE for anchor in _ANCHORS], dtype=torch.float64)
    limited = octaves.clamp(*codec.gained)[:, None, None]
    gains = torch.round(limited * codec.gains.double() * STEPS_PER_OCTAVE).clamp(-4096, 4096)
    made = gains.reshape(-1).numpy().astype(np.int16)
    return made if made.any() else np.zeros(0, np.int16)


def _joined(parts: list[Any], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
