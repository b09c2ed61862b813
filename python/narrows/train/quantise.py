"""Rounding, and what it costs, in a form that gradients pass through."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LN2 = math.log(2)
# A profile is refused if a sum of its network could leave 32 bits.
_LARGEST_SUM = 60_000


def weight_scale(weight: Tensor) -> Tensor:
    """What one unit of an int8 weight stands for, by output channel.

    It follows from the largest weight of the channel, but is not far below that of the layer, and is so large that the
    channel's sums fit 32 bits.
    """
    flat = weight.detach().abs().flatten(1)
    largest = flat.amax(1)
    floor = (largest.max() / 256).clamp(min=1e-8)
    return torch.maximum(torch.maximum(largest, floor) / 127, flat.sum(1) / _LARGEST_SUM)


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The weights as integers of 8 bits (still in a float tensor), and their scales by output channel."""
    scale = weight_scale(weight)
    return torch.round(weight / scale.reshape(-1, *[1] * (weight.dim() - 1))), scale


class _FakeInt8(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, weight: Tensor) -> Tensor:
        integers, scale = to_int8(weight)
        return integers * scale.reshape(-1, *[1] * (weight.dim() - 1))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


def fake_int8(weight: Tensor) -> Tensor:
    """The weights as the device will have them; gradients pass as if nothing had happened."""
    result: Tensor = _FakeInt8.apply(weight)
    return result


def straight_round(values: Tensor) -> Tensor:
    """To the nearest integer; gradients pass as if nothing had happened."""
    return values + (torch.round(values) - values).detach()


def laplace_bits(values: Tensor, scale: Tensor) -> Tensor:
    """Bits of symbols (rounded, or with uniform noise added) that follow a Laplace distribution of this scale."""
    magnitude = values.abs()
    beyond = torch.exp(-(magnitude + 0.5) / scale)
    within = torch.exp(-(magnitude - 0.5).clamp(min=0) / scale)
    around_zero = 1 - 0.5 * torch.exp(-(0.5 - magnitude).clamp(min=0) / scale) - 0.5 * beyond
    probability = torch.where(magnitude > 0.5, 0.5 * (within - beyond), around_zero)
    # A table gives every token at least this.
    return -torch.log2(probability.clamp(min=1 / 4096))
