"""The moments in numpy, for rows that lie in runs: the same as `Moments.of` and `Moments.merged`, many times faster.

A run is a stretch of consecutive rows of one group; `starts` holds the first row of each. Property tests hold these
functions equal to the expressions, which are the definition.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Indices", "Numbers", "moments_of_merged_runs", "moments_of_runs"]

Floats: TypeAlias = npt.NDArray[np.float64]
Numbers: TypeAlias = npt.NDArray[np.number]
Indices: TypeAlias = npt.NDArray[np.intp]

# Rows at a time: what is made of a block stays in the second-level cache of one core.
BLOCK_ROWS = 131_072


def moments_of_runs(t: Numbers, p: Numbers, starts: Indices) -> Floats:
    """The eight moments after the counts (rows, in the order of `MOMENTS`) of each run (columns)."""
    result = np.empty((8, len(starts)))
    ends = np.append(starts[1:], len(t))
    lengths = ends - starts
    # Three arrays are used again for each block: fresh ones would be mapped and faulted in again and again.
    scratch = np.empty((3, max(BLOCK_ROWS, int(lengths.max(initial=0)))))
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(ends, starts[first] + BLOCK_ROWS, side="right")), first + 1)
        rows = slice(starts[first], ends[last - 1])
        here = scratch[:, : rows.stop - rows.start]
        here[0], here[1] = t[rows], p[rows]
        result[:, first:last] = _block(
            here[0], here[1], here[2], _runs(starts[first:last] - rows.start, lengths[first:last])
        )
        first = last
    return result


def _block(t: Floats, p: Floats, error: Floats, runs: _Runs) -> list[Floats]:
    np.subtract(t, p, out=error)
    squared_error_sum = runs.dot(error, error)
    abs_error_sum = runs.sum(np.abs(error, out=error))
    activation_abs_sum = runs.sum(np.abs(t, out=error))
    t_mean, p_mean = runs.sum(t) / runs.lengths, runs.sum(p) / runs.lengths
    t_off, p_off = runs.less(t, t_mean), runs.less(p, p_mean)
    t_m2, p_m2, comoment = runs.dot(t_off, t_off), runs.dot(p_off, p_off), runs.dot(t_off, p_off)
    if _narrow(t_mean, t_m2, runs.lengths) or _narrow(p_mean, p_m2, runs.lengths):
        t_rest, p_rest = runs.sum(t_off), runs.sum(p_off)
        t_m2, p_m2 = (t_m2 - t_rest**2 / runs.lengths).clip(0), (p_m2 - p_rest**2 / runs.lengths).clip(0)
        comoment -= t_rest * p_rest / runs.lengths
        t_constant, p_constant = runs.constant(t_off), runs.constant(p_off)
        t_mean += np.where(t_constant, runs.first(t_off), 0)
        p_mean += np.where(p_constant, runs.first(p_off), 0)
        t_m2[t_constant], p_m2[p_constant], comoment[t_constant | p_constant] = 0, 0, 0
    return [t_mean, p_mean, t_m2, p_m2, comoment, activation_abs_sum, abs_error_sum, squared_error_sum]


def _narrow(mean: Floats, m2: Floats, lengths: Indices) -> bool:
    """Whether in some run the mean is so large against the spread that its rounding shows: a constant, at worst."""
    return bool(((m2 <= lengths * (1e-6 * mean) ** 2) & (mean != 0)).any())


class _Runs(Protocol):
    """What is done to each run of a block: rows of an array where they are of one length, stretches where not."""

    lengths: Indices

    def sum(self, x: Floats) -> Floats: ...
    def dot(self, x: Floats, y: Floats) -> Floats: ...
    def less(self, x: Floats, value: Floats) -> Floats: ...
    def first(self, x: Floats) -> Floats: ...
    def constant(self, x: Floats) -> npt.NDArray[np.bool_]: ...


class _Even:
    def __init__(self, lengths: Indices) -> None:
        self.lengths = lengths
        self._shape = (len(lengths), int(lengths[0]))
        self._ones = np.ones(self._shape[1])

    def sum(self, x: Floats) -> Floats:
        return np.asarray(np.vecdot(x.reshape(self._shape), self._ones))

    def dot(self, x: Floats, y: Floats) -> Floats:
        return np.asarray(np.vecdot(x.reshape(self._shape), y.reshape(self._shape)))

    def less(self, x: Floats, value: Floats) -> Floats:
        rows = x.reshape(self._shape)
        np.subtract(rows, value[:, None], out=rows)
        return x

    def first(self, x: Floats) -> Floats:
        return x.reshape(self._shape)[:, 0]

    def constant(self, x: Floats) -> npt.NDArray[np.bool_]:
        rows = x.reshape(self._shape)
        return np.asarray(rows.min(axis=1) == rows.max(axis=1))


class _Ragged:
    def __init__(self, starts: Indices, lengths: Indices) -> None:
        self._starts, self.lengths = starts, lengths

    def sum(self, x: Floats) -> Floats:
        return np.add.reduceat(x, self._starts)

    def dot(self, x: Floats, y: Floats) -> Floats:
        return np.add.reduceat(x * y, self._starts)

    def less(self, x: Floats, value: Floats) -> Floats:
        x -= np.repeat(value, self.lengths)
        return x

    def first(self, x: Floats) -> Floats:
        return x[self._starts]

    def constant(self, x: Floats) -> npt.NDArray[np.bool_]:
        return np.equal(np.minimum.reduceat(x, self._starts), np.maximum.reduceat(x, self._starts))


def _runs(starts: Indices, lengths: Indices) -> _Runs:
    return _Even(lengths) if (lengths == lengths[0]).all() else _Ragged(starts, lengths)


def moments_of_merged_runs(columns: list[Floats], mass: Floats, w: Floats | None, starts: Indices) -> Floats:
    """The eight moments after the counts of each run of rows that hold moments; no row has a mass of 0."""
    t, p, t_m2, p_m2, comoment, *sums = columns
    lengths = np.diff(starts, append=len(mass))
    n = np.add.reduceat(mass, starts)

    def total(x: Floats) -> Floats:
        return np.add.reduceat(x if w is None else x * w, starts)

    def centre(x: Floats, m2: Floats) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
        mean = np.add.reduceat(mass * x, starts) / n
        constant = (np.minimum.reduceat(x, starts) == np.maximum.reduceat(x, starts)) & (
            np.maximum.reduceat(m2, starts) == 0
        )
        mean[constant] = x[starts][constant]
        return mean, x - np.repeat(mean, lengths), constant

    t_mean, t_off, t_constant = centre(t, t_m2)
    p_mean, p_off, p_constant = centre(p, p_m2)
    t_mass, p_mass = mass * t_off, mass * p_off
    t_rest, p_rest = np.add.reduceat(t_mass, starts), np.add.reduceat(p_mass, starts)
    merged = [
        total(t_m2) + np.add.reduceat(t_mass * t_off, starts) - t_rest**2 / n,
        total(p_m2) + np.add.reduceat(p_mass * p_off, starts) - p_rest**2 / n,
        total(comoment) + np.add.reduceat(t_mass * p_off, starts) - t_rest * p_rest / n,
    ]
    merged[0][t_constant], merged[1][p_constant], merged[2][t_constant | p_constant] = 0, 0, 0
    return np.stack([t_mean, p_mean, *merged, *map(total, sums)])
