"""Samples as batches, and what head and tails make of them."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Optional, Protocol, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import InvalidInput

# Inputs of the head, without labels: a tensor whose first axis counts them, a data set (of inputs, or of tuples that
# begin with one), or anything that can be iterated over.
class Numbered(Protocol):
    """What has a length and an index: a list, an array, a ``torch.utils.data.Dataset``."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Any: ...


Samples = Union[Tensor, Numbered, Iterable[Any]]
Augment = Callable[[Tensor, torch.Generator], Tensor]


class Inputs:
    """Samples by number."""

    def __init__(self, samples: Samples) -> None:
        if not (hasattr(samples, "__getitem__") and hasattr(samples, "__len__")):
            samples = list(samples)
        self._samples: Any = samples
        if len(self) == 0:
            raise InvalidInput("there are no samples")

    def __len__(self) -> int:
        return len(self._samples)

    def listed(self) -> Samples:
        """The samples as they are."""
        return self._samples  # type: ignore[no-any-return]

    def batch(self, numbers: Sequence[int]) -> Tensor:
        """Some samples as a batch of float32."""
        if isinstance(self._samples, Tensor):
            return self._samples[list(numbers)].float()
        return torch.stack([self._one(number) for number in numbers])

    def _one(self, number: int) -> Tensor:
        sample = self._samples[number]
        if isinstance(sample, (tuple, list)):
            sample = sample[0]
        if not isinstance(sample, Tensor):
            try:
                sample = torch.from_numpy(np.asarray(sample, np.float32))
            except (TypeError, ValueError) as error:
                raise InvalidInput(f"sample {number} is no tensor and no array") from error
        return sample.float()


def listed(tail: Union[nn.Module, Sequence[nn.Module]]) -> list[nn.Module]:
    """One tail or several as a list."""
    tails: list[Any] = list(tail) if isinstance(tail, (list, tuple)) else [tail]
    if not tails:
        raise InvalidInput("there is no tail")
    for module in tails:
        if not isinstance(module, nn.Module):
            raise InvalidInput(f"a tail is a torch.nn.Module, not {type(module).__name__}")
    return tails


class Tails:
    """One or more tails: their answers, and the activations before their last linear layers."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = list(modules)
        self._linear = [[m for m in module.modules() if isinstance(m, nn.Linear)] for module in self.modules]

    def __call__(self, features: Tensor) -> list[tuple[Tensor, Optional[Tensor]]]:
        """For each tail its answer, and the activations if its last linear layer made the answer."""
        answers: list[tuple[Tensor, Optional[Tensor]]] = []
        for module, linear in zip(self.modules, self._linear):
            seen: list[tuple[Tensor, Tensor]] = []
            hooks = [
                layer.register_forward_hook(lambda _, inputs, output, seen=seen: seen.append((inputs[0], output)))
                for layer in linear
            ]
            try:
                answer = module(features)
            finally:
                for hook in hooks:
                    hook.remove()
            if not isinstance(answer, Tensor) or answer.dim() < 2 or len(answer) != len(features):
                given = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
                raise InvalidInput(f"a tail must give one row of logits for each of {len(features)} features, not {given}")
            before = None
            if seen and seen[-1][1].shape == answer.shape:
                before = seen[-1][0].flatten(1)
            answers.append((answer, before))
        return answers


class Teacher:
    """What the network makes of its samples when nothing is lost in between."""

    def __init__(self, head: nn.Module, tails: Tails, device: torch.device) -> None:
        self.head, self.tails, self.device = head, tails, device

    def features(self, inputs: Tensor) -> Tensor:
        """The head's answer."""
        with torch.no_grad():
            features = self.head(inputs.to(self.device))
        if not isinstance(features, Tensor) or len(features) != len(inputs):
            raise InvalidInput(f"the head must give one tensor with a feature for each of {len(inputs)} inputs")
        return features.float()

    def answers(self, features: Tensor) -> list[tuple[Tensor, Optional[Tensor]]]:
        """The tails' answers."""
        with torch.no_grad():
            return self.tails(features)


Example = tuple[Tensor, list[tuple[Tensor, Optional[Tensor]]]]


class Examples:
    """Features with the teacher's answers, by sample number; kept if they fit into the memory that is allowed."""

    def __init__(
        self, inputs: Inputs, teacher: Teacher, numbers: Sequence[int], cache_bytes: int, batch: int = 32
    ) -> None:
        self.inputs, self.teacher = inputs, teacher
        self.numbers = list(numbers)
        self._kept: Optional[Example] = None
        first = self._make(self.numbers[:1])
        tensors = [first[0], *(tensor for answer in first[1] for tensor in answer if tensor is not None)]
        needed = len(self.numbers) * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if needed <= cache_bytes:
            parts = [self._make(self.numbers[i : i + batch]) for i in range(0, len(self.numbers), batch)]
            answers = [
                tuple(None if tensors[0] is None else torch.cat(tensors) for tensors in zip(*answer))
                for answer in zip(*(part[1] for part in parts))
            ]
            self._kept = torch.cat([part[0] for part in parts]), answers  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.numbers)

    def _make(self, numbers: Sequence[int]) -> Example:
        features = self.teacher.features(self.inputs.batch(numbers))
        return features, self.teacher.answers(features)

    def batch(
        self, places: Sequence[int], augment: Optional[Augment] = None, generator: Optional[torch.Generator] = None
    ) -> Example:
        """The examples at these places, whose inputs may first be augmented."""
        if augment is not None and generator is not None:
            inputs = augment(self.inputs.batch([self.numbers[place] for place in places]), generator)
            features = self.teacher.features(inputs)
            return features, self.teacher.answers(features)
        if self._kept is None:
            return self._make([self.numbers[place] for place in places])
        features, answers = self._kept
        index = torch.as_tensor(places, device=features.device)
        return features[index], [
            (answer[index], None if before is None else before[index]) for answer, before in answers
        ]


def augment_pictures(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures ``[B, C, H, W]``, each cropped (30 % of the area at least), mirrored half of the time, and changed in
    contrast and brightness half of the time: an ``augment`` for :func:`train`."""

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(len(batch), generator=generator) * (high - low) + low

    side = draw(0.3, 1).sqrt()
    shape = torch.exp(draw(-0.29, 0.29) / 2)
    height, width = (side * shape).clamp(max=1), (side / shape).clamp(max=1)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    move = torch.zeros(len(batch), 2, 3)
    move[:, 0, 0], move[:, 1, 1] = width * mirror, height
    move[:, 0, 2], move[:, 1, 2] = draw(-1, 1) * (1 - width), draw(-1, 1) * (1 - height)
    grid = F.affine_grid(move.to(batch.device), list(batch.shape), align_corners=False)
    batch = F.grid_sample(batch, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    changed = draw(0, 1) < 0.5
    contrast = torch.where(changed, draw(0.7, 1.3), torch.ones(len(batch)))
    brightness = torch.where(changed, draw(-0.2, 0.2), torch.zeros(len(batch)))
    contrast, brightness = (x.reshape(-1, 1, 1, 1).to(batch.device) for x in (contrast, brightness))
    mean, deviation = batch.mean((1, 2, 3), keepdim=True), batch.std((1, 2, 3), keepdim=True)
    return (batch - mean) * contrast + mean + brightness * deviation
