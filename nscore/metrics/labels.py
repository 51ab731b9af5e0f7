"""Metrics of labels: how well a judge's yes or no agrees with the truth, as expressions over a `judgements` table.

A judgement counts where both the true label and the judge's are known; null where a metric is undefined, never a zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from nscore.metrics._moments import Columns
from nscore.records import LABEL, PREDICTED_LABEL

__all__ = ["LABEL_METRICS", "Confusion", "balanced_accuracy", "f1", "precision", "recall", "specificity"]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Expressions for the four counts of a group's judgements: Int64, none is ever null."""

    true_positives: pl.Expr
    false_negatives: pl.Expr
    false_positives: pl.Expr
    true_negatives: pl.Expr

    @classmethod
    def of(cls, label: Columns = LABEL, predicted_label: Columns = PREDICTED_LABEL) -> Confusion:
        """The counts of a group (or of a whole frame); Boolean columns, by name or as expressions.

        >>> df = pl.DataFrame({"label": [True, True, False], "predicted_label": [True, None, True]})
        >>> df.select(Confusion.of().named()).row(0, named=True)
        {'true_positives': 1, 'false_negatives': 0, 'false_positives': 1, 'true_negatives': 0}
        """
        truth, said = (pl.col(c) if isinstance(c, str) else c for c in (label, predicted_label))
        # a null in either is false here only together with what is false anyway; sums pass over the other nulls
        return cls(
            *(both.sum().cast(pl.Int64) for both in (truth & said, truth & ~said, ~truth & said, ~truth & ~said))
        )

    @property
    def positives(self) -> pl.Expr:
        """How many judged items are active."""
        return self.true_positives + self.false_negatives

    @property
    def negatives(self) -> pl.Expr:
        """How many judged items are not."""
        return self.false_positives + self.true_negatives

    def named(self) -> list[pl.Expr]:
        """The four counts, each under its name."""
        return [
            self.true_positives.alias("true_positives"),
            self.false_negatives.alias("false_negatives"),
            self.false_positives.alias("false_positives"),
            self.true_negatives.alias("true_negatives"),
        ]


def balanced_accuracy(label: Columns = LABEL, predicted_label: Columns = PREDICTED_LABEL) -> pl.Expr:
    """The mean of recall and specificity: the accuracy if both classes were equally many.

    `(TP / P + TN / N) / 2`; no unit, 0.5 is chance. Null where the judged items are of one class. Delphi gives such an item's
    missing class a rate of 0 there, so that no more than 0.5 can be reached.

    Source: `sklearn.metrics.balanced_accuracy_score`; Delphi calls it accuracy.

    Args:
        label: whether the item is active, a Boolean column name or expression.
        predicted_label: whether the judge says so.

    Returns:
        An aggregating Float64 expression called `balanced_accuracy`.

    Examples:
        >>> df = pl.DataFrame({"label": [True, True, True, False], "predicted_label": [True, True, False, False]})
        >>> df.select(balanced_accuracy()).item()
        0.8333333333333333
    """
    c = Confusion.of(label, predicted_label)
    mean = (_share(c.true_positives, c.positives) + _share(c.true_negatives, c.negatives)) / 2
    return mean.alias("balanced_accuracy")


def f1(label: Columns = LABEL, predicted_label: Columns = PREDICTED_LABEL) -> pl.Expr:
    """The harmonic mean of precision and recall.

    `2 TP / (2 TP + FP + FN)`; no unit. It depends on how many items are active: compare it at equal shares. Null where no judged
    item is active and none is called so.

    Source: `sklearn.metrics.f1_score`.

    Args:
        label: whether the item is active, a Boolean column name or expression.
        predicted_label: whether the judge says so.

    Returns:
        An aggregating Float64 expression called `f1`.

    Examples:
        >>> df = pl.DataFrame({"label": [True, True, False], "predicted_label": [True, False, False]})
        >>> df.select(f1()).item()
        0.6666666666666666
    """
    c = Confusion.of(label, predicted_label)
    twice = 2 * c.true_positives
    return _share(twice, twice + c.false_positives + c.false_negatives).alias("f1")


def precision(label: Columns = LABEL, predicted_label: Columns = PREDICTED_LABEL) -> pl.Expr:
    """The share of active items among those that the judge calls active.

    `TP / (TP + FP)`; no unit. Null where it calls none active.

    Source: `sklearn.metrics.precision_score`.

    Args:
        label: whether the item is active, a Boolean column name or expression.
        predicted_label: whether the judge says so.

    Returns:
        An aggregating Float64 expression called `precision`.

    Examples:
        >>> pl.DataFrame({"label": [True, False], "predicted_label": [True, True]}).select(precision()).item()
        0.5
    """
    c = Confusion.of(label, predicted_label)
    return _share(c.true_positives, c.true_positives + c.false_positives).alias("precision")


def recall(label: Columns = LABEL, predicted_label: Columns = PREDICTED_LABEL) -> pl.Expr:
    """The share of the active items that the judge calls active.

    `TP / P`; no unit. Null where no judged item is active.

    Source: `sklearn.metrics.recall_score`; also called the true positive rate.

    Args:
        label: whether the item is active, a Boolean column name or expression.
        predicted_label: whether the judge says so.

    Returns:
        An aggregating Float64 expression called `recall`.

    Examples:
        >>> pl.DataFrame({"label": [True, True], "predicted_label": [True, False]}).select(recall()).item()
        0.5
    """
    c = Confusion.of(label, predicted_label)
    return _share(c.true_positives, c.positives).alias("recall")


def specificity(label: Columns = LABEL, predicted_label: Columns = PREDICTED_LABEL) -> pl.Expr:
    """The share of the items that are not active that the judge calls so.

    `TN / N`; no unit. Null where every judged item is active.

    Source: the recall of the other class; also called the true negative rate.

    Args:
        label: whether the item is active, a Boolean column name or expression.
        predicted_label: whether the judge says so.

    Returns:
        An aggregating Float64 expression called `specificity`.

    Examples:
        >>> pl.DataFrame({"label": [False, True], "predicted_label": [False, False]}).select(specificity()).item()
        1.0
    """
    c = Confusion.of(label, predicted_label)
    return _share(c.true_negatives, c.negatives).alias("specificity")


LABEL_METRICS = (balanced_accuracy, f1, precision, recall, specificity)
"""In the order in which scores list them."""


def _share(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part.cast(pl.Float64) / whole.cast(pl.Float64))
