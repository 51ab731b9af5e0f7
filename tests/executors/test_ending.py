"""However the session of a run ends, its workers end with it, and the same command goes on."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from asking import asked, correct, explanations_of, hanging, records_of
from polars.testing import assert_frame_equal
from simulation_tables import small_records

import nscore as ns

TESTS = Path(__file__).parents[1]
# What `nscore` does, with shards of a few rows.
NSCORE = (
    "import sys, nscore._running.plan, nscore.cli; nscore._running.plan.SHARD_ROWS = 20; sys.exit(nscore.cli.main())"
)
MAIN = f"if __name__ == '__main__':\n    {NSCORE}\n"


@pytest.fixture
def line(tmp_path):
    """The command of a user, for a server, on two workers."""
    records_of(8, 5).write_parquet(tmp_path / "records.parquet")
    explanations_of(8).write_parquet(tmp_path / "told.parquet")
    (tmp_path / "command.py").write_text(MAIN)

    def command(server, executor):
        files = [tmp_path / "records.parquet", tmp_path / "told.parquet", "-o", tmp_path / "run"]
        asking = ["--simulator", "json_list", "--model", "tiny", "--base-url", server.base_url]
        return [sys.executable, tmp_path / "command.py", "simulate", *files, *asking, *executor]

    return command


def started(words):
    environment = os.environ | {"OPENAI_API_KEY": "canary-key-1", "PYTHONPATH": str(TESTS)}
    pipe = subprocess.PIPE
    return subprocess.Popen(list(map(str, words)), stdout=pipe, stderr=pipe, text=True, env=environment)


def until(is_so, seconds=60):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def hung(server):
    """How many questions hang, when 12 are answered, and nothing moves any more."""
    until(lambda: asked(server) > 12)
    last, since = asked(server), time.monotonic()
    while time.monotonic() < since + 1:
        time.sleep(0.05)
        if asked(server) != last:
            last, since = asked(server), time.monotonic()
    assert 1 <= last - 12 <= 4
    return last - 12


def workers_of(run):
    """The processes that have worked on shards."""
    return {int(lock.read_text()) for lock in (run / "journals").glob("*/lock") if lock.read_text()}


def all_let_go(run):
    """Whether nobody works on a shard."""
    for lock in (run / "journals").glob("*/lock"):
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return f"{pid} (" in (there := Path(f"/proc/{pid}/stat").read_text()) and ") Z " not in there


@pytest.mark.parametrize("executor", ["processes", "ray"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_session_and_the_same_command_goes_on(executor, how, line, tmp_path):
    if executor == "ray":
        pytest.importorskip("ray")
    run, flags = tmp_path / "run", ["--executor", executor, "--workers", "2", "--concurrency", "4"]
    with hanging(12) as server:
        process = started(line(server, flags))
        doubt = hung(server)
        workers = workers_of(run)
        assert 1 <= len(workers) <= 2
        began = time.monotonic()
        process.send_signal(how)
        until(lambda: all_let_go(run), 10)
        assert time.monotonic() - began < 2
        out, err = process.communicate(timeout=30)
        if how == signal.SIGINT:
            took_s = time.monotonic() - began
            assert took_s < (2 if executor == "processes" else 6)  # Ray itself takes a second or two to end
            assert process.returncode == 130
            assert err.endswith("interrupted; what was answered is kept, and the same command goes on\n")
        else:
            assert process.returncode == -signal.SIGKILL
        until(lambda: not any(map(lives, workers)), 10)
        before = ns.describe(run)
        assert (before.replies, before.in_doubt) == (12, doubt)
        server.answers = 10**9
        server.forget()
        process = started(line(server, ["--executor", "processes", "--workers", "2"]))
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, (out, err)
        assert asked(server) == 28
    assert correct(ns.Run(run).simulated().collect())
    told = ns.describe(run)
    assert (told.replies, told.in_doubt) == (40, doubt)
    assert not ns.verify(run).problems


def test_a_session_that_comes_at_once_after_one_that_was_killed_waits_for_its_workers(line, tmp_path):
    flags = ["--executor", "processes", "--workers", "2", "--concurrency", "4"]
    with hanging(12) as server:
        process = started(line(server, flags))
        hung(server)
        process.kill()
        process.communicate()
        server.answers = 10**9
        server.forget()
        process = started(line(server, []))  # in one process
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, (out, err)
        assert asked(server) == 28
    assert correct(ns.Run(tmp_path / "run").simulated().collect())


EVERYONE = ["lexical", "token_lookup", "constant", "shuffled", "shuffled_token_lookup"]


@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_simulators_that_ask_nobody_predict_the_same_on_every_executor(executor, request, monkeypatch):
    if executor == "ray":
        request.getfixturevalue("cluster")
    monkeypatch.setattr("nscore._running.offline.BLOCK_ROWS", 60)
    records = small_records()
    told = pl.concat(
        explanations_of(1, 2).with_columns(neuron=pl.lit(n), explanation=pl.lit(f'words such as "{word}"'))
        for n, word in ((7, "red"), (8, "blue"), (9, "green"))
    ).cast({key: records.schema[key] for key in ("layer", "neuron")})
    for simulator in (EVERYONE, *EVERYONE):
        expected = ns.simulate(records, told, simulator=simulator)
        found = ns.simulate(records.lazy(), told, simulator=simulator, executor=executor, workers=2)
        assert_frame_equal(found.collect(), expected)
    with pytest.raises(ns.TableError, match="token_lookup learns from the train split"):
        ns.simulate(records.drop("split"), told, simulator="token_lookup", executor=executor, workers=2)
