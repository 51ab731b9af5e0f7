"""`nscore check`: published scores beside the tokens they are about; are they right, and if not, why."""

from __future__ import annotations

import argparse

import nscore as ns
from nscore._tables.stores import place
from nscore.cli._common import add_by, add_json, print_json, write

__all__ = ["configure", "run"]

DIFFERENT = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("folder", metavar="DIR", help="what `nscore import` made of published simulations")
    parser.add_argument(
        "-o", "--out", type=place, metavar="DIR", help="write check.parquet and check_records.parquet there"
    )
    add_by(parser, "layer,neuron and, where they exist, simulator,explanation_id")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Checks, and says what agrees; exit code 3 where something does not."""
    found = ns.check(arguments.folder, by=arguments.by)
    tables = {"check": found.scores, "check_records": found.sequence_scores}
    files = []
    if arguments.out is not None:
        files = [write(frame, arguments.out, name) for name, frame in tables.items() if frame is not None]
    if arguments.json:
        counts = {
            name: {"scores": frame.height, "agree": frame["agrees"].sum(), "differ": (~frame["agrees"]).sum()}
            for name, frame in tables.items()
            if frame is not None
        }
        print_json({**counts, "causes": found.causes(), "files": files})
    else:
        print(found)
        for file in files:
            print(f"wrote {file}")
    return 0 if found.agrees else DIFFERENT
