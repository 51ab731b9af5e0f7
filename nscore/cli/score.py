"""`nscore score`: a simulated table in; scores and sequence scores out, and a summary."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

import polars as pl

import nscore as ns
from nscore.cli._common import add_by, add_json, add_output, names, print_json, summarise, table, write
from nscore.metrics import CATALOGUE, DEFAULT, resolve
from nscore.records import EXPLANATION_ID, N_PREDICTED, N_SEQUENCES, N_TOKENS, SIMULATOR, OnFailure, Split
from nscore.score import pool_beside_tokens

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("simulated", nargs="+", metavar="SIMULATED", help="Parquet files, folders or globs")
    add_output(parser)
    add_by(parser, "layer,neuron and, where they exist, simulator,explanation_id")
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
    parser.add_argument(
        "--on-failure",
        choices=get_args(OnFailure),
        default="drop",
        help="a token without a prediction is left out, or scored as 0 as the original does (default: drop)",
    )
    parser.add_argument("--explanations", metavar="FILE", help="whose shown_sequences must not be scored")
    parser.add_argument("--leaks", choices=["refuse", "allow"], default="refuse", help="(default: refuse)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Scores, writes both tables, prints a summary."""
    chosen = resolve("all" if arguments.metrics == ["all"] else arguments.metrics)
    sequences = ns.score_sequences(
        arguments.simulated,
        by=arguments.by,
        metrics=chosen,
        splits=arguments.splits,
        on_failure=arguments.on_failure,
        keep=[arguments.weights] if arguments.weights else [],
        explanations=arguments.explanations,
        leaks=arguments.leaks,
    )
    scores = pool_beside_tokens(
        sequences,
        arguments.simulated,
        metrics=chosen,
        splits=arguments.splits,
        on_failure=arguments.on_failure,
        strata=arguments.strata,
        weights=arguments.weights,
    )
    files = [write(scores, arguments.out, "scores"), write(sequences, arguments.out, "sequence_scores")]
    report(scores, [m.name for m in chosen], as_json=arguments.json, files=files)
    return 0


def report(scores: pl.DataFrame, metrics: list[str], *, as_json: bool, files: Sequence[object]) -> None:
    """Prints how many there are, how much was predicted, and how the scores are spread."""
    neuron = [c for c in scores.columns[: scores.columns.index(N_SEQUENCES)] if c not in {SIMULATOR, EXPLANATION_ID}]
    counts: dict[str, int] = {
        "neurons": scores.select(neuron).n_unique() if neuron else scores.height,
        "explanations": scores.height,
        "records": int(scores[N_SEQUENCES].sum()),
        "tokens": int(scores[N_TOKENS].sum()),
        "predicted": int(scores[N_PREDICTED].sum()),
    }
    covered = counts["predicted"] / counts["tokens"] if counts["tokens"] else None
    summary = summarise(scores, metrics)
    if as_json:
        print_json({**counts, "coverage": covered, "scores": summary, "files": files})
        return
    share = "no tokens" if covered is None else f"coverage {covered:.1%}"
    print(
        f"{counts['neurons']:,} neurons, {counts['explanations']:,} rows of scores, {counts['records']:,} records, "
        f"{counts['tokens']:,} tokens; {share}"
    )
    print()
    print(table(summary))
    print()
    for file in files:
        print(f"wrote {file}")
