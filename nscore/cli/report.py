"""`nscore report`: one page about a scoring, to open in a browser; it loads nothing."""

from __future__ import annotations

import argparse
import inspect

import nscore as ns
from nscore._tables.stores import StorePath, place
from nscore.cli._common import add_by, add_json, names, print_json
from nscore.metrics import CATALOGUE
from nscore.records import EXPLANATION_ID, LAYER, NEURON, SIMULATOR

__all__ = ["add_tables", "configure", "run"]

_USUAL = {name: p.default for name, p in inspect.signature(ns.report).parameters.items()}


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("source", metavar="DIR", help="a run, a folder of tables, or a simulated table")
    parser.add_argument(
        "-o", "--out", type=place, default=_USUAL["out"], metavar="FILE", help=f"(default: {_USUAL['out']})"
    )
    add_tables(parser)
    parser.add_argument("--requests", metavar="FILE", help="a table of requests, where DIR has none")
    parser.add_argument(
        "--metrics", type=names, metavar="NAMES", help=f"score again with these, of {', '.join(CATALOGUE)}"
    )
    parser.add_argument("--title", help="of the page (default: the name of DIR)")
    _number(parser, "neurons", "how many have heat maps: a third the best, a third the worst, the others at random")
    parser.add_argument("--named", type=names, default=[], metavar="NAMES", help="neurons besides: 0/134,2/77")
    _number(parser, "records", "how many of a neuron's worst and of its best records")
    _number(parser, "tokens", "how many of a record at most, around its highest activation")
    _number(parser, "max-bytes", "how large the page may become")
    _number(parser, "seed", "draws the neurons at random")
    add_json(parser)


def add_tables(parser: argparse.ArgumentParser) -> None:
    """The flags that name tables which DIR lacks, and what is read of them."""
    parser.add_argument("--scores", metavar="FILE", help="a table of scores, where DIR has none")
    parser.add_argument("--explanations", metavar="FILE", help="a table of explanations, where DIR has none")
    parser.add_argument("--splits", type=names, metavar="SPLITS", help="whose records are shown (default: valid,test)")
    parser.add_argument("--metric", metavar="NAME", help="the score by which neurons are ranked")
    add_by(parser, ", ".join([LAYER, NEURON, f"and, where they exist, {SIMULATOR}", EXPLANATION_ID]))


def _number(parser: argparse.ArgumentParser, name: str, told: str) -> None:
    usual = _USUAL[name.replace("-", "_")]
    parser.add_argument(f"--{name}", type=int, default=usual, metavar="N", help=f"{told} (default: {usual:,})")


def run(arguments: argparse.Namespace) -> int:
    """Writes the page, and says where it is."""
    given = {name: value for name, value in vars(arguments).items() if name in _USUAL}
    file = ns.report(arguments.source, **given)
    size = file.size() if isinstance(file, StorePath) else file.stat().st_size
    if arguments.json:
        print_json({"file": file, "bytes": size})
    else:
        print(f"wrote {file} ({size / 1e6:,.1f} MB): open it in a browser")
    return 0
