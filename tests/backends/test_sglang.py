"""SGLang: its own route for plain texts, OpenAI's for conversations."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from backends.fixtures import CAN, CHAT, ECHO, HALF, PLACE, PLAIN, QUARTER, TEXT, at_unknown, content, made, raw

from nscore._sending.align import locate
from nscore.backends import OpenAI, SGLang
from nscore.errors import ReplyError
from nscore.exchange import Usage


def test_a_prompt_whose_logprobs_are_wanted_goes_to_generate():
    assert made(SGLang).call(ECHO, CAN, seed=4) == (
        "/generate",
        {
            "text": TEXT,
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0, "sampling_seed": 4},
            "return_logprob": True,
            "top_logprobs_num": 3,
            "return_text_in_logprobs": True,
            "logprob_start_len": 0,
        },
    )


def test_no_more_logprobs_are_asked_for_than_the_server_gives():
    assert made(SGLang).call(ECHO, replace(CAN, prompt_logprobs=2)).body["top_logprobs_num"] == 2
    assert made(SGLang).call(PLAIN, CAN).body["top_logprobs_num"] == 5
    none = made(SGLang).call(ECHO, replace(CAN, prompt_logprobs=0)).body
    assert none == {"text": TEXT, "sampling_params": {"max_new_tokens": 1, "temperature": 0.0}}


def test_a_plain_text_gets_no_room_for_thinking():
    body = made(SGLang).call(ECHO, replace(CAN, thinks=True)).body
    assert body["sampling_params"]["max_new_tokens"] == 1


def test_conversations_go_by_openais_routes():
    path, body = made(SGLang).call(CHAT, CAN, seed=4)
    assert (path, body) == ("/v1/chat/completions", made(OpenAI).call(CHAT, CAN, seed=4).body)
    assert made(SGLang).call(CHAT, replace(CAN, chat=False)).path == "/v1/completions"


@pytest.mark.parametrize("url", ["http://host", "http://host/", "http://host/v1", "http://host/v1/"])
def test_its_address_is_known_with_and_without_the_version(url):
    assert made(SGLang, base_url=url).url == "http://host"
    assert made(SGLang, base_url=url + "?key=1").address == "http://host?key=1"


def test_generate_gives_the_logprobs_of_the_prompt_and_of_what_follows():
    reply = made(SGLang).read(raw("sglang_generate"))
    assert (reply.text, reply.finish, reply.usage) == ("\n", "length", Usage(6, 1, 2))
    assert at_unknown(reply) == {"0": HALF, "4": QUARTER}
    index = list(reply.prompt.texts).index("unknown")
    assert [f.index for f in locate(TEXT, [PLACE], reply.prompt.texts)] == [index]
    assert (list(reply.tokens.texts), reply.tokens.top(0)) == (["\n"], [("A", -0.5), ("\n", -1.5)])
    assert reply.prompt.top(0) == reply.prompt.top(99) == []


def test_a_chat_is_read_as_openais():
    reply = made(SGLang).read(raw("sglang_chat"))
    assert (reply.text, reply.tokens.top(1)) == ("[4]", [("4", HALF), ("0", QUARTER)])


@pytest.mark.parametrize("name", ["sglang_generate_abort", "sglang_error"])
def test_what_was_aborted_is_worth_another_try(name):
    with pytest.raises(ReplyError) as caught:
        made(SGLang).read(raw(name))
    assert (caught.value.status, caught.value.again) == ("http_error", True)


@pytest.mark.parametrize("wrong", [None, "3", -3, 3.5, [], 10**400, 2**63])
def test_an_answer_stands_whatever_its_counts_are(wrong):
    there = content("sglang_generate")
    there["meta_info"] |= dict.fromkeys(["prompt_tokens", "cached_tokens"], wrong)
    reply = made(SGLang).read(json.dumps(there).encode())
    assert (reply.text, reply.usage) == ("\n", Usage(None, 1, None))


def test_tokens_without_alternatives_are_no_logprobs():
    there = content("sglang_generate")
    there["meta_info"] |= {"input_top_logprobs": [], "output_token_logprobs": None}
    reply = made(SGLang).read(json.dumps(there).encode())
    assert reply.prompt is reply.tokens is None


@pytest.mark.parametrize("change", [lambda tops: tops[1:], lambda tops: [None, *tops]], ids=["fewer", "more"])
def test_alternatives_of_more_or_fewer_tokens_are_no_logprobs(change):
    there = content("sglang_generate")
    there["meta_info"]["input_top_logprobs"] = change(there["meta_info"]["input_top_logprobs"])
    reply = made(SGLang).read(json.dumps(there).encode())
    assert reply.prompt is None
    assert reply.tokens is not None
