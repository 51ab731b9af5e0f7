"""The probe finds out what a server can do, whatever it says of itself, and stops a run that cannot work."""

from __future__ import annotations

import asyncio
import importlib
import json
import socket

import pytest
from asking import answer
from model_server import ModelServer

from nscore._sending.retry import Outcome, Retries
from nscore._sending.transport import Answer
from nscore.backends import VLLM, Anthropic, OpenAI, SGLang
from nscore.errors import BackendError
from nscore.exchange import Capabilities
from nscore.probe import aprobe, check_needs, probe
from nscore.simulators import AllAtOnce, JsonList, TabList, TokenByToken

probe_module = importlib.import_module("nscore.probe")  # the package has the function under this name
CANARY = "canary-key-1234"
SPEAKERS = [OpenAI, VLLM, SGLang]
EVERYTHING = Capabilities(logprobs=15, prompt_logprobs=15, aligned=True, structured=True, ten=1)
MOST_REQUESTS = 8


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(probe_module, "RETRIES", Retries(attempts=4, base_s=0.01, longest_wait_s=1.0))
    for name in ("HTTP_PROXY", "ALL_PROXY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def found(kind=OpenAI, most=MOST_REQUESTS, **switches):
    with ModelServer(**{"answer": answer} | switches) as server:
        can = probe(kind("tiny", base_url=server.base_url, api_key=CANARY), timeout_s=5)
        assert server.n_requests <= most
    return can


def differs(can, given=EVERYTHING):
    """What was found otherwise than on a server that can do everything."""
    return {name: getattr(can, name) for name in can.__slots__ if getattr(can, name) != getattr(given, name)}


@pytest.mark.parametrize("kind", SPEAKERS)
def test_a_server_that_can_do_everything(kind):
    assert found(kind, most=5) == EVERYTHING


def test_anthropic_gives_answers_alone():
    assert found(Anthropic, most=1) == Capabilities(completions=False)
    assert found(Anthropic, thinking="field").thinks


@pytest.mark.parametrize("kind", SPEAKERS)
@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({"bos": False}, {}),
        ({"list_bos": False}, {}),
        ({"token_style": "bytes"}, {}),
        ({"offsets": None, "chat_bytes": False}, {}),
        ({"merge_tab_unknown": True}, {}),
        ({"ten_is_one_token": False}, {"ten": 2}),
        ({"structured": False}, {"structured": False}),
        ({"structured": "reject"}, {"structured": False}),
        ({"reject_max_tokens": True}, {"limit": "max_completion_tokens"}),
        ({"reject_temperature": True}, {"temperature": False}),
        ({"max_logprobs": 5}, {"logprobs": 5, "prompt_logprobs": 5}),
        ({"max_logprobs": 5, "reject_logprobs": True}, {"logprobs": 5, "prompt_logprobs": 5}),
        ({"reject_chat_logprobs": True}, {"logprobs": 0}),
        ({"thinking": "inline"}, {"thinks": True}),
        ({"thinking": "field", "thought": "no"}, {"thinks": True}),
        ({"no_chat": True}, {"chat": False, "structured": False}),
    ],
    ids=str,
)
def test_what_a_server_lacks_or_calls_otherwise_is_found_out(kind, switches, expected):
    assert differs(found(kind, **switches)) == expected


@pytest.mark.parametrize("kind", [OpenAI, VLLM])
def test_without_completions_there_are_answers_and_their_logprobs(kind):
    can = found(kind, no_completions=True)
    assert differs(can) == {"completions": False, "prompt_logprobs": 0, "aligned": None}


@pytest.mark.parametrize("kind", SPEAKERS)
def test_logprobs_that_are_silently_ignored_are_not_there(kind):
    expected = {"logprobs": 0, "prompt_logprobs": 0, "aligned": None, "ten": None}
    can = found(kind, ignore_logprobs=True, ignore_prompt_logprobs=True)
    assert differs(can) == expected


@pytest.mark.parametrize(
    ("kind", "switches"),
    [
        (OpenAI, {"ignore_echo": True}),
        (VLLM, {"ignore_prompt_logprobs": True}),
        (SGLang, {"ignore_prompt_logprobs": True}),
    ],
)
def test_a_prompt_whose_logprobs_are_silently_ignored(kind, switches):
    assert differs(found(kind, **switches)) == {"prompt_logprobs": 0, "aligned": None}


def test_a_server_like_llama_server_ignores_both_with_status_200():
    can = found(ignore_echo=True, ignore_logprobs=True)
    assert (can.logprobs, can.prompt_logprobs, can.completions) == (0, 0, True)


@pytest.mark.parametrize("ten_is_one_token", [True, False])
def test_a_server_like_llama_cpp_python_without_bos_gives_logprobs_of_other_tokens(ten_is_one_token):
    can = found(off_by_one=True, bos=False, list_bos=False, ten_is_one_token=ten_is_one_token)
    assert can.aligned is False


def test_reasoning_that_takes_all_the_room_is_asked_again_with_more():
    can = found(thinking="field", thought="a word " * 40, no_completions=True)
    assert (can.thinks, can.logprobs, can.ten, can.structured) == (True, 15, 1, True)


def test_a_model_that_refuses_all_it_can_is_understood_in_eight_requests():
    switches = {"reject_max_tokens": True, "reject_chat_logprobs": True, "structured": "reject", "no_completions": True}
    can = found(thinking="field", thought="a word " * 40, **switches)
    assert (can.limit, can.logprobs, can.thinks, can.structured) == ("max_completion_tokens", 0, True, False)


@pytest.mark.parametrize("kind", [*SPEAKERS, Anthropic])
def test_a_bad_key_stops_at_once_without_showing_it(kind):
    with ModelServer(api_key="right") as server:
        with pytest.raises(BackendError, match="status 401") as caught:
            probe(kind("tiny", base_url=server.base_url, api_key=CANARY))
        assert server.n_requests == 1
    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert "canary" not in shown
    assert f"tiny at {server.url}" in shown


@pytest.mark.parametrize("kind", [*SPEAKERS, Anthropic])
def test_a_closed_port_is_told_in_words(kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(BackendError, match=f"tiny at http://127.0.0.1:{port}.*: connection: "):
        probe(kind("tiny", base_url=f"http://127.0.0.1:{port}/v1", api_key=CANARY))


def test_a_wrong_address_is_told_with_what_to_look_at():
    with (
        ModelServer() as server,
        pytest.raises(BackendError, match=r"status 404.*Invalid URL.*See whether the base URL"),
    ):
        probe(OpenAI("tiny", base_url=server.url))


def test_a_server_that_hangs_is_left_in_time_and_not_asked_again():
    with ModelServer(faults={"hang": 1}) as server:
        with pytest.raises(BackendError, match="timeout"):
            probe(OpenAI("tiny", base_url=server.base_url), timeout_s=0.2)
        assert server.n_requests == 1


@pytest.mark.parametrize("fault", ["429", "503", "reset", "error200", "cut_json", "html"])
def test_a_busy_server_is_asked_again_a_little(fault):
    with ModelServer(answer=answer, faults={fault: 0.4}, fault_seed=3, retry_after=("seconds",)) as server:
        assert probe(OpenAI("tiny", base_url=server.base_url)) == EVERYTHING
        assert 6 <= server.n_requests <= 20


@pytest.mark.parametrize(("fault", "told"), [("429", "status 429"), ("503", "status 503"), ("reset", "connection")])
def test_a_server_that_stays_busy_is_told(fault, told):
    with ModelServer(faults={fault: 1}, retry_after=("absent",)) as server:
        with pytest.raises(BackendError, match=told):
            probe(OpenAI("tiny", base_url=server.base_url))
        assert server.n_requests == 4


def test_a_long_retry_after_is_not_waited_for():
    with ModelServer(faults={"429": 1}, retry_after=("huge",)) as server:
        with pytest.raises(BackendError, match="status 429"):
            probe(OpenAI("tiny", base_url=server.base_url))
        assert server.n_requests == 1


def test_the_async_twin_finds_the_same():
    with ModelServer(answer=answer) as server:
        assert asyncio.run(aprobe(OpenAI("tiny", base_url=server.base_url))) == EVERYTHING


# Servers in words: status and body of each route, as real ones have them.

CHAT = {"choices": [{"message": {"content": "10"}, "finish_reason": "stop"}]}
PLAIN = {"choices": [{"text": " red", "finish_reason": "length"}]}


def scripted(act, kind=OpenAI):
    """What is found of a server whose reply to (path, body) is (status, content); and the number of requests."""
    sent = []

    async def post(path, body):
        sent.append((path, json.loads(body)))
        status, content = act(*sent[-1])
        raw = json.dumps(content).encode()
        return Answer(Outcome("reply", status, None, "" if status == 200 else raw.decode()[:500]), raw, 0.0)

    async def sleep(_):
        pass

    run = probe_module._Probe(kind("m", base_url="http://host/v1", api_key=CANARY), post, sleep)  # noqa: SLF001
    can = asyncio.run(run.found())
    assert len(sent) <= MOST_REQUESTS
    return can


def error(message, **more):
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None} | more}


CHAT_MODEL = error(
    "This is a chat model and not supported in the v1/completions endpoint. Did you mean to use v1/chat/completions?",
    param="model",
)


def test_openai_says_of_completions_that_it_has_a_chat_model():
    can = scripted(lambda path, _: (200, CHAT) if "chat" in path else (404, CHAT_MODEL))
    assert (can.chat, can.completions, can.prompt_logprobs) == (True, False, 0)


def test_openai_says_of_chat_that_it_has_another_model():
    wrong = error("This is not a chat model and thus not supported in the v1/chat/completions endpoint.", param="model")
    can = scripted(lambda path, _: (404, wrong) if "chat" in path else (200, PLAIN))
    assert (can.chat, can.completions, can.structured) == (False, True, False)


@pytest.mark.parametrize("kind", [*SPEAKERS, Anthropic])
def test_a_model_that_is_not_there_is_told_in_the_servers_words(kind):
    missing = error("The model `m` does not exist or you do not have access to it.", code="model_not_found")
    with pytest.raises(BackendError, match=r"m at http://host.*status 404.*`m` does not exist"):
        scripted(lambda *_: (404, missing), kind)


REFUSED = {
    "prompt": (404, CHAT_MODEL),
    "max_tokens": (400, error("'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")),
    "temperature": (
        400,
        error("'temperature' does not support 0.0 with this model. Only the default (1) is supported."),
    ),
    "logprobs": (403, error("You are not allowed to request logprobs from this model")),
}


def reasoning(_, body):
    for name, refusal in REFUSED.items():
        if name in body:
            return refusal
    if "response_format" in body:
        return 200, {"choices": [{"message": {"content": '{"sizes": [1, 2, 3]}'}, "finish_reason": "stop"}]}
    if body["max_completion_tokens"] < 500:
        return 200, {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}
    return 200, CHAT


def test_a_reasoning_model_of_openai():
    assert scripted(reasoning) == Capabilities(
        completions=False,
        prompt_logprobs=0,
        structured=True,
        temperature=False,
        limit="max_completion_tokens",
        thinks=True,
    )


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "Requested sample logprobs of 15, which is greater than max allowed: 7", 7),
        (422, "1 validation error for Request top_logprobs Input should be less than or equal to 5, got 15", 5),
        (400, "top_logprobs is too large", 5),
        (400, "logprobs are not supported with gpt-5", 0),
        (403, "You are not allowed to request logprobs from this model", 0),
        (500, "logprobs is not supported for models created with logits_all=False", 0),
        (400, "Logprobs is not enabled for models/gemini-2.5-pro", 0),
    ],
)
def test_the_number_of_logprobs_is_learned_from_a_refusal(status, message, expected):
    asked = []

    def act(path, body):
        if "chat" not in path:
            return 404, CHAT_MODEL
        asked.append(body.get("top_logprobs", 0))
        if asked[-1] > expected:
            return status, error(message)
        top = [{"token": str(i), "logprob": -1.0} for i in range(asked[-1])]
        logprobs = {"content": [{"token": "10", "logprob": -1.0, "top_logprobs": top}]}
        return 200, {"choices": [CHAT["choices"][0] | {"logprobs": logprobs}]}

    assert scripted(act).logprobs == expected
    assert asked[:2] == [15, expected]


@pytest.mark.parametrize("status", [400, 422, 500])
def test_an_echo_that_is_refused_leaves_plain_completions(status):
    def act(path, body):
        if "chat" in path:
            return 200, CHAT
        return (status, error("echo is not supported")) if "echo" in body else (200, PLAIN)

    can = scripted(act)
    assert (can.completions, can.prompt_logprobs, can.aligned) == (True, 0, None)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_model_without_a_chat_template_takes_plain_text(status):
    no_template = error("default chat template is no longer allowed, so you must provide a chat template")
    can = scripted(lambda path, _: (status, no_template) if "chat" in path else (200, PLAIN))
    assert (can.chat, can.completions) == (False, True)


def test_what_no_change_mends_is_told():
    with pytest.raises(BackendError, match=r"status 400: .*must be spelled backwards"):
        scripted(lambda *_: (400, error("the model must be spelled backwards")))


@pytest.mark.parametrize("message", ["temperature", "logprobs", "max_completion_tokens", "echo", "logprobs: at most 3"])
def test_a_server_that_refuses_for_ever_is_left(message):
    with pytest.raises(BackendError, match="status 400"):
        scripted(lambda *_: (400, error(message)))


def test_no_money_and_no_permission_stop():
    for status, content in [(402, {}), (403, error("no")), (429, error("no", code="insufficient_quota"))]:
        with pytest.raises(BackendError, match=f"status {status}"):
            scripted(lambda *_, status=status, content=content: (status, content))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "null", "[1, 2, 3]", '{"sizes": [1, 2]}', '{"sizes": ["1", "2", "3"]}', "", "NaN"]
)
def test_another_structure_than_was_asked_for_is_none(text):
    def act(path, body):
        if "response_format" in body:
            return 200, {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
        return (200, CHAT) if "chat" in path else (404, CHAT_MODEL)

    assert scripted(act).structured is False


# What simulators need.


@pytest.mark.parametrize(
    ("simulator", "can", "missing", "would"),
    [
        (AllAtOnce(), Capabilities(logprobs=5), "gives no logprobs of the tokens of a prompt", True),
        (AllAtOnce(), Capabilities(completions=False), "has no completions of plain text; it gives no logprobs", False),
        (TokenByToken(), Capabilities(), "gives no logprobs of generated tokens", False),
        (
            AllAtOnce(),
            Capabilities(logprobs=5, prompt_logprobs=5, aligned=False),
            r"those it gives stand at other tokens than their own",
            True,
        ),
    ],
)
def test_a_run_that_cannot_work_is_told_what_is_missing_and_what_would_do(simulator, can, missing, would):
    with pytest.raises(BackendError, match=missing) as caught:
        check_needs([JsonList(), simulator], can, OpenAI("m", base_url="http://me:pass@host/v1"))
    said = str(caught.value)
    assert said.startswith(f"{simulator.name} cannot work with m at http://host/v1: ")
    assert ("token_by_token" in said.partition("would work there")[2]) is would
    assert "json_list" in said
    assert "tab_list" in said


def test_a_run_that_can_work_is_let_through():
    backend = OpenAI("m", base_url="http://host/v1")
    check_needs([AllAtOnce(), TokenByToken(), JsonList(), TabList()], EVERYTHING, backend)
    check_needs([AllAtOnce()], Capabilities(prompt_logprobs=1, aligned=None), backend)
    check_needs([JsonList(), TabList()], Capabilities(completions=False), backend)
