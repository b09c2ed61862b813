"""The files of profiles: tensors by name and one text, in the safetensors format."""

from __future__ import annotations

import json
from typing import Any, Mapping

import numpy as np
from numpy.typing import NDArray

from ._errors import Corrupt

_TYPES = {"U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "I32": "<i4", "F16": "<f2", "F32": "<f4"}
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}


def read(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The tensors of a profile's file, and what its metadata holds: ``profile`` (the scalars), ``hash``, ``notes``."""
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        metadata = json.loads(header.pop("__metadata__")["narrows"])
        tensors = {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            values = np.frombuffer(data[start + first : start + last], _TYPES[entry["dtype"]])
            tensors[name] = values.reshape(entry["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt("not a narrows profile", what="not a narrows profile", offset=0) from error
    return tensors, metadata


def write(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> bytes:
    """The bytes of a file of these tensors, with metadata as :func:`read` gives it."""
    header: dict[str, Any] = {"__metadata__": {"narrows": json.dumps(metadata)}}
    parts, end = [], 0
    # Wide elements first, so that all are aligned.
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
        values = np.ascontiguousarray(tensors[name])
        part = values.tobytes()
        header[name] = {
            "dtype": _NAMES[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [end, end + len(part)],
        }
        parts.append(part)
        end += len(part)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)
