"""Calibration: what a simulator says on its own scale becomes a prediction in the neuron's units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args, overload

import numpy as np
import polars as pl

from nscore._progress import bar, counted
from nscore._statistics.quantiles import KNOTS, N_FITTED, RAW, apply_percentile, fit_percentile
from nscore._tables.fused import Indices, moments_of_runs
from nscore._tables.runs import Columns, Layout, runs
from nscore._tables.stretches import lazily, stretches
from nscore._tables.texts import check_table
from nscore.errors import CalibrationError, UnknownNameError
from nscore.frames import Eager, Frame, Lazy, Source, like, source
from nscore.pool import merge, moment_columns
from nscore.records import (
    ACTIVATION,
    FAILING,
    N_SCORED,
    NOT_CALIBRATED,
    NOT_RUN,
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

METHOD, SLOPE, INTERCEPT, HAD = "method", "slope", "intercept", "__had"
STATUSES = pl.Enum([OK, *FAILING])
# A percentile calibration holds about 200 bytes a row.
HELD_ROWS = 1 << 20


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
        The frame with `predicted` calibrated, and `predicted_raw` (Float64) and `status` beside it; eager for an eager
        frame, lazy for a lazy one or a path. `predicted` is null where the raw prediction is, and where its explanation
        had no rows to fit on: what was known and is not any more has the status `not_calibrated`. What has the status
        of another failure is not fitted on and stays null. In a frame that came without `status`, what is null from
        the start is `not_run`.

    Raises:
        CalibrationError: if the fit would touch scored rows, or no row is there to fit on.
        TableError: if a column is missing.

    Examples:
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [1, 1, 2], "split": ["calibration"] * 2 + ["test"],
        ...                    "activation": [1.0, 3.0, 9.0], "predicted": [0.0, 10.0, 5.0]})
        >>> calibrate(df).select("predicted_raw", "predicted").rows()
        [(0.0, 1.0), (10.0, 3.0), (5.0, 2.0)]
    """
    return with_fits(frame, method, fit=fit, by=by, fit_on_scored=fit_on_scored, fitted=fitted)[0]


def with_fits(
    frame: Frame,
    method: Method,
    *,
    fit: pl.Expr | None,
    by: Sequence[str] | None,
    fit_on_scored: bool,
    fitted: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame | pl.LazyFrame, pl.DataFrame | pl.LazyFrame]:
    """What `calibrate` gives, and the fits: lazy, in the order of the rows, where they would be too long to be held."""
    given, keys = _opened(frame, method, by)
    fits: pl.DataFrame | pl.LazyFrame
    if method == "none":
        applied = _with_raw(given).with_columns(pl.col(RAW).alias(PREDICTED))
        fits = _named(given, keys)
    elif fitted is None and method == "percentile" and fit is None and (whole := _each_whole(given, keys)):
        _check_fit(given, keys, fit, fit_on_scored=fit_on_scored)
        applied = _apply_percentile_to(given, whole, None, keys)
        fits = lazily(lambda: _fits(given, whole, keys), _fitted(_part(given, 0, 0), method, fit, keys).schema)
    else:
        if fitted is None:
            fitted = fit_calibration(given, method, fit=fit, by=keys, fit_on_scored=fit_on_scored)
        _check_fitted(fitted, method, keys)
        fits = fitted
        if method == "linear":
            applied = _apply_linear(_with_raw(given), fitted.lazy(), keys)
        elif each := _each(given, keys):
            applied = _apply_percentile_to(given, each, fitted, keys)
        else:
            applied = apply_percentile(_with_raw(given), fitted.lazy(), keys)
    columns = list(dict.fromkeys([*given.schema(), PREDICTED_RAW, STATUS]))
    applied = applied.with_columns(_status() if STATUS in given.schema() else _first_status())
    return like(given, counted(applied.select(columns))), fits


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
    if method == "none":
        return given.collect(_named(given, keys))
    _check_fit(given, keys, fit, fit_on_scored=fit_on_scored)
    with bar("fitting", "tokens"):
        # an expression of one's own may look at all rows: it is given all
        whole = _each_whole(given, keys) if method == "percentile" and fit is None else []
        table = pl.concat(_fits(given, whole, keys)) if whole else _fitted(given, method, fit, keys)
    return table if table.select(keys).equals(table.select(keys).sort(keys)) else table.sort(keys)


def _opened(frame: Frame, method: str, by: Sequence[str] | None) -> tuple[Source, list[str]]:
    if method not in get_args(Method):
        raise UnknownNameError("calibration", method, get_args(Method))
    given = source(frame)
    keys = list(by) if by is not None else default_by(given.schema())
    check_table(given, SIMULATED, keys)
    return given, keys


def _named(given: Source, keys: list[str]) -> pl.LazyFrame:
    """The explanations, where nothing is fitted."""
    return given.frame.select(keys).unique().sort(keys).with_columns(pl.lit("none").alias(METHOD))


def _with_raw(given: Source) -> pl.LazyFrame:
    raw = PREDICTED_RAW if PREDICTED_RAW in given.schema() else PREDICTED
    value = pl.col(raw).cast(pl.Float64)
    had, known = pl.col(PREDICTED).is_not_null(), value
    if STATUS in given.schema():
        # a failure stays one, though a number from before it should stand beside it
        failed = pl.col(STATUS).cast(pl.String).is_in([s for s in FAILING if s != NOT_CALIBRATED])
        had, known = (pl.when(failed).then(None).otherwise(x) for x in (had, value))
    return given.frame.with_columns(known.alias(RAW), had.fill_null(value=False).alias(HAD), value.alias(PREDICTED_RAW))


def _rows_to_fit(given: Source, fit: pl.Expr | None) -> pl.LazyFrame:
    return _with_raw(given).filter(pl.col(SPLIT).cast(pl.String) == "calibration" if fit is None else fit)


def _known(given: Source, fit: pl.Expr | None) -> pl.LazyFrame:
    return _rows_to_fit(given, fit).filter(pl.col(ACTIVATION).is_not_null() & pl.col(RAW).is_not_null())


def _fits(given: Source, each: Sequence[tuple[int, int]], keys: list[str]) -> Iterator[pl.DataFrame]:
    """The percentile fits of a stretch after another."""
    return (_fitted(_part(given, *at), "percentile", None, keys) for at in each)


def _fitted(given: Source, method: Method, fit: pl.Expr | None, keys: list[str]) -> pl.DataFrame:
    known = _known(given, fit)
    fits = _fit_linear(known, keys, given) if method == "linear" else fit_percentile(counted(known), keys)
    return given.collect(
        given.frame.select(keys)
        .unique()
        .join(fits, on=keys, how="left", nulls_equal=True)
        .with_columns(pl.lit(method).alias(METHOD), pl.col(N_FITTED).fill_null(0))
        .select(*keys, METHOD, N_FITTED, pl.exclude(*keys, METHOD, N_FITTED))
        .sort(keys)
    )


def _each(given: Source, keys: list[str]) -> list[tuple[int, int]]:
    """Stretches of whole explanations, of a file that is too long to be held; none of any other table."""
    height = given.height() if given.files else None
    return list(stretches(given, keys, height, HELD_ROWS)) if height is not None and height > 2 * HELD_ROWS else []


def _each_whole(given: Source, keys: list[str]) -> list[tuple[int, int]]:
    """The same, none where the rows of an explanation lie apart."""
    each = _each(given, keys)
    found = [given.collect(given.frame.slice(*at).select(keys).unique()) for at in each]
    return [] if not found or pl.concat(found).is_duplicated().any() else each


def _part(given: Source, start: int, length: int) -> Source:
    return replace(given, frame=given.frame.slice(start, length))


def _check_fit(given: Source, keys: list[str], fit: pl.Expr | None, *, fit_on_scored: bool) -> None:
    """Refuses rows that must not, or cannot, be fitted on."""
    _check_rows(given, keys, fit, fit_on_scored=fit_on_scored)
    finite = pl.all_horizontal(pl.col(c).cast(pl.Float64).is_finite().all() for c in (ACTIVATION, RAW))
    found = given.collect(_known(given, fit).select(pl.len().alias("n"), finite.alias("finite")))
    if not found["finite"].item():
        for column in (ACTIVATION, PREDICTED_RAW if PREDICTED_RAW in given.schema() else PREDICTED):
            check_finite(given, column, nulls=True)
    if not found["n"].item():
        raise CalibrationError(
            f"{given.name}: no row with a prediction is there to fit on: fit a split that was simulated too "
            "(nscore.simulate simulates calibration, valid and test unless told otherwise)."
        )


def _check_rows(given: Source, keys: list[str], fit: pl.Expr | None, *, fit_on_scored: bool) -> None:
    has_split = SPLIT in given.schema()
    if fit is None and not has_split:
        raise CalibrationError(
            f"{given.name}: there is no column 'split' that says which rows to fit on: assign splits "
            "(nscore.assign_splits), or say which rows with fit=..., and fit_on_scored=True if they are scored too."
        )
    rows = _rows_to_fit(given, fit)
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
    found = pl.col(PREDICTED).is_not_null() & (status == NOT_CALIBRATED)
    return pl.when(_lost()).then(pl.lit(NOT_CALIBRATED)).when(found).then(pl.lit(OK)).otherwise(status).alias(STATUS)


def _first_status() -> pl.Expr:
    """The same for a table that had none; a byte a row."""
    known = pl.when(pl.col(PREDICTED).is_not_null()).then(pl.lit(OK, STATUSES))
    return known.when(_lost()).then(pl.lit(NOT_CALIBRATED, STATUSES)).otherwise(pl.lit(NOT_RUN, STATUSES)).alias(STATUS)


def _lost() -> pl.Expr:
    """What was a number, calibrated or raw, and is none."""
    return (pl.col(HAD) | pl.col(RAW).is_not_null()) & pl.col(PREDICTED).is_null()


def _fit_linear(rows: pl.LazyFrame, keys: list[str], given: Source) -> pl.LazyFrame:
    # as `score` does: the rows are walked once, in batches, and what is held is a row a record
    layout = Layout(tuple(keys), (), (ACTIVATION, RAW), positions=False)
    table = runs(replace(given, frame=rows), layout, _run_moments)
    fits = merge(table.sort(keys, maintain_order=True), keys, None).lazy()
    slope = pl.when(pl.col("predicted_m2") > 0).then(pl.col("comoment") / pl.col("predicted_m2")).otherwise(0.0)
    return fits.select(
        *keys,
        pl.col(N_SCORED).cast(pl.Int64).alias(N_FITTED),
        slope.alias(SLOPE),
        (pl.col("activation_mean") - slope * pl.col("predicted_mean")).alias(INTERCEPT),
    )


def _run_moments(rows: pl.DataFrame, starts: Indices) -> Columns:
    n = np.diff(starts, append=rows.height)
    return moment_columns(n, n, n, moments_of_runs(rows[ACTIVATION].to_numpy(), rows[RAW].to_numpy(), starts))


def _apply_linear(frame: pl.LazyFrame, fitted: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    line = fitted.select(*keys, pl.col(SLOPE).alias("__slope"), pl.col(INTERCEPT).alias("__intercept"))
    return frame.join(line, on=keys, how="left", nulls_equal=True, maintain_order="left").with_columns(
        (pl.col("__slope") * pl.col(RAW) + pl.col("__intercept")).alias(PREDICTED)
    )


def _apply_percentile_to(
    given: Source, each: Sequence[tuple[int, int]], fitted: pl.DataFrame | None, keys: list[str]
) -> pl.LazyFrame:
    """As `apply_percentile`, a stretch after another: Polars would hold all of what is sorted and matched.

    Without fits each stretch is fitted by itself.
    """

    def made(start: int, length: int) -> pl.LazyFrame:
        part = _part(given, start, length)
        rows = _with_raw(part)
        if fitted is None:
            mine = _fitted(part, "percentile", None, keys)
        else:
            mine = fitted.lazy().join(rows.select(keys).unique(), on=keys, how="semi", nulls_equal=True).collect()
        return apply_percentile(rows, mine.lazy(), keys)

    return lazily(lambda: (made(*at) for at in each), made(0, 0).collect_schema())
