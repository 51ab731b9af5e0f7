"""Simulators whose predictions are brought into the neuron's units, by nscore's calibrations."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from itertools import islice
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from nscore.calibrate import Method, calibrate, fit_calibration
from nscore.errors import CalibrationError
from nscore.neuron_explainer._asking import together
from nscore.neuron_explainer.activations.activations import ActivationRecord
from nscore.neuron_explainer.explanations.explanations import ActivationScale, SequenceSimulation
from nscore.neuron_explainer.explanations.simulator import NeuronSimulator
from nscore.records import ACTIVATION, LAYER, NEURON, PREDICTED, SEQUENCE

__all__ = [
    "CalibratedNeuronSimulator",
    "LinearCalibratedNeuronSimulator",
    "PercentileMatchingCalibratedNeuronSimulator",
    "UncalibratedNeuronSimulator",
]

Array = npt.NDArray[Any]
KEYS = [LAYER, NEURON]


class CalibratedNeuronSimulator(NeuronSimulator):
    """Simulates with another simulator, and maps what it predicts, the values of distributions too.

    A calibration of one's own has `_calibrate_from_flattened_activations` and `apply_calibration`, which maps each value
    by itself.
    """

    def __init__(self, uncalibrated_simulator: NeuronSimulator) -> None:
        self.uncalibrated_simulator = uncalibrated_simulator
        self.fitted_on: set[tuple[str, ...]] = set()

    @classmethod
    async def create(
        cls, uncalibrated_simulator: NeuronSimulator, calibration_activation_records: Sequence[ActivationRecord]
    ) -> Self:
        """Makes it and calibrates it."""
        made = cls(uncalibrated_simulator)
        await made.calibrate(calibration_activation_records)
        return made

    async def calibrate(self, calibration_activation_records: Sequence[ActivationRecord]) -> None:
        """Simulates the records, and fits the calibration to what comes out."""
        simulate = self.uncalibrated_simulator.simulate
        simulations = await together(simulate(record.tokens) for record in calibration_activation_records)
        self.calibrate_from_simulations(calibration_activation_records, simulations)

    def calibrate_from_simulations(
        self, calibration_activation_records: Sequence[ActivationRecord], simulations: Sequence[SequenceSimulation]
    ) -> None:
        """Fits the calibration to records that are simulated already. Tokens without a prediction take no part.

        Raises:
            CalibrationError: if nothing is there to fit on, or a simulation is of another length than its record.
        """
        pairs = list(zip(calibration_activation_records, simulations, strict=True))
        for record, simulation in pairs:
            if len(record.activations) != len(simulation.expected_activations):
                raise CalibrationError(
                    f"a record of {len(record.activations)} activations has {len(simulation.expected_activations)} "
                    "predictions: expected one for each"
                )
        true = np.array([x for record, _ in pairs for x in record.activations], dtype=np.float64)
        predicted = np.array([x for _, s in pairs for x in s.expected_activations], dtype=np.float64)
        known = ~np.isnan(predicted)
        self._calibrate_from_flattened_activations(true[known], predicted[known])
        self.fitted_on = {tuple(record.tokens) for record, _ in pairs}

    @abstractmethod
    def _calibrate_from_flattened_activations(self, true_activations: Array, uncalibrated_activations: Array) -> None:
        """Fits to the tokens of all records together."""

    @abstractmethod
    def apply_calibration(self, values: Sequence[float]) -> list[float]:
        """What each value becomes; NaN stays NaN."""

    async def simulate(self, tokens: Sequence[str]) -> SequenceSimulation:
        """What the simulator predicts, mapped; as it was, it is the `uncalibrated_simulation`."""
        raw = await self.uncalibrated_simulator.simulate(tokens)
        values = iter(self.apply_calibration([v for each in raw.distribution_values for v in each]))
        made = SequenceSimulation(
            tokens=raw.tokens,
            expected_activations=self.apply_calibration(raw.expected_activations),
            activation_scale=ActivationScale.NEURON_ACTIVATIONS,
            distribution_values=[list(islice(values, len(each))) for each in raw.distribution_values],
            distribution_probabilities=raw.distribution_probabilities,
            uncalibrated_simulation=raw,
        )
        made.status = raw.status
        return made


class UncalibratedNeuronSimulator(CalibratedNeuronSimulator):
    """Leaves predictions as they are; to calibrate it does nothing, and asks nothing."""

    async def calibrate(self, calibration_activation_records: Sequence[ActivationRecord]) -> None:
        """Nothing."""

    def _calibrate_from_flattened_activations(self, true_activations: Array, uncalibrated_activations: Array) -> None:
        """Nothing."""

    def calibrate_from_simulations(
        self, calibration_activation_records: Sequence[ActivationRecord], simulations: Sequence[SequenceSimulation]
    ) -> None:
        """Nothing."""

    def apply_calibration(self, values: Sequence[float]) -> list[float]:
        """The values."""
        return list(values)


class _Fitted(CalibratedNeuronSimulator):
    """By one of the methods of `nscore.calibrate`.

    Attributes:
        fitted: what `nscore.fit_calibration` gave; None before there is a calibration.
    """

    method: ClassVar[Method]
    fitted: pl.DataFrame | None = None

    def _calibrate_from_flattened_activations(self, true_activations: Array, uncalibrated_activations: Array) -> None:
        frame = _frame(true_activations, uncalibrated_activations)
        self.fitted = fit_calibration(frame, self.method, fit=pl.lit(value=True), by=KEYS, fit_on_scored=True)

    def apply_calibration(self, values: Sequence[float]) -> list[float]:
        """What each value becomes; NaN stays NaN.

        Raises:
            CalibrationError: if there is no calibration yet.
        """
        if self.fitted is None:
            raise CalibrationError("there is no calibration yet: await calibrate(records) first")
        if not len(values):
            return []
        frame = _frame(None, np.asarray(values, dtype=np.float64))
        mapped = calibrate(frame, self.method, by=KEYS, fitted=self.fitted)[PREDICTED]
        return [math.nan if x is None else x for x in mapped.to_list()]


class LinearCalibratedNeuronSimulator(_Fitted):
    """Least squares of the true activations on the predictions, `slope * x + intercept`; see `nscore.fit_calibration`.

    A negative slope turns the correlation's sign over, so that an explanation that is wrong everywhere looks right: then
    it warns. Constant predictions become the mean of the truth.
    """

    method = "linear"

    def _calibrate_from_flattened_activations(self, true_activations: Array, uncalibrated_activations: Array) -> None:
        super()._calibrate_from_flattened_activations(true_activations, uncalibrated_activations)
        assert self.fitted is not None  # noqa: S101  (it was fitted just now)
        slope = self.fitted["slope"].item()
        if slope is not None and slope < 0:
            warnings.warn(
                f"the calibration has the slope {slope:.3g}: the correlation of what it predicts has the other sign than "
                "that of the simulation",
                stacklevel=4,
            )


class PercentileMatchingCalibratedNeuronSimulator(_Fitted):
    """The distribution of the predictions onto that of the true activations; see `nscore.fit_calibration`."""

    method = "percentile"


def _frame(true: Array | None, predicted: Array) -> pl.DataFrame:
    p = pl.Series(PREDICTED, predicted, dtype=pl.Float64).fill_nan(None)
    t = pl.Series(ACTIVATION, [None] * len(p) if true is None else true, dtype=pl.Float64)
    return pl.DataFrame([t, p]).with_columns(pl.lit(0).alias(name) for name in (LAYER, NEURON, SEQUENCE))
