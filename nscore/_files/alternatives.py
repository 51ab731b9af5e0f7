"""What else a score could have been computed from: other columns, other truths, some of the records, means of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from nscore.calibrate import calibrate, fit_calibration
from nscore.errors import CalibrationError
from nscore.frames import aligned
from nscore.metrics import CATALOGUE
from nscore.pool import merge
from nscore.records import (
    ACTIVATION,
    PREDICTED,
    PREDICTED_RAW,
    SEQUENCE,
    SHOWN,
    SPLIT,
    STATUS,
    STRATUM,
    OnFailure,
)
from nscore.score import score_sequences

__all__ = ["VARIANT", "Scored", "means", "of_some_records", "of_tokens", "pooled", "scored", "tokens_of"]

Scored = tuple[str, str | None, pl.DataFrame]
"""A cause, what of it, and the scores that it would give: keys, the scores. Where what of it differs by row, `VARIANT` says it."""

DRAWN_IN = "__split"
MOST, VARIANT, INDEX, COUNT = "__most", "__variant", "__index", "__count"
# Records of an explanation that are tried without the others; of so many, the ways are some ten thousand.
MOST_RECORDS = 128
SUBSET_ROWS = 1 << 21


def tokens_of(frame: pl.LazyFrame, keys: Sequence[str], some: pl.DataFrame | None = None) -> pl.LazyFrame:
    """The tokens as they are scored here: of all splits, whatever their status; of some explanations."""
    schema = frame.collect_schema()
    frame = frame.drop([c for c in (STATUS, SHOWN) if c in schema])
    if SPLIT in schema:
        frame = frame.with_columns(pl.col(SPLIT).cast(pl.String).alias(DRAWN_IN)).drop(SPLIT)
    if some is None:
        return frame
    mine = aligned(some.lazy().select(keys), schema, keys).unique()
    return frame.join(mine, on=list(keys), how="semi", nulls_equal=True, maintain_order="left")


def scored(
    tokens: pl.LazyFrame, keys: Sequence[str], metrics: Sequence[str], on_failure: OnFailure = "drop"
) -> pl.DataFrame:
    """One row a record: its scores and moments, and what is said of how it was drawn."""
    keep = [c for c in (STRATUM, DRAWN_IN) if c in tokens.collect_schema()]
    return score_sequences(tokens, by=keys, metrics=list(metrics), on_failure=on_failure, keep=keep, leaks="allow")


def pooled(sequences: pl.DataFrame, keys: list[str], metrics: Sequence[str]) -> pl.DataFrame:
    """One row an explanation: its scores over all of its records, and their moments."""
    return merge(sequences, keys, None).with_columns(CATALOGUE[name].from_moments() for name in metrics)


def of_tokens(tokens: pl.LazyFrame, keys: list[str], metrics: Sequence[str]) -> Iterator[Scored]:
    """A cause, what of it, and the sequence scores that follow, for each way to take the tokens otherwise."""
    yield "failures_as_zero", None, scored(tokens, keys, metrics, "zero")
    has_raw = PREDICTED_RAW in tokens.collect_schema()
    raw = tokens.with_columns(pl.col(PREDICTED_RAW).alias(PREDICTED)) if has_raw else tokens
    if has_raw:
        yield "raw_predictions", None, scored(raw, keys, metrics)
    try:
        fitted = fit_calibration(tokens, by=keys, fit=pl.lit(value=True), fit_on_scored=True)
    except CalibrationError:  # no token has a prediction
        pass
    else:
        lines = calibrate(tokens, by=keys, fitted=fitted)
        yield "fit_on_scored", None, scored(lines, keys, metrics)
    of_record = [*keys, SEQUENCE]
    for within, group in (("the explanation", keys), ("each record", of_record)):
        for truth in _TRUTHS:
            detail = f"{truth.named}, by the highest of {within}"
            yield "normalised_truth", detail, scored(_normalised(tokens, group, truth), keys, metrics)
            if has_raw:
                yield (
                    "normalised_truth",
                    f"{detail}, raw predictions",
                    scored(_normalised(raw, group, truth), keys, metrics),
                )


def means(sequences: pl.DataFrame, keys: list[str], metrics: Sequence[str], what: str) -> Iterator[Scored]:
    """The mean of the records' scores, of those that are numbers, and with 0.0 for the others."""
    known = [pl.col(name).cast(pl.Float64).fill_nan(None) for name in metrics]
    groups = sequences.group_by(keys, maintain_order=True)
    yield "mean_of_records", f"{what}, where they are numbers", groups.agg(x.mean() for x in known)
    yield "mean_of_records", f"{what}, with 0.0 where they are none", groups.agg(x.fill_null(0.0).mean() for x in known)


def of_some_records(sequences: pl.DataFrame, keys: list[str], metrics: Sequence[str]) -> Iterator[Scored]:
    """The scores over some of the records: one stratum, one split, those with every prediction, the first few, all but one, ..."""
    there = pl.col("n_tokens") > 0
    choices = {"the records with a prediction on every token": pl.col("n_predicted") == pl.col("n_tokens")}
    choices["the records in which the neuron is active"] = pl.col("activation_abs_sum") > 0
    choices["the records in which something is predicted"] = (pl.col("predicted_m2") > 0) | (
        pl.col("predicted_mean") != 0
    )
    for column, kind in ((STRATUM, "stratum"), (DRAWN_IN, "split")):
        if column in sequences.columns:
            for value in sequences[column].cast(pl.String).drop_nulls().unique().sort():
                choices[f"the {kind} {value}"] = pl.col(column).cast(pl.String) == value
    for detail, rows in choices.items():
        yield "some_records", detail, pooled(sequences.filter(there & rows), keys, metrics)
    numbered = sequences.with_columns(
        pl.int_range(pl.len()).over(keys).alias(INDEX), pl.len().cast(pl.Int64).over(keys).alias(COUNT)
    ).filter(pl.col(COUNT).is_between(2, MOST_RECORDS))
    for part in _cut(numbered, keys):
        for variants in (_leading, _trailing, _all_but_one, _every_second):
            chosen = variants(part).sort(*keys, VARIANT, maintain_order=True)
            found = pooled(chosen, [*keys, VARIANT], metrics)
            yield "some_records", None, found


@dataclass(frozen=True, slots=True)
class _Truth:
    """Activations on the scale of prompts.

    Attributes:
        named: what is done.
        symmetric: whether it is a share of the highest |activation|, and not of the highest activation.
        value: it, from ten times that share.
    """

    named: str
    symmetric: bool
    value: Callable[[pl.Expr], pl.Expr]


_TRUTHS = [
    _Truth("floor, 0 to 10", symmetric=False, value=lambda x: x.floor().clip(0.0, 10.0)),
    _Truth("ceil, 0 to 10", symmetric=False, value=lambda x: x.ceil().clip(0.0, 10.0)),
    _Truth("trunc, -10 to 10", symmetric=True, value=lambda x: (x.sign() * x.abs().floor()).clip(-10.0, 10.0)),
]


def _normalised(tokens: pl.LazyFrame, group: list[str], truth: _Truth) -> pl.LazyFrame:
    activation = pl.col(ACTIVATION).cast(pl.Float64)
    most = tokens.group_by(group).agg((activation.abs() if truth.symmetric else activation).max().alias(MOST))
    value = pl.when(pl.col(MOST) > 0).then(truth.value(10 * activation / pl.col(MOST))).otherwise(0.0)
    joined = tokens.join(most, on=group, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(pl.when(activation.is_not_null()).then(value).alias(ACTIVATION)).drop(MOST)


def _cut(numbered: pl.DataFrame, keys: list[str]) -> Iterator[pl.DataFrame]:
    """Whole explanations, whose ways to leave records out fill no more than so many rows."""
    cost = numbered.group_by(keys, maintain_order=True).agg(pl.col(COUNT).first().pow(2).alias("__cost"))
    blocks = cost.with_columns(((pl.col("__cost").cum_sum() - pl.col("__cost")) // SUBSET_ROWS).alias("__block"))
    for block in blocks.partition_by("__block", maintain_order=True):
        yield numbered.join(block.select(keys), on=keys, how="semi", nulls_equal=True, maintain_order="left")


def _each(part: pl.DataFrame, cuts: pl.Expr) -> pl.DataFrame:
    """The records once for each number that `cuts` gives."""
    return part.with_columns(cuts.alias("__cut")).explode("__cut")


def _leading(part: pl.DataFrame) -> pl.DataFrame:
    rows = _each(part, pl.int_ranges(1, pl.col(COUNT)))
    said = pl.format("the first {} of {} records", "__cut", COUNT)
    return rows.filter(pl.col(INDEX) < pl.col("__cut")).with_columns(said.alias(VARIANT))


def _trailing(part: pl.DataFrame) -> pl.DataFrame:
    # without the first alone is among those without one
    rows = _each(part, pl.int_ranges(1, pl.col(COUNT)))
    said = pl.format("the last {} of {} records", pl.col(COUNT) - pl.col("__cut"), COUNT)
    return rows.filter(pl.col(INDEX) >= pl.col("__cut")).with_columns(said.alias(VARIANT))


def _all_but_one(part: pl.DataFrame) -> pl.DataFrame:
    rows = _each(part, pl.int_ranges(0, pl.col(COUNT)))
    said = pl.format("all of {} records but number {}", COUNT, "__cut")
    return rows.filter(pl.col(INDEX) != pl.col("__cut")).with_columns(said.alias(VARIANT))


def _every_second(part: pl.DataFrame) -> pl.DataFrame:
    said = pl.format("every second record, from number {}", pl.col(INDEX) % 2)
    return part.with_columns(said.alias(VARIANT))
