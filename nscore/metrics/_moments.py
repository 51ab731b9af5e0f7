"""The moments of (activation, predicted): what every score that decomposes is a formula of, and how they merge."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import polars as pl

from nscore.records import ACTIVATION, N_PREDICTED, N_SCORED, N_TOKENS, PREDICTED

__all__ = ["MOMENTS", "Columns", "Moments", "kept", "masked", "moments"]

Columns: TypeAlias = "str | pl.Expr"


@dataclass(frozen=True, slots=True)
class Moments:
    """Expressions for the moments of a set of tokens; t = activation, p = predicted, w = weight (1 if none).

    Rows where t or p is null take no part in any but the first two. All but the counts are Float64.
    """

    n_tokens: pl.Expr
    """How many tokens there are."""
    n_predicted: pl.Expr
    """How many of them have a prediction."""
    n_scored: pl.Expr
    """Sum of w: how many tokens take part in the scores."""
    activation_mean: pl.Expr
    predicted_mean: pl.Expr
    activation_m2: pl.Expr
    """Sum of w (t - mean t)^2; exactly 0 where t is constant to the bit."""
    predicted_m2: pl.Expr
    comoment: pl.Expr
    """Sum of w (t - mean t) (p - mean p)."""
    activation_abs_sum: pl.Expr
    """Sum of w |t|."""
    abs_error_sum: pl.Expr
    """Sum of w |t - p|."""
    squared_error_sum: pl.Expr
    """Sum of w (t - p)^2."""

    @classmethod
    def of(cls, activation: Columns, predicted: Columns, weight: Columns | None = None) -> Moments:
        """The moments of the tokens of a group (or of a whole frame)."""
        t, p, w = masked(activation, predicted, weight)
        n = t.count() if w is None else w.sum()
        # Moments are taken from the smallest value, not from zero: a column with a large mean and a small spread keeps
        # its digits, and of a constant nothing at all is left.
        t_low, p_low = t.min(), p.min()
        t_up, p_up = t - t_low, p - p_low
        error = t - p

        def total(x: pl.Expr) -> pl.Expr:
            return x.sum() if w is None else (w * x).sum()

        def mean(x: pl.Expr) -> pl.Expr:
            return x.mean() if w is None else total(x) / n

        def m2(x: pl.Expr) -> pl.Expr:
            return _some(n, x.var(ddof=0) * n if w is None else total((x - mean(x)).pow(2)))

        comoment = pl.cov(t_up, p_up, ddof=0) * n if w is None else total((t_up - mean(t_up)) * (p_up - mean(p_up)))
        return cls(
            n_tokens=_column(activation).len(),
            n_predicted=_broadcast(_column(predicted), _column(activation)).count(),
            n_scored=n,
            activation_mean=t_low + mean(t_up),
            predicted_mean=p_low + mean(p_up),
            activation_m2=m2(t_up),
            predicted_m2=m2(p_up),
            comoment=_some(n, comoment),
            activation_abs_sum=total(t.abs()),
            abs_error_sum=total(error.abs()),
            squared_error_sum=total(error * error),
        )

    @classmethod
    def stored(cls) -> Moments:
        """The moments as the columns of a table that holds them, one row a group."""
        return cls(**{name: pl.col(name) for name in MOMENTS})

    @classmethod
    def merged(cls, weight: Columns | None = None) -> Moments:
        """The moments of the union of a group's rows, each of which holds moments; `weight` counts a row so often."""
        each = cls.stored()
        w = pl.lit(1.0) if weight is None else _column(weight).cast(pl.Float64)
        mass = each.n_scored * w
        n = mass.sum()
        t, p = (pl.when(mass > 0).then(mean) for mean in (each.activation_mean, each.predicted_mean))
        t_low, p_low = t.min(), p.min()
        t_up, p_up = t - t_low, p - p_low
        t_mean, p_mean = ((mass * x).sum() / n for x in (t_up, p_up))

        def centred(within: pl.Expr, x: pl.Expr, y: pl.Expr) -> pl.Expr:
            return _some(n, (within * w).sum() + (mass * x * y).sum())

        return cls(
            n_tokens=each.n_tokens.sum(),
            n_predicted=each.n_predicted.sum(),
            n_scored=n,
            activation_mean=t_low + t_mean,
            predicted_mean=p_low + p_mean,
            activation_m2=centred(each.activation_m2, t_up - t_mean, t_up - t_mean),
            predicted_m2=centred(each.predicted_m2, p_up - p_mean, p_up - p_mean),
            comoment=centred(each.comoment, t_up - t_mean, p_up - p_mean),
            activation_abs_sum=(each.activation_abs_sum * w).sum(),
            abs_error_sum=(each.abs_error_sum * w).sum(),
            squared_error_sum=(each.squared_error_sum * w).sum(),
        )

    def named(self) -> list[pl.Expr]:
        """The expressions, each under its name."""
        return [getattr(self, name).alias(name) for name in MOMENTS]

    @property
    def activation_square_sum(self) -> pl.Expr:
        """Sum of w t^2."""
        return self.activation_m2 + self.n_scored * self.activation_mean.pow(2)

    @property
    def predicted_square_sum(self) -> pl.Expr:
        """Sum of w p^2."""
        return self.predicted_m2 + self.n_scored * self.predicted_mean.pow(2)

    @property
    def product_sum(self) -> pl.Expr:
        """Sum of w t p."""
        return self.comoment + self.n_scored * self.activation_mean * self.predicted_mean

    def where_any(self, score: pl.Expr) -> pl.Expr:
        """The score where any token takes part in it, else null."""
        return pl.when(self.n_scored > 0).then(score)


MOMENTS: tuple[str, ...] = tuple(field.name for field in fields(Moments))
assert MOMENTS[:3] == (N_TOKENS, N_PREDICTED, N_SCORED)  # noqa: S101  (the vocabulary's names)


def moments(
    activation: Columns | Moments = ACTIVATION,
    predicted: Columns = PREDICTED,
    weight: Columns | None = None,
) -> Moments:
    """The moments of two columns; moments that are known already pass through."""
    return activation if isinstance(activation, Moments) else Moments.of(activation, predicted, weight)


def masked(activation: Columns, predicted: Columns, weight: Columns | None) -> tuple[pl.Expr, pl.Expr, pl.Expr | None]:
    """Both columns (and the weight) in Float64, null on the rows where either is null."""
    t, p = _column(activation).cast(pl.Float64), _column(predicted).cast(pl.Float64)
    # when/then masks faster than filter inside agg; what is null already needs no mask
    if weight is None:
        return pl.when(p.is_not_null()).then(t), pl.when(t.is_not_null()).then(p), None
    # a token of weight 0 takes no part, so that it cannot make a constant look as if it were none
    w = _column(weight).cast(pl.Float64)
    both = t.is_not_null() & p.is_not_null() & (w > 0)
    return pl.when(both).then(t), pl.when(both).then(p), pl.when(both).then(w)


def kept(activation: Columns, predicted: Columns, weight: Columns | None) -> tuple[pl.Expr, pl.Expr, pl.Expr | None]:
    """Both columns (and the weight) in Float64, without the rows where either is null."""
    t, p, w = masked(activation, predicted, weight)
    both = t.is_not_null()
    return t.filter(both), p.filter(both), None if w is None else w.filter(both)


def _column(column: Columns) -> pl.Expr:
    return pl.col(column) if isinstance(column, str) else column


def _broadcast(column: pl.Expr, to: pl.Expr) -> pl.Expr:
    """The column, or a literal once for each row of the other."""
    return pl.when(to.is_null() | to.is_not_null()).then(column)


def _some(n: pl.Expr, moment: pl.Expr) -> pl.Expr:
    """A sum of squares or products, 0 where there is nothing to sum."""
    return pl.when(n > 0).then(moment).otherwise(0.0)
