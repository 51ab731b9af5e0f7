"""Several servers: what is about one explanation goes to one of them, and what one cannot answer another does."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from contextlib import ExitStack

import pytest
from asking import (
    asked,
    backend,
    correct,
    explanations_of,
    files_of,
    hanging,
    is_asked,
    records_of,
    serve,
    shards_of,
)
from model_server import ModelServer

import nscore as ns

RECORDS, TOLD = records_of(40, 4), explanations_of(40)


@pytest.fixture
def two():
    with serve(wait_s=0.01) as one, serve(wait_s=0.01) as other:
        yield one, other


def group(servers, **given):
    return ns.Servers([backend(server) for server in servers], **given)


def start(model, out=None, *, records=RECORDS, told=TOLD, **given):
    return ns.simulate(records, told, **{"simulator": "json_list", "backend": model, "out": out} | given)


def explanations_at(server):
    """Which explanations a server was asked about, and how often."""
    found = defaultdict(int)
    for received in filter(is_asked, server.requests):
        text = str(received.body)
        found[text[text.rindex("words ") :].split("\\n", maxsplit=1)[0].split('"', maxsplit=1)[0]] += 1
    return dict(found)


def test_what_is_about_one_explanation_goes_to_one_server(two, tmp_path):
    run = start(group(two), tmp_path / "run", concurrency=16)  # so few are never too much for one
    assert correct(run.simulated().collect())
    one, other = map(explanations_at, two)
    assert not set(one) & set(other)
    assert set((one | other).values()) == {4}
    assert len(one) + len(other) == 40
    cached = run.requests().collect()["cached_tokens"].sum()
    with serve(wait_s=0.01) as alone:
        single = start(backend(alone), tmp_path / "single")
    assert files_of(run.path) == files_of(single.path)
    assert (
        cached > 0.98 * single.requests().collect()["cached_tokens"].sum()
    )  # each has a cache, and no explanation is in both


@pytest.mark.parametrize("weights", [(1, 3), (4, 1)])
def test_each_server_gets_its_share(two, weights):
    assert correct(start(group(two, weights=weights)))
    counts = [asked(server) for server in two]
    assert sum(counts) == 160
    assert abs(counts[0] / 160 - weights[0] / sum(weights)) < 0.2


def test_what_is_too_much_for_one_server_goes_to_others_too():
    with serve(wait_s=0.05) as one, serve(wait_s=0.05) as other, serve(wait_s=0.05) as third:
        servers = [one, other, third]
        assert correct(start(group(servers), records=records_of(1, 400), told=explanations_of(1)))
    assert min(map(asked, servers)) > 10


def test_explanations_of_many_requests_take_turns_and_each_server_has_its_own():
    with serve(wait_s=0.02) as one, serve(wait_s=0.02) as other, serve(wait_s=0.02) as third:
        servers = [one, other, third]
        assert correct(start(group(servers), records=records_of(6, 150), told=explanations_of(6)))
    counts = [explanations_at(server) for server in servers]
    at_home = sum(max(found.get(about, 0) for found in counts) for about in set().union(*counts))
    assert at_home > 600  # of 900; one after another 391 to 440, the others at servers that did not know the prompt
    assert min(map(asked, servers)) > 150


def test_shards_that_are_open_while_explanations_take_turns_do_not_wait_for_one_another(monkeypatch):
    monkeypatch.setattr("nscore._running.engine.OPEN_SHARDS", 2)
    with shards_of(monkeypatch, 1), serve() as one, serve() as other, serve() as third:  # a neuron each
        assert correct(start(group([one, other, third]), records=records_of(9, 3), told=explanations_of(9)))


@pytest.mark.parametrize("number", [1, 3])
def test_a_run_begins_with_eight_requests_for_each_server(number, tmp_path):
    with ExitStack() as stack:
        servers = [stack.enter_context(hanging(0)) for _ in range(number)]
        seen = []

        def look():
            while not sum(map(asked, servers)):
                time.sleep(0.01)
            time.sleep(2.0)  # the first are still waited for
            seen.append([asked(server) for server in servers])

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        start(group(servers), tmp_path / "run", limit=8 * number + 2, attempts=1, timeout_s=3.0)
        thread.join(10)
    assert seen == [[8] * number]


def test_a_run_goes_on_with_a_second_server_and_asks_nothing_twice(two, tmp_path):
    start(backend(two[0]), tmp_path / "run", limit=60)
    run = start(group(two), tmp_path / "run")
    assert sum(map(asked, two)) == 160
    assert asked(two[1])
    assert correct(run.simulated().collect())
    assert not ns.verify(ns.rebuild(run.path).path).problems
    start(backend(two[0]), tmp_path / "run")
    assert sum(map(asked, two)) == 160


def test_a_server_that_dies_is_set_aside_and_tried_again_when_it_is_back(tmp_path):
    first, second = serve(wait_s=0.05), serve(wait_s=0.05)
    with first, second:
        port = second.port
        model = group([first, second])

        def interrupt():
            while asked(second) < 15:
                time.sleep(0.005)
            second.stop()
            died.append(asked(second))
            time.sleep(1.0)
            second.start()
            assert second.port == port

        died = []
        thread = threading.Thread(target=interrupt)
        thread.start()
        run = start(model, tmp_path / "run", concurrency=4)
        thread.join()
        whole = start(model, tmp_path / "whole")
        assert correct(run.simulated().collect())
        assert files_of(run.path) == files_of(whole.path)
        assert ns.describe(run.path).replies == 160
        assert asked(second) - died[0] > 20  # it had its share again after that
    requests = run.requests().collect()
    assert set(requests["status"]) == {"ok"}
    assert requests["attempts"].max() <= 3
    assert ns.describe(run.path).sent - 160 <= 20


def test_a_server_that_is_not_there_at_the_start_is_said_and_passed_over(tmp_path):
    with serve(wait_s=0.005) as first:
        with ModelServer() as gone:
            model = group([first, gone])
        with pytest.warns(UserWarning, match=f"{gone.base_url} is set aside until it answers"):
            run = start(model, tmp_path / "run")
        assert correct(run.simulated().collect())


def test_servers_that_can_do_different_things_are_not_equal(tmp_path):
    with (
        serve() as one,
        serve(ignore_logprobs=False) as other,
        pytest.raises(ns.BackendError, match=r"are not equal: .*logprobs: found"),
    ):
        start(group([one, other]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_servers_and_several_workers_together(two, tmp_path):
    run = start(group(two), tmp_path / "run", executor="processes", workers=2)
    single = start(backend(two[0]), tmp_path / "single")
    assert correct(run.simulated().collect())
    assert files_of(run.path) == files_of(single.path)
