"""Explanations that have equally many records of each stratum, so that one set of resamples serves them all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

from nscore._progress import bar
from nscore._statistics.bounds import Draws
from nscore._statistics.resampling import CELLS
from nscore._tables.fused import Floats, Indices
from nscore._tables.runs import boundaries
from nscore.metrics import MOMENTS
from nscore.pool import strata_of
from nscore.records import N_PREDICTED, N_SCORED, N_TOKENS, STRATUM

__all__ = ["Records", "measured"]


@dataclass(frozen=True, slots=True)
class Records:
    """The moments of the records of explanations, record after record.

    Attributes:
        moments: by name, one number a record; what counts tokens is multiplied by the record's weight.
        group: which explanation each record belongs to, ascending.
        stratum: which stratum it is of, from 0; all 0 where strata do not matter.
        size: how many explanations there are.
    """

    moments: dict[str, Floats]
    group: Indices
    stratum: Indices
    size: int

    @classmethod
    def of(cls, table: pl.DataFrame, keys: list[str], *, weights: str | None, stratified: bool) -> Records:
        """The records of a table in which those with the same keys lie side by side."""
        starts = boundaries(table, keys)
        moments = {name: table[name].cast(pl.Float64).to_numpy() for name in MOMENTS}
        if weights is not None:
            w = table[weights].cast(pl.Float64).to_numpy()
            kept = {N_TOKENS, N_PREDICTED, "activation_mean", "predicted_mean"}
            moments = {name: x if name in kept else x * w for name, x in moments.items()}
        stratum = np.zeros(table.height, np.intp)
        if stratified:
            texts = table[STRATUM].cast(pl.String)
            for i, name in enumerate(strata_of(table), start=1):
                stratum[(texts == name).fill_null(value=False).to_numpy()] = i
        return cls(moments, np.cumsum(starts) - 1, stratum, int(starts.sum()))

    def only(self, kept: Indices) -> Records:
        """Some of the records, by their places, which ascend."""
        if len(kept) == len(self.group):
            return self
        moments = {name: x[kept] for name, x in self.moments.items()}
        return Records(moments, self.group[kept], self.stratum[kept], self.size)

    def scored(self) -> Indices:
        """The places of the records of which a token takes part in the scores."""
        return np.flatnonzero(self.moments[N_SCORED] > 0)

    def taken(self, rows: Indices) -> dict[str, Floats]:
        """The moments of some records, in the shape of `rows`."""
        return {name: x[rows] for name, x in self.moments.items()}


def measured(
    records: Records,
    measure: Callable[[Draws, Indices], Floats],
    width: int,
    *,
    resamples: int,
    seed: int,
) -> Floats:
    """What is measured of each explanation with at least two records, and of no stratum just one; NaN of the others.

    Args:
        records: the records.
        measure: is given the draws, and the places of the records, of shape (explanations, records); it gives
            `width` rows of one number an explanation. It is called in several threads.
        width: how many numbers it gives of each.
        resamples: how many draws there are.
        seed: what they depend on.

    Returns:
        An array of shape (width, explanations).
    """
    result = np.full((width, records.size), np.nan)

    def run(part: tuple[Draws, Indices, Indices]) -> int:
        draws, groups, rows = part
        result[:, groups] = measure(draws, rows)
        return len(groups)

    parts = _parts(records, workers := pl.thread_pool_size(), resamples, seed)
    with bar("resampling", "explanations", lambda: records.size) as step, ThreadPoolExecutor(workers) as crew:
        for done in crew.map(run, parts):
            step(done)
    return result


def _parts(records: Records, workers: int, resamples: int, seed: int) -> list[tuple[Draws, Indices, Indices]]:
    """Explanations alike, few enough at a time for each of the workers to have some."""
    n_strata = int(records.stratum.max(initial=0)) + 1
    place = records.group * n_strata + records.stratum
    order = np.argsort(place, kind="stable") if (np.diff(place) < 0).any() else np.arange(len(place))
    counts = np.bincount(place, minlength=records.size * n_strata).reshape(records.size, n_strata)
    starts = np.cumsum(counts.sum(axis=1)) - counts.sum(axis=1)
    kinds, kind = np.unique(counts, axis=0, return_inverse=True)
    parts = []
    for i, row in enumerate(kinds):
        present = tuple(int(n) for n in row if n)
        if sum(present) < 2 or min(present) < 2:
            continue
        draws = Draws.of(present, resamples, seed)
        groups = np.flatnonzero(kind.reshape(-1) == i)
        size = max(1, min(CELLS // sum(present), -(-len(groups) // (2 * workers))))
        for first in range(0, len(groups), size):
            here = groups[first : first + size]
            parts.append((draws, here, order[starts[here][:, None] + np.arange(sum(present))]))
    return parts
