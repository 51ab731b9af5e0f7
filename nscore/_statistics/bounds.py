"""From the scores of resamples and of leave-one-outs to the two ends of a confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from nscore._statistics.distributions import normal_cdf, normal_quantile, student_quantile
from nscore._statistics.resampling import CELLS
from nscore._tables.fused import Floats
from nscore.errors import SettingError, UnknownNameError

__all__ = ["Draws", "Estimate", "Interval", "Method", "ends", "leave_one_out", "standard_error"]

Method = Literal["jackknife", "bca", "percentile"]


class Estimate(Protocol):
    """Scores, or differences of scores, as functions of how often each record counts."""

    def scores(self, weights: Floats, groups: slice) -> list[Floats]:
        """See `Resampler.scores`."""
        ...


@dataclass(frozen=True, slots=True)
class Interval:
    """Which interval is wanted.

    Raises:
        UnknownNameError: if there is no such method.
        SettingError: if the level or the number of resamples cannot be.
    """

    method: Method
    level: float
    resamples: int
    seed: int

    @property
    def drawn(self) -> int:
        """How many resamples must be drawn: the jackknife needs none."""
        return 0 if self.method == "jackknife" else self.resamples

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UnknownNameError("interval", self.method, get_args(Method))
        if not 0 < self.level < 1:
            raise SettingError(f"level: found {self.level}, expected a share between 0 and 1, such as 0.95")
        if self.resamples < 1:
            raise SettingError(f"resamples: found {self.resamples}, expected 1 or more")
        if self.seed < 0:
            raise SettingError(f"seed: found {self.seed}, expected 0 or more")


@dataclass(frozen=True, slots=True)
class Draws:
    """How often each record counts in each resample of records that fall into strata of so many.

    They depend on the seed and on those numbers alone, so that explanations of equally many records share them, and
    what comes out for one does not depend on which others are there.
    """

    counts: tuple[int, ...]
    resamples: Floats
    """Shape (resamples, records)."""

    @classmethod
    def of(cls, counts: tuple[int, ...], resamples: int, seed: int) -> Draws:
        """Draws with replacement, within each stratum as many records as it has."""
        rng = np.random.default_rng([seed, *counts])
        parts = [rng.multinomial(n, np.full(n, 1 / n), size=resamples) for n in counts]
        return cls(counts, np.concatenate(parts, axis=1).astype(np.float64))


def leave_one_out(records: int) -> Floats:
    """Weightings that each leave one record out, in the order of the records."""
    weights: Floats = 1 - np.eye(records)
    return weights


def ends(
    estimate: Estimate, size: int, draws: Draws, wanted: Interval, limits: Sequence[tuple[float, float]]
) -> list[tuple[Floats, Floats]]:
    """The low and the high end of each score of so many explanations; NaN where there is no interval.

    `limits` are the values of each score that no end lies beyond.
    """
    records = sum(draws.counts)
    everything = slice(0, size)
    points = [x[:, 0] for x in estimate.scores(np.ones((1, records)), everything)]
    outs = [] if wanted.method == "percentile" else estimate.scores(leave_one_out(records), everything)
    if wanted.method == "jackknife":
        t = student_quantile(wanted.level, records - len(draws.counts))
        return [_about(*one, t, draws.counts) for one in zip(points, outs, limits, strict=True)]
    result = [(np.empty(size), np.empty(size)) for _ in points]
    accelerations: list[Floats | None] = [_acceleration(out, draws.counts) for out in outs]
    accelerations = accelerations or [None] * len(points)
    step = max(1, CELLS // len(draws.resamples))
    for first in range(0, size, step):
        here = slice(first, min(first + step, size))
        resampled = estimate.scores(draws.resamples, here)
        for x, point, acceleration, (low, high) in zip(resampled, points, accelerations, result, strict=True):
            a = None if acceleration is None else acceleration[here]
            low[here], high[here] = _quantiles(x, point[here], a, wanted.level)
    return result


def standard_error(left_out: Floats, counts: Sequence[int]) -> Floats:
    """The jackknife's standard error, NaN where the score is undefined without one of the records.

    `sqrt(sum over strata of (n - 1) / n * sum (score without i - their mean in the stratum)^2)`.
    """
    with np.errstate(all="ignore"):
        variance = sum((n - 1) / n * (x**2).sum(axis=1) for n, x in _offsets(left_out, counts))
        return np.asarray(np.sqrt(variance), np.float64)


def _about(
    point: Floats, left_out: Floats, limits: tuple[float, float], t: float, counts: Sequence[int]
) -> tuple[Floats, Floats]:
    """The jackknife's interval, on the scale on which the score has no bounds if it has two."""
    least, most = limits
    with np.errstate(all="ignore"):
        reach = t * standard_error(left_out, counts)
        # of a score that is not finite, nothing is left
        known = np.where(np.isfinite(point) & np.isfinite(reach), point, np.nan)
        low, high = np.clip(known - reach, *limits), np.clip(known + reach, *limits)
        if np.isinf(least) or np.isinf(most):
            return low, high
        middle, out = (np.log((x - least) / (most - x)) for x in (point, left_out))
        reach = t * standard_error(out, counts)
        inner = np.isfinite(middle) & np.isfinite(reach)
        edges = ((least + (most - least) / (1 + np.exp(-z))) for z in (middle - reach, middle + reach))
        first, last = (np.where(inner, edge, end) for edge, end in zip(edges, (low, high), strict=True))
        return first, last


def _acceleration(left_out: Floats, counts: Sequence[int]) -> Floats:
    """How fast the standard error changes with the score: Efron's a, for strata; 0 where nothing varies."""
    with np.errstate(all="ignore"):
        influence = np.concatenate([(1 - n) / n * x for n, x in _offsets(left_out, counts)], axis=1)
        cubes, squares = (influence**3).sum(axis=1), (influence**2).sum(axis=1)
        a = np.asarray(cubes / (6 * squares**1.5), np.float64)
        return np.where(squares == 0, 0.0, a)


def _offsets(left_out: Floats, counts: Sequence[int]) -> list[tuple[int, Floats]]:
    """For each stratum how many records it has, and the scores without each less their mean."""
    parts = np.split(left_out, np.cumsum(counts)[:-1], axis=1)
    return [(n, x - x.mean(axis=1, keepdims=True)) for n, x in zip(counts, parts, strict=True)]


def _quantiles(x: Floats, point: Floats, acceleration: Floats | None, level: float) -> tuple[Floats, Floats]:
    """The interval between two quantiles of the resamples' scores, which are sorted in place; NaN is left out."""
    defined = x.shape[1] - np.count_nonzero(np.isnan(x), axis=1)
    tail = np.array([(1 - level) / 2, (1 + level) / 2])
    if acceleration is None:
        shares = np.broadcast_to(tail, (len(x), 2))
    else:
        below, upto = (np.count_nonzero(part, axis=1) for part in (x < point[:, None], x <= point[:, None]))
        bias = normal_quantile(((below + upto) / 2 + 0.5) / (defined + 1))[:, None]
        z = bias + normal_quantile(tail)
        with np.errstate(all="ignore"):
            shares = normal_cdf(bias + z / np.maximum(1 - acceleration[:, None] * z, 0))
    x.sort(axis=1)
    last = np.maximum(defined - 1, 0)[:, None]
    with np.errstate(all="ignore"):
        place = np.where(np.isnan(shares), 0, shares) * last
        floor = place.astype(np.intp)
        low = np.take_along_axis(x, floor, axis=1)
        high = np.take_along_axis(x, np.minimum(floor + 1, last), axis=1)
        share = place - floor
        # an infinite end is itself, not a mean with its neighbour
        between = np.where((share == 0) | (low == high) | np.isinf(low), low, low + share * (high - low))
    # too few resamples in which the score is defined say nothing of the rest
    told = (np.isfinite(point) & (2 * defined >= x.shape[1]))[:, None] & ~np.isnan(shares)
    between = np.where(told, between, np.nan)
    return between[:, 0], between[:, 1]
