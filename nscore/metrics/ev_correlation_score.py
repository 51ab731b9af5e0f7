"""`ev_correlation_score`: Pearson correlation of prediction and truth as the original scores it: the preferred score."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, Moments, moments
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["ev_correlation_score"]


@metric(best=1.0, decomposes=True, worst=-1.0)
def ev_correlation_score(
    activation: Columns | Moments = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    weight: Columns | None = None,
) -> pl.Expr:
    """Pearson correlation of prediction and truth as the original scores it: the preferred score.

    `sum (t - mean t)(p - mean p) / sqrt(sum (t - mean t)^2 sum (p - mean p)^2)` over the group's tokens, clipped to
    [-1, 1]; no unit. Exactly 0.0 where t or p is constant to the bit, where there is one token, and where the
    quotient is NaN. Tokens at which t or p is null take no part; null if none is left.

    Source: `correlation_score` in OpenAI's automated-interpretability, Bills et al. 2023.

    Args:
        activation: the true activation t, a column name or expression; or moments that are known already.
        predicted: the predicted activation p.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `ev_correlation_score`.

    Examples:
        >>> pl.DataFrame({"activation": [0, 0, 2, 2], "predicted": [1, 1, 5, 5]}).select(ev_correlation_score()).item()
        1.0
        >>> pl.DataFrame({"activation": [0, 1, 2], "predicted": [4, 4, 4]}).select(ev_correlation_score()).item()
        0.0
    """
    m = moments(activation, predicted, weight)
    r = m.comoment / m.activation_m2.sqrt() / m.predicted_m2.sqrt()
    # numpy clips to [-1, 1]; a quotient of rounded numbers may be 1 + 2e-16. Of a constant both moments are exactly 0,
    # and 0 / 0 is NaN. (fill_nan would have the whole expression evaluated three times over in a group_by.)
    return m.where_any(r.clip(-1, 1).replace({float("nan"): 0.0})).alias("ev_correlation_score")
