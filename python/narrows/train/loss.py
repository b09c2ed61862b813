"""What decoded features cost the task, and what bytes are worth."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .codec import Codec
from .data import Examples, Tails

Answers = list[tuple[Tensor, Optional[Tensor]]]


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of two tensors of logits over axis 1, for each item of a batch: its mean over further axes."""
    wanted = F.log_softmax(teacher, 1)
    divergence = (wanted.exp() * (wanted - F.log_softmax(student, 1))).sum(1)
    return divergence.flatten(1).mean(1) if divergence.dim() > 1 else divergence


class Loss:
    """The distortion of answers, and the distance of the activations before them."""

    def __init__(
        self,
        feature_weight: float,
        weights: Sequence[float],
        energies: Sequence[Optional[float]],
        distortion: Optional[Callable[[Tensor, Tensor], Tensor]] = None,
    ) -> None:
        self.feature_weight, self.weights, self.energies = feature_weight, list(weights), list(energies)
        self.distortion = distortion or divergence

    def __call__(self, student: Answers, teacher: Answers) -> tuple[Tensor, Tensor]:
        """Both for each item of a batch; the distance with its weight."""
        distortion = torch.zeros(len(student[0][0]), device=student[0][0].device)
        distance = torch.zeros_like(distortion)
        for (got, now), (wanted, before), weight, energy in zip(student, teacher, self.weights, self.energies):
            distortion = distortion + weight * self.distortion(got, wanted)
            if self.feature_weight and energy and now is not None and before is not None:
                distance = distance + weight * self.feature_weight / energy * (now - before).square().sum(1)
        return distortion, distance


@dataclasses.dataclass
class Measured:
    """What held-out samples cost at a quality."""

    octaves: float
    bytes: float
    distortion: float
    loss: float
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)


def measure(
    codec: Codec, tails: Tails, loss: Loss, examples: Examples, octaves: Sequence[float], batch: int
) -> list[Measured]:
    """Rate (by the model of training) and distortion of examples at some qualities."""
    sums = [[0.0] * 4 for _ in octaves]
    with torch.no_grad():
        for start in range(0, len(examples), batch):
            places = range(start, min(start + batch, len(examples)))
            features, wanted = examples.batch(places)
            planes = codec.shape.planes(features)
            for total, t in zip(sums, octaves):
                decoded, bits = codec(planes, planes.new_full((len(planes),), t))
                got = tails(codec.shape.features(decoded))
                distortion, distance = loss(got, wanted)
                same = [(a[0].argmax(1) == b[0].argmax(1)).float().mean() for a, b in zip(got, wanted)]
                values = [bits.sum() / 8, distortion.sum(), (distortion + distance).sum()]
                for i, value in enumerate([*values, sum(same) / len(same) * len(planes)]):
                    total[i] += float(value)
    return [Measured(t, *(value / len(examples) for value in total)) for t, total in zip(octaves, sums)]


def exchange_rates(points: Sequence[Measured]) -> tuple[float, float]:
    """What a byte costs in loss at quality 0, and the octaves by which that grows with an octave of the step."""
    places, rates = [], []
    for fine, coarse in zip(points, points[1:]):
        gain, cost = coarse.loss - fine.loss, fine.bytes - coarse.bytes
        if gain > 0 and cost > 0:
            places.append((fine.octaves + coarse.octaves) / 2)
            rates.append(math.log2(gain / cost))
    if not rates:
        middle = points[len(points) // 2]
        return max(middle.loss, 1e-3) / max(middle.bytes, 1.0), 2.0
    place, rate = sum(places) / len(places), sum(rates) / len(rates)
    spread = sum((p - place) ** 2 for p in places)
    slope = sum((p - place) * (r - rate) for p, r in zip(places, rates)) / spread if spread else 2.0
    slope = min(max(slope, 0.5), 4.0)
    return 2.0 ** (rate - slope * place), slope
