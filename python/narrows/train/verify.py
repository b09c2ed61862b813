"""Whether the library and PyTorch make the same symbols of the same features."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from .._errors import Error
from .._narrows import Decoder, Encoder, Profile
from .codec import STEPS_PER_OCTAVE, Codec, Shape
from .integer import IntegerCodec


class Mismatch(Error):
    """The library and the integer model make different symbols of a feature: a bug, please report it."""


@dataclasses.dataclass
class Verified:
    """What :func:`verify` found.

    ``features`` and ``qualities`` (in octaves) were compared; ``equal`` says whether the library's symbols are those of the
    integer model; ``different`` how many were not, of ``symbols``. Compared with the floating-point model that was trained:
    ``float_equal`` is the share of symbols that are the same, ``float_nonzero_equal`` that among those that either has as
    another than zero, ``float_distance`` the root of the mean squared difference of decoded features, relative to the
    features.
    """

    features: int
    qualities: tuple[float, ...]
    symbols: int
    different: int
    float_equal: Optional[float] = None
    float_nonzero_equal: Optional[float] = None
    float_distance: Optional[float] = None

    @property
    def equal(self) -> bool:
        return self.different == 0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**dataclasses.asdict(self), "equal": self.equal}


def verify(
    profile: Profile,
    features: Tensor,
    *,
    codec: Optional[Codec] = None,
    qualities: Sequence[float] = (-1.0, -0.25, 0.0, 0.5, 1.25),
) -> Verified:
    """Compares the symbols of features between the library, an integer model in PyTorch, and the trained model.

    :param profile: with an analysis network in integers, or none
    :param features: as the head gives them, joined along a first axis of batch items
    :param codec: the trained model
    :param qualities: octaves of the step scale, multiples of 1/32
    """
    shape = Shape(profile)
    planes = shape.planes(features.detach().cpu().float())
    model = IntegerCodec(profile)
    samples = shape.samples(features)
    encoder, decoder = Encoder(profile), Decoder(profile)
    count = different = same = nonzero = nonzero_same = 0
    error = energy = 0.0
    for t in qualities:
        quality = round(t * STEPS_PER_OCTAVE)
        scale = 2.0 ** (quality / STEPS_PER_OCTAVE)
        wanted = model.symbols(planes, quality)
        made = np.concatenate([profile.symbols(sample, scale) for sample in samples])
        count += made.size
        different += int((made != wanted).sum())
        if codec is None:
            continue
        trained = codec.symbols(planes, quality / STEPS_PER_OCTAVE).numpy()
        equal, any_of = trained == made, (trained != 0) | (made != 0)
        same += int(equal.sum())
        nonzero += int(any_of.sum())
        nonzero_same += int((equal & any_of).sum())
        with torch.no_grad():
            floats, _ = codec(planes, planes.new_full((len(planes),), quality / STEPS_PER_OCTAVE))
        for sample, other in zip(samples, shape.samples(shape.features(floats))):
            decoded = decoder.decode(encoder.encode(sample, scale=scale))
            error += float(np.square(decoded.astype(np.float64) - other).sum())
            energy += float(np.square(other.astype(np.float64)).sum())
    result = Verified(len(samples), tuple(qualities), count, different)
    if codec is not None:
        result.float_equal = same / max(count, 1)
        result.float_nonzero_equal = nonzero_same / max(nonzero, 1)
        result.float_distance = (error / max(energy, 1e-300)) ** 0.5
    return result
