"""`nscore score` on a table of judgements: how well what judges say of each explanation's items agrees with the truth."""

from __future__ import annotations

import argparse
from typing import get_args

import polars as pl

from nscore._drawing.table import plain_table
from nscore.cli._common import print_json, summarise, write
from nscore.errors import SettingError
from nscore.frames import Source
from nscore.judgements import JUDGEMENT_SCORES, FailedJudgement, score_judgements
from nscore.metrics import DEFAULT
from nscore.records import FAILURES, LOW_COVERAGE, N_JUDGED, N_JUDGEMENTS, PREDICTED, PREDICTED_LABEL, SCORER

__all__ = ["POLICIES", "are_judgements", "score_judged"]

POLICIES: tuple[str, ...] = get_args(FailedJudgement)


def are_judgements(schema: pl.Schema) -> bool:
    """Whether a table has labels and no predicted activations."""
    return PREDICTED_LABEL in schema and PREDICTED not in schema


def score_judged(arguments: argparse.Namespace, judgements: Source) -> int:
    """Scores, writes the table, prints a summary for each scorer."""
    given = {
        "--metrics": arguments.metrics != list(DEFAULT),
        "--splits": arguments.splits,
        "--strata": arguments.strata,
        "--weights": arguments.weights,
        "--explanations": arguments.explanations,
    }
    for flag, is_given in given.items():
        if is_given:
            raise SettingError(f"{flag}: {judgements.name} is a table of judgements, for which there is no such choice")
    if arguments.on_failure not in POLICIES:
        raise SettingError(f"--on-failure: found {arguments.on_failure}; for judgements it is {' or '.join(POLICIES)}")
    scores = score_judgements(judgements, by=arguments.by, on_failure=arguments.on_failure)
    file = write(scores, arguments.out, "judgement_scores")
    counts = {
        "explanations": scores.height,
        "judgements": int(scores[N_JUDGEMENTS].sum()),
        "judged": int(scores[N_JUDGED].sum()),
    }
    low, failures = int(scores[LOW_COVERAGE].sum()), scores[FAILURES].struct.unnest().sum().row(0, named=True)
    summary = _by_scorer(scores)
    if arguments.json:
        print_json({**counts, "low_coverage": low, "failures": failures, "scores": summary, "files": [file]})
        return 0
    print(
        f"{counts['explanations']:,} rows of scores, {counts['judgements']:,} judgements, "
        f"{counts['judged']:,} with an answer"
    )
    classes = ", ".join(f"{n:,} {c}" for c, n in sorted(failures.items(), key=lambda item: -item[1]) if n)
    if classes:
        print(f"without an answer: {classes}; {low:,} rows have less than 95% of theirs ({LOW_COVERAGE})")
    print(f"\n{plain_table(summary)}\n\nwrote {file}")
    return 0


def _by_scorer(scores: pl.DataFrame) -> pl.DataFrame:
    metrics = list(JUDGEMENT_SCORES)
    if SCORER not in scores.columns or not scores.height:
        return summarise(scores, metrics)
    parts = [(scorer, part) for (scorer,), part in scores.group_by(SCORER, maintain_order=True)]
    return pl.concat(
        [summarise(part, metrics).select(pl.lit(scorer).alias(SCORER), pl.all()) for scorer, part in parts],
        how="vertical_relaxed",
    )
