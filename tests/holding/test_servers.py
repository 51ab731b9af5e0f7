"""Servers that misbehave, at length: every fault at once over 100,000 requests, outages, bad keys, windows, hidden limits.

The small forms are tests/engine/test_faults.py and tests/test_limits.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import httpx
import polars as pl
import pytest
from asking import Fast, answer, backend, correct, explanations_of, records_of, serve, value

import nscore as ns
from nscore._sending import history as _history
from nscore._sending.journal import Journal
from nscore.records import Status

TESTS = Path(__file__).parents[1]
# 30% 429 with Retry-After in all its forms, 10% 5xx, 5% each of the others.
EACH = ["reset", "hang", "cut_json", "count", "nan", "drip", "error200"]
MIX = {"429": 0.3, "500": 0.05, "503": 0.05, **dict.fromkeys(EACH, 0.05)}


class Other:
    """A model server in a process of its own."""

    def __init__(self, **switches) -> None:
        given = [f"--set={name}={json.dumps(setting)}" for name, setting in switches.items()]
        self.process = subprocess.Popen(
            [sys.executable, TESTS / "model_server.py", "--answer", "asking:answer", *given],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(TESTS), "PATH": ""},
        )
        self.base_url = self.process.stdout.readline().split()[-1].rstrip("/").removesuffix("/v1") + "/v1"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def stats(self):
        """What the server counted."""
        return httpx.get(self.base_url.removesuffix("/v1") + "/stats").json()


def table_of(neurons):
    """Ten records of four tokens for each neuron, no two of them the same."""
    rows = pl.DataFrame({"row": range(neurons * 40)}).with_columns(
        layer=pl.lit(0), neuron=pl.col("row") // 40, sequence=pl.col("row") // 4 % 10, position=pl.col("row") % 4
    )
    name = pl.format("n{}s{}", "neuron", "sequence")
    token = pl.when(pl.col("position") == 3).then(name).otherwise(pl.format("t{}", pl.col("row") * 7 % 97))
    return rows.with_columns(token=token, activation=pl.col("row") % 7 * 1.0).drop("row")


@pytest.mark.full
def test_a_hundred_thousand_requests_meet_every_fault(tmp_path, monkeypatch):
    monkeypatch.setattr("nscore._running.engine.RealClock", Fast)
    neurons = 10_000
    told = pl.DataFrame({"layer": 0, "neuron": range(neurons), "explanation_id": "a"})
    told = told.with_columns(explanation=pl.format("words {}", "neuron"))
    with serve() as small:  # what the server can do, so that the probe does not meet the faults
        ns.simulate(records_of(1), explanations_of(1), simulator="tab_list", backend=backend(small), out=tmp_path / "a")
    with Other(ignore_logprobs=True, faults=MIX, record=False, drip_s=0.02) as server:
        settings = ns.Run(tmp_path / "a").settings()
        settings["backend"]["base_url"] = server.base_url
        with Journal(tmp_path / "run" / "journal") as journal:
            journal.append(_history.settings(settings))
        started = time.monotonic()
        run = ns.simulate(
            table_of(neurons),
            told,
            simulator="tab_list",
            backend=ns.OpenAI(model="tiny", base_url=server.base_url, api_key="canary-key-1"),
            out=tmp_path / "run",
            concurrency=128,
            timeout_s=0.1,
        )
        took_s = time.monotonic() - started
        counts = server.stats()["counts"]
    rows, requests = run.simulated().collect(), run.requests().collect()
    assert rows.height == 40 * neurons
    assert rows.unique(["neuron", "sequence", "position"]).height == rows.height
    assert set(rows["status"]) <= set(Status.__args__)
    ok = rows.filter(pl.col("status") == "ok")
    assert ok["predicted"].to_list() == [float(value(token)) for token in ok["token"]]
    assert rows.filter(pl.col("status") != "ok")["predicted"].null_count() == rows.height - ok.height
    assert requests.height == requests["request"].n_unique() == 10 * neurons
    assert set(MIX) - {"429", "500", "503"} <= set(counts)
    statuses = dict(requests.group_by("status").len().sort("len", descending=True).iter_rows())
    print(f"\n {requests.height:,} requests in {took_s:.0f} s; {requests['attempts'].sum():,} calls; {statuses};")
    print(f" the server's counts: {counts}; {ok.height:,} good rows, all as of a server without faults")


@pytest.mark.full
@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute"])
def test_no_window_of_a_minute_by_the_servers_clock_holds_more_than_101_percent(tmp_path, limit):
    per_minute = 1200 if limit == "requests_per_minute" else 600_000
    with serve() as server:
        ns.simulate(
            table_of(150),
            explanations_of(150),
            simulator="tab_list",
            backend=backend(server),
            out=tmp_path,
            **{limit: per_minute},
        )
        window, inside, most = deque(), 0, 0
        for arrival in server.arrivals[-1500:]:
            amount = 1 if limit == "requests_per_minute" else arrival.tokens
            window.append((arrival.at_s, amount))
            inside += amount
            while window[0][0] <= arrival.at_s - 60:
                inside -= window.popleft()[1]
            most = max(most, inside)
        spent_s = server.arrivals[-1].at_s - server.arrivals[-1500].at_s
    print(f"\n {limit}={per_minute:,}: at most {most / per_minute:.1%} in any window of 60 s, over {spent_s:.0f} s")
    assert spent_s > 60
    assert most <= 1.01 * per_minute


@pytest.mark.full
def test_requests_in_flight_come_near_a_hidden_limit(tmp_path):
    hidden = 20
    seen = []

    def answered(messages):
        seen.append(server.in_flight)
        return answer(messages)

    with serve(answer=answered, hidden_concurrency=hidden, wait_s=0.05, jitter_s=0.02) as server:
        options = {"simulator": "tab_list", "backend": backend(server), "out": tmp_path, "concurrency": 256}
        run = ns.simulate(table_of(600), explanations_of(600), **options)
        refused = server.counts[429]
    assert correct(run.simulated().collect())
    late = seen[len(seen) // 4 : -100]
    mean = sum(late) / len(late)
    print(f"\n a server that bears {hidden} at once: {mean:.1f} in flight on average, {refused} of 6,000 refused")
    assert 0.9 * hidden <= mean <= 1.1 * hidden


@pytest.mark.full
@pytest.mark.parametrize("fault", ["reset", "503"])
def test_an_outage_of_many_requests_costs_few_calls(tmp_path, monkeypatch, fault):
    monkeypatch.setattr("nscore._running.engine.RealClock", Fast)
    with serve() as server:
        options = {"simulator": "tab_list", "backend": backend(server), "out": tmp_path, "concurrency": 64}
        ns.simulate(table_of(300), explanations_of(300), limit=500, **options)
        server.forget()
        server.faults = {fault: 1.0}
        threading.Timer(2.0, lambda: setattr(server, "faults", None)).start()
        run = ns.simulate(table_of(300), explanations_of(300), **options)
        sent = server.n_requests
    assert correct(run.simulated().collect())
    print(f"\n an outage ({fault}) of 200 s on the run's clock: {sent:,} calls for 2,500 requests: {sent / 2500:.3f} x")
    assert sent <= 1.2 * 2500


@pytest.mark.parametrize("when", ["at the start", "when it goes on"])
def test_a_bad_key_stops_the_run_at_one_call(tmp_path, when):
    options = {"simulator": "tab_list", "out": tmp_path / "run"}
    with serve() as server:
        if when == "when it goes on":
            ns.simulate(records_of(5), explanations_of(5), backend=backend(server), limit=3, **options)
        server.api_key = "good-key-2"
        server.forget()
        with pytest.raises(ns.BackendError, match="401"):
            ns.simulate(records_of(5), explanations_of(5), backend=backend(server), **options)
        assert server.n_requests == 1
        good = backend(server, api_key="good-key-2")
        assert correct(ns.simulate(records_of(5), explanations_of(5), backend=good, **options).simulated().collect())
