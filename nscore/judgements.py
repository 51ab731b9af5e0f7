"""Scores of judges: detection, fuzzing and the like, one row an explanation and scorer, from a row an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import polars as pl

from nscore._tables.judged import check_judgements
from nscore.errors import SettingError
from nscore.frames import Frame, Source, source
from nscore.metrics import auroc
from nscore.metrics.labels import LABEL_METRICS, Confusion
from nscore.records import (
    COVERAGE,
    FAILING,
    FAILURES,
    LABEL,
    LEAST_COVERAGE,
    LOW_COVERAGE,
    N_JUDGED,
    N_JUDGEMENTS,
    NOT_RUN,
    OK,
    PREDICTED_LABEL,
    PROBABILITY,
    STATUS,
    judgement_keys,
)

__all__ = ["JUDGEMENT_SCORES", "score_judgements"]

FailedJudgement = Literal["drop", "wrong"]

JUDGEMENT_SCORES = (*(metric().meta.output_name() for metric in LABEL_METRICS), "auroc")
"""The scores, in the order of their columns."""


def score_judgements(
    frame: Frame, *, by: Sequence[str] | None = None, on_failure: FailedJudgement = "drop"
) -> pl.DataFrame:
    """Scores each explanation by what judges said of its items: active or not.

    A judgement takes part where the true label and the judge's are both known. The scores are `nscore.balanced_accuracy`,
    `nscore.f1`, `nscore.precision`, `nscore.recall`, `nscore.specificity`, and `nscore.auroc` of the judge's probability;
    all are expressions that work in a `group_by` of your own as well.

    Args:
        frame: a `judgements` table: the keys, `item`, `label`, `predicted_label`, and where there are such `scorer`,
            `probability` and `status`. Polars (eager or lazy), Arrow, pandas, or a path, folder or glob of Parquet.
        by: what is scored apart; `layer`, `neuron` and, where the columns exist, `simulator`, `explanation_id` and
            `scorer` if left out. With `stratum` besides, the recall of each stratum.
        on_failure: what a judgement without an answer does: `"drop"` takes it out, `"wrong"` counts it as a wrong answer
            (it has no probability, so the AUC is the same).

    Returns:
        Keys, `n_judgements`, `n_judged` (those with an answer), `failures` (a struct that counts the others by their
        `status`, or as `not_run` where that is null or `ok`), `coverage` = n_judged / n_judgements, `low_coverage` (below
        0.95), the four counts of those that take part, the scores; sorted by the keys. A score that is
        undefined is null: recall without active items, balanced accuracy and AUC where all items are of one class.

    Raises:
        TableError: if a column is missing or of another dtype, a status is unknown, a failure has a label, a
            probability is not within 0 and 1, or an item is judged twice under the same keys.
        SettingError: if there is no such policy.

    Source: the detection and fuzzing scores of Delphi, which drops failures without a count.

    Examples:
        >>> df = pl.DataFrame({"layer": 0, "neuron": 7, "item": range(4), "label": [True, True, True, False],
        ...                    "predicted_label": [True, False, None, False], "probability": [0.9, 0.2, None, 0.4]})
        >>> score_judgements(df).select("n_judged", "coverage", "balanced_accuracy", "f1", "auroc").row(0, named=True)
        {'n_judged': 3, 'coverage': 0.75, 'balanced_accuracy': 0.75, 'f1': 0.6666666666666666, 'auroc': 0.5}
    """
    if on_failure not in get_args(FailedJudgement):
        raise SettingError(f"on_failure: found {on_failure!r}, expected 'drop' or 'wrong'")
    given = source(frame)
    keys = list(by) if by is not None else judgement_keys(given.schema())
    check_judgements(given, by)
    judged = pl.col(PREDICTED_LABEL).is_not_null()
    counts = [
        pl.len().cast(pl.Int64).alias(N_JUDGEMENTS),
        judged.sum().cast(pl.Int64).alias(N_JUDGED),
        _failures(given, judged),
        judged.mean().alias(COVERAGE),
    ]
    truth, said = pl.col(LABEL), pl.col(PREDICTED_LABEL)
    if on_failure == "wrong":
        said = said.fill_null(~truth)
    scores = [*Confusion.of(truth, said).named(), *(metric(truth, said) for metric in LABEL_METRICS), _auc(given)]
    frame = given.frame.group_by(keys).agg(*counts, *scores) if keys else given.frame.select(*counts, *scores)
    table = given.collect(frame).with_columns((pl.col(COVERAGE) < LEAST_COVERAGE).alias(LOW_COVERAGE))
    first = [*keys, N_JUDGEMENTS, N_JUDGED, FAILURES, COVERAGE, LOW_COVERAGE]
    return table.select(*first, pl.exclude(first)).sort(keys) if keys else table.select(*first, pl.exclude(first))


def _auc(given: Source) -> pl.Expr:
    if PROBABILITY not in given.schema():
        return pl.lit(None, dtype=pl.Float64).alias("auroc")
    return auroc(pl.col(LABEL).cast(pl.Float64), PROBABILITY, threshold=0.5)


def _failures(given: Source, judged: pl.Expr) -> pl.Expr:
    status = pl.col(STATUS).cast(pl.String) if STATUS in given.schema() else pl.lit(None, dtype=pl.String)
    kind = status.fill_null(OK).replace(OK, NOT_RUN)
    return pl.struct((~judged & (kind == c)).sum().cast(pl.Int64).alias(c) for c in FAILING).alias(FAILURES)
