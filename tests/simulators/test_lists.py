"""`json_list` and `tab_list`: what a true answer says is read back, and whatever else comes ends as a status."""

from __future__ import annotations

import json
import re
import sys
import time
import unicodedata
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from model_server import ModelServer, shared_model
from prompted import (
    ONE,
    PACK,
    PIECES,
    PLAIN,
    SERVED,
    TOKEN,
    TOKENS,
    TWO,
    WIDE,
    Spelled,
    covering,
    expected_of,
    near,
    ok,
    posted,
    read,
    read_text,
    values_for,
)
from tiny_model import chat_text, fits

from nscore.backends import OpenAI
from nscore.exchange import Reply
from nscore.records import OK
from nscore.simulators import JsonList, TabList

PAIRS, NUMBERS, TABS = JsonList(), JsonList(numbers_alone=True), TabList()
FORMS = [PAIRS, NUMBERS, TABS]
form = pytest.mark.parametrize("simulator", FORMS, ids=["json_pairs", "json_numbers", "tab"])
json_form = pytest.mark.parametrize("simulator", [PAIRS, NUMBERS], ids=["json_pairs", "json_numbers"])
FORM = st.sampled_from(FORMS)
FILLED = PACK.flatmap(lambda records: st.tuples(st.just(records), values_for(records)))
CHATTER = [
    "Sure! Here you are:\n",
    "The values [0-10] of record [1] in {braces} follow, from [0, 10]:\n",
    'Not like {"this": [1, 2]}, but:\n',
    "[[[{{{ \n",
    '"\n',
]


def packed(simulator, records):
    return replace(simulator, pack=len(records))


def told(simulator, records, values, text=None, can=PLAIN, **reply):
    """What is read of an answer, or of a text in its stead, to all records in one prompt."""
    text = simulator.answer(records, values) if text is None else text
    return read_text(packed(simulator, records), records, text, can, **reply)


# What is asked.


@WIDE
@given(FORM, st.lists(TOKENS, min_size=1, max_size=7), st.integers(1, 4), st.text(max_size=10))
def test_every_pack_of_records_is_one_prompt_after_the_same_head(simulator, records, pack, explanation):
    simulator = replace(simulator, pack=pack)
    asks = list(simulator.asks(explanation, records, ONE))
    spans = [s for ask in asks for s in ask.spans]
    assert spans == [(i, 0, len(tokens)) for i, tokens in enumerate(records)]
    assert [len(a.spans) for a in asks[:-1]] == [pack] * (len(asks) - 1)
    assert len({a.prompt.messages[:-1] for a in asks}) == 1
    assert all(a.prompt.logprobs == 15 and a.prompt.temperature == 0 for a in asks)


@WIDE
@given(FILLED, FORM, st.booleans())
def test_the_limit_of_an_answer_is_never_less_than_it_takes(filled, simulator, one):
    records, values = filled
    model = shared_model(True, one, False)
    (ask,) = packed(simulator, records).asks("x", records, PLAIN)
    answer = simulator.answer(records, [[10] * len(v) for v in values])
    forms = [answer] if simulator is TABS else [answer, json.dumps(json.loads(answer), ensure_ascii=False)]
    for text in forms:
        assert len(model.tokenize(text)) < ask.prompt.max_tokens


def test_the_limit_of_ten_usual_records_is_below_what_hosted_models_allow():
    records = [[" word"] * 64] * 10
    assert PAIRS.room(records) < 16_384
    assert NUMBERS.room(records) < 4_096


@WIDE
@given(FILLED, st.sampled_from([PAIRS, NUMBERS]), st.booleans())
def test_a_true_answer_keeps_to_the_schema(filled, simulator, one):
    records, values = filled
    can = ONE if one else TWO
    top = 10 if one else 9
    values = [[min(v, top) for v in row] for row in values]
    (ask,) = packed(simulator, records).asks("x", records, can)
    schema = json.loads(json.dumps(ask.prompt.schema))
    answer = json.loads(simulator.answer(records, values))
    assert fits(answer, schema)
    lengths = {len(r) for r in records}
    rows = answer["records"]
    assert not fits({"records": rows[1:]}, schema)
    assert not fits({"records": [*rows, rows[0]]}, schema)
    for row in rows:
        entries = row["activations"]
        if len(lengths) == 1:
            for wrong in (entries[1:], [*entries, entries[0]]):
                assert not fits({"records": [*rows[1:], row | {"activations": wrong}]}, schema)
        for wrong in (top + 1, -1, 0.5, "3", None):
            entry = entries[0] | {"activation": wrong} if not simulator.numbers_alone else wrong
            assert not fits({"records": [row | {"activations": [entry, *entries[1:]]}, *rows[1:]]}, schema)


@form
def test_a_schema_goes_only_to_servers_that_honour_one_and_only_for_json(simulator):
    schemas = [next(simulator.asks("x", [["a"]], can)).prompt.schema for can in (ONE, replace(ONE, structured=False))]
    assert schemas[1] is None
    assert (schemas[0] is None) == (simulator is TABS)


@form
def test_the_scale_ends_at_nine_only_where_expected_values_are_read_and_ten_is_not_one_token(simulator):
    assert [simulator.top(can) for can in (ONE, TWO, replace(ONE, ten=None), replace(TWO, logprobs=0))] == [
        10,
        9,
        9,
        10,
    ]


# What is read.


@WIDE
@given(FILLED, FORM)
@example(([PIECES], [[i % 11 for i in range(len(PIECES))]]), PAIRS)
@example(([PIECES], [[i % 11 for i in range(len(PIECES))]]), TABS)
@example(([["\t5"], ["# Record 1"]], [[1], [2]]), TABS)
def test_a_true_answer_gives_its_values_back(filled, simulator):
    records, values = filled
    assert told(simulator, records, values) == [ok(*map(float, v)) for v in values]


@WIDE
@given(
    FILLED,
    FORM,
    st.sampled_from(CHATTER),
    st.sampled_from(CHATTER),
    st.sampled_from(["{}", "```json\n{}\n```", "```\n{}\n```\n"]),
)
def test_code_fences_and_chatter_around_an_answer_are_read_past(filled, simulator, before, after, fence):
    records, values = filled
    text = before + fence.replace("{}", simulator.answer(records, values)) + "\n" + after
    assert told(simulator, records, values, text) == [ok(*map(float, v)) for v in values]


@WIDE
@given(FILLED, st.sampled_from([PAIRS, NUMBERS]), st.sampled_from([None, 1, "\t"]))
def test_json_is_read_however_it_is_laid_out(filled, simulator, indent):
    records, values = filled
    text = json.dumps(json.loads(simulator.answer(records, values)), indent=indent)  # non-ASCII as escapes
    assert told(simulator, records, values, text) == [ok(*map(float, v)) for v in values]


@WIDE
@given(FILLED, FORM, st.data())
def test_the_order_of_records_is_free_and_a_lost_one_fails_alone(filled, simulator, data):
    records, values = filled
    order = data.draw(st.permutations(range(len(records))))
    lost = data.draw(st.sampled_from(order)) if len(order) > 1 else None
    parts = [_one(simulator, i + 1, records[i], values[i]) for i in order if i != lost]
    wanted = [ok(*map(float, v)) for v in values]
    if lost is not None:
        wanted[lost] = [("length_mismatch", None)] * len(values[lost])
    assert told(simulator, records, values, _all(simulator, parts)) == wanted


@WIDE
@given(FILLED, FORM, st.data())
def test_a_record_with_a_number_too_many_or_too_few_fails_alone(filled, simulator, data):
    records, values = filled
    wrong = data.draw(st.integers(0, len(records) - 1))
    more = data.draw(st.booleans())
    parts = []
    for i, (tokens, numbers) in enumerate(zip(records, values, strict=True)):
        given_tokens, given_numbers = tokens, numbers
        if i == wrong:
            given_tokens = [*tokens, "x"] if more else tokens[:-1]
            given_numbers = [*numbers, 3] if more else numbers[:-1]
        parts.append(_one(simulator, i + 1, given_tokens, given_numbers))
    wanted = [ok(*map(float, v)) for v in values]
    wanted[wrong] = [("length_mismatch", None)] * len(values[wrong])
    found = told(simulator, records, values, _all(simulator, parts))
    assert found == wanted or (len(records) == 1 and found == "parse_error")


def _one(simulator, number, tokens, values):
    """The part of an answer that is about one record."""
    answer = simulator.answer([tokens], [values])
    if simulator is TABS:
        return answer.replace("# Record 1", f"# Record {number}", 1)
    return json.loads(answer)["records"][0] | {"record": number}


def _all(simulator, parts):
    return "\n".join(parts) if simulator is TABS else json.dumps({"records": parts})


@form
def test_a_record_that_comes_twice_is_a_parse_error(simulator):
    parts = [_one(simulator, 1, ["a"], [3]), _one(simulator, 1, ["a"], [4])]
    assert told(simulator, [["a"], ["b"]], None, _all(simulator, parts)) == "parse_error"


@json_form
def test_of_several_records_one_without_a_number_is_a_parse_error(simulator):
    rows = json.loads(simulator.answer([["a"], ["b"]], [[1], [2]]))["records"]
    for number in (None, "one", 1.5, 1e400, True):
        assert (
            told(simulator, [["a"], ["b"]], None, json.dumps([rows[0], rows[1] | {"record": number}])) == "parse_error"
        )


def test_a_record_alone_needs_no_number():
    for text in (
        '{"records":[{"activations":[1,2]}]}',
        '{"records":[{"record":7,"activations":[1,2]}]}',
        '{"activations":[1,2]}',
        '[{"activations":[1,2]}]',
        '{"records":[1,2]}',
        "[1,2]",
        "The scale is [0], so [1, 2].",
        '[{"token":"a","activation":1},{"token":"b","activation":2}]',
        '{"records":[{"record":1,"tokens":["a","b"]}]}\n\n{"records":[{"record":1,"activations":[1,2]}]}',
    ):
        assert told(NUMBERS, [["a", "b"]], None, text) == [ok(1.0, 2.0)], text


def test_records_on_lines_of_their_own_are_read_too():
    text = '{"record":1,"activations":[1,2]}\n{"record":2,"activations":[3]}'
    assert told(NUMBERS, [["a", "b"], ["c"]], None, text) == [ok(1.0, 2.0), ok(3.0)]


def test_an_unclosed_answer_gives_the_list_it_closed_and_never_a_list_in_a_token():
    assert told(NUMBERS, [["a", "b"]], None, '{"records":[{"record":1,"activations":[1,2]') == [ok(1.0, 2.0)]
    broken = '{"records":[{"record":1,"activations":[{"token":"[0]","activation":7'
    assert told(PAIRS, [["[0]"]], None, broken) == "parse_error"
    assert told(PAIRS, [["[0]"]], None, broken, finish="length") == "truncated"


BAD_JSON = [
    "-1",
    "10.5",
    "11",
    "1e9",
    "-0.1",
    "NaN",
    "Infinity",
    "-Infinity",
    "null",
    "true",
    "false",
    '"high"',
    '"11"',
    '""',
]
BAD_JSON += [
    "[3]",
    "{}",
    "1e400",
    "-1e400",
    "7" * 5000,
    "1." + "3" * 5000 + "e1",
    '"' + "7" * 5000 + '"',
    "[" * 50 + "]" * 50,
]


@json_form
@pytest.mark.parametrize("bad", BAD_JSON, ids=lambda bad: bad[:12])
def test_what_is_no_number_of_the_scale_fails_its_token_alone(simulator, bad):
    good = simulator.answer([["a", "b", "c"]], [[3, 4, 5]])
    text = re.sub(r"4(?=[,\]}])", lambda _: bad, good, count=1)
    assert told(simulator, [["a", "b", "c"]], None, text) == [[("ok", 3.0), ("parse_error", None), ("ok", 5.0)]]


@pytest.mark.parametrize("bad", ["-1", "11", "10.5", "9999"])
def test_a_line_whose_number_is_off_the_scale_fails_its_token_alone(bad):
    text = f"# Record 1\na\t3\nb\t{bad}\nc\t5"
    assert told(TABS, [["a", "b", "c"]], None, text) == [[("ok", 3.0), ("parse_error", None), ("ok", 5.0)]]


@pytest.mark.parametrize("bad", ["NaN", "inf", "unknown", "null", "", "7" * 5000, "1e3", "٣", "²", "5 or 6"])
def test_a_line_without_a_number_leaves_its_record_short(bad):
    text = f"# Record 1\na\t3\nb\t{bad}\nc\t5\n# Record 2\nd\t7"
    found = told(TABS, [["a", "b", "c"], ["d"]], None, text)
    assert found == [[("length_mismatch", None)] * 3, ok(7.0)]


@json_form
@pytest.mark.parametrize(
    "text", ["", "no", "{}", "[]", "[" * 100_000, '{"a":' * 100_000, '{"records":{}}', "7", '{"records":[]}']
)
def test_what_holds_no_list_is_a_parse_error(simulator, text):
    assert told(simulator, [["a"]], None, text) == "parse_error"
    assert told(simulator, [["a"]], None, text, finish="length") == "truncated"


def test_fractions_and_numbers_in_quotes_are_numbers():
    assert told(NUMBERS, [["a", "b", "c"]], None, '{"activations":[2.5,"7",1e0]}') == [ok(2.5, 7.0, 1.0)]
    assert told(TABS, [["a", "b"]], None, "a\t2.5\r\nb\t 7 \r\n") == [ok(2.5, 7.0)]


@form
def test_an_answer_that_was_cut_is_truncated_where_it_lacks_something(simulator):
    records, values = [["a", "b"], ["c", "d"]], [[1, 2], [3, 10]]
    answer = simulator.answer(records, values)
    for stop in range(len(answer)):
        found = told(simulator, records, None, answer[:stop], finish="length")
        right = [{("truncated", None), (OK, float(v))} for row in values for v in row]
        assert found == "truncated" or all(f in r for f, r in zip(chain(*found), right, strict=True))
    assert told(simulator, records, None, answer + "\n", finish="length") == [ok(1.0, 2.0), ok(3.0, 10.0)]


@form
def test_a_refusal_is_refused_whatever_its_text(simulator):
    answer = simulator.answer([["a"]], [[3]])
    assert told(simulator, [["a"]], None, answer, finish="refused") == "refused"


@pytest.mark.parametrize("simulator", [PAIRS, TABS], ids=["json_pairs", "tab"])
@given(records=TOKENS.filter(lambda tokens: len(tokens) > 1), data=st.data())
@WIDE
def test_another_token_at_a_place_is_a_mismatch_there_only(simulator, records, data):
    wrong = data.draw(st.integers(0, len(records) - 1))
    repeated = [*records[:wrong], records[wrong] + "x", *records[wrong + 1 :]]
    found = told(simulator, [records], None, simulator.answer([repeated], [[4] * len(records)]))
    wanted = ok(*[4.0] * len(records))
    wanted[wrong] = ("length_mismatch", None)
    assert found == [wanted]


@pytest.mark.parametrize(
    ("token", "repeated"),
    [
        (" red", "red"),
        ("red", " red "),
        ("\n", "\n"),
        ("\n", "\\n"),
        ("\n", ""),
        ("\t\t", "\t\t"),
        ("\ufb01", "fi"),
        ("\ufffd", ""),
        ("e\u0301", "\xe9"),
        ("x\u2028", "x"),
        ("a\nb", "a\nb"),
        ("a\nb", "a\\nb"),
    ],
)
def test_blanks_and_compatible_forms_may_differ_in_a_repeated_token(token, repeated):
    text = json.dumps({"activations": [{"token": repeated, "activation": 4}]})
    assert told(PAIRS, [[token]], None, text) == [ok(4.0)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["records", "record", "activations", "activation", "token", "tokens"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@WIDE
@given(FORM, PACK, st.text() | JSON.map(json.dumps), st.sampled_from(["stop", "length", "refused"]), st.booleans())
def test_whatever_is_answered_each_token_gets_one_status(simulator, records, text, finish, logprobs):
    tokens = Spelled(list(text), {i: {"3": 0.5, char: 0.2} for i, char in enumerate(text)}) if logprobs else None
    told(simulator, records, None, text, ONE, finish=finish, tokens=tokens)


@WIDE
@given(FILLED, FORM, st.data())
def test_an_answer_with_some_text_cut_out_or_put_in_gives_each_token_one_status(filled, simulator, data):
    records, values = filled
    answer = simulator.answer(records, values)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(answer))] * 2)))
    told(simulator, records, None, answer[:start] + data.draw(st.text(max_size=3) | TOKEN) + answer[stop:], ONE)


# With logprobs of what was generated.


@pytest.fixture(scope="module")
def server():
    with ModelServer(record=False) as server:
        yield server


def number_places(simulator, answer):
    """Where the activations stand, by the form of the answer alone: quotes in a JSON string are escaped."""
    if simulator is TABS:
        pattern = r"\t(?=[0-9]+(?:\n|\Z))"  # chatter has none
    else:
        pattern = (
            r'"activation":(?=[0-9])' if not simulator.numbers_alone else r'(?:"activations":\[|(?<=[0-9]),)(?=[0-9])'
        )
    return [m.end() for m in re.finditer(pattern, answer)]


@SERVED
@given(
    filled=FILLED,
    simulator=FORM,
    one=st.booleans(),
    thinking=st.sampled_from([None, "field", "inline"]),
    token_style=st.sampled_from(["replace", "bytes", "stripped"]),
    chatter=st.sampled_from(["", "👍\n", *CHATTER[:-1], "```json\n"]),
)
def test_predictions_are_what_the_model_expected_at_each_number(server, filled, simulator, one, chatter, **switches):
    for name, value in (switches | {"ten_is_one_token": one, "chat_bytes": True}).items():
        setattr(server, name, value)
    can = replace(ONE if one else TWO, thinks=True, structured=False)
    top = simulator.top(can)
    records, values = filled
    values = [[min(v, top) for v in row] for row in values]
    answer = chatter + simulator.answer(records, values) + "\n```" * chatter.startswith("```")
    server.answer = lambda _: answer
    server.thought = answer  # the thought may well hold the answer
    model = server.model
    ask, found = asked(server, simulator, records, can)
    messages = [{"role": m.role, "content": m.text} for m in ask.prompt.messages]
    thought = f"<think>{answer}</think>" if server.thinking == "inline" else ""
    before = model.prompt(chat_text(messages)) + (model.tokenize(answer) if server.thinking == "field" else [])
    said = model.tokenize(thought + answer)
    places = number_places(simulator, answer)
    each = [(p.status[i], p.predicted[i], p.digit_mass[i]) for p in found for i in range(len(p.status))]
    assert len(places) == len(each)
    for place, (status, value, mass) in zip(places, each, strict=True):
        index, held = covering(said, len((thought + answer[:place]).encode()))
        wanted = expected_of(model, before + said[:index], top, held=held, chosen=said[index])
        assert status == "ok"
        assert near(value, wanted[0])
        assert near(mass, wanted[1])


def asked(server, simulator, records, can):
    simulator = packed(simulator, records)
    (ask,) = simulator.asks("the colour red", records, can)
    reply = posted(OpenAI(model="tiny", base_url=server.base_url, api_key="k"), ask.prompt, can)
    return ask, read(simulator, ask, records, reply, can)


@SERVED
@given(filled=FILLED, simulator=FORM, token_style=st.sampled_from(["replace", "bytes", "stripped"]))
def test_without_the_tokens_bytes_a_prediction_is_the_same_or_the_number_itself(server, filled, simulator, token_style):
    records, values = filled
    answer = simulator.answer(records, values)
    for name, value in {"ten_is_one_token": True, "thinking": None, "token_style": token_style}.items():
        setattr(server, name, value)
    server.answer = lambda _: answer
    can = replace(ONE, structured=False)
    server.chat_bytes = True
    _, exact = asked(server, simulator, records, can)
    server.chat_bytes = False
    _, spelled = asked(server, simulator, records, can)
    for i, (with_bytes, without) in enumerate(zip(exact, spelled, strict=True)):
        for j, (value, mass) in enumerate(zip(without.predicted, without.digit_mass, strict=True)):
            if mass is None:
                assert value == values[i][j]
            else:
                assert (value, mass) == (with_bytes.predicted[j], with_bytes.digit_mass[j])


def generated(*tokens, exact=None):
    """A reply of these tokens; each that holds a digit was as likely as one that holds a 1 in its stead."""
    chances = {}
    for i, token in enumerate(tokens):
        other = re.sub(r"[0-9]+", "1", token)
        if other != token:
            chances[i] = {token: 0.4, other: 0.4}
    text = "".join(tokens).rpartition("</think>")[2]
    return {"text": text, "tokens": Spelled(tokens, chances, exact), "can": ONE}


@pytest.mark.parametrize(
    "tokens",
    [
        ['{"', "activations", '":', "[", "7", ",", "10", "]}"],
        ['{"', "activations", '":', " [", " 7", ",", " 10", "]", "}"],
        ['{"', "activations", '":[', "7,", "10]}"],
        ['{"', "activations", '":[7', ",", "10", "]", "}\n"],
        ['{"', "activations", '":', "[\n", "7", ",\n", "10", "\n", "]", "}"],
        ["<think>", "[", "7", ",", "10", "]", "</think>", '{"', "activations", '":', "[", "7", ",", "10", "]}"],
        ["é日", "👍", '{"', "activations", '":', "[", "7", ",", "", "10", "]}"],
    ],
)
def test_the_expected_value_is_found_however_numbers_are_cut_into_tokens(tokens):
    assert told(NUMBERS, [["a", "b"]], None, **generated(*tokens)) == [ok(4.0, 5.5)]


def test_a_number_in_two_tokens_or_with_a_fraction_is_taken_as_written():
    tokens = ['{"', "activations", '":', "[", "1", "0", ",", "7", ".", "5", ",", "7", "e", "0", ",", "7", "]}"]
    (ask,) = NUMBERS.asks("x", [list("abcd")], ONE)
    made = generated(*tokens)
    reply = Reply(made["text"], tokens=made["tokens"])
    (found,) = read(NUMBERS, ask, [list("abcd")], reply, ONE)
    assert found.predicted == [10.0, 7.5, 7.0, 4.0]
    assert [m is None for m in found.digit_mass] == [True, True, True, False]


def test_numbers_inside_repeated_tokens_are_not_taken_for_the_answers():
    tokens = ['{"', "activations", '":[{"', "token", '":"', "10", '","', "activation", '":', "7", "},", '{"']
    tokens += [
        "token",
        '":"\\"',
        "3",
        '\\"',
        '","',
        "activation",
        '":',
        "5",
        '},{"',
        "token",
        '":"',
        '\\"activation\\":',
    ]
    tokens += ["9", '","', "activation", '":', "3", "}]}"]
    records = [["10", '"3"', '"activation":9']]
    assert told(PAIRS, records, None, **generated(*tokens)) == [ok(4.0, pytest.approx(3), 2.0)]


def test_a_token_that_is_a_number_is_not_taken_for_its_line_s_number():
    tokens = ["#", " Record", " ", "1", "\n", "10", "\t", "7", "\n", "3", "\\t", "9", "\t", "5"]
    assert told(TABS, [["10", "3\t9"]], None, **generated(*tokens)) == [ok(4.0, pytest.approx(3))]


def test_parts_of_a_character_before_a_number_do_not_move_it():
    tokens = ['{"activations":[{"token":"', "\ufffd", "\ufffd", '","activation":', "7", "}]}"]
    reply = generated(*tokens) | {"text": "".join(tokens).replace("\ufffd\ufffd", "👍")}
    assert told(PAIRS, [["👍"]], None, **reply) == [ok(4.0)]
    # vLLM gives the bytes of what it spelled
    reply["tokens"].exact = [t.encode() for t in tokens]
    assert told(PAIRS, [["👍"]], None, **reply) == [ok(4.0)]
    reply["tokens"].exact = [
        *(t.encode() for t in tokens[:1]),
        b"\xf0\x9f",
        b"\x91\x8d",
        *(t.encode() for t in tokens[3:]),
    ]
    assert told(PAIRS, [["👍"]], None, **reply) == [ok(4.0)]


def test_logprobs_of_another_answer_leave_the_numbers_as_they_are():
    made = generated("[", "3", ",", "4", "]")
    assert told(NUMBERS, [["a", "b"]], None, **(made | {"text": "[7, 8]"})) == [ok(7.0, 8.0)]


def test_a_number_whose_alternatives_are_missing_is_taken_as_written():
    assert told(NUMBERS, [["a"]], None, "[7]", ONE, tokens=Spelled(["[", "7", "]"])) == [ok(7.0)]


@json_form
@pytest.mark.parametrize("bad", ["1e-999", "-1e-999", "0." + "0" * 400 + "1"])
@pytest.mark.parametrize("tokens", [None, Spelled(["["])], ids=["alone", "tokens"])
def test_a_number_that_is_only_nearly_zero_is_not_taken_for_zero(simulator, bad, tokens):
    good = simulator.answer([["a", "b"]], [[3, 4]])
    text = re.sub(r"4(?=[,\]}])", lambda _: bad, good, count=1)
    assert told(simulator, [["a", "b"]], None, text, ONE, tokens=tokens) == [[("ok", 3.0), ("parse_error", None)]]
    for zero in ("0", "0.0", "-0", "0e5", "0.00E-9"):
        text = re.sub(r"4(?=[,\]}])", lambda _, zero=zero: zero, good, count=1)
        assert told(simulator, [["a", "b"]], None, text, ONE, tokens=tokens) == [ok(3.0, 0.0)]


def test_lists_nested_as_deeply_as_can_be_read_fail_their_token_alone():
    # somewhere there numbers can be read, and just not where they stand
    found = set()
    for depth in range(sys.getrecursionlimit() - 250, sys.getrecursionlimit() + 2):
        text = '{"activations":[3,' + "[" * depth + "7" + "]" * depth + "]}"
        entries = told(NUMBERS, [["a", "b"]], None, text, ONE, tokens=Spelled([text]))
        found.add(entries if isinstance(entries, str) else tuple(entries[0]))
    mismatch = ("length_mismatch", None)  # deeper ones are read from a list inside on
    assert (("ok", 3.0), ("parse_error", None)) in found
    assert found <= {(("ok", 3.0), ("parse_error", None)), (mismatch, mismatch), "parse_error"}


def test_lists_are_looked_for_so_long_and_no_longer():
    answer = NUMBERS.answer([["a"]], [[7]])
    assert told(NUMBERS, [["a"]], None, "[]" * 1000 + answer) == [ok(7.0)]
    assert told(NUMBERS, [["a"]], None, "[]" * 100_000 + answer) == "parse_error"


def test_of_lists_alone_the_longest_is_the_answer_and_rows_go_before_lists():
    assert told(NUMBERS, [["a", "b"]], None, "[1] then [7, 8] then [2]") == [ok(7.0, 8.0)]
    assert told(NUMBERS, [["a", "b"]], None, '[1, 2] {"activations":[7, 8]} [3, 4]') == [ok(7.0, 8.0)]
    assert told(NUMBERS, [["a", "b"]], None, '{"a":1} {"records":[7, 8]}') == [ok(7.0, 8.0)]


@pytest.mark.parametrize("blank", ["\t", " ", "\u2003", "\r", "\x1f"])
def test_blanks_around_a_line_s_number_are_passed_over_wherever_they_stand(blank):
    text = f"# Record 1\na\t{blank}3{blank}\nb\t5"
    # the token before two tabs would be "a\t", which is "a" where blanks do not count
    assert told(TABS, [["a", "b"]], None, text) == [ok(3.0, 5.0)]


def test_a_line_of_tabs_alone_is_no_number():
    assert told(TABS, [["a"]], None, "\t\t\t\na\t7\n\t") == [ok(7.0)]


def test_a_number_far_into_a_token_is_taken_as_written():
    made = generated(*('{"activations":[' + " " * 2000 + "7", "]}"))
    assert told(NUMBERS, [["a"]], None, **made) == [ok(7.0)]
    assert told(NUMBERS, [["a"]], None, **generated('{"activations":[' + " " * 500 + "7", "]}")) == [ok(4.0)]


@pytest.mark.parametrize("simulator", [PAIRS, TABS], ids=["json_pairs", "tab"])
def test_a_token_repeated_with_very_many_accents_is_another_at_once(simulator):
    begun = time.process_time()
    answer = simulator.answer([["e" + "\u0301\u0323" * 100_000, "b"]], [[3, 4]])
    assert told(simulator, [["e", "b"]], None, answer) == [[("length_mismatch", None), ("ok", 4.0)]]
    assert time.process_time() - begun < 5


@WIDE
@given(st.characters(exclude_categories=["Cs"]))
@example("\ufdfa")
def test_a_character_may_be_repeated_in_its_longest_compatible_form(character):
    repeated = unicodedata.normalize("NFKC", character)
    answer = TABS.answer([[repeated, "b"]], [[3, 4]])
    assert told(TABS, [[character, "b"]], None, answer) == [ok(3.0, 4.0)]
