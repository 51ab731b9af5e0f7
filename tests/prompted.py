"""What tests of simulators that ask a model share: tokens to draw, replies by hand and from the tests' server, a model's
own answer to what is expected at a place."""

from __future__ import annotations

import itertools
import json
import math
import urllib.request
from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st

from nscore.errors import ReplyError
from nscore.exchange import Capabilities, Reply
from nscore.records import OK, Status

WIDE = settings(max_examples=100, deadline=None)
SERVED = settings(max_examples=30, deadline=None)

ONE = Capabilities(logprobs=15, prompt_logprobs=15, structured=True, ten=1)
TWO = Capabilities(logprobs=15, prompt_logprobs=15, structured=True, ten=2)
PLAIN = Capabilities()

STATUSES = frozenset(get_args(Status))
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# Tokens that have led parsers astray: blanks, what the prompts are made of, parts of characters, other spellings.
PIECES = [
    *("", " ", "  ", "\t", "\n", "\n\n", "\t\t", "\n\t", "\r\n", "\x00", "\x0b", "\x85", "\u2028", "\u200b", "\ufeff"),
    *("<start>", "<end>", "unknown", "\tunknown\n", "\tunknown", "unknown\t7", "Neuron 4 fires on: ", "Last token: "),
    *(
        "\ufffd",
        "\ufffd\ufffd",
        "▁",
        "▁the",
        "Ġthe",
        "Ċ",
        "<0xE2>",
        "bytes:\\xe2",
        "<s>",
        "</s>",
        "<|end|>",
        "</think>",
    ),
    *("\u0301", "e\u0301", "é", "ﬁ", "日本", "—", "👍", "👩\u200d🚀", "🇩🇪", "٣", "²"),
    *(
        "10",
        "1",
        "0",
        " 7",
        "3,",
        "[0]",
        "[1, 2]",
        "-5",
        "1e5",
        "NaN",
        "null",
        "true",
        "{",
        "}]}",
        "]",
        '"',
        '"3"',
        ",",
    ),
    *("\\", "\\n", "\\t", '\\"', '"activation":5', '{"records":', "# Record 1", "# Record 2\n", "\t5", "```", "#"),
    *(" the", "cat", "The", "ing", " red", "."),
]
TOKEN = st.sampled_from(PIECES) | st.text(max_size=4)
TOKENS = st.lists(TOKEN, min_size=1, max_size=10)
# Records of one explanation, and a number for each of their tokens.
PACK = st.lists(TOKENS, min_size=1, max_size=4)


def values_for(records, top=10):
    """Draws a whole number on the scale for each token."""
    return st.tuples(*(st.lists(st.integers(0, top), min_size=len(r), max_size=len(r)) for r in records))


class Spelled:
    """Logprobs made by hand: the tokens' texts, and at some of them the probabilities of what could stand there."""

    def __init__(self, texts, chances=None, exact=None):
        self.texts, self.exact = list(texts), exact
        self._chances = chances or {}

    def top(self, index):
        return [(text, math.log(p)) for text, p in self._chances.get(index, {}).items()]


def posted(backend, prompt, can):
    """A server's reply to a prompt, read by the backend."""
    call = backend.call(prompt, can)
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(backend.url + call.path, json.dumps(call.body).encode(), headers)  # noqa: S310
    with _DIRECT.open(request, timeout=10) as reply:
        return backend.read(reply.read())


def expected_of(model, prefix, top, *, held=b"", chosen=None):
    """(value, mass, distribution) by the model's own 15 likeliest next tokens, and the one that was chosen.

    `held` is what the token that stands there has before the number. None where no number is among them.
    """
    listed = dict(model.top(prefix, 15))
    if chosen is not None:
        listed[chosen] = float(model.logprobs(prefix)[model.ids[chosen]])
    numbers = [held + str(n).encode() for n in range(top + 1)]
    chances = [math.exp(listed[n]) if n in listed else 0.0 for n in numbers]
    mass = sum(chances)
    if not mass:
        return None
    return sum(n * p for n, p in enumerate(chances)) / mass, mass, [p / mass for p in chances]


def covering(tokens, byte):
    """The index of the token that holds a byte of their joined text, and what it holds before that."""
    ends = list(itertools.accumulate(map(len, tokens)))
    index = next(i for i, end in enumerate(ends) if end > byte)
    return index, tokens[index][: byte - (ends[index] - len(tokens[index]))]


def near(found, wanted):
    return math.isclose(found, wanted, rel_tol=0, abs_tol=1e-9)


def read(simulator, ask, records, reply, can=PLAIN):
    """The predictions, which keep to what every simulator promises; the status where there are none."""
    try:
        found = simulator.read(ask, records, reply, can)
    except ReplyError as error:
        status = error.status
    else:
        status = None
    if status is not None:
        assert status in STATUSES - {OK}
        return status
    assert len(found) == len(ask.spans)
    for span, each in zip(ask.spans, found, strict=True):
        assert len(each.status) == len(each.predicted) == span.stop - span.start
        for status, value in zip(each.status, each.predicted, strict=True):
            assert status in STATUSES
            assert (value is None) == (status != OK)
            assert value is None or 0 <= value <= simulator.top(can)
        assert len(each.digit_mass) in {0, len(each.status)}
        assert all(m is None or 0 < m <= 1 for m in each.digit_mass)
        assert all(d is None or near(sum(d), 1) for d in each.distribution)
    return found


def read_text(simulator, records, text, can=PLAIN, **reply):
    """Statuses and values of each record for an answer's text to all of them in one prompt; a status for none at all."""
    (ask,) = simulator.asks("anything", records, can)
    found = read(simulator, ask, records, Reply(text, **reply), can)
    return found if isinstance(found, str) else [list(zip(p.status, p.predicted, strict=True)) for p in found]


def ok(*values):
    return [(OK, v) for v in values]
