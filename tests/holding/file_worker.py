"""Reads files that it is told of, one a line, and says what came of each; it may die, and its parent sees that."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import traceback
from functools import partial
from pathlib import Path

import nscore as ns
from nscore.cli import main
from nscore.errors import NscoreError, TableError


def stages(table, file, beside):
    """What is done with a file, by the kind of its table."""
    by_table = {
        "records": {"simulate": lambda: ns.simulate(file, beside["explanations"])},
        "explanations": {"simulate": lambda: ns.simulate(beside["records"], file)},
        "simulated": {
            "score_sequences": lambda: ns.score_sequences(file),
            "score": lambda: ns.score(file, metrics="all"),
            "calibrate": lambda: ns.calibrate(file),
        },
        "sequence_scores": {"pool": lambda: ns.pool(file)},
        "scores": {},
    }
    return {"validate": lambda: ns.validate(file, table), **by_table[table]}


def commands(table, file, beside, out):
    """The commands that read such a table: each is to end with one line, and without a traceback."""
    by_table = {
        "records": [["simulate", file, beside["explanations"]]],
        "explanations": [["simulate", beside["records"], file]],
        "simulated": [["score", file, "--metrics", "all"], ["calibrate", file]],
    }
    lines = by_table.get(table, [])
    return {f"{line[0]} command": partial(command, [*line, "-o", str(out)]) for line in lines}


class Said(NscoreError):  # noqa: N818
    """What a command said as it failed."""


def command(arguments):
    """Runs a command; what it says as it fails is raised."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = main(arguments)
    told = said.getvalue()
    if code not in {0, 1, 3} or told.count("\n") != (code == 1):
        raise AssertionError(f"code {code}, and said {told!r}")
    if code == 1:
        raise Said(told.strip())


def outcome(work, file):
    """What came of it: ok, typed, or what went wrong."""
    try:
        work()
    except NscoreError as error:
        named = not isinstance(error, TableError | Said) or Path(file).name in str(error)
        return ("typed" if named else "unnamed"), f"{type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001  (a panic is no Exception)
        place = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(f.filename).name}:{f.lineno}" for f in place if "/nscore/" in f.filename]
        kind = "panic" if type(error).__name__ == "PanicException" else "other"
        return kind, f"{type(error).__name__}: {error} at {' '.join(ours)}"
    return "ok", ""


def spoilt(order):
    """The file of an order: as it lies there, or a whole one cut off, or with a byte turned."""
    if "cut" in order or "flip" in order:
        content = bytearray(Path(order["of"]).read_bytes())
        if "cut" in order:
            del content[order["cut"] :]
        else:
            content[order["flip"]] ^= order["mask"]
        Path(order["file"]).write_bytes(content)
    return order["file"]


def tell(what):
    """A line for the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def work():
    limit = int(os.environ["HOSTILE_MEMORY"])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        order = json.loads(line)
        file = spoilt(order)
        todo = stages(order["table"], file, order["beside"])
        if order.get("commands"):
            todo |= commands(order["table"], file, order["beside"], Path(file).parent / "out")
        for name, stage in todo.items():
            kind, said = outcome(stage, file)
            tell([name, kind, said])
        tell(None)


if __name__ == "__main__":
    work()
