"""Ranks as expressions: the mass of tokens below a value, ties counted half."""

from __future__ import annotations

import polars as pl

__all__ = ["cumulated", "mass_below"]


def mass_below(x: pl.Expr, w: pl.Expr | None) -> pl.Expr:
    """For each row, the weight of the rows with a smaller x, and half the weight of those with the same.

    Without weights this is the average rank less a half. Neither column holds nulls.
    """
    if w is None:
        return x.rank("average") - 0.5
    order = x.arg_sort()
    sorted_x, upto = x.gather(order), cumulated(w.gather(order))
    first = (sorted_x != sorted_x.shift(1)).fill_null(value=True)
    last = (sorted_x != sorted_x.shift(-1)).fill_null(value=True)
    below = pl.when(first).then(upto.shift(1, fill_value=0.0)).forward_fill()
    through = pl.when(last).then(upto).backward_fill()
    return ((below + through) / 2).gather(order.arg_sort())


def cumulated(x: pl.Expr) -> pl.Expr:
    """The running sum."""
    # of no groups at all, gather gives a column without a dtype; adding to it gives it one
    return (x + 0.0).cum_sum()
