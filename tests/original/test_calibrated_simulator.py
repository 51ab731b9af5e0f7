"""Calibrations are nscore's: least squares and matched percentiles, of the distributions' values too."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from original.originals import Fixed, simulation

import nscore as ns
from nscore.neuron_explainer import (
    ActivationRecord,
    ActivationScale,
    CalibratedNeuronSimulator,
    LinearCalibratedNeuronSimulator,
    PercentileMatchingCalibratedNeuronSimulator,
    UncalibratedNeuronSimulator,
    simulate_and_score,
)

FITTED = [LinearCalibratedNeuronSimulator, PercentileMatchingCalibratedNeuronSimulator]
RECORDS = [ActivationRecord(["a", "b", "c"], [0.0, 1.0, 5.0]), ActivationRecord(["d", "e"], [2.0, 0.5])]
PREDICTED = {("a", "b", "c"): [0.0, 3.0, 9.0], ("d", "e"): [4.0, 1.0]}
T, P = np.array([0.0, 1.0, 5.0, 2.0, 0.5]), np.array([0.0, 3.0, 9.0, 4.0, 1.0])
ROUND = st.integers(-100, 1000).map(lambda n: n / 100)


def linear(t, p, values):
    slope, intercept = np.polyfit(p, t, 1)
    return slope * np.asarray(values) + intercept


def percentile(t, p, values):
    return np.interp(values, np.sort(p), np.sort(t))


def fitted(cls, t, p):
    made = cls(Fixed({}))
    made.calibrate_from_simulations([ActivationRecord(["x"] * len(t), list(t))], [simulation(p)])
    return made


@pytest.mark.parametrize(("cls", "by_numpy"), [(FITTED[0], linear), (FITTED[1], percentile)])
def test_a_calibration_maps_predictions_and_the_values_of_distributions(cls, by_numpy):
    async def script():
        simulator = await cls.create(Fixed(PREDICTED), RECORDS)
        return simulator, await simulator.simulate(("a", "b", "c"))

    simulator, made = asyncio.run(script())
    assert made.expected_activations == pytest.approx(by_numpy(T, P, [0.0, 3.0, 9.0]))
    assert made.distribution_values == [pytest.approx(by_numpy(T, P, [x, x + 1])) for x in (0.0, 3.0, 9.0)]
    assert made.distribution_probabilities == [[0.75, 0.25]] * 3
    assert made.activation_scale == ActivationScale.NEURON_ACTIVATIONS
    raw = made.uncalibrated_simulation
    assert raw.expected_activations == [0.0, 3.0, 9.0]
    assert raw.activation_scale == ActivationScale.SIMULATED_NORMALIZED_ACTIVATIONS
    assert simulator.uncalibrated_simulator.asked == [["a", "b", "c"], ["d", "e"], ["a", "b", "c"]]


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(ROUND, ROUND), min_size=2, max_size=12, unique_by=lambda pair: pair[1]),
    values=st.lists(ROUND, max_size=5),
)
def test_calibrations_are_those_of_numpy(pairs, values):
    t, p = (np.array(x) for x in zip(*pairs, strict=True))
    if np.polyfit(p, t, 1)[0] > 1e-9:
        made = fitted(LinearCalibratedNeuronSimulator, t, p)
        assert made.apply_calibration(values) == pytest.approx(linear(t, p, values), abs=1e-6, rel=1e-6)
    made = fitted(PercentileMatchingCalibratedNeuronSimulator, t, p)
    assert made.apply_calibration(values) == pytest.approx(percentile(t, p, values), abs=1e-9)


def test_constant_predictions_become_the_mean_of_the_truth():
    for cls in FITTED:
        assert fitted(cls, [1.0, 2.0, 6.0], [4.0, 4.0, 4.0]).apply_calibration([0.0, 4.0]) == pytest.approx([3.0, 3.0])


def test_the_uncalibrated_leaves_all_as_it_is_and_asks_nothing_to_calibrate():
    async def script():
        simulator = await UncalibratedNeuronSimulator.create(Fixed(PREDICTED), RECORDS)
        asked = list(simulator.uncalibrated_simulator.asked)
        return asked, await simulator.simulate(("d", "e"))

    asked, made = asyncio.run(script())
    assert asked == []
    assert made.expected_activations == [4.0, 1.0]
    assert made.activation_scale == ActivationScale.NEURON_ACTIVATIONS
    assert made.uncalibrated_simulation.activation_scale == ActivationScale.SIMULATED_NORMALIZED_ACTIVATIONS


@pytest.mark.parametrize("cls", FITTED)
def test_without_a_calibration_nothing_is_calibrated(cls):
    with pytest.raises(ns.CalibrationError, match="no calibration yet"):
        cls(Fixed({})).apply_calibration([1.0])


@pytest.mark.parametrize("cls", FITTED)
def test_tokens_without_a_prediction_are_not_fitted_and_stay_nan(cls):
    made = fitted(cls, [0.0, 100.0, 2.0], [0.0, math.nan, 4.0])
    mapped = made.apply_calibration([2.0, math.nan])
    assert mapped[0] == pytest.approx(1.0)
    assert math.isnan(mapped[1])
    with pytest.raises(ns.CalibrationError):
        fitted(cls, [1.0], [math.nan])


def test_a_record_of_another_length_is_refused():
    with pytest.raises(ns.CalibrationError, match="2 activations has 3"):
        LinearCalibratedNeuronSimulator(Fixed({})).calibrate_from_simulations(
            [ActivationRecord(["a", "b"], [1.0, 2.0])], [simulation([1.0, 2.0, 3.0])]
        )


def test_a_negative_slope_is_told():
    with pytest.warns(UserWarning, match="slope -1"):
        made = fitted(LinearCalibratedNeuronSimulator, [2.0, 1.0, 0.0], [0.0, 1.0, 2.0])
    assert made.fitted["slope"].item() == pytest.approx(-1.0)


def test_scoring_what_it_was_calibrated_on_is_told():
    async def script():
        return await simulate_and_score(
            await LinearCalibratedNeuronSimulator.create(Fixed(PREDICTED), RECORDS), RECORDS
        )

    with pytest.warns(UserWarning, match="2 of the 2 records"):
        asyncio.run(script())


def test_a_calibration_of_ones_own_takes_part():
    class Doubled(CalibratedNeuronSimulator):
        def _calibrate_from_flattened_activations(self, true_activations, uncalibrated_activations):
            self.sums = true_activations.sum(), uncalibrated_activations.sum()

        def apply_calibration(self, values):
            return [2 * v for v in values]

    async def script():
        simulator = await Doubled.create(Fixed(PREDICTED), RECORDS)
        return simulator.sums, await simulator.simulate(("d", "e"))

    sums, made = asyncio.run(script())
    assert sums == (8.5, 17.0)
    assert made.expected_activations == [8.0, 2.0]
    assert made.distribution_values == [[8.0, 10.0], [2.0, 4.0]]
