"""The networks of a bottleneck: residual branches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .quantise import fake_int8

KERNEL = 3


class Branch(nn.Module):
    """``x + scale * conv1x1(relu(depthwise3x3(relu(conv1x1(x / scale) + quality * t))))``, with t the quality in octaves.

    The last layer begins at zero, so that the branch begins as the identity.
    """

    def __init__(self, channels: int, width: int, int8: bool) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, width, 1)
        self.spread = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.reduce = nn.Conv2d(width, channels, 1)
        self.quality = nn.Parameter(torch.zeros(width))
        self.int8 = int8
        with torch.no_grad():
            self.expand.weight.normal_(0, math.sqrt(2 / channels))
            self.spread.weight.mul_(0.3)
            self.spread.weight[:, :, KERNEL // 2, KERNEL // 2] += 1
            for value in (self.expand.bias, self.spread.bias, self.reduce.weight, self.reduce.bias):
                assert value is not None
                value.zero_()

    def weights(self) -> list[Tensor]:
        """The weights of the three layers as they are used."""
        weights = [self.expand.weight, self.spread.weight, self.reduce.weight]
        return [fake_int8(weight) for weight in weights] if self.int8 else weights

    def stages(self, x: Tensor, t: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """What the three layers make, before what follows their sums."""
        expand, spread, reduce = self.weights()
        by_quality = self.quality[None, :, None, None] * t[:, None, None, None]
        first = F.conv2d(x / scale, expand, self.expand.bias) + by_quality
        second = F.conv2d(F.relu(first), spread, self.spread.bias, padding=KERNEL // 2, groups=len(spread))
        third = F.conv2d(F.relu(second), reduce, self.reduce.bias)
        return first, second, third

    def forward(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return x + scale * self.stages(x, t, scale)[2]

    def macs(self, positions: int) -> int:
        """Multiply-accumulates for so many positions."""
        return positions * sum(layer.weight.numel() for layer in (self.expand, self.spread, self.reduce))


def widths(macs: float, channels: int, positions: int, depth: int) -> list[int]:
    """Widths of ``depth`` branches that need at most so many multiply-accumulates together; empty if that is too few."""
    width = int(macs / (depth * positions * (2 * channels + KERNEL * KERNEL)))
    width = min(width, 4 * channels)
    if width >= 16:
        width -= width % 8
    return [width] * depth if width >= 4 else []
