"""The limits of a run are those of all its workers together: of requests, of tokens, of money, though they are killed."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from asking import asked, backend, correct, explanations_of, is_asked, records_of, serve
from executors.killing import Killer
from holding.crash import body_of, key_of
from hypothesis import given
from hypothesis import strategies as st
from model_server import body_hash
from simulation_tables import PROPERTY
from virtual_clock import run_virtual

import nscore as ns
from nscore._running.options import Options
from nscore._running.plan import Plan
from nscore._running.shares import shared
from nscore._sending.limits import Pace, RealClock
from nscore._tables.meeting import meet

RECORDS, TOLD = records_of(8, 5), explanations_of(8)
PRICE = (1000.0, 5000.0)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr("nscore._running.plan.SHARD_ROWS", 20)


def start(server, out, **given):
    options = {"simulator": "json_list", "backend": backend(server), "out": out, "price": PRICE} | given
    return ns.simulate(RECORDS, TOLD, **options)


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    """A server, what each of its answers truly costs by the request's key, and what a request may cost at most."""
    with serve(wait_s=0.03, jitter_s=0.03) as server:
        run = start(server, tmp_path_factory.mktemp("costs") / "run")
        each = dict(run.requests().select("request", "price").collect().iter_rows())
        model = backend(server)
        plan = Plan(meet(RECORDS, TOLD, by=None, splits=None, leaks="refuse"), [ns.JsonList()], model, model.assumed)
        most = max(ns.Price(*PRICE).most(r.prompt) for shard in plan.shards() for r in shard.requests)
        yield server, each, most


def billed(server, each):
    """What the server has billed, in dollars."""
    asked_for = {body_hash(body_of(received)): received for received in server.requests if is_asked(received)}
    return sum(server.billed[body] * each[key_of(server, received).hex()] for body, received in asked_for.items())


@pytest.mark.parametrize(("executor", "share"), [("processes", 0.7), ("ray", 0.6)])
def test_no_more_money_is_spent_than_may_be_though_workers_are_killed(executor, share, costs, tmp_path, request):
    if executor == "ray":
        request.getfixturevalue("cluster")
    server, each, most = costs
    server.forget()
    limit = share * sum(each.values())
    with Killer(server, tmp_path / "run", times=2, every=11) as killer:
        run = start(server, tmp_path / "run", max_cost=limit, executor=executor, workers=2, concurrency=4)
    assert killer.killed
    told = ns.describe(run.path)
    assert billed(server, each) <= told.spent <= limit
    assert told.spent + 1.1 * most > limit  # it was spent while it was enough for one more
    statuses = Counter(run.requests().collect()["status"].to_list())
    assert set(statuses) == {"ok", "not_run"}
    n_asked = asked(server)
    assert n_asked <= told.sent
    assert not ns.verify(run.path).problems
    start(server, tmp_path / "run", max_cost=limit, executor=executor, workers=2)
    assert asked(server) == n_asked
    run = start(server, tmp_path / "run", max_cost=1000.0, executor=executor, workers=2)
    assert correct(run.simulated().collect())
    assert ns.describe(run.path).replies == 40


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_money_that_is_not_enough_for_one_request_is_not_spent(limit, costs, tmp_path):
    server = costs[0]
    start(server, tmp_path / "run", limit=1)
    spent = ns.describe(tmp_path / "run").spent
    server.forget()
    run = start(server, tmp_path / "run", max_cost=spent + limit, executor="processes", workers=2)
    assert asked(server) == 0
    assert Counter(run.requests().collect()["status"].to_list()) == {"not_run": 39, "ok": 1}


def test_what_failed_and_was_paid_for_at_its_most_leaves_less_for_the_rest(costs, tmp_path):
    server, each, _ = costs
    server.forget()
    server.faults = {"cut": 0.3}
    try:
        limit = 0.7 * sum(each.values())
        run = start(server, tmp_path / "run", max_cost=limit, executor="processes", workers=2, attempts=3)
        told = ns.describe(run.path)
        assert billed(server, each) <= told.spent <= limit
        assert server.counts["cut"]
    finally:
        server.faults = None
    assert run.requests().collect()["price"].sum() == pytest.approx(told.spent)


def test_requests_in_flight_are_those_of_all_workers(costs, tmp_path):
    server, *_ = costs
    server.forget()
    start(server, tmp_path / "run", executor="processes", workers=3, concurrency=6)
    assert 2 < server.max_in_flight <= 6


def test_requests_a_minute_are_those_of_all_workers(tmp_path):
    with serve() as server:
        start(server, tmp_path / "run", limit=1)
        server.forget()
        start(server, tmp_path / "run", executor="processes", workers=2, requests_per_minute=1200.0)
        times = [arrival.at_s for arrival in server.arrivals]
    assert len(times) == 39
    gap_s = 60.5 / 600
    for first in range(len(times)):  # each worker one every 0.1 s, and a little of a burst
        for last in range(first + 1, len(times)):
            assert last - first + 1 <= 2 * (1 + (times[last] - times[first] + 0.1) / gap_s)


@PROPERTY
@given(
    st.integers(1, 40),
    st.lists(st.lists(st.floats(0.1, 5.0), min_size=1, max_size=60), min_size=1, max_size=5),
    st.floats(0, 20),
)
def test_paces_one_after_another_keep_the_limit_of_one(rate, parts, pause_s):
    limit = max(float(rate), *map(max, parts))
    gone = []

    async def main():
        clock = RealClock()
        for amounts in parts:
            pace = Pace(limit, clock=clock, after=2 * max(map(max, parts)))
            for amount in amounts:
                await pace.take(amount)
                gone.append((clock.now(), amount))
            await asyncio.sleep(pause_s)

    run_virtual(main())
    for at, _ in gone:
        assert sum(amount for when, amount in gone if at <= when < at + 60) <= limit * (1 + 1e-9)


@PROPERTY
@given(st.integers(1, 500), st.floats(1, 1e6), st.floats(1, 1e6), st.integers(1, 64))
def test_shares_come_to_no_more_than_the_whole(concurrency, requests, tokens, workers):
    whole = Options(concurrency=concurrency, requests_per_minute=requests, tokens_per_minute=tokens)
    if workers > min(concurrency, requests):
        with pytest.raises(ns.SettingError, match="take fewer workers"):
            shared(whole, workers)
        return
    each = shared(whole, workers)
    assert workers * each.concurrency <= concurrency
    assert workers * each.requests_per_minute <= requests
    assert workers * each.tokens_per_minute <= tokens * (1 + 1e-12)
    assert workers == 1 or each.requests_per_minute == int(each.requests_per_minute)
