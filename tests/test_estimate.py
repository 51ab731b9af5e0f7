"""An estimate before a run: as many requests and scored tokens as the run then has, and about its tokens and price."""

from __future__ import annotations

import polars as pl
import pytest
from asking import explanations_of, records_of, serve
from simulation_tables import explained, record, small_explanations, small_records

import nscore as ns
from nscore.simulators import AllAtOnce, JsonList, TabList, TokenByToken

ONE, ANOTHER = record(["a", "red", "fox"]), record(["a", "red", "fox"], sequence=2)
LONG = pl.concat([record(["fox"] * n, sequence=n) for n in (3, 5, 7)])


@pytest.fixture(scope="module")
def server():
    with serve(ignore_logprobs=False) as server:
        yield server


@pytest.mark.parametrize(
    ("simulator", "tables", "given"),
    [
        ("json_list", (small_records(), small_explanations()), {}),
        ("json_list", (small_records(), small_explanations()), {"splits": ["test"]}),
        ("all_at_once", (small_records(), small_explanations()), {}),
        ("token_by_token", (small_records(), small_explanations()), {"splits": ["valid"]}),
        (["tab_list", "shuffled_tab_list"], (records_of(4, 3), explanations_of(4, each=2)), {}),
        (JsonList(pack=2), (records_of(2, 5), explanations_of(2, each=2)), {}),
        (JsonList(replicates=3), (records_of(1, 2), explanations_of(1)), {}),
        (TabList(pack=3, replicates=2), (records_of(2, 4), explanations_of(2)), {}),
        ("json_list", (pl.concat([ONE, ANOTHER]), explained("x", "y")), {}),
        (TokenByToken(), (pl.concat([ONE, ANOTHER]), explained("x")), {}),
        (AllAtOnce(max_record_tokens=5), (LONG, explained("x")), {}),
        (AllAtOnce(max_record_tokens=5, long_records="cut"), (LONG, explained("x")), {}),
        (TabList(max_record_tokens=2), (LONG, explained("x")), {}),
        ("json_list", (records_of(2, 5), explanations_of(2)), {"limit": 7}),
        (JsonList(pack=2), (records_of(2, 5), explanations_of(2)), {"limit": 2}),
        ("json_list", (pl.concat([ONE, ANOTHER]), explained("x")), {"limit": 1}),
    ],
    ids=lambda given: str(given) if isinstance(given, str | dict) else None,
)
def test_requests_and_scored_tokens_are_those_of_the_run(server, tmp_path, simulator, tables, given):
    given |= {"simulator": simulator, "backend": ns.OpenAI(model="tiny", base_url=server.base_url), "price": (1, 2)}
    told, run = ns.estimate(*tables, **given), ns.simulate(*tables, **given, out=tmp_path / "run")
    simulated = run.simulated().collect()
    assert set(simulated["status"]) <= {"ok", "too_long", "no_answer"}
    assert told.scored_tokens == simulated.filter(pl.col("status") != "too_long").height
    requests = run.requests().collect()
    assert told.requests == requests.height
    assert (requests["price"].sum() <= told.most) if requests.height else told.most == 0


def test_tokens_and_price_are_about_those_of_the_run(server, tmp_path):
    backend = ns.OpenAI(model="tiny", base_url=server.base_url)
    tables = records_of(4, 5), explanations_of(4)
    for simulator in ("json_list", "tab_list", "all_at_once", "token_by_token"):
        told = ns.estimate(*tables, simulator=simulator, backend=backend, price=(1, 2))
        run = ns.simulate(*tables, simulator=simulator, backend=backend, out=tmp_path / simulator, price=(1, 2))
        used = run.requests().select("prompt_tokens", "completion_tokens", "price").sum().collect()
        prompts, answers, price = used.row(0)
        print(simulator, told.prompt_tokens / prompts, told.completion_tokens / answers, told.price / price)  # noqa: T201
        # the model of the tests knows a few hundred tokens: its counts are higher than those of large models
        assert 0.3 < told.prompt_tokens / prompts < 1.5
        assert 0.2 < told.completion_tokens / answers < 3
        assert told.price == pytest.approx((told.prompt_tokens + 2 * told.completion_tokens) / 1e6)


def test_the_length_is_the_longest_of_what_each_limit_makes_it():
    def length(**limits):
        tables = records_of(2, 5), explanations_of(2)
        backend = ns.OpenAI(model="tiny", base_url="http://localhost/v1")
        return ns.estimate(*tables, simulator="json_list", backend=backend, **limits)

    assert length(requests_per_minute=2).duration_s == 300
    told = length(tokens_per_minute=1000)
    assert told.duration_s == pytest.approx((told.prompt_tokens + told.completion_tokens) * 60 / 1000)
    assert length(concurrency=1).duration_s == pytest.approx(10 * length(concurrency=10).duration_s)
    assert length(requests_per_minute=1e9, tokens_per_minute=1e12).duration_s == length().duration_s


def test_nothing_is_sent_and_without_a_price_none_is_made_up(server):
    before = server.n_requests
    backend = ns.OpenAI(model="tiny", base_url=server.base_url)
    told = ns.estimate(records_of(), explanations_of(), simulator="all_at_once", backend=backend)
    assert (told.price, told.most) == (None, None)
    assert server.n_requests == before
    raw, needed = (
        ns.estimate(records_of(), explanations_of(), simulator="all_at_once", backend=backend, keep=keep).stored_bytes
        for keep in ("raw", "needed")
    )
    assert 0 < needed < raw / 10
