"""`nscore export`: the tables of a run or a folder in, files of another system out."""

from __future__ import annotations

import argparse
import dataclasses
from typing import get_args

import nscore as ns
from nscore._tables.stores import place
from nscore.cli._common import add_json, names, print_json
from nscore.exporters import EXPORTERS
from nscore.records import OnFailure, Split

__all__ = ["configure", "run"]

FAILED_ROWS = 3
OPTIONS = ("model_id", "metrics", "score_model", "explanation_model")


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags; those of one format say of which."""
    parser.add_argument("format", metavar="FORMAT", choices=sorted(EXPORTERS), help=", ".join(sorted(EXPORTERS)))
    parser.add_argument("folder", metavar="DIR", help="a run, or a folder of tables (simulated.parquet, ...)")
    parser.add_argument(
        "-o",
        "--out",
        type=place,
        metavar="PATH",
        required=True,
        help="the folder for the files; empty, or not there yet",
    )
    parser.add_argument("--explanations", metavar="FILE", help="the texts, where the folder does not hold them")
    parser.add_argument("--simulator", metavar="NAME", help="whose predictions, where there are several")
    parser.add_argument(
        "--splits",
        type=names,
        metavar="SPLITS",
        help=f"which records where there are splits, of {', '.join(get_args(Split))} (default: valid,test)",
    )
    parser.add_argument(
        "--on-failure",
        choices=get_args(OnFailure),
        default="drop",
        help="a record with a token without a prediction is left out, or the token is written as 0.0, as the original "
        "does (default: drop)",
    )
    parser.add_argument("--leaks", choices=["refuse", "allow"], default="refuse", help="(default: refuse)")
    parser.add_argument("--model-id", metavar="NAME", help="neuronpedia: its name of the model")
    parser.add_argument("--metrics", type=names, metavar="NAMES", help="neuronpedia: scores, separated by commas")
    parser.add_argument("--score-model", metavar="NAME", help="neuronpedia: what simulated")
    parser.add_argument("--explanation-model", metavar="NAME", help="neuronpedia: what wrote the explanations")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exports, and says what was written and what was left out."""
    exported = ns.export_files(
        arguments.format,
        arguments.folder,
        arguments.out,
        explanations=arguments.explanations,
        simulator=arguments.simulator,
        splits=arguments.splits,
        on_failure=arguments.on_failure,
        leaks=arguments.leaks,
        **{name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None},
    )
    if arguments.json:
        print_json(dataclasses.asdict(exported))
    else:
        print(exported)
    return FAILED_ROWS if exported.incomplete else 0
