"""`token_by_token`: one request for each token, whose answer's number gives the expected value."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_server import ModelServer
from prompted import ONE, PLAIN, SERVED, TOKENS, TWO, WIDE, Spelled, covering, expected_of, near, posted, read
from tiny_model import chat_text

from nscore.backends import OpenAI
from nscore.exchange import Reply
from nscore.simulators import TokenByToken


@pytest.fixture(scope="module")
def server():
    with ModelServer(record=False) as server:
        yield server


def asks_of(records, can=ONE):
    return list(TokenByToken().asks("the colour red", records, can))


def answered(server, answer, *, can=ONE, tokens=("a", " red"), **switches):
    """What is read of the server's reply about the last token, and what the model expected at the answer's number."""
    usual = {"thinking": None, "refusal": None, "content_filter": False, "ten_is_one_token": True, "chat_bytes": True}
    for name, value in (usual | switches).items():
        setattr(server, name, value)
    server.answer = lambda _: answer
    ask = asks_of([tokens], can)[-1]
    reply = posted(OpenAI(model="tiny", base_url=server.base_url, api_key="k"), ask.prompt, can)
    return ask, read(TokenByToken(), ask, [tokens], reply, can)


def model_expects(server, ask, answer, top):
    model = server.model
    thought = f"<think>{server.thought}</think>" if server.thinking == "inline" else ""
    before = model.tokenize(server.thought) if server.thinking == "field" else []
    said = model.tokenize(thought + answer)
    digit = next(i for i, char in enumerate(answer) if char.isdigit())
    index, held = covering(said, len((thought + answer[:digit]).encode()))
    messages = [{"role": m.role, "content": m.text} for m in ask.prompt.messages]
    prefix = [*model.prompt(chat_text(messages)), *before, *said[:index]]
    return expected_of(model, prefix, top, held=held, chosen=said[index])


@WIDE
@given(st.lists(TOKENS, min_size=1, max_size=3), st.text(max_size=10))
def test_n_tokens_make_n_prompts_that_differ_in_their_last_message_only(records, explanation):
    asks = list(TokenByToken().asks(explanation, records, ONE))
    assert [a.spans for a in asks] == [((r, i, i + 1),) for r, tokens in enumerate(records) for i in range(len(tokens))]
    assert len({a.prompt.messages[:-1] for a in asks}) == 1
    for ask in asks:
        ((record, start, _),) = ask.spans
        last = ask.prompt.messages[-1]
        assert last.role == "user"
        assert last.text.count("\n") == 2  # no token breaks a line
        assert ask.prompt.logprobs == 15
        if start:
            before = next(a for a in asks if a.spans == ((record, start - 1, start),)).prompt.messages[-1].text
            assert last.text.startswith(before.rpartition("\nLast token: ")[0])


@SERVED
@given(
    tokens=TOKENS,
    answer=st.sampled_from(["7", "10", "Activation: 7", "1"]),
    one=st.booleans(),
    thinking=st.sampled_from([None, "field", "inline"]),
    chat_bytes=st.booleans(),
)
def test_the_prediction_is_what_the_model_expected_at_its_number(server, tokens, answer, one, **switches):
    answer = answer if one else answer.replace("10", "9")
    server.thought = "It may be 3, or 7."
    can = replace(ONE if one else TWO, thinks=True)  # thinking takes from the same limit
    ask, found = answered(server, answer, can=can, tokens=tokens, ten_is_one_token=one, **switches)
    (found,) = found
    wanted = model_expects(server, ask, answer, 10 if one else 9)
    assert found.status == ["ok"]
    assert near(found.predicted[0], wanted[0])
    assert near(found.digit_mass[0], wanted[1])
    assert all(map(near, found.distribution[0], wanted[2]))


def logprobs(*tokens):
    """A reply of these tokens; each number among them stands against a 3 that is as likely."""
    chances = {
        i: {t: 0.3, t.replace(t.strip(" .*\n"), "3"): 0.3} for i, t in enumerate(tokens) if any(map(str.isdigit, t))
    }
    return {"tokens": Spelled(tokens, chances)}


@pytest.mark.parametrize(
    ("tokens", "value"),
    [
        (["7"], 5.0),
        ([" 7"], 5.0),
        (["", "7"], 5.0),
        (["\n", "7", "\n"], 5.0),
        (["▁7"], 5.0),
        (["10"], 6.5),
        (["7\n"], 5.0),
    ],
)
def test_the_number_is_found_however_its_token_is_spelled(tokens, value):
    ask = asks_of([["a"]])[0]
    text = "".join(tokens).replace("▁", " ")
    for shown in {text, text.strip()}:
        (found,) = read(TokenByToken(), ask, [["a"]], Reply(shown, **logprobs(*tokens)), ONE)
        assert found.status == ["ok"]
        assert near(found.predicted[0], value)
        assert near(found.digit_mass[0], 0.6)


@pytest.mark.parametrize("tokens", [["1", "0"], ["1", "7"], ["0", "7"], ["100"], ["1", "0", "0"]])
def test_the_first_digit_of_a_longer_number_is_not_taken_for_the_number(tokens):
    ask = asks_of([["a"]], TWO)[0]
    found = read(TokenByToken(), ask, [["a"]], Reply("".join(tokens), **logprobs(*tokens)), TWO)
    assert found[0].status == ["no_answer"]
    assert found[0].predicted == [None]


@pytest.mark.parametrize("text", ["", " ", "\n\n"])
def test_a_blank_answer_that_was_cut_is_truncated_and_one_that_ended_is_a_parse_error(text):
    ask = asks_of([["a"]])[0]
    assert read(TokenByToken(), ask, [["a"]], Reply(text, "length", **logprobs(text)), ONE) == "truncated"
    assert read(TokenByToken(), ask, [["a"]], Reply(text, **logprobs(text)), ONE) == "parse_error"


def test_a_refusal_is_refused_and_words_are_a_parse_error():
    ask = asks_of([["a"]])[0]
    assert read(TokenByToken(), ask, [["a"]], Reply("7", "refused", **logprobs("7")), ONE) == "refused"
    assert read(TokenByToken(), ask, [["a"]], Reply("very", **logprobs("very")), ONE) == "parse_error"


def test_a_reply_without_logprobs_is_a_parse_error():
    assert read(TokenByToken(), asks_of([["a"]])[0], [["a"]], Reply("7"), ONE) == "parse_error"


@pytest.mark.parametrize("switch", [{"refusal": "I cannot."}, {"content_filter": True}])
def test_a_refusal_by_the_server_is_refused(server, switch):
    assert answered(server, "7", **switch)[1] == "refused"


@WIDE
@given(st.text(max_size=12), st.lists(st.text(max_size=4), max_size=6), st.sampled_from(["stop", "length", "refused"]))
def test_whatever_is_answered_it_ends_as_a_status(text, tokens, finish):
    for given_tokens in (tokens, [text]):
        reply = Reply(text, finish, tokens=Spelled(given_tokens, {i: {"3": 0.5} for i in range(len(given_tokens))}))
        read(TokenByToken(), asks_of([["a"]])[0], [["a"]], reply, ONE)


def test_it_needs_logprobs_of_what_is_generated_and_asks_for_the_scale_that_can_be_read():
    assert TokenByToken().needs == {"logprobs"}
    for can, top in ((ONE, 10), (TWO, 9), (PLAIN, 9)):
        ask = asks_of([["a"]], can)[0]
        shown = [m.text for m in ask.prompt.messages if m.role == "assistant"]
        assert f"from 0 (silent) to {top}" in ask.prompt.messages[0].text
        assert max(map(int, shown)) == top


@pytest.mark.parametrize("tokens", [["-", "7"], ["-7"], ["\u2212", "7"], [".", "7"], ["-", "10"]])
def test_what_is_below_the_scale_or_between_its_numbers_is_a_parse_error(tokens):
    reply = Reply("".join(tokens), **logprobs(*tokens))
    assert read(TokenByToken(), asks_of([["a"]])[0], [["a"]], reply, ONE) == "parse_error"
