"""The expected activation among the likeliest tokens."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompted import WIDE, near

from nscore.simulators._values import expected, number_in

CHANCES = st.dictionaries(st.integers(0, 10), st.floats(1e-12, 1.0), min_size=1)


def logs(chances):
    return [(text, math.log(p)) for text, p in chances.items()]


def test_by_hand_the_probabilities_of_numbers_are_brought_to_one_and_averaged():
    found = expected(logs({"0": 0.2, "10": 0.1, "5": 0.1, "unknown": 0.5, " the": 0.1}), 10)
    assert near(found.value, (0.1 * 10 + 0.1 * 5) / 0.4)
    assert near(found.mass, 0.4)
    assert found.distribution == pytest.approx([0.5, 0, 0, 0, 0, 0.25, 0, 0, 0, 0, 0.25])


@WIDE
@given(CHANCES, st.integers(0, 10))
def test_the_mean_is_on_the_scale_and_is_that_of_the_distribution(chances, top):
    found = expected(logs({str(n): p / len(chances) for n, p in chances.items()}), top)
    valid = {n: p / len(chances) for n, p in chances.items() if n <= top}
    if not valid:
        assert found is None
        return
    assert 0 <= found.value <= top
    assert 0 < found.mass <= 1
    assert near(found.mass, min(sum(valid.values()), 1.0))
    assert len(found.distribution) == top + 1
    assert near(sum(found.distribution), 1)
    assert near(found.value, sum(n * p for n, p in enumerate(found.distribution)))
    assert near(found.value, sum(n * p for n, p in valid.items()) / sum(valid.values()))


@WIDE
@given(st.integers(0, 10), st.floats(-700, 0))
def test_one_number_alone_is_its_own_mean_however_unlikely(number, logprob):
    found = expected([(str(number), logprob)], 10)
    assert found.value == pytest.approx(number)
    assert found.value <= 10


@pytest.mark.parametrize(
    "text", ["11", "-1", "07", "00", "1.5", "100", "٣", "²", "", " ", "one", "1a", "a1", "5%", "1 2", "<1>"]
)
def test_what_is_no_activation_counts_for_nothing(text):
    assert expected([(text, -1.0)], 10) is None


def test_ten_counts_on_the_scale_to_ten_only():
    assert expected([("10", -1.0)], 10).value == 10
    assert expected([("10", -1.0)], 9) is None


@pytest.mark.parametrize("text", ["7", " 7", "\n7", "\t7", "▁7", "7\n", "7,", "7]", "7}]", " 7, "])
def test_blanks_before_and_the_end_of_a_list_or_line_after_do_not_hide_a_number(text):
    assert number_in(text) == "7"


@pytest.mark.parametrize("logprob", [math.nan, -math.inf, -1e300])
def test_a_logprob_that_says_nothing_is_no_answer(logprob):
    assert expected([("7", logprob)], 10) is None
    assert near(expected([("7", logprob), ("3", -1.0)], 10).value, 3)


def test_a_logprob_above_zero_is_zero_as_servers_round():
    assert expected([("7", 1e-6)], 10).mass == 1.0
    assert expected([("7", 800.0)], 10).value == 7


def test_where_a_tab_is_part_of_the_token_only_numbers_after_a_tab_count():
    given_there = logs({"\tunknown": 0.5, "\t5": 0.2, "5": 0.1, " 5": 0.1, "\t": 0.1})
    found = expected(given_there, 10, "\t")
    assert near(found.mass, 0.2)
    assert expected(logs({"\tunknown": 0.5, "5": 0.5}), 10, "\t") is None


@pytest.mark.parametrize("prefix", [":", '":', "[", "\ufffd\t", "1"])
def test_what_a_token_holds_before_the_number_is_not_read_as_part_of_it(prefix):
    assert expected(logs({f"{prefix}7": 0.5, "3": 0.5}), 10, prefix).value == pytest.approx(7)


def test_a_space_before_a_number_may_be_missing_in_others():
    assert near(expected(logs({" 7": 0.25, "3": 0.25}), 10, " ").value, 5)
