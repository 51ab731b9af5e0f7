"""Prices: which of the table holds, what a request costs, and that it never costs more than was held back for it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import httpx
import msgspec
import pytest
from asking import serve

import nscore as ns
from nscore._sending.prices import Price, dollars, listed_price
from nscore.exchange import Message, Prompt, Usage
from nscore.simulators import SIMULATORS, resolve_simulator

OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com"


@pytest.mark.parametrize(
    ("url", "model", "same_as"),
    [
        (OPENAI, "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        (OPENAI, "gpt-4o-2024-11-20", "gpt-4o"),
        (OPENAI + "/", "gpt-4.1", "gpt-4.1"),
        (ANTHROPIC, "claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        (ANTHROPIC + "/v1", "claude-opus-4-5-latest", "claude-opus-4-5"),
    ],
)
def test_a_model_is_found_by_its_name_with_a_date_or_without(url, model, same_as):
    found = listed_price(url, model)
    assert found is not None
    assert found == listed_price(url, same_as)
    assert found.output > found.input > (found.cached or 0) > 0


@pytest.mark.parametrize(
    ("url", "model"),
    [
        (OPENAI, "gpt-5-pro"),  # ten times the price of gpt-5
        (OPENAI, "gpt-4o-audio-preview"),
        (OPENAI, "gpt-5.1"),
        (OPENAI, "gpt"),
        (OPENAI, "claude-haiku-4-5"),
        (ANTHROPIC, "gpt-4o"),
        ("https://openrouter.ai/api/v1", "gpt-4o"),
        ("http://localhost:8000/v1", "gpt-4o"),
        ("https://api.openai.com.example.org/v1", "gpt-4o"),
    ],
)
def test_what_the_table_does_not_know_has_no_price(url, model):
    assert listed_price(url, model) is None


def test_a_request_costs_its_tokens_and_cached_ones_less():
    price = Price(2.0, 10.0, 0.5)
    assert price.of(Usage(1_000_000, 0)) == 2
    assert price.of(Usage(0, 1_000_000)) == 10
    assert price.of(Usage(1000, 100)) == pytest.approx(0.003)
    assert price.of(Usage(1000, 100, 800)) == pytest.approx((200 * 2 + 800 * 0.5 + 100 * 10) / 1e6)
    # more cached than sent there cannot be
    assert price.of(Usage(1000, 100, 5000)) == pytest.approx((1000 * 0.5 + 100 * 10) / 1e6)
    assert Price(2.0, 10.0).of(Usage(1000, 100, 800)) == pytest.approx(0.003)
    assert Price(2.0, 10.0, 0.0).of(Usage(1000, 100, 1000)) == pytest.approx(0.001)


@pytest.mark.parametrize("usage", [Usage(), Usage(prompt_tokens=5), Usage(completion_tokens=5)])
def test_what_the_server_does_not_count_has_no_price(usage):
    assert Price(1, 1).of(usage) is None


@pytest.mark.parametrize("given", [(-1, 1), (1, math.nan), (1, math.inf), (1, 1, -0.1)])
def test_a_price_is_a_number_from_0_up(given):
    with pytest.raises(ns.NscoreError, match="price: found"):
        Price(*given)


def test_most_holds_for_the_whole_room_and_thinking():
    prompt = Prompt((Message("user", "é" * 50),), max_tokens=100)
    price = Price(1.0, 10.0)
    assert price.most(prompt) >= (100 * 1 + 100 * 10) / 1e6
    assert price.most(prompt, 4000) - price.most(prompt) == pytest.approx(4000 * 10 / 1e6)
    assert price.most(replace(prompt, max_tokens=200)) - price.most(prompt) == pytest.approx(100 * 10 / 1e6)


RECORDS = [["The", " red", " fox"], ["🦊", "日本", "\t", "\n", "", "\x00", "é", "<|end|>"], ["\x7f"] * 20]


@pytest.mark.parametrize("thinking", [None, "field", "inline"])
@pytest.mark.parametrize("name", ["all_at_once", "token_by_token", "json_list", "tab_list"])
def test_no_reply_of_a_server_costs_more_than_was_held_back_for_it(name, thinking):
    price = Price(3.0, 15.0, 0.3)
    assert name in SIMULATORS
    with serve(ignore_logprobs=False, thinking=thinking, thought="hm, " * 200) as server:
        backend = ns.OpenAI(model="tiny", base_url=server.base_url)
        can = ns.probe(backend)
        assert can.thinks is (thinking is not None)
        room = backend.thinking_tokens if can.thinks else 0
        for ask in islice(resolve_simulator(name).asks("words for colours 🎨", RECORDS, can), 11):
            call = backend.call(ask.prompt, can)
            reply = backend.read(
                httpx.post(server.base_url + call.path, content=msgspec.json.encode(call.body)).content
            )
            cost = price.of(reply.usage)
            assert cost is not None
            assert 0 < cost <= price.most(ask.prompt, room)


def test_amounts_to_read():
    assert [dollars(amount) for amount in (0, 0.00006, 0.5, 1, 12345.678)] == [
        *("$0.0000", "$0.0001", "$0.5000", "$1.00", "$12,345.68")
    ]
