"""What the tests share: golden files, profiles, and features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

import narrows

VECTORS = Path(__file__).resolve().parents[2] / "tests" / "vectors"


@pytest.fixture(scope="session")
def vectors() -> Path:
    assert VECTORS.is_dir(), "the golden files of the repository are wanted"
    return VECTORS


@pytest.fixture(scope="session")
def profiles() -> dict[str, narrows.Profile]:
    names = ["waves", "rectified", "bursts"]
    return {name: narrows.Profile.load(VECTORS / f"{name}.profile.safetensors") for name in names}


@pytest.fixture(scope="session")
def waves(profiles: dict[str, narrows.Profile]) -> narrows.Profile:
    return profiles["waves"]


def feature(seed: int = 0, shape: tuple[int, ...] = (1, 6, 8, 8)) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Waves over the last two axes, other ones in each channel."""
    random = np.random.default_rng(seed)
    y, x = np.indices(shape[-2:])
    phase, weight = random.uniform(-3, 3, (2, *shape[:-2], 1, 1))
    values = weight * np.sin(phase + 0.4 * x + 0.3 * y) + 0.1 * random.standard_normal(shape)
    return values.astype(np.float32)


@pytest.fixture(scope="session")
def make() -> Callable[..., np.ndarray[Any, np.dtype[np.float32]]]:
    return feature


def error(a: Any, b: Any) -> float:
    """Root of the mean squared difference, relative to the first."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.sqrt(((a - b) ** 2).mean() / (a**2).mean()))


@pytest.fixture(scope="session")
def distance() -> Callable[[Any, Any], float]:
    return error
