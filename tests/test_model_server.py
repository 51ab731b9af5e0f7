"""The tests' model server says the same by every route, misbehaves as its switches say, and always ends."""

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import model_server
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_server import ModelServer, body_hash, character_offsets, spelled
from tables import QUICK
from tiny_model import BOS, Model, chat_text, fits

MODEL = Model()
PROMPT = "<start>\nThe cat\tunknown\n é 日本😀\tunknown\n\n\t\tunknown\n<end>"
HELLO = [{"role": "user", "content": "hello"}]
ANTHROPIC = {"x-api-key": "key", "anthropic-version": "2023-06-01"}
FIVE = {"type": "array", "minItems": 5, "maxItems": 5, "items": {"type": "integer", "minimum": 0, "maximum": 10}}


class Client:
    def __init__(self, server, http):
        self.server, self.http = server, http

    def post(self, path, body, **kwargs):
        return self.http.post(self.server.url + path, json=body, **kwargs)

    def complete(self, prompt=PROMPT, **body):
        return self.post("/v1/completions", {"prompt": prompt, "max_tokens": 1, "temperature": 0, **body})

    def echo(self, prompt=PROMPT, k=3, **body):
        return self.complete(prompt, echo=True, logprobs=k, **body).json()["choices"][0]

    def chat(self, messages=HELLO, **body):
        return self.post("/v1/chat/completions", {"messages": messages, "temperature": 0, **body})

    def choice(self, **body):
        return self.chat(**body).json()["choices"][0]

    def generate(self, text=PROMPT, **body):
        sampling = {"max_new_tokens": 1, "temperature": 0}
        return self.post("/generate", {"text": text, "sampling_params": sampling, "return_logprob": True, **body})

    def anthropic(self, headers=ANTHROPIC, **body):
        return self.post("/v1/messages", {"messages": HELLO, "max_tokens": 99, **body}, headers=headers)


@contextmanager
def serve(**switches):
    with ModelServer(**switches) as server, httpx.Client(timeout=5, trust_env=False) as http:
        yield Client(server, http)


@pytest.fixture(scope="module")
def client():
    with serve() as client:
        yield client


def expected(tokens):
    """The logprob of each token given those before it; the first is None."""
    return [None] + [float(MODEL.logprobs(tokens[:i])[MODEL.ids[tokens[i]]]) for i in range(1, len(tokens))]


# The model.


@QUICK
@given(st.text())
def test_tokens_join_to_the_text(text):
    assert b"".join(MODEL.tokenize(text)) == text.encode()
    assert MODEL.decode(MODEL.encode(text)) == text


@QUICK
@given(st.text(min_size=1), st.data())
def test_the_token_at_an_offset_covers_the_character(text, data):
    offset = data.draw(st.integers(0, len(text) - 1))
    tokens = MODEL.prompt(text)
    place = MODEL.position(text, offset)
    before = len(b"".join(tokens[1:place]))
    assert before <= len(text[:offset].encode()) < before + len(tokens[place])
    np.testing.assert_array_equal(MODEL.at(text, offset), MODEL.logprobs(tokens[:place]))


@QUICK
@given(st.text())
def test_exact_offsets_count_characters(text):
    tokens = MODEL.tokenize(text)
    for at, offset in enumerate(character_offsets(tokens)):
        before = len(b"".join(tokens[:at]))
        assert len(text[:offset].encode()) <= before
        assert offset == len(text) or before < len(text[: offset + 1].encode())


def test_probabilities_sum_to_one_and_do_not_depend_on_what_was_asked_before():
    prefix = MODEL.prompt("a\t")
    assert np.exp(MODEL.logprobs(prefix)).sum() == pytest.approx(1)
    few = Model(cache_rows=2)
    list(map(few.logprobs, [prefix[:1], prefix[:2], prefix]))
    few.rows(few.prompt_ids("a cat and a dog"))
    np.testing.assert_array_equal(few.logprobs(prefix), MODEL.logprobs(prefix))
    assert MODEL.top(prefix, 739) == sorted(MODEL.top(prefix, 739), key=lambda pair: -pair[1])


@pytest.mark.parametrize("end", ["\t", "Activation:", "x: ", "[", "[1, 2,", "[1, "])
def test_numbers_are_likely_where_a_number_belongs(end):
    numbers = {str(n).encode() for n in range(11)}
    found = [len(numbers & {token for token, _ in MODEL.top(MODEL.prompt(f"{n}{end}"), 15)}) for n in range(50)]
    assert np.mean(found) > 8


def test_merges_are_switched():
    assert MODEL.tokenize("10\tunknown") == [b"10", b"\t", b"unknown"]
    other = Model(bos=False, ten_is_one_token=False, merge_tab_unknown=True)
    assert other.prompt("10\tunknown") == [b"1", b"0", b"\tunknown"]
    assert b"10" not in other.vocab


def test_where_ten_is_two_tokens_its_second_digit_is_likely():
    model = Model(ten_is_one_token=False)
    second = [{token for token, _ in model.top(model.prompt(f"{n}\t1"), 10)} for n in range(20)]
    assert sum(b"0" in top for top in second) == 20


# The routes agree.


def test_echo_is_what_the_model_says(client):
    choice = client.echo(k=15)
    tokens = MODEL.prompt(PROMPT)
    made = MODEL.top(tokens, 1)[0][0]
    logprobs = choice["logprobs"]
    assert choice["text"] == PROMPT + made.decode()
    assert logprobs["tokens"] == [spelled(token, "replace") for token in [*tokens, made]]
    assert logprobs["token_logprobs"] == expected([*tokens, made])
    assert logprobs["top_logprobs"][0] is None
    assert {len(top) for top in logprobs["top_logprobs"][1:]} <= {13, 14, 15, 16}
    place = MODEL.position(PROMPT, PROMPT.rindex("unknown"))
    assert logprobs["tokens"][place] == "unknown"
    listed = {spelled(t, "replace"): v for t, v in MODEL.top(tokens[:place], 15)}
    assert logprobs["top_logprobs"][place] == listed | {"unknown": logprobs["token_logprobs"][place]}


def test_an_echoed_token_has_the_logprob_with_which_it_was_generated(client):
    made = client.complete("The cat", max_tokens=4, logprobs=2).json()["choices"][0]
    echoed = client.echo("The cat" + made["text"], k=2)["logprobs"]
    start = len(MODEL.prompt("The cat"))
    assert echoed["tokens"][start : start + 4] == made["logprobs"]["tokens"]
    assert echoed["token_logprobs"][start : start + 4] == made["logprobs"]["token_logprobs"]
    assert echoed["top_logprobs"][start : start + 4] == made["logprobs"]["top_logprobs"]


def test_prompt_logprobs_equal_the_echo(client):
    echoed = client.echo()["logprobs"]
    given = client.complete(prompt_logprobs=3).json()["choices"][0]["prompt_logprobs"]
    assert given[0] is None
    for entry, token, value in zip(given[1:], echoed["tokens"][1:], echoed["token_logprobs"][1:], strict=False):
        actual, *others = entry.values()
        assert (actual["decoded_token"], actual["logprob"]) == (token, value)
        assert len(entry) == (3 if actual["rank"] <= 3 else 4)
        assert [o["rank"] for o in others] == [rank for rank in (1, 2, 3) if rank != actual["rank"]]


def test_sglang_equals_the_echo(client):
    echoed = client.echo(k=2)["logprobs"]
    options = {"logprob_start_len": 0, "top_logprobs_num": 2, "return_text_in_logprobs": True}
    meta = client.generate(**options).json()["meta_info"]
    rows = meta["input_token_logprobs"] + meta["output_token_logprobs"]
    assert [row[0] for row in rows] == echoed["token_logprobs"]
    assert [row[2] for row in rows] == echoed["tokens"]
    assert [MODEL.vocab[row[1]] for row in rows[:-1]] == MODEL.prompt(PROMPT)
    assert meta["input_top_logprobs"][0] is None
    assert [len(top) for top in meta["input_top_logprobs"][1:]] == [2] * (len(MODEL.prompt(PROMPT)) - 1)
    later = client.generate(logprob_start_len=3).json()["meta_info"]
    first, *others = rows[3:-1]
    assert later["input_token_logprobs"] == [[None, first[1], None], *([row[0], row[1], None] for row in others)]
    assert "input_top_logprobs" not in later
    assert client.generate().json()["meta_info"]["input_token_logprobs"] == []


def test_chat_equals_the_echo_of_its_prompt():
    with serve(answer=lambda _: "[3, 10]\n é") as client:
        reply = client.chat(logprobs=True, top_logprobs=4, prompt_logprobs=0).json()
        choice = reply["choices"][0]
        prompt = chat_text(HELLO)
        echoed = client.echo(prompt + "[3, 10]\n é", k=4)["logprobs"]
    start = len(MODEL.prompt(prompt))
    content = choice["logprobs"]["content"]
    assert choice["message"]["content"] == "[3, 10]\n é"
    assert choice["finish_reason"] == "stop"
    assert [entry["logprob"] for entry in content] == echoed["token_logprobs"][start:-1]
    assert b"".join(bytes(entry["bytes"]) for entry in content).decode() == "[3, 10]\n é"
    for entry in content:
        assert {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry["bytes"]} in entry["top_logprobs"]
        assert len(entry["top_logprobs"]) in (4, 5)
    values = [None] + [next(iter(entry.values()))["logprob"] for entry in reply["prompt_logprobs"][1:]]
    assert values == echoed["token_logprobs"][:start]


def test_several_prompts_and_token_ids_are_answered_in_order(client):
    one, two = (client.echo(prompt) for prompt in ("a cat", "a dog"))
    both = client.complete(["a cat", "a dog"], echo=True, logprobs=3).json()["choices"]
    assert [choice["logprobs"] for choice in both] == [one["logprobs"], two["logprobs"]]
    ids = list(MODEL.prompt_ids("a cat"))
    assert client.echo(ids) == one
    assert client.generate(None, input_ids=ids).status_code == 400
    assert [r["text"] for r in client.generate(["a cat", "a dog"]).json()] == [
        client.generate(text).json()["text"] for text in ("a cat", "a dog")
    ]


def test_a_long_echo_takes_less_than_a_second(client):
    prompt = "".join(f"word {n}\tunknown\n" for n in range(400))
    began = time.perf_counter()
    assert len(client.echo(prompt, k=15)["logprobs"]["tokens"]) > 2000
    assert time.perf_counter() - began < 1


def test_usage_counts_and_remembers_the_previous_prompt():
    with serve() as client:
        client.complete("a cat and a dog")
        usage = client.complete("a cat and a cat").json()["usage"]
        counted = client.anthropic().json()["usage"]
    assert usage["prompt_tokens"] == len(MODEL.prompt("a cat and a cat"))
    assert usage["completion_tokens"] == 1
    assert usage["prompt_tokens_details"]["cached_tokens"] == len(MODEL.prompt("a cat and a"))
    assert counted["cache_read_input_tokens"] == 1
    assert counted["input_tokens"] + 1 == len(MODEL.prompt(chat_text(HELLO)))


def test_temperature_draws_by_the_seed(client):
    def draw(seed):
        return client.complete("a", max_tokens=6, temperature=1, seed=seed).json()["choices"][0]["text"]

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(5)}) > 1


def test_models_are_listed(client):
    assert client.http.get(client.server.base_url + "/models").json()["data"][0]["id"] == "tiny"
    assert client.http.get(client.server.url + "/nowhere").status_code == 404
    assert client.post("/v1/nowhere", {}).status_code == 404


# Answers.


def test_answers_come_from_the_test():
    samples = []

    def answer(messages, sample):
        samples.append(sample)
        return messages[-1]["content"].upper()

    with serve(answer=answer) as client:
        assert client.choice()["message"]["content"] == "HELLO"
        two = client.chat(temperature=1, seed=4, n=2).json()["choices"]
        client.chat(temperature=1, seed=4)
        client.chat(temperature=1, seed=5)
        assert client.anthropic(temperature=0).json()["content"] == [{"type": "text", "text": "HELLO"}]
    assert [choice["index"] for choice in two] == [0, 1]
    assert samples[0] == samples[-1] == 0
    assert samples[1] == samples[3]
    assert len(set(samples[1:5])) == 3


def test_an_answer_is_cut_where_its_room_ends():
    with serve(answer=lambda _: "one two three") as client:
        for name in ("max_tokens", "max_completion_tokens"):
            cut = client.choice(**{name: 2})
            assert cut["finish_reason"] == "length"
            assert cut["message"]["content"] == "one two"
        assert client.choice(max_tokens=99)["finish_reason"] == "stop"
        assert client.anthropic(max_tokens=1).json()["stop_reason"] == "max_tokens"
        assert client.anthropic().json()["stop_reason"] == "end_turn"


def test_a_schema_is_kept_where_it_is_honoured():
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": FIVE, "strict": True}}
    with serve() as client:
        made = client.choice(response_format=form)["message"]["content"]
        assert fits(json.loads(made), FIVE)
        assert client.choice(response_format=form)["message"]["content"] == made
        client.server.answer = lambda _: "[1, 2, 3, 4, 5]"
        assert client.choice(response_format=form)["message"]["content"] == "[1, 2, 3, 4, 5]"
        client.server.structured = False
        client.server.answer = lambda _: "no"
        assert client.choice(response_format=form)["message"]["content"] == "no"
        client.server.structured = "reject"
        refused = client.chat(response_format=form)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "response_format"


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (FIVE, [0, 1, 2, 3, 10], [0, 1, 2, 3]),
        (FIVE, [0] * 5, [0, 0, 0, 0, 11]),
        (FIVE, [0] * 5, [0, 0, 0, 0, True]),
        ({"type": "number", "minimum": 0}, 0.5, "0.5"),
        ({"type": "string"}, "", None),
        ({"enum": ["a", 2]}, 2, 3),
        ({"const": 7}, 7, 8),
        ({"type": "object", "properties": {"a": FIVE}, "required": ["a"]}, {"a": [1] * 5}, {"b": 1}),
    ],
)
def test_schemas_are_checked_and_met(schema, good, bad):
    assert fits(good, schema)
    assert not fits(bad, schema)
    assert fits(model_server.instance(schema, np.random.default_rng(0)), schema)


def test_thinking_takes_room_and_stands_where_the_switch_says():
    with serve(thinking="field", thought="one two") as client:
        message = client.choice(max_tokens=99)["message"]
        assert (message["reasoning_content"], message["content"]) == ("one two", "ok")
        starved = client.choice(max_tokens=2)
        assert (starved["message"]["content"], starved["finish_reason"]) == ("", "length")
        assert [block["type"] for block in client.anthropic().json()["content"]] == ["thinking", "text"]
        client.server.thinking = "inline"
        choice = client.choice(logprobs=True, top_logprobs=1)
        assert choice["message"]["content"] == "<think>one two</think>ok"
        assert [e["token"] for e in choice["logprobs"]["content"]] == ["<think>", "one", " two", "</think>", "o", "k"]


def test_refusals_and_filters():
    with serve(refusal="I cannot.") as client:
        message = client.choice()["message"]
        assert (message["content"], message["refusal"]) == (None, "I cannot.")
        assert client.anthropic().json()["stop_reason"] == "refusal"
        client.server.refusal, client.server.content_filter = None, True
        assert client.choice()["finish_reason"] == "content_filter"


# Switches.


@pytest.mark.parametrize(
    ("style", "texts"),
    [
        ("replace", [" the", "\t", "�", "�"]),
        ("bytes", [" the", "\t", "bytes:\\xe2\\x82", "bytes:\\xac"]),
        ("spm", ["▁the", "<0x09>", "<0xE2><0x82>", "<0xAC>"]),
        ("stripped", ["the", "\t", "�", "�"]),
    ],
)
def test_tokens_are_spelled_in_the_style_asked(style, texts):
    assert [spelled(token, style) for token in (b" the", b"\t", b"\xe2\x82", b"\xac")] == texts


def test_offsets_drift_or_are_exact_or_missing():
    with serve() as client:
        drifting = client.echo()["logprobs"]
        assert drifting["text_offset"] == [0, *itertools.accumulate(map(len, drifting["tokens"]))][:-1]
        client.server.offsets = "exact"
        exact = client.echo()["logprobs"]
        starts = itertools.compress(exact["text_offset"], map("unknown".__eq__, exact["tokens"]))
        assert [PROMPT[start : start + 7] for start in starts] == ["unknown"] * 3
        assert exact["text_offset"][:2] == [0, 0]
        client.server.offsets = None
        assert "text_offset" not in client.echo()["logprobs"]


def test_bos_is_listed_or_hidden_or_not_there():
    with serve() as client:
        assert client.echo("a cat")["logprobs"]["tokens"][:2] == ["<s>", "a"]
        client.server.list_bos = False
        hidden = client.echo("a cat")["logprobs"]
        assert hidden["tokens"][:2] == ["a", " cat"]
        assert hidden["token_logprobs"][:2] == [None, expected([BOS, b"a", b" cat"])[2]]
        client.server.bos = False
        bare = client.echo("a cat")["logprobs"]
        assert bare["tokens"][:2] == ["a", " cat"]
        assert bare["token_logprobs"][1] == Model(bos=False).logprobs([b"a"])[MODEL.ids[b" cat"]]


def test_off_by_one_shifts_the_echo_but_not_what_is_generated():
    model = Model(bos=False)
    with serve(bos=False, off_by_one=True) as client:
        shifted = client.echo("a cat", k=2)["logprobs"]
        made = client.complete("a cat", logprobs=2).json()["choices"][0]["logprobs"]
    assert shifted["tokens"] == ["a", " cat"]
    assert shifted["token_logprobs"] == [None, model.logprobs([b"a", b" cat"])[model.ids[b" cat"]]]
    assert made["token_logprobs"] == [model.top([b"a", b" cat"], 1)[0][1]]


def test_what_is_ignored_is_ignored_with_status_200():
    with serve(ignore_echo=True, ignore_prompt_logprobs=True) as client:
        choice = client.complete(echo=True, logprobs=2, prompt_logprobs=2).json()["choices"][0]
        assert not choice["text"].startswith("<start>")
        assert len(choice["logprobs"]["tokens"]) == 1
        assert "prompt_logprobs" not in choice
        assert "prompt_logprobs" not in client.chat(prompt_logprobs=1).json()
        assert client.generate(logprob_start_len=0).json()["meta_info"]["input_token_logprobs"] == []
        client.server.ignore_logprobs = True
        assert client.complete(logprobs=2).json()["choices"][0]["logprobs"] is None
        assert client.choice(logprobs=True, top_logprobs=2)["logprobs"] is None


def test_logprobs_are_capped_or_refused():
    with serve(max_logprobs=5) as client:
        assert {len(top) for top in client.echo("a cat", k=15)["logprobs"]["top_logprobs"][1:]} <= {5, 6}
        client.server.reject_logprobs = True
        assert client.complete(logprobs=15).json()["error"]["param"] == "logprobs"
        assert client.complete(prompt_logprobs=15).status_code == 400
        assert client.chat(logprobs=True, top_logprobs=6).status_code == 400
        assert client.chat(logprobs=True, top_logprobs=5).status_code == 200


@pytest.mark.parametrize(("switch", "made"), [("one", 1), ("zero", 0), ("unlimited", model_server.UNLIMITED)])
def test_max_tokens_zero_means_what_the_switch_says(switch, made):
    with serve(zero_max_tokens=switch) as client:
        assert client.complete("a", max_tokens=0).json()["usage"]["completion_tokens"] == made
        client.server.zero_max_tokens = "reject"
        assert client.complete("a", max_tokens=0).status_code == 400


def test_a_wrong_key_is_refused_in_each_provider_s_words():
    with serve(api_key="right") as client:
        wrong = client.http.post(
            client.server.base_url + "/completions", json={}, headers={"Authorization": "Bearer wrong"}
        )
        assert wrong.status_code == 401
        assert wrong.json()["error"]["code"] == "invalid_api_key"
        assert client.http.get(client.server.base_url + "/models").status_code == 401
        assert client.anthropic().json()["error"]["type"] == "authentication_error"
        right = {"x-api-key": "right", "anthropic-version": "2023-06-01"}
        assert client.anthropic(headers=right).status_code == 200
        assert client.anthropic(headers={"x-api-key": "right"}).status_code == 400
        client.http.headers["Authorization"] = "Bearer right"
        assert client.chat().status_code == 200


def test_parameters_and_routes_are_refused():
    with serve(reject_max_tokens=True, reject_temperature=True, reject_chat_logprobs=True) as client:
        refused = [client.chat(max_tokens=1), client.chat(), client.chat(temperature=1, logprobs=True)]
        assert [reply.status_code for reply in refused] == [400] * 3
        assert [reply.json()["error"]["param"] for reply in refused] == ["max_tokens", "temperature", "logprobs"]
        assert "max_completion_tokens" in refused[0].json()["error"]["message"]
        assert client.chat(temperature=1, max_completion_tokens=5).status_code == 200
        client.server.no_chat = client.server.no_completions = True
        assert [client.chat().status_code, client.complete().status_code] == [404, 404]


def test_a_long_prompt_is_refused():
    with serve(context=8) as client:
        assert client.complete("a cat", max_tokens=4).status_code == 200
        refused = client.complete("a cat", max_tokens=6)
    assert refused.status_code == 400
    assert "maximum context length" in refused.json()["error"]["message"]


@pytest.mark.parametrize("raw", [b"{", b"[]", b"{}", b'{"prompt": 3}', b'{"prompt": "\\ud800"}', b"\xff"])
def test_what_cannot_be_read_is_refused(raw, client):
    assert client.http.post(client.server.base_url + "/completions", content=raw).status_code == 400


def test_replies_wait_and_are_padded():
    with serve(wait_s=0.05, jitter_s=0.01, canned_bytes=30_000) as client:
        began = time.perf_counter()
        reply = client.chat()
        assert time.perf_counter() - began >= 0.05
    assert len(reply.content) == 30_000


def test_canned_replies_are_the_same_bytes():
    with serve(canned=True, canned_bytes=2000, record=False) as client:
        one, two = client.chat(), client.chat([{"role": "user", "content": "other"}])
        server = client.server
        assert one.content == two.content
        assert (server.n_requests, server.counts, sum(server.billed.values())) == (2, {200: 2}, 2)
        server.api_key = "right"
        assert client.chat().status_code == 401


def in_threads(count, act):
    threads = [threading.Thread(target=act) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_more_in_flight_than_the_hidden_limit_are_refused():
    statuses = []
    with serve(hidden_concurrency=2, wait_s=0.2) as client:
        in_threads(5, lambda: statuses.append(client.chat().status_code))
        assert client.server.max_in_flight >= 3
        assert client.server.in_flight == 0
    assert sorted(statuses) == [200, 200, 429, 429, 429]


def test_hidden_rates_hold_in_a_sliding_window():
    now = 0.0
    with serve(hidden_rpm=2, clock=lambda: now) as client:
        assert [client.chat().status_code for _ in range(3)] == [200, 200, 429]
        now = 59.0
        refused = client.chat()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1.000")
        now = 60.0
        assert client.chat().status_code == 200
        client.server.hidden_rpm, client.server.hidden_tpm = None, 20
        now = 200.0
        assert [client.complete("a cat", max_tokens=6).status_code for _ in range(3)] == [200, 200, 429]
        assert client.server.arrivals[-1] == (200.0, 9, False)
        assert len(client.server.arrivals) == 8


# Faults.


def only(fault, **switches):
    return serve(faults={fault: 1.0}, **switches)


def test_429_cycles_through_what_retry_after_may_be():
    with only("429") as client:
        replies = [client.chat() for _ in model_server.RETRY_AFTER]
        overloaded = client.anthropic()
    assert {reply.status_code for reply in replies} == {429}
    seconds, date, ms, absent, nan, huge = (reply.headers for reply in replies)
    assert seconds["retry-after"] == "0.01"
    assert parsedate_to_datetime(date["retry-after"]).tzinfo
    assert ms["retry-after-ms"] == "10"
    assert not {"retry-after", "retry-after-ms"} & absent.keys()
    assert (nan["retry-after"], huge["retry-after"]) == ("nan", "1000000000")
    assert overloaded.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("status", [500, 502, 503, 529])
def test_statuses_of_failure(status):
    with only(str(status)) as client:
        assert client.chat().status_code == status
        assert client.server.counts == {str(status): 1, status: 1}
        assert not client.server.billed


def test_reset_breaks_the_connection():
    with only("reset") as client, pytest.raises(httpx.ReadError):
        client.chat()


def test_hang_never_answers_and_ends_with_the_server():
    ended = []
    with ModelServer(faults={"hang": 1}) as server:

        def ask():
            with pytest.raises(httpx.TransportError):
                httpx.post(server.base_url + "/chat/completions", json={"messages": HELLO}, timeout=30, trust_env=False)
            ended.append(time.perf_counter())

        thread = threading.Thread(target=ask)
        thread.start()
        while not server.in_flight:
            time.sleep(0.005)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                server.base_url + "/messages",
                json={"messages": HELLO, "max_tokens": 1},
                headers=ANTHROPIC,
                timeout=0.05,
                trust_env=False,
            )
        stopped = time.perf_counter()
    thread.join()
    assert ended[0] - stopped < 1
    assert server.in_flight == 0
    assert server.counts == {"hang": 2}


def test_cut_promises_more_than_it_sends():
    with only("cut") as client, pytest.raises(httpx.RemoteProtocolError):
        client.chat()


def test_cut_json_is_whole_http_with_half_a_body():
    with only("cut_json") as client:
        reply = client.chat()
    assert reply.status_code == 200
    with pytest.raises(ValueError, match="line 1"):
        reply.json()


def test_count_drops_or_adds_one():
    with only("count") as client:
        whole = len(MODEL.prompt(PROMPT)) + 1
        assert len(client.echo()["logprobs"]["token_logprobs"]) < whole - 1
        assert len(client.complete(prompt_logprobs=1).json()["choices"][0]["prompt_logprobs"]) < whole - 2
        assert len(client.generate(logprob_start_len=0).json()["meta_info"]["input_token_logprobs"]) < whole - 2
        lengths = set()
        for last in range(6):
            client.server.answer = lambda _, last=last: f'{{"a": [1, 2, {last}]}}'
            lengths.add(len(json.loads(client.choice()["message"]["content"])["a"]))
            client.server.answer = lambda _, last=last: f"a\t1\nb\t2\nc\t{last}"
            lengths.add(len(client.choice()["message"]["content"].splitlines()))
    assert lengths == {2, 4}


def test_nan_stands_for_logprobs_or_in_the_answer():
    with only("nan", answer=lambda _: "[1, 2, 3]") as client:
        values = client.echo()["logprobs"]["token_logprobs"][1:]
        assert not np.isfinite(values).any()
        assert client.choice()["message"]["content"] == "[1, 2, NaN]"
        with_logprobs = client.choice(logprobs=True, top_logprobs=2)
        assert with_logprobs["message"]["content"] == "[1, 2, 3]"
        assert not np.isfinite([entry["logprob"] for entry in with_logprobs["logprobs"]["content"]]).any()


def test_drip_sends_a_byte_at_a_time():
    with only("drip", drip_s=0.0002) as client:
        assert client.chat().json()["choices"][0]["message"]["content"] == "ok"
        client.server.drip_s = 0.05
        with (
            pytest.raises(httpx.ReadTimeout),
            client.http.stream(
                "POST", client.server.base_url + "/chat/completions", json={"messages": HELLO}, timeout=0.02
            ) as reply,
        ):
            reply.read()


def test_an_error_comes_with_status_200():
    with only("error200") as client:
        reply = client.chat()
        assert reply.status_code == 200
        assert "message" in reply.json()["error"]
        assert not client.server.billed


def test_html_is_a_502_page():
    with only("html") as client:
        reply = client.chat()
    assert (reply.status_code, reply.headers["content-type"]) == (502, "text/html")


def test_faults_are_drawn_from_the_seed_the_body_and_how_often_it_came():
    def statuses(seed):
        with serve(faults={"429": 0.3, "500": 0.3}, fault_seed=seed) as client:
            return [client.chat([{"role": "user", "content": str(n % 20)}]).status_code for n in range(60)]

    assert statuses(1) == statuses(1) != statuses(2)
    assert 10 < statuses(1).count(200) < 40
    assert len({tuple(statuses(1)[start::20]) for start in range(20)}) > 3


def test_a_run_through_all_faults_ends_with_every_reply_billed_once():
    names = ("429", "500", "reset", "cut", "cut_json", "count", "nan", "error200", "html")
    with serve(faults=dict.fromkeys(names, 0.08), answer=lambda _: "[1, 2]") as client:
        whole = 0
        for n in range(150):
            try:
                whole += client.chat([{"role": "user", "content": str(n)}]).status_code == 200
            except httpx.TransportError:
                continue
        server = client.server
        assert {name for name in server.counts if isinstance(name, str)} == set(names)
        assert sum(server.billed.values()) == whole - server.counts["error200"]
        assert server.n_requests == len(server.requests) == 150
    assert server.in_flight == 0


# Bookkeeping and life.


def test_requests_are_kept_and_forgotten():
    with serve() as client:
        client.chat(max_tokens=7)
        server = client.server
        path, body, headers = server.requests[0]
        assert (path, body["max_tokens"]) == ("/v1/chat/completions", 7)
        assert headers["content-type"] == "application/json"
        raw = client.http.build_request("POST", server.url, json=body).content
        assert server.billed == {body_hash(raw): 1}
        stats = client.http.get(server.url + "/stats").json()
        assert (stats["n_requests"], stats["counts"]) == (1, {"200": 1})
        server.forget()
        assert (server.requests, server.n_requests, server.billed) == ([], 0, {})


def test_a_failure_of_the_answer_is_told_where_the_server_stops():
    def answer(_):
        raise ZeroDivisionError

    server = ModelServer(answer=answer)
    server.start()
    reply = httpx.post(server.base_url + "/chat/completions", json={"messages": HELLO}, trust_env=False)
    assert reply.status_code == 500
    with pytest.raises(RuntimeError, match="itself failed"):
        server.stop()


def test_a_server_that_was_stopped_serves_its_port_again():
    with serve() as client:
        client.chat()
        port = client.server.port
        with pytest.raises(OSError, match="in use"):
            ModelServer(port=port).start()
    with serve(port=port) as client:
        assert client.chat().status_code == 200


def test_a_process_of_its_own_prints_its_url_and_ends_on_sigterm():
    script = Path(model_server.__file__)
    command = [sys.executable, script, "--canned-bytes", "3000", "--wait-ms", "1", "--set", 'model_name="mine"']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        with httpx.Client(trust_env=False) as http:
            assert http.get(url + "/v1/models").json()["data"][0]["id"] == "mine"
            assert len(http.post(url + "/v1/chat/completions", json={"messages": HELLO}).content) == 3000
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
