"""Requests go through nscore's transport: bounded, tried again where that helps, in any loop, and no key is shown."""

from __future__ import annotations

import asyncio
import logging

import pytest
from asking import answer, serve
from model_server import ModelServer

import nscore as ns
from nscore._sending.retry import Retries
from nscore.neuron_explainer import ApiClient, LogprobFreeExplanationTokenSimulator, NeuronSimulator
from nscore.neuron_explainer._asking import forget

KEY = "canary-key-1234"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


@pytest.fixture(autouse=True)
def servers_are_new():
    forget()


@pytest.fixture
def client(monkeypatch):
    def client(server, **given):
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        made = ApiClient("tiny", **given)
        made.retries = Retries(attempts=4, base_s=0.01)
        return made

    return client


def test_a_request_goes_where_its_body_says(client):
    async def script(client):
        spoken = await client.make_request(**CHAT)
        echoed = await client.async_generate(prompt="a cat", max_tokens=1, echo=True, logprobs=2, timeout=20)
        return spoken, echoed

    with serve(ignore_logprobs=False) as server:
        spoken, echoed = asyncio.run(script(client(server)))
        assert [r.path for r in server.requests] == ["/v1/chat/completions", "/v1/completions"]
        assert [r.body["model"] for r in server.requests] == ["tiny", "tiny"]
        assert "timeout" not in server.requests[1].body
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert spoken["choices"][0]["message"]["content"] == "hello"
    assert echoed["choices"][0]["text"].startswith("a cat")
    assert echoed["choices"][0]["logprobs"]["top_logprobs"]


def test_what_was_asked_is_answered_from_memory_if_wanted(client):
    async def script(client):
        first = await client.make_request(**CHAT)
        first["choices"] = []  # what a user does with it changes nothing
        return await client.make_request(**CHAT)

    for cache, sent in [(True, 1), (False, 2)]:
        with serve() as server:
            again = asyncio.run(script(client(server, cache=cache)))
            assert len(server.requests) == sent
        assert again["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_are_in_flight_than_allowed(client, most):
    async def script(client):
        await asyncio.gather(*(client.make_request(**CHAT, seed=i) for i in range(12)))

    with serve(wait_s=0.01) as server:
        asyncio.run(script(client(server, max_concurrent=most)))
        assert server.max_in_flight == most
        assert server.billed.total() == 12


def test_one_client_serves_one_loop_after_another_and_leaves_nothing(client):
    with serve() as server:
        one = client(server, max_concurrent=1)
        for _ in range(3):
            made = asyncio.run(one.make_request(**CHAT))
            assert made["choices"][0]["message"]["content"] == "hello"
        assert not vars(one)["_sessions"]


@pytest.mark.parametrize("fault", ["429", "503", "error200", "cut_json", "reset"])
def test_faults_that_pass_are_tried_again(client, fault):
    async def script(client):
        return await asyncio.gather(*(client.make_request(**CHAT, seed=i) for i in range(20)))

    with serve(faults={fault: 0.4}, retry_after=("seconds",)) as server:
        one = client(server)
        one.retries = Retries(attempts=30, base_s=0.001)
        replies = asyncio.run(script(one))
        assert server.counts[fault] + server.counts[int(fault) if fault.isdigit() else fault] > 0
    assert {r["choices"][0]["message"]["content"] for r in replies} == {"hello"}


@pytest.mark.parametrize(
    ("switches", "body", "said"),
    [
        ({"api_key": "another-key-1"}, CHAT, "status 401"),
        ({"no_chat": True}, CHAT, "status 404"),
        ({"context": 3}, CHAT, "status 400"),
        ({"faults": {"500": 1.0}}, CHAT, r"status 500 \(4 tries\)"),
        ({"faults": {"error200": 1.0}}, CHAT, r"status 200 \(4 tries\)"),
    ],
)
def test_what_the_server_will_not_do_is_an_error(client, caplog, switches, body, said):
    with serve(**switches) as server, caplog.at_level(logging.DEBUG):
        with pytest.raises(ns.BackendError, match=said) as error:
            asyncio.run(client(server).make_request(**body))
        assert server.n_requests == (4 if "tries" in said else 1)
    assert KEY not in str(error.value) + caplog.text


def test_a_server_that_is_not_there_is_an_error_after_all_tries(client):
    with serve() as server:
        one = client(server)
    with pytest.raises(ns.OutageError, match=r"connection \(4 tries\)"):
        asyncio.run(one.make_request(**CHAT))


def test_a_reply_that_takes_too_long_is_given_up(client):
    with serve(wait_s=5.0) as server:
        one = client(server)
        one.retries = Retries(attempts=1)
        with pytest.raises(ns.OutageError, match="timeout"):
            asyncio.run(one.make_request(timeout_seconds=0.05, **CHAT))


def test_a_request_that_is_cancelled_leaves_nothing(client):
    async def script(client):
        task = asyncio.ensure_future(client.make_request(**CHAT))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not vars(client)["_sessions"]
        server.wait_s = 0.0
        return await client.make_request(**CHAT)

    with serve(wait_s=5.0) as server:
        assert asyncio.run(script(client(server, max_concurrent=1)))["choices"]


def test_no_key_is_needed_to_make_one_and_none_is_shown(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert ApiClient("tiny").backend.url == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = ApiClient("tiny")
    assert KEY not in repr(made) + repr(made.backend)
    with pytest.raises(ns.SettingError, match="max_concurrent"):
        ApiClient("tiny", max_concurrent=0)


def test_many_simulators_share_a_client_and_its_limit(client):
    async def script(client):
        simulators: list[NeuronSimulator] = [LogprobFreeExplanationTokenSimulator(client, f"w {i}") for i in range(8)]
        return await asyncio.gather(*(s.simulate(["a", "red", "fox"]) for s in simulators for _ in range(2)))

    with ModelServer(answer=answer, ignore_logprobs=True, wait_s=0.005) as server:
        made = asyncio.run(script(client(server, max_concurrent=3)))
        assert 1 < server.max_in_flight <= 3
    assert all(m == made[0] for m in made)
    assert made[0].status is None
