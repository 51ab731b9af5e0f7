"""The command line: a file a command; each parses, calls one public function, and prints.

Data go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 finished with rows that
failed, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import keyword
import os
import sys
from collections.abc import Sequence

from nscore import __version__
from nscore._progress import shown_bars
from nscore.cli._settings import apply_settings
from nscore.errors import NscoreError

__all__ = ["main"]

# Each command and what it does in a line. A command's own module, and with it polars, is loaded when it is called.
COMMANDS = {
    "demo": "run everything on the bundled sample of real neurons: no key, no model server",
    "import": "read files of other systems: OpenAI, Delphi, Neuronpedia, SAEDashboard, plain tables",
    "simulate": "predict activations of records from explanations",
    "probe": "ask a model server what it can do",
    "runs": "look after the folder of a run: show, verify, rebuild, salvage",
    "calibrate": "bring predictions into the neuron's units",
    "score": "score explanations, per record and pooled",
    "query": "ask the tables of a run or a folder of results in SQL",
    "export": "write files of other systems: OpenAI, Delphi, Neuronpedia",
    "check": "compute published scores again: which agree, and why the others do not",
    "compare": "compare two runs, simulators or sets of explanations on the same records",
    "best": "choose the best of several explanations of each neuron",
    "report": "write one page to look at: plots, a table of neurons, heat maps of their records",
    "show": "show one neuron on the terminal, or the best and the worst in a list",
    "metrics": "list the metrics that score computes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    name = given[0] if given and given[0] in COMMANDS else None
    try:
        code = _run(given, name)
    except BrokenPipeError:
        code = 0
    except KeyboardInterrupt as interrupt:
        said = "; ".join(["interrupted", *getattr(interrupt, "__notes__", ())])
        print(f"nscore {name}: {said}", file=sys.stderr)
        code = 130
    except BaseException as error:  # what is not ours, nor a table's or a file's, keeps its traceback
        if not isinstance(error, NscoreError | OSError) and not _of_polars(error):
            raise
        said = str(error) if isinstance(error, NscoreError) else str(error).split("\n", maxsplit=1)[0]
        print(f"nscore {name or ''}".rstrip() + f": {said}", file=sys.stderr)
        code = 1
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # the reader (head, less) has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run(given: list[str], name: str | None) -> int:
    parser = _parser(name)
    arguments, rest = parser.parse_known_args(given)
    if len(rest) == 1 and rest[0][:2] != "--" and getattr(arguments, "sql", "") is None:
        arguments.sql = rest.pop()  # argparse gives an argument that may be left out nothing that comes after a flag
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if name is None:
        parser.print_help()
        return 2
    with shown_bars():
        return int(arguments.run(arguments))


def _of_polars(error: BaseException) -> bool:
    if isinstance(error, SystemExit):
        return False
    from polars.exceptions import PanicException, PolarsError  # noqa: PLC0415  (only where something went wrong)

    return isinstance(error, PolarsError | PanicException)


def _parser(name: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nscore",
        description="How well do explanations of neurons predict when they fire?",
        epilog="nscore COMMAND --help tells about one command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"nscore {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command, summary in COMMANDS.items():
        sub = commands.add_parser(
            command, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
        )
        if command == name:
            module = importlib.import_module(f"nscore.cli.{command}{'_' * keyword.iskeyword(command)}")
            module.configure(sub)
            sub.set_defaults(run=module.run)
            apply_settings(sub, command)
    return parser
