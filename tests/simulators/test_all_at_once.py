"""`all_at_once`: what it predicts is what the model held likely at each token's `unknown`, whoever spells the reply."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from model_server import ModelServer
from prompted import ONE, PIECES, SERVED, TOKENS, TWO, WIDE, Spelled, covering, expected_of, near, posted, read

from nscore.backends import VLLM, OpenAI, SGLang
from nscore.errors import ReplyError, SimulatorError
from nscore.exchange import Capabilities, Reply
from nscore.simulators import AllAtOnce

STYLES = ("replace", "bytes", "spm", "stripped")
OFFSETS = ("vllm", "exact", None)
BACKENDS = [OpenAI, VLLM, SGLang]


@pytest.fixture(scope="module")
def server():
    with ModelServer(record=False) as server:
        yield server


@pytest.fixture
def plain(server):
    set_up(server)
    return server


def set_up(server, **switches):
    usual = {"bos": True, "ten_is_one_token": True, "merge_tab_unknown": False, "faults": None}
    usual |= {"token_style": "replace", "offsets": "vllm", "list_bos": True}
    for name, value in (usual | switches).items():
        setattr(server, name, value)


def ask_of(tokens, can, explanation="the colour red"):
    (ask,) = AllAtOnce().asks(explanation, [tokens], can)
    return ask


def answered(server, kind, tokens, can):
    ask = ask_of(tokens, can)
    reply = posted(kind(model="tiny", base_url=server.base_url, api_key="k"), ask.prompt, can)
    return ask, read(AllAtOnce(), ask, [tokens], reply, can)


def expected_at(model, text, offset, top):
    """By the model alone: its tokens of the prompt, and its 15 likeliest where `unknown` stands."""
    tokens = model.tokenize(text)
    index, held = covering(tokens, len(text[:offset].encode()))
    return expected_of(model, model.prompt(text)[: index + model.bos], top, held=held)


def places_by_lines(text, n):
    """Where the last n `unknown` stand: after the tab of each of the prompt's last lines, whatever is in them."""
    lines = text.split("\n")[-n - 2 : -2]
    assert all(line.endswith("\tunknown") for line in lines)
    start = len(text) - len("<end>\n") - sum(len(line) + 1 for line in lines)
    places = []
    for line in lines:
        places.append(start + len(line) - len("unknown"))
        start += len(line) + 1
    return places


def is_sentencepiece(model, text):
    """Whether its tokens are such as sentencepiece has: a part of a character is one byte."""
    return all(len(t) == 1 or t.decode(errors="ignore").encode() == t for t in model.tokenize(text))


def check(model, ask, found, top):
    (found,) = found
    text = ask.prompt.text
    places = places_by_lines(text, len(found.status))
    for i, place in enumerate(places):
        wanted = expected_at(model, text, place, top)
        if wanted is None:
            assert (found.status[i], found.predicted[i]) == ("no_answer", None)
            assert found.digit_mass[i] is None
        else:
            assert found.status[i] == "ok"
            assert near(found.predicted[i], wanted[0])
            assert near(found.digit_mass[i], wanted[1])
            assert len(found.distribution[i]) == top + 1
            assert all(map(near, found.distribution[i], wanted[2]))


@SERVED
@given(
    tokens=TOKENS,
    kind=st.sampled_from(BACKENDS),
    style=st.sampled_from(STYLES),
    offsets=st.sampled_from(OFFSETS),
    bos=st.booleans(),
    list_bos=st.booleans(),
    one=st.booleans(),
)
def test_prediction_i_is_what_the_model_expects_at_token_i(server, tokens, kind, one, style, **switches):
    set_up(server, ten_is_one_token=one, token_style=style, **switches)
    ask, found = answered(server, kind, tokens, ONE if one else TWO)
    if style == "spm" and not is_sentencepiece(server.model, ask.prompt.text):
        assume(found != "parse_error")  # no server spells such tokens so
    check(server.model, ask, found, 10 if one else 9)


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("style", STYLES)
def test_every_odd_token_comes_out_right_in_one_record(server, kind, style):
    set_up(server, token_style=style)
    pieces = [p for p in PIECES if style != "spm" or is_sentencepiece(server.model, p)]
    ask, found = answered(server, kind, pieces, ONE)
    check(server.model, ask, found, 10)


@SERVED
@given(tokens=TOKENS, kind=st.sampled_from(BACKENDS), style=st.sampled_from(STYLES), bos=st.booleans())
def test_where_a_tab_and_unknown_are_one_token_nothing_is_predicted_wrong(server, tokens, kind, style, bos):
    set_up(server, merge_tab_unknown=True, token_style=style, bos=bos)
    ask, found = answered(server, kind, tokens, ONE)
    if found != "parse_error":
        check(server.model, ask, found, 10)


def test_ten_as_one_token_makes_a_scale_to_ten_and_as_two_a_scale_to_nine(plain):
    tokens = ["a", " red", " fox"] * 10
    _, (to_ten,) = answered(plain, OpenAI, tokens, ONE)
    assert {len(d) for d in to_ten.distribution} == {11}
    assert any(d[10] > 0 for d in to_ten.distribution)
    plain.ten_is_one_token = False
    ask, (to_nine,) = answered(plain, OpenAI, tokens, TWO)
    assert {len(d) for d in to_nine.distribution} == {10}
    assert max(to_nine.predicted) <= 9
    assert "from 0 (silent) to 9" in ask.prompt.text
    assert "\t10\n" not in ask.prompt.text


def test_ten_unknown_is_taken_for_two_tokens():
    assert AllAtOnce().top(Capabilities(ten=None)) == 9


def test_no_number_among_the_likeliest_is_no_answer_and_not_zero():
    ask = ask_of(["a", "b"], ONE)
    first, second = ask.prompt.places
    text = ask.prompt.text
    pieces = [text[:first], "unknown", text[first + 7 : second], "unknown", text[second + 7 :]]
    reply = Reply("", prompt=Spelled(pieces, {1: {"unknown": 0.9, " the": 0.1, "11": 0.1, "07": 0.1}, 3: {"4": 0.5}}))
    (found,) = read(AllAtOnce(), ask, [["a", "b"]], reply, ONE)
    assert found.status == ["no_answer", "ok"]
    assert found.predicted == [None, 4.0]
    assert found.digit_mass == [None, 0.5]


def test_a_token_without_alternatives_is_no_answer():
    ask = ask_of(["a"], ONE)
    (place,) = ask.prompt.places
    text = ask.prompt.text
    reply = Reply("", prompt=Spelled([text[:place], "unknown", text[place + 7 :]]))
    assert read(AllAtOnce(), ask, [["a"]], reply, ONE)[0].status == ["no_answer"]


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_reply_about_another_prompt_is_a_parse_error(plain, kind):
    backend = kind(model="tiny", base_url=plain.base_url, api_key="k")
    reply = posted(backend, ask_of(["a", " red"], ONE).prompt, ONE)
    for other in (ask_of(["a", " fox"], ONE), ask_of(["a", " red"], ONE, "foxes"), ask_of(["a", " red", "."], ONE)):
        with pytest.raises(ReplyError) as caught:
            AllAtOnce().read(other, [["a", " red", "."]], reply, ONE)
        assert caught.value.status == "parse_error"


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_reply_that_lacks_tokens_is_a_parse_error(server, kind):
    set_up(server, faults={"count": 1.0})
    assert answered(server, kind, ["a", " red"], ONE)[1] == "parse_error"


@pytest.mark.parametrize("kind", BACKENDS)
def test_logprobs_that_are_nan_are_no_answer(server, kind):
    set_up(server, faults={"nan": 1.0})
    (found,) = answered(server, kind, ["a", " red"], ONE)[1]
    assert found.status == ["no_answer"] * 2


def test_a_reply_without_logprobs_is_a_parse_error():
    assert read(AllAtOnce(), ask_of(["a"], ONE), [["a"]], Reply("5"), ONE) == "parse_error"


@WIDE
@given(st.lists(st.text(max_size=5), max_size=8), st.booleans())
def test_whatever_tokens_come_it_answers_or_says_parse_error(texts, whole):
    ask = ask_of(["a", "\t"], ONE)
    pieces = [ask.prompt.text, *texts] if whole else texts
    reply = Reply("", prompt=Spelled(pieces, {i: {"3": 0.5} for i in range(len(pieces))}))
    found = read(AllAtOnce(), ask, [["a", "\t"]], reply, ONE)
    assert found == "parse_error" or {s for p in found for s in p.status} <= {"ok", "no_answer"}


@WIDE
@given(st.lists(TOKENS, min_size=1, max_size=3), st.text(max_size=20))
@example([["\tunknown\n"] * 3], "\n<start>\n")
def test_each_record_is_one_prompt_whose_places_are_its_unknowns(records, explanation):
    asks = list(AllAtOnce().asks(explanation, records, ONE))
    assert [ask.spans for ask in asks] == [((i, 0, len(tokens)),) for i, tokens in enumerate(records)]
    for ask, tokens in zip(asks, records, strict=True):
        assert list(ask.prompt.places) == places_by_lines(ask.prompt.text, len(tokens))
        assert ask.prompt.form == "text"
        assert ask.prompt.prompt_logprobs == 15
    heads = {ask.prompt.text[: ask.prompt.text.rindex("<start>\n", 0, ask.prompt.places[0])] for ask in asks}
    assert len(heads) == 1  # the records of an explanation share all that is before them


@pytest.mark.parametrize("options", [{"replicates": 2}, {"temperature": 0.5}])
def test_what_samples_nothing_takes_no_replicates_and_no_temperature(options):
    with pytest.raises(SimulatorError, match="samples nothing"):
        AllAtOnce(**options)


def test_of_a_token_that_holds_several_places_only_the_first_is_answered():
    ask = ask_of(["a", "b", "c"], ONE)
    text, (first, second, third) = ask.prompt.text, ask.prompt.places
    tokens = [text[:first], text[first : third - 1], text[third - 1 : third], text[third:]]
    held = text[first:second]
    chances = {1: {"3": 0.5, held + "9": 0.4}, 3: {"7": 0.5}}
    (found,) = read(AllAtOnce(), ask, [["a", "b", "c"]], Reply("", prompt=Spelled(tokens, chances)), ONE)
    assert (found.status, found.predicted) == (["ok", "no_answer", "ok"], [3.0, None, 7.0])
