# ruff: noqa: RUF001  (dashes and quotation marks are what it looks for)
"""`lexical`: looks for an explanation's quoted examples and words among the tokens."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation_tables import PROPERTY, explained, predictions_of, record

import nscore as ns

MARKS = ["Ġ", "▁", " "]
PECULIAR = st.text(
    st.sampled_from(list("Ġ▁# \n'’\"“”,.?!-–09٣sSing")) | st.characters(exclude_categories=["Cs"]), max_size=9
)


def expect(*cases):
    """Each case is an explanation, tokens, and what is predicted; all in one call, which costs more than the rows."""
    found = predictions_of([(text, tokens) for text, tokens, _ in cases])
    assert [(*case[:2], row) for case, row in zip(cases, found, strict=True)] == [tuple(case) for case in cases]


def test_a_quoted_word_is_ten_a_plain_word_five_and_any_other_zero():
    expect(
        ('colours such as "red" and blue', ["red", "blue", "green"], [10, 5, 0]),
        ('red, as in "red"', ["red"], [10]),
        ('"Red" and BLUE', ["RED", "red", "Blue"], [10, 10, 5]),
        ('the city "New York"', ["new", "york", "yorker"], [10, 10, 0]),
    )


def test_straight_and_curly_quotes_quote_alike():
    tokens, expected = ["red", "and", "blue"], [10, 0, 10]
    expect(*((text, tokens, expected) for text in ['the words "red" and "blue"', "the words “red” and “blue”"]))


def test_words_about_the_explanation_itself_say_nothing_unless_they_are_quoted():
    tokens = ["fires", "strongly", "such", "as", "examples", "token", "neuron"]
    expect(
        ("the neuron fires strongly on tokens such as these examples", tokens, [0] * 7),
        ('the article "the" and the token "us"', ["the", "us"], [10, 10]),
    )


def test_forms_of_a_word_are_one():
    forms = [
        ["run", "runs", "running"],
        ["city", "cities"],
        ["stop", "stops", "stopped", "stopping"],
        ["box", "boxes"],
        ["make", "makes", "making"],
        ["house", "houses"],
        ["glass", "glasses"],
        ["quick", "quickly"],
        ["dog", "dogs", "dog's", "dog’s"],
    ]
    expect(*((f"the idea of {word}", words, [5] * len(words)) for words in forms for word in words))


def test_words_that_only_look_alike_are_two():
    pairs = [("run", "rum"), ("city", "cite"), ("bus", "bu"), ("ring", "r"), ("us", "u"), ("glass", "glas")]
    expect(*((f'"{word}"', [word, other], [10, 0]) for word, other in pairs))


def test_wordpieces_are_joined_and_predicted_alike():
    tokens = ["run", "##ning", "wat", "##er", "##fall", "er"]
    expect(("running water", tokens, [5, 5, 0, 0, 0, 0]), ("waterfalls", tokens, [0, 0, 5, 5, 5, 0]))


def test_pieces_without_the_mark_continue_a_word_where_the_record_has_marks():
    expect(
        *(("running", [f"{m}run", "ning", f"{m}run", f"{m}ning", ",", "run"], [5, 5, 5, 0, 0, 5]) for m in MARKS),
        ("running", ["run", "ning", "Ġfar"], [5, 5, 0]),
        ('"redfox" or "red"', ["red", "fox"], [10, 0]),
    )


def test_a_newline_among_whole_words_joins_nothing():
    expect(("red", ["the", "\n", "red", "fox"], [0, 0, 5, 0]))


def test_a_quoted_piece_is_found_as_a_piece_and_not_as_a_word():
    expect(
        ('the piece "##ing"', ["run", "##ing", "ring"], [0, 10, 0]),
        ('the prefix "un"', ["un", "##happy", "sun"], [10, 0, 0]),
    )


def test_the_name_of_a_sign_stands_for_the_sign():
    names = {
        "ampersand": "&/",
        "apostrophe": "',",
        "apostrophes": "',",
        "asterisks": "*-",
        "brackets": "[,",
        "colon": ":;",
        "comma": ",.",
        "commas": ",.",
        "dash": "–_",
        "dashes": "—_",
        "ellipses": "….",
        "ellipsis": "….",
        "exclamation marks": "!?",
        "full stop": ".,",
        "hyphens": "-_",
        "parentheses": "([",
        "parenthesis": "([",
        "percent sign": "%/",
        "periods": ".,",
        "punctuation": ";a",
        "question mark": "?!",
        "quotation marks": "“,",
        "semicolons": ";:",
        "slashes": "/-",
        "underscore": "_-",
        "underscores": "_-",
    }
    expect(*((f"fires on {name}", [sign, f"Ġ{sign}", other], [5, 5, 0]) for name, (sign, other) in names.items()))


def test_a_quoted_sign_is_ten():
    expect(('the comma "," and "?"', [",", "?", "."], [10, 10, 0]))


def test_the_name_of_numbers_stands_for_every_number():
    tokens, expected = ["7", "1984", "19", "##84", "a7", "seven"], [5, 5, 5, 5, 0, 0]
    names = ["digits", "a digit", "numbers", "numerals", "numeric"]
    expect(*((f"fires on {name}", tokens, expected) for name in names))


def test_a_quoted_number_is_that_number_and_no_other():
    tokens = ["6", "10", "decimal"]
    expect(*((f'the "{n}" before a decimal', [n, *tokens], [10, 0, 0, 5]) for n in ["0", "7", "42", "1984"]))


def test_a_number_that_is_named_or_quoted_is_found_whole_and_in_pieces():
    tokens = ["1984", "19", "##84", "1985"]
    expect(("the year 1984", tokens, [5, 5, 5, 0]), ('the year "1984"', tokens, [10, 10, 10, 0]))


def test_an_explanation_without_a_readable_word_predicts_zero():
    texts = ["...", "?!", '""', "“”", "— “ ” —", '"', "as to the"]
    expect(*((text, ["red", "a", "as", "##s", "'", ""], [0] * 6) for text in texts))


def test_each_explanation_of_a_neuron_is_read_alone():
    result = ns.simulate(record(["red", "blue"]), explained('"red"', "blue"))
    assert result.select("explanation_id", "predicted").rows() == [("a", 10.0), ("a", 0.0), ("b", 0.0), ("b", 5.0)]
    assert result["status"].unique().to_list() == ["ok"]


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["red", "Ġblue", '"red" and blue'])])
@pytest.mark.parametrize("column", ["token", "explanation"])
def test_tokens_and_explanations_may_be_categories(dtype, column):
    records, explanations = record(["red", "Ġblue"]), explained('"red" and blue')
    cast = pl.col(column).cast(dtype)
    tables = (
        (records.with_columns(cast), explanations) if column == "token" else (records, explanations.with_columns(cast))
    )
    assert ns.simulate(*tables)["predicted"].to_list() == [10.0, 5.0]


@settings(PROPERTY, max_examples=7)
@given(st.lists(st.tuples(PECULIAR, st.lists(PECULIAR, min_size=1, max_size=6)), min_size=1, max_size=12))
def test_any_unicode_is_read_and_the_rows_stay_as_they_were(drawn):
    pairs = pl.concat(
        record(tokens, neuron=n).with_columns(explanation_id=pl.lit("a"), explanation=pl.lit(text), note=pl.lit(n))
        for n, (text, tokens) in enumerate(drawn)
    )
    result = ns.Lexical().simulate(pairs.lazy(), keys=["layer", "neuron"], train=None).collect()
    assert result.columns == [*pairs.columns, "predicted", "status"]
    assert result.select(pairs.columns).equals(pairs)
    assert result.schema["predicted"] == pl.Float64
    assert set(result["predicted"]) <= {0.0, 5.0, 10.0}


@settings(PROPERTY, max_examples=3)
@given(
    st.lists(st.tuples(PECULIAR.filter(str.strip), st.lists(PECULIAR, min_size=1, max_size=6)), min_size=2, max_size=8)
)
def test_a_record_is_predicted_whatever_lies_beside_it(drawn):
    assert predictions_of(drawn) == predictions_of(drawn[:1]) + predictions_of(drawn[1:])


@settings(PROPERTY, max_examples=7)
@given(st.lists(st.text("bcdfglmz", min_size=2, max_size=6), min_size=1, max_size=6), st.data())
def test_a_word_in_pieces_is_predicted_like_the_whole_word(words, data):
    known = " ".join(data.draw(st.lists(st.sampled_from(["some", *words]), min_size=1)))
    cut = data.draw(st.integers(1, 5))
    pieces = [(word[:cut], word[cut:]) for word in words]
    in_pieces = [
        [t for first, rest in pieces for t in ([mark + first, more + rest] if rest else [mark + first])]
        for mark, more in [("", "##"), *((mark, "") for mark in MARKS)]
    ]
    whole, *others = predictions_of([(known, tokens) for tokens in [words, *in_pieces]])
    expected = [p for p, (_, rest) in zip(whole, pieces, strict=True) for _ in range(2 if rest else 1)]
    assert others == [expected] * len(in_pieces)
