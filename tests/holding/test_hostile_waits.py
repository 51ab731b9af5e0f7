"""Replies made to take long: none takes more than its size is worth, whatever was made of its text and its tokens."""

from __future__ import annotations

import json
import time

import pytest
from hostile_replies import CHANNELS, bear

CHANNEL = {c.name: c for c in CHANNELS}
# Of an ordinary reply's size a hundred times; what takes time by the square of it took minutes at that, and more.
SIZE, FULL_SIZE = 300_000, 10_000_000
SECONDS, FULL_SECONDS = 6, 120


def lists(text, tokens=(), form="json_alone"):
    return CHANNEL[f"openai-as-text-{form}"], text, list(tokens)


def blind(text, form="json_alone"):
    return CHANNEL[f"openai-blind-{form}"], text, []


def number(text, tokens):
    return CHANNEL["openai-as-text-token"], text, list(tokens)


def echo(tokens):
    return CHANNEL["echo-all_at_once"], "", list(tokens)


FIT = '{"records":[{"record":1,"activations":[3,7,10,1,5,4]}]}'
WAITS = {
    "a line of tabs": lambda n: blind("\t" * n, "tab"),
    "a line of tabs behind a number": lambda n: blind("a\t7" + "\t" * n + "x", "tab"),
    "a line of blanks": lambda n: blind("a\t" + " " * n + "x", "tab"),
    "lines": lambda n: blind("a\t7\n" * (n // 4), "tab"),
    "records": lambda n: blind("# Record 1\n" * (n // 11), "tab"),
    "empty lists": lambda n: blind("[]" * (n // 2)),
    "empty lists and tokens": lambda n: lists("[]" * (n // 2), ["[", "]"]),
    "open lists of numbers": lambda n: blind("[" * 20 + "7," * (n // 2)),
    "open lists of numbers and tokens": lambda n: lists("[" * 20 + "7," * (n // 2), ["["]),
    "a list": lambda n: blind("[" + "7," * (n // 2) + "7]"),
    "a list as one token": lambda n: lists("[" + "7," * (n // 2) + "7]", ["[" + "7," * (n // 2) + "7]"]),
    "a list in tokens": lambda n: lists("[" + "7," * (n // 99) + "7]", ["[", *["7", ","] * (n // 99), "7", "]"]),
    "an answer behind a long token": lambda n: lists("▁" * n + FIT, ["▁" * n + FIT]),
    "an answer behind a long token, spelled otherwise": lambda n: lists(" " * n + FIT, ["▁" * n + FIT]),
    "a token of escapes": lambda n: lists('[{"token":"' + "\\n" * (n // 2) + '","activation":7}]', ["a"], "json"),
    "an open token of quotes": lambda n: lists('[7,"' + '\\"' * (n // 2), ["a"], "json"),
    "open braces": lambda n: blind("{ " * (n // 2)),
    "open strings": lambda n: blind('["' * (n // 2)),
    "answers": lambda n: blind(FIT * (n // len(FIT))),
    "thoughts": lambda n: blind("<think></think>" * (n // 15)),
    "fences": lambda n: blind("```" * (n // 3)),
    "a text of one letter": lambda n: number("a" * n + "7", ["a" * n, "▁7"]),
    "a text and more of one letter": lambda n: number("a" * (n // 2) + "7 x", ["a" * n, "▁7"]),
    "a text that comes nearly again": lambda n: number(
        "a" * (n // 4) + "b" + "a" * (n // 4) + "7", ["a" * (n // 2)] * 2
    ),
    "tokens without text": lambda n: number("7 x", [*[""] * (n // 40), "▁7", "y"]),
    "parts of characters": lambda n: number("7" + "\ufffd" * (n // 6) + " x", ["▁7" + "\ufffd" * (n // 3), "x"]),
    "a token of spaces": lambda n: number("7 x", ["▁7", "▁" * (n // 3)]),
    "an echo without text": lambda n: echo([""] * (n // 40)),
    "an echo of parts": lambda n: echo(["\ufffd"] * (n // 40)),
    "an echo of long parts": lambda n: echo(["\ufffd" * (n // 30)] * 5),
    "an echo of spaces": lambda n: echo(["▁"] * (n // 40)),
    "an echo of escapes": lambda n: echo(["<0x20>"] * (n // 40)),
    "an echo of beginnings": lambda n: echo([CHANNEL["echo-all_at_once"].text[:100]] * (n // 120)),
}


def borne(name, size):
    """The processor's seconds that a reply of about a size takes, and its bytes."""
    channel, text, tokens = WAITS[name](size)
    raw = channel.told(text, tokens)
    begun = time.process_time()
    bear(channel, raw)
    return time.process_time() - begun, len(raw)


@pytest.mark.parametrize("name", WAITS)
def test_a_long_reply_is_read_at_once(name):
    seconds, _ = borne(name, SIZE)
    assert seconds < SECONDS


def test_megabytes_in_what_is_not_read_are_passed_over():
    channel = CHANNEL["openai-json"]
    raw = channel.raw[:-1] + b', "more": ' + json.dumps(["x" * 100] * 100_000).encode() + b"}"
    begun = time.process_time()
    assert bear(channel, raw)[0].fared.status == "ok"
    assert time.process_time() - begun < SECONDS


@pytest.mark.full
@pytest.mark.parametrize("name", WAITS)
def test_a_reply_of_ten_megabytes_takes_no_minutes(name, capsys):
    seconds, size = borne(name, FULL_SIZE)
    with capsys.disabled():
        print(f"\n{name}: {size / 1e6:.1f} MB in {seconds:.1f} s")
    assert seconds < FULL_SECONDS
