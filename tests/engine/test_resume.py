"""Runs that are broken off: the same call goes on, nothing that was answered is asked again, the results are the same."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import polars as pl
import pytest
from asking import answer, asked, backend, correct, explanations_of, files_of, hanging, is_asked, records_of, serve
from model_server import RefusalError
from polars.testing import assert_frame_equal

import nscore as ns
from nscore._running.shards import request_key
from nscore._sending.history import History

RECORDS, TOLD = records_of(6), explanations_of(6)
TIMES = ["latency_s", "at", "attempts", "cached_tokens"]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 20)  # two neurons, six requests


def start(server, out, records=RECORDS, told=TOLD, **options):
    given = {"simulator": "json_list", "backend": backend(server), "out": out} | options
    return ns.simulate(records, told, **given)


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def broken_off(server, out, *, when, **options):
    """Begins a run in a thread, cancels it when `when()` is true, and gives how long it took to end."""
    took = []

    async def main():
        task = asyncio.ensure_future(
            ns.asimulate(RECORDS, TOLD, **{"simulator": "json_list", "backend": backend(server), "out": out} | options)
        )
        async with asyncio.timeout(10):
            while not when():
                await asyncio.sleep(0.005)
                assert not task.done()
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        took.append(time.monotonic() - started)

    asyncio.run(main())
    seen = -1
    while seen != server.n_requests:  # what was on its way may come after the end
        seen = server.n_requests
        time.sleep(0.1)
    return took[0]


def keys_of(server):
    """The keys of what a server was asked."""
    return [
        request_key(
            server.base_url,
            "/chat/completions",
            json.dumps(r.body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(),
            0,
        )
        for r in server.requests
        if is_asked(r)
    ]


def journaled(out, keys):
    history = History.of(out / "journal")
    return {key for key in keys if history.past(key) is not None}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody broke off, and the port of its server, which is part of every key."""
    with pytest.MonkeyPatch.context() as patch, serve() as server:
        patch.setattr("nscore._running.plan.SHARD_ROWS", 20)
        out = tmp_path_factory.mktemp("whole") / "run"
        start(server, out)
        keys = keys_of(server)
    assert len(set(keys)) == 18
    assert journaled(out, keys) == set(keys)
    return out, server.port, keys


@pytest.mark.parametrize("answers", [0, 1, 5, 6, 11, 17])
def test_a_run_that_is_cancelled_goes_on_where_it_stopped(tmp_path, whole, answers):
    path, port, keys = whole
    server = hanging(answers)
    server.port = port
    with server:
        out = tmp_path / "run"
        took = broken_off(server, out, when=lambda: asked(server) > answers and sum(server.billed.values()) >= answers)
        assert took < 2
        there = journaled(out, keys)
        server.answers = 10**9
        server.forget()
        run = start(server, out)
        assert set(keys_of(server)) == set(keys) - there
        assert asked(server) == len(keys) - len(there)
    assert files_of(out) == files_of(path)
    assert_frame_equal(run.requests().drop(TIMES).collect(), ns.run.Run(path).requests().drop(TIMES).collect())


def test_a_run_that_is_cancelled_again_and_again_comes_to_its_end(tmp_path, whole):
    path, port, _ = whole
    out = tmp_path / "run"
    server = hanging(0)
    server.port = port
    with server:
        for answers in (3, 4, 2, 5):
            server.answers, before = asked(server) + answers, asked(server)
            broken_off(server, out, when=lambda least=before + answers: asked(server) > least, concurrency=4)
        server.answers = 10**9
        start(server, out)
    assert files_of(out) == files_of(path)


def test_a_run_that_is_done_is_read_and_nothing_is_sent(tmp_path):
    with serve() as server:
        run = start(server, tmp_path)
        before = files_of(tmp_path), files_of(tmp_path, "requests.parquet")
        server.forget()
        again = start(server, tmp_path, limit=2)
        assert start(server, tmp_path).path == again.path == run.path
        assert server.n_requests == 0
    assert (files_of(tmp_path), files_of(tmp_path, "requests.parquet")) == before


def test_a_limit_may_be_lifted(tmp_path, whole):
    path, port, _ = whole
    with serve(port=port) as server:
        limited = start(server, tmp_path / "run", limit=8)
        assert asked(server) == 8
        assert correct(limited.simulated().collect())
        start(server, tmp_path / "run", limit=1)
        assert asked(server) == 8
        start(server, tmp_path / "run")
        assert asked(server) == 18
    assert files_of(tmp_path / "run") == files_of(path)
    assert files_of(tmp_path / "run", "requests.parquet").keys() == files_of(path, "requests.parquet").keys()


@pytest.mark.parametrize("damage", ["lost", "flipped", "cut"])
@pytest.mark.parametrize("table", ["simulated.parquet", "requests.parquet"])
def test_a_file_that_was_lost_or_damaged_is_written_again_from_the_journal(tmp_path, table, damage):
    with serve() as server:
        run = start(server, tmp_path)
        before = run.simulated().collect(), run.requests().collect()
        file = tmp_path / table / "part-000001.parquet"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        match damage:
            case "lost":
                file.unlink()
            case "flipped":
                file.write_bytes(content)
            case "cut":
                file.write_bytes(content[:-9])
        server.forget()
        run = start(server, tmp_path)
        assert server.n_requests == 0
    assert_frame_equal(run.simulated().collect(), before[0])
    assert_frame_equal(run.requests().collect(), before[1])


def test_requests_that_failed_are_asked_again_and_only_those(tmp_path):
    def unlucky(messages):
        if '"records"' in str(messages) and "n3" in str(messages[-1]):
            raise RefusalError(400, "no")
        return answer(messages)

    with serve(answer=unlucky) as server:
        run = start(server, tmp_path)
        assert run.simulated().collect()["status"].to_list().count("http_error") == 12
        server.answer = answer
        server.forget()
        run = start(server, tmp_path)
        assert asked(server) == 3
    assert correct(run.simulated().collect())
    assert run.requests().collect()["status"].to_list() == ["ok"] * 18


def test_what_is_asked_twice_has_one_row_of_requests_after_a_resume_too(tmp_path, monkeypatch):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 12)
    same = pl.concat(records_of(1).with_columns(neuron=n) for n in range(4))
    told = explanations_of(4).with_columns(explanation=pl.lit("x"))
    with serve() as server:
        start(server, tmp_path, same, told, limit=4)
        run = start(server, tmp_path, same, told)
        assert asked(server) == 3
    assert run.requests().collect()["neuron"].to_list() == [0, 0, 0]
    assert correct(run.simulated().collect())


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"simulator": "tab_list"}, r'simulators\[0\].name: the run has "json_list", now "tab_list"'),
        ({"simulator": ns.JsonList(pack=2)}, r"simulators\[0\].pack: the run has 1, now 2"),
        ({"simulator": ["json_list", "tab_list"]}, "simulators: the run has"),
        ({"model": "other"}, 'backend.model: the run has "tiny", now "other"'),
        ({"extra": {"top_p": 1}}, "backend.extra.top_p: the run has null, now 1"),
        ({"distribution": True}, "distribution: the run has false, now true"),
        ({"by": ["neuron"]}, "keys: the run has"),
    ],
    ids=str,
)
def test_other_settings_are_refused_with_the_difference(tmp_path, change, words):
    with serve() as server:
        start(server, tmp_path, limit=1)
        server.forget()
        options = {k: v for k, v in change.items() if k not in ("model", "extra")}
        if len(options) < len(change):
            options["backend"] = backend(server, **change)
        with pytest.raises(ns.RunError, match=words):
            start(server, tmp_path, **options)
        assert server.n_requests == 0
        start(server, tmp_path, concurrency=3, timeout_s=60, attempts=2, keep="needed", price=(1, 1), max_cost=100)


@pytest.mark.parametrize(
    ("records", "told", "words"),
    [
        (RECORDS.with_columns(pl.col("activation") * 2), TOLD, "position=1 the activation was 1.0, and is 2.0"),
        (RECORDS.filter(pl.col("neuron") > 0), TOLD, "at layer=0, neuron=0, .* the neuron was 0, and is 1"),
        (RECORDS.filter(pl.col("neuron") < 2), TOLD, "the neurons from layer=0, neuron=2 on are gone"),
        (RECORDS.with_columns(new=pl.lit(1)), TOLD, r"gone: none; columns that are new: new \(Int32\)"),
        (
            RECORDS,
            TOLD.with_columns(explanation=pl.col("explanation").str.replace("words 3", "others")),
            "at layer=0, neuron=3, .* the explanation was 'words 3 0', and is 'others 0'",
        ),
    ],
    ids=["activations", "fewer at the start", "fewer at the end", "a column", "explanations"],
)
@pytest.mark.parametrize("done", [True, False])
def test_other_records_or_explanations_are_refused_before_anything_is_sent(tmp_path, records, told, words, done):
    server = hanging(10**9)
    with server:
        if done:
            start(server, tmp_path)
        else:
            server.answers = 7
            broken_off(server, tmp_path, when=lambda: asked(server) > 7)
        server.answers = 10**9
        server.forget()
        with pytest.raises(ns.RunError, match=f"began with other records or explanations: .*{words}"):
            start(server, tmp_path, records, told)
        assert server.n_requests == 0
        assert correct(start(server, tmp_path).simulated().collect())


def test_more_neurons_behind_the_others_are_taken_in(tmp_path, monkeypatch):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 12)  # a neuron
    with serve() as server:
        start(server, tmp_path, records_of(2), explanations_of(2))
        server.forget()
        run = start(server, tmp_path, records_of(3), explanations_of(3))
        assert asked(server) == 3
    assert correct(run.simulated().collect())
    assert run.simulated().collect().height == 36


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_goes_on(tmp_path):
    with serve(wait_s=0.3) as server:
        first = threading.Thread(target=start, args=(server, tmp_path))
        first.start()
        until(lambda: asked(server) > 0)
        with pytest.raises(ns.JournalError, match=f"another process .{os.getpid()}. works on this run"):
            start(server, tmp_path)
        first.join()
        assert correct(start(server, tmp_path).simulated().collect())


@pytest.mark.parametrize("name", ["simulated.parquet", "requests.parquet"])
def test_a_folder_that_holds_other_results_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with serve() as server:
        with pytest.raises(ns.RunError, match=f"holds a {name} that is no run's"):
            start(server, tmp_path)
        assert server.n_requests == 0
    assert [f.name for f in tmp_path.iterdir()] == [name]


def test_a_file_is_no_folder_for_a_run(tmp_path):
    (tmp_path / "run").write_bytes(b"mine")
    with serve() as server, pytest.raises(ns.RunError, match="this is a file"):
        start(server, tmp_path / "run")


# Store before parse, and replays


@pytest.mark.parametrize("keep", ["raw", "needed"])
def test_a_parser_that_fails_costs_nothing_once_it_is_mended(tmp_path, monkeypatch, keep):
    with serve() as server:
        with monkeypatch.context() as patch:
            patch.setattr("nscore.simulators.JsonList.read", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                start(server, tmp_path, keep=keep, concurrency=1)
        stored = journaled(tmp_path, keys_of(server))
        assert stored
        run = start(server, tmp_path)
        times = Counter(keys_of(server))
    assert correct(run.simulated().collect())
    assert len(times) == 18
    assert {times[key] for key in stored} == {1}
    # one at a time: the one that was on its way at the error may have reached the server, or not
    assert times.total() <= 19
    assert History.of(tmp_path / "journal").in_doubt <= 1


def test_a_run_is_made_again_from_its_journal_without_a_server(tmp_path):
    with serve(ignore_logprobs=False) as server:
        options = {"simulator": ["all_at_once", "json_list"]}
        run = start(server, tmp_path / "a", **options)
    expected = run.simulated().collect()
    again = start(server, tmp_path / "b", backend=ns.Replay(tmp_path / "a"), **options)
    assert_frame_equal(again.simulated().collect(), expected)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert_frame_equal(again.requests().drop("attempts").collect(), run.requests().drop("attempts").collect())
    # what the replayed run never asked is not made up
    with pytest.warns(UserWarning, match="not_run"):
        more = start(server, None, records_of(7), explanations_of(7), backend=ns.Replay(tmp_path / "a"), **options)
    assert set(more.filter(pl.col("neuron") == 6)["status"]) == {"not_run"}
    assert set(more.filter(pl.col("neuron") < 6)["status"]) == {"ok"}


def test_only_what_is_needed_may_be_kept(tmp_path):
    with serve(ignore_logprobs=False) as server:
        options = {"simulator": ["all_at_once", "json_list", "tab_list", "token_by_token"], "distribution": True}
        raw = start(server, tmp_path / "raw", **options)
        short = start(server, tmp_path / "short", keep="needed", **options)
    expected = raw.simulated().collect()
    assert_frame_equal(short.simulated().collect(), expected)
    assert_frame_equal(short.requests().drop(TIMES).collect(), raw.requests().drop(TIMES).collect())
    again = start(server, tmp_path / "again", backend=ns.Replay(tmp_path / "short"), **options)
    assert_frame_equal(again.simulated().collect(), expected)
    sizes = [sum(f.stat().st_size for f in (p / "journal").glob("*.log")) for p in (raw.path, short.path)]
    assert sizes[1] < sizes[0] / 5


# Other processes


def command(server, folder, out, *flags):
    RECORDS.write_parquet(folder / "records.parquet")
    TOLD.write_parquet(folder / "told.parquet")
    arguments = [folder / "records.parquet", folder / "told.parquet", "--simulator", "json_list", "--model", "tiny"]
    return subprocess.Popen(
        [sys.executable, "-m", "nscore", "simulate", *arguments, "--base-url", server.base_url, "-o", out, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OPENAI_API_KEY": "canary-key-1"},
    )


def test_a_run_that_is_killed_loses_nothing_and_asks_nothing_again(tmp_path, monkeypatch):
    monkeypatch.undo()  # the other process has shards of the usual size
    with serve(wait_s=0.05) as server:
        whole = start(server, tmp_path / "whole")
        keys = keys_of(server)
        shutil.rmtree(tmp_path / "whole" / "journal")
        server.forget()
        for calls in (8, 14):
            process = command(server, tmp_path, tmp_path / "run", "--concurrency", "3")
            until(lambda least=calls: asked(server) >= least)
            process.kill()
            process.communicate()
            time.sleep(0.1)  # what was in flight is answered, to nobody
        there = journaled(tmp_path / "run", keys)
        assert len(there) >= 2
        calls = asked(server)
        doubt = History.of(tmp_path / "run" / "journal").in_doubt
        server.forget()
        start(server, tmp_path / "run")
        assert set(keys_of(server)) == set(keys) - there
        assert asked(server) == len(keys) - len(there)
    assert doubt <= calls - len(there)
    assert files_of(tmp_path / "run") == files_of(whole.path)


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_command_though_the_server_hangs(tmp_path, signalled):
    with hanging(4) as server:
        process = command(server, tmp_path, tmp_path / "run", "--concurrency", "4")
        until(lambda: asked(server) >= 8)
        started = time.monotonic()
        process.send_signal(signalled)
        _, said = process.communicate(timeout=10)
        assert time.monotonic() - started < 2
        assert process.returncode == 130
        assert "nscore simulate: interrupted" in said
        assert "Traceback" not in said
        keys = keys_of(server)
    assert len(journaled(tmp_path / "run", keys)) == 4
