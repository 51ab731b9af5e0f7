"""`nscore score`: a simulated table in; scores and sequence scores out, and a summary. Of judgements, their scores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

import polars as pl

import nscore as ns
from nscore._drawing.table import plain_table
from nscore.cli._common import (
    add_by,
    add_executor,
    add_intervals,
    add_json,
    add_output,
    executor_of,
    names,
    print_json,
    summarise,
    write,
)
from nscore.cli._judged import POLICIES, are_judgements, score_judged
from nscore.errors import SettingError
from nscore.frames import source
from nscore.intervals import beside
from nscore.metrics import CATALOGUE, DEFAULT, resolve
from nscore.records import (
    EXPLANATION_ID,
    FAILURES,
    LEAST_COVERAGE,
    LOW_COVERAGE,
    N_PREDICTED,
    N_SEQUENCES,
    N_TOKENS,
    SIMULATOR,
    OnFailure,
    Split,
)
from nscore.score import pool_beside_tokens

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument(
        "simulated", nargs="+", metavar="SIMULATED", help="Parquet files, folders or globs; or judgements"
    )
    add_output(parser)
    add_by(parser, "layer,neuron and, where they exist, simulator,explanation_id,scorer")
    parser.add_argument(
        "--metrics",
        type=names,
        default=list(DEFAULT),
        metavar="NAMES",
        help=f"separated by commas, or all: {', '.join(CATALOGUE)} (default: {','.join(DEFAULT)})",
    )
    parser.add_argument(
        "--splits",
        type=names,
        metavar="SPLITS",
        help=f"what is scored where there are splits, of {', '.join(get_args(Split))} (default: valid,test)",
    )
    parser.add_argument("--strata", action="store_true", help="add the scores of each stratum alone")
    parser.add_argument("--weights", metavar="COLUMN", help="how much each token of a record counts")
    add_intervals(parser)
    parser.add_argument(
        "--on-failure",
        choices=list(dict.fromkeys([*get_args(OnFailure), *POLICIES])),
        default="drop",
        help="a token without a prediction is left out, or scored as 0 as the original does; a judgement without an "
        "answer is left out, or counts as wrong (default: drop)",
    )
    parser.add_argument("--explanations", metavar="FILE", help="whose shown_sequences must not be scored")
    parser.add_argument("--leaks", choices=["refuse", "allow"], default="refuse", help="(default: refuse)")
    add_executor(parser, "this process alone, with all processors")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Scores, writes both tables, prints a summary."""
    chosen = resolve("all" if arguments.metrics == ["all"] else arguments.metrics)
    simulated = source(arguments.simulated)
    if are_judgements(simulated.schema()):
        return score_judged(arguments, simulated)
    if arguments.on_failure not in get_args(OnFailure):
        raise SettingError(
            f"--on-failure: found {arguments.on_failure}, which is for judgements; expected drop or zero"
        )
    options = {
        "by": arguments.by,
        "splits": arguments.splits,
        "on_failure": arguments.on_failure,
        "explanations": arguments.explanations,
        "leaks": arguments.leaks,
    }
    executor = executor_of(arguments)
    if executor is not None or arguments.workers is not None:
        scores, sequences = ns.score_shards(
            simulated,
            executor=executor or "processes",
            workers=arguments.workers,
            metrics=[m.name for m in chosen],
            strata=arguments.strata,
            weights=arguments.weights,
            **options,
        )
    else:
        keep = [arguments.weights] if arguments.weights else []
        sequences = ns.score_sequences(simulated, metrics=chosen, keep=keep, **options)
        scores = pool_beside_tokens(
            sequences,
            simulated,
            metrics=chosen,
            splits=arguments.splits,
            on_failure=arguments.on_failure,
            strata=arguments.strata,
            weights=arguments.weights,
        )
    if arguments.intervals:
        scores = beside(
            scores,
            sequences,
            chosen,
            arguments.intervals,
            level=arguments.level,
            resamples=arguments.resamples,
            seed=arguments.seed,
            weights=arguments.weights,
        )
    files = [write(scores, arguments.out, "scores"), write(sequences, arguments.out, "sequence_scores")]
    report(scores, [m.name for m in chosen], as_json=arguments.json, files=files)
    return 0


def report(scores: pl.DataFrame, metrics: list[str], *, as_json: bool, files: Sequence[object]) -> None:
    """Prints how many there are, how much was predicted, what failed, and how the scores are spread."""
    neuron = [c for c in scores.columns[: scores.columns.index(N_SEQUENCES)] if c not in {SIMULATOR, EXPLANATION_ID}]
    counts: dict[str, int] = {
        "neurons": scores.select(neuron).n_unique() if neuron else scores.height,
        "explanations": scores.height,
        "records": int(scores[N_SEQUENCES].sum()),
        "tokens": int(scores[N_TOKENS].sum()),
        "predicted": int(scores[N_PREDICTED].sum()),
    }
    covered = counts["predicted"] / counts["tokens"] if counts["tokens"] else None
    low, failures = int(scores[LOW_COVERAGE].sum()), scores[FAILURES].struct.unnest().sum().row(0, named=True)
    summary = summarise(scores, metrics)
    if as_json:
        told = {"coverage": covered, "low_coverage": low, "failures": failures}
        print_json({**counts, **told, "scores": summary, "files": files})
        return
    share = "no tokens" if covered is None else f"coverage {covered:.1%}"
    print(
        f"{counts['neurons']:,} neurons, {counts['explanations']:,} rows of scores, {counts['records']:,} records, "
        f"{counts['tokens']:,} tokens; {share}"
    )
    if any(failures.values()):
        print(lost(counts, low, failures))
    print()
    print(plain_table(summary))
    print()
    for file in files:
        print(f"wrote {file}")


def lost(counts: dict[str, int], low: int, failures: dict[str, int]) -> str:
    """How many explanations are flagged, and how many tokens have no prediction for which reason, in words."""
    parts = []
    if low:
        share = f"less than {LEAST_COVERAGE:.0%} coverage ({LOW_COVERAGE})"
        parts.append(f"{low:,} of {counts['explanations']:,} explanations have {share}")
    classes = sorted((c for c in failures if failures[c]), key=lambda c: -failures[c])
    by_class = ", ".join(f"{failures[c]:,} {c}" for c in classes)
    parts.append(f"{sum(failures.values()):,} of {counts['tokens']:,} tokens have no prediction: {by_class}")
    return "; ".join(parts)
