"""What an executor is, and the shelf they stand on."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar, runtime_checkable

from nscore._shelf import Shelf
from nscore.errors import SettingError

__all__ = ["EXECUTORS", "Executor", "cores", "executor", "make_executor"]

J = TypeVar("J")
R = TypeVar("R")


@runtime_checkable
class Executor(Protocol):
    """Does the same work on many jobs, some at a time."""

    @property
    def name(self) -> str:
        """The name on the shelf."""

    @property
    def workers(self) -> int:
        """How many jobs it does at a time."""

    def each(self, work: Callable[[J], R], jobs: Iterable[J]) -> Generator[R, None, None]:
        """What the work makes of each job, in the order of the jobs, whichever is ready first.

        A job may be done twice, where a worker was lost in the middle of it: what the work leaves behind must be the
        same then. No more jobs are taken than keep the workers busy. The first error of the work, in the order of the
        jobs, ends it all; so does closing the generator.

        Args:
            work: a function of a module, since it goes by its name to other processes.
            jobs: small things that can be sent there.

        Raises:
            ExecutorError: if workers are lost again and again.
        """


Factory = TypeVar("Factory", bound=Callable[..., Executor])

EXECUTORS: Shelf[Callable[..., Executor]] = Shelf("executor", "nscore.executors")


def executor(name: str) -> Callable[[Factory], Factory]:
    """Puts a class on the shelf under a name."""
    return EXECUTORS.adding(name)


def make_executor(given: str | Executor, **options: object) -> Executor:
    """An executor by name, made with the options that were given (None is left out); an executor is given back.

    Raises:
        UnknownNameError: if the shelf has none of that name.
        SettingError: if it has no such option.
    """
    if not isinstance(given, str):
        return given
    factory = EXECUTORS[given]
    known = inspect.signature(factory).parameters
    said = {name: value for name, value in options.items() if value is not None}
    for name in said:
        if name not in known:
            raise SettingError(f"{name}: the executor {given} has no such option")
    return factory(**said)


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
