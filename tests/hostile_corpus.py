"""Replies of model servers gone wrong: a corpus of them, made from a true one, and random changes of it."""

# ruff: noqa: RUF001 -- digits that are none are among them

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator

from hostile_replies import RECORDS, VALUES, tokens_of

from nscore._sending.keep import needed
from nscore.exchange import Prompt, Reply
from nscore.simulators import JsonList, TokenByToken

MARK = needed(Reply("x"), Prompt(())).partition(b"{")[0]
DEEP = 100_000
LONG = "9" * 5000


# Hostile bytes.

KEPT = {
    "text": "7",
    "finish": "stop",
    "usage": {"prompt_tokens": 12, "completion_tokens": 3, "cached_tokens": None},
    "thought": False,
    "tokens": {"texts": ["7"], "exact": None, "tops": {"0": [["7", -0.1]]}},
    "prompt": {"texts": ["7"], "exact": None, "tops": {"0": [["7", -0.1]]}},
}


def hostile_bytes(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """What a socket, a proxy, another format make of a reply."""
    middle, text = len(raw) // 2, raw.decode()
    yield from {
        "nothing": b"",
        "blanks": b" \r\n\t",
        "byte order mark": b"\xef\xbb\xbf" + raw,
        "utf-16": text.encode("utf-16"),
        "utf-16 without mark": text.encode("utf-16-be"),
        "utf-32": text.encode("utf-32"),
        "gzip": gzip.compress(raw),
        "deflate": zlib.compress(raw),
        "html": b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>",
        "html before": b"<html></html>" + raw,
        "event stream": b"data: " + raw + b"\n\ndata: [DONE]\n\n",
        "event stream in pieces": b'data: {"choices":[{"delta":{"content":"7"}}]}\n\n' * 9 + b"data: [DONE]\n\n",
        "an event": b"event: message\nid: 1\ndata: " + raw,
        "twice": raw + raw,
        "twice, in lines": raw + b"\n" + raw,
        "garbage behind": raw + b"\x00garbage",
        "nul before": b"\x00" + raw,
        "nul in the middle": raw[:middle] + b"\x00" + raw[middle:],
        "nuls for all": b"\x00" * len(raw),
        "guarded": b")]}',\n" + raw,
        "chunked": b"%x\r\n" % len(raw) + raw + b"\r\n0\r\n\r\n",
        "in a list": b"[" + raw + b"]",
        "in a string": json.dumps(text).encode(),
        "in an object": b'{"data": ' + raw + b"}",
        "comment": raw[:-1] + b"/* so */}",
        "comma": raw[:-1] + b",}",
        "single quotes": raw.replace(b'"', b"'"),
        "no quotes": raw.replace(b'"', b""),
        "null": b"null",
        "true": b"true",
        "number": b"7",
        "NaN": b"NaN",
        "string": b'"ok"',
        "list": b"[]",
        "object": b"{}",
        "error": b'{"error": {"message": "overloaded canary-key", "code": 500}}',
        "error as text": b'{"error": "overloaded"}',
        "error of anthropic": b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}',
        "error beside": raw[:-1] + b', "error": {"message": "late"}}',
        "detail": b'{"detail": [{"loc": ["body"], "msg": "bad"}]}',
        "object of an error": b'{"object": "error", "message": "canary-key", "code": 40303}',
        "a key of the mark": MARK,
        "mark before": MARK + raw,
        "mark and nothing": MARK + b"{}",
        "mark and bad text": MARK + b'{"text": "\xff"}',
        "mark and NaN": MARK + json.dumps(KEPT | {"text": math.nan}).encode(),
        "mark and depth": MARK + b"[" * DEEP,
        "marked": MARK + json.dumps(KEPT).encode(),
        "open lists": b"[" * DEEP,
        "lists": b"[" * DEEP + b"]" * DEEP,
        "open objects": b'{"choices":' * DEEP,
        "objects": b'{"a":' * DEEP + b"7" + b"}" * DEEP,
        "key of 1 MB": raw[:-1] + b', "' + b"k" * 1_000_000 + b'": 7}',
        "many keys": raw[:-1] + b"".join(b', "k%d": 7' % i for i in range(1, 2000)) + b"}",
        "blanks around": b" " * 100_000 + raw + b"\n" * 100_000,
    }.items()
    for n, usage in enumerate(
        [{"prompt_tokens": -5}, {"prompt_tokens": 10**30, "completion_tokens": 10**30}, {"cached_tokens": 2**63}]
    ):
        yield f"marked, usage {n}", MARK + json.dumps(KEPT | {"usage": usage}).encode()
    for exact in ([], ["Nw=="] * 3, ["Nw=="], [None], ["!"]):
        tokens = KEPT["tokens"] | {"exact": exact}
        yield f"marked, bytes {exact}", MARK + json.dumps(KEPT | {"tokens": tokens, "prompt": tokens}).encode()
    for tops in ({"0": [["7", 1e308]]}, {"-1": [["7", -1]]}, {str(10**30): []}, {"x": []}, {"0": [[]]}):
        tokens = KEPT["tokens"] | {"tops": tops}
        yield f"marked, tops {tops}", MARK + json.dumps(KEPT | {"tokens": tokens, "prompt": tokens}).encode()
    for value in (b"NaN", b"-Infinity", b"1e999", LONG.encode(), b"[" * DEEP + b"]" * DEEP, rb'"\ud800"', b'"\xff"'):
        yield f"one more, {value[:9]}", raw[:-1] + b', "more": ' + value + b"}"
        yield f"one before, {value[:9]}", b'{"more": ' + value + b", " + raw[1:]
    for key in (b"choices", b"usage", b"meta_info", b"content", b"error", b"prompt", b"prompt_logprobs", b"text"):
        yield f"{key} again", raw[:-1] + b', "' + key + b'": null}'
        yield f"{key} before", b'{"' + key + b'": null, ' + raw[1:]
    for bad in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", rb"\ud83d", rb"\udc80", b"\n", b"\x1b"):
        for at in range(3, len(raw), len(raw) // 5):
            yield f"{bad} at {at}", raw[:at] + bad + raw[at:]
    for at in range(1, len(raw), max(1, len(raw) // 40)):
        yield f"cut at {at}", raw[:at]


# Hostile parts.

# What JSON is to hold in the place of this is put in as bytes: `json` does not write all of it.
HOLE = "\x01hole\x01"
RAW_VALUES = [
    b"1e999",
    b"-1e999",
    b"1e-999",
    LONG.encode(),
    b"-" + LONG.encode(),
    b"0." + LONG.encode(),
    b"1e" + b"9" * 5000,
]
RAW_VALUES += [
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP + b"7" + b"}" * DEEP,
    rb'"\ud800"',
    rb'"7\udfff"',
    b'"\xed\xb0\x80"',
]
HOLES = [HOLE + str(i) for i in range(len(RAW_VALUES))]
VALUES_OF_ALL_KINDS = [
    *(
        None,
        True,
        False,
        "",
        " ",
        "x",
        "7",
        "NaN",
        "-Infinity",
        "10",
        "１０",
        "٣",
        "²",
        "Ⅷ",
        "\u202e7\u202c",
        "7\u0301",
    ),
    *("\x00", "\ud800", "\ufffd", "▁7", "Ġ7", "<0x37>", "bytes:\\x37", "unknown", "\tunknown", "</think>", "<think>"),
    *("stop", "length", "content_filter", "tool_calls", "refusal", "abort", "error", "text", "tool_use", "9" * 5000),
    *(-1, 1, 3.5, 999, 10**19, -(10**19), 10**40, 10**400, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf),
    *(
        [],
        {},
        [[]],
        [{}],
        [None],
        {"a": 7},
        {"7": -1},
        [7] * 3,
        ["7"],
        [None] * 900,
        [["7", -1]],
        {"7": None},
        {"": {}},
    ),
    *HOLES,
]


def filled(content) -> bytes:
    """The JSON of a value, its holes filled."""
    raw = json.dumps(content).encode()
    if b"hole" not in raw:
        return raw
    for hole, value in zip(reversed(HOLES), reversed(RAW_VALUES), strict=True):
        raw = raw.replace(json.dumps(hole).encode(), value)
    return raw


def paths(value, here=()) -> Iterator[tuple[object, ...]]:
    """Where in a JSON value something can be put."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*here, key)
        yield from paths(inner, (*here, key))


def kinds_of(content) -> dict[tuple[object, ...], list[tuple[object, ...]]]:
    """The paths of a value, by what stands there: the items of a list are of one kind."""
    kinds: dict[tuple[object, ...], list[tuple[object, ...]]] = {}
    for path in paths(content):
        # so are the tables of alternatives, whose keys are texts or numbers of tokens
        kind = tuple(
            "*" if isinstance(k, int) or k.isdigit() or "top_logprobs" in path[: path.index(k)] else k for k in path
        )
        kinds.setdefault(kind, []).append(path)
    return kinds


LIST_CHANGES = {
    "one fewer": lambda items: items[:-1],
    "without the first": lambda items: items[1:],
    "one more": lambda items: [*items, *items[-1:]],
    "one before": lambda items: [*items[:1], *items],
    "a hundred times": lambda items: items * 100,
    "backwards": lambda items: items[::-1],
    "nulls": lambda items: [None] * len(items),
    "nested": lambda items: [[item] for item in items],
    "as an object": lambda items: {str(i): item for i, item in enumerate(items, 1)},
}


def at(content, place):
    """What stands at a place of a value."""
    for key in place:
        content = content[key]
    return content


def changed(content, place, change):
    """Changes what stands at a place of a value, and says whether something stands there."""
    *way, last = place
    try:
        where = at(content, way)
        where[last] = change(where[last])
    except (LookupError, TypeError):
        return False
    return True


def hostile_parts(channel) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Each kind of node in a reply replaced by values of all kinds, left out, given twice; each list of other lengths."""

    def made(place, change):
        content = json.loads(channel.raw)
        assert changed(content, place, change)
        return filled(content)

    whole = json.loads(channel.raw)
    for kind, places in kinds_of(whole).items():
        for place in dict.fromkeys((places[0], places[len(places) // 2])):
            changes = {f"{value!r:.11}": lambda _, value=value: value for value in VALUES_OF_ALL_KINDS}
            for name, change in (changes | _list_changes(at(whole, place))).items():
                yield f"{place}: {name}", lambda place=place, change=change: made(place, change)
            yield f"{place}: left out", lambda place=place: _without(channel, place)
        for value in [None, "7", "", 1e308, -1, math.nan, [], {}] if len(places) > 1 else []:
            yield f"all {kind}: {value!r}", lambda places=places, value=value: _all_made(channel, places, value)


def _list_changes(items):
    if not isinstance(items, list) or len(items) > 3000:
        return {}
    return {name: change for name, change in LIST_CHANGES.items() if name != "a hundred times" or len(items) < 300}


def _without(channel, place):
    content = json.loads(channel.raw)
    del at(content, place[:-1])[place[-1]]
    return filled(content)


def _all_made(channel, places, value):
    content = json.loads(channel.raw)
    for place in places:
        changed(content, place, lambda _: value)
    return filled(content)


# Hostile answers.

NUMBERS = [
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "inf",
        "1e999",
        "-1e999",
        "1e-999",
        "-1e-999",
        LONG,
        "-" + LONG,
        "1." + "3" * 5000,
    ),
    *(
        "1e" + "9" * 5000,
        "1" * 17 + "e-17",
        "-1",
        "-7",
        "11",
        "99",
        "10.5",
        "9.99",
        "1e1",
        "7e0",
        "7.25",
        "07",
        "+7",
        "7.",
        ".7",
    ),
    *(
        "0x7",
        "7_1",
        "7,7",
        "7 7",
        "7/10",
        "7-8",
        "\u22127",
        "½",
        "٣",
        "３",
        "１０",
        "²",
        "Ⅷ",
        "7\u0301",
        "\u202e7\u202c",
        "\u200b7",
    ),
    *(
        "null",
        "true",
        "false",
        "None",
        "unknown",
        "",
        " ",
        '"7"',
        '"high"',
        '"11"',
        '"٣"',
        '"²"',
        "[7]",
        "{}",
        "[]",
        "<7>",
        "7%",
    ),
    *(
        '{"a":7}',
        "[[[[7]]]]",
        "7}",
        "7]",
        '"',
        "\\",
        "\x00",
        "\t",
        "\n",
        "\n7",
        "7\n\n",
        "\t7",
        "7\t",
        "#7",
        "1\u00a00",
        "1 0",
    ),
]
LAYOUTS = {
    "prose before": "Sure! Here you are, from 1 to 10:\n{}",
    "prose behind": "{}\nI hope that [this] {helps}. 7.",
    "a fence": "```json\n{}\n```",
    "a fence of no kind": "```\n{}\n```",
    "an open fence": "```json\n{}",
    "fences in fences": "````md\n```json\n{}\n```\n````",
    "a fence behind": "{}\n```",
    "thinking": "<think>say 7</think>{}",
    "thinking with an answer": "<think>{}</think>{}",
    "open thinking": "<think>{}",
    "closed thinking": "so 7\n</think>\n\n{}",
    "thinking in thinking": "<think><think>7</think></think>{}",
    "twice": "{}{}",
    "twice, in lines": "{}\n{}",
    "in brackets": "[{}]",
    "in quotes": '"{}"',
    "in an object": '{"answer": {}}',
    "brackets before": "[[[{{{ {}",
    "a thousand brackets before": "[" * 1000 + "{}",
    "a mark before": "\ufeff{}",
    "backwards": "\u202e{}\u202c",
    "nul": "\x00{}\x00",
    "blanks": " \n\t" * 500 + "{}" + " " * 500,
    "a list before": "[1, 2, 3]\n{}",
    "the question again": '{"records":[{"record":1,"tokens":["The"]}]}\n{}',
    "markdown": "| token | activation |\n|---|---|\n{}",
    "xml": "<answer>{}</answer>",
    "escaped": "{}\\",
}


def hostile_answers(channel) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """What a model may write in place of its answer, its tokens with it or those of the true answer."""
    for name, text in _answers(channel):
        for finish in ("stop", "length"):
            yield f"{name}, {finish}", lambda text=text, finish=finish: channel.told(text, finish=finish)
        yield f"{name}, other tokens", lambda text=text: channel.told(text, tokens_of(channel.text))
        yield f"{name}, one token", lambda text=text: channel.told(text, [text])


def _answers(channel) -> Iterator[tuple[str, str]]:
    simulator, true = channel.simulator, channel.text
    for name, layout in LAYOUTS.items():
        yield name, layout.replace("{}", true)
    numbers = list(re.finditer(r"(?<=[\t:,\[])[0-9]+(?=[\n,\]}]|\Z)|\A7\Z", true))
    assert len(numbers) >= (1 if true == "7" else sum(map(len, VALUES)))
    for number in NUMBERS:
        for found in dict.fromkeys((numbers[0], numbers[len(numbers) // 2], numbers[-1])):
            yield f"{number[:9]!r} at {found.start()}", true[: found.start()] + number + true[found.end() :]
        parts = re.split(r"(?<=[\t:,\[])[0-9]+(?=[\n,\]}]|\Z)|\A7\Z", true)
        yield f"{number[:9]!r} for all", number.join(parts)
    for at in range(0, len(true), max(1, len(true) // 30)):
        yield f"cut at {at}", true[:at]
    for deep in (
        "[",
        '{"a":',
        '{"records":[',
        "[{",
        '"',
        '\\"',
        "```",
        "<think>",
        "</think>",
        "# Record 1\n",
        "\t7\n",
        "(",
        "-",
    ):
        for times in (50, 2000, DEEP if len(deep) < 6 else DEEP // 10):
            yield f"{deep!r} {times} times", deep * times
            yield f"{deep!r} {times} times before", deep * times + true
    yield "lists", "[" * DEEP + "7" + "]" * DEEP
    if not isinstance(simulator, TokenByToken):
        yield from _other_counts(simulator)
    if isinstance(simulator, JsonList):
        yield from _other_json(simulator)


def _other_counts(simulator):
    for wrong in (0, 1):
        for name, change in {
            "one fewer": lambda items: items[:-1],
            "one more": lambda items: [*items, items[-1]],
            "none": lambda _: [],
            "a hundred times": lambda items: items * 100,
            "the first lost": lambda items: items[1:],
            "moved by one": lambda items: [*items[1:], items[0]],
            "backwards": lambda items: items[::-1],
        }.items():
            records = [change(r) if i == wrong else r for i, r in enumerate(RECORDS)]
            values = [change(v) if i == wrong else v for i, v in enumerate(VALUES)]
            yield f"record {wrong}: {name}", simulator.answer(records, values)
            yield f"record {wrong}: other tokens, {name}", simulator.answer(records[::-1], values[::-1])
    yield "a hundred records", simulator.answer(RECORDS * 100, VALUES * 100)
    yield "one record", simulator.answer(RECORDS[:1], VALUES[:1])
    yield "no record", simulator.answer([], [])


def _other_json(simulator):
    answer = json.loads(simulator.answer(RECORDS, VALUES))
    for value in VALUES_OF_ALL_KINDS:
        for kind, places in kinds_of(answer).items():
            content = json.loads(json.dumps(answer))
            changed(content, places[-1], lambda _, value=value: value)
            yield f"{kind}: {str(value)[:9]!r}", filled(content).decode("utf-8", "replace")
    true = json.dumps(answer)
    for key in ("records", "record", "activations", "token", "activation"):
        for value in ("null", "7", '"7"', "[]", "{}"):
            yield f"{key} twice, {value}", true.replace(f'"{key}":', f'"{key}": {value}, "{key}":')
        yield f"{key} by another name", true.replace(f'"{key}"', f'"{key}s"')
        yield f"{key} escaped", true.replace(f'"{key}"', f'"\\u{ord(key[0]):04x}{key[1:]}"')
        yield f"{key} in other letters", true.replace("a", "а")  # Cyrillic


def corpus(channel) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """All hostile replies that are made for a channel."""
    for name, raw in hostile_bytes(channel.raw):
        yield name, lambda raw=raw: raw
    yield from hostile_parts(channel)
    if not channel.echoes:
        yield from hostile_answers(channel)


# Random changes.

SNIPPETS = [
    *NUMBERS,
    *(
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        "\\",
        "\t",
        "\n",
        "```",
        "```json\n",
        "</think>",
        "<think>",
        "# Record 1",
        "# Record 2\n",
    ),
    *(
        '"records":[',
        '"record":1,',
        '{"record":2,"activations":[',
        '"activation":',
        '"token":"',
        "7",
        "10",
        " ",
        "日",
        "👍",
        "\ufffd",
    ),
    *(
        "▁",
        "Ġ",
        "<0x37>",
        "bytes:\\xe6",
        "unknown",
        "\tunknown\n",
        "\u0301",
        "\u202e",
        "[1,2]",
        "[7]",
        "\\u0037",
        "\\ud83d",
        "[" * 60,
    ),
]
SHORT = [s for s in SNIPPETS if len(s) < 100]


def text_changed(text, rng):
    """A text with something put in, left out, put in the place of something, or repeated."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(text) + 1)
        stop = min(len(text), start + rng.choice((0, 0, 1, 1, 3, 20)))
        put = rng.choice((*SHORT, text[start:stop] * 2, "")) if rng.random() < 0.9 else rng.choice(SNIPPETS)
        text = text[:start] + put + text[stop:]
    return text


def mutated(channel, rng) -> bytes:
    """A true reply with random changes: of parts, of its text, of bytes."""
    kind = rng.random()
    if kind < 0.3:
        return _bytes_changed(channel.raw, rng)
    if kind < 0.65 and not channel.echoes:
        text = text_changed(channel.text, rng)
        tokens = rng.choice((None, None, tokens_of(channel.text), [text], list(text)))
        raw = channel.told(text, tokens, rng.choice(("stop", "stop", "length")))
        return _bytes_changed(raw, rng) if rng.random() < 0.1 else raw
    content = json.loads(channel.raw)
    kinds = _kinds(channel)
    for _ in range(rng.choice((1, 1, 2, 5))):
        changed(content, rng.choice(rng.choice(kinds)), lambda old: _other(old, rng))
    return filled(content)


_KINDS: dict[str, list[list[tuple[object, ...]]]] = {}


def _kinds(channel):
    if channel.name not in _KINDS:
        _KINDS[channel.name] = list(kinds_of(json.loads(channel.raw)).values())
    return _KINDS[channel.name]


def _other(old, rng):
    if isinstance(old, str) and rng.random() < 0.5:
        return text_changed(old, rng)
    if isinstance(old, list) and len(old) < 3000 and rng.random() < 0.6:
        name = rng.choice([n for n in LIST_CHANGES if n != "a hundred times" or len(old) < 30])
        return LIST_CHANGES[name](old)
    if isinstance(old, float) and rng.random() < 0.5:
        return -old * 10 ** rng.randrange(-3, 300)
    return rng.choice(VALUES_OF_ALL_KINDS if rng.random() < 0.3 else VALUES_OF_ALL_KINDS[: -len(HOLES)])


def _bytes_changed(raw, rng):
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 6))):
        at = rng.randrange(len(data) + 1)
        change = rng.random()
        if change < 0.4 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif change < 0.6:
            del data[at : at + rng.choice((1, 2, 30, len(data)))]
        elif change < 0.8:
            data[at:at] = rng.choice(
                (b"\x00", b"\xff", b'"', b"{", b"]", b",", b"\\", b"7", b"NaN", rb"\ud800", b"[" * 3000)
            )
        else:
            start = rng.randrange(len(data) + 1)
            data[at:at] = data[start : start + rng.choice((1, 10, 200))]
    return bytes(data)
