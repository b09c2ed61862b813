"""Bottleneck layers of sc2bench, among them the Entropic Student's."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
from numpy.typing import NDArray

from .._narrows import Profile
from .compressai import _model
from .networks import Network, array


class EntropicStudent:
    """A bottleneck layer as a profile.

    A profile's features have one shape, before and after; the image and what the layer's decoder makes of it do not. So
    the image travels as a feature of the decoder's shape: its pixels, ``factor`` x ``factor`` at a time, are the first
    channels, and the others are zero.
    """

    def __init__(self, profile: Profile, factor: int, channels: int) -> None:
        #: Encodes what :meth:`pack` makes, and decodes to what the layer's decoder makes.
        self.profile = profile
        #: Pixels on a side that become channels.
        self.factor = factor
        #: Channels of what is decoded.
        self.channels = channels

    def pack(self, image: Any) -> NDArray[np.float32]:
        """An image [C, H, W], or some [N, C, H, W], as the feature that the profile encodes."""
        pixels = array(image)
        (*batch, colours, height, width), factor = pixels.shape, self.factor
        if height % factor or width % factor:
            raise ValueError(f"height and width must be multiples of {factor}")
        rows, columns = height // factor, width // factor
        apart = np.moveaxis(pixels.reshape(*batch, colours, rows, factor, columns, factor), (-3, -1), (-4, -3))
        out = np.zeros((*batch, self.channels, rows, columns), np.float32)
        out[..., : colours * factor**2, :, :] = apart.reshape(*batch, colours * factor**2, rows, columns)
        return out


def from_entropic_student(bottleneck: Any, shape: Sequence[int]) -> EntropicStudent:
    """A profile that does all that a bottleneck layer with a factorised prior does (``FPBasedResNetBottleneck``).

    The networks run in floating point, so an element of the latent that lies between two integers may be rounded to
    the other one than PyTorch would have chosen.

    :param bottleneck: ``encoder``, ``entropy_bottleneck`` after ``update()``, ``decoder``
    :param shape: of the images: [C, H, W] or [N, C, H, W]
    """
    *batch, colours, height, width = (int(length) for length in shape)
    before = Network(colours)
    before.append(bottleneck.encoder)
    after = Network(before.channels)
    after.append(bottleneck.decoder)
    rows, columns = after.size(before.size((height, width)))
    factor = max(1, -(-height // rows), -(-width // columns))
    if height % factor or width % factor or colours * factor**2 > after.channels:
        raise ValueError(
            f"images of {height}x{width} do not fit what the decoder makes: {after.channels} channels of {rows}x{columns}"
        )
    before = Network(after.channels)
    chosen = np.eye(colours * factor**2, after.channels, dtype=np.float32)
    before.convolution(chosen[:, None, None])
    before.shuffle(factor)
    outer = [*batch, after.channels, height // factor, width // factor]
    parts = (bottleneck.encoder, bottleneck.entropy_bottleneck, bottleneck.decoder)
    profile = _model(*parts, outer, type(bottleneck).__name__, before=before)
    return EntropicStudent(profile, factor, after.channels)
