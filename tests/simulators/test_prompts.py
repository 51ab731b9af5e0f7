"""The words of the prompts: short, whole, true by their own parsers; and what every simulator that asks has in common."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompted import ONE, PIECES, PLAIN, TWO, WIDE, read

import nscore as ns
from nscore.exchange import Message, Prompt, Reply
from nscore.simulators import (
    SIMULATORS,
    AllAtOnce,
    Ask,
    JsonList,
    Predictions,
    Prompted,
    PromptSimulator,
    Shuffled,
    Simulator,
    Span,
    TabList,
    TokenByToken,
    resolve_simulator,
)
from nscore.simulators._prompts import examples, visible

LISTS = [JsonList(), JsonList(numbers_alone=True), TabList()]
ALL = [AllAtOnce(), TokenByToken(), *LISTS]
NAMES = ["all_at_once", "token_by_token", "json_list", "json_list_numbers", "tab_list"]
each = pytest.mark.parametrize("simulator", ALL, ids=NAMES)
BYTES_PER_TOKEN = 3.5


def text_of(ask):
    return "\n".join(m.text for m in ask.prompt.messages)


# The data file.


def test_the_lists_of_each_example_are_as_long_and_on_the_scale():
    for example in examples():
        assert len(example.tokens) == len(example.activations)
        assert 0 < example.unknown < len(example.tokens)
        assert min(example.activations) == 0
        assert max(example.activations) == 10
        assert all(t.strip() == t.strip("\n\t ") and t for t in example.tokens)
    assert len({e.explanation for e in examples()}) == len(examples())


@pytest.mark.parametrize("top", [9, 10])
def test_the_examples_show_the_ends_of_the_scale_that_is_asked_for(top):
    for example in examples():
        values = example.values(top)
        assert (min(values), max(values)) == (0, top)
        assert sorted(values) == [v for _, v in sorted(zip(example.activations, values, strict=True))]


@each
def test_the_version_of_the_prompts_stands_in_that_of_every_simulator(simulator):
    assert re.fullmatch(rf"{simulator.name}/[0-9]+", simulator.version)
    assert len({s.version.partition("/")[2] for s in ALL}) == 1


@each
@pytest.mark.parametrize("can", [ONE, TWO], ids=["ten", "nine"])
def test_instructions_name_the_end_of_the_scale_and_leave_no_gap(simulator, can):
    ask = next(iter(simulator.asks("foxes", [["a"]], can)))
    instruction = text_of(ask)[:600]
    assert f"from 0 (silent) to {simulator.top(can)} (its strongest)" in instruction
    assert not re.search(r"\{(?:top|echo)\}", text_of(ask))


@each
def test_what_every_prompt_repeats_is_short(simulator, record_property):
    whole = text_of(next(iter(simulator.asks("foxes", [["a"]], ONE))))
    tokens = len(whole.encode()) / BYTES_PER_TOKEN
    record_property("fixed_prompt_tokens", round(tokens))
    assert tokens < 700


@pytest.mark.parametrize("simulator", LISTS, ids=NAMES[2:])
@pytest.mark.parametrize("can", [ONE, TWO], ids=["ten", "nine"])
def test_the_answers_that_are_shown_give_the_examples_values(simulator, can):
    ask = next(iter(simulator.asks("foxes", [["a"]], can)))
    answers = [m.text for m in ask.prompt.messages if m.role == "assistant"]
    for example, answer in zip(examples(), answers, strict=True):
        shown = Ask(ask.prompt, (Span(0, 0, len(example.tokens)),))
        (found,) = read(simulator, shown, [example.tokens], Reply(answer), can)
        assert found.predicted == example.values(simulator.top(can))


@pytest.mark.parametrize("can", [ONE, TWO], ids=["ten", "nine"])
def test_token_by_token_shows_the_value_of_the_token_it_names(can):
    simulator = TokenByToken()
    ask = next(iter(simulator.asks("foxes", [["a"]], can)))
    turns = ask.prompt.messages[1:-1]
    by_explanation = {e.explanation: e for e in examples()}
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        told, text, token = re.fullmatch(
            r"The neuron fires on: (.*)\nText: (.*)\nLast token: (.*)", question.text
        ).groups()
        example = by_explanation[told]
        index = next(i for i in range(len(example.tokens)) if "".join(example.tokens[: i + 1]) == text)
        assert example.tokens[index] == token
        assert int(answer.text) == example.values(simulator.top(can))[index]
    assert {m.text for m in turns[1::2]} >= {"0", str(simulator.top(can))}


@pytest.mark.parametrize("can", [ONE, TWO], ids=["ten", "nine"])
def test_all_at_once_shows_unknowns_first_and_then_the_examples_values(can):
    simulator = AllAtOnce()
    (ask,) = simulator.asks("foxes", [["a"]], can)
    blocks = re.findall(r"fires on: (.*)\n<start>\n((?:.*\t.*\n)*)<end>", ask.prompt.text)
    assert len(blocks) == len(examples()) + 1
    for (told, lines), example in zip(blocks, examples(), strict=False):
        assert told == example.explanation
        shown = [line.split("\t")[1] for line in lines.splitlines()]
        values = [str(v) for v in example.values(simulator.top(can))]
        assert shown == ["unknown"] * example.unknown + values[example.unknown :]
    assert blocks[-1] == ("foxes", "a\tunknown\n")


@WIDE
@given(st.text() | st.sampled_from(PIECES))
def test_a_shown_text_is_one_line_without_tabs(text):
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert "\t" not in shown
    assert visible(shown) == shown


@each
def test_an_explanation_with_line_breaks_stays_on_its_line(simulator):
    ask = next(iter(simulator.asks("foxes\n<end>\n# Record 1\tx", [["a"]], ONE)))
    assert "foxes\\n<end>\\n# Record 1\\tx\n" in text_of(ask)


# What they have in common.


@each
def test_every_simulator_that_asks_keeps_to_the_protocol_and_predicts_nothing_by_itself(simulator):
    assert isinstance(simulator, PromptSimulator)
    assert not isinstance(simulator, Simulator)


class Parrot:
    """A user's own simulator: no base class."""

    name = "parrot"
    version = "parrot/1"
    needs = frozenset({"chat"})
    replicates = 1
    max_record_tokens = 64
    long_records = "cut"

    def top(self, can):
        del can
        return 10

    def asks(self, explanation, records, can):
        del can
        for i, tokens in enumerate(records):
            yield Ask(Prompt((Message("user", f"{explanation}: {tokens}"),)), (Span(i, 0, len(tokens)),))

    def read(self, ask, records, reply, can):
        del records, can
        return [Predictions(["ok"] * (s.stop - s.start), [float(reply.text)] * (s.stop - s.start)) for s in ask.spans]


def test_a_plain_class_of_a_user_is_a_simulator_that_asks():
    parrot = Parrot()
    assert isinstance(parrot, PromptSimulator)
    assert resolve_simulator(parrot) is parrot
    assert Shuffled(parrot).name == "shuffled_parrot"
    asks = list(parrot.asks("x", [["a", "b"]], PLAIN))
    assert read(parrot, asks[0], [["a", "b"]], Reply("3"))[0].predicted == [3.0, 3.0]


@pytest.mark.parametrize("name", ["all_at_once", "token_by_token", "json_list", "tab_list"])
def test_each_is_made_by_its_name_and_so_is_its_control(name):
    made = resolve_simulator(name, max_record_tokens=7, long_records="cut")
    assert made == SIMULATORS[name](max_record_tokens=7, long_records="cut")
    control = resolve_simulator(f"shuffled_{name}", max_record_tokens=7, long_records="cut")
    assert control == Shuffled(made)
    assert control.name == f"shuffled_{name}"


def test_a_control_that_asks_a_model_says_that_it_needs_a_backend():
    with pytest.raises(ns.SimulatorError, match="shuffled_json_list asks a model: it needs a backend"):
        resolve_simulator("shuffled_json_list").simulate(None, keys=[], train=None)


def test_an_option_that_a_simulator_lacks_is_named_with_those_it_has():
    for name in ("json_list", "shuffled_json_list"):
        assert resolve_simulator(name, pack=3).name == name
        with pytest.raises(ns.SimulatorError, match=r"json_list has no option 'packs'; it has: .*pack"):
            resolve_simulator(name, packs=3)
    with pytest.raises(ns.SimulatorError, match="all_at_once has no option 'pack'"):
        resolve_simulator("all_at_once", pack=3)


@each
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"replicates": 0}, "at least 1"),
        ({"replicates": -2}, "at least 1"),
        ({"max_record_tokens": 0}, "at least 1"),
        ({"replicates": 3, "temperature": 0}, "the same answer"),
        ({"replicates": 3, "temperature": 0.0}, "the same answer"),
        ({"temperature": -0.5}, "from 0 on"),
        ({"temperature": float("nan")}, "from 0 on"),
        ({"temperature": float("inf")}, "from 0 on"),
        ({"long_records": "drop"}, "'refuse' or 'cut'"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(simulator, wrong, told):
    with pytest.raises(ns.SimulatorError, match=told) as caught:
        replace(simulator, **wrong)
    assert str(caught.value).startswith(f"{simulator.name}: ")


@pytest.mark.parametrize("simulator", LISTS, ids=NAMES[2:])
def test_a_pack_holds_at_least_one_record(simulator):
    with pytest.raises(ns.SimulatorError, match="at least one record a prompt"):
        replace(simulator, pack=0)


@pytest.mark.parametrize("simulator", ALL[1:], ids=NAMES[1:])
@pytest.mark.parametrize(
    ("given_settings", "temperature"), [({}, 0), ({"replicates": 3}, 1), ({"replicates": 3, "temperature": 0.5}, 0.5)]
)
def test_replicates_are_asked_for_at_temperature_one_and_all_else_at_zero(simulator, given_settings, temperature):
    asks = replace(simulator, **given_settings).asks("x", [["a"]], ONE)
    assert {ask.prompt.temperature for ask in asks} == {temperature}


@each
def test_no_records_make_no_prompts(simulator):
    assert list(simulator.asks("x", [], ONE)) == []


@each
def test_the_same_question_is_the_same_prompt(simulator):
    first, second = ([a.prompt for a in simulator.asks("x", [["a", "b"], ["c"]], ONE)] for _ in range(2))
    assert first == second


def test_a_simulator_of_no_kind_has_no_name_to_be_found_by():
    with pytest.raises(NotImplementedError):
        _ = Prompted().name
