"""`nscore best`: sequence scores of several explanations of each neuron in; the best of each out."""

from __future__ import annotations

import argparse
from typing import get_args

import polars as pl

import nscore as ns
from nscore._drawing.table import plain_table
from nscore._tables.stores import place
from nscore.cli._common import add_intervals, add_json, names, print_json, write
from nscore.metrics import DEFAULT
from nscore.records import EXPLANATION_ID, Split

__all__ = ["configure", "run"]

SHOWN = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument(
        "sequence_scores",
        metavar="SEQUENCE_SCORES",
        help="Parquet file, folder or glob, or a folder that holds sequence_scores.parquet",
    )
    parser.add_argument("-o", "--out", type=place, metavar="DIR", help="the folder that the table is written to")
    parser.add_argument("--metric", default=DEFAULT[0], help=f"by which score (default: {DEFAULT[0]})")
    parser.add_argument(
        "--of", type=names, default=[EXPLANATION_ID], metavar="KEYS", help=f"what is chosen (default: {EXPLANATION_ID})"
    )
    splits = get_args(Split)
    parser.add_argument("--choose-on", choices=splits, default="valid", help="the split (default: valid)")
    parser.add_argument("--report-on", choices=splits, default="test", help="the split (default: test)")
    add_intervals(parser, "jackknife")
    parser.add_argument("--weights", metavar="COLUMN", help="how much each token of a record counts")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Chooses, writes the table if asked to, prints what the choice is worth."""
    found = ns.best(
        arguments.sequence_scores,
        metric=arguments.metric,
        of=arguments.of,
        choose_on=arguments.choose_on,
        report_on=arguments.report_on,
        method=arguments.intervals,
        level=arguments.level,
        resamples=arguments.resamples,
        seed=arguments.seed,
        weights=arguments.weights,
    )
    files = [write(found, arguments.out, "best")] if arguments.out is not None else []
    chosen, told = f"{arguments.metric}_{arguments.choose_on}", f"{arguments.metric}_{arguments.report_on}"
    both = found.filter(pl.all_horizontal(pl.col(chosen, told, f"{told}_mean").is_finite()))
    means = {
        f"mean_{arguments.choose_on}_of_chosen": both[chosen].mean(),
        f"mean_{arguments.report_on}_of_chosen": both[told].mean(),
        f"mean_{arguments.report_on}_of_all": both[f"{told}_mean"].mean(),
    }
    chosen_by = dict(found["chosen_by"].fill_null("none").value_counts(sort=True).iter_rows())
    counts = {"neurons": found.height, "candidates": int(found["n_candidates"].sum())}
    if arguments.json:
        print_json({**counts, "chosen_by": chosen_by, "metric": arguments.metric, **means, "files": files})
        return 0
    by = ", ".join(f"{n:,} by {how}" for how, n in chosen_by.items())
    print(f"{counts['neurons']:,} neurons, {counts['candidates']:,} candidates; chosen: {by}")
    print(f"\n{arguments.metric}, mean over {both.height:,} neurons:")
    for name, value in means.items():
        print(f"  {name.removeprefix('mean_').replace('_', ' '):<16} {told_as(value)}")
    print("\nThe first, by the score that was told:\n")
    shown = found.sort(told, descending=True, nulls_last=True).head(SHOWN)
    print(plain_table(shown.rename(lambda c: c.removeprefix(f"{arguments.metric}_"))))
    if files:
        print()
    for file in files:
        print(f"wrote {file}")
    return 0


def told_as(value: object) -> str:
    """A mean in words."""
    return f"{value:.3f}" if isinstance(value, float) else "none"
