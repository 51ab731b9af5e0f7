"""`constant`: the least that any other simulator must beat."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation_tables import PROPERTY, explained, predictions, record, small_explanations, small_records

import nscore as ns


def test_every_token_is_predicted_one_where_no_value_is_given():
    assert predictions("anything", ["a", "b", "c"], "constant") == [1.0, 1.0, 1.0]


@PROPERTY
@given(st.floats(0, 10) | st.integers(0, 10))
def test_every_token_is_predicted_the_value_that_is_given(value):
    result = ns.simulate(record(["a", "b"]), explained("x", "y"), simulator=ns.Constant(value))
    assert result["predicted"].to_list() == [float(value)] * 4
    assert result.schema["predicted"] == pl.Float64
    assert result["status"].to_list() == ["ok"] * 4
    assert result["simulator"].unique().to_list() == ["constant"]


def test_calibrated_it_is_the_mean_activation_of_the_calibration_split():
    records = small_records()
    calibrated = ns.calibrate(ns.simulate(records, small_explanations(), simulator="constant"))
    means = records.filter(pl.col("split") == "calibration").group_by("neuron").agg(pl.col("activation").mean())
    for neuron, mean in means.rows():
        predicted = calibrated.filter(pl.col("neuron") == neuron)["predicted"]
        assert predicted.to_list() == pytest.approx([mean] * predicted.len())


def test_its_correlation_score_is_zero():
    scores = ns.score(ns.simulate(small_records(), small_explanations(), simulator="constant"))
    assert scores["ev_correlation_score"].to_list() == [0.0] * 3


def test_it_is_frozen_and_equal_by_value():
    assert ns.Constant(2.0) == ns.Constant(2.0) != ns.Constant(3.0)
    with pytest.raises(AttributeError):
        ns.Constant().value = 2.0
