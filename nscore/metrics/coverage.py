"""`coverage`: the share of tokens that were to be predicted and were."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, Moments, moments
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["coverage"]


@metric(best=1.0, decomposes=True, worst=0.0)
def coverage(
    activation: Columns | Moments = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    weight: Columns | None = None,
) -> pl.Expr:
    """The share of tokens that were to be predicted and were.

    `tokens with a prediction / tokens` over the group; no unit. Weights do not change it: it counts work done.
    Null if there are no tokens.

    Source: nscore's own; a failure is data, and this is its count.

    Args:
        activation: the true activation t, a column name or expression; or moments that are known already.
        predicted: the predicted activation p.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `coverage`.

    Examples:
        >>> pl.DataFrame({"activation": [1, 2], "predicted": [1, None]}).select(coverage()).item()
        0.5
    """
    m = moments(activation, predicted, weight)
    share = m.n_predicted.cast(pl.Float64) / m.n_tokens.cast(pl.Float64)
    return pl.when(m.n_tokens > 0).then(share).alias("coverage")
