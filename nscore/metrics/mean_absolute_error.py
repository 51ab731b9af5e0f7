"""`mean_absolute_error`: mean absolute error of the prediction."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, Moments, moments
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["mean_absolute_error"]


@metric(best=0.0, higher_is_better=False, decomposes=True)
def mean_absolute_error(
    activation: Columns | Moments = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    weight: Columns | None = None,
) -> pl.Expr:
    """Mean absolute error of the prediction.

    `mean |t - p|` over the group's tokens, in units of the activation. Tokens at which t or p is null take no part;
    null if none is left.

    Source: the textbook; `sklearn.metrics.mean_absolute_error`.

    Args:
        activation: the true activation t, a column name or expression; or moments that are known already.
        predicted: the predicted activation p.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `mean_absolute_error`.

    Examples:
        >>> pl.DataFrame({"activation": [1, 2], "predicted": [1, 4]}).select(mean_absolute_error()).item()
        1.0
    """
    m = moments(activation, predicted, weight)
    return m.where_any(m.abs_error_sum / m.n_scored).alias("mean_absolute_error")
