"""Pooling: from one row a record to one row an explanation, by merging moments, without the tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from nscore._tables.fused import Floats, Indices, Numbers, moments_of_merged_runs
from nscore._tables.runs import Columns, boundaries, strictly_sorted
from nscore._tables.texts import check_texts
from nscore.errors import PoolError, TableError
from nscore.failures import rows_with_failures, summed
from nscore.frames import Frame, Source, source
from nscore.metrics import CATALOGUE, MOMENTS, Metric, MetricLike, resolve
from nscore.records import (
    COVERAGE,
    FAILURES,
    LEAST_COVERAGE,
    LOW_COVERAGE,
    N_PREDICTED,
    N_SCORED,
    N_SEQUENCES,
    N_TOKENS,
    ON_FAILURE,
    SEQUENCE,
    SEQUENCE_SCORES,
    STRATUM,
)

__all__ = ["decomposing", "merge", "moment_columns", "only", "pool", "pooled_rows", "rows_of_records", "strata_of"]

MEANS = ["activation_mean", "predicted_mean"]


def pool(
    sequence_scores: Frame,
    *,
    by: Sequence[str] | None = None,
    metrics: Sequence[MetricLike] | str | None = None,
    strata: bool = False,
    weights: str | None = None,
) -> pl.DataFrame:
    """Pooled scores from the table of sequence scores alone, by merging centred moments.

    Tables of several shards, strata or splits are merged by concatenating them first. The result equals `score` on
    the tokens.

    Args:
        sequence_scores: what `score_sequences` gives, or a path to it.
        by: the keys to pool by; the keys of the table (its columns before `sequence`) if left out.
        metrics: as in `score_sequences`, those that decompose.
        strata: whether to add the scores of each stratum alone, as `{stratum}_only_{score}`.
        weights: a column that says how much each token of the record counts.

    Returns:
        As `score` does. `failures` is null where those of a merged row are not known (a table written before they
        were counted), and absent where no row has any.

    Raises:
        TableError: if moments are missing, or a record stands in two rows.
        PoolError: if a metric does not decompose, or the rows were made under different `on_failure`.

    Examples:
        >>> import nscore as ns
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 1, 2, 2], "activation": [0, 1, 0, 4],
        ...                    "predicted": [0, 1, 0, 1]})
        >>> pool(ns.score_sequences(df), metrics=["mean_squared_error"])["mean_squared_error"].item()
        2.25
    """
    chosen = decomposing(metrics)
    table, keys = rows_of_records(sequence_scores, by, [c for c in (weights, STRATUM if strata else None) if c])
    pooled = pooled_rows(table, keys, chosen, weights)
    for stratum in strata_of(table) if strata else []:
        part = pooled_rows(table.filter(pl.col(STRATUM).cast(pl.String) == stratum), keys, chosen, weights)
        part = part.select(*keys, *(pl.col(m.name).alias(only(stratum, m.name)) for m in chosen))
        pooled = pooled.join(part, on=keys, how="left", nulls_equal=True, maintain_order="left")
    return pooled


def decomposing(metrics: Sequence[MetricLike] | str | None) -> list[Metric]:
    """The metrics; one that does not decompose is a `PoolError`."""
    chosen = resolve(metrics)
    for m in chosen:
        if not m.decomposes:
            known = ", ".join(m.name for m in CATALOGUE.values() if m.decomposes)
            raise PoolError(
                f"{m.name} does not decompose into moments: compute it from the tokens with nscore.score(..., "
                f"metrics=[{m.name!r}]). From sequence scores alone there are: {known}."
            )
    return chosen


def rows_of_records(
    sequence_scores: Frame, by: Sequence[str] | None, extra: Sequence[str] = ()
) -> tuple[pl.DataFrame, list[str]]:
    """The table of sequence scores, checked, with the rows of an explanation side by side; and the keys to pool by."""
    given = source(sequence_scores)
    schema = given.schema()
    SEQUENCE_SCORES.check(schema, given.name, [*(by or ()), *MOMENTS, *extra])
    record = schema.names()[: schema.names().index(SEQUENCE) + 1]
    keys = list(by) if by is not None else record[:-1]
    columns = list(dict.fromkeys([*keys, *record, *extra, *MOMENTS, ON_FAILURE]))
    check_texts(given, columns)
    table = rows_with_failures(given, columns)

    policies = table[ON_FAILURE].unique().cast(pl.String).sort().to_list()
    if len(policies) > 1:
        raise PoolError(
            f"{given.name}: the rows were made under on_failure={' and '.join(map(repr, policies))}: "
            "score the tokens again under one of them."
        )
    if not strictly_sorted(table, record):
        table = table.sort(record)
        _check_unique(table, record, given)
    if keys != record[: len(keys)]:
        table = table.sort(keys, maintain_order=True)
    return table, keys


def pooled_rows(table: pl.DataFrame, keys: list[str], chosen: list[Metric], weights: str | None) -> pl.DataFrame:
    """One row for each stretch of rows with the same keys: counts and scores."""
    coverage = CATALOGUE[COVERAGE].from_moments()
    scores: dict[str, pl.Expr | pl.Series] = {COVERAGE: coverage}
    scores[LOW_COVERAGE] = (coverage < LEAST_COVERAGE).alias(LOW_COVERAGE)
    scores |= {m.name: m.from_moments() for m in chosen}
    counts: list[str | pl.Series] = [N_TOKENS, N_PREDICTED]
    if FAILURES in table.columns:
        counts.append(summed(table[FAILURES], np.flatnonzero(boundaries(table, keys))))
    return merge(table, keys, weights).select(*keys, N_SEQUENCES, *counts, *scores.values())


def merge(table: pl.DataFrame, keys: list[str], weights: str | None) -> pl.DataFrame:
    """One row for each stretch of rows with the same keys, with the moments of its union."""
    starts = np.flatnonzero(boundaries(table, keys))
    n_tokens, n_predicted = (
        np.add.reduceat(table[c].to_numpy(), starts, dtype=np.int64) if len(starts) else np.empty(0, np.int64)
        for c in (N_TOKENS, N_PREDICTED)
    )
    w = None if weights is None else table[weights].cast(pl.Float64).to_numpy()
    mass = table[N_SCORED].cast(pl.Float64).to_numpy()
    if w is not None:
        mass = mass * w
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=table.height))
    kept = mass > 0
    columns = [table[c].to_numpy() for c in MOMENTS[3:]]
    if not kept.all():
        columns, mass, group = [c[kept] for c in columns], mass[kept], group[kept]
        w = None if w is None else w[kept]
    inner = np.flatnonzero(np.diff(group, prepend=-1))
    n_scored, values = np.zeros(len(starts)), np.zeros((len(columns), len(starts)))
    values[:2] = np.nan
    if len(inner):
        n_scored[group[inner]] = np.add.reduceat(mass, inner)
        values[:, group[inner]] = moments_of_merged_runs(columns, mass, w, inner)
    if w is None:
        n_scored = n_scored.astype(np.int64)
    n_rows = pl.Series(N_SEQUENCES, np.diff(starts, append=table.height))
    merged = [pl.Series(n, column) for n, column in moment_columns(n_tokens, n_predicted, n_scored, values).items()]
    return table.select(keys)[starts].with_columns(n_rows, *merged).with_columns(pl.col(MEANS).fill_nan(None))


def moment_columns(n_tokens: Indices, n_predicted: Indices, n_scored: Numbers, values: Floats) -> Columns:
    """The moments under their names, from three counts and the rows of the fused forms."""
    return dict(zip(MOMENTS, [n_tokens, n_predicted, n_scored, *values], strict=True))


def strata_of(table: pl.DataFrame) -> list[str]:
    """The strata there are, `top` before `random`."""
    return table[STRATUM].cast(pl.String).unique().drop_nulls().sort(descending=True).to_list()


def only(stratum: str, name: str) -> str:
    """The column that holds the score of one stratum alone."""
    return f"{stratum}_only_{name}"


def _check_unique(table: pl.DataFrame, record: list[str], given: Source) -> None:
    again = ~boundaries(table, record)
    if again.any():
        row = table.row(int(np.argmax(again)), named=True)
        name = ", ".join(f"{c}={row[c]!r}" for c in record)
        raise TableError(
            "repeated row",
            given.name,
            found=f"the record {name} stands in two rows",
            mend="Expected each record once; drop the repeated shard.",
        )
