"""Progress bars: on stderr, after a second, on a terminal, and only where a command asked for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

__all__ = ["bar", "counted", "shown_bars"]

_SHOWN: ContextVar[bool] = ContextVar("nscore_progress", default=False)
# The bar on the screen, if there is one. The engine's threads count on it, which no context variable reaches.
_CURRENT: list[Callable[[int], object]] = []


@contextmanager
def shown_bars() -> Iterator[None]:
    """Within it, long work shows bars."""
    token = _SHOWN.set(True)
    try:
        yield
    finally:
        _SHOWN.reset(token)


@contextmanager
def bar(what: str, unit: str, total: Callable[[], int | None] = lambda: None) -> Iterator[Callable[[int], object]]:
    """Gives a function that is told of each bit of work done; `total` is asked for only where a bar is shown."""
    if not _SHOWN.get():
        yield lambda _done: None
        return
    from tqdm import tqdm  # noqa: PLC0415  (loaded only where it is shown)

    with tqdm(desc=what, unit=f" {unit}", unit_scale=True, total=total(), disable=None, delay=1) as shown:
        _CURRENT.append(shown.update)
        try:
            yield shown.update
        finally:
            _CURRENT.pop()


def counted(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The same frame, whose rows are counted on the bar that is shown when they are computed."""
    return frame.map_batches(_count, streamable=True) if _SHOWN.get() else frame


def _count(rows: pl.DataFrame) -> pl.DataFrame:
    if _CURRENT:
        _CURRENT[-1](rows.height)
    return rows
