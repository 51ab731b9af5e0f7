"""Hostile replies: whatever a server sends is read, or is a `ReplyError`; nothing that is not finite comes of it."""

from __future__ import annotations

import json
import math
import random

import msgspec
import pytest
from backends.fixtures import NAMES, all_made, content, raw
from hypothesis import given, settings
from hypothesis import strategies as st

from nscore._sending.keep import needed, restored
from nscore.backends._decode import Tops, decode, without_thinking
from nscore.errors import ReplyError
from nscore.exchange import Capabilities, Reply
from nscore.simulators import AllAtOnce, JsonList, TabList, TokenByToken

BACKENDS = all_made()
ANYTHING = msgspec.json.Decoder(object)
CAN = Capabilities(logprobs=5, prompt_logprobs=5, aligned=True, structured=True, ten=1)
RECORDS = [[" cat", "\t", "</think>"], ["a"]]
ASKED = [
    (simulator, next(iter(simulator.asks("cats", RECORDS, CAN))))
    for simulator in (AllAtOnce(), JsonList(), JsonList(pack=2, numbers_alone=True), TabList(pack=2), TokenByToken())
]
SOME = settings(max_examples=150, deadline=None)


def bear(sent):
    """Everything that is done with a reply: it ends in finite predictions, or in a `ReplyError`."""
    for backend in BACKENDS:
        reply = unless_refused(backend.read, sent)
        if reply is None:
            continue
        reply.text.encode()
        for simulator, ask in ASKED:
            told = outcome(simulator, ask, reply)
            kept = unless_refused(needed, reply, ask.prompt)  # where it is refused, the raw reply is kept
            assert kept is None or outcome(simulator, ask, restored(kept)) == told


def unless_refused(act, *args):
    try:
        return act(*args)
    except ReplyError as error:
        refusal = error
    assert refusal.status in {"parse_error", "http_error"}
    assert len(str(refusal)) < 1000
    return None


def outcome(simulator, ask, reply):
    try:
        predictions = simulator.read(ask, RECORDS, reply, CAN)
    except ReplyError as error:
        return error.status
    assert [len(p.predicted) for p in predictions] == [s.stop - s.start for s in ask.spans]
    for part in predictions:
        numbers = [*part.predicted, *part.digit_mass, *(x for d in part.distribution for x in d or [])]
        assert all(n is None or math.isfinite(n) for n in numbers)
        assert all(v is None or 0 <= v <= 10 for v in part.predicted)
        assert all((s == "ok") == (v is not None) for s, v in zip(part.status, part.predicted, strict=True)) or (
            "parse_error" in part.status
        )
    return predictions


# A corpus.

DEEP = 100_000
LONG = b"9" * 5000
CHAT = b'{"choices": [{"message": {"content": "[4]"}, "finish_reason": "stop"%s}]%s}'
LOGPROB = (
    b', "logprobs": {"content": [{"token": "[4]", "logprob": %s, "top_logprobs": [{"token": "4", "logprob": %s}]}]}'
)
ECHOED = (
    b'{"choices": [{"text": "", "logprobs": {"tokens": ["a", "4"], "token_logprobs": [null, %s], '
    b'"top_logprobs": [null, {"4": %s}]}}]}'
)
HOSTILE = {
    "empty": b"",
    "blank": b" \n\t",
    "null": b"null",
    "number": b"4",
    "nan": b"NaN",
    "bom": b"\xef\xbb\xbf" + CHAT % (b"", b""),
    "utf-16": (CHAT % (b"", b"")).decode().encode("utf-16"),
    "invalid utf-8": CHAT.replace(b"[4]", b"\xff[4]\xfe\xc3") % (b"", b""),
    "lone surrogate": CHAT.replace(b"[4]", rb"\ud800[4]\udfff") % (b"", b""),
    "surrogate in a token": CHAT % (LOGPROB.replace(b"[4]", rb"\udc80[4]") % (b"-1", b"-1"), b""),
    "nul": CHAT.replace(b"[4]", rb"\u0000[4]") % (b"", b""),
    "html": b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>",
    "event stream": b'data: {"choices": []}\n\ndata: [DONE]\n\n',
    "two replies": CHAT % (b"", b"") + CHAT % (b"", b""),
    "lists": b"[" * DEEP + b"]" * DEEP,
    "open lists": b"[" * DEEP,
    "objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "lists in what is skipped": CHAT % (b"", b', "x": ' + b"[" * DEEP + b"]" * DEEP),
    "lists in an error": CHAT % (b', "error": ' + b"[" * DEEP + b"]" * DEEP, b""),
    "lists in the content": CHAT.replace(b"[4]", b"[" * DEEP) % (b"", b""),
    "objects in the content": CHAT.replace(b"[4]", b'{\\"a\\":' * DEEP) % (b"", b""),
    "lists and NaN": CHAT % (b"", b', "n": NaN, "x": ' + b"[" * DEEP + b"]" * DEEP),
    "nested tops": ECHOED % (b"-1", b'-1, "x": ' + b"[" * DEEP + b"]" * DEEP),
    "long number": CHAT % (b"", b', "usage": {"prompt_tokens": ' + LONG + b"}"),
    "long number in the content": CHAT.replace(b"[4]", b"[" + LONG + b"]") % (b"", b""),
    "long fraction in the content": CHAT.replace(b"[4]", b"[0." + LONG + b"]") % (b"", b""),
    "huge exponent in the content": CHAT.replace(b"[4]", b"[1e999999999, 4e0, 1E-400]") % (b"", b""),
    "nan in the content": CHAT.replace(b"[4]", b"[NaN, -Infinity, Infinity]") % (b"", b""),
    "tabs and long numbers": CHAT.replace(
        b"[4]", b"# Record 1\\n cat\\t" + LONG + b"\\n\\\\t\\t1e999\\n# Record 2\\na\\tNaN"
    )
    % (b"", b""),
    "duplicate keys": b'{"choices": [], "choices": [{"message": {"content": "a"}, "message": {"content": "[4]"}}]}',
    "duplicate records": CHAT.replace(
        b"[4]", json.dumps(json.dumps({"records": [{"record": 1, "activations": [1, 2, 3]}] * 2})).encode()[1:-1]
    )
    % (b"", b""),
    "long text": CHAT.replace(b"[4]", b"a" * 3_000_000) % (b"", b""),
    "many brackets": CHAT.replace(b"[4]", b"[{" * 20_000) % (b"", b""),
    "many quotes": CHAT.replace(b"[4]", rb"\"[\"" * 20_000) % (b"", b""),
    "many thoughts": CHAT.replace(b"[4]", b"<think></think>" * 20_000) % (b"", b""),
    "many choices": b'{"choices": [' + b"{}," * 20_000 + b"{}]}",
    "bytes that are none": CHAT % (b', "logprobs": {"content": [{"token": "4", "bytes": [999, -1, 4]}]}', b""),
    "no tokens": CHAT % (b', "logprobs": {"content": []}', b""),
    "nulls": b'{"choices": [{"message": {"content": null}, "text": null, "finish_reason": null, "logprobs": null}]}',
    "null message": b'{"choices": [{"message": null, "text": null}], "usage": null, "error": null}',
    "null tokens": b'{"choices": [{"text": "", "logprobs": {"tokens": [null, null], "top_logprobs": [null, null]}}]}',
    "fewer tops": b'{"choices": [{"text": "", "logprobs": {"tokens": ["a", "b"], "top_logprobs": []}}]}',
    "more tops": b'{"choices": [{"text": "", "logprobs": {"tokens": ["a"], "top_logprobs": [{}, {"4": 1}]}}]}',
    "wrong tops": ECHOED % (b"-1", b'"x"'),
    "null prompt logprobs": b'{"choices": [{"text": "", "prompt_logprobs": [null, null, {"1": {}}, {}]}]}',
    "no prompt logprobs": b'{"choices": [{"text": "", "prompt_logprobs": []}]}',
    "prompt of another kind": b'{"choices": [{"text": "a"}], "prompt": "a"}',
    "null content": b'{"type": "message", "content": null}',
    "null blocks": b'{"type": "message", "content": [{"type": "text", "text": null}]}',
    "null meta": b'{"text": null, "meta_info": {"finish_reason": null, "input_token_logprobs": null}}',
    "null triples": b'{"text": "", "meta_info": {"input_token_logprobs": [[null, null, null]], "input_top_logprobs": [null]}}',
    "short triples": b'{"text": "", "meta_info": {"input_token_logprobs": [[1]], "input_top_logprobs": [[1]]}}',
}
for _value in (b"NaN", b"Infinity", b"-Infinity", b"null", b"1e999", b"-1e999", LONG, b'"-1"', b"[]", b"true", b"900"):
    HOSTILE[f"logprob {_value[:9].decode()}"] = CHAT % (LOGPROB % (_value, _value), b"")
    HOSTILE[f"echoed {_value[:9].decode()}"] = ECHOED % (_value, _value)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_is_read_or_refused(name):
    bear(HOSTILE[name])


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"null"])
def test_a_logprob_that_is_none_is_left_out_and_the_answer_stands(value):
    reply = BACKENDS[0].read(CHAT % (LOGPROB % (value, value), b""))
    assert (reply.text, reply.tokens.top(0)) == ("[4]", [])


def test_what_strict_json_forbids_leaves_the_rest_as_it_was():
    text = '{"a": "😀 \\ud83d\\ude00 \\ud800 \\\\ud800 é", "n": NaN, "i": 12345678901234567890123}'
    assert decode(ANYTHING, text.encode()) == {"a": "😀 😀 \ufffd \\ud800 é", "n": None, "i": None}
    assert decode(ANYTHING, b"\xef\xbb\xbf[1]") == [1]
    assert decode(ANYTHING, b'["\xff"]') == ["\ufffd"]


@pytest.mark.parametrize(
    ("sent", "again"), [(b"[" * DEEP + b"]" * DEEP, False), (b'{"a": ', True), (b"", True), (b"<html>", True)]
)
def test_only_half_a_reply_is_asked_for_again(sent, again):
    with pytest.raises(ReplyError) as caught:
        decode(ANYTHING, sent)
    assert caught.value.again is again


def test_alternatives_are_decoded_only_where_they_are_asked_for():
    tops = Tops(
        ["a", "b", "c"], [msgspec.Raw(b"{}"), msgspec.Raw(b"[oh"), msgspec.Raw(b'{"x": -1, "y": NaN}')], ANYTHING
    )
    assert (tops.top(0), tops.top(2), tops.top(3)) == ([], [("x", -1)], [])
    with pytest.raises(ReplyError):
        tops.top(1)


# Thinking.


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("7", "7", False),
        ("", "", False),
        ("<think>red</think>7", "7", True),
        ("\n <think>\nred [1]\n</think>\n\n[7]", "\n\n[7]", True),
        ("so it is red\n</think>\n7", "\n7", True),
        ("<think>red, so", "", True),
        ("<think></think>", "", True),
        # tokens that the answer repeats
        ('[{"token":"</think>","activation":3}]', '[{"token":"</think>","activation":3}]', False),
        ('<think>a</think>[{"token":"</think>","activation":3}]', '[{"token":"</think>","activation":3}]', True),
        ("# Record 1\na\t1\n</think>\t3", "# Record 1\na\t1\n</think>\t3", False),
        ("a\t1\n</think>\t3\n<think>\t4", "a\t1\n</think>\t3\n<think>\t4", False),
        ("```json\n[1]\n```</think>", "```json\n[1]\n```</think>", False),
    ],
)
def test_an_answer_is_what_stands_behind_the_thinking(text, answer, thought):
    assert without_thinking(text) == (answer, thought)


# Fuzzing.

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.floats(),
    st.sampled_from(["", "4", "[4]", "\ud800", "unknown", "stop", "length", "</think>", "\x00", "😀"]),
    st.text(max_size=8),
)
KEYS = st.sampled_from(
    [
        "choices",
        "message",
        "content",
        "text",
        "logprobs",
        "tokens",
        "top_logprobs",
        "prompt_logprobs",
        "meta_info",
        "type",
        "usage",
        "error",
        "prompt",
        "refusal",
        "finish_reason",
        "token",
        "logprob",
        "bytes",
        "decoded_token",
        "input_token_logprobs",
        "input_top_logprobs",
        "output_token_logprobs",
        "output_top_logprobs",
        "reasoning",
        "stop_reason",
    ]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=25
)


@SOME
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_json_is_read_or_refused(value):
    bear(json.dumps(value).encode())


@SOME
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(sent):
    bear(sent)


@SOME
@given(st.sampled_from(NAMES), st.integers(0, 2**32), st.lists(VALUES, min_size=1, max_size=3))
def test_a_reply_with_parts_replaced_or_left_out_is_read_or_refused(name, seed, values):
    rng, mutated = random.Random(seed), content(name)
    for value in values:
        where, key = rng.choice(list(nodes(mutated)))
        if rng.random() < 0.3:
            del where[key]
        else:
            where[key] = value
        if not mutated:
            break
    bear(json.dumps(mutated).encode())


@SOME
@given(st.sampled_from(NAMES), st.data())
def test_a_reply_cut_or_flipped_is_read_or_refused(name, data):
    whole = bytearray(raw(name))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    bear(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


def nodes(value):
    """Where in a JSON value something can be replaced."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from nodes(inner)


# Answers of hostile models, in a reply that is well made.


@SOME
@given(st.recursive(SCALARS, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=3), x, max_size=3)))
def test_any_answer_is_read_or_refused(value):
    answer_borne(json.dumps(value))


@SOME
@given(
    st.lists(
        st.sampled_from(["# Record 1", "# Record 2", "# Record 99", " cat", "\t", "\n", "4", "10", "1e9", "NaN", "-1"])
        | st.sampled_from(
            [
                '{"records":',
                '[{"record":1,"activations":',
                "[",
                "]",
                "}",
                ",",
                '"',
                "\\",
                "```",
                "\N{FULLWIDTH DIGIT NINE}",
                "\N{ARABIC-INDIC DIGIT THREE}",
            ]
        ),
        max_size=30,
    )
)
def test_any_pieces_of_answers_are_read_or_refused(pieces):
    answer_borne("".join(pieces))


def answer_borne(text):
    reply = Reply(text.encode("utf-8", "replace").decode())
    for simulator, ask in ASKED:
        outcome(simulator, ask, reply)
