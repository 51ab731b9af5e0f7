"""Simulators of third parties: whatever their `read` gives, no row holds an unknown status or a number that is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import polars as pl
import pytest
from asking import backend, explanations_of, records_of, serve, value
from hypothesis import given
from hypothesis import strategies as st
from simulation_tables import PROPERTY

import nscore as ns
from nscore._running.reading import sound
from nscore.records import Status
from nscore.simulators import Predictions

KNOWN = get_args(Status)
RECORDS, TOLD = records_of(1, 2), explanations_of(1)


def changed(change):
    """`json_list`, but for what it read of the first record, which is given to `change`."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Theirs(ns.JsonList):
        def read(self, ask, records, reply, can):
            found = ns.JsonList.read(self, ask, records, reply, can)
            return change(found) if records[ask.spans[0].record][-1] == "n0s0" else found

    return Theirs()


def first(**fields):
    """A change of the first token's fields."""

    def change(found):
        for name, new in fields.items():
            field = getattr(found[0], name)
            field[:1] = [new]
        return found

    return change


def outcome(tmp_path, change, **options):
    with serve() as server:
        theirs = changed(change)
        run = ns.simulate(RECORDS, TOLD, simulator=theirs, backend=backend(server), out=tmp_path / "run", **options)
    return run.simulated().collect(), run.requests().collect()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (first(status="great"), "found the status 'great', expected one of ok, length_mismatch,"),
        (first(status=None), "found the status 'None', expected one of ok,"),
        (first(predicted=math.nan), "found the prediction 'nan', expected a finite number"),
        (first(predicted=-math.inf), "found the prediction '-inf', expected a finite number"),
        (first(predicted=np.float32("inf")), "found the prediction 'inf', expected a finite number"),
        (first(predicted=None), "found the prediction 'None', expected a finite number"),
        (first(predicted="7"), "found the prediction '7', expected a finite number"),
    ],
    ids=["unknown", "no status", "nan", "infinite", "infinite of numpy", "none", "text"],
)
def test_what_is_no_prediction_is_a_parse_error_of_its_token_alone(tmp_path, change, said):
    rows, requests = outcome(tmp_path, change)
    assert rows["status"].to_list() == ["parse_error", *["ok"] * 7]
    assert rows["predicted"].to_list() == [None, *(float(value(token)) for token in rows["token"][1:])]
    assert requests["status"].to_list() == ["parse_error", "ok"]
    assert requests["error"][0].startswith(said)
    assert requests["error"][1] is None
    ns.validate(rows, "simulated")


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found[:0],
        lambda found: found * 2,
        lambda found: [Predictions(found[0].status[1:], found[0].predicted[1:])],
        lambda found: [Predictions(found[0].status, found[0].predicted[1:])],
        lambda found: [Predictions([*found[0].status, "ok"], [*found[0].predicted, 1.0])],
    ],
    ids=["none", "twice", "one token less", "one value less", "one token more"],
)
def test_predictions_of_other_tokens_are_a_parse_error_of_the_request(tmp_path, change):
    rows, requests = outcome(tmp_path, change)
    assert rows["status"].to_list() == ["parse_error"] * 4 + ["ok"] * 4
    assert rows["predicted"].to_list() == [None] * 4 + [float(value(token)) for token in rows["token"][4:]]
    assert requests["error"].to_list() == ["json_list read other tokens than it asked about", None]


def test_a_failure_that_has_a_number_is_null_and_keeps_its_status(tmp_path):
    rows, requests = outcome(tmp_path, first(status="refused", predicted=7.0))
    assert rows["status"].to_list() == ["refused", *["ok"] * 7]
    assert rows["predicted"][0] is None
    assert requests["status"].to_list() == ["refused", "ok"]
    assert requests["error"].to_list() == [None, None]


def test_masses_and_distributions_that_are_no_numbers_are_null(tmp_path):
    def change(found):
        found[0].status[0] = "great"
        found[0].digit_mass = [math.inf, 0.5, math.nan, None]
        found[0].distribution = [[1.0], [math.nan], None, [0.5]]
        return found

    rows, _ = outcome(tmp_path, change, distribution=True)
    assert rows["digit_mass"].to_list() == [None, 0.5, None, None, *[None] * 4]
    assert rows["distribution"].to_list() == [[1.0], None, None, [0.5], *[None] * 4]


class Place:
    """A request for two records, of two tokens and of one."""

    rows = ((0, 2), (2, 3))
    group = type("Group", (), {"simulator": ns.JsonList()})


ANYTHING = st.one_of(st.none(), st.floats(), st.integers(), st.booleans(), st.text(max_size=3), st.sampled_from(KNOWN))
MANY = st.lists(ANYTHING, max_size=3)
OTHERS = st.builds(Predictions, MANY, MANY, MANY, st.lists(st.one_of(st.none(), MANY), max_size=3))
FITTING = st.tuples(
    *(
        st.builds(Predictions, *(st.lists(ANYTHING, min_size=n, max_size=n) for _ in range(3)), st.just([]))
        for n in (2, 1)
    )
).map(list)


@PROPERTY
@given(st.one_of(FITTING, st.lists(OTHERS, max_size=3)))
def test_whatever_is_read_a_number_is_finite_and_stands_beside_ok_alone(found):
    predictions, wrong = sound(Place, found)
    assert [len(p.status) for p in predictions] == [len(p.predicted) for p in predictions] == [2, 1]
    for p in predictions:
        assert set(p.status) <= set(KNOWN)
        for status, predicted in zip(p.status, p.predicted, strict=True):
            assert (status == "ok") == (predicted is not None)
            assert predicted is None or math.isfinite(predicted)
        assert all(mass is None or math.isfinite(mass) for mass in p.digit_mass)
    assert wrong is not None or pl.Series([s for p in found for s in p.status]).is_in(KNOWN).all()
