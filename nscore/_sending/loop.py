"""The plain twins of async functions: they also work where an event loop already runs, as in a notebook."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextvars import copy_context
from typing import Any, TypeVar

__all__ = ["run_to_end"]

T = TypeVar("T")


def run_to_end(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine in a thread and a loop of its own, and gives its result.

    So it is the same whether a loop runs already or not. The first Ctrl-C cancels the work, which then ends in order;
    the second does not wait for that. SIGTERM is like the first.
    """
    ended = threading.Event()
    result: list[T] = []
    failure: list[BaseException] = []
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []
    notes: list[str] = []
    cancelled = False

    async def main() -> T:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        if cancelled:
            raise asyncio.CancelledError
        try:
            return await work()
        except asyncio.CancelledError as error:
            notes.extend(getattr(error, "__notes__", ()))
            raise

    def body() -> None:
        try:
            result.append(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001  (it is raised again where the caller waits)
            failure.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=copy_context().run, args=(body,), name="nscore", daemon=True)
    with _hearing() as heard:
        try:
            thread.start()
            _wait(ended, heard)
        except KeyboardInterrupt as interrupt:
            cancelled = True
            for loop, task in running:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(task.cancel) if task is not None else None
            _wait(ended, heard)  # a second Ctrl-C is raised here
            for note in notes:
                interrupt.add_note(note)
            raise
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _wait(ended: threading.Event, heard: list[int]) -> None:
    # A signal may reach another thread of the process, and then wakes nobody who waits without end.
    while not ended.wait(0.1) and not heard:
        pass
    if heard:
        heard.clear()
        raise KeyboardInterrupt


@contextlib.contextmanager
def _hearing() -> Iterator[list[int]]:
    """The signals that were heard; who waits raises them.

    A handler that raises may be called where nobody hears it, as in a finaliser. SIGTERM by default ends the process at
    once, and the handler of `asyncio.run` keeps Ctrl-C for a loop that stands still. Other handlers are the user's own,
    and are left alone.
    """
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    by_default = before[signal.SIGINT] is signal.default_int_handler
    if by_default or isinstance(
        getattr(getattr(before[signal.SIGINT], "func", None), "__self__", None), asyncio.Runner
    ):
        signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    if before[signal.SIGTERM] is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        yield heard
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
