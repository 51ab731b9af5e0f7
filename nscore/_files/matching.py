"""Whether two numbers are the same score: within rounding of Float64, or one of them written with fewer digits."""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = ["DECIMALS", "EXACT", "TOLERANCE", "decimals", "equal", "how_equal", "tolerance"]

TOLERANCE = 1e-12
# A column whose spread is a smaller part of its size than that loses digits in any arithmetic, numpy's too.
SPREAD = 1e-3
EXACT, SINGLE, HALF = "exactly", "in single precision", "in half precision"
DECIMALS = 12
"""A number that needs more decimals than that was not rounded to so many on purpose."""


def tolerance(score: str) -> pl.Expr:
    """How far two right ways to compute a score may be apart: `1e-12 * max(1, |score|)`, over columns of moments.

    Of a correlation more, where a column is nearly constant: a spread of the part c of its size costs 1 / c^2 digits.
    """
    size = TOLERANCE * pl.max_horizontal(pl.lit(1.0), pl.col(score).abs())
    if score != "ev_correlation_score":
        return size
    parts = []
    for mean, m2 in (("activation_mean", "activation_m2"), ("predicted_mean", "predicted_m2")):
        spread = (pl.col(m2) / pl.col("n_scored")).sqrt()
        part = spread / (pl.col(mean).abs() + spread)
        parts.append(pl.when(pl.col(m2) > 0).then(part).otherwise(1.0).fill_nan(1.0))
    lost = (SPREAD / pl.min_horizontal(parts)).clip(lower_bound=1.0)
    return (size * lost * lost).clip(upper_bound=1e-3)


def decimals(column: pl.Series) -> pl.Series:
    """How many decimals each number has; null where it has more than `DECIMALS`, or is no finite number.

    >>> decimals(pl.Series([0.5, 0.125, 1 / 3, float("nan")])).to_list()
    [1, 3, None, None]
    """
    x = column.cast(pl.Float64).fill_nan(None)
    found = pl.Series([None] * x.len(), dtype=pl.Int32)
    for places in range(DECIMALS, -1, -1):
        same = (x.round(places) == x) & x.is_finite()
        found = pl.select(pl.when(same).then(pl.lit(places, pl.Int32)).otherwise(found)).to_series()
    return found


def equal(published: pl.Expr, value: pl.Expr, tolerance: pl.Expr) -> pl.Expr:
    """Whether they are the same score: both NaN, the same infinity, or no farther apart than the tolerance."""
    # Polars takes NaN for equal to NaN, and so for no farther away than a tolerance that is NaN
    near = published.is_finite() & value.is_finite() & ((published - value).abs() <= tolerance)
    return (published.is_nan() & value.is_nan()) | (published == value) | near


def how_equal(published: pl.Expr, value: pl.Expr, tolerance: pl.Expr, places: pl.Expr) -> pl.Expr:
    """In which way they are the same score, in words; null where they are not.

    Args:
        published: the number as it was written.
        value: what it may be.
        tolerance: see `tolerance`.
        places: to how many decimals `published` may have been rounded; null for none.
    """
    apart = (published - value).abs()
    size = pl.max_horizontal(pl.lit(1.0), value.abs())
    # half a unit of the last place, and what is lost in writing it down
    to_places = apart <= 0.5 * pl.lit(10.0).pow(-places) * (1 + 1e-9) + tolerance
    half = published.map_batches(_is_half, return_dtype=pl.Boolean) & (apart <= 2.0**-11 * (1 + 1e-9) * value.abs())
    usable = published.is_finite() & value.is_finite()
    return (
        pl.when(equal(published, value, tolerance))
        .then(pl.lit(EXACT))
        .when(usable & (places >= 1) & to_places)
        .then(pl.format("rounded to {} decimals", places))
        .when(usable & (apart <= 2.0**-18 * size))
        .then(pl.lit(SINGLE))
        .when(usable & half)
        .then(pl.lit(HALF))
    )


def _is_half(numbers: pl.Series) -> pl.Series:
    values = numbers.to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        return pl.Series(values.astype(np.float16).astype(np.float64) == values)
