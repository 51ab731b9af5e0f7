"""A process that forks one child for each trial: what takes long to load and starts no thread is loaded already.

Polars, pyarrow and nscore are loaded in the child, as they start threads, which no fork survives.
"""

from __future__ import annotations

import asyncio  # noqa: F401
import concurrent.futures  # noqa: F401
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

SHARD_ROWS, SEGMENT_BYTES = 16, 9000


def dying(at, when):
    """A disk that counts its calls, and at the `at`-th, from 0, ends the process as `kill -9` does.

    That is before the call, after it, or, of a write, when half of it is done.
    """
    from nscore._tables.disk import Disk

    calls = []
    turn = threading.Lock()

    def call(what, act, *arguments):
        with turn:
            mine = len(calls) == at
            calls.append(what)
        if mine and when == "half" and what == "write":
            disk, file, data = arguments
            Disk.write(disk, file, data[: len(data) // 2])
        if mine and when != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        result = act(*arguments)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    def method(name):
        act = getattr(Disk, name)
        return lambda *given: call(name, act, *given)

    names = ("open", "write", "fsync", "truncate", "replace", "mkdir")
    return type("Dying", (Disk,), {name: method(name) for name in names})(), calls


def child(order):
    """Carries out commands one after another; gives the first exit code that is not 0."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    from nscore._running import plan as _plan
    from nscore._sending import journal as _journal
    from nscore._tables import disk as _disk
    from nscore.cli import main

    _plan.SHARD_ROWS = SHARD_ROWS
    _journal.Journal.__init__.__kwdefaults__["segment_bytes"] = SEGMENT_BYTES
    _disk.DISK, calls = dying(order.get("at"), order.get("when", "before"))
    code = 0
    for command in order["commands"]:
        code = code or main(command)
    Path(order["log"]).with_suffix(".calls").write_text(json.dumps(calls))
    return code


def main():
    """Reads orders, forks, and says the number of the child and how it ended."""
    for name in ("numpy", "httpx", "httpx_aiohttp", "msgspec", "tqdm", "sniffio", "xml.etree.ElementTree"):
        with contextlib.suppress(ImportError):  # an extra
            importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork would lose the other threads"
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os._exit(child(json.loads(line)))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
