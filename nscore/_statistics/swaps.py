"""The test of a difference on the same records: what it would be, had the two sides changed places on some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from nscore._statistics.resampling import CELLS, Resampler
from nscore._tables.fused import Floats
from nscore.metrics import Metric

__all__ = ["NEAR", "Difference", "q_values", "swap_p_values"]

NEAR = 1e-9
"""What is equal but for this share of itself counts as equal: it is rounding."""


class Difference:
    """The scores of one side less those of the other, for the same weighting of the same records."""

    def __init__(self, a: Mapping[str, Floats], b: Mapping[str, Floats], metrics: Sequence[Metric]) -> None:
        self._a, self._b = Resampler(a, metrics), Resampler(b, metrics)

    def scores(self, weights: Floats, groups: slice) -> list[Floats]:
        """See `Resampler.scores`."""
        sides = zip(self._a.scores(weights, groups), self._b.scores(weights, groups), strict=True)
        with np.errstate(all="ignore"):
            return [x - y for x, y in sides]


def swap_p_values(
    a: Mapping[str, Floats], b: Mapping[str, Floats], metrics: Sequence[Metric], *, resamples: int, seed: int
) -> list[Floats]:
    """For each metric the two-sided p-values of explanations that have equally many records.

    Under the hypothesis that on each record either side could as well have made the other's predictions, each way of
    swapping is as likely as the one seen. All ways are tried if there are no more than `resamples` of them (one side's
    first record stays: the mirror image has the same size), else so many are drawn.
    """
    size, n = a["n_scored"].shape
    if n - 1 < resamples.bit_length():
        swapped = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1).astype(np.float64)
    else:
        swapped = np.random.default_rng([seed, n]).integers(0, 2, (resamples, n)).astype(np.float64)
        swapped[0] = 0
    both = Resampler({name: np.concatenate([x, b[name]], axis=1) for name, x in a.items()}, metrics)
    ways = [np.concatenate(pair, axis=1) for pair in ((1 - swapped, swapped), (swapped, 1 - swapped))]
    result = [np.empty(size) for _ in metrics]
    step = max(1, CELLS // len(swapped))
    for first in range(0, size, step):
        here = slice(first, min(first + step, size))
        with np.errstate(all="ignore"):
            for x, y, p in zip(*(both.scores(way, here) for way in ways), result, strict=True):
                difference = np.abs(x - y)
                seen = difference[:, :1]
                # a way that leaves a score undefined speaks for nothing: it counts as one more that is as large
                as_large = ~(difference < seen * (1 - NEAR))
                p[here] = np.where(np.isfinite(seen[:, 0]), as_large.mean(axis=1), np.nan)
    return result


def q_values(p_values: pl.Series) -> pl.Series:
    """Benjamini and Hochberg's adjusted p-values: of what has a q-value of at most q, a share of q is expected false.

    `q of the i-th smallest of n = min over j >= i of p_j * n / j`, at most 1. Null, where not known, stays null and is
    not counted.

    Args:
        p_values: one of each test, of all that are done at once.

    Source: Benjamini and Hochberg, "Controlling the false discovery rate", 1995.

    Examples:
        >>> q_values(pl.Series([0.01, 0.04, 0.03, None, 0.5])).to_list()
        [0.04, 0.0533333..., 0.0533333..., None, 0.5]
    """
    p = p_values.cast(pl.Float64).fill_nan(None)
    known = np.flatnonzero(p.is_not_null().to_numpy())
    values = p.drop_nulls().to_numpy()
    order = np.argsort(values, kind="stable")
    raised = values[order] * (len(values) / np.arange(1, len(values) + 1))
    result = np.full(len(p), np.nan)
    result[known[order]] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1)
    return pl.Series(p_values.name, result).fill_nan(None)
