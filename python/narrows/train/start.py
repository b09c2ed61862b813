"""The profile that training starts from."""

from __future__ import annotations

from typing import Callable, Optional, Sequence, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._narrows import Profile, fit
from .data import Inputs, Samples, Tails, Teacher, listed


def gradient_samples(
    tails: Sequence[nn.Module], features: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Gauss-Newton gradients of the tails' KL divergence at features: ``[features, count of each tail, ...]``.

    Each is J' A' r, with J the Jacobian of the logits, A A' = diag(p) - p p' for the answer p, and r random signs: the mean
    of g g' is the curvature of the divergence, which needs no labels.
    """
    made = []
    for tail in tails:
        leaf = features.detach().clone().requires_grad_(True)
        logits = tail(leaf)
        p = logits.detach().softmax(1)
        for number in range(count):
            signs = torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1
            direction = p.sqrt() * signs - p * (p.sqrt() * signs).sum(1, keepdim=True)
            (gradient,) = torch.autograd.grad(logits, leaf, direction, retain_graph=number + 1 < count)
            made.append(gradient.detach())
    return torch.stack(made, 1)


def fit_profile(
    head: nn.Module,
    tail: Union[nn.Module, Sequence[nn.Module]],
    samples: Samples,
    *,
    gradients: int = 4,
    limit: int = 400,
    batch: int = 10,
    seed: int = 0,
    progress: Optional[Callable[[str, int, int], object]] = None,
) -> Profile:
    """Fits a profile to what a head makes of samples, weighted by gradients of the tail: :func:`narrows.fit` for PyTorch.

    :param tail: the tail, or several, which count the same
    :param gradients: gradient samples for each feature
    :param limit: most samples that are looked at
    :param progress: as for :func:`narrows.fit`
    """
    inputs = Inputs(samples)
    modules = listed(tail)
    teacher = Teacher(head.eval(), Tails(modules), torch.device("cpu"))
    for module in modules:
        module.eval()
    generator = torch.Generator().manual_seed(seed)
    features: list[NDArray[np.float32]] = []
    weights: list[NDArray[np.float32]] = []
    for start in range(0, min(len(inputs), limit), batch):
        made = teacher.features(inputs.batch(range(start, min(start + batch, len(inputs), limit))))
        features.extend(made[:, None].contiguous().numpy())
        weights.extend(gradient_samples(modules, made, gradients, generator)[:, :, None].contiguous().numpy())
    channels = 2 if features[0].ndim == 3 else 1
    return fit(features, gradients=weights, channel_axis=channels, batch_axis=0, progress=progress)
