"""Scores are the original's, on any input; failures take no part and are told; nothing is zero that nobody predicted."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from original.originals import Fixed, absolute, correlation, rsquared, same, simulation

import nscore as ns
from nscore.neuron_explainer import (
    ActivationRecord,
    ScoredSequenceSimulation,
    absolute_dev_explained_score_from_sequences,
    aggregate_scored_sequence_simulations,
    correlation_score,
    flatten_list,
    make_simulator_and_score,
    rsquared_score_from_sequences,
    score_from_simulation,
    simulate_and_score,
)

ANY = settings(max_examples=100, deadline=None)
FUNCTIONS = [
    (correlation_score, correlation),
    (rsquared_score_from_sequences, rsquared),
    (absolute_dev_explained_score_from_sequences, absolute),
]
# whole hundredths, and few of them: constants, zeros and ties are common, and no column is nearly constant
VALUES = st.integers(-300, 1000).map(lambda n: n / 100) | st.sampled_from([0.0, 0.0, 1.0])
PAIRS = st.lists(st.tuples(VALUES, VALUES), max_size=30)
RECORDS = st.lists(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=6), max_size=5)


def apart(pairs):
    return [t for t, _ in pairs], [p for _, p in pairs]


def scored_of(records):
    """Scored sequences, whose own scores say nothing."""
    return [ScoredSequenceSimulation(simulation(apart(pairs)[1]), apart(pairs)[0], 7.0) for pairs in records]


@ANY
@given(pairs=PAIRS, as_array=st.booleans())
def test_scores_are_the_originals_on_any_input(pairs, as_array):
    t, p = (np.array(x, dtype=float) if as_array else x for x in apart(pairs))
    for function, original in FUNCTIONS:
        found = function(t, p)
        assert type(found) is float
        assert same(found, original(t, p)), (function.__name__, found, original(t, p))


@pytest.mark.parametrize(
    ("t", "p", "expected"),
    [
        ([0, 0, 2, 2], [1, 1, 5, 5], (1.0, 1 - 20 / 8, 1 - 8 / 4)),
        ([1, 2, 3], [4, 4, 4], (0.0, 1 - 14 / 14, 1 - 6 / 6)),
        ([5.0], [5.0], (0.0, 1.0, 1.0)),
        ([0, 0], [0, 1], (0.0, -math.inf, -math.inf)),
        ([0, 0], [0, 0], (0.0, math.nan, math.nan)),
        ([], [], (0.0, math.nan, math.nan)),
        ([1, 2, 3], [1, math.nan, 3], (0.0, math.nan, math.nan)),
        ([1, math.nan, 3], [1, 2, 3], (0.0, math.nan, math.nan)),
        ([1, 2, 3], [1, math.inf, 3], (0.0, -math.inf, -math.inf)),
    ],
)
def test_edges_are_what_they_were(t, p, expected):
    for (function, original), value in zip(FUNCTIONS, expected, strict=True):
        assert same(function(t, p), value)
        assert same(original(t, p), value)


@pytest.mark.parametrize("function", [f for f, _ in FUNCTIONS])
@pytest.mark.parametrize("p", [[1.0], [1.0, 2.0, 3.0], []])
def test_lengths_that_differ_are_an_error(function, p):
    # numpy stretches a list of one, and so invents predictions
    with pytest.raises(ns.TableError, match="lengths differ"):
        function([1.0, 2.0], p)


def test_a_table_of_numbers_is_refused():
    with pytest.raises(ns.TableError, match=r"shape \(2, 2\)"):
        correlation_score(np.zeros((2, 2)), np.zeros((2, 2)))


@ANY
@given(records=RECORDS)
def test_pooled_scores_are_the_formula_over_all_tokens(records):
    pooled = aggregate_scored_sequence_simulations(scored_of(records))
    t, p = apart(flatten_list(records))
    assert same(pooled.ev_correlation_score, correlation(t, p) if t else None)
    assert pooled.get_preferred_score() == pooled.ev_correlation_score
    assert same(pooled.rsquared_score, rsquared(t, p) if t else math.nan)
    assert same(pooled.absolute_dev_explained_score, absolute(t, p) if t else math.nan)


def test_an_aggregate_over_nothing_is_none_and_nan():
    for nothing in ([], [ScoredSequenceSimulation(simulation([]), [], 0.0)]):
        pooled = aggregate_scored_sequence_simulations(nothing)
        assert pooled.ev_correlation_score is None
        assert math.isnan(pooled.rsquared_score)
        assert math.isnan(pooled.absolute_dev_explained_score)
        assert math.isnan(pooled.coverage)


def test_an_aggregate_of_other_lengths_is_an_error():
    with pytest.raises(ns.TableError, match="3 true and 2 predicted"):
        aggregate_scored_sequence_simulations([ScoredSequenceSimulation(simulation([1.0, 2.0]), [1.0, 2.0, 3.0], 0.0)])


def test_any_function_scores_a_simulation():
    record = ActivationRecord(["a", "b"], [1.0, 2.0])
    assert score_from_simulation(record, simulation([3.0, 5.0]), lambda t, p: sum(p) - sum(t)) == 5.0
    assert score_from_simulation(record, simulation([3.0, 5.0]), correlation_score) == pytest.approx(1.0)


def test_each_record_and_all_together_are_scored():
    records = [ActivationRecord(["a", "b", "c"], [0.0, 1.0, 5.0]), ActivationRecord(["d", "e"], [2.0, 0.0])]
    simulator = Fixed({("a", "b", "c"): [0.0, 3.0, 4.0], ("d", "e"): [1.0, 1.0]})
    made = asyncio.run(simulate_and_score(simulator, records))
    first, second = made.scored_sequence_simulations
    assert same(first.ev_correlation_score, correlation([0, 1, 5], [0, 3, 4]))
    assert same(first.rsquared_score, rsquared([0, 1, 5], [0, 3, 4]))
    assert same(second.absolute_dev_explained_score, absolute([2, 0], [1, 1]))
    assert second.ev_correlation_score == 0.0
    assert same(made.get_preferred_score(), correlation([0, 1, 5, 2, 0], [0, 3, 4, 1, 1]))
    assert first.true_activations == [0.0, 1.0, 5.0]
    assert made.coverage == 1.0


def test_tokens_without_a_prediction_take_no_part_and_are_told():
    records = [ActivationRecord(["a", "b", "c"], [0.0, 1.0, 5.0]), ActivationRecord(["d", "e"], [2.0, 0.0])]
    simulator = Fixed({("a", "b", "c"): [0.0, math.nan, 4.0], ("d", "e"): [math.nan, math.nan]})
    with pytest.warns(UserWarning, match=r"3 of 5 tokens have no prediction \(3 not_run\)"):
        made = asyncio.run(simulate_and_score(simulator, records))
    first, second = made.scored_sequence_simulations
    assert same(first.rsquared_score, rsquared([0, 5], [0, 4]))
    assert same(made.rsquared_score, rsquared([0, 5], [0, 4]))
    assert all(map(math.isnan, (second.ev_correlation_score, second.rsquared_score)))
    assert made.coverage == pytest.approx(0.4)


def test_where_nothing_was_predicted_nothing_is_known():
    with pytest.warns(UserWarning, match="2 of 2"):
        made = asyncio.run(
            simulate_and_score(Fixed({("a", "b"): [math.nan] * 2}), [ActivationRecord(["a", "b"], [1, 2])])
        )
    assert made.get_preferred_score() is None
    assert math.isnan(made.rsquared_score)


def test_a_simulator_is_awaited_and_scores():
    async def make():
        return Fixed({("a", "b"): [0.0, 9.0]})

    made = asyncio.run(make_simulator_and_score(make(), [ActivationRecord(["a", "b"], [1.0, 2.0])]))
    assert made.get_preferred_score() == pytest.approx(1.0)


def test_where_one_simulation_fails_the_others_are_ended():
    ended = []

    class Failing(Fixed):
        async def simulate(self, tokens):
            if tokens == ["bad"]:
                raise ns.BackendError("no")
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.append(tokens)
                raise

    with pytest.raises(ns.BackendError, match="no"):
        asyncio.run(simulate_and_score(Failing({}), [ActivationRecord([t], [0.0]) for t in ("a", "bad", "b")]))
    assert ended == [["a"], ["b"]]
