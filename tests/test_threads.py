"""Work in a thread ends before the task does that waits for it, whatever becomes of the task."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from nscore._sending.threads import in_thread


def test_the_result_and_the_error_of_the_work_come_back():
    def failing():
        raise KeyError("no")

    assert asyncio.run(in_thread(threading.current_thread)) is not threading.current_thread()
    with pytest.raises(KeyError):
        asyncio.run(in_thread(failing))


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_task_waits_for_the_thread_stops_it_and_undoes_what_it_did(fails):
    begun, told, done, undone = threading.Event(), threading.Event(), [], []

    def work():
        begun.set()
        told.wait(5)
        time.sleep(0.05)
        done.append(1)
        if fails:
            raise OSError("too late for anybody to hear")
        return "made"

    async def main():
        task = asyncio.ensure_future(in_thread(work, stop=told.set, undo=undone.append))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == [1]

    asyncio.run(main())
    assert undone == ([] if fails else ["made"])
