"""A simulation is the same on every executor, byte for byte, whoever is killed in the middle, and whoever goes on."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import polars as pl
import pytest
from asking import asked, backend, correct, explanations_of, files_of, is_asked, records_of, serve
from executors.killing import Killer
from polars.testing import assert_frame_equal

import nscore as ns
from nscore.executors import make_executor

RECORDS, TOLD = records_of(12, 5), explanations_of(12)
TIMES = ["latency_s", "at", "attempts", "cached_tokens"]
PRICE = (1000.0, 5000.0)


@pytest.fixture(params=["processes", "ray"])
def others(request):
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return make_executor(request.param, workers=2)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 20)


def start(server, out, records=RECORDS, told=TOLD, **given):
    options = {"simulator": "json_list", "backend": backend(server), "out": out, "price": PRICE} | given
    return ns.simulate(records, told, **options)


def requests_of(path):
    return pl.read_parquet(path / "requests.parquet").drop(TIMES)


def same(path, expected):
    """Whether the tables are the same bytes, and the calls the same but for their times."""
    whole = not ns.verify(path).problems
    return whole and files_of(path) == files_of(expected) and requests_of(path).equals(requests_of(expected))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The run in this process, on a server whose address the others have too, and what each request costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nscore._running.plan.SHARD_ROWS", 20)
        server = serve(wait_s=0.03, jitter_s=0.03)
        with server:
            path = tmp_path_factory.mktemp("expected") / "run"
            start(server, path)
            yield server, path


def test_a_worker_begins_a_shard_with_as_many_requests_as_the_server_bore_in_the_one_before(monkeypatch, tmp_path):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 1000)
    records, told = records_of(2, 200), explanations_of(2)
    with serve(wait_s=0.3) as server:
        start(server, tmp_path / "run", records, told, executor=make_executor("processes", workers=1), concurrency=64)
        at = [arrival.at_s for arrival in server.arrivals[-400:]]
    first, second = (sum(each < begun + 0.28 for each in at[i:]) for i, begun in ((0, at[0]), (200, at[200])))
    assert first <= 8
    assert second > 16


def test_a_run_is_the_same_on_every_executor(others, expected, tmp_path):
    server, path = expected
    server.forget()
    run = start(server, tmp_path / "run", executor=others, concurrency=8)
    assert same(run.path, path)
    assert asked(server) == 60
    assert server.max_in_flight <= 8
    told, before = ns.describe(run.path), ns.describe(path)
    for name in ("settings", "inputs", "sent", "replies", "in_doubt", "shards_begun", "shards_written", "advice"):
        assert getattr(told, name) == getattr(before, name)
    assert told.spent == pytest.approx(before.spent)
    assert told.journal_bytes == sum(file.stat().st_size for file in run.path.rglob("*.log"))
    assert len(list((run.path / "journals").glob("*/*.log"))) == 12
    assert not list((run.path / "journals").glob("*/*.parquet"))


def test_one_bar_shows_the_sum_over_the_workers(others, expected, tmp_path, monkeypatch):
    shown = []

    @contextlib.contextmanager
    def bar(total):
        assert total == 60
        yield lambda tally: shown.append((tally.done, tally.spent))

    monkeypatch.setattr("nscore._running.session.tally_bar", bar)
    monkeypatch.setattr("nscore._running.crew.LOOKED_S", 0.02)
    run = start(expected[0], tmp_path / "run", executor=others, concurrency=2)
    assert shown == sorted(shown)
    assert shown[-1] == (60, pytest.approx(ns.describe(run.path).spent))
    assert len({done for done, _ in shown}) > 12  # not only whole shards


def test_no_key_is_in_what_workers_write(others, expected, tmp_path):
    run = start(expected[0], tmp_path / "run", executor=others)
    folders = [run.path]
    if others.name == "ray":
        folders.append(Path("/tmp/ray/session_latest").resolve())  # noqa: S108  (where Ray writes its logs)
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 20
    assert not [file for file in files if b"canary" in file.read_bytes()]


def test_a_worker_that_is_killed_in_the_middle_changes_no_byte(others, expected, tmp_path):
    server, path = expected
    server.forget()
    with Killer(server, tmp_path / "run", times=1, every=20) as killer:
        run = start(server, tmp_path / "run", executor=others, concurrency=4)
    assert len(killer.killed) == 1
    assert same(run.path, path)
    told = ns.describe(run.path)
    assert asked(server) - 60 <= told.in_doubt <= 4
    assert told.replies == 60  # each is stored once: nothing that was stored was asked again
    assert asked(server) <= told.sent <= 64  # noted before it is sent


def test_a_run_goes_on_with_another_executor_and_nothing_is_asked_twice(others, expected, tmp_path):
    server, path = expected
    server.forget()
    for number, executor in enumerate(["local", others, "local", others]):
        start(server, tmp_path / "run", executor=executor, limit=15 * (number + 1))
        assert asked(server) == 15 * (number + 1)
    assert asked(server) == 60
    start(server, tmp_path / "run", executor="local")
    assert asked(server) == 60
    assert same(tmp_path / "run", path)
    assert ns.describe(tmp_path / "run").replies == 60


def test_what_another_executor_left_is_rebuilt_replayed_and_salvaged(others, expected, tmp_path):
    server, path = expected
    run = start(server, tmp_path / "run", executor=others)
    server.forget()
    for file in run.path.glob("*.parquet/*"):
        file.unlink()
    assert ns.verify(run.path).problems
    ns.rebuild(run.path)
    assert same(run.path, path)
    kept = ns.salvage(run.path)
    assert kept.lost == []
    assert same(kept.run.path, path)
    replay = start(server, tmp_path / "replay", backend=ns.Replay(kept.run.path), executor=others, price=None)
    assert files_of(replay.path) == files_of(path)
    assert asked(server) == 0
    damaged = sorted((run.path / "journals").glob("*/*.log"))[3]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert any(str(damaged) in problem for problem in ns.verify(run.path).problems)
    with pytest.raises(ns.JournalError, match=f"nscore runs salvage {run.path}$"):
        start(server, run.path, executor=others)
    assert len(ns.salvage(run.path, tmp_path / "mended").lost) == 1
    assert not ns.verify(tmp_path / "mended").problems
    for file in (tmp_path / "mended").glob("*.parquet/*"):
        file.unlink()
    start(server, tmp_path / "mended", executor=others)
    assert asked(server) <= 1  # the answer that was lost, if it was one
    assert files_of(tmp_path / "mended") == files_of(path)


def test_what_comes_in_several_shards_is_asked_once(others, tmp_path):
    one = records_of(1, 4)
    records = pl.concat(one.with_columns(neuron=pl.lit(n, one.schema["neuron"])) for n in range(6))
    told = pl.concat(explanations_of(1).with_columns(neuron=pl.lit(n)) for n in range(6)).cast({"neuron": pl.Int32})
    with serve(faults={"cut_json": 0.3}, retry_after=("absent",)) as server:
        run = start(server, tmp_path / "run", records, told, executor=others, attempts=1)
        bodies = [str(received.body) for received in server.requests if is_asked(received)]
        n_ok = run.requests().filter(pl.col("status") == "ok").collect().height
        server.faults = None
        start(server, tmp_path / "run", records, told)
        local = start(server, tmp_path / "local", records, told)
    assert len(bodies) == len(set(bodies)) == 4
    assert run.requests().collect().height == 4
    assert n_ok < 4
    assert files_of(run.path) == files_of(local.path)
    assert correct(run.simulated().collect())


def test_a_refusal_for_good_ends_the_run_with_its_error(others, tmp_path):
    with serve() as server:
        start(server, tmp_path / "run", limit=3)
        server.api_key = "another"
        began = time.monotonic()
        with pytest.raises(ns.BackendError, match=r"status 401.*the same command goes on"):
            start(server, tmp_path / "run", executor=others, concurrency=4)
        assert time.monotonic() - began < 10
        server.api_key = None
        assert correct(start(server, tmp_path / "run", executor=others).simulated().collect())
        assert asked(server) < 75
    assert ns.describe(tmp_path / "run").replies == 60


@pytest.mark.parametrize("out", [True, False])
def test_the_result_in_memory_is_the_same(out, expected, tmp_path):
    server, path = expected
    result = start(server, tmp_path / "run" if out else None, executor="processes", workers=2)
    result = result.simulated().collect() if out else result
    assert_frame_equal(result, ns.Run(path).simulated().collect())


def test_limits_that_cannot_be_shared_out_are_refused_before_anything_is_sent(tmp_path):
    with serve() as server:
        start(server, tmp_path / "run", limit=1)
        server.forget()
        for limits in ({"concurrency": 1}, {"requests_per_minute": 1.5}):
            with pytest.raises(ns.SettingError, match=f"{next(iter(limits))}: .* 2 workers; take fewer"):
                start(server, tmp_path / "run", executor="processes", workers=2, **limits)
        with pytest.raises(ns.LimitError, match="take fewer workers"):
            start(server, tmp_path / "run", executor="processes", workers=2, tokens_per_minute=2000.0)
        assert server.n_requests == 0
        with pytest.raises(ns.SettingError, match="the executor local has no such option"):
            start(server, tmp_path / "run", workers=2)
