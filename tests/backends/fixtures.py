"""Replies of each kind of server, and what tests of their parsers share."""

from __future__ import annotations

import json
import math
from pathlib import Path

from nscore.backends import VLLM, Anthropic, OpenAI, SGLang
from nscore.exchange import Capabilities, Message, Prompt

REPLIES = Path(__file__).with_name("replies")
NAMES = sorted(path.stem for path in REPLIES.glob("*.json"))
# What was echoed in the fixtures; at `unknown` half of the probability is on 0 and a quarter on 4.
TEXT = "A cat\tunknown\n"
PLACE = TEXT.index("unknown")
ECHO = Prompt((Message("user", TEXT),), form="text", max_tokens=1, prompt_logprobs=3, places=(PLACE,))
CHAT = Prompt(
    (Message("system", "Rate."), Message("user", "a"), Message("assistant", "[1]"), Message("user", "b")),
    max_tokens=30,
    logprobs=7,
    schema={"type": "object"},
)
PLAIN = Prompt((Message("user", TEXT),), form="text", max_tokens=2, logprobs=7)
CAN = Capabilities(logprobs=5, prompt_logprobs=5, aligned=True, structured=True, ten=1)
HALF, QUARTER = math.log(0.5), math.log(0.25)


def raw(name):
    return REPLIES.joinpath(f"{name}.json").read_bytes()


def content(name):
    return json.loads(raw(name))


def made(kind, **options):
    return kind("m", **{"base_url": "http://host:8000/v1", "api_key": "canary-key-1234"} | options)


def all_made():
    return [made(kind) for kind in (OpenAI, VLLM, SGLang, Anthropic)]


def at_unknown(reply):
    """The alternatives at the token `unknown` of an echoed prompt."""
    index = list(reply.prompt.texts).index("unknown")
    return {text: logprob for text, logprob in reply.prompt.top(index) if text in {"0", "4"}}
