"""A reply that was cut down gives the same predictions, is small, and is never confused with a server's own."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_server import ModelServer

from nscore._sending.keep import needed, restored
from nscore.backends import VLLM, Anthropic, OpenAI, SGLang
from nscore.errors import ReplyError
from nscore.exchange import Capabilities, Message, Prompt, Reply, Usage
from nscore.simulators import AllAtOnce, JsonList, TabList, TokenByToken

CAN = Capabilities(logprobs=15, prompt_logprobs=15, aligned=True, structured=True, ten=1)
RECORDS = [["The", "\t", " 10", "日", ""], [" a"]]
MARK = needed(Reply("x"), Prompt(())).partition(b"{")[0]
LISTS = [JsonList(), JsonList(pack=2), JsonList(pack=2, numbers_alone=True), TabList(), TabList(pack=2)]


def value(token):
    return zlib.crc32(token.encode()) % 11


def answer(messages):
    last = messages[-1]["content"]
    if '"records"' in last:
        asked = json.loads(last[last.index("{") :])["records"]
        rows = [
            {"record": r["record"], "activations": [{"token": t, "activation": value(t)} for t in r["tokens"]]}
            for r in asked
        ]
        return json.dumps({"records": rows}, ensure_ascii=False)
    if "# Record" in last:
        lines = last.split("\n")[1:]
        return "\n".join(line if line.startswith("# Record") else f"{line}\t{value(line)}" for line in lines)
    return "5"


@pytest.fixture(scope="module")
def http():
    with httpx.Client(trust_env=False) as http:
        yield http


@pytest.fixture(scope="module", params=["plain", "thinking", "spm", "no bos"])
def server(request):
    switches = {
        "plain": {},
        "thinking": {"thinking": "inline"},
        "spm": {"token_style": "spm"},
        "no bos": {"bos": False, "ten_is_one_token": False},
    }[request.param]
    with ModelServer(answer=answer, **switches) as server:
        yield server


def replies(http, server, kind, simulator, can):
    backend = kind("tiny", base_url=server.base_url, api_key="key")
    for ask in simulator.asks("cats", RECORDS, can):
        path, body = backend.call(ask.prompt, can)
        url = (server.base_url if kind in (OpenAI, VLLM) else server.url) + path
        raw = http.post(url, json=body, headers=backend.headers()).content
        yield ask, raw, backend.read(raw)


SIMULATORS = [AllAtOnce(), TokenByToken(), *LISTS]
WITHOUT_CHAT = replace(CAN, chat=False, structured=False, ten=2)


@pytest.mark.parametrize(
    ("kind", "can", "simulators"),
    [
        (OpenAI, CAN, SIMULATORS),
        (OpenAI, WITHOUT_CHAT, SIMULATORS),
        (VLLM, CAN, SIMULATORS[:1]),
        (SGLang, CAN, [AllAtOnce(), JsonList()]),
        (Anthropic, replace(CAN, logprobs=0, structured=False), LISTS),
    ],
    ids=["openai", "completions", "vllm", "sglang", "anthropic"],
)
def test_what_was_cut_down_gives_the_same_predictions(http, server, kind, can, simulators):
    can = replace(can, thinks=server.thinking is not None)
    good = 0
    for simulator in simulators:
        for ask, _, reply in replies(http, server, kind, simulator, can):
            kept = restored(needed(reply, ask.prompt))
            outcomes = [outcome(simulator, ask, one, can) for one in (reply, kept)]
            assert outcomes[0] == outcomes[1]
            assert (kept.finish, kept.usage, kept.thought) == (reply.finish, reply.usage, reply.thought)
            good += not isinstance(outcomes[0], str)
    assert good >= (len(simulators) - (not can.structured) if can.chat else 2)


def outcome(simulator, ask, reply, can):
    try:
        return simulator.read(ask, RECORDS, reply, can)
    except ReplyError as error:
        return f"{error.status}: {error}"


@pytest.mark.parametrize("kind", [OpenAI, VLLM, SGLang])
def test_of_an_echo_less_than_a_twentieth_is_kept(http, kind):
    records = [[f" word{i % 7}" for i in range(64)]]
    with ModelServer() as server:
        backend = kind("tiny", base_url=server.base_url, api_key="key")
        ask = next(iter(AllAtOnce().asks("cats and dogs " * 750, records, CAN)))
        path, body = backend.call(ask.prompt, CAN)
        raw = http.post(backend.url + path, json=body).content
    kept = needed(backend.read(raw), ask.prompt)
    assert len(kept) < 0.05 * len(raw), len(kept) / len(raw)
    assert AllAtOnce().read(ask, records, restored(kept), CAN)[0].status == ["ok"] * 64


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{}",
        b'{"nscore_reply":1,"text":"a"}',
        b"nscore reply 1\n{}",
        MARK[1:] + b"{}",
        b"<html>",
        MARK.decode("latin-1").encode(),
    ],
)
def test_what_a_server_sends_is_not_taken_for_it(sent):
    assert restored(sent) is None


@given(st.text().map(str.encode) | st.dictionaries(st.text(), st.integers() | st.text()).map(msgspec.json.encode))
@settings(max_examples=100, deadline=None)
def test_no_text_and_no_json_is_taken_for_it(sent):
    assert restored(sent) is None


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"text": 3}',
        b"[" * 100_000,
        b"\xff",
        b'{"text":"\xff"}',
        b'{"text":"a","finish":"odd","usage":{},"thought":1}',
    ],
)
def test_what_only_begins_like_it_is_refused(rest):
    with pytest.raises(ReplyError) as caught:
        restored(MARK + rest)
    assert (caught.value.status, caught.value.again) == ("parse_error", False)


def test_any_reply_without_logprobs_comes_back_whole():
    reply = Reply("é\n\x00😀", "length", Usage(3, None, 0), None, None, thought=True)
    assert restored(needed(reply, Prompt((Message("user", "a"),)))) == reply


def test_a_prompt_that_cannot_be_laid_over_the_reply_keeps_all(http):
    with ModelServer() as server:
        backend = OpenAI("tiny", base_url=server.base_url)
        asked = Prompt((Message("user", "a\tunknown 5"),), form="text", max_tokens=1, prompt_logprobs=3, places=(2,))
        path, body = backend.call(asked, CAN)
        reply = backend.read(http.post(backend.url + path, json=body).content)
    other = Prompt((Message("user", "a dog"),), form="text", prompt_logprobs=3, places=(2,))
    kept = restored(needed(reply, other))
    indices = range(len(reply.prompt.texts))
    numbers = [[(t, p) for t, p in reply.prompt.top(i) if any(map(str.isdigit, t))] for i in indices]
    assert [kept.prompt.top(i) for i in indices] == numbers
    found = restored(needed(reply, asked))
    assert [found.prompt.top(i) for i in indices] == [n if i == 3 else [] for i, n in enumerate(numbers)]
    assert len(numbers[3]) > 1


KEPT = {
    "text": "7",
    "finish": "stop",
    "usage": {"prompt_tokens": 1},
    "thought": False,
    "tokens": {"texts": ["7"], "exact": None, "tops": {}},
    "prompt": None,
}


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {"usage": {name: n}}
            for name in ("prompt_tokens", "completion_tokens", "cached_tokens")
            for n in (-1, 2**63)
        ),
        *(
            {part: {"texts": ["7"], "exact": e, "tops": {}}}
            for part in ("tokens", "prompt")
            for e in ([], ["Nw==", None])
        ),
    ],
)
def test_what_no_reply_is_cut_down_to_is_refused_though_a_server_sends_the_mark(wrong):
    assert restored(MARK + json.dumps(KEPT).encode()).text == "7"
    with pytest.raises(ReplyError, match="holds what none can") as caught:
        restored(MARK + json.dumps(KEPT | wrong).encode())
    assert caught.value.status == "parse_error"
