"""Work in a thread beside an event loop: whoever is cancelled while it goes on waits until it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(
    work: Callable[[], T], *, stop: Callable[[], object] | None = None, undo: Callable[[T], object] | None = None
) -> T:
    """As `asyncio.to_thread`, but a task that is cancelled goes on only when the thread is done with its files.

    Args:
        work: what is done.
        stop: is called when the task is cancelled, so that the work may end sooner.
        undo: is then given the result, which nobody else gets.
    """
    job = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        if stop is not None:
            stop()
        await asyncio.wait([job])
        if not job.cancelled() and job.exception() is None and undo is not None:
            undo(job.result())
        raise
