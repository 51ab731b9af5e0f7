"""In a notebook: within a loop that runs, twice, after an interrupt; nothing is left behind, and what was paid for is named."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from asking import answer, asked, backend, correct, explanations_of, hanging, records_of, serve
from model_server import RefusalError

import nscore as ns
from nscore._running import shards as _shards
from nscore._tables.disk import Disk

RECORDS, TOLD = records_of(), explanations_of()


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch, tmp_path):
    """Temporary folders go to `tmp_path`; threads and open files are as before."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    threads = set(threading.enumerate())
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    yield
    for _ in range(100):
        if set(threading.enumerate()) <= threads and len(list(Path("/proc/self/fd").iterdir())) <= descriptors:
            break
        time.sleep(0.01)
    assert set(threading.enumerate()) <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


def start(server, **options):
    return ns.simulate(RECORDS, TOLD, **{"simulator": "json_list", "backend": backend(server)} | options)


def test_simulate_works_within_a_running_loop_again_and_again(tmp_path):
    async def cell(server):
        return [start(server) for _ in range(2)]

    with serve() as server:
        tables = [table for _ in range(2) for table in asyncio.run(cell(server))]
    assert all(correct(table) for table in tables)
    assert list(tmp_path.iterdir()) == []


def test_asimulate_can_be_awaited_beside_others(tmp_path):
    async def cell(server):
        return await asyncio.gather(
            *(
                ns.asimulate(RECORDS, TOLD, simulator=name, backend=backend(server))
                for name in ("json_list", "tab_list", "json_list")
            )
        )

    with serve() as server:
        tables = asyncio.run(cell(server))
    assert all(correct(table) for table in tables)
    assert tables[0].equals(tables[2])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before_s", [0.0, 0.001, 0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05, 0.3])
def test_a_simulation_that_is_cancelled_ends_at_once_and_another_runs(before_s):
    async def cell(server):
        task = asyncio.ensure_future(ns.asimulate(RECORDS, TOLD, simulator="json_list", backend=backend(server)))
        await asyncio.sleep(before_s)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        took = time.monotonic() - started
        server.answers = 10**9
        return took, await ns.asimulate(RECORDS, TOLD, simulator="json_list", backend=backend(server))

    with hanging(2) as server:
        took, table = asyncio.run(cell(server))
    assert took < 2
    assert correct(table)


def test_a_simulation_that_is_still_being_planned_can_be_cancelled(monkeypatch):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 1)
    make = _shards.Questions.shard

    def slow(self, index, pairs):
        time.sleep(0.05)
        return make(self, index, pairs)

    monkeypatch.setattr("nscore._running.shards.Questions.shard", slow)

    async def cell(server):
        work = ns.asimulate(records_of(99, 1), explanations_of(99), simulator="json_list", backend=backend(server))
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0.4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with serve() as server:
        started = time.monotonic()
        asyncio.run(cell(server))  # it waits for the thread that plans
        assert time.monotonic() - started < 2
        assert asked(server) == 0


def test_a_run_that_did_not_end_well_is_named_and_can_be_gone_on_with(tmp_path):
    def failing(messages):
        if "n1s1" in str(messages):
            raise RefusalError(401, "no more")
        return answer(messages)

    with serve(answer=failing) as server:
        with pytest.raises(ns.BackendError) as caught:
            start(server, concurrency=1)
        (note,) = caught.value.__notes__
        (kept,) = tmp_path.iterdir()
        assert note == f"What was answered is kept in {kept}; out={str(kept)!r} goes on with it."
        server.answer = answer
        n = asked(server)
        assert correct(start(server, out=kept).simulated().collect())
        assert asked(server) - n <= 3


def test_a_run_with_failed_requests_warns_and_names_its_folder(tmp_path):
    def failing(messages):
        if "n1s1" in str(messages):
            raise RefusalError(422, "no")
        return answer(messages)

    with serve(answer=failing) as server:
        with pytest.warns(
            UserWarning, match=r"1 of 6 requests failed \(1 http_error, 5 ok\); the run is kept in"
        ) as told:
            result = start(server)
        (kept,) = tmp_path.iterdir()
        assert str(told[0].message).endswith(str(kept))
        assert result.filter(pl.col("status") == "http_error").height == 4
        server.answer = answer
        assert correct(start(server, out=kept).simulated().collect())
        assert asked(server) == 7


def test_an_interrupt_in_a_cell_ends_the_work_names_the_folder_and_leaves_the_kernel_usable(tmp_path):
    async def cell(server):
        main = threading.get_ident()

        def interrupt():
            while asked(server) <= 3:
                time.sleep(0.005)
            signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt) as caught:
            start(server)
        thread.join()
        return caught.value.__notes__

    with hanging(3) as server:
        loop = asyncio.new_event_loop()  # a loop of a kernel's: no handler for SIGINT in it
        try:
            notes = loop.run_until_complete(cell(server))
        finally:
            loop.close()
        (kept,) = tmp_path.iterdir()
        assert notes == [f"What was answered is kept in {kept}; out={str(kept)!r} goes on with it."]
        server.answers = 10**9
        assert correct(start(server, out=kept).simulated().collect())


def test_an_interrupt_is_heard_although_it_comes_where_no_exception_is():
    main, sent = threading.get_ident(), []

    def collected(_phase, _info):  # what is raised here is printed and forgotten
        if threading.get_ident() == main and not sent and asked(server) > 3:
            sent.append(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    threshold = gc.get_threshold()
    with hanging(3) as server:
        gc.callbacks.append(collected)
        gc.set_threshold(1)
        try:
            with pytest.raises(KeyboardInterrupt):
                start(server, timeout_s=5.0, attempts=1)
        finally:
            gc.set_threshold(*threshold)
            gc.callbacks.remove(collected)
    assert sent


def test_an_interrupt_of_a_script_names_the_folder_too(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from asking import *
server = type("S", (), {{"base_url": sys.argv[1]}})
ns.simulate(records_of(), explanations_of(), simulator="json_list", backend=backend(server))
"""
    with hanging(3) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", script, server.base_url],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )
        while asked(server) <= 3:
            time.sleep(0.01)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
        assert time.monotonic() - started < 2
        (kept,) = tmp_path.iterdir()
        assert said.rstrip().endswith(f"What was answered is kept in {kept}; out={str(kept)!r} goes on with it.")
        assert re.search(r"^KeyboardInterrupt", said, re.MULTILINE)
        server.answers = 10**9
        assert correct(start(server, out=kept).simulated().collect())


def test_a_journal_that_fails_ends_the_run_in_words_and_it_goes_on(tmp_path, monkeypatch):
    written = 0
    write = Disk.write

    def full(self, file, data):
        nonlocal written
        written += 1
        if written > 12:
            raise OSError(28, "No space left on device")
        return write(self, file, data)

    with serve() as server:
        with monkeypatch.context() as patch:
            patch.setattr(Disk, "write", full)
            with pytest.raises(ns.JournalError, match=r"No space left on device\. Free some space on the disk"):
                start(server, out=tmp_path / "run", concurrency=1)
        sent = asked(server)
        assert correct(start(server, out=tmp_path / "run").simulated().collect())
    assert 1 <= sent <= 17


def test_an_error_while_shards_are_made_ends_the_run(monkeypatch, tmp_path):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 1)
    monkeypatch.setattr("nscore._running.plan.REMEMBERED_BYTES", 0)
    make = _shards.Questions.shard
    made = 0

    def failing(self, index, pairs):
        nonlocal made
        made += 1
        if made > 2 + 1:  # counted once, then the second time
            raise RuntimeError("boom")
        return make(self, index, pairs)

    with serve() as server:
        with monkeypatch.context() as patch:
            patch.setattr("nscore._running.shards.Questions.shard", failing)
            with pytest.raises(RuntimeError, match="boom"):
                start(server, out=tmp_path / "run")
        assert correct(start(server, out=tmp_path / "run").simulated().collect())


def test_an_error_while_a_shard_is_written_ends_the_run_and_costs_nothing(monkeypatch, tmp_path):
    with serve() as server:
        with monkeypatch.context() as patch:
            patch.setattr("nscore._running.filling.Filling.simulated", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                start(server, out=tmp_path / "run")
        n = asked(server)
        assert correct(start(server, out=tmp_path / "run").simulated().collect())
        assert asked(server) == n == 6
