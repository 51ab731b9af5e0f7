"""`nscore compare`: two tables of sequence scores in; who wins, by how much, how surely."""

from __future__ import annotations

import argparse

import nscore as ns
from nscore._drawing.table import plain_table
from nscore._tables.stores import place
from nscore.cli._common import add_by, add_intervals, add_json, names, print_json, write
from nscore.compare import difference
from nscore.metrics import CATALOGUE, DEFAULT
from nscore.records import N_SEQUENCES

__all__ = ["configure", "run"]

LARGEST = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    folder = "Parquet file, folder or glob of sequence scores, or a folder that holds sequence_scores.parquet"
    parser.add_argument("a", metavar="A", help=folder)
    parser.add_argument("b", metavar="B", nargs="?", help="the other side (default: A)")
    parser.add_argument("-o", "--out", type=place, metavar="DIR", help="the folder that the tables are written to")
    parser.add_argument("--simulators", type=_pair, metavar="X,Y", help="the simulator of each side")
    parser.add_argument("--explanation-ids", type=_pair, metavar="X,Y", help="the explanation of each side")
    parser.add_argument(
        "--metrics",
        type=names,
        default=list(DEFAULT),
        metavar="NAMES",
        help=f"separated by commas, of {', '.join(m.name for m in CATALOGUE.values() if m.decomposes)} "
        f"(default: {','.join(DEFAULT)})",
    )
    add_by(parser, "the neuron, or all keys that both sides have where one has several rows of it")
    add_intervals(parser, "jackknife")
    parser.add_argument("--weights", metavar="COLUMN", help="how much each token of a record counts")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compares, writes both tables if asked to, prints the summary and the largest differences."""
    found = ns.compare(
        arguments.a,
        arguments.b,
        simulators=arguments.simulators,
        explanation_ids=arguments.explanation_ids,
        metrics=arguments.metrics,
        by=arguments.by,
        method=arguments.intervals,
        level=arguments.level,
        resamples=arguments.resamples,
        seed=arguments.seed,
        weights=arguments.weights,
    )
    files = []
    if arguments.out is not None:
        files = [
            write(found.neurons, arguments.out, "comparison"),
            write(found.summary, arguments.out, "comparison_summary"),
        ]
    first = found.summary["score"][0]
    largest = found.largest(first, LARGEST)
    counts = {
        "compared": found.neurons.height,
        "only_a": found.only_a,
        "only_b": found.only_b,
        "records": int(found.neurons[N_SEQUENCES].sum()),
        "unmatched_records": found.unmatched_records,
    }
    if arguments.json:
        print_json({**counts, "scores": found.summary, "largest": largest, "files": files})
        return 0
    print(
        f"{counts['compared']:,} on both sides ({counts['only_a']:,} only in A, {counts['only_b']:,} only in B), "
        f"{counts['records']:,} records; {counts['unmatched_records']:,} records scored on one side alone are left out"
    )
    print("\nA less B; wins are A's:\n")
    print(plain_table(found.summary))
    print(f"\nThe largest differences of {first}:\n")
    print(plain_table(largest.rename(lambda c: c.removeprefix(f"{difference(first)}_").removeprefix(f"{first}_"))))
    if files:
        print()
    for file in files:
        print(f"wrote {file}")
    return 0


def _pair(text: str) -> tuple[str, str]:
    found = names(text)
    if len(found) != 2:
        raise argparse.ArgumentTypeError(f"expected two names separated by a comma, found {len(found)}")
    return found[0], found[1]
