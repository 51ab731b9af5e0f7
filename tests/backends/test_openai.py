"""OpenAI's forms: what is sent, and what the servers that speak them answer."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import msgspec
import pytest
from backends.fixtures import (
    CAN,
    CHAT,
    ECHO,
    HALF,
    PLACE,
    PLAIN,
    QUARTER,
    TEXT,
    all_made,
    at_unknown,
    content,
    made,
    raw,
)

from nscore._sending.align import locate
from nscore.backends import VLLM, Anthropic, Backend, OpenAI, Server, SGLang
from nscore.errors import BackendError, ReplyError
from nscore.exchange import Usage

KINDS = [OpenAI, VLLM, SGLang, Anthropic]
CANARY = "canary-key-1234"
SECRET_URL = "https://me:s3cret%2Fword@host:8000/v1/?key=hunter22"  # noqa: S105  # none of anybody's


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def read(name, kind=OpenAI):
    return made(kind).read(raw(name))


def refused(raw_reply, kind=OpenAI):
    with pytest.raises(ReplyError) as caught:
        made(kind).read(raw_reply)
    return caught.value


# What is sent.


def test_a_chat_asks_with_logprobs_and_the_schema():
    assert made(OpenAI).call(CHAT, CAN) == (
        "/chat/completions",
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Rate."},
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "[1]"},
                {"role": "user", "content": "b"},
            ],
            "max_tokens": 30,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": 5,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "activations", "strict": True, "schema": {"type": "object"}},
            },
        },
    )


def test_what_the_server_cannot_do_is_not_asked_for():
    can = replace(CAN, logprobs=0, structured=False, temperature=False, limit="max_completion_tokens")
    body = made(OpenAI).call(CHAT, can).body
    assert set(body) == {"model", "messages", "max_completion_tokens"}
    assert body["max_completion_tokens"] == 30


def test_a_prompt_whose_logprobs_are_wanted_is_echoed_by_completions():
    assert made(OpenAI).call(ECHO, CAN) == (
        "/completions",
        {"model": "m", "prompt": TEXT, "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 3},
    )


def test_no_more_logprobs_are_asked_for_than_the_server_gives_and_none_where_it_gives_none():
    assert made(OpenAI).call(ECHO, replace(CAN, prompt_logprobs=2)).body["logprobs"] == 2
    assert not {"echo", "logprobs"} & made(OpenAI).call(ECHO, replace(CAN, prompt_logprobs=0)).body.keys()
    assert made(OpenAI).call(PLAIN, CAN).body["logprobs"] == 5
    assert "logprobs" not in made(OpenAI).call(PLAIN, replace(CAN, logprobs=0)).body


def test_completions_limit_by_max_tokens_whatever_chat_calls_it():
    assert made(OpenAI).call(PLAIN, replace(CAN, limit="max_completion_tokens")).body["max_tokens"] == 2


def test_where_there_is_no_chat_a_conversation_is_sent_as_plain_text():
    call = made(OpenAI).call(CHAT, replace(CAN, chat=False))
    assert call.path == "/completions"
    assert call.body["prompt"] == "Rate.\n\na\nAnswer: [1]\n\nb\nAnswer:"
    assert not {"messages", "response_format", "top_logprobs"} & call.body.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_thinking_gets_room_of_its_own_in_a_conversation(kind):
    assert made(kind, thinking_tokens=100).call(CHAT, replace(CAN, thinks=True)).body["max_tokens"] == 130


@pytest.mark.parametrize("kind", [OpenAI, VLLM])
def test_a_plain_text_gets_no_room_for_thinking(kind):
    # all at once on a model that thinks would generate 4,096 tokens for each record
    thinks = replace(CAN, thinks=True)
    assert made(kind).call(ECHO, thinks).body["max_tokens"] == 1
    assert made(kind).call(CHAT, replace(thinks, chat=False)).body["max_tokens"] == 30


def test_replicates_differ_by_their_seed():
    bodies = [made(OpenAI).call(replace(CHAT, temperature=1.0), CAN, seed=seed).body for seed in (0, 1)]
    assert [(body["seed"], body["temperature"]) for body in bodies] == [(0, 1.0), (1, 1.0)]


@pytest.mark.parametrize("kind", KINDS)
def test_extra_fields_come_last_and_none_leaves_out(kind):
    extra = {"temperature": None, "max_tokens": 9, "reasoning_effort": "low"}
    body = made(kind, extra=extra).call(CHAT, CAN).body
    assert "temperature" not in body
    assert (body["max_tokens"], body["reasoning_effort"]) == (9, "low")


@pytest.mark.parametrize("kind", KINDS)
def test_bodies_are_json_and_each_kind_is_a_backend(kind):
    server = made(kind)
    assert isinstance(server, Backend)
    assert json.loads(msgspec.json.encode(server.call(CHAT, CAN, seed=3).body))


# What comes back.


def test_a_chat_with_logprobs():
    reply = read("openai_chat_logprobs")
    assert (reply.text, reply.finish, reply.thought, reply.prompt) == ("[4]", "stop", False, None)
    assert reply.usage == Usage(1221, 3, 1152)
    assert (list(reply.tokens.texts), reply.tokens.exact) == (["[", "4", "]"], [b"[", b"4", b"]"])
    assert reply.tokens.top(1) == [("4", HALF), ("0", QUARTER), ("five", -2.1)]


def test_a_refusal_and_a_content_filter_are_refused():
    refusal = read("openai_chat_refusal")
    assert (refusal.finish, refusal.text) == ("refused", "I will not rate this text.")
    assert read("openai_chat_content_filter").finish == "refused"


def test_reasoning_that_took_all_the_room_is_an_answer_cut_short():
    reply = read("openai_chat_reasoning_length")
    assert (reply.text, reply.finish, reply.usage) == ("", "length", Usage(17, 16, 0))


def test_a_message_without_content_is_no_answer():
    error = refused(raw("openai_chat_tool_calls"))
    assert (error.status, error.again) == ("parse_error", False)


@pytest.mark.parametrize(
    "name",
    [
        "vllm_chat_reasoning_content",
        "openrouter_reasoning",
        "vllm_chat_thinking_inline",
        "vllm_chat_thinking_without_its_beginning",
    ],
)
def test_thinking_is_not_the_answer(name):
    reply = read(name)
    assert (reply.text.strip(), reply.thought, reply.finish) == ("[4]", True, "stop")


def test_thinking_that_was_cut_is_no_answer():
    reply = read("vllm_chat_thinking_cut")
    assert (reply.text, reply.thought, reply.finish) == ("", True, "length")


def test_cached_tokens_are_counted():
    assert read("openrouter_reasoning").usage == Usage(21, 12, 16)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("vllm_completions_echo", "<s>"),
        ("llama_cpp_python_completions_echo", "A"),
        ("together_completions_echo", "<s>"),
    ],
)
def test_an_echoed_prompt_comes_with_its_logprobs(name, first):
    reply = read(name)
    assert reply.prompt.texts[0] == first
    assert locate(TEXT, [PLACE], reply.prompt.texts)[0].prefix == ""
    assert at_unknown(reply) == {"0": HALF, "4": QUARTER}
    assert reply.usage == Usage(6, 1, None)
    assert reply.prompt.top(0) == reply.prompt.top(99) == []


def test_together_gives_generated_tokens_beside_the_prompt():
    reply = read("together_completions_echo")
    assert (reply.text, list(reply.tokens.texts), reply.tokens.top(0)) == ("\n", ["\n"], [("\n", -1.5), ("A", -0.5)])
    alone = read("together_completions_echo_of_one_logprob")
    assert alone.prompt is alone.tokens is None


@pytest.mark.parametrize("name", ["llama_cpp_python_chat", "together_chat"])
def test_logprobs_of_a_chat_in_the_form_of_completions(name):
    reply = read(name)
    assert (reply.text, list(reply.tokens.texts), reply.tokens.exact) == ("[4]", ["[", "4", "]"], None)
    assert reply.tokens.top(1) == [("4", HALF), ("0", QUARTER)]


def test_a_real_echo_of_llama_cpp_python():
    reply = read("llama_cpp_echo_real")
    prompt = reply.text.removesuffix("fir")
    found = locate(prompt, [prompt.index("10"), prompt.index("unknown")], reply.prompt.texts, reply.prompt.exact)
    assert [(reply.prompt.texts[f.index], f.prefix) for f in found] == [("10", ""), ("unknown", "")]
    assert (len(reply.prompt.top(3)), reply.prompt.top(0), reply.usage) == (4, [], Usage(11, 1, None))


def test_a_real_chat_of_llama_cpp_python():
    reply = read("llama_cpp_chat_real")
    assert "".join(reply.tokens.texts) == reply.text == "10S10"
    assert reply.tokens.exact is None
    assert [text for text, _ in reply.tokens.top(0)] == ["10", "4", "6"]


@pytest.mark.parametrize("name", ["openrouter_error", "openrouter_choice_error", "sglang_error"])
def test_an_error_with_status_200_is_worth_another_try(name):
    error = refused(raw(name))
    assert (error.status, error.again) == ("http_error", True)


@pytest.mark.parametrize(
    "sent",
    [
        b'{"error": "overloaded"}',
        b'{"error": {"message": "m"}, "choices": []}',
        b'{"choices": []}',
        b'{"choices": null}',
        b"{}",
        b'{"error": {}, "choices": [{"message": {"content": "[4]"}}]}',
    ],
)
def test_errors_of_any_shape_are_worth_another_try(sent):
    assert refused(sent).again


@pytest.mark.parametrize("sent", [b"", b"<html><body>502</body></html>", b"\xff\xfe", b"upstream error", b'{"choi'])
def test_what_is_no_json_is_worth_another_try(sent):
    error = refused(sent)
    assert (error.status, error.again) == ("parse_error", True)


@pytest.mark.parametrize("name", ["openai_chat_logprobs", "vllm_completions_echo", "openrouter_reasoning"])
def test_half_a_reply_is_worth_another_try(name):
    whole = raw(name)
    assert all(refused(whole[:end]).again for end in range(0, len(whole.rstrip()), 97))


@pytest.mark.parametrize("sent", [b"[]", b"null", b"3", b'"ok"', b'{"choices": 3}', b'{"choices": [[]]}'])
def test_json_of_another_shape_would_come_again(sent):
    error = refused(sent)
    assert (error.status, error.again) == ("parse_error", False)


@pytest.mark.parametrize(
    "usage", ["null", "[]", '"3"', "{}", '{"prompt_tokens": 3.5}', '{"prompt_tokens": -3}', '{"prompt_tokens": "3"}']
)
def test_an_answer_stands_whatever_the_usage_is(usage):
    reply = made(OpenAI).read(b'{"choices": [{"message": {"content": "[4]"}}], "usage": %s}' % usage.encode())
    assert (reply.text, reply.usage.prompt_tokens) == ("[4]", None)


def test_an_echoed_key_is_in_no_error():
    said = {"error": {"message": f"Incorrect key {CANARY}; {'x' * 280}{CANARY}"}}
    for server in all_made():
        with pytest.raises(ReplyError) as caught:
            server.read(json.dumps(said | {"type": "error"}).encode())
        assert "canary" not in str(caught.value)
    abort = content("sglang_generate_abort")
    abort["meta_info"]["finish_reason"]["message"] = f"key {CANARY}"
    assert CANARY not in str(refused(json.dumps(abort).encode(), SGLang))


# Keys and addresses.


@pytest.mark.parametrize(("kind", "variable"), [(k, "ANTHROPIC" if k is Anthropic else "OPENAI") for k in KINDS])
def test_the_environment_is_read_when_a_backend_is_made(kind, variable, monkeypatch):
    assert not any(CANARY in value for value in kind("m").headers().values())
    monkeypatch.setenv(f"{variable}_API_KEY", CANARY)
    monkeypatch.setenv(f"{variable}_BASE_URL", "http://elsewhere:9/v1")
    server = kind("m")
    assert any(CANARY in value for value in server.headers().values())
    assert server.url.startswith("http://elsewhere:9")
    given = kind("m", base_url="http://given/v1", api_key="another-key")
    assert not any(CANARY in value for value in given.headers().values())
    assert given.url.startswith("http://given")


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_is_shown(kind, caplog):
    caplog.set_level(logging.DEBUG)
    server = kind("m", base_url=SECRET_URL, api_key=CANARY)
    shown = f"{server!r} {server} {server.url} {server.settings()} {caplog.text}"
    assert not [secret for secret in (CANARY, "s3cret", "hunter22", "me:") if secret in shown]
    assert server.url.removesuffix("/v1") == "https://host:8000"
    assert {CANARY, "s3cret%2Fword", "s3cret/word", "hunter22"} <= set(server.secrets())


@pytest.mark.parametrize("kind", KINDS)
def test_secrets_in_the_address_are_sent(kind):
    assert made(kind, base_url=SECRET_URL).address.removesuffix("?key=hunter22").removesuffix("/v1") == (
        "https://me:s3cret%2Fword@host:8000"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "url",
    [
        "host:8000/v1",
        "ftp://host",
        "http://",
        "http:///v1",
        "http://host:port/v1",
        "http://host:99999/v1",
        "http://[::1/v1",
        "http://ho\nst/v1",
        "http://host/v1\r\nx-evil: 1",
        "http://ho st/v1",
        "me:s3cret@host/v1",
        "http:me:s3cret?s3cret@host/v1",
        "//me:s3cret@host/v1?key=s3cret",
        "file:///etc/passwd",
    ],
)
def test_a_bad_address_is_refused_in_words_without_its_secrets(kind, url):
    with pytest.raises(BackendError, match=r"base_url=.*expected http://HOST") as caught:
        made(kind, base_url=url)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["", "  ", "a\nb", "a\x00", "\ud800"])
def test_a_bad_model_is_refused_in_words(kind, model):
    with pytest.raises(BackendError, match=r"model=.*name a model"):
        kind(model, base_url="http://host/v1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["a\n5ecr3t", "5ecr3t\r\n", "5écr3t", " 5ecr3t", "5ecr3t\x00"])
def test_a_bad_key_is_refused_without_showing_it(kind, key):
    with pytest.raises(BackendError, match="the API key holds characters") as caught:
        made(kind, api_key=key)
    assert key.strip() not in str(caught.value)


def test_settings_hold_all_that_decides_an_answer():
    server = made(OpenAI, extra={"reasoning_effort": "low"}, thinking_tokens=7)
    assert server.settings() == {
        "name": "openai",
        "model": "m",
        "base_url": "http://host:8000/v1",
        "extra": {"reasoning_effort": "low"},
        "thinking_tokens": 7,
    }
    again = OpenAI(**{k: v for k, v in server.settings().items() if k != "name"})
    assert again.settings() == server.settings()


@pytest.mark.parametrize("count", [10**19, 2**63, 10**400])
def test_more_tokens_than_a_table_holds_were_not_counted(count):
    sent = {"choices": [{"message": {"content": "[4]"}}], "usage": {"prompt_tokens": count, "completion_tokens": 3}}
    assert made(OpenAI).read(json.dumps(sent).encode()).usage == Usage(None, 3, None)


@pytest.mark.parametrize("kind", KINDS)
def test_no_part_of_a_key_is_shown_of_an_error_however_often_it_holds_one(kind):
    said = " ".join([CANARY] * 400)
    error = refused(json.dumps({"type": "error", "error": said}).encode(), kind)
    assert "canary" not in str(error)
    assert "***" in str(error)


def test_a_server_of_no_kind_has_no_name():
    with pytest.raises(NotImplementedError):
        _ = Server("m").name


def test_an_echo_of_no_tokens_holds_none():
    reply = made(VLLM).read(b'{"choices": [{"text": "", "prompt_logprobs": []}], "prompt_logprobs": []}')
    assert reply.prompt.texts == []


@pytest.mark.parametrize("change", [lambda tops: tops[1:], lambda tops: [None, *tops]], ids=["fewer", "more"])
def test_alternatives_of_more_or_fewer_tokens_are_no_logprobs(change):
    there = content("vllm_completions_echo")
    logprobs = there["choices"][0]["logprobs"]
    logprobs["top_logprobs"] = change(logprobs["top_logprobs"])
    reply = made(OpenAI).read(json.dumps(there).encode())
    assert reply.prompt is reply.tokens is None
