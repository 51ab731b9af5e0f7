"""Calibration: what a simulator says on its own scale becomes a prediction in the neuron's units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args, overload

import polars as pl

from nscore._progress import bar, counted
from nscore.errors import CalibrationError, UnknownNameError
from nscore.frames import Eager, Frame, Lazy, Source, like, source
from nscore.metrics import moments
from nscore.records import (
    ACTIVATION,
    NOT_CALIBRATED,
    OK,
    PREDICTED,
    PREDICTED_RAW,
    SCORED_SPLITS,
    SIMULATED,
    SPLIT,
    STATUS,
    default_by,
)
from nscore.validate import check_finite

__all__ = ["Method", "calibrate", "fit_calibration"]

Method = Literal["none", "linear", "percentile"]

METHOD, N_FITTED, SLOPE, INTERCEPT, KNOTS = "method", "n_fitted", "slope", "intercept", "knots"
RAW, LOW, HIGH = "__raw", "low", "high"


@overload
def calibrate(
    frame: Eager,
    method: Method = ...,
    *,
    fit: pl.Expr | None = ...,
    by: Sequence[str] | None = ...,
    fit_on_scored: bool = ...,
    fitted: pl.DataFrame | None = ...,
) -> pl.DataFrame: ...
@overload
def calibrate(
    frame: Lazy,
    method: Method = ...,
    *,
    fit: pl.Expr | None = ...,
    by: Sequence[str] | None = ...,
    fit_on_scored: bool = ...,
    fitted: pl.DataFrame | None = ...,
) -> pl.LazyFrame: ...
def calibrate(
    frame: Frame,
    method: Method = "linear",
    *,
    fit: pl.Expr | None = None,
    by: Sequence[str] | None = None,
    fit_on_scored: bool = False,
    fitted: pl.DataFrame | None = None,
) -> pl.DataFrame | pl.LazyFrame:
    """Fits a calibration to each explanation on one split and applies it to every row.

    `linear` predicts `slope * raw + intercept`; `percentile` maps the distribution of the raw predictions onto that
    of the activations; `none` leaves the prediction as it is. What it means in numbers: see `fit_calibration`.

    A linear calibration changes no correlation where its slope is positive; a negative slope flips the sign, so that
    an anti-correlated explanation would look good: look at the slopes (`fit_calibration`).

    Args:
        frame: a `simulated` table, as `nscore.score` takes it. Where it has been calibrated before, the raw
            predictions are calibrated again.
        method: `"linear"`, `"percentile"` or `"none"`.
        fit: which rows to fit on; `pl.col("split") == "calibration"` if left out.
        by: the keys of an explanation; see `nscore.score`.
        fit_on_scored: whether the rows to fit on may be rows that are scored.
        fitted: what `fit_calibration` gave, to be applied without another fit.

    Returns:
        The frame with `predicted` calibrated and `predicted_raw` beside it (Float64); eager for an eager frame, lazy
        for a lazy one or a path. `predicted` is null where the raw prediction is, and where its explanation had no
        rows to fit on (there a `status` that was `ok` becomes `not_calibrated`).

    Raises:
        CalibrationError: if the fit would touch scored rows, or no row is there to fit on.
        TableError: if a column is missing.

    Examples:
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 1, 2], "split": ["calibration"] * 2 + ["test"],
        ...                    "activation": [1.0, 3.0, 9.0], "predicted": [0.0, 10.0, 5.0]})
        >>> calibrate(df).select("predicted_raw", "predicted").rows()
        [(0.0, 1.0), (10.0, 3.0), (5.0, 2.0)]
    """
    given, keys = _opened(frame, method, by)
    if method == "none":
        applied = _with_raw(given).with_columns(pl.col(RAW).alias(PREDICTED))
    else:
        if fitted is None:
            fitted = fit_calibration(given, method, fit=fit, by=keys, fit_on_scored=fit_on_scored)
        _check_fitted(fitted, method, keys)
        apply = _apply_linear if method == "linear" else _apply_percentile
        applied = apply(_with_raw(given), fitted.lazy(), keys)
    if STATUS in given.schema():
        applied = applied.with_columns(_status())
    columns = list(dict.fromkeys([*given.schema(), PREDICTED_RAW]))
    return like(given, counted(applied.select(columns)))


def fit_calibration(
    frame: Frame,
    method: Method = "linear",
    *,
    fit: pl.Expr | None = None,
    by: Sequence[str] | None = None,
    fit_on_scored: bool = False,
) -> pl.DataFrame:
    """The fits as a table, one row an explanation.

    `linear`: ordinary least squares of t on p over the explanation's rows, `slope = comoment / predicted_m2`,
    `intercept = mean t - slope * mean p`. Where p is constant the slope is 0 and the prediction the mean of t.

    `percentile`: both columns sorted and matched, `np.interp(v, sorted p, sorted t)`; beyond the ends the value at
    the end. Where several p are equal, a v that equals them gets the largest t among them, a v just below runs
    towards the smallest. Where all p are equal the prediction is the mean of t.

    Args:
        frame: a `simulated` table; where it has been calibrated before, the raw predictions are fitted.
        method: `"linear"` or `"percentile"` (`"none"` gives a table that only names the explanations).
        fit: which rows to fit on; `pl.col("split") == "calibration"` if left out.
        by: the keys of an explanation; see `nscore.score`.
        fit_on_scored: whether the rows to fit on may be rows that are scored.

    Returns:
        Keys, `method`, `n_fitted` (rows fitted on), and for `linear` `slope` and `intercept`, for `percentile` the
        `knots`: a list of (p, low, high), t at p when it is reached from below and from above. One row for each
        explanation of the frame; null where it had no rows to fit on.

    Raises:
        CalibrationError: if the fit would touch scored rows, or no row is there to fit on.
        TableError: if a column is missing.

    Source: the calibrated simulators of OpenAI's automated-interpretability.

    Examples:
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": 1, "split": "calibration",
        ...                    "activation": [1.0, 3.0], "predicted": [0.0, 10.0]})
        >>> fit_calibration(df).row(0, named=True)
        {'layer': 0, 'neuron': 7, 'method': 'linear', 'n_fitted': 2, 'slope': 0.2, 'intercept': 1.0}
    """
    given, keys = _opened(frame, method, by)
    there = given.frame.select(keys).unique()
    if method == "none":
        return given.collect(there.sort(keys).with_columns(pl.lit(method).alias(METHOD)))
    rows = _rows_to_fit(given, keys, fit, fit_on_scored=fit_on_scored)
    known = rows.filter(pl.col(ACTIVATION).is_not_null() & pl.col(RAW).is_not_null())
    finite = pl.all_horizontal(pl.col(c).cast(pl.Float64).is_finite().all() for c in (ACTIVATION, RAW))
    if not given.collect(known.select(finite)).item():
        for column in (ACTIVATION, PREDICTED_RAW if PREDICTED_RAW in given.schema() else PREDICTED):
            check_finite(given, column, nulls=True)
    fits = (_fit_linear if method == "linear" else _fit_percentile)(counted(known), keys)
    fitted = (
        there.join(fits, on=keys, how="left", nulls_equal=True)
        .with_columns(pl.lit(method).alias(METHOD), pl.col(N_FITTED).fill_null(0))
        .sort(keys)
    )
    with bar("fitting", "tokens"):
        table = given.collect(fitted)
    if not table[N_FITTED].sum():
        raise CalibrationError(
            f"{given.name}: no row with a prediction is there to fit on: fit a split that was simulated too "
            "(nscore.simulate simulates calibration, valid and test unless told otherwise)."
        )
    return table.select(*keys, METHOD, N_FITTED, pl.exclude(*keys, METHOD, N_FITTED))


def _opened(frame: Frame, method: str, by: Sequence[str] | None) -> tuple[Source, list[str]]:
    if method not in get_args(Method):
        raise UnknownNameError("calibration", method, get_args(Method))
    given = source(frame)
    keys = list(by) if by is not None else default_by(given.schema())
    SIMULATED.check(given.schema(), given.name, keys)
    return given, keys


def _with_raw(given: Source) -> pl.LazyFrame:
    raw = PREDICTED_RAW if PREDICTED_RAW in given.schema() else PREDICTED
    value = pl.col(raw).cast(pl.Float64)
    return given.frame.with_columns(value.alias(RAW), value.alias(PREDICTED_RAW))


def _rows_to_fit(given: Source, keys: list[str], fit: pl.Expr | None, *, fit_on_scored: bool) -> pl.LazyFrame:
    has_split = SPLIT in given.schema()
    if fit is None and not has_split:
        raise CalibrationError(
            f"{given.name}: there is no column 'split' that says which rows to fit on: assign splits "
            "(nscore.assign_splits), or say which rows with fit=..., and fit_on_scored=True if they are scored too."
        )
    rows = _with_raw(given).filter(pl.col(SPLIT).cast(pl.String) == "calibration" if fit is None else fit)
    scored = rows.filter(pl.col(SPLIT).cast(pl.String).is_in(SCORED_SPLITS)) if has_split else rows
    if not fit_on_scored:
        touched = given.collect(scored.select(keys).head(1))
        if touched.height:
            name = ", ".join(f"{k}={v!r}" for k, v in touched.row(0, named=True).items())
            raise CalibrationError(
                f"{given.name}: the fit would use tokens that are scored (the first of {name}), which makes every "
                "correlation positive: fit on the calibration split, or ask for it by name: fit_on_scored=True "
                "(--fit-on-scored)."
            )
    return rows


def _check_fitted(fitted: pl.DataFrame, method: str, keys: list[str]) -> None:
    needed = [*keys, METHOD, *([SLOPE, INTERCEPT] if method == "linear" else [KNOTS])]
    if not set(needed) <= set(fitted.columns) or not (fitted[METHOD] == method).all():
        raise CalibrationError(
            f"fitted: found the columns {', '.join(fitted.columns)}, expected {', '.join(needed)}: give what "
            f"nscore.fit_calibration(..., {method!r}) gave for the same keys."
        )


def _status() -> pl.Expr:
    """What was known and has no fit is `not_calibrated`; what was that once and has one now is `ok`."""
    status = pl.col(STATUS).cast(pl.String)
    lost = pl.col(RAW).is_not_null() & pl.col(PREDICTED).is_null()
    found = pl.col(PREDICTED).is_not_null() & (status == NOT_CALIBRATED)
    return pl.when(lost).then(pl.lit(NOT_CALIBRATED)).when(found).then(pl.lit(OK)).otherwise(status).alias(STATUS)


def _fit_linear(rows: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    m = moments(ACTIVATION, RAW)
    slope = pl.when(m.predicted_m2 > 0).then(m.comoment / m.predicted_m2).otherwise(0.0)
    return rows.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias(N_FITTED),
        slope.alias(SLOPE),
        (m.activation_mean - slope * m.predicted_mean).alias(INTERCEPT),
    )


def _apply_linear(frame: pl.LazyFrame, fitted: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    line = fitted.select(*keys, pl.col(SLOPE).alias("__slope"), pl.col(INTERCEPT).alias("__intercept"))
    return frame.join(line, on=keys, how="left", nulls_equal=True, maintain_order="left").with_columns(
        (pl.col("__slope") * pl.col(RAW) + pl.col("__intercept")).alias(PREDICTED)
    )


def _fit_percentile(rows: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    t, p = pl.col(ACTIVATION).cast(pl.Float64), pl.col(RAW)
    matched = rows.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias(N_FITTED),
        p.sort().alias("p"),
        t.sort().alias("t"),
        t.mean().alias("__mean"),
    )
    constant = pl.col("p").min() == pl.col("p").max()
    knots = (
        matched.explode("p", "t", empty_as_null=False)
        .with_columns(pl.when(constant.over(keys)).then("__mean").otherwise("t").alias("t"))
        .group_by(*keys, N_FITTED, "p")
        .agg(pl.col("t").min().alias(LOW), pl.col("t").max().alias(HIGH))
        .sort(*keys, "p")
    )
    return knots.group_by(*keys, N_FITTED, maintain_order=True).agg(pl.struct("p", LOW, HIGH).alias(KNOTS))


def _apply_percentile(frame: pl.LazyFrame, fitted: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    # one column for all keys: an as-of join would not match a null among them
    fits = fitted.with_row_index("__fit")
    knots = fits.select("__fit", KNOTS).drop_nulls(KNOTS).explode(KNOTS, empty_as_null=False).unnest(KNOTS).sort("p")
    below = knots.select("__fit", pl.col("p").alias("__p0"), pl.col(HIGH).alias("__t0"))
    above = knots.select("__fit", pl.col("p").alias("__p1"), pl.col(LOW).alias("__t1"))
    p0, t0, p1, t1 = (pl.col(f"__{c}") for c in ("p0", "t0", "p1", "t1"))
    # the share of the way comes first: it is a finite number, however near the two knots are
    between = (pl.col(RAW) - p0) / (p1 - p0) * (t1 - t0) + t0
    indexed = frame.join(
        fits.select("__fit", *keys), on=keys, how="left", nulls_equal=True, maintain_order="left"
    ).with_row_index("__row")
    matched = (
        indexed.filter(pl.col(RAW).is_not_null() & pl.col("__fit").is_not_null())
        .select("__row", "__fit", RAW)
        .sort(RAW)
        .join_asof(below, left_on=RAW, right_on="__p0", by="__fit", strategy="backward", check_sortedness=False)
        .join_asof(
            above,
            left_on=RAW,
            right_on="__p1",
            by="__fit",
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .select("__row", pl.when(p0.is_null()).then(t1).when(p1.is_null()).then(t0).otherwise(between).alias("__to"))
    )
    return indexed.join(matched, on="__row", how="left", maintain_order="left").with_columns(
        pl.col("__to").alias(PREDICTED)
    )
