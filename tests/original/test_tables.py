"""The original's objects become nscore's tables, and what comes back is what went in."""

from __future__ import annotations

import copy
import json
import math
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from original.originals import neuron_content, results_content, same, simulation

import nscore as ns
from nscore.neuron_explainer import (
    ActivationRecordSliceParams,
    ActivationScale,
    ScoredSequenceSimulation,
    SequenceSimulation,
    aggregate_scored_sequence_simulations,
    records_table,
    results_tables,
    scored_simulations,
    sequence_simulations,
    simulated_table,
)
from nscore.neuron_explainer.fast_dataclasses import loads

SCALES = ActivationScale.SIMULATED_NORMALIZED_ACTIVATIONS, ActivationScale.NEURON_ACTIVATIONS
SCORES = ["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"]
ROUND = st.integers(-300, 1000).map(lambda n: n / 100)


@st.composite
def simulations(draw):
    """A scored simulation as simulators make them: with distributions or without, calibrated or not, with failures."""
    n = draw(st.integers(1, 5))
    known = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    listed, calibrated = draw(st.booleans()), draw(st.booleans())
    tokens = draw(st.lists(st.text(max_size=3), min_size=n, max_size=n))
    values = [draw(st.lists(st.integers(0, 10), min_size=1, max_size=3, unique=True).map(sorted)) for _ in range(n)]
    values = [[float(v) for v in vs] if k else [] for vs, k in zip(values, known, strict=True)] if listed else []
    chances = [[1 / len(v)] * len(v) if v else [] for v in values]
    expected = [draw(ROUND) if k else math.nan for k in known]
    raw = SequenceSimulation(tokens, expected, SCALES[0], values, chances)
    truth = draw(st.lists(ROUND, min_size=n, max_size=n))
    if not calibrated:
        return ScoredSequenceSimulation(raw, truth, 0.0)
    mapped = [[v / 2 for v in vs] for vs in values]
    made = SequenceSimulation(tokens, [x / 2 for x in expected], SCALES[1], mapped, chances, raw)
    return ScoredSequenceSimulation(made, truth, 0.0)


def plain(given):
    """All that a simulation holds, with words for what is not known."""
    text = json.dumps(given, default=vars, sort_keys=True)
    return text.replace("NaN", '"unknown"')


@settings(max_examples=40, deadline=None)
@given(scored=st.lists(simulations(), min_size=1, max_size=4))
def test_simulations_come_back_from_their_table(scored):
    frame = simulated_table(scored, layer=3, neuron=7, explanation_id="e", simulator="s")
    ns.validate(frame, "simulated")
    given = [s.sequence_simulation for s in scored]
    known = [any(not math.isnan(x) for x in s.expected_activations) for s in given]
    found = sequence_simulations(frame.sample(fraction=1.0, shuffle=True, seed=0))
    for one, other, is_known in zip(given, found, known, strict=True):
        other.status = None  # the table says of a failure that it is one, and so it is told here
        if is_known:
            assert plain(one) == plain(other)
        else:
            assert one.tokens == other.tokens
            assert all(map(math.isnan, other.expected_activations))


@settings(max_examples=40, deadline=None)
@given(scored=st.lists(simulations(), min_size=1, max_size=4))
@pytest.mark.filterwarnings("ignore:.*have no prediction")
def test_scores_of_the_table_are_those_of_the_objects(scored):
    pooled = aggregate_scored_sequence_simulations(scored)
    frame = simulated_table(pooled)
    table = ns.score(frame).row(0, named=True)
    again = scored_simulations(frame)[0, 0]
    for name in SCORES:
        expected = getattr(pooled, name)
        assert same(math.nan if table[name] is None else table[name], math.nan if expected is None else expected, 1e-9)
        assert same(getattr(again, name), expected)
    assert table["coverage"] == pytest.approx(pooled.coverage)


def test_the_columns_are_those_of_the_engine():
    few = [
        simulation(
            [0.5, math.nan],
            ["a", "b"],
            distribution_values=[[0.0, 1.0], []],
            distribution_probabilities=[[0.5] * 2, []],
        )
    ]
    few[0].status = ["ok", "refused"]
    frame = simulated_table(few, layer="mlp", neuron=7, simulator="all_at_once")
    assert frame.columns == [
        *("layer", "neuron", "simulator", "sequence", "position", "token", "activation", "predicted", "status"),
        *("activation_scale", "distribution"),
    ]
    assert frame["status"].to_list() == ["ok", "refused"]
    assert frame["predicted"].to_list() == [0.5, None]
    assert frame["distribution"].to_list() == [[0.5, 0.5] + [0.0] * 9, None]
    assert sequence_simulations(frame)[0].status == ["ok", "refused"]


def test_calibrated_tables_of_nscore_come_back_with_their_raw_predictions():
    frame = simulated_table([ScoredSequenceSimulation(simulation([1.0, 3.0]), [0.0, 4.0], 0.0)])
    frame = ns.calibrate(frame, fit=pl.lit(value=True), fit_on_scored=True)
    (made,) = sequence_simulations(frame.drop("activation_scale"))
    assert made.expected_activations == pytest.approx([0.0, 4.0])
    assert made.activation_scale == ActivationScale.NEURON_ACTIVATIONS
    assert made.uncalibrated_simulation.expected_activations == [1.0, 3.0]
    assert made.uncalibrated_simulation.activation_scale == ActivationScale.SIMULATED_NORMALIZED_ACTIVATIONS


@pytest.mark.parametrize("old", [False, True])
def test_published_results_become_tables_and_come_back(old):
    results = loads(json.dumps(results_content(old=old)))
    explanations, simulated = results_tables([results, results_of(results, neuron=4)])
    assert explanations.rows() == [(5, 3, "0", "the letter b"), (5, 4, "0", "the letter b")]
    ns.validate(explanations, "explanations")
    ns.validate(simulated, "simulated", by=["layer", "neuron", "explanation_id"])
    assert simulated["distribution"][0].to_list() == [0.25, 0.75] + [0.0] * 9
    assert simulated["distribution_values"][0].to_list() == [0.5, 0.0]
    back = scored_simulations(simulated)
    assert list(back) == [(5, 3, "0"), (5, 4, "0")]
    expected = results.scored_explanations[0].scored_simulation
    for name in SCORES:
        assert same(getattr(back[5, 4, "0"], name), getattr(expected, name))
    first = back[5, 3, "0"].scored_sequence_simulations[0].simulation
    assert first.distribution_values == [[0.5, 0.0], [2.0]]
    assert first.uncalibrated_simulation.distribution_values == [[0.0, 1.0], [4.0]]  # by value


def results_of(results, neuron):
    made = copy.deepcopy(results)
    made.neuron_id.neuron_index = neuron
    return made


def test_records_of_neurons_are_split_and_simulated_by_nscore():
    neuron = loads(json.dumps(neuron_content()))
    frame = records_table([neuron])
    ns.validate(frame, "records")
    placed = ns.assign_splits(frame, n_per_split=5)
    for split in ("train", "calibration", "valid", "test"):
        own = getattr(neuron, f"{split}_activation_records")(ActivationRecordSliceParams(5))
        rows = placed.filter(pl.col("split") == split).sort("sequence", "position")
        assert rows["token"].to_list() == [t for r in own for t in r.tokens]
        assert rows["activation"].to_list() == [x for r in own for x in r.activations]
    told = pl.DataFrame({"layer": 9, "neuron": 6236, "explanation_id": "a", "explanation": '"red"'})
    assert ns.simulate(placed.drop("rank"), told)["predicted"].null_count() == 0


def test_layers_that_are_names_and_numbers_are_names():
    neurons = [loads(json.dumps(neuron_content(layer=layer, top=1, random=0))) for layer in ("mlp", 3)]
    assert records_table(neurons)["layer"].unique().sort().to_list() == ["3", "mlp"]


def test_nothing_becomes_empty_tables():
    assert records_table([]).height == simulated_table([]).height == 0
    assert [frame.height for frame in results_tables([])] == [0, 0]
    assert sequence_simulations(simulated_table([])) == []
    assert simulated_table([simulation([])]).height == 0


@pytest.mark.parametrize("name", ["tokens", "expected_activations", "distribution_values"])
def test_a_simulation_of_two_lengths_is_an_error(name):
    given = simulation([1.5, 2.0], distribution_values=[[0.5], [2.0]], distribution_probabilities=[[1.0], [1.0]])
    setattr(given, name, getattr(given, name) * 2)
    with pytest.raises((ns.TableError, ValueError), match=r"lengths differ|shorter|longer"):
        simulated_table([given])


def test_tokens_are_needed_on_the_way_back():
    frame = simulated_table([simulation([1.0])]).drop("token")
    with pytest.raises(ns.TableError, match="token"):
        sequence_simulations(frame)


def test_records_come_in_the_order_of_their_sequence():
    frame = simulated_table([simulation([float(i)]) for i in range(12)])
    found = sequence_simulations(frame.reverse())
    assert all(a.expected_activations < b.expected_activations for a, b in pairwise(found))
