"""Percentile calibration: one distribution mapped onto another, through knots; see `nscore.fit_calibration`."""

from __future__ import annotations

import polars as pl

from nscore.records import ACTIVATION, PREDICTED

__all__ = ["KNOTS", "N_FITTED", "RAW", "apply_percentile", "fit_percentile"]

# Of a fit: how many rows it was made of, and its knots. The prediction that it maps is the column RAW.
N_FITTED, KNOTS, RAW = "n_fitted", "knots", "__raw"
LOW, HIGH = "low", "high"


def fit_percentile(rows: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    """The fit of each explanation: of each prediction that occurs, the activations at its place in the order."""
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


def apply_percentile(frame: pl.LazyFrame, fitted: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    """Fills the predictions of a frame by the fits; null where there is no fit."""
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
