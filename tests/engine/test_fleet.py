"""Which server a request goes to, in virtual time: shares, homes, those that are sick, crowded or slow."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_clock import run_virtual

import nscore as ns
from nscore._running.fleet import Fleet, Turns
from nscore._sending.limits import RealClock
from nscore.errors import OutageError

SOME = settings(max_examples=40, deadline=None)


def fleet(weights, names=None):
    """A fleet whose servers are never asked."""
    members = [ns.OpenAI("m", f"http://node{i}:8000/v1", api_key="none") for i in (names or range(len(weights)))]
    return Fleet(ns.Servers(members, weights=weights), timeout_s=1.0, clock=RealClock())


async def visited(fleet, about, *, ok=True):
    """Where a request goes that is answered at once, or fails."""
    visit = await fleet.enter(about)
    fleet.leave(visit, ok=ok)
    return visit.server.url


def counts(places):
    return [places.count(f"http://node{i}:8000/v1") for i in range(len(set(places)))]


@SOME
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_each_server_is_given_its_share_of_the_explanations(weights):
    async def main():
        servers = fleet(weights)
        return [await visited(servers, f"explanation {i}") for i in range(10 * sum(weights))]

    for found, weight in zip(counts(run_virtual(main())), weights, strict=True):
        assert abs(found - 10 * weight) <= 1


@SOME
@given(st.lists(st.integers(0, 20), min_size=1, max_size=200), st.integers(2, 5))
def test_what_is_about_one_explanation_goes_to_one_server(asked, number):
    async def main():
        servers, places = fleet([1] * number), {}
        for about in asked:
            places.setdefault(about, set()).add(await visited(servers, str(about)))
        return places

    assert all(len(places) == 1 for places in run_virtual(main()).values())


def test_few_requests_in_flight_stay_at_home_and_of_many_some_go_to_others():
    async def main(number):
        servers = fleet([1, 1, 1])
        return [(await servers.enter("one explanation")).server.url for _ in range(number)]

    assert len(set(run_virtual(main(16)))) == 1
    many = counts(run_virtual(main(120)))
    assert min(many) > 20
    assert max(many) == pytest.approx(60, abs=2)  # 1.5 of its share


def test_a_server_that_has_much_in_flight_is_given_no_more_explanations():
    async def main():
        servers = fleet([1, 1, 1])
        slow = (await servers.enter("first")).server
        for _ in range(15):
            await servers.enter("first")
        for i in range(30):
            assert await visited(servers, f"explanation {i}") != slow.url

    run_virtual(main())


def test_what_a_sick_server_was_home_to_finds_another_and_stays_there():
    async def main():
        servers = fleet([1, 1])
        sick = await visited(servers, "one")
        for _ in range(5):
            await visited(servers, "one", ok=False)
        well = {await visited(servers, "one") for _ in range(20)}
        assert len(well) == 1
        assert sick not in well
        await asyncio.sleep(5)
        assert await visited(servers, "one") == sick  # the probe
        assert {await visited(servers, "one") for _ in range(20)} == well
        assert sick in {await visited(servers, f"another {i}") for i in range(4)}

    run_virtual(main())


def test_a_request_that_failed_goes_elsewhere_first():
    async def main():
        servers = fleet([1, 1, 1])
        first = await servers.enter("one")
        servers.leave(first, ok=False)
        second = await servers.enter("one", first)
        assert second.server is not first.server

    run_virtual(main())


def test_where_all_are_sick_requests_wait_for_the_first_that_is_back_and_not_for_ever():
    async def main(*, back):
        servers = fleet([1, 1])
        for _ in range(10):
            await visited(servers, "one", ok=False)
        loop = asyncio.get_running_loop()
        start = loop.time()
        while loop.time() < start + 1000:
            await visited(servers, "one", ok=back)
            if back:
                return loop.time() - start
        return None

    assert 0.5 < run_virtual(main(back=True)) < 2
    with pytest.raises(OutageError):
        run_virtual(main(back=False))


@SOME
@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 6))
def test_explanations_take_turns_and_lose_none_of_their_requests(sizes, at_once):
    turns = Turns(at_once)
    order = []
    for about, size in enumerate(sizes):
        order += turns.add([(about, i) for i in range(size)])
    order += turns.rest()
    assert sorted(order) == [(about, i) for about, size in enumerate(sizes) for i in range(size)]
    left, begun, last = list(sizes), set(), {}
    for when, (about, i) in enumerate(order):
        assert sizes[about] - left[about] == i  # its own in their order
        left[about] -= 1
        assert when - last.get(about, when) <= at_once  # its turn comes again
        last[about] = when
        begun.add(about)
        assert sum(bool(left[a]) for a in begun) <= at_once
    if at_once == 1:
        assert order == sorted(order)


@pytest.mark.parametrize(
    ("weights", "at_once"), [([1], 1), ([1, 1, 1], 3), ([4, 1], 5), ([2, 1, 1], 4), ([1000, 1], 8), ([1, 1e-300], 8)]
)
def test_as_many_explanations_take_turns_as_give_each_server_its_share(weights, at_once):
    async def main():
        return fleet(weights).at_once

    assert run_virtual(main()) == at_once


@SOME
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 9), st.integers(2, 12))
def test_fleets_that_go_on_where_others_end_give_each_server_its_share_together(weights, explanations, number):
    weights = [*weights, 1]  # the shares come out even after the sum of the weights

    async def main():
        places = []
        for index in range(number * sum(weights)):  # workers, or their shards, one after another
            servers = fleet(weights)
            servers.go_on_after(index * explanations)
            places += [await visited(servers, f"explanation {i}") for i in range(explanations)]
            servers.go_on_after(1)  # it has begun
        return places

    found = run_virtual(main())
    for at, weight in enumerate(weights):
        assert found.count(f"http://node{at}:8000/v1") == explanations * number * weight
