"""Quantised cumulative tables of any size as a bank: 103 tables of 32 tokens with 12-bit frequencies.

Every table is made for the fewest bits: tokens that are rarer than an escape costs are left to it, and channels that must
share a table are those that lose least by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

#: Tokens of a table, tables of a bank, and what the frequencies of a table sum to.
TOKENS, TABLES, TOTAL = 32, 104, 4096
_ESCAPE = 31
#: Smallest magnitude of each class, and the first one that has none.
_BASES = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 21, 37, 69, 133, 261, 517])

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tables:
    """A bank, and which of its tables stands for which of the tables it was made of."""

    #: uint16 [104, 32], ordered by scale
    bank: NDArray[np.uint16]
    #: uint8, one for each original table: its row of the bank, from 1 on
    level: NDArray[np.uint8]
    #: float64, one for each original table: bits that a symbol is expected to take under the bank
    bits: _Floats
    #: the same under the original table
    original_bits: _Floats

    @property
    def excess(self) -> float:
        """What the bank is expected to take more than the originals, if all are used equally often: 0.01 is 1 %."""
        return float(self.bits.sum() / max(self.original_bits.sum(), 1e-9) - 1)


def convert_tables(cdfs: Any, lengths: Any, offsets: Any, weights: Optional[Any] = None) -> Tables:
    """A bank for quantised cumulative tables as CompressAI keeps them.

    :param cdfs: integers [tables, at least the longest], each row from 0 to a power of two
    :param lengths: integers [tables]: entries of each row. The last interval stands for all symbols beyond the others.
    :param offsets: integers [tables]: the symbol of the first interval of each row
    :param weights: how often each table is used; the default is equally often
    """
    masses, raw, original_bits = _histograms(np.asarray(cdfs), np.asarray(lengths), np.asarray(offsets))
    count = len(masses)
    weight = np.ones(count) if weights is None else np.asarray(weights, np.float64).clip(min=1e-9)
    if weight.shape != (count,):
        raise ValueError(f"there are {count} tables and {weight.size} weights")
    cluster = _clusters(masses, weight, TABLES - 1)
    rows = np.stack([_pooled(masses, raw, weight, cluster == number) for number in range(int(cluster.max()) + 1)])
    order = np.argsort(rows @ _MEAN_MAGNITUDE, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    costs = _costs(masses, raw, rows)
    chosen = costs.argmin(1)
    ordered = rows[order]
    # Table 0 is of no channel; the last one fills what is left.
    bank = np.concatenate([ordered[:1], ordered, np.repeat(ordered[-1:], TABLES - 1 - len(ordered), 0)])
    return Tables(
        bank=bank.astype(np.uint16),
        level=(rank[chosen] + 1).astype(np.uint8),
        bits=costs[np.arange(count), chosen],
        original_bits=original_bits,
    )


def token_of(symbols: Any) -> _Ints:
    """The token of each symbol; 31 for those that only an escape can say."""
    symbols = np.asarray(symbols, np.int64)
    magnitude = np.abs(symbols)
    classes = np.searchsorted(_BASES, magnitude, side="right") - 1
    token = np.where(classes > 0, 2 * classes - (symbols > 0), 0)
    return np.where(magnitude >= _BASES[-1], _ESCAPE, token).astype(np.int64)


def _escape_bits(symbols: _Ints) -> _Ints:
    """Raw bits of symbols that are escaped."""
    number = np.where(symbols < 0, -2 * symbols - 1, 2 * symbols)
    nibbles = sum((number >= 16**digits).astype(np.int64) for digits in range(8))
    return np.asarray(4 + 4 * nibbles, np.int64)


_CLASS = np.minimum((np.arange(TOKENS) + 1) // 2, 15)
#: Raw bits that follow each token.
_RAW_BITS = np.where((_CLASS >= 9) & (np.arange(TOKENS) < _ESCAPE), _CLASS - 7, 0).astype(np.float64)
_MEAN_MAGNITUDE = np.append(((_BASES[:-1] + _BASES[1:] - 1) / 2)[_CLASS[:_ESCAPE]], 600.0)


def _histograms(cdfs: NDArray[Any], lengths: NDArray[Any], offsets: NDArray[Any]) -> tuple[_Floats, _Floats, _Floats]:
    """Per table: the probability of each token, the raw bits of an escape in its place, and bits a symbol."""
    count = len(cdfs)
    if cdfs.ndim != 2 or lengths.shape != (count,) or offsets.shape != (count,) or not count:
        raise ValueError("there must be a length and an offset for each cumulative table")
    masses = np.zeros((count, TOKENS))
    raw = np.zeros((count, TOKENS))
    bits = np.zeros(count)
    for row in range(count):
        length = int(lengths[row])
        cdf = cdfs[row, :length].astype(np.float64)
        pmf = np.diff(cdf)
        if length < 2 or cdf[0] != 0 or (pmf < 0).any() or cdf[-1] <= 0:
            raise ValueError(f"cumulative table {row} does not rise from 0")
        pmf /= cdf[-1]
        symbols = int(offsets[row]) + np.arange(length - 1)
        escape = _escape_bits(symbols)
        token = token_of(symbols)
        # The last interval is that of all other symbols; those next to the others are the likeliest.
        token[-1] = _ESCAPE
        np.add.at(masses[row], token, pmf)
        np.add.at(raw[row], token, pmf * escape)
        known = pmf > 0
        bits[row] = -(pmf[known] * np.log2(pmf[known])).sum() + pmf[-1] * escape[-1]
    raw = np.divide(raw, masses, out=np.full_like(raw, 8.0), where=masses > 0)
    return masses, raw, bits


def _entropy(masses: _Floats) -> _Floats:
    """Bits of histograms that need not sum to one, times their sums."""
    sums = masses.sum(-1)
    logs = np.log2(masses, out=np.zeros_like(masses), where=masses > 0)
    total = np.log2(sums, out=np.zeros_like(sums), where=sums > 0)
    return np.asarray(sums * total - (masses * logs).sum(-1), np.float64)


def _clusters(masses: _Floats, weight: _Floats, most: int) -> _Ints:
    """The number of a cluster for each histogram, at most so many: pairs that lose least are merged first."""
    count = len(masses)
    own = masses * weight[:, None]
    number = np.arange(count)
    if count <= most:
        return number
    entropy = _entropy(own)

    def losses(at: int) -> _Floats:
        row: _Floats = _entropy(own + own[at]) - entropy - entropy[at]
        row[~alive] = np.inf
        row[at] = np.inf
        return row

    alive = np.ones(count, bool)
    pairs = np.stack([losses(at) for at in range(count)])
    for _ in range(count - most):
        first, second = divmod(int(pairs.argmin()), count)
        own[first] += own[second]
        entropy[first] = _entropy(own[first])
        alive[second] = False
        number[number == second] = first
        pairs[second] = np.inf
        pairs[:, second] = np.inf
        pairs[first] = losses(first)
        pairs[:, first] = pairs[first]
    return np.asarray(np.unique(number, return_inverse=True)[1], np.int64)


def _pooled(masses: _Floats, raw: _Floats, weight: _Floats, member: NDArray[np.bool_]) -> _Ints:
    """The frequencies that code the members of a cluster in the fewest bits."""
    own = masses[member] * weight[member, None]
    pooled = own.sum(0)
    escape = np.divide((own * raw[member]).sum(0), pooled, out=np.full(TOKENS, 8.0), where=pooled > 0)
    return frequencies(pooled / pooled.sum(), escape)


def frequencies(mass: _Floats, escape: _Floats) -> _Ints:
    """12-bit frequencies for token probabilities; ``escape`` says how many raw bits an escape in place of a token has.

    Tokens that are so rare that an escape is cheaper than an interval of their own get none.
    """
    coded = mass > 0
    coded[_ESCAPE] = True
    row = _share(mass, coded)
    bits = _bits(mass, escape, row)
    for token in np.argsort(mass, kind="stable"):
        if token == _ESCAPE or not coded[token]:
            continue
        coded[token] = False
        fewer = _share(mass, coded)
        less = _bits(mass, escape, fewer)
        if less < bits:
            row, bits = fewer, less
        else:
            coded[token] = True
            if row[token] > 8:
                break
    return row


def _share(mass: _Floats, coded: NDArray[np.bool_]) -> _Ints:
    """Frequencies of at least 1 for the tokens that are coded, the others' probability going to the escape."""
    mass = np.where(coded, mass, 0)
    mass[_ESCAPE] += 1 - mass.sum()
    mass = mass.clip(min=0)
    row = np.where(coded, np.floor(mass * TOTAL).clip(min=1), 0).astype(np.int64)
    if coded.sum() == 1:
        # A table of one token alone is none.
        row[0], row[_ESCAPE] = 1, TOTAL - 1
        return row
    while (left := TOTAL - int(row.sum())) != 0:
        # One at a time, where it saves most or costs least.
        step = 1 if left > 0 else -1
        able = coded & (row + step >= 1)
        gain = np.where(able, mass * np.log2((row + step).clip(min=1) / row.clip(min=1)), -np.inf)
        row[int(gain.argmax())] += step
    return row


def _bits(mass: _Floats, escape: _Floats, row: _Ints) -> float:
    """Bits that a symbol takes, without the raw bits of its token."""
    return float((mass * _lengths(escape[None], row[None])[0, 0]).sum())


def _lengths(raw: _Floats, rows: _Ints) -> _Floats:
    """Bits of each token of each histogram [h] under each row of frequencies [r], as [h, r, token]."""
    own = np.log2(TOTAL / rows.clip(min=1)) + _RAW_BITS
    escape = np.log2(TOTAL / rows[:, _ESCAPE])[None, :, None] + raw[:, None, :]
    coded = rows > 0
    coded[:, _ESCAPE] = False
    return np.asarray(np.where(coded[None], own[None], escape), np.float64)


def _costs(masses: _Floats, raw: _Floats, rows: _Ints) -> _Floats:
    """Bits a symbol of each histogram under each row of frequencies."""
    return np.stack([(mass * _lengths(own[None], rows)[0]).sum(-1) for mass, own in zip(masses, raw)])
