"""`r2_about_mean`: R^2 about the mean: the share of the activation's variance explained."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, Moments, moments
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["r2_about_mean"]


@metric(best=1.0, decomposes=True)
def r2_about_mean(
    activation: Columns | Moments = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    weight: Columns | None = None,
) -> pl.Expr:
    """R^2 about the mean: the share of the activation's variance explained.

    `1 - sum (t - p)^2 / sum (t - mean t)^2` over the group's tokens; no unit. Null where t is constant, or no token
    has both. Tokens at which t or p is null take no part.

    Source: the coefficient of determination; `sklearn.metrics.r2_score`, which gives 0 or 1 to a constant t.

    Args:
        activation: the true activation t, a column name or expression; or moments that are known already.
        predicted: the predicted activation p.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `r2_about_mean`.

    Examples:
        >>> pl.DataFrame({"activation": [1, 2, 3], "predicted": [1, 2, 4]}).select(r2_about_mean()).item()
        0.5
    """
    m = moments(activation, predicted, weight)
    score = 1 - m.squared_error_sum / m.activation_m2
    return pl.when(m.activation_m2 > 0).then(score).alias("r2_about_mean")
