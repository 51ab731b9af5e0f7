"""Kills workers of a run while it goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial

from asking import asked


def worker_of(path):
    """The process that works on the shard that was begun last."""
    locks = sorted((path / "journals").glob("*/lock"), key=lambda file: file.stat().st_mtime)
    return int(locks[-1].read_text() or 0) if locks else 0


class Killer:
    """Kills a worker of a run whenever the server has been asked so many times more."""

    def __init__(self, server, path, times, every=12):
        self.killed, self._over = [], threading.Event()
        self._thread = threading.Thread(target=partial(self._work, server, path, times, every), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(10)

    def _work(self, server, path, times, every):
        for number in range(times):
            while not self._over.is_set() and asked(server) < (number + 1) * every:
                time.sleep(0.005)
            pid = worker_of(path)
            if self._over.is_set() or not pid:
                return
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.killed.append(pid)
