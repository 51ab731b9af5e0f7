"""Progress bars: on stderr, after a second, on a terminal, and only where a command asked for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["bar", "shown_bars"]

_SHOWN: ContextVar[bool] = ContextVar("nscore_progress", default=False)


@contextmanager
def shown_bars() -> Iterator[None]:
    """Within it, long work shows bars."""
    token = _SHOWN.set(True)
    try:
        yield
    finally:
        _SHOWN.reset(token)


@contextmanager
def bar(what: str, unit: str, total: Callable[[], int | None]) -> Iterator[Callable[[int], object]]:
    """Gives a function that is told of each bit of work done; `total` is asked for only where a bar is shown."""
    if not _SHOWN.get():
        yield lambda _done: None
        return
    from tqdm import tqdm  # noqa: PLC0415  (loaded only where it is shown)

    with tqdm(desc=what, unit=f" {unit}", unit_scale=True, total=total(), disable=None, delay=1) as shown:
        yield shown.update
