"""Progress bars: on stderr, after a second, on a terminal, and only where a command asked for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from nscore._sending.prices import dollars

if TYPE_CHECKING:
    import polars as pl

__all__ = ["bar", "counted", "shown_bars", "tally_bar"]

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


class Standing(Protocol):
    """How a run of requests stands."""

    done: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    spent: float | None


@contextmanager
def tally_bar(total: int) -> Iterator[Callable[[Standing], object]]:
    """A bar of requests, which also tells those that failed, the tokens, the price."""
    if not _SHOWN.get():
        yield lambda _standing: None
        return
    from tqdm import tqdm  # noqa: PLC0415  (loaded only where it is shown)

    with tqdm(desc="simulate", unit=" requests", total=total, disable=None, smoothing=0.05) as shown:

        def update(standing: Standing) -> None:
            parts = [f"{standing.failed:,} failed", f"{standing.prompt_tokens + standing.completion_tokens:,} tokens"]
            if standing.spent is not None:
                parts.append(dollars(standing.spent))
            shown.set_postfix_str(", ".join(parts), refresh=False)
            shown.update(standing.done - shown.n)

        yield update
        shown.refresh()


def counted(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The same frame, whose rows are counted on the bar that is shown when they are computed."""
    return frame.map_batches(_count, streamable=True) if _SHOWN.get() else frame


def _count(rows: pl.DataFrame) -> pl.DataFrame:
    if _CURRENT:
        _CURRENT[-1](rows.height)
    return rows
