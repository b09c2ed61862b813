"""Correct and incorrect calls for the type checker. `test_types.py` runs it; nothing runs this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from numpy.typing import NDArray

import narrows


def correct(feature: NDArray[np.float32]) -> None:
    profile: narrows.Profile = narrows.Profile.load(Path("p"), limits=narrows.Limits(rank=4))
    shape: tuple[int, ...] = profile.shape
    batch: Optional[int] = profile.batch_axis
    encoder = narrows.Encoder(profile, "profile", chunks=2, lanes=4, checksums=True)
    stream: bytes = encoder.encode(feature, bytes=600, channel_axis=-1, batch_axis=None)
    decoder = narrows.Decoder([profile], backend="portable")
    array: NDArray[Any] = decoder.decode(stream)
    tensor: narrows.Tensor = decoder.decode(bytearray(stream), out="dlpack")
    again: bytes = narrows.encode(tensor, sqnr=20)
    decoder.decode_into(stream, array)
    size: int = narrows.info(again)["bytes"]
    name: Union[str, None] = narrows.info(stream, profile)["profile"]
    array = narrows.decode(stream, profile, out="numpy")
    tensor = narrows.decode(stream, out="dlpack")
    fitted: narrows.Profile = narrows.fit(
        [feature, feature], tail=lambda batch: batch.mean((2, 3)), progress=lambda stage, done, total: None
    )
    assembled: narrows.Profile = narrows.Profile.assemble(Path("draft")).refit([feature], lambda stage, done, total: None)
    symbols: NDArray[np.int32] = narrows.Profile.assemble(b"").symbols(feature, 0.5)
    macs: int = assembled.analysis["macs"] if assembled.analysis else symbols.size
    print(macs, assembled.synthesis, assembled.is_exact)
    names: list[str] = narrows.backends()
    print(shape, batch, size, name, fitted, names)
    try:
        narrows.decode(b"")
    except narrows.Truncated as error:
        offset: Optional[int] = error.offset
        print(offset)


def incorrect(feature: NDArray[np.float32]) -> None:
    narrows.Encoder(mode="lossy")  # type: ignore[arg-type]
    narrows.encode(feature, scale="fine")  # type: ignore[arg-type]
    narrows.encode([1.0, 2.0])  # type: ignore[arg-type]
    narrows.decode(b"", out="list")  # type: ignore[call-overload]
    narrows.info(b"")["size"]  # type: ignore[typeddict-item]
    narrows.fit([feature], tail=3)  # type: ignore[arg-type]
