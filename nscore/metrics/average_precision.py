"""`average_precision`: average precision of the prediction as a detector of active tokens."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, kept
from nscore.metrics._ranks import cumulated
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["average_precision"]


@metric(best=1.0, decomposes=False)
def average_precision(
    activation: Columns = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    threshold: float = 0.0,
    weight: Columns | None = None,
) -> pl.Expr:
    """Average precision of the prediction as a detector of active tokens.

    `sum over thresholds of (recall gained) x precision` with t above the threshold as the truth and p as the score;
    equal p enter together; no unit, chance is the share of active tokens. Null where no token is active. Tokens at
    which t or p is null take no part.

    Source: `sklearn.metrics.average_precision_score`.

    Args:
        activation: the true activation t, a column name or expression.
        predicted: the predicted activation p.
        threshold: a token is active where t is above it.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `average_precision`.

    Examples:
        >>> df = pl.DataFrame({"activation": [0, 0, 1, 2], "predicted": [1, 3, 2, 4]})
        >>> df.select(average_precision()).item()
        0.833333...
    """
    t, p, w = kept(activation, predicted, weight)
    active = (t > threshold).cast(pl.Float64)
    order = p.arg_sort(descending=True)
    sorted_p = p.gather(order)
    found = (active if w is None else active * w).gather(order)
    taken = pl.ones(t.count(), dtype=pl.Float64).cum_sum() if w is None else cumulated(w.gather(order))
    last = (sorted_p != sorted_p.shift(-1)).fill_null(value=True)
    precision = pl.when(last).then(cumulated(found) / taken).backward_fill()
    score = (found * precision).sum() / found.sum()
    return pl.when(found.sum() > 0).then(score).alias("average_precision")
