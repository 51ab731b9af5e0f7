"""Scores: one row a record with its moments, and one row an explanation, over all of its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl

from nscore._progress import bar, counted
from nscore._tables.fused import Indices, moments_of_runs
from nscore._tables.runs import Columns, Layout, runs
from nscore._tables.stretches import stretches
from nscore._tables.texts import check_table
from nscore.errors import TableError
from nscore.failures import check_statuses, contradicted, has_statuses, with_failures
from nscore.frames import Frame, Source, reading, source
from nscore.intervals import Method, beside
from nscore.leaks import check_leaks
from nscore.metrics import CATALOGUE, MOMENTS, Metric, MetricLike, resolve
from nscore.pool import MEANS, merge, moment_columns, only, pool, strata_of
from nscore.records import (
    ACTIVATION,
    COVERAGE,
    FAILURES,
    LOW_COVERAGE,
    N_PREDICTED,
    N_SEQUENCES,
    N_TOKENS,
    ON_FAILURE,
    PREDICTED,
    SEQUENCE,
    SHOWN,
    SIMULATED,
    SPLIT,
    STATUS,
    STRATUM,
    OnFailure,
    default_by,
    scored_splits,
)
from nscore.validate import check_finite, layout_of, whole_records

__all__ = ["score", "score_sequences"]

# Ranks hold about 85 bytes a row.
HELD_ROWS = 1 << 23
POLICY = pl.Enum(["drop", "zero"])
# What stands beside the scores: a metric of that name would be lost.
COUNTS = [N_TOKENS, N_PREDICTED, FAILURES, COVERAGE]


def score_sequences(
    frame: Frame,
    *,
    by: Sequence[str] | None = None,
    metrics: Sequence[MetricLike] | str | None = None,
    splits: Sequence[str] | None = None,
    on_failure: OnFailure = "drop",
    keep: Sequence[str] = (),
    explanations: Frame | None = None,
    leaks: Literal["refuse", "allow"] = "refuse",
) -> pl.DataFrame:
    """Scores each record: one row a record, with the moments from which `pool` makes the pooled scores.

    The table is read once, in batches, and validated on the way; it may be larger than memory.

    Args:
        frame: a `simulated` table: the keys, `sequence`, `activation`, `predicted`, and what else there is. Polars
            (eager or lazy), Arrow, pandas, or a path, folder or glob of Parquet.
        by: the keys of an explanation; `layer`, `neuron` and, where the columns exist, `simulator` and
            `explanation_id` if left out.
        metrics: names from the catalogue, or aggregating expressions of your own over the columns of `frame`; the
            original's three scores if left out, every one for `"all"`.
        splits: the splits whose records are scored, where the table has a `split`; `valid` and `test` if left out.
        on_failure: what a token without a prediction does: `"drop"` takes it out, `"zero"` scores it as 0, as
            the original does.
        keep: further columns that are constant over a record and travel along, such as a weight.
        explanations: an `explanations` table whose `shown_sequences` say what its author saw.
        leaks: whether records that the author of an explanation was shown may be scored.

    Returns:
        Keys, `sequence`, what was kept, `n_tokens`, `n_predicted`, `failures`, `coverage`, the scores, the moments
        and `on_failure`; sorted by the keys and `sequence`. A record without a token to score has null scores.

        `failures` is a struct that counts the tokens without a prediction by class: their `status`, or `not_run` where
        that is null or `ok`, or there is none. In every row n_tokens = n_predicted + sum of failures, whatever
        `on_failure` says. `n_scored`, a moment, counts what takes part in the scores: the predicted tokens (with
        `"zero"` all) whose activation is known.

    Raises:
        TableError: if the table is not valid, a token without a prediction has a status that nobody knows, one with a
            prediction has the status of a failure, or an expression bears the name of a column that stands beside the scores.
        LeakError: if a record that an author was shown would be scored.
        UnknownNameError: if there is no such metric.

    Examples:
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 1, 1, 1, 2, 2], "activation": [0, 0, 2, 2, 0, 3],
        ...                    "predicted": [1, 1, 5, 5, 1, None]})
        >>> score_sequences(df).select("sequence", "n_tokens", "n_predicted", "ev_correlation_score").rows()
        [(1, 4, 4, 1.0), (2, 2, 1, 0.0)]
        >>> score_sequences(df).select(pl.col("failures").struct.field("http_error", "not_run")).rows()
        [(0, 0), (0, 1)]
    """
    given = source(frame)
    chosen = _chosen(metrics, [*COUNTS, *MOMENTS, ON_FAILURE])
    schema = given.schema()
    keys = list(by) if by is not None else default_by(schema)
    check_table(given, SIMULATED, [*keys, *keep])
    wanted = scored_splits(schema, splits)
    statuses = has_statuses(given)
    values = [ACTIVATION, PREDICTED, *([STATUS] if statuses else [])]
    layout = layout_of(schema, keys, values, [*keep, *([SHOWN] if SHOWN in schema else [])])

    table = _record_moments(given, layout, on_failure)
    if wanted is not None:
        table = table.filter(pl.col(SPLIT).cast(pl.String).is_in(wanted))
    check_leaks(table, keys, explanations, leaks)
    table = with_failures(table, layout.record, given, _tokens(given.frame, wanted, "drop"), statuses=statuses)
    with reading(given):
        return _with_scores(table, layout, chosen, given, wanted=wanted, on_failure=on_failure)


def score(
    frame: Frame,
    *,
    by: Sequence[str] | None = None,
    metrics: Sequence[MetricLike] | str | None = None,
    splits: Sequence[str] | None = None,
    on_failure: OnFailure = "drop",
    strata: bool = False,
    weights: str | None = None,
    intervals: Method | None = None,
    explanations: Frame | None = None,
    leaks: Literal["refuse", "allow"] = "refuse",
) -> pl.DataFrame:
    """Scores each explanation over all tokens of all its records: one row an explanation.

    The pooled score is the formula over the concatenated tokens, never the mean of the sequences' scores.

    Args:
        frame: a `simulated` table, as `score_sequences` takes it.
        by: the keys of an explanation; see `score_sequences`.
        metrics: see `score_sequences`.
        splits: see `score_sequences`.
        on_failure: see `score_sequences`.
        strata: whether to add the scores of each stratum alone, as `{stratum}_only_{score}`.
        weights: a column, constant over a record, that says how much each of its tokens counts; expressions of your
            own do not see it.
        intervals: `"jackknife"`, `"bca"` or `"percentile"` adds 95% confidence intervals, `{score}_low` and
            `{score}_high`, to the scores that decompose; `nscore.intervals` says what they are, and takes other levels.
        explanations: see `score_sequences`.
        leaks: see `score_sequences`.

    Returns:
        Keys, `n_sequences`, `n_tokens`, `n_predicted`, `failures`, `coverage`, `low_coverage`, the scores; sorted by
        the keys. An explanation without a token to score keeps its row, with null scores.

        `failures` counts the tokens without a prediction by class, as in `score_sequences`: n_tokens = n_predicted +
        sum of failures. `low_coverage` is true where the coverage is below 0.95: such scores tell of what was
        predicted alone.

    Raises:
        TableError: as `score_sequences` does.
        LeakError: if a record that an author was shown would be scored.
        UnknownNameError: if there is no such metric.

    Examples:
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 1, 2, 2], "activation": [0.0, 1.0, 0.0, 4.0],
        ...                    "predicted": [0.0, 1.0, 0.0, 1.0]})
        >>> score(df, metrics=["mean_squared_error", "spearman"]).drop("failures").row(0, named=True)
        {'layer': 0, 'neuron': 7, 'n_sequences': 2, 'n_tokens': 4, 'n_predicted': 4, 'coverage': 1.0,
         'low_coverage': False, 'mean_squared_error': 2.25, 'spearman': 0.942809041582063...}
    """
    given = source(frame)
    chosen = _chosen(metrics, [*COUNTS, N_SEQUENCES, LOW_COVERAGE])
    keep = [c for c in (weights, STRATUM if strata else None) if c is not None]
    sequences = score_sequences(
        given,
        by=by,
        metrics=[m for m in chosen if m.decomposes],
        splits=splits,
        on_failure=on_failure,
        keep=keep,
        explanations=explanations,
        leaks=leaks,
    )
    scores = pool_beside_tokens(
        sequences, given, metrics=chosen, splits=splits, on_failure=on_failure, strata=strata, weights=weights
    )
    return scores if intervals is None else beside(scores, sequences, chosen, intervals, weights=weights)


def pool_beside_tokens(
    sequences: pl.DataFrame,
    frame: Frame,
    *,
    metrics: Sequence[MetricLike],
    splits: Sequence[str] | None,
    on_failure: OnFailure,
    strata: bool,
    weights: str | None,
) -> pl.DataFrame:
    """What `score` gives, where the sequence scores are there already: only ranks look at the tokens again."""
    chosen = resolve(metrics)
    from_tokens = [m for m in chosen if not m.decomposes]
    pooled = pool(sequences, metrics=[m for m in chosen if m.decomposes], strata=strata, weights=weights)
    if not from_tokens:
        return pooled
    given = source(frame)
    keys = sequences.columns[: sequences.columns.index(SEQUENCE)]
    wanted = scored_splits(given.schema(), splits)
    there = strata_of(sequences) if strata else []
    for stratum in [None, *there]:
        with reading(given):
            part = _from_tokens(given, keys, from_tokens, wanted, on_failure, stratum=stratum, weights=weights)
        if stratum is not None:
            part = part.rename({m.name: only(stratum, m.name) for m in from_tokens})
        pooled = pooled.join(part, on=keys, how="left", nulls_equal=True, maintain_order="left")
    names = [m.name for m in chosen]
    counts = pooled.columns[: pooled.columns.index(LOW_COVERAGE) + 1]
    scores = [*names, *(only(s, n) for s in there for n in names)]
    return pooled.select(list(dict.fromkeys([*counts, *scores])))


def _chosen(metrics: Sequence[MetricLike] | str | None, taken: Sequence[str]) -> list[Metric]:
    chosen = resolve(metrics)
    for m in chosen:
        if m.name in taken and m is not CATALOGUE[COVERAGE]:
            raise TableError(
                "taken name",
                "metrics=",
                column=m.name,
                found="a column of this name stands beside the scores",
                mend="Give the metric another: expression.alias(...).",
            )
    return chosen


def _record_moments(given: Source, layout: Layout, on_failure: OnFailure) -> pl.DataFrame:
    doubtful: list[bool] = []

    def measure(rows: pl.DataFrame, starts: Indices) -> Columns:
        if STATUS in layout.values and rows.select(contradicted().any()).item():
            doubtful.append(True)
        return _run_moments(rows[ACTIVATION], rows[PREDICTED], starts, on_failure)

    table = runs(given, layout, measure)
    if doubtful:
        check_statuses(given, contradicted())
    sums = table.select((pl.col("activation_abs_sum") + pl.col("squared_error_sum")).is_finite().all()).item()
    if not sums:
        for column in (ACTIVATION, PREDICTED):
            check_finite(given, column, nulls=True)
    table, starts = whole_records(table, layout, given)
    columns = [*dict.fromkeys([*layout.record, *layout.carried]), *MOMENTS]
    # a mean of nothing is not known; in numpy it was NaN
    table = table.with_columns(pl.col(MEANS).fill_nan(None))
    if len(starts) == table.height:
        return table.select(columns)
    pieces = table.select(columns)
    return merge(pieces, layout.record, None).with_columns(pieces[starts].select(layout.carried)).select(columns)


def _run_moments(activation: pl.Series, predicted: pl.Series, starts: Indices, on_failure: OnFailure) -> Columns:
    n_tokens = np.diff(starts, append=len(activation))
    if not activation.null_count() and not predicted.null_count():
        values = moments_of_runs(activation.to_numpy(), predicted.to_numpy(), starts)
        return moment_columns(n_tokens, n_tokens, n_tokens, values)
    has_prediction = predicted.is_not_null().to_numpy()
    if on_failure == "zero":
        predicted = predicted.cast(pl.Float64).fill_null(0.0)
    both = (activation.is_not_null() & predicted.is_not_null()).to_numpy()
    t, p = (x.cast(pl.Float64).fill_null(0.0).to_numpy() for x in (activation, predicted))
    n_predicted, n_scored = (np.add.reduceat(x, starts, dtype=np.int64) for x in (has_prediction, both))
    values = np.zeros((len(MOMENTS) - 3, len(starts)))
    values[:2] = np.nan  # a mean of nothing
    some = n_scored > 0
    inner = np.cumsum(n_scored[some]) - n_scored[some]
    values[:, some] = moments_of_runs(t[both], p[both], inner)
    # what is left out of the scores must be finite all the same
    values[-1] += np.add.reduceat(np.where(both, 0.0, t + p) * 0.0, starts)
    return moment_columns(n_tokens, n_predicted, n_scored, values)


def _with_scores(
    table: pl.DataFrame,
    layout: Layout,
    chosen: list[Metric],
    given: Source,
    *,
    wanted: Sequence[str] | None,
    on_failure: OnFailure,
) -> pl.DataFrame:
    merging = {m.name: m.from_moments() for m in [CATALOGUE[COVERAGE], *chosen] if m.decomposes}
    table = table.with_columns(*merging.values())
    from_tokens = [m for m in chosen if not m.decomposes]
    if from_tokens:
        part = _from_tokens(given, layout.record, from_tokens, wanted, on_failure)
        table = table.join(part, on=layout.record, how="left", nulls_equal=True, maintain_order="left")
    kept = [c for c in layout.carried if c != SHOWN]
    scores = [COVERAGE, *(m.name for m in chosen)]
    columns = [*layout.record, *kept, N_TOKENS, N_PREDICTED, FAILURES, *scores, *MOMENTS[2:]]
    table = table.select(list(dict.fromkeys(columns)))
    return table.with_columns(pl.lit(on_failure, POLICY).alias(ON_FAILURE))


def _tokens(frame: pl.LazyFrame, wanted: Sequence[str] | None, on_failure: OnFailure) -> pl.LazyFrame:
    if wanted is not None:
        frame = frame.filter(pl.col(SPLIT).cast(pl.String).is_in(wanted))
    return frame if on_failure == "drop" else frame.with_columns(pl.col(PREDICTED).fill_null(0))


def _from_tokens(
    given: Source,
    keys: Sequence[str],
    metrics: Sequence[Metric],
    wanted: Sequence[str] | None,
    on_failure: OnFailure,
    *,
    stratum: str | None = None,
    weights: str | None = None,
) -> pl.DataFrame:
    """Metrics that look at the tokens of a group at once; of long files only a stretch of whole groups is held."""

    def made(frame: pl.LazyFrame) -> pl.DataFrame:
        rows = _tokens(frame, wanted, on_failure)
        if stratum is not None:
            rows = rows.filter(pl.col(STRATUM).cast(pl.String) == stratum)
        grouped = counted(rows).group_by(keys).agg(m.from_tokens(weights) for m in metrics)
        return grouped.collect(engine="streaming")

    height = given.height() if given.files else None
    with bar("ranking", "tokens", lambda: height):
        if height is not None and height > 2 * HELD_ROWS:
            each = stretches(given, list(keys), height, HELD_ROWS)
            parts = pl.concat([made(given.frame.slice(start, length)) for start, length in each])
            if not parts.select(pl.struct(keys).is_duplicated().any()).item():
                return parts
        return made(given.frame)  # all at once, too, where the rows of a group lie apart
