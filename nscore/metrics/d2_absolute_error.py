"""`d2_absolute_error`: D^2 about the median: the share of the activation's absolute deviation explained."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, kept
from nscore.metrics._ranks import cumulated
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["d2_absolute_error"]


@metric(best=1.0, decomposes=False)
def d2_absolute_error(
    activation: Columns = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    weight: Columns | None = None,
) -> pl.Expr:
    """D^2 about the median: the share of the activation's absolute deviation explained.

    `1 - sum |t - p| / sum |t - median t|` over the group's tokens; no unit. Null where t is constant, or no token has
    both. Tokens at which t or p is null take no part. It does not decompose, for medians do not merge.

    Source: `sklearn.metrics.d2_absolute_error_score`, which gives 0 or 1 to a constant t.

    Args:
        activation: the true activation t, a column name or expression.
        predicted: the predicted activation p.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `d2_absolute_error`.

    Examples:
        >>> df = pl.DataFrame({"activation": [1, 2, 3], "predicted": [1, 2, 4]})
        >>> df.select(d2_absolute_error()).item()
        0.5
    """
    t, p, w = kept(activation, predicted, weight)
    error, deviation = (t - p).abs(), (t - _median(t, w)).abs()
    if w is not None:
        error, deviation = error * w, deviation * w
    score = 1 - error.sum() / deviation.sum()
    return pl.when(t.min() < t.max()).then(score).alias("d2_absolute_error")


def _median(t: pl.Expr, w: pl.Expr | None) -> pl.Expr:
    if w is None:
        return t.median()
    # where two values share the middle, the sum of deviations is the same from either
    order = t.arg_sort()
    return t.gather(order).filter(cumulated(w.gather(order)) >= w.sum() / 2).first()
