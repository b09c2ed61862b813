"""Codec for neural feature maps.

Cut a network in two, run the head on the device and the tail on a server, and send what lies between in few bytes::

    import narrows

    profile = narrows.fit(samples)                              # once, from sample features
    stream = narrows.Encoder(profile).encode(feature)           # on the device
    feature = narrows.Decoder([profile]).decode(stream)         # on the server
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, overload

from . import importers, raw
from ._errors import (
    BackendError,
    Corrupt,
    Error,
    InvalidInput,
    LimitExceeded,
    ProfileMismatch,
    Truncated,
    Unsupported,
)
from ._narrows import Decoder, Encoder, Limits, Profile, Tensor, __version__, backends, fit, info

if TYPE_CHECKING:
    from typing import Literal

    from numpy.typing import NDArray

    from ._narrows import _BatchAxis, _Buffer, _bytes, _Feature, _Mode, _Out, _Profiles

__all__ = [
    "BackendError",
    "Corrupt",
    "Decoder",
    "Encoder",
    "Error",
    "InvalidInput",
    "LimitExceeded",
    "Limits",
    "Profile",
    "ProfileMismatch",
    "Tensor",
    "Truncated",
    "Unsupported",
    "__version__",
    "backends",
    "decode",
    "encode",
    "fit",
    "importers",
    "info",
    "raw",
]


def encode(
    feature: _Feature,
    profile: Optional[Profile] = None,
    mode: Optional[_Mode] = None,
    *,
    scale: Optional[float] = None,
    bytes: Optional[int] = None,
    sqnr: Optional[float] = None,
    bits: Optional[int] = None,
    channel_axis: Optional[int] = None,
    batch_axis: _BatchAxis = "auto",
) -> _bytes:
    """Encodes one feature, as ``Encoder(profile, mode, bits=bits).encode(feature, ...)`` does.

    Keep an :class:`Encoder` where features come in numbers.
    """
    encoder = Encoder(profile, mode, bits=bits)
    return encoder.encode(
        feature, scale=scale, bytes=bytes, sqnr=sqnr, channel_axis=channel_axis, batch_axis=batch_axis
    )


@overload
def decode(
    stream: _Buffer,
    profiles: Optional[_Profiles] = None,
    *,
    limits: Optional[Limits] = None,
    out: Literal["numpy"] = "numpy",
) -> NDArray[Any]: ...
@overload
def decode(
    stream: _Buffer,
    profiles: Optional[_Profiles] = None,
    *,
    limits: Optional[Limits] = None,
    out: Literal["dlpack"],
) -> Tensor: ...
@overload
def decode(
    stream: _Buffer,
    profiles: Optional[_Profiles] = None,
    *,
    limits: Optional[Limits] = None,
    out: Literal["torch"],
) -> Any: ...
def decode(
    stream: _Buffer,
    profiles: Optional[_Profiles] = None,
    *,
    limits: Optional[Limits] = None,
    out: _Out = "numpy",
) -> Any:
    """Decodes one stream, as ``Decoder(profiles, limits=limits).decode(stream, out=out)`` does.

    Keep a :class:`Decoder` where streams come in numbers.
    """
    return Decoder(profiles, limits=limits).decode(stream, out=out)
