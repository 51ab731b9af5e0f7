"""Anthropic's messages."""

from __future__ import annotations

from dataclasses import replace

import pytest
from backends.fixtures import CAN, CHAT, PLAIN, made, raw

from nscore.backends import Anthropic
from nscore.errors import BackendError, ReplyError
from nscore.exchange import Message, Prompt, Usage


def read(name):
    return made(Anthropic).read(raw(name))


def test_the_system_stands_apart_and_the_examples_are_marked_for_the_cache():
    assert made(Anthropic).call(CHAT, replace(CAN, logprobs=0), seed=5) == (
        "/v1/messages",
        {
            "model": "m",
            "system": "Rate.",
            "messages": [
                {"role": "user", "content": "a"},
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "[1]", "cache_control": {"type": "ephemeral"}}],
                },
                {"role": "user", "content": "b"},
            ],
            "max_tokens": 30,
            "temperature": 0.0,
        },
    )


def test_what_is_not_there_is_left_out():
    body = made(Anthropic).call(Prompt((Message("user", "b"),)), replace(CAN, temperature=False)).body
    assert body == {"model": "m", "messages": [{"role": "user", "content": "b"}], "max_tokens": 16}


def test_a_plain_text_is_refused_in_words():
    with pytest.raises(BackendError, match="do not go on with a plain text"):
        made(Anthropic).call(PLAIN, CAN)


def test_the_key_has_its_own_header_and_the_version_is_said():
    assert made(Anthropic).headers() == {"anthropic-version": "2023-06-01", "x-api-key": "canary-key-1234"}


@pytest.mark.parametrize("url", ["http://host", "http://host/v1", "http://host/v1/"])
def test_its_address_is_known_with_and_without_the_version(url):
    assert made(Anthropic, base_url=url).url == "http://host"


def test_a_text():
    reply = read("anthropic_text")
    assert (reply.text, reply.finish, reply.usage, reply.thought) == ("[4]", "stop", Usage(21, 5, 0), False)
    assert reply.tokens is reply.prompt is None


def test_thinking_is_not_the_answer():
    reply = read("anthropic_thinking")
    assert (reply.text, reply.thought, reply.usage.completion_tokens) == ("[4]", True, 40)


def test_a_refusal_is_refused_and_a_limit_cuts():
    assert read("anthropic_refusal").finish == "refused"
    cut = read("anthropic_max_tokens")
    assert (cut.text, cut.finish) == ("[4, 0", "length")


def test_tokens_in_are_those_read_from_and_written_to_the_cache_too():
    assert read("anthropic_cache").usage == Usage(1137, 5, 1100)


def test_an_error_with_status_200_is_worth_another_try():
    with pytest.raises(ReplyError) as caught:
        read("anthropic_error")
    assert (caught.value.status, caught.value.again) == ("http_error", True)


@pytest.mark.parametrize("content", [b"[]", b'[{"type": "tool_use", "id": "t"}]', b'[{"type": "text", "text": ""}]'])
def test_a_message_without_text_is_no_answer(content):
    with pytest.raises(ReplyError, match="holds no text") as caught:
        made(Anthropic).read(b'{"type": "message", "content": %s, "stop_reason": "end_turn"}' % content)
    assert not caught.value.again
