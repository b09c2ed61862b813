"""Profiles as files, but for their hash: what :meth:`narrows.Profile.assemble` reads."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
from numpy.typing import NDArray

from .._narrows import Profile
from .._tensors import write
from .networks import Network
from .tables import TABLES, Tables

#: The step index of a step of one.
_STEP_ONE = 96


def profile(
    shape: Sequence[int],
    tables: Tables,
    analysis: Optional[Network] = None,
    synthesis: Optional[Network] = None,
    notes: str = "",
) -> Profile:
    """A profile that codes the latent of the networks, or the feature itself, rounded to integers and nothing else.

    :param shape: of the features: [C, H, W] or [N, C, H, W]
    :param tables: of the latent's channels
    """
    shape = [int(length) for length in shape]
    if len(shape) not in (3, 4):
        raise ValueError(f"a shape is [C, H, W] or [N, C, H, W], not {shape}")
    channels = len(tables.level)
    tensors: dict[str, NDArray[Any]] = {
        "anchor": np.zeros(1, np.int16),
        "band_matrix": np.zeros(0, np.uint8),
        "bank": tables.bank,
        "context_offset": np.zeros(8, np.int8),
        "dct.columns": np.full((1, 1), 1 << 14, np.int16),
        "dct.rows": np.full((1, 1), 1 << 14, np.int16),
        "level": tables.level[None],
        "map": np.zeros((1, channels, 0), np.uint8),
        "matrix.forward": np.zeros((0, channels, channels), np.int16),
        "matrix.inverse": np.zeros((0, channels, channels), np.int16),
        "mean": np.zeros(channels, np.int32),
        "offset": np.zeros((TABLES, 3), np.uint8),
        "range": np.tile(np.array([-32768, 32767], np.int16), (channels, 1)),
        "step": np.full(channels, _STEP_ONE, np.uint16),
    }
    scalars: dict[str, Any] = {
        "batch_axis": 0 if len(shape) == 4 else None,
        "channel_axis": len(shape) - 3,
        "context": 0,
        "dct_shifts": [14, 14],
        "dtype": "f32",
        "exponent": 0,
        "lambda": 0,
        "matrix_shifts": [],
        "rounding": 128,
        "shape": shape,
        "version": 1,
    }
    if analysis is not None or synthesis is not None:
        tensors |= {
            "analysis.constants": np.zeros(0, np.int32),
            "analysis.values": analysis.values() if analysis else np.zeros(0, np.float32),
            "analysis.weights": np.zeros(0, np.int8),
            "gain": np.zeros(0, np.int16),
            "synthesis.values": synthesis.values() if synthesis else np.zeros(0, np.float32),
        }
        scalars |= {
            "analysis": {"arithmetic": "float", "nodes": analysis.nodes} if analysis else None,
            "latent_exponent": 0,
            "synthesis": {"nodes": synthesis.nodes} if synthesis else None,
            "version": 2,
        }
    return Profile.assemble(write(tensors, {"profile": scalars, "notes": notes}))
