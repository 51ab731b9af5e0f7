"""`absolute_dev_explained_score`: the share of the activation's absolute size explained, as the original scores it."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, Moments, moments
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["absolute_dev_explained_score"]


@metric(best=1.0, decomposes=True)
def absolute_dev_explained_score(
    activation: Columns | Moments = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    weight: Columns | None = None,
) -> pl.Expr:
    """The share of the activation's absolute size explained, as the original scores it.

    `1 - mean |t - p| / mean |t|` over the group's tokens; no unit. -inf where every t is 0 and some p is not; NaN
    where all of both are 0. Tokens at which t or p is null take no part; null if none is left.

    Source: `absolute_dev_explained_score_from_sequences` in OpenAI's transformer-debugger.

    Args:
        activation: the true activation t, a column name or expression; or moments that are known already.
        predicted: the predicted activation p.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `absolute_dev_explained_score`.

    Examples:
        >>> df = pl.DataFrame({"activation": [1, 2, 3], "predicted": [1, 2, 5]})
        >>> df.select(absolute_dev_explained_score()).item()
        0.666666...
    """
    m = moments(activation, predicted, weight)
    score = 1 - m.abs_error_sum / m.activation_abs_sum
    return m.where_any(score).alias("absolute_dev_explained_score")
