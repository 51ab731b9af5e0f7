"""`processes`: a pool of processes on this machine; a job whose process was killed is done again by another."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import current_process, get_context, parent_process
from typing import Generic, TypeVar

from nscore.errors import ExecutorError, SettingError
from nscore.executors._protocol import cores, executor

__all__ = ["Processes"]

J = TypeVar("J")
R = TypeVar("R")

ATTEMPTS = 3
ORPHANED_S = 3.0
THREADS = "POLARS_MAX_THREADS"
GUARD = 'a script needs if __name__ == "__main__": around what it does.'


@dataclass(slots=True)
class _Waiting(Generic[J, R]):
    job: J
    future: Future[R]
    attempts: int = 1


@executor("processes")
@dataclass(frozen=True, slots=True)
class Processes:
    """Works in processes of this machine.

    They begin afresh (`spawn`), which takes about half a second; a script that starts them needs
    `if __name__ == "__main__":` around what it does. The processors are shared out among them: each works on its own ones
    (Linux), with as many threads of Polars; where `POLARS_MAX_THREADS` says another number, on any.

    Args:
        workers: how many; as many as there are processors, if left out.
    """

    workers: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise SettingError(f"workers: found {self.workers}, expected 1 or more")
        if not self.workers:
            object.__setattr__(self, "workers", cores())

    @property
    def name(self) -> str:
        """`processes`."""
        return "processes"

    def each(self, work: Callable[[J], R], jobs: Iterable[J]) -> Generator[R, None, None]:
        """See `Executor.each`."""
        if getattr(current_process(), "_inheriting", False):  # before it holds what nobody would give back
            raise ExecutorError(f"a process that was to begin runs the script that began it: {GUARD}")
        rest = iter(jobs)
        waiting: deque[_Waiting[J, R]] = deque()
        done = False
        with _threads(max(1, cores() // self.workers)):
            pool = self._pool(work)
            try:
                for job in itertools.islice(rest, 2 * self.workers):
                    waiting.append(_Waiting(job, _submitted(pool, work, job)))
                while waiting:
                    try:
                        result = waiting[0].future.result()
                    except BrokenProcessPool as error:
                        pool.shutdown(cancel_futures=True)
                        _check(waiting, error, done=done)
                        pool = self._pool(work)
                        for each in waiting:
                            if not each.future.done() or each.future.cancelled() or each.future.exception():
                                each.future, each.attempts = _submitted(pool, work, each.job), each.attempts + 1
                        continue
                    waiting.popleft()
                    done = True
                    for job in itertools.islice(rest, 1):
                        waiting.append(_Waiting(job, _submitted(pool, work, job)))
                    yield result
            finally:
                pool.shutdown(cancel_futures=True)

    def _pool(self, work: Callable[[J], R]) -> ProcessPoolExecutor:
        """Processes that begin now, and import what the work needs, while whoever asks for them looks for the first jobs."""
        pool = ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(work,))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # they inherit it, until they ignore it
        try:
            for share in _shares(self.workers):
                with _held_to(share):  # they inherit that, too: what one thread decodes the next finds in the cache
                    pool.submit(_nothing)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pool


def _submitted(pool: ProcessPoolExecutor, work: Callable[[J], R], job: J) -> Future[R]:
    """A job on its way; where a process has been lost, but nobody has seen it yet, it is seen at this job's turn."""
    try:
        return pool.submit(work, job)
    except BrokenProcessPool as error:
        future: Future[R] = Future()
        future.set_exception(error)
        return future


def _check(waiting: Iterable[_Waiting[J, R]], error: BrokenProcessPool, *, done: bool) -> None:
    if max(each.attempts for each in waiting) < (ATTEMPTS if done else 2):
        return
    words = "ran out of memory, or were killed from outside: try fewer workers, or look into the system's log."
    if not done:
        words = f"did not even begin: {GUARD} If it has that, they {words}"
    raise ExecutorError(
        f"processes of the pool ended in the middle of their work, again and again. They {words}"
    ) from error


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """New processes take so many threads for Polars, unless the user has said how many."""
    if THREADS in os.environ:
        yield
        return
    os.environ[THREADS] = str(number)
    try:
        yield
    finally:
        os.environ.pop(THREADS, None)


def _shares(workers: int) -> list[set[int]]:
    """The processors of each worker: its part of all; none are named where it takes another number of threads."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []  # macOS has none
    if os.environ[THREADS] != str(len(mine) // workers):
        return [set()] * workers
    return [set(mine[i * len(mine) // workers : (i + 1) * len(mine) // workers]) for i in range(workers)]


@contextlib.contextmanager
def _held_to(processors: set[int]) -> Iterator[None]:
    """The calling thread, and what it begins, takes these processors, if any are named."""
    if not processors:
        yield
        return
    before = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


def _nothing() -> None: ...


def _begin(_: object) -> None:
    # Ctrl-C goes to every process of a terminal; the first of them ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.freeze()  # what was imported stays: it is a tenth of the work of an import to look through it again and again


def _end_with_parent() -> None:
    """Nobody else ends the processes of one that was killed: they would wait for jobs for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        time.sleep(ORPHANED_S)  # a job may see for itself that nobody wants it any more, and end in order
        os._exit(1)
