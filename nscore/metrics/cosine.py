"""`cosine`: cosine of the angle between prediction and truth, null where it is undefined."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, Moments, moments
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["cosine"]


@metric(best=1.0, decomposes=True, worst=-1.0)
def cosine(
    activation: Columns | Moments = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    weight: Columns | None = None,
) -> pl.Expr:
    """Cosine of the angle between prediction and truth, null where it is undefined.

    `sum t p / sqrt(sum t^2 sum p^2)` over the group's tokens, clipped to [-1, 1]; no unit. Null where all t or all p
    are 0, or no token has both. Tokens at which t or p is null take no part.

    Source: the textbook; `scipy.spatial.distance.cosine` is one minus it.

    Args:
        activation: the true activation t, a column name or expression; or moments that are known already.
        predicted: the predicted activation p.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `cosine`.

    Examples:
        >>> pl.DataFrame({"activation": [3, 4], "predicted": [4, 3]}).select(cosine()).item()
        0.96
    """
    m = moments(activation, predicted, weight)
    squares = m.activation_square_sum, m.predicted_square_sum
    score = m.product_sum / squares[0].sqrt() / squares[1].sqrt()
    return pl.when((squares[0] > 0) & (squares[1] > 0)).then(score.clip(-1, 1)).alias("cosine")
