"""A spending limit is never exceeded: not by what is in flight, not by what hung, not across crashes and resumes."""

from __future__ import annotations

import asyncio
import math

import polars as pl
import pytest
from asking import Fast, asked, backend, correct, explanations_of, hanging, records_of, serve
from polars.testing import assert_frame_equal

import nscore as ns
from nscore._running.plan import Plan
from nscore._sending.history import History
from nscore._tables.meeting import meet

PRICE = (1000.0, 5000.0)  # dollars for a million tokens: a request costs about as many dollars
RECORDS, TOLD = records_of(5, 6), explanations_of(5)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr("nscore._running.engine.RealClock", Fast)


def start(server, out, **options):
    given = {"simulator": "json_list", "backend": backend(server), "out": out, "price": PRICE} | options
    return ns.simulate(RECORDS, TOLD, **given)


def at_most(server):
    """What a request can cost at most."""
    model = backend(server)
    met = meet(RECORDS, TOLD, by=None, splits=None, leaks="refuse")
    plan = Plan(met, [ns.JsonList()], model, model.assumed, 1)
    (request,) = next(plan.shards()).requests
    return ns.Price(*PRICE).most(request.prompt)


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    """What each request truly costs, by the server's count."""
    with serve() as server:
        run = start(server, tmp_path_factory.mktemp("costs"))
        most = at_most(server)
    requests = run.requests().collect()
    true = (requests["prompt_tokens"] * PRICE[0] + requests["completion_tokens"] * PRICE[1]) / 1e6
    assert requests["price"].to_list() == pytest.approx(true.to_list())
    assert true.max() < most
    return {"each": true.mean(), "all": true.sum(), "most": most}


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("concurrency", [1, 16])
def test_a_limit_is_never_exceeded_and_nearly_reached(tmp_path, costs, share, concurrency):
    limit = share * costs["all"] + (costs["most"] if share == 1.0 else 0.0)
    with serve() as server:
        run = start(server, tmp_path, max_cost=limit, concurrency=concurrency)
        requests = run.requests().collect()
        n_ok = requests.filter(pl.col("status") == "ok").height
        assert asked(server) == n_ok
    spent = requests["price"].sum()
    assert spent <= limit
    assert requests.height == 30
    assert set(requests["status"]) == ({"ok"} if share == 1.0 else {"not_run"} if not share else {"ok", "not_run"})
    if 0 < share < 1:
        assert spent + costs["most"] * 1.1 > limit
    left = requests.filter(pl.col("status") == "not_run")
    assert left["error"].unique().to_list() == (["the spending limit was reached"] if left.height else [])
    assert run.simulated().filter(pl.col("status") == "not_run").collect()["predicted"].is_null().all()


def test_the_same_call_spends_nothing_more_and_a_higher_limit_goes_on(tmp_path, costs):
    with serve() as server:
        limit = costs["all"] / 2
        run = start(server, tmp_path, max_cost=limit)
        before, n = run.simulated().collect(), asked(server)
        assert_frame_equal(start(server, tmp_path, max_cost=limit).simulated().collect(), before)
        assert asked(server) == n
        run = start(server, tmp_path, max_cost=costs["all"] + costs["most"])
        assert asked(server) == 30
    assert correct(run.simulated().collect())
    assert History.of(tmp_path / "journal").spent == pytest.approx(costs["all"])


@pytest.mark.parametrize("fault", ["hang", "drip", "cut"])
def test_an_answer_that_did_not_come_whole_counts_at_its_most(tmp_path, costs, fault):
    with serve(drip_s=0.05) as server:
        start(server, tmp_path, limit=1)
        server.faults = {fault: 1.0}
        server.forget()
        limit = History.of(tmp_path / "journal").spent + 3.5 * costs["most"]
        run = start(server, tmp_path, max_cost=limit, timeout_s=0.15, attempts=2)
        # as many as fit, at the longest of all requests' prices
        assert 2 <= asked(server) <= 4
    history = History.of(tmp_path / "journal")
    assert history.spent <= limit
    assert history.in_doubt == 0
    requests = run.requests().collect()
    assert requests["price"].sum() == pytest.approx(history.spent)
    assert {"ok", "not_run"} <= set(requests["status"]) <= {"ok", "not_run", "http_error"}


def test_a_broken_connection_counts_at_its_most(tmp_path, costs):
    with serve() as server:
        start(server, tmp_path, limit=1)
        server.faults = {"reset": 1.0}
        server.forget()
        limit = History.of(tmp_path / "journal").spent + 3.5 * costs["most"]
        start(server, tmp_path, max_cost=limit, attempts=2)
        assert asked(server) <= 4


@pytest.mark.parametrize("status", ["429", "500"])
def test_a_refusal_costs_nothing(tmp_path, costs, status):
    with serve(retry_after=("absent",)) as server:
        start(server, tmp_path, limit=1)
        before = History.of(tmp_path / "journal").spent
        server.faults = {status: 1.0}
        run = start(server, tmp_path, max_cost=before + costs["most"] * 1.5, attempts=1)
    assert History.of(tmp_path / "journal").spent == before
    assert set(run.requests().collect()["status"]) == {"ok", "http_error"}


def test_what_was_sent_by_a_run_that_was_broken_off_counts_at_its_most_for_ever(tmp_path, costs):
    with hanging(3) as server:

        async def main():
            task = asyncio.ensure_future(
                ns.asimulate(
                    RECORDS,
                    TOLD,
                    simulator="json_list",
                    backend=backend(server),
                    out=tmp_path,
                    price=PRICE,
                    concurrency=4,
                )
            )
            async with asyncio.timeout(10):
                while asked(server) < 7:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.1)  # the three answers are read
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(main())
        history = History.of(tmp_path / "journal")
        assert history.in_doubt == 4
        assert history.spent == pytest.approx(4 * costs["most"] + 3 * costs["each"], rel=0.1)
        server.answers = 10**9
        limit = history.spent + 2 * costs["most"]
        run = start(server, tmp_path, max_cost=limit)
        assert {"ok", "not_run"} == set(run.requests().collect()["status"])
        history = History.of(tmp_path / "journal")
        assert history.in_doubt == 4
        assert history.spent <= limit
        start(server, tmp_path)
        history = History.of(tmp_path / "journal")
    assert history.in_doubt == 4
    assert history.spent == pytest.approx(4 * costs["most"] + costs["all"], rel=0.1)


def test_a_limit_without_a_price_is_refused_before_anything_is_sent(tmp_path):
    with serve() as server:
        with pytest.raises(ns.SettingError, match=r"nobody knows what tiny costs at http://127\.0\.0\.1"):
            start(server, tmp_path / "run", price=None, max_cost=1)
        assert server.n_requests == 0
    assert not (tmp_path / "run").exists()


def test_without_a_price_nothing_is_counted(tmp_path):
    with serve() as server:
        run = start(server, tmp_path, price=None)
    assert run.requests().collect()["price"].null_count() == 30
    assert History.of(tmp_path / "journal").spent == 0


def test_room_that_the_user_adds_to_answers_is_reserved_too(tmp_path, costs):
    with serve(no_completions=True) as server:
        wide = backend(server, extra={"max_tokens": 100_000})
        run = start(server, tmp_path, backend=wide, max_cost=costs["all"] + 100)
        assert set(run.requests().collect()["status"]) == {"not_run"}
        assert asked(server) == 0


def test_prices_may_tell_cached_tokens_apart(tmp_path):
    with serve() as server:
        run = start(server, tmp_path, price=(1000.0, 0.0, 100.0))
    requests = run.requests().collect()
    cost = ((pl.col("prompt_tokens") - pl.col("cached_tokens")) * 1000 + pl.col("cached_tokens") * 100) / 1e6
    assert requests["price"].to_list() == pytest.approx(requests.select(cost).to_series().to_list())
    assert requests["cached_tokens"].max() > 500
    assert math.isfinite(requests["price"].sum())
