"""Published scores beside recomputed ones: which agree, and which other way to compute them gives the published number."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from nscore._files.alternatives import VARIANT, Scored
from nscore._files.matching import EXACT, SINGLE, decimals, equal, how_equal, tolerance

__all__ = [
    "AGREES",
    "CAUSE",
    "CAUSES",
    "DETAIL",
    "DIFFERENCE",
    "SCORE",
    "Search",
    "compared",
    "finished",
    "unexplained",
]

CAUSES = {
    "normalised_truth": "scored against activations brought to the scale of prompts, not against the neuron's own",
    "raw_predictions": "scored against the predictions before calibration",
    "fit_on_scored": "calibrated on the very tokens that are scored, so that the correlation is |r|",
    "failures_as_zero": "tokens without a prediction scored as 0",
    "mean_of_records": "the mean of the records' scores, not the score of all their tokens",
    "some_records": "scored over some of the records",
    "rounding": "right, and written with fewer digits",
    "missing_guard": "another value where the score is undefined",
    "placeholder": "0 on every row: it was not computed",
    "no_tokens": "nothing to compute it from is there",
    "unknown": "no known reason gives the published number",
}
"""Why a published score may differ, in words."""

NOT_PUBLISHED = "not_published"
SCORE, RECOMPUTED, DIFFERENCE, AGREES, CAUSE, DETAIL = "score", "recomputed", "difference", "agrees", "cause", "detail"
VALUE, TOLERATED, CONSTANT, PLACES, HOW, RANK = "published", "__tolerance", "__constant", "__places", "__how", "__rank"
# Fewer decimals than that are met by chance.
FEW_PLACES = 4


def compared(told: pl.DataFrame, found: pl.DataFrame, names: list[str], metrics: Sequence[str]) -> pl.DataFrame:
    """A row for each score, with `agrees` and what can be said of the cause at a glance."""
    parts = []
    for name in metrics:
        published = told.select(*names, pl.col(name).cast(pl.Float64).alias(VALUE)).with_columns(
            _places(told[name]).alias(PLACES), _placeholder(told[name])
        )
        constant = (pl.col("activation_m2") == 0) | (pl.col("predicted_m2") == 0)
        right = found.select(
            *names,
            pl.col(name).cast(pl.Float64).alias(RECOMPUTED),
            tolerance(name).alias(TOLERATED),
            constant.alias(CONSTANT),
        )
        both = published.join(right, on=names, how="full", coalesce=True, nulls_equal=True)
        parts.append(both.select(*names, pl.lit(name).alias(SCORE), pl.exclude(names)))
    rows = pl.concat(parts)
    agrees, cause, detail = _at_a_glance()
    return rows.with_columns(agrees.alias(AGREES)).with_columns(cause.alias(CAUSE)).with_columns(detail.alias(DETAIL))


def _at_a_glance() -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    told, right = pl.col(VALUE), pl.col(RECOMPUTED)
    undefined = ~right.is_finite()
    guarded = (pl.col(SCORE) == "ev_correlation_score") & (right == 0.0) & pl.col(CONSTANT)
    agrees = (
        # JSON has no word for NaN but null
        pl.when(told.is_null() & (right.is_null() | undefined))
        .then(pl.lit(value=True))
        .when(told.is_null() & ~guarded)
        .then(None)
        .when(right.is_null())
        .then(told.is_nan())
        .otherwise(equal(told, right, pl.col(TOLERATED)).fill_null(value=False))
    )
    differs = ~pl.col(AGREES)
    missing = (told.fill_null(float("nan")).is_nan() & guarded) | ((told == 0.0) & (undefined | right.is_null()))
    how = how_equal(told, right, pl.col(TOLERATED), pl.col(PLACES))
    plain = (how == SINGLE) | (how.is_not_null() & (pl.col(PLACES) >= FEW_PLACES))
    cause = (
        pl.when(pl.col(AGREES).is_null())
        .then(pl.lit(NOT_PUBLISHED))
        .when(differs & pl.col("__placeholder") & (told == 0.0))
        .then(pl.lit("placeholder"))
        .when(differs & missing)
        .then(pl.lit("missing_guard"))
        .when(differs & right.is_null())
        .then(pl.lit("no_tokens"))
        .when(differs & plain)
        .then(pl.lit("rounding"))
    )
    given = pl.when(told.fill_null(float("nan")).is_nan()).then(pl.lit("NaN where a constant gives 0.0"))
    detail = (
        pl.when(pl.col(CAUSE) == "missing_guard")
        .then(given.otherwise(pl.lit("0.0 where the score is undefined")))
        .when(pl.col(CAUSE) == "rounding")
        .then(how)
    )
    return agrees, cause, detail


def _places(column: pl.Series) -> pl.Series:
    """To how many decimals each number may have been rounded: as the whole column was, or else as it was itself."""
    places = decimals(column)
    known = column.cast(pl.Float64).is_finite().fill_null(value=False)
    if places.filter(known).null_count() == 0 and known.any():
        return pl.Series([places.max()] * column.len(), dtype=pl.Int32)
    return pl.select(pl.when(places >= 3).then(places)).to_series()


def _placeholder(column: pl.Series) -> pl.Expr:
    """Whether the whole column is 0, as where a score is written that was never computed."""
    known = column.cast(pl.Float64).drop_nulls()
    return pl.lit(known.len() > 0 and bool((known == 0.0).all())).alias("__placeholder")


def unexplained(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that differ, and nobody knows why yet."""
    return rows.filter(~pl.col(AGREES) & pl.col(CAUSE).is_null())


class Search:
    """Looks for the way that gives each published number which differs, one way after another.

    An exact one goes before one with fewer digits, an earlier before a later one: what is met exactly is not looked for again.
    """

    def __init__(self, rows: pl.DataFrame, names: list[str]) -> None:
        self._rows, self._names = rows, names
        self._left = unexplained(rows)
        self._found = [_fitting(self._left, names, 0, ("rounding", None, self._left.select(*names, SCORE, RECOMPUTED)))]

    @property
    def done(self) -> bool:
        """Whether nothing is left to look for."""
        return not self._left.height

    def take(self, way: Scored) -> None:
        """Tries a way."""
        if self.done:
            return
        fits = _fitting(self._left, self._names, len(self._found), way)
        self._found.append(fits)
        met = fits.filter(pl.col(HOW) == EXACT)
        self._left = self._left.join(met, on=[*self._names, SCORE], how="anti", nulls_equal=True)

    def result(self) -> pl.DataFrame:
        """The rows with what was found."""
        names = self._names
        best = (
            pl.concat(self._found)
            .sort(pl.col(HOW) != EXACT, RANK, maintain_order=True)
            .unique([*names, SCORE], keep="first", maintain_order=True)
            .select(*names, SCORE, pl.col(CAUSE).alias("__cause"), pl.col(DETAIL).alias("__detail"))
        )
        told = self._rows.join(best, on=[*names, SCORE], how="left", nulls_equal=True, maintain_order="left")
        return told.with_columns(
            pl.coalesce(CAUSE, "__cause").alias(CAUSE), pl.coalesce(DETAIL, "__detail").alias(DETAIL)
        ).drop("__cause", "__detail")


def _fitting(left: pl.DataFrame, names: list[str], rank: int, way: Scored) -> pl.DataFrame:
    """The rows whose published number a way gives, exactly or to the digits that were written."""
    cause, detail, frame = way
    said = pl.col(VARIANT) if detail is None and VARIANT in frame.columns else pl.lit(detail, pl.String)
    if SCORE in frame.columns:
        values = frame.rename({RECOMPUTED: "__value"}).with_columns(said.alias(DETAIL))
    else:
        scores = [m for m in left[SCORE].unique() if m in frame.columns]
        each = [
            frame.select(
                *names, pl.lit(m).alias(SCORE), pl.col(m).cast(pl.Float64).alias("__value"), said.alias(DETAIL)
            )
            for m in scores
        ]
        if not each:
            return _nothing(left, names)
        values = pl.concat(each)
    joined = left.select(*names, SCORE, VALUE, TOLERATED, PLACES).join(values, on=[*names, SCORE], nulls_equal=True)
    # of many ways some meet a number of few digits by chance
    places = pl.col(PLACES) if cause == "rounding" else pl.when(pl.col(PLACES) >= FEW_PLACES).then(PLACES)
    how = how_equal(pl.col(VALUE), pl.col("__value"), pl.col(TOLERATED), places)
    fits = joined.with_columns(how.alias(HOW), pl.lit(rank).alias(RANK), pl.lit(cause).alias(CAUSE)).filter(
        pl.col(HOW).is_not_null()
    )
    with_digits = pl.when((pl.col(HOW) != EXACT) & (cause != "rounding")).then(
        pl.concat_str([DETAIL, HOW], separator=", ", ignore_nulls=True)
    )
    return fits.select(
        *names,
        SCORE,
        HOW,
        RANK,
        CAUSE,
        with_digits.otherwise(pl.col(HOW) if cause == "rounding" else pl.col(DETAIL)).alias(DETAIL),
    )


def _nothing(left: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        **{n: left.schema[n] for n in names},
        SCORE: pl.String,
        HOW: pl.String,
        RANK: pl.Int32,
        CAUSE: pl.String,
    }
    return pl.DataFrame(schema=schema | {DETAIL: pl.String})


def finished(rows: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """The rows as they are given out."""
    constant = (pl.col(SCORE) == "ev_correlation_score") & pl.col(CONSTANT) & (pl.col(RECOMPUTED) == 0.0)
    why = ~pl.col(AGREES) & pl.col(CAUSE).is_null()
    noise = why & constant & pl.col(VALUE).is_finite()
    return (
        rows.with_columns(
            (pl.col(VALUE) - pl.col(RECOMPUTED)).alias(DIFFERENCE),
            pl.when(noise).then(pl.lit("a number where a constant gives 0.0")).otherwise(DETAIL).alias(DETAIL),
            pl.when(noise)
            .then(pl.lit("missing_guard"))
            .when(why)
            .then(pl.lit("unknown"))
            .otherwise(CAUSE)
            .alias(CAUSE),
        )
        .select(*names, SCORE, VALUE, RECOMPUTED, DIFFERENCE, AGREES, CAUSE, DETAIL)
        .sort(*names, maintain_order=True)
    )
