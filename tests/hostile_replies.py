"""A true reply for each backend and simulator, and what must hold of whatever comes in its stead.

No true answer is 0, so that a 0 which no reply holds is one that somebody filled in.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import get_args

from nscore._running.reading import parsed
from nscore._running.shards import Group, Questions, Request
from nscore._sending.history import Past
from nscore._sending.keep import needed
from nscore._sending.prices import Price
from nscore.backends import VLLM, Anthropic, Backend, OpenAI, SGLang
from nscore.errors import ReplyError
from nscore.exchange import Capabilities
from nscore.records import OK, Status
from nscore.simulators import AllAtOnce, Ask, JsonList, PromptSimulator, TabList, TokenByToken

CAN = Capabilities(logprobs=5, prompt_logprobs=5, aligned=True, structured=True, ten=1)
RECORDS = [["The", " cat", "\t", " 10", "日", "</think>"], [" a", "b\n"]]
VALUES = [[3, 7, 10, 1, 5, 4], [2, 9]]
LISTS = [JsonList(pack=2), JsonList(pack=2, numbers_alone=True), TabList(pack=2)]
NAMES = {JsonList: "json", TabList: "tab", TokenByToken: "token", AllAtOnce: "echo"}
STATUSES = frozenset(get_args(Status))
_TOKEN = re.compile(r"[0-9]+|[^\W\d]+|.", re.DOTALL)
# A number that is 0, somewhere in a reply.
_ZERO = re.compile(rb"0(?<![0-9.]0)0*(?:\.0*)?(?:[eE][+-]?[0-9]+)?(?![0-9.])")


@dataclass(frozen=True)
class Channel:
    """One backend, one simulator, one form of reply."""

    name: str
    backend: Backend
    simulator: PromptSimulator
    # the reply that says a text, its tokens given or not, for a reason to end
    reply: Callable[[str, list[str], str], object]
    text: str
    can: Capabilities = CAN
    ask: Ask = field(init=False)
    request: Request = field(init=False)
    raw: bytes = field(init=False)
    zeros: int = field(init=False)

    def __post_init__(self):
        ask = next(iter(self.simulator.asks("cats", RECORDS, self.can)))
        group = Group(self.simulator, "cats", RECORDS, [0, len(RECORDS[0])], {}, [0, 1])
        rows = tuple((0, s.stop - s.start) for s in ask.spans)
        for name, value in {
            "ask": ask,
            "request": Request(b"", ask, "", b"", group, rows, 0),
            "text": self.text or ask.prompt.text,
        }.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "raw", self.told(self.text))
        object.__setattr__(self, "zeros", len(_ZERO.findall(self.raw)))  # of an echo's examples

    @property
    def echoes(self):
        """Whether the prompt itself is what is looked at."""
        return isinstance(self.simulator, AllAtOnce)

    def told(self, text, tokens=None, finish="stop"):
        """The bytes of the reply that says a text."""
        content = self.reply(text, tokens_of(text) if tokens is None else tokens, finish)
        return json.dumps(content).encode()

    def settled(self, raw):
        """What becomes of a reply in a run."""
        past = Past(attempts=1, raw=raw, latency_s=0.1, at="2026-01-01T00:00:00Z", price=0.5)
        questions = Questions(["neuron"], [self.simulator], self.backend, self.can)
        return parsed(self.backend, questions, self.request, past, Price(1.0, 2.0))


# True replies.


def tokens_of(text):
    """A text cut into tokens: words, numbers, signs; a very long one into as many as a model might write."""
    if len(text) < 20_000:
        return _TOKEN.findall(text)
    return [text[at : at + len(text) // 5000] for at in range(0, len(text), len(text) // 5000)]


def likely(token):
    """What could have stood at a token: where it is a number, another one too; of an echo's examples only that."""
    if re.fullmatch("[1-9][0-9]{0,3}", token):
        return [(token, -0.4), *{"7": -1.2, "5": -1.9}.items(), ("six", -3.5)]
    return [(token, -0.1), *((("6", -0.5), ("8", -1.5), (" no", -3.5)) if token.strip() == "unknown" else ())]


def chat_logprobs(tokens):
    return {
        "content": [
            {
                "token": t,
                "logprob": -0.4,
                "bytes": [*t.encode("utf-8", "surrogatepass")],
                "top_logprobs": [{"token": text, "logprob": p} for text, p in likely(t)],
            }
            for t in tokens
        ]
    }


def text_logprobs(tokens, first=()):
    tops = [dict(likely(t)) for t in tokens]
    return {"tokens": [*first, *tokens], "top_logprobs": [*([None] * len(first)), *tops], "text_offset": [1, 2]}


USED = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}


def chat(text, tokens, finish):
    message = {"role": "assistant", "content": text, "refusal": None, "tool_calls": None}
    return {
        "choices": [{"message": message, "finish_reason": finish, "logprobs": chat_logprobs(tokens)}],
        "usage": USED,
        "error": None,
    }


def chat_alone(text, tokens, finish):
    del tokens
    return {"choices": [{"message": {"content": text, "reasoning": "so"}, "finish_reason": finish}], "usage": USED}


def chat_as_text(text, tokens, finish):
    choice = {"message": {"content": text}, "finish_reason": finish, "logprobs": text_logprobs(tokens)}
    return {"choices": [choice], "usage": USED}


def completion(text, tokens, finish):
    return {"choices": [{"text": text, "finish_reason": finish, "logprobs": text_logprobs(tokens)}], "usage": USED}


def echo(text, tokens, finish):
    return completion(text + "7", ["<s>", *tokens, "7"], finish)


def together(text, tokens, finish):
    return completion("7", ["7"], finish) | {"prompt": [{"text": text, "logprobs": text_logprobs(tokens, ["<s>"])}]}


def table(token):
    return {str(i): {"logprob": p, "rank": i, "decoded_token": t} for i, (t, p) in enumerate(likely(token), 5)}


def vllm_echo(text, tokens, finish):
    choice = {"text": text + "7", "finish_reason": finish, "prompt_logprobs": [None, *map(table, tokens[1:])]}
    return {"choices": [choice], "usage": USED}


def vllm_chat(text, tokens, finish):
    return chat_alone("7", [], finish) | {"prompt_logprobs": [None, *map(table, ["<s>", *tokens])]} | {"text": text}


def sglang_echo(text, tokens, finish):
    del text
    meta = {
        "finish_reason": {"type": finish, "message": None},
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "cached_tokens": 4,
        "input_token_logprobs": [[None, 5, "<s>"], *([-0.4, 6, t] for t in tokens)],
        "input_top_logprobs": [None, *([[p, 7, text] for text, p in likely(t)] for t in tokens)],
        "output_token_logprobs": [[-0.4, 8, "7"]],
        "output_top_logprobs": [[[-0.4, 8, "7"]]],
    }
    return {"text": "7", "meta_info": meta}


def blocks(text, tokens, finish):
    del tokens
    usage = {"input_tokens": 12, "output_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}
    stop = "max_tokens" if finish == "length" else "end_turn"
    content = [{"type": "thinking", "thinking": "so"}, {"type": "text", "text": text}]
    return {"type": "message", "content": content, "stop_reason": stop, "usage": usage}


def _channels():
    openai, vllm, sglang, anthropic = (
        kind("m", base_url="http://host/v1", api_key="canary-key") for kind in (OpenAI, VLLM, SGLang, Anthropic)
    )
    texts, blind = replace(CAN, chat=False), replace(CAN, logprobs=0)
    for simulator in [*LISTS, TokenByToken()]:
        text = "7" if isinstance(simulator, TokenByToken) else simulator.answer(RECORDS, VALUES)
        name = NAMES[type(simulator)] + "_alone" * getattr(simulator, "numbers_alone", False)
        yield Channel(f"openai-{name}", openai, simulator, chat, text)
        yield Channel(f"openai-as-text-{name}", openai, simulator, chat_as_text, text)
        yield Channel(f"openai-completions-{name}", openai, simulator, completion, text, texts)
        yield Channel(f"vllm-{name}", vllm, simulator, chat, text)
        yield Channel(f"sglang-{name}", sglang, simulator, chat, text)
        if simulator in LISTS:
            yield Channel(f"openai-blind-{name}", openai, simulator, chat_alone, text, blind)
            yield Channel(f"anthropic-{name}", anthropic, simulator, blocks, text, blind)
    forms = {"echo": echo, "together": together, "vllm-echo": vllm_echo, "vllm-chat": vllm_chat, "sglang": sglang_echo}
    for name, form in forms.items():
        backend = sglang if form is sglang_echo else vllm if name.startswith("vllm") else openai
        yield Channel(f"{name}-all_at_once", backend, AllAtOnce(), form, "")


CHANNELS = list(_channels())


# What must hold.


def bear(channel, raw):
    """All that is done with a reply: it ends as predictions or a status, the same when it was cut down.

    Returns what became of it, and whether no 0 was written that could be one of its predictions.
    """
    settled = channel.settled(raw)
    without_zeros = len(_ZERO.findall(raw)) <= channel.zeros
    _keeps_its_word(channel, settled, without_zeros=without_zeros)
    try:
        kept = needed(channel.backend.read(raw), channel.ask.prompt)
    except ReplyError:  # a run then keeps the bytes as they are
        return settled, without_zeros
    again = channel.settled(kept)
    assert (again.predictions, again.fared.status, again.fared.usage, again.again, again.cost) == (
        settled.predictions,
        settled.fared.status,
        settled.fared.usage,
        settled.again,
        settled.cost,
    )
    return settled, without_zeros


def _keeps_its_word(channel, settled, *, without_zeros):
    fared = settled.fared
    assert fared.status in STATUSES
    usage = (fared.usage.prompt_tokens, fared.usage.completion_tokens, fared.usage.cached_tokens)
    assert all(n is None or 0 <= n < 2**42 for n in usage)
    assert settled.cost is None or 0 <= settled.cost < math.inf
    if settled.predictions is None:
        assert fared.status != OK
        assert 0 < len(fared.error.encode()) < 2500
        return
    assert len(settled.predictions) == len(channel.ask.spans)
    for span, told in zip(channel.ask.spans, settled.predictions, strict=True):
        size = span.stop - span.start
        assert len(told.status) == len(told.predicted) == size
        assert len(told.digit_mass) == len(told.distribution)
        assert len(told.digit_mass) in {0, size}
        assert set(told.status) <= STATUSES
        for status, value in zip(told.status, told.predicted, strict=True):
            assert (value is None) == (status != OK)
            assert value is None or (type(value) is float and 0 <= value <= 10)
            assert value != 0 or not without_zeros
        for mass, chances in zip(told.digit_mass, told.distribution, strict=True):
            assert mass is None or 0 < mass <= 1
            assert chances is None or len(chances) == channel.simulator.top(channel.can) + 1
            assert chances is None or math.isclose(math.fsum(chances), 1)
