"""Of two processes on one run, one goes on, and the other gets a clear error and sends nothing."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time

import pytest
from asking import answer, asked, correct
from model_server import ModelServer
from simulation_tables import command, enter

import nscore as ns

REQUESTS = 15  # of the small tables
BUSY = (
    r"nscore [a-z]+: run/journal: another process \((?:{})\) works on this run\. Wait until it is done, or end it\.\n"
)


class Held(ModelServer):
    """It answers so many requests, and has all others wait until it is let go."""

    free, waiting = 0, 0

    def take(self, connection, head, raw):
        if self.n_requests >= self.free:
            self.waiting += 1
            self.loop.call_later(0.01, self._again, connection, head, raw)
        else:
            super().take(connection, head, raw)

    def _again(self, connection, head, raw):
        self.waiting -= 1
        self.take(connection, head, raw)

    def let_go(self):
        self.free = 10**9


@pytest.fixture
def server():
    with Held(answer=answer, ignore_logprobs=True) as server:
        yield server


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)


def line(server):
    asking = ["--simulator", "json_list", "--model", "tiny", "--base-url", server.base_url]
    return ["simulate", "records.parquet", "explanations.parquet", *asking, "-o", "run"]


@contextlib.contextmanager
def started(*arguments):
    """A process that is gone at the end, whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nscore", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def goes_on(process):
    return process.poll() is None


def until(is_so):
    end = time.monotonic() + 40
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def whole(server):
    """Whether the run is as one process makes it, and each of its questions was asked once."""
    run = ns.Run("run")
    one_each = run.requests().collect()["attempts"].to_list() == [1] * REQUESTS
    return one_each and asked(server) == REQUESTS and correct(run.simulated().collect())


def test_of_two_processes_that_begin_a_run_at_once_one_goes_on_and_the_other_gets_a_clear_error(server):
    with started(*line(server)) as one, started(*line(server)) as another:
        until(lambda: server.waiting and not (goes_on(one) and goes_on(another)))
        loser, winner = (another, one) if goes_on(one) else (one, another)
        out, err = loser.communicate()
        assert (loser.returncode, out) == (1, "")
        assert re.fullmatch(BUSY.format(f"{winner.pid}|which has just begun"), err)
        assert server.waiting == 1  # the winner's first question: the loser sent nothing
        server.let_go()
        _, err = winner.communicate(timeout=40)
        assert (winner.returncode, err) == (0, "")
    assert whole(server)


def test_a_run_that_is_worked_on_can_be_looked_at_but_not_changed(server, capsys):
    server.free = 8  # some questions of the run are answered
    with started(*line(server)) as worker:
        until(lambda: server.waiting and asked(server))
        busy = BUSY.format(worker.pid)
        with started(*line(server)) as second:
            out, err = second.communicate(timeout=40)
        assert (second.returncode, out) == (1, "")
        assert re.fullmatch(busy, err)
        for action in ("rebuild", "salvage"):
            code, out, err = command(capsys, "runs", action, "run")
            assert (code, out) == (1, "")
            assert re.fullmatch(busy, err)
        for action in ("show", "verify"):
            code, _, err = command(capsys, "runs", action, "run")
            assert (code, err) == (0, "")
        server.let_go()
        _, err = worker.communicate(timeout=40)
        assert (worker.returncode, err) == (0, "")
    assert whole(server)


def test_the_run_of_a_process_that_was_killed_is_free_at_once(server, capsys):
    server.free = 8
    with started(*line(server)) as worker:
        until(lambda: server.waiting and asked(server))
        worker.kill()
        worker.wait()
        server.let_go()
        assert command(capsys, *line(server))[0] == 0
    assert correct(ns.Run("run").simulated().collect())
