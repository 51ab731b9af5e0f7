"""vLLM: logprobs of a prompt by `prompt_logprobs`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from backends.fixtures import CAN, CHAT, ECHO, HALF, PLACE, PLAIN, QUARTER, TEXT, at_unknown, content, made, raw

from nscore._sending.align import locate
from nscore.backends import VLLM, OpenAI
from nscore.exchange import Usage


def test_the_logprobs_of_a_prompt_are_asked_for_by_name():
    assert made(VLLM).call(ECHO, CAN) == (
        "/completions",
        {"model": "m", "prompt": TEXT, "max_tokens": 1, "temperature": 0.0, "echo": True, "prompt_logprobs": 3},
    )
    assert made(VLLM).call(ECHO, replace(CAN, prompt_logprobs=2)).body["prompt_logprobs"] == 2
    assert not {"echo", "prompt_logprobs"} & made(VLLM).call(ECHO, replace(CAN, prompt_logprobs=0)).body.keys()


def test_a_plain_text_and_a_chat_are_those_of_openai():
    assert made(VLLM).call(PLAIN, CAN) == made(OpenAI).call(PLAIN, CAN)
    assert made(VLLM).call(CHAT, CAN) == made(OpenAI).call(CHAT, CAN)
    assert made(VLLM).name == "vllm"


@pytest.mark.parametrize(
    ("name", "first", "usage"),
    [
        ("vllm_completions_prompt_logprobs", "", Usage(6, 1, None)),
        ("vllm_completions_prompt_logprobs_without_bos", "A", Usage(5, 1, 4)),
    ],
)
def test_the_first_token_of_which_nothing_is_told_is_found_in_the_echo(name, first, usage):
    reply = made(VLLM).read(raw(name))
    assert reply.prompt.texts[0] == first
    assert "".join(reply.prompt.texts) == TEXT
    assert at_unknown(reply) == {"0": HALF, "4": QUARTER}
    assert (reply.prompt.top(0), reply.usage, reply.tokens) == ([], usage, None)
    index = list(reply.prompt.texts).index("unknown")
    assert [(f.index, f.prefix) for f in locate(TEXT, [PLACE], reply.prompt.texts)] == [(index, "")]


def test_prompt_logprobs_of_a_chat_stand_beside_its_choices():
    reply = made(VLLM).read(raw("vllm_chat_prompt_logprobs"))
    assert at_unknown(reply) == {"0": HALF, "4": QUARTER}
    assert (reply.text, reply.finish) == ("", "length")
    index = list(reply.prompt.texts).index("unknown")
    assert [f.index for f in locate(TEXT, [PLACE], reply.prompt.texts)] == [index]


def test_an_echo_without_the_prompt_leaves_the_first_token_unknown():
    there = content("vllm_completions_prompt_logprobs_without_bos")
    there["choices"][0]["text"] = "\n"
    import msgspec

    assert made(VLLM).read(msgspec.json.encode(there)).prompt.texts[0] == ""
