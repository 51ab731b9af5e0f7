"""Lets another process read strange files, stage after stage, and counts what came of it; it may die."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path

from holding.craft import small_tables, written


class Readers:
    """A process that reads files, and another where it dies: what came of each stage is counted."""

    def __init__(self, folder):
        tables = small_tables()
        self.beside = {name: str(folder / f"{name}.parquet") for name in ("records", "explanations")}
        for name in self.beside:
            written(tables[name], folder, name)
        self.folder, self.counts, self.faults, self.said = folder, Counter(), [], []
        self._process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait(10)
            self._process.stdout.close()

    def _started(self):
        if self._process is None:
            environment = os.environ | {"HOSTILE_MEMORY": str(6 << 30), "POLARS_MAX_THREADS": "2"}
            environment |= {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("file_worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,  # what lies in a buffer of ours is not seen by select
                env=environment,
            )
        return self._process

    def read(self, table, name, *, content=None, timeout_s=30, **order):
        """Lets all stages read a file: one of these bytes, or one that is spoilt on the spot."""
        file = self.folder / "strange.parquet"
        if content is not None:
            file.write_bytes(content)
        process = self._started()
        order |= {"table": table, "file": str(file), "beside": self.beside}
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        while True:
            line = None
            if select.select([process.stdout], [], [], timeout_s)[0]:
                line = process.stdout.readline()
            if not line:
                if line is None:
                    process.kill()  # else it dies of itself, and its code tells of what
                fault = f"{'hangs' if line is None else 'dies'} by {process.wait(10)}"
                process.stdin.close()
                process.stdout.close()
                self._process = None
                said = ["?", fault, ""]
            else:
                said = json.loads(line)
            if said is None:
                return
            stage, kind, words = said
            self.counts[kind] += 1
            self.said += [words] if words else []
            if kind not in {"ok", "typed"}:
                self.faults.append((table, name, stage, kind, words))
            if not line:
                return
