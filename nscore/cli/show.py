"""`nscore show`: one neuron on the terminal, its records as heat maps; or the best and the worst in a list."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

import nscore as ns
from nscore._drawing.terminal import Colours, colours_of
from nscore.cli._common import add_json, print_json
from nscore.cli.report import add_tables
from nscore.records import EXPLANATION

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("source", metavar="DIR", help="a run, a folder of tables, or a simulated table")
    parser.add_argument(
        "neuron", nargs="?", metavar="LAYER/NEURON", help="the neuron; the best and the worst are listed, if left out"
    )
    add_tables(parser)
    parser.add_argument("--simulator", metavar="NAME", help="only the predictions of this one (default: the best)")
    parser.add_argument("--all", action="store_true", help="the predictions of every simulator")
    parser.add_argument("--records", type=int, default=3, metavar="N", help="of the worst and the best (default: 3)")
    parser.add_argument("--tokens", type=int, default=96, metavar="N", help="of a record at most (default: 96)")
    parser.add_argument("--rows", type=int, default=10, metavar="N", help="of the list, best and worst (default: 10)")
    parser.add_argument(
        "--colors",
        choices=["auto", "none", "256", "truecolor"],
        default="auto",
        help="auto: none where stdout is no terminal or NO_COLOR is set (default: auto)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints it."""
    tables = {name: getattr(arguments, name) for name in ("scores", "explanations", "by", "splits", "metric")}
    if arguments.neuron is None:
        view = ns.view(arguments.source, **tables, rows=arguments.rows)
        gathered = view.gathered
        if arguments.json:
            columns = [*gathered.keys, *gathered.score_names(), *({EXPLANATION} & set(gathered.scores.columns))]
            print_json({"metric": gathered.metric, "rows": view.ends().select(columns)})
        else:
            print(view)
        return 0
    portrait = ns.show(
        arguments.source,
        arguments.neuron,
        **tables,
        simulator=arguments.simulator,
        records=arguments.records,
        tokens=arguments.tokens,
    )
    if not arguments.all and arguments.simulator is None:
        portrait = portrait.best()
    if arguments.json:
        print_json({"explanations": portrait.as_data()})
        return 0
    colours: Colours = colours_of(sys.stdout, os.environ) if arguments.colors == "auto" else arguments.colors
    print(portrait.text(colours=colours, width=shutil.get_terminal_size((100, 24)).columns))
    return 0
