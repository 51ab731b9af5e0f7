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
    """Runs a coroutine and gives its result.

    Where no loop runs, it runs here: the first Ctrl-C cancels it, so that it ends in order, the second stops it at
    once; SIGTERM is like the first. Where one runs already it gets a thread and a loop of its own, and Ctrl-C cancels
    it there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner() as runner:
            return runner.run(_terminable(work))
    return _elsewhere(work)


async def _terminable(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if threading.current_thread() is not threading.main_thread() or task is None:
        return await work()
    # A handler of the user's own is left alone.
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return await work()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    with contextlib.suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await work()
    except asyncio.CancelledError:
        if terminated:
            raise KeyboardInterrupt from None
        raise
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGTERM)


def _elsewhere(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    result: list[T] = []
    failure: list[BaseException] = []
    started = threading.Event()
    stop: list[Callable[[], object]] = []

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            stop.append(lambda: loop.call_soon_threadsafe(task.cancel))
        started.set()
        return await work()

    def body() -> None:
        try:
            with asyncio.Runner() as runner:
                result.append(runner.run(main()))
        except BaseException as error:  # noqa: BLE001  (it is raised again where the caller waits)
            failure.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=copy_context().run, args=(body,), name="nscore", daemon=True)
    with _hearing():
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.2)
        except KeyboardInterrupt:
            started.wait()
            for cancel in stop:
                with contextlib.suppress(RuntimeError):
                    cancel()
            thread.join(5)
            raise
    if failure:
        raise failure[0]
    return result[0]


@contextlib.contextmanager
def _hearing() -> Iterator[None]:
    """Ctrl-C is raised where the caller waits: the handler of `asyncio.run` would keep it for a loop that stands still."""
    handler = signal.getsignal(signal.SIGINT)
    kept = isinstance(getattr(getattr(handler, "func", None), "__self__", None), asyncio.Runner)
    if not kept or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
