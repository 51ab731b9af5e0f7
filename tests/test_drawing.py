"""The pieces of pages and terminals: texts stay texts, colours mean numbers, numbers are not invented."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
import unicodedata
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from hostile_texts import HOSTILE
from hypothesis import given
from hypothesis import strategies as st
from polars.testing.parametric import dataframes as frames
from tables import QUICK

from nscore._drawing.colours import LEVELS, SERIES, Limit, fill, ink
from nscore._drawing.data import as_json, numbers, texts
from nscore._drawing.heat import Record, Scales, record_html
from nscore._drawing.markup import cut, tag, text, visible
from nscore._drawing.numbers import ceiling, short, steps
from nscore._drawing.plots import Bin, Box, boxes, calibration, histogram, shares, spread
from nscore._drawing.table import plain_table
from nscore._drawing.terminal import colours_of, record_lines, wide

ANY = st.one_of(st.text(), st.sampled_from(HOSTILE), st.text(st.characters(categories=["Cs", "Cc", "Cf", "Co"])))
FLOATS = st.one_of(st.none(), st.floats(-1e3, 1e3), st.just(math.nan))


class Elements(HTMLParser):
    """The elements and the text of a piece of HTML."""

    def __init__(self, given):
        super().__init__()
        self.tags, self.attributes, self.said = [], [], ""
        self.feed(given)

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        self.attributes += attributes

    def handle_data(self, data):
        self.said += data


@QUICK
@given(ANY)
def test_a_text_stays_a_text_in_content_and_in_attributes(given):
    made = Elements(tag("p", given, title=given))
    assert made.tags == ["p"]
    assert made.said == visible(given)
    assert made.attributes == [("title", visible(given))]
    assert html.unescape(text(given)) == visible(given)


@QUICK
@given(ANY)
def test_what_is_shown_can_be_seen_and_written(given):
    said = visible(given)
    said.encode("utf-8")
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ufeff\ud800-\udfff]", said)
    assert visible(said) == said


@QUICK
@given(ANY, st.integers(1, 50))
def test_a_cut_text_is_no_longer_than_asked(given, length):
    assert len(cut(given, length)) <= length
    assert cut(given, len(given)) == given


@QUICK
@given(st.recursive(ANY, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner)))
def test_json_in_a_page_reads_back_and_holds_no_markup(given):
    said = as_json(given)
    assert not set("<>&\u2028\u2029") & set(said)
    assert json.dumps(json.loads(said)) == json.dumps(given)  # two halves of a character are that character


@QUICK
@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, width=32))))
def test_numbers_of_a_page_are_those_of_the_table(values):
    column = numbers("x", pl.Series("x", values, dtype=pl.Float64))
    read = np.frombuffer(base64.b64decode(column["data"]), "<f4")
    np.testing.assert_array_equal(read, np.array([math.nan if v is None else v for v in values], "f4"))


@pytest.mark.parametrize(("values", "kind"), [([1, 2], "i4"), ([1, None], "f8"), ([1, 2**40], "f8"), ([1.5], "f4")])
def test_numbers_take_four_bytes_where_those_hold_them(values, kind):
    assert numbers("x", pl.Series(values))["kind"] == kind


def test_texts_stand_once_each_in_order():
    column = texts("x", pl.Series(["b", None, "a", "b"]), 10)
    assert column["values"] == ["a", "b"]
    assert np.frombuffer(base64.b64decode(column["data"]), "<i4").tolist() == [1, -1, 0, 1]


@pytest.mark.parametrize("dark", [False, True])
def test_each_colour_of_a_token_can_be_read(dark):
    for level in range(-LEVELS, LEVELS + 1):
        back = fill(level, dark=dark)
        a, b = sorted((back.luminance, ink(back).luminance))
        assert (b + 0.05) / (a + 0.05) >= 4.5


@pytest.mark.parametrize("dark", [False, True])
def test_a_stronger_activation_is_a_clearer_colour(dark):
    for side in (1, -1):
        gaps = [abs(fill(side * k, dark=dark).luminance - fill(0, dark=dark).luminance) for k in range(LEVELS + 1)]
        assert gaps == sorted(gaps)
        assert len(set(gaps)) == LEVELS + 1


def test_series_are_told_apart():
    assert len(set(SERIES)) == len(SERIES) == 8


@QUICK
@given(FLOATS, st.floats(0, 1e3))
def test_a_level_is_between_the_ends_and_keeps_the_sign(value, limit):
    level = Limit(limit).level(value)
    if value is None or math.isnan(value):
        assert level is None
    else:
        assert -LEVELS <= level <= LEVELS
        assert level * value >= 0


@QUICK
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
def test_marks_lie_between_the_ends_at_equal_steps(low, size, about):
    marks = steps(low, low + size, about)
    gap = size / about
    assert all(low - gap * 1e-6 <= mark <= low + size + gap * 1e-6 for mark in marks)
    assert 1 <= len(marks) <= 3 * about + 2


@QUICK
@given(st.floats(1e-6, 1e9))
def test_an_axis_ends_above_its_highest_bar(value):
    assert value <= ceiling(value) <= 2.01 * value


@QUICK
@given(FLOATS)
def test_a_number_is_said_to_three_digits_or_not_at_all(value):
    said = short(value)
    if value is None or math.isnan(value):
        assert said == "–"  # noqa: RUF001
    else:
        assert float(said.replace(",", "")) == pytest.approx(value, abs=0.5001e-3 if abs(value) < 1000 else 0.51)


def record(tokens, activation, predicted, status=None):
    return Record("r", tokens, activation, predicted, status or [None] * len(tokens), 0, len(tokens))


def test_a_token_has_the_colours_of_its_numbers():
    scales = Scales(Limit(2.0), Limit(10.0))
    made = Elements(record_html(record(["a", "<b>"], [1.0, -2.0], [10.0, None], [None, "refused"]), scales))
    tokens = [v for k, v in made.attributes if k in {"class", "title"}][2:6]
    assert tokens == ["t5 p10", "true 1.000, predicted 10.000", "u10 px", "true -2.000, predicted refused"]


@QUICK
@given(st.lists(st.tuples(ANY, FLOATS, FLOATS), min_size=1, max_size=30), st.integers(20, 120))
def test_a_terminal_shows_every_token_and_no_control_character_of_it(rows, width):
    tokens, activation, predicted = zip(*rows, strict=True)
    scales = Scales(Limit(1.0), Limit(1.0))
    of = record(tokens, activation, predicted)
    for colours in ("none", "256", "truecolor"):
        lines = list(record_lines(of, scales, colours=colours, width=width))
        joined = "\n".join(lines)
        bare = re.sub(r"\x1b\[[0-9;]*m", "", joined)
        assert colours != "none" or bare == joined
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", bare)
        flat = bare.replace("\n", "")
        assert all(visible(cut(token, 24)).strip() in flat for token in tokens if len(token) > 1)
        limit = max(width, 6 + max(wide(visible(cut(t, 24))) for t in tokens) + 3)
        assert all(wide(line) <= limit for line in bare.splitlines())


@QUICK
@given(frames(max_cols=4, max_size=5, excluded_dtypes=[pl.Object]), st.integers(1, 70))
def test_any_table_is_a_line_for_each_row_and_moves_no_cursor(frame, width):
    lines = plain_table(frame, width=width).splitlines() if frame.width else []
    assert len(lines) == (frame.height + 1 if frame.width else 0)
    assert all(visible(line) == line for line in lines)
    assert not {unicodedata.category(each) for each in "".join(lines)} & {"Cc", "Cs", "Zl", "Zp"}
    assert all(
        wide(line) <= 1 + sum(2 + max(2 * width, wide(visible(name))) for name in frame.columns) for line in lines
    )


@pytest.mark.parametrize("given", HOSTILE)
def test_a_hostile_text_stays_in_its_cell(given):
    lines = plain_table(pl.DataFrame({"a": ["x", given], "n": [1, 2]}), width=20).split("\n")
    assert [line[-1] for line in lines] == ["n", "1", "2"]
    assert len({wide(line) for line in lines}) == 1


def test_a_plain_terminal_shows_digits_under_the_tokens():
    of = record(["the", " red", "x"], [0.0, 2.0, 1.0], [1.0, None, 2.0])
    assert list(record_lines(of, Scales(Limit(2.0), Limit(2.0)), colours="none", width=60)) == [
        "r",
        "      the  red x",
        "true  0   10   5",
        "pred. 5   .    10",
    ]


def test_colours_are_those_of_the_scale():
    of = record(["a", " b"], [0.0, 2.0], [2.0, 0.0])
    true, predicted = list(record_lines(of, Scales(Limit(2.0), Limit(2.0)), colours="truecolor", width=60))[1:]
    none, most = (f"48;2;{c.red};{c.green};{c.blue}" for c in (fill(0, dark=True), fill(10, dark=True)))
    assert re.findall(r"48;2;\d+;\d+;\d+", true) == [none, most]
    assert re.findall(r"48;2;\d+;\d+;\d+", predicted) == [most, none]
    assert re.sub(r"\x1b\[[0-9;]*m", "", true) == "true  a b"
    assert all(line.endswith("\x1b[0m") for line in (true, predicted))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"TERM": "xterm-256color"}, "256"),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, "truecolor"),
        ({"TERM": "xterm", "COLORTERM": "truecolor", "NO_COLOR": "1"}, "none"),
        ({"TERM": "dumb"}, "none"),
        ({}, "none"),
    ],
)
def test_a_terminal_gets_the_colours_it_shows(environment, colours):
    assert colours_of(Terminal(), environment) == colours
    assert colours_of(io.StringIO(), environment) == "none"


def counts(svg):
    return [int(n.replace(",", "")) for n in re.findall(r"<title>[^<]*: ([\d,]+)</title>", svg)]


@QUICK
@given(st.lists(st.one_of(st.floats(-50, 1), st.just(math.nan), st.just(-math.inf))))
def test_a_histogram_counts_every_defined_value(values):
    x = np.array(values, dtype=np.float64)
    svg = histogram(x, "score", ends=spread(x, -1.0), title="t", colour=0)
    assert sum(counts(svg)) == int((~np.isnan(x)).sum())


def test_plots_tell_their_numbers_in_words():
    svg = boxes([Box("0", 9, (0.1, 0.2, 0.3, 0.4, 0.5))], "s", ends=(0.0, 1.0), title="t", across="layer", colour=1)
    assert "0: median 0.300, half between 0.200 and 0.400, n = 9" in svg
    svg = calibration([Bin(3, 1.0, 2.0, 1.5, 2.5)], shared=True)
    assert "predicted 1.000, true 2.000 on average, n = 3" in svg
    assert "diagonal" in svg
    assert "diagonal" not in calibration([Bin(3, 1.0, 2.0, 1.5, 2.5)], shared=False)
    svg = shares([("lexical", [("predicted", 90), ("refused", 10)])], "t")
    assert "lexical, refused: 10 of 100 tokens" in svg
    for empty in (
        calibration([], shared=True),
        shares([], "t"),
        boxes([], "s", ends=(0, 1), title="t", across="l", colour=0),
    ):
        assert empty.startswith("<svg")


@QUICK
@given(ANY)
def test_names_in_plots_stay_names(name):
    svg = boxes([Box(name, 1, (0.0,) * 5)], name, ends=(0.0, 1.0), title=name, across=name, colour=0)
    svg += shares([(name, [(name, 1)])], name)
    made = Elements(svg)
    assert set(made.tags) <= {"svg", "title", "text", "line", "rect", "polyline"}
    assert not [each for each, _ in made.attributes if each == "style" or each.startswith("on")]
