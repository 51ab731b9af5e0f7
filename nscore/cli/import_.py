"""`nscore import`: files of another system in, the tables of nscore out."""

from __future__ import annotations

import argparse
import dataclasses

import nscore as ns
from nscore.cli._common import add_executor, add_json, add_output, executor_of, print_json
from nscore.importers import IMPORTERS

__all__ = ["configure", "run"]

FAILED_ROWS = 3
METAVARS = {int: "N", str: "TEXT"}
# What one format takes beside what all take; left out, the importer's own default.
OPTIONS: list[tuple[str, type, str, str]] = [
    ("--per-split", int, "openai, neuronpedia, saedashboard", "records of a stratum that a split takes at most"),
    ("--columns", str, "table", "what its columns are called in the files: neuron=feature,activation=act"),
    ("--constants", str, "table", "what is the same in every row and not in the files: layer=5"),
    ("--kind", str, "table", "records, explanations, simulated or judgements (default: told by the columns)"),
    ("--context", int, "delphi", "tokens of a window (default: 32)"),
    ("--top", int, "delphi", "strongest windows of each latent (default: 20)"),
    ("--random", int, "delphi", "windows in which it does not fire (default: 20)"),
    ("--quantiles", int, "delphi", "parts by strength that the other windows are drawn from (default: 0)"),
    ("--per-quantile", int, "delphi", "windows drawn from each (default: 5)"),
    ("--seed", int, "delphi", "of what is drawn (default: 0)"),
    ("--max-latents", int, "delphi", "only latents with a smaller number"),
    ("--tokenizer", str, "delphi", "the model's tokenizer.json, for the texts of tokens; needs nscore[delphi]"),
    ("--explanation-id", str, "delphi", "what the run's explanations are called (default: delphi)"),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags; those of one format say of which."""
    parser.add_argument("format", metavar="FORMAT", choices=sorted(IMPORTERS), help=", ".join(sorted(IMPORTERS)))
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, folders, globs, https:// or s3:// addresses")
    add_output(parser)
    parser.add_argument(
        "--on-error",
        choices=["stop", "skip"],
        default="stop",
        help="a broken file ends the import, or is left out, named and counted (default: stop)",
    )
    add_executor(parser, "local, for more than a few files processes")
    for flag, kind, formats, said in OPTIONS:
        parser.add_argument(flag, type=kind, metavar=METAVARS[kind], help=f"{formats}: {said}")
    parser.add_argument(
        "--distribution", action="store_true", default=None, help="openai: keep the distribution that was predicted"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Imports, and says what was read and what was left out."""
    common = {"format", "paths", "out", "on_error", "executor", "workers", "address", "json", "run"}
    options = {name: value for name, value in vars(arguments).items() if name not in common and value is not None}
    imported = ns.import_files(
        arguments.format,
        arguments.paths,
        arguments.out,
        on_error=arguments.on_error,
        executor=executor_of(arguments),
        workers=arguments.workers,
        **options,
    )
    if arguments.json:
        print_json(dataclasses.asdict(imported))
    else:
        print(imported)
    return FAILED_ROWS if imported.skipped else 0
