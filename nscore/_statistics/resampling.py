"""The scores of any weighting of records, from the moments of the records: resamples, leave-one-outs, swaps.

The moments of a record, taken about a centre that its explanation's records share, are sums: those of a weighting are
the weights times the records' (one product of matrices for many explanations), and the metrics' own expressions make
scores of them. Each number is split into a high and a low part that leave the product no digit to round, so that what
comes out does not depend on how many explanations lie in a block, nor on how a library multiplies.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from nscore._tables.fused import Floats, Indices
from nscore.metrics import Metric
from nscore.records import N_SCORED

__all__ = ["CELLS", "Resampler"]

CELLS = 65_536
"""Weightings times explanations at a time: enough for the products, few enough that they stay in the cache."""

# A record whose spread is smaller than this share of its square about the centre loses too many digits by centring.
LEAST_SPREAD = 1e-6
# How much larger the square of the distance to a constant record may be than the pooled variance.
FAR = 100.0
# Multiplications in one product; OpenBLAS takes several threads from 262,144 on.
PRODUCT = 200_000
AXES = ("activation", "predicted")
COMOMENT = "comoment"


class Resampler:
    """The records of explanations that have equally many, and the scores of any weighting of them.

    Args:
        moments: the moments of the records, by name, each of shape (explanations, records).
        metrics: which scores, of those that decompose.
    """

    def __init__(self, moments: Mapping[str, Floats], metrics: Sequence[Metric]) -> None:
        self._formulas = [m.from_moments().cast(pl.Float64) for m in metrics]
        self._names = list(dict.fromkeys(n for f in self._formulas for n in f.meta.root_names()))
        self._axes = [a for a in AXES if {f"{a}_mean", f"{a}_m2", COMOMENT} & set(self._names)]
        mass = moments[N_SCORED]
        self._moments = {**moments, **{f"{a}_mean": _filled(moments[f"{a}_mean"], mass) for a in self._axes}}
        self._centre: dict[str, Floats] = {}
        self._frail = np.zeros(len(mass), np.bool_)
        with np.errstate(all="ignore"):
            sums = self._sums(mass)
            self._sum_names = list(sums)
            self._parts = np.stack([_parts(x) for x in sums.values()])

    def scores(self, weights: Floats, groups: slice) -> list[Floats]:
        """Each score of some explanations under each weighting; NaN where it is undefined.

        Args:
            weights: whole numbers from 0, how often each record counts; shape (weightings, records).
            groups: which explanations.

        Returns:
            For each metric a fresh array of shape (explanations, weightings).
        """
        with np.errstate(all="ignore"):
            found = self._weighted(weights, groups)
        shape = found[N_SCORED].shape
        rows = pl.DataFrame({name: found[name].reshape(-1) for name in self._names})
        columns = rows.select(f.alias(str(i)) for i, f in enumerate(self._formulas)).iter_columns()
        # a copy: what is a moment and nothing else would lie in memory that the next call writes to
        return [np.array(c.to_numpy()).reshape(shape) for c in columns]

    def _sums(self, mass: Floats) -> dict[str, Floats]:
        """What adds up over records."""
        sums, off = {N_SCORED: mass}, {}
        for axis in self._axes:
            mean, m2 = self._moments[f"{axis}_mean"], self._moments[f"{axis}_m2"]
            self._centre[axis] = centre = _centre(mass, mean, m2)
            off[axis] = mean - centre[:, None]
            sums[f"{axis}_mean"] = mass * off[axis]
            sums[f"{axis}_m2"] = square = m2 + mass * off[axis] ** 2
            self._frail |= (m2 < LEAST_SPREAD * square).any(axis=1)
        if COMOMENT in self._names:
            sums[COMOMENT] = self._moments[COMOMENT] + mass * off["activation"] * off["predicted"]
        return sums | {n: self._moments[n] for n in self._names if n not in sums}

    def _weighted(self, weights: Floats, groups: slice) -> dict[str, Floats]:
        """The moments of each weighting."""
        parts = self._parts[:, :, groups]
        shape = (parts.shape[2], len(weights))
        sums, low, spare = _scratch((len(parts) + 2, *shape))
        across = np.ascontiguousarray(weights.T)
        for i, (high_part, low_part) in enumerate(parts):
            _product(high_part, across, sums[i])
            _product(low_part, across, low)
            sums[i] += low
        found = dict(zip(self._sum_names, sums, strict=True))
        n = found[N_SCORED]
        for axis in self._axes:
            total, m2 = found[f"{axis}_mean"], found[f"{axis}_m2"]
            shift = np.divide(total, n, out=low)
            if COMOMENT in found and axis == "predicted":
                found[COMOMENT] -= np.multiply(found["activation_mean"], shift, out=spare)
            m2 -= np.multiply(total, shift, out=spare)
        for axis in self._axes:
            np.divide(found[f"{axis}_mean"], n, out=found[f"{axis}_mean"])
            found[f"{axis}_mean"] += self._centre[axis][groups, None]
        frail = np.flatnonzero(self._frail[groups])
        if len(frail):
            self._merge(found, weights, frail, np.arange(len(self._frail))[groups][frail])
        return found

    def _merge(self, found: dict[str, Floats], weights: Floats, into: Indices, groups: Indices) -> None:
        """The centred moments of explanations that lose digits by a common centre, each weighting about its own mean.

        A record alone, or records of one constant, then have a spread of exactly 0.
        """
        mass = self._moments[N_SCORED][groups]
        first = ((weights > 0) & (mass > 0)[:, None]).argmax(axis=2)
        off: dict[str, list[Floats]] = {}
        for axis in self._axes:
            mean = self._moments[f"{axis}_mean"][groups]
            base = np.take_along_axis(mean, first, axis=1)
            up = [mean[:, r, None] - base for r in range(mean.shape[1])]
            shift = sum(weights[:, r] * mass[:, r, None] * x for r, x in enumerate(up)) / found[N_SCORED][into]
            found[f"{axis}_mean"][into] = base + shift
            off[axis] = [x - shift for x in up]
        for name, (x, y) in {f"{a}_m2": (a, a) for a in self._axes}.items() | ({COMOMENT: AXES}.items()):
            if name in found:
                within = self._moments[name][groups]
                pairs = enumerate(zip(off[x], off[y], strict=True))
                parts = (weights[:, r] * (within[:, r, None] + mass[:, r, None] * a * b) for r, (a, b) in pairs)
                found[name][into] = sum(parts)


def _centre(mass: Floats, mean: Floats, m2: Floats) -> Floats:
    """What each explanation's records are centred on: their pooled mean, or that of a record that is constant.

    Of records that are silent throughout nothing at all is left then, as of a constant it must; unless the constant
    lies so far away that the others would lose digits.
    """
    first = mean[:, :1]
    n = mass.sum(axis=1)
    pooled = first[:, 0] + (mass * (mean - first)).sum(axis=1) / n
    variance = (m2 + mass * (mean - pooled[:, None]) ** 2).sum(axis=1) / n
    size = np.where(m2 == 0, np.abs(mean), np.inf)
    constant = np.take_along_axis(mean, size.argmin(axis=1)[:, None], axis=1)[:, 0]
    near = (m2 == 0).any(axis=1) & ((pooled - constant) ** 2 <= FAR * variance)
    return np.where(near, constant, pooled)


def _filled(mean: Floats, mass: Floats) -> Floats:
    """The means, with another's for a record of which nothing is scored: it has no weight, and is no NaN."""
    other = np.take_along_axis(mean, (mass > 0).argmax(axis=1)[:, None], axis=1)
    return np.where(mass > 0, mean, np.nan_to_num(other))


def _parts(x: Floats) -> tuple[Floats, Floats]:
    """Two parts whose sum is x, each a multiple of a power of two so large that no weighted sum of it is rounded."""
    bits = int(x.shape[1]).bit_length() + 1
    high = _rounded(x, bits)
    return high, _rounded(x - high, bits)


def _rounded(x: Floats, bits: int) -> Floats:
    exponent = np.frexp(np.abs(x).max(axis=1, keepdims=True, initial=0.0))[1]
    unit = np.ldexp(1.0, np.maximum(exponent + bits - 53, -1074))
    rounded: Floats = np.rint(x / unit) * unit
    return rounded


def _product(x: Floats, across: Floats, out: Floats) -> None:
    """`x @ across`, in pieces so small that the library takes one thread for each: threads of its own would collide."""
    records, weightings = across.shape
    wide = max(1, min(weightings, PRODUCT // records))
    tall = max(1, PRODUCT // (records * wide))
    for row in range(0, len(x), tall):
        for column in range(0, weightings, wide):
            piece = slice(row, row + tall), slice(column, column + wide)
            np.matmul(x[piece[0]], across[:, piece[1]], out=out[piece])


def _scratch(shape: tuple[int, int, int]) -> tuple[Floats, Floats, Floats]:
    """Arrays that each thread uses again and again: fresh ones would be mapped and faulted in every time."""
    size = int(np.prod(shape))
    if getattr(_held, "buffer", np.empty(0)).size < size:
        _held.buffer = np.empty(size)
    arrays: Floats = _held.buffer[:size].reshape(shape)
    return arrays[:-2], arrays[-2], arrays[-1]


_held = threading.local()
