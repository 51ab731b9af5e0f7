"""The command line: a file a command; each parses, calls one public function, and prints.

Data go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 finished with rows that
failed, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
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
    "simulate": "predict activations of records from explanations",
    "probe": "ask a model server what it can do",
    "calibrate": "bring predictions into the neuron's units",
    "score": "score explanations, per record and pooled",
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
    except Exception as error:  # what is not ours, nor a table's or a file's, keeps its traceback
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
    arguments = parser.parse_args(given)
    if name is None:
        parser.print_help()
        return 2
    with shown_bars():
        return int(arguments.run(arguments))


def _of_polars(error: Exception) -> bool:
    from polars.exceptions import PolarsError  # noqa: PLC0415  (only where something went wrong)

    return isinstance(error, PolarsError)


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
            module = importlib.import_module(f"nscore.cli.{command}")
            module.configure(sub)
            sub.set_defaults(run=module.run)
            apply_settings(sub, command)
    return parser
