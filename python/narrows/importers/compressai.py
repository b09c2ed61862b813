"""Entropy models and factorised-prior models of CompressAI."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
from numpy.typing import NDArray

from .._narrows import Profile, SymbolCoder
from . import draft
from .networks import Network, array, view
from .tables import Tables, convert_tables


def _tables(model: Any) -> Tables:
    """The tables of an entropy model that has them."""
    cdfs, lengths, offsets = (array(part, np.int64) for part in (model._quantized_cdf, model._cdf_length, model._offset))
    if cdfs.size == 0:
        raise ValueError("the entropy model has no tables yet: call its update() first")
    return convert_tables(cdfs, lengths.ravel(), offsets.ravel())


def _medians(bottleneck: Any) -> NDArray[np.float32]:
    return np.asarray(array(bottleneck.quantiles)[:, 0, 1], np.float32)


def _notes(what: str, tables: Tables) -> str:
    used = len(np.unique(tables.level))
    return (
        f"imported: {what}; {len(tables.level)} channels on {used} tables, expected {tables.bits.mean():.4f} bits a symbol, "
        f"{100 * tables.excess:+.2f} % against the original tables"
    )


def from_entropy_bottleneck(bottleneck: Any, shape: Sequence[int]) -> Profile:
    """A profile that codes latents as an ``EntropyBottleneck`` does: symbols are ``round(y - median)``, decoding gives
    ``symbol + median``, and each channel has its table.

    Encode at the default quality; another scale changes the symbols. Symbols beyond 32,767 are limited to that.

    :param bottleneck: the module, after ``update()``
    :param shape: of the latents: [C, H, W] or [N, C, H, W]; others may be coded if they have as many channels
    """
    own, medians = _tables(bottleneck), _medians(bottleneck)
    analysis, synthesis = Network(len(medians)), Network(len(medians))
    analysis.shift(-medians)
    synthesis.shift(medians)
    return draft.profile(shape, own, analysis, synthesis, _notes("EntropyBottleneck", own))


def from_factorized_prior(model: Any, shape: Sequence[int]) -> Profile:
    """A profile that does all that a ``FactorizedPrior`` model does: its streams are made of images and decode to images.

    The networks run in floating point, so an element of the latent that lies between two integers may be rounded to
    the other one than PyTorch would have chosen.

    :param model: ``g_a``, ``entropy_bottleneck`` after ``update()``, ``g_s``
    :param shape: of the images: [C, H, W] or [N, C, H, W]; others may be coded if the model takes them
    """
    return _model(model.g_a, model.entropy_bottleneck, model.g_s, shape, type(model).__name__, (0.0, 1.0))


def _model(
    encoder: Any,
    bottleneck: Any,
    decoder: Any,
    shape: Sequence[int],
    what: str,
    bounds: Optional[tuple[float, float]] = None,
    before: Optional[Network] = None,
) -> Profile:
    """A profile of an encoder, a bottleneck and a decoder; ``before`` is what comes before the encoder."""
    own, medians = _tables(bottleneck), _medians(bottleneck)
    analysis = before or Network(int(shape[-3]))
    analysis.append(encoder)
    if analysis.channels != len(medians):
        raise ValueError(f"the encoder makes {analysis.channels} channels, the bottleneck has {len(medians)}")
    analysis.shift(-medians)
    synthesis = Network(len(medians))
    synthesis.shift(medians)
    synthesis.append(decoder)
    if bounds:
        synthesis.clamp(*bounds)
    return draft.profile(shape, own, analysis, synthesis, _notes(what, own))


class IndexedTables:
    """The tables of a ``GaussianConditional``, for symbols whose indexes the caller has.

    What it writes is no stream: who decodes it must know the indexes.
    """

    def __init__(self, tables: Tables, *, lanes: Optional[int] = None, backend: Optional[str] = None) -> None:
        #: What the original tables became.
        self.tables = tables
        self._coder = SymbolCoder(tables.bank, lanes=lanes, backend=backend)
        count = len(tables.level)
        # Negative indexes count from the end, where there is no table.
        self._level = np.concatenate([tables.level, np.full(count, 255, np.uint8)])

    def _rows(self, indexes: Any) -> NDArray[np.uint8]:
        return self._level.take(view(indexes, np.int32))

    def encode(self, symbols: Any, indexes: Any) -> bytes:
        """Codes integers, each under the table of its index (what ``build_indexes`` makes of scales)."""
        return self._coder.encode(view(symbols, np.int32), self._rows(indexes))

    def decode(self, data: bytes, indexes: Any) -> NDArray[np.int32]:
        """The integers again, in the shape of the indexes."""
        return self._coder.decode(data, self._rows(indexes))


def from_gaussian_conditional(
    conditional: Any, *, lanes: Optional[int] = None, backend: Optional[str] = None
) -> IndexedTables:
    """A coder of symbols under the tables of a ``GaussianConditional``.

    :param conditional: the module, after ``update()`` or ``update_scale_table()``
    :param lanes: as for :class:`narrows.raw.SymbolCoder`
    :param backend: as there
    """
    return IndexedTables(_tables(conditional), lanes=lanes, backend=backend)
