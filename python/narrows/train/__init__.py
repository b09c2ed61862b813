"""Training of bottlenecks: small networks around a profile's transform, for fewer bytes at the same answers.

::

    import narrows.train

    result = narrows.train.train(head, tail, pictures)      # head and tail: PyTorch modules
    profile = result.export("net.profile.safetensors")      # for Encoder and Decoder

The device runs a network of integers before the transform, the server one in f32 behind it. Both begin as the identity,
so that training begins at the fitted profile and goes on from there. One profile serves all qualities.

This needs PyTorch 1.13 or later.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as _error:
    raise ImportError("narrows.train needs PyTorch: pip install torch") from _error

from .codec import Codec
from .cut import Cut, count_macs, cut_onnx
from .data import augment_pictures
from .integer import IntegerCodec
from .loop import train
from .options import TrainOptions
from .result import TrainResult
from .start import fit_profile
from .verify import Mismatch, Verified, verify

__all__ = [
    "Codec",
    "Cut",
    "IntegerCodec",
    "Mismatch",
    "TrainOptions",
    "TrainResult",
    "Verified",
    "augment_pictures",
    "count_macs",
    "cut_onnx",
    "fit_profile",
    "train",
    "verify",
]
