"""`nscore simulate`: records and explanations in, the simulated table out."""

from __future__ import annotations

import argparse

import polars as pl

import nscore as ns
from nscore.cli._common import add_by, add_json, add_output, names, print_json, table, write
from nscore.records import OK, SIMULATOR, STATUS
from nscore.simulators import SIMULATORS

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("records", metavar="RECORDS", help="a Parquet file, folder or glob")
    parser.add_argument("explanations", metavar="EXPLANATIONS", help="a Parquet file, folder or glob")
    parser.add_argument(
        "--simulator",
        type=names,
        default=["lexical"],
        metavar="NAMES",
        help=f"separated by commas, of {', '.join(SIMULATORS)}, or shuffled_NAME for the control of another"
        " (default: lexical)",
    )
    add_output(parser)
    add_by(parser, "layer,neuron")
    parser.add_argument("--splits", type=names, metavar="SPLITS", help="(default: calibration,valid,test)")
    parser.add_argument("--leaks", choices=["refuse", "allow"], default="refuse", help="(default: refuse)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Simulates, writes the table, prints how the tokens fared."""
    simulated = ns.simulate(
        arguments.records,
        arguments.explanations,
        simulator=arguments.simulator,
        by=arguments.by,
        splits=arguments.splits,
        leaks=arguments.leaks,
    )
    file = write(simulated, arguments.out, "simulated")
    counts = (
        pl.scan_parquet(file, glob=False).group_by(SIMULATOR, STATUS).len("tokens").sort(SIMULATOR, STATUS).collect()
    )
    if arguments.json:
        print_json({"tokens": counts, "files": [file]})
    else:
        print(table(counts))
        print(f"\nwrote {file}")
    return 0 if (counts[STATUS] == OK).all() else 3
