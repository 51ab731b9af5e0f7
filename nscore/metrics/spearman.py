"""`spearman`: Spearman's rank correlation, null where it is undefined."""

from __future__ import annotations

import polars as pl

from nscore.metrics._catalogue import metric
from nscore.metrics._moments import Columns, kept
from nscore.metrics._ranks import mass_below
from nscore.records import ACTIVATION, PREDICTED

__all__ = ["spearman"]


@metric(best=1.0, decomposes=False)
def spearman(
    activation: Columns = ACTIVATION,
    predicted: Columns = PREDICTED,
    *,
    weight: Columns | None = None,
) -> pl.Expr:
    """Spearman's rank correlation, null where it is undefined.

    The Pearson correlation of the ranks of t and p over the group's tokens, ties at their average rank, clipped to
    [-1, 1]; no unit. Null where t or p is constant, or no token has both. Tokens at which t or p is null take no
    part. Weighted, a token of weight 2 counts as two equal tokens.

    Source: the textbook; `scipy.stats.spearmanr`.

    Args:
        activation: the true activation t, a column name or expression.
        predicted: the predicted activation p.
        weight: how much each token counts; 1 if left out.

    Returns:
        An aggregating Float64 expression called `spearman`.

    Examples:
        >>> pl.DataFrame({"activation": [1, 2, 30], "predicted": [1, 4, 5]}).select(spearman().round(12)).item()
        1.0
    """
    t, p, w = kept(activation, predicted, weight)
    if w is None:
        # ranks have no large mean to lose digits to, so that the engine's own correlation will do
        return pl.corr(mass_below(t, w), mass_below(p, w)).clip(-1, 1).replace({float("nan"): None}).alias("spearman")
    # the weighted mean of the mass below is half of all mass
    t_rank, p_rank = (mass_below(x, w) - w.sum() / 2 for x in (t, p))
    squares = (w * t_rank * t_rank).sum(), (w * p_rank * p_rank).sum()
    score = (w * t_rank * p_rank).sum() / squares[0].sqrt() / squares[1].sqrt()
    return pl.when((t.min() < t.max()) & (p.min() < p.max())).then(score.clip(-1, 1)).alias("spearman")
