"""`local`: one job after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

from nscore.executors._protocol import executor

__all__ = ["Local"]

J = TypeVar("J")
R = TypeVar("R")


@executor("local")
@dataclass(frozen=True, slots=True)
class Local:
    """Works in this process, where Polars uses every processor.

    >>> list(Local().each(len, ["a", "bc"]))
    [1, 2]
    """

    @property
    def name(self) -> str:
        """`local`."""
        return "local"

    @property
    def workers(self) -> int:
        """One."""
        return 1

    def each(self, work: Callable[[J], R], jobs: Iterable[J]) -> Generator[R, None, None]:
        """See `Executor.each`."""
        yield from map(work, jobs)
