"""Confidence intervals of pooled scores, by resampling records: from the sequence scores, without the tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from nscore._statistics.alike import Records, measured
from nscore._statistics.bounds import Draws, Interval, Method, ends
from nscore._statistics.resampling import Resampler
from nscore._tables.fused import Floats, Indices
from nscore.frames import Frame, source
from nscore.metrics import Metric, MetricLike, resolve
from nscore.pool import decomposing, pooled_rows, rows_of_records
from nscore.records import N_PREDICTED, N_TOKENS, STRATUM

__all__ = ["Method", "beside", "high", "intervals", "is_stratified", "limits_of", "low", "with_intervals"]


def intervals(
    sequence_scores: Frame,
    *,
    metrics: Sequence[MetricLike] | str | None = None,
    by: Sequence[str] | None = None,
    method: Method = "jackknife",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    stratified: bool | None = None,
    weights: str | None = None,
) -> pl.DataFrame:
    """Pooled scores with confidence intervals: how far a score would move with other records of the same kind.

    What is drawn again, or left out, is a record with all of its tokens, which are not independent of one another.

    `jackknife`: `score -+ t * se` with `se^2 = sum over strata of (n - 1) / n * sum (score without i - mean)^2` and t of
    Student's distribution with as many degrees of freedom as records less strata; never beyond the score's best value.
    A score between two bounds, such as a correlation, is taken on the scale of its logit (of a correlation Fisher's z,
    twice), unless it lies at a bound with all records or without one. It draws nothing and costs next to nothing.

    `percentile`: between two quantiles (linear, as `numpy.quantile`) of the scores of resamples, each of which pools as
    many records as there are, drawn with replacement. `bca` corrects these quantiles for the bias of the score and for
    the change of its spread (Efron's bias-corrected and accelerated).

    Few records bound what any of them can do: in simulations of ten sparse records, 95% intervals of the correlation
    held the truth in 82 to 85 of 100 cases by `jackknife`, in 72 to 82 by the other two; of a hundred records in 89 and
    90, and in 86 to 89 (`benchmarks/README.md`). The truth may lie farther off than an interval says.

    Args:
        sequence_scores: what `score_sequences` gives, or a path to it.
        metrics: as in `pool`, those that decompose.
        by: the keys to pool by; see `pool`.
        method: `"jackknife"`, `"bca"` or `"percentile"`.
        level: the share of such intervals that are to hold the truth.
        resamples: how many resamples are drawn.
        seed: draws them: explanations with equally many records share them, and the same seed gives the same
            intervals whatever else is in the table.
        stratified: whether each stratum keeps its number of records; where the table has a `stratum`, if left out.
        weights: a column that says how much each token of the record counts; see `pool`.

    Returns:
        As `pool` does, with `{score}_low` and `{score}_high` after each score. Records without a scored token take no
        part (but in `coverage`). Both ends are null where the score is null, NaN or infinite; with fewer than two
        records, or just one of a stratum; where the score is undefined in more than half of the resamples; with
        `bca` and `jackknife` also where it is undefined without one of the records.

    Raises:
        PoolError: if a metric does not decompose.
        TableError: if moments are missing, or there is no `stratum` to keep.
        UnknownNameError: if there is no such metric or method.
        SettingError: if level, resamples or seed cannot be.

    Source: Efron, "Better bootstrap confidence intervals", 1987; for strata Davison and Hinkley, "Bootstrap methods
    and their application", 1997, sections 3.2 and 5.3.

    Examples:
        >>> import nscore as ns
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 2, 3, 4], "activation": [0.0, 1.0, 2.0, 3.0],
        ...                    "predicted": [1.0, 3.0, 5.0, 7.0]})
        >>> found = intervals(ns.score_sequences(df), metrics=["mean_absolute_error"])
        >>> found.select(pl.col("^mean.*$").round(3)).row(0)
        (2.5, 0.446, 4.554)
    """
    wanted = Interval(method, level, resamples, seed)
    chosen = decomposing(metrics)
    strata = is_stratified(sequence_scores, stratified)
    extra = [c for c in (weights, STRATUM if strata else None) if c is not None]
    table, keys = rows_of_records(sequence_scores, by, extra)
    return with_intervals(
        pooled_rows(table, keys, chosen, weights),
        Records.of(table, keys, weights=weights, stratified=strata),
        chosen,
        wanted,
    )


def beside(
    scores: pl.DataFrame,
    sequences: pl.DataFrame,
    metrics: Sequence[MetricLike],
    method: Method,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    weights: str | None = None,
) -> pl.DataFrame:
    """Scores that were made of these sequence scores, with `{score}_low` and `{score}_high` after those that decompose."""
    chosen = [m for m in resolve(metrics) if m.decomposes]
    found = intervals(
        sequences, metrics=chosen, method=method, level=level, resamples=resamples, seed=seed, weights=weights
    )
    return _after(scores, [found[c(m.name)] for m in chosen for c in (low, high)])


def with_intervals(pooled: pl.DataFrame, records: Records, chosen: list[Metric], wanted: Interval) -> pl.DataFrame:
    """The pooled scores, row after row those of the records' explanations, with two ends after each score."""
    scored = records.only(records.scored())
    both: dict[str, Floats] = {}
    # how much was predicted is a matter of all records, also of those of which nothing was
    counting = [m for m in chosen if {N_TOKENS, N_PREDICTED} & set(m.from_moments().meta.root_names())]
    for part, rows in ([m for m in chosen if m not in counting], scored), (counting, records):
        if not part:
            continue
        limits = [limits_of(m) for m in part]

        def measure(
            draws: Draws,
            places: Indices,
            part: list[Metric] = part,
            rows: Records = rows,
            limits: list[tuple[float, float]] = limits,
        ) -> Floats:
            resampler = Resampler(rows.taken(places), part)
            return np.concatenate(ends(resampler, len(places), draws, wanted, limits))

        found = measured(rows, measure, 2 * len(part), resamples=wanted.drawn, seed=wanted.seed)
        for i, m in enumerate(part):
            both |= {low(m.name): found[2 * i], high(m.name): found[2 * i + 1]}
    return _after(pooled, [pl.Series(name, x).fill_nan(None) for name, x in both.items()])


def _after(scores: pl.DataFrame, both: list[pl.Series]) -> pl.DataFrame:
    """The scores, each with its two ends after it."""
    names = {end.name for end in both}
    columns = [c for name in scores.columns for c in (name, low(name), high(name)) if c == name or c in names]
    return scores.hstack(both).select(columns)


def limits_of(m: Metric) -> tuple[float, float]:
    """Between which values a score lies, as far as its best and its worst value are known."""
    least, most = (m.worst, m.best) if m.higher_is_better else (m.best, m.worst)
    return -np.inf if np.isnan(least) else least, np.inf if np.isnan(most) else most


def is_stratified(sequence_scores: Frame, stratified: bool | None) -> bool:  # noqa: FBT001  (passed on)
    """Whether strata keep their numbers of records: as was said, else where there are strata."""
    return STRATUM in source(sequence_scores).schema() if stratified is None else stratified


def low(name: str) -> str:
    """The column of an interval's low end."""
    return f"{name}_low"


def high(name: str) -> str:
    """The column of an interval's high end."""
    return f"{name}_high"
