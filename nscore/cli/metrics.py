"""`nscore metrics`: the catalogue."""

from __future__ import annotations

import argparse

import polars as pl

from nscore._drawing.table import plain_table
from nscore.cli._common import add_json, print_json
from nscore.metrics import CATALOGUE, DEFAULT

__all__ = ["configure", "markdown", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add_json(parser)
    parser.add_argument("--markdown", action="store_true", help="print a table for a README")


def run(arguments: argparse.Namespace) -> int:
    """Prints the catalogue."""
    if arguments.markdown:
        print(markdown())
        return 0
    rows = pl.DataFrame(
        {
            "metric": m.name,
            "best": m.best,
            "better": "higher" if m.higher_is_better else "lower",
            "from": "moments" if m.decomposes else "tokens",
            "default": m.name in DEFAULT,
            "meaning": m.meaning,
        }
        for m in CATALOGUE.values()
    )
    if arguments.json:
        print_json(rows)
    else:
        print(plain_table(rows, width=200))
    return 0


def markdown() -> str:
    """The catalogue as the README has it."""
    head = ["| metric | best | what it says | computed from |", "|---|---|---|---|"]
    rows = [
        f"| `{m.name}` | {m.best:g} ({'higher' if m.higher_is_better else 'lower'} is better) | {m.meaning} | "
        f"{'moments, which merge' if m.decomposes else 'tokens'} |"
        for m in CATALOGUE.values()
    ]
    return "\n".join([*head, *rows])
