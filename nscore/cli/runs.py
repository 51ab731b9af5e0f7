"""`nscore runs`: what is in the folder of a run, whether it is whole, and how it is made whole again."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import nscore as ns
from nscore._sending.prices import dollars
from nscore.cli._common import add_json, print_json
from nscore.errors import SettingError

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    told = "; ".join(f"{name}: {summary}" for name, (_, summary) in ACTIONS.items())
    parser.add_argument("action", choices=list(ACTIONS), metavar="ACTION", help=told)
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of a run")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="NEW", help="salvage: the folder to make (default: DIR-salvaged)"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Does it, and says in words what came of it."""
    if arguments.out is not None and arguments.action != "salvage":
        raise SettingError(f"-o: {arguments.action} writes into the folder of the run; it is for salvage")
    return ACTIONS[arguments.action][0](arguments)


def _show(arguments: argparse.Namespace) -> int:
    told = ns.describe(arguments.folder)
    if arguments.json:
        print_json(dataclasses.asdict(told))
        return 0
    backend, inputs = told.settings["backend"], told.inputs or {}
    print(f"{arguments.folder}: {', '.join(s['name'] for s in told.settings['simulators'])} with {backend['model']}")
    print(f"at {backend['base_url']}, by nscore {told.settings['nscore']}.")
    if inputs:
        limit = f", with a limit of {inputs['limit']:,}" if inputs["limit"] is not None else ""
        print(f"Planned: {inputs['requests']:,} requests{limit}; {told.shards_begun:,} shards begun, "
              f"{told.shards_written:,} written.")  # fmt: skip
    doubt = f", {told.in_doubt:,} of them in doubt (they may be billed, and nobody has the reply)" * bool(told.in_doubt)
    print(f"Sent: {told.sent:,} calls{doubt}; {told.replies:,} replies stored in {told.journal_bytes:,} bytes.")
    if told.spent:
        print(f"Spent: {dollars(told.spent)} at most.")
    if told.statuses:
        print("Requests: " + ", ".join(f"{n:,} {status}" for status, n in told.statuses.items()) + ".")
    print(told.advice)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    found = ns.verify(arguments.folder)
    if arguments.json:
        print_json(dataclasses.asdict(found))
    else:
        for problem in found.problems:
            print(problem)
        if not found.problems:
            print(f"All is as it was written: {found.frames:,} frames of the journal, {found.replies:,} of them replies, "
                  f"and {found.shards:,} files of tables.")  # fmt: skip
    return 1 if found.problems else 0


def _rebuild(arguments: argparse.Namespace) -> int:
    rebuilt = ns.rebuild(arguments.folder)
    told = ns.describe(rebuilt.path)
    if arguments.json:
        print_json(dataclasses.asdict(told))
    else:
        counts = ", ".join(f"{n:,} {status}" for status, n in (told.statuses or {}).items()) or "none yet"
        print(
            f"{told.shards_written:,} shards were made again from {told.replies:,} stored replies. Requests: {counts}."
        )
        print(told.advice)
    return 0


def _salvage(arguments: argparse.Namespace) -> int:
    kept = ns.salvage(arguments.folder, arguments.out)
    if arguments.json:
        print_json(dataclasses.asdict(kept) | {"run": kept.run.path})
        return 0
    for part in kept.lost:
        print(f"Lost: {part}.")
    print(f"Kept in {kept.run.path}: {kept.frames:,} frames of the journal and {kept.shards:,} files of tables.")
    print(f"The command that started the run goes on with -o {kept.run.path}; what was lost is asked again.")
    return 0


ACTIONS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "show": (_show, "say what is there, what is missing and what to do"),
    "verify": (_verify, "read every byte, and say what is not as it was written"),
    "rebuild": (_rebuild, "make all tables again from the stored replies, at no cost"),
    "salvage": (_salvage, "keep what is whole of a damaged run, in a new folder"),
}
