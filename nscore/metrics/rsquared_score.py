"""`rsquared_score`: R^2 about zero, as the original scores it: the share of the activation's square explained."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, Moments, moments
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["rsquared_score"]


@metric(best=1.0, decomposes=True)
def rsquared_score(
    activation: Columns | Moments = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    weight: Columns | None = None,
) -> pl.Expr:
    """R^2 about zero, as the original scores it: the share of the activation's square explained.

    `1 - mean (t - p)^2 / mean t^2` over the group's tokens; no unit. About zero, not about the mean: see
    `r2_about_mean` for that. -inf where every t is 0 and some p is not; NaN where all of both are 0. Tokens at
    which t or p is null take no part; null if none is left.

    Source: `rsquared_score_from_sequences` in OpenAI's transformer-debugger.

    Args:
        activation: the true activation t, a column name or expression; or moments that are known already.
        predicted: the predicted activation p.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `rsquared_score`.

    Examples:
        >>> pl.DataFrame({"activation": [1, 2, 3], "predicted": [1, 2, 5]}).select(rsquared_score()).item()
        0.714285...
    """
    m = moments(activation, predicted, weight)
    score = 1 - m.squared_error_sum / m.activation_square_sum
    return m.where_any(score).alias("rsquared_score")
