"""The moments in numpy, for rows that lie in runs: the same as `Moments.of` and `Moments.merged`, many times faster.

A run is a stretch of consecutive rows of one group; `starts` holds the first row of each. Property tests hold these
functions equal to the expressions, which are the definition.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Indices", "Numbers", "moments_of_merged_runs", "moments_of_runs"]

Floats: TypeAlias = npt.NDArray[np.float64]
Numbers: TypeAlias = npt.NDArray[np.number]
Indices: TypeAlias = npt.NDArray[np.intp]

# Rows at a time: enough that Python's lock changes hands seldom, few enough that a block stays in the cache.
BLOCK_ROWS = 131_072


# What is not finite, or overflows, shows in the sums; numpy need not warn of it.
@np.errstate(all="ignore")
def moments_of_runs(t: Numbers, p: Numbers, starts: Indices) -> Floats:
    """The eight moments after the counts (rows, in the order of `MOMENTS`) of each run (columns)."""
    result = np.empty((8, len(starts)))
    ends = np.append(starts[1:], len(t))
    lengths = ends - starts
    # Four arrays are used again for each block: fresh ones would be mapped and faulted in again and again.
    scratch = np.empty((4, max(BLOCK_ROWS, int(lengths.max(initial=0)))))
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(ends, starts[first] + BLOCK_ROWS, side="right")), first + 1)
        rows = slice(starts[first], ends[last - 1])
        here = scratch[:, : rows.stop - rows.start]
        here[0], here[1] = t[rows], p[rows]
        block = _Runs(starts[first:last] - rows.start, lengths[first:last], here[3])
        result[:, first:last] = _block(here[0], here[1], here[2], block)
        first = last
    return result


def _block(t: Floats, p: Floats, error: Floats, runs: _Runs) -> list[Floats]:
    np.subtract(t, p, out=error)
    squared_error_sum = runs.dot(error, error)
    abs_error_sum = runs.sum(np.abs(error, out=error))
    activation_abs_sum = runs.sum(np.abs(t, out=error))
    t_mean, t_off = _centred(t, runs)
    p_mean, p_off = _centred(p, runs)
    m2s = runs.dot(t_off, t_off), runs.dot(p_off, p_off), runs.dot(t_off, p_off)
    return [t_mean, p_mean, *m2s, activation_abs_sum, abs_error_sum, squared_error_sum]


def _centred(x: Floats, runs: _Runs) -> tuple[Floats, Floats]:
    """The mean of each run, and the values less the mean, in place.

    They are taken from the first value first: a run with a large mean and a small spread keeps its digits, and of a
    constant exactly nothing is left.
    """
    first = runs.first(x).copy()
    runs.subtract(x, first)
    mean = runs.sum(x) / runs.lengths
    runs.subtract(x, mean)
    return first + mean, x


class _Runs:
    """What is done to each run of a block.

    A run is summed by itself, so that what comes out does not depend on which others lie in the block.
    """

    def __init__(self, starts: Indices, lengths: Indices, spare: Floats) -> None:
        self._starts, self.lengths, self._spare = starts, lengths, spare
        self._even = bool((lengths == lengths[0]).all())

    def sum(self, x: Floats) -> Floats:
        return np.add.reduceat(x, self._starts)

    def dot(self, x: Floats, y: Floats) -> Floats:
        return np.add.reduceat(np.multiply(x, y, out=self._spare), self._starts)

    def subtract(self, x: Floats, value: Floats) -> None:
        if self._even:  # the same, without writing each value out as often as its run is long
            rows = x.reshape(len(value), -1)
            np.subtract(rows, value[:, None], out=rows)
        else:
            x -= np.repeat(value, self.lengths)

    def first(self, x: Floats) -> Floats:
        return x[self._starts]


@np.errstate(all="ignore")
def moments_of_merged_runs(columns: list[Floats], mass: Floats, w: Floats | None, starts: Indices) -> Floats:
    """The eight moments after the counts of each run of rows that hold moments; no row has a mass of 0."""
    t, p, t_m2, p_m2, comoment, *sums = columns
    runs = _Runs(starts, np.diff(starts, append=len(mass)), np.empty(len(mass)))
    n = runs.sum(mass)

    def centred(x: Floats) -> tuple[Floats, Floats]:
        first, off = runs.first(x), x.copy()
        runs.subtract(off, first)
        mean = runs.dot(mass, off) / n
        runs.subtract(off, mean)
        return first + mean, off

    def total(x: Floats) -> Floats:
        return runs.sum(x) if w is None else runs.dot(x, w)

    t_mean, t_off = centred(t)
    p_mean, p_off = centred(p)
    t_mass, p_mass = mass * t_off, mass * p_off
    merged = [
        total(t_m2) + runs.dot(t_mass, t_off),
        total(p_m2) + runs.dot(p_mass, p_off),
        total(comoment) + runs.dot(t_mass, p_off),
    ]
    return np.stack([t_mean, p_mean, *merged, *map(total, sums)])
