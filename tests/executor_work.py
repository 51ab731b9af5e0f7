"""Work for executors: functions of a module, as those of nscore are."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from nscore.errors import TableError


def squared(job):
    time.sleep(job % 3 * 0.01)
    return job * job


def process_of(_job):
    time.sleep(0.2)
    return os.getpid()


def failing(job):
    if job == 3:
        raise TableError("wrong", "here", found="3", mend="Take another.")
    if job > 3:
        time.sleep(0.05)
    return job


def killed_once(job):
    """The worker of job 2 is killed the first time it comes by."""
    number, folder = job
    mark = Path(folder) / f"been-{number}"
    if number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def killed_always(job):
    if job == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def threads(_job):
    import polars as pl

    return pl.thread_pool_size()


def processors(_job):
    time.sleep(0.05)
    return tuple(sorted(os.sched_getaffinity(0)))
