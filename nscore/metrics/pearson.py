"""`pearson`: Pearson correlation, null where it is undefined."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, Moments, moments
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["pearson"]


@metric(best=1.0, decomposes=True, worst=-1.0)
def pearson(
    activation: Columns | Moments = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    weight: Columns | None = None,
) -> pl.Expr:
    """Pearson correlation, null where it is undefined.

    `sum (t - mean t)(p - mean p) / sqrt(sum (t - mean t)^2 sum (p - mean p)^2)` over the group's tokens, clipped to
    [-1, 1]; no unit. Null where t or p is constant, or no token has both: `ev_correlation_score` says 0.0 of a
    constant. Tokens at which t or p is null take no part.

    Source: the textbook's product-moment correlation; `scipy.stats.pearsonr`.

    Args:
        activation: the true activation t, a column name or expression; or moments that are known already.
        predicted: the predicted activation p.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `pearson`.

    Examples:
        >>> pl.DataFrame({"activation": [0, 0, 2, 2], "predicted": [5, 5, 1, 1]}).select(pearson()).item()
        -1.0
        >>> pl.DataFrame({"activation": [0, 1], "predicted": [4, 4]}).select(pearson()).item() is None
        True
    """
    m = moments(activation, predicted, weight)
    r = m.comoment / m.activation_m2.sqrt() / m.predicted_m2.sqrt()
    # of a constant both moments are exactly 0, and 0 / 0 is NaN
    return r.clip(-1, 1).replace({float("nan"): None}).alias("pearson")
