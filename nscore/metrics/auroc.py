"""`auroc`: area under the ROC curve of the prediction as a detector of active tokens."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, kept
from nscore.metrics._ranks import mass_below
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["auroc"]


@metric(best=1.0, decomposes=False)
def auroc(
    activation: Columns = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    threshold: float = 0.0,
    weight: Columns | None = None,
) -> pl.Expr:
    """Area under the ROC curve of the prediction as a detector of active tokens.

    The chance that an active token (t above the threshold) has a higher p than an inactive one, ties counted half;
    no unit, 0.5 is chance. Null where all tokens are active or none is. Tokens at which t or p is null take no part.

    Source: the Mann-Whitney statistic; `sklearn.metrics.roc_auc_score`.

    Args:
        activation: the true activation t, a column name or expression.
        predicted: the predicted activation p.
        threshold: a token is active where t is above it.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `auroc`.

    Examples:
        >>> df = pl.DataFrame({"activation": [0, 0, 1, 2], "predicted": [1, 3, 2, 4]})
        >>> df.select(auroc()).item()
        0.75
    """
    t, p, w = kept(activation, predicted, weight)
    active = (t > threshold).cast(pl.Float64)
    mass = active if w is None else active * w
    positive = mass.sum()
    negative = (t.count() if w is None else w.sum()) - positive
    # the active tokens' mass below one another, positive^2 / 2 in all, is no win
    wins = (mass * mass_below(p, w)).sum() - positive.pow(2) / 2
    defined = (positive > 0) & (negative > 0)
    return pl.when(defined).then(wins / (positive * negative)).alias("auroc")
