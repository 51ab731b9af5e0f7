"""The plain twins of async functions run anywhere, end in order at Ctrl-C, and leave the signals as they were."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from nscore._sending.loop import run_to_end

NAME = contextvars.ContextVar("NAME", default="none")
PATIENCE_S = 2.0


async def seven():
    await asyncio.sleep(0.01)
    return 7


async def failing():
    await asyncio.sleep(0.01)
    raise LookupError("lost")


@contextlib.contextmanager
def interrupted(after_s=0.2, what=signal.SIGINT):
    """The block gets a Ctrl-C soon."""
    timer = threading.Timer(after_s, signal.pthread_kill, [threading.main_thread().ident, what])
    timer.start()
    start = time.monotonic()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
    assert time.monotonic() - start < after_s + PATIENCE_S


def in_a_loop(act):
    """Calls a plain function where a loop runs already, as a notebook does."""

    async def cell():
        return act()

    return asyncio.run(cell())


EVERYWHERE = pytest.mark.parametrize("where", [lambda act: act(), in_a_loop], ids=["script", "notebook"])


@EVERYWHERE
def test_the_result_comes_back(where):
    assert where(lambda: run_to_end(seven)) == 7


@EVERYWHERE
def test_an_error_comes_back_as_it_is(where):
    with pytest.raises(LookupError, match="lost"):
        where(lambda: run_to_end(failing))


@EVERYWHERE
def test_it_may_run_again_and_after_an_error(where):
    with contextlib.suppress(LookupError):
        where(lambda: run_to_end(failing))
    assert [where(lambda: run_to_end(seven)) for _ in range(3)] == [7, 7, 7]


@EVERYWHERE
def test_a_system_exit_comes_back(where):
    async def leave():
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        where(lambda: run_to_end(leave))
    assert caught.value.code == 3


def test_twice_in_one_loop_and_one_within_the_other():
    async def inner():
        return run_to_end(seven) + await seven()

    async def cell():
        return run_to_end(seven) + run_to_end(inner), await seven()

    assert asyncio.run(cell()) == (21, 7)


def test_the_outer_loop_stands_still_and_goes_on():
    async def cell():
        ticks = []
        task = asyncio.create_task(asyncio.sleep(0, ticks.append(1)))
        result = run_to_end(seven)
        await task
        return result

    assert asyncio.run(cell()) == 7


@EVERYWHERE
def test_what_the_caller_has_in_its_context_is_seen(where):
    async def name():
        return NAME.get()

    token = NAME.set("mine")
    try:
        assert where(lambda: run_to_end(name)) == "mine"
    finally:
        NAME.reset(token)


def test_it_runs_in_a_thread_that_is_not_the_main_one():
    found = []
    thread = threading.Thread(target=lambda: found.append(run_to_end(seven)))
    thread.start()
    thread.join(5)
    assert found == [7]


@EVERYWHERE
def test_ctrl_c_cancels_the_work_and_is_raised_again(where):
    ended = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)  # ends in order
            ended.append(True)

    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt), interrupted():
        where(lambda: run_to_end(work))
    assert ended == [True]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    assert where(lambda: run_to_end(seven)) == 7


@EVERYWHERE
def test_the_second_ctrl_c_does_not_wait(where):
    async def slow():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(3)

    with pytest.raises(KeyboardInterrupt), interrupted(0.2), interrupted(0.5):
        where(lambda: run_to_end(slow))


def test_no_thread_is_left():
    before = threading.active_count()
    in_a_loop(lambda: run_to_end(seven))
    with contextlib.suppress(LookupError):
        in_a_loop(lambda: run_to_end(failing))
    assert threading.active_count() == before


def test_a_handler_of_the_users_own_is_left_alone():
    got = []

    async def work():
        await asyncio.sleep(0.4)
        return 7

    before = signal.signal(signal.SIGTERM, lambda *_: got.append(True))
    try:
        with interrupted(0.1, signal.SIGTERM):
            assert run_to_end(work) == 7
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [True]


SCRIPT = """
import asyncio, sys
from nscore._sending.loop import run_to_end

async def work():
    try:
        print("up", flush=True)
        await asyncio.sleep(60)
    finally:
        print("ended", flush=True)

def script():
    try:
        run_to_end(work)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(130)

async def notebook():
    script()

{}
"""


@pytest.mark.parametrize(
    ("what", "how"),
    [
        (signal.SIGINT, "script()"),
        (signal.SIGTERM, "script()"),
        (signal.SIGINT, "asyncio.run(notebook())"),
    ],
)
def test_a_signal_ends_a_process_in_order(what, how):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT).format(how)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        start = time.monotonic()
        process.send_signal(what)
        out, err = process.communicate(timeout=10)
        assert time.monotonic() - start < PATIENCE_S
    assert (out, err, process.returncode) == ("ended\ninterrupted\n", "", 130)
