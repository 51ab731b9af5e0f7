"""Scores of simulations, by nscore's metrics: the original's functions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain
from typing import Any, TypeVar

from nscore.neuron_explainer._asking import together
from nscore.neuron_explainer._scores import Numbers, aggregated, scored, scores
from nscore.neuron_explainer.activations.activations import ActivationRecord
from nscore.neuron_explainer.api_client import ApiClient
from nscore.neuron_explainer.explanations.calibrated_simulator import (
    CalibratedNeuronSimulator,
    LinearCalibratedNeuronSimulator,
    UncalibratedNeuronSimulator,
)
from nscore.neuron_explainer.explanations.explanations import (
    ScoredSequenceSimulation,
    ScoredSimulation,
    SequenceSimulation,
)
from nscore.neuron_explainer.explanations.simulator import (
    ExplanationNeuronSimulator,
    LogprobFreeExplanationTokenSimulator,
    NeuronSimulator,
)

__all__ = [
    "absolute_dev_explained_score_from_sequences",
    "aggregate_scored_sequence_simulations",
    "correlation_score",
    "flatten_list",
    "make_explanation_simulator",
    "make_simulator_and_score",
    "make_uncalibrated_explanation_simulator",
    "rsquared_score_from_sequences",
    "score_from_simulation",
    "simulate_and_score",
]

T = TypeVar("T")


def flatten_list(list_of_lists: Sequence[Sequence[T]]) -> list[T]:
    """The entries of all the lists, in their order.

    >>> flatten_list([[1, 2], [], [3]])
    [1, 2, 3]
    """
    return list(chain.from_iterable(list_of_lists))


def correlation_score(real_activations: Numbers, predicted_activations: Numbers) -> float:
    """`nscore.ev_correlation_score` of two lists; 0.0 where it is undefined, over no token too.

    Raises:
        TableError: if the lengths differ.

    >>> correlation_score([0, 0, 2, 2], [1, 1, 5, 5]), correlation_score([0, 1, 2], [4, 4, 4])
    (1.0, 0.0)
    """
    return scores(real_activations, predicted_activations)[0] or 0.0


def score_from_simulation(
    real_activations: ActivationRecord,
    simulation: SequenceSimulation,
    score_function: Callable[[Numbers, Numbers], float],
) -> float:
    """What a function of two lists says of a record and its simulation."""
    return score_function(real_activations.activations, simulation.expected_activations)


def rsquared_score_from_sequences(real_activations: Numbers, predicted_activations: Numbers) -> float:
    """`nscore.rsquared_score` of two lists: R^2 about zero; NaN over no token.

    Raises:
        TableError: if the lengths differ.

    >>> rsquared_score_from_sequences([1, 0], [3, 0])
    -3.0
    """
    return _or_nan(scores(real_activations, predicted_activations)[1])


def absolute_dev_explained_score_from_sequences(real_activations: Numbers, predicted_activations: Numbers) -> float:
    """`nscore.absolute_dev_explained_score` of two lists; NaN over no token.

    Raises:
        TableError: if the lengths differ.

    >>> absolute_dev_explained_score_from_sequences([1, 0], [3, 0])
    -1.0
    """
    return _or_nan(scores(real_activations, predicted_activations)[2])


async def make_uncalibrated_explanation_simulator(
    explanation: str,
    client: ApiClient | str,
    **kwargs: Any,  # noqa: ANN401
) -> CalibratedNeuronSimulator:
    """The logprob-free simulator of an explanation, without a calibration; further arguments are the simulator's."""
    return UncalibratedNeuronSimulator(LogprobFreeExplanationTokenSimulator(client, explanation, **kwargs))


async def make_explanation_simulator(
    explanation: str,
    calibration_activation_records: Sequence[ActivationRecord],
    client: ApiClient | str | None = None,
    calibrated_simulator_class: type[CalibratedNeuronSimulator] = LinearCalibratedNeuronSimulator,
    **kwargs: Any,  # noqa: ANN401
) -> CalibratedNeuronSimulator:
    """The all-at-once simulator of an explanation, calibrated on the records.

    Args:
        explanation: what the neuron is said to fire on.
        calibration_activation_records: records of the neuron that are not scored.
        client: an `ApiClient`, or the name of a model, as `model_name` too.
        calibrated_simulator_class: which calibration.
        kwargs: further arguments of the simulator.
    """
    simulator = ExplanationNeuronSimulator(client, explanation, **kwargs)
    return await calibrated_simulator_class.create(simulator, calibration_activation_records)


def aggregate_scored_sequence_simulations(
    scored_sequence_simulations: list[ScoredSequenceSimulation],
) -> ScoredSimulation:
    """The scores over all tokens of all simulations together, never the mean of theirs.

    Tokens without a prediction (NaN) take no part, and a warning says how many they are; see `ScoredSimulation.coverage`.
    Over no token the correlation is None and the others are NaN.

    Raises:
        TableError: if there are more true activations than predicted ones, or fewer.
    """
    return aggregated(scored_sequence_simulations)


async def simulate_and_score(
    simulator: NeuronSimulator, activation_records: Sequence[ActivationRecord]
) -> ScoredSimulation:
    """Simulates the records, and scores what comes out, record by record and all together.

    Warns where a record is among those that the simulator was calibrated on. Where one simulation fails for good, the
    others are ended.
    """
    fitted_on = simulator.fitted_on if isinstance(simulator, CalibratedNeuronSimulator) else set()
    if again := sum(tuple(record.tokens) in fitted_on for record in activation_records):
        warnings.warn(
            f"{again} of the {len(activation_records)} records to be scored are those that the simulator was calibrated "
            "on, which makes every correlation positive",
            stacklevel=2,
        )

    async def one(record: ActivationRecord) -> ScoredSequenceSimulation:
        return scored(await simulator.simulate(record.tokens), record.activations)

    return aggregated(await together(one(record) for record in activation_records))


async def make_simulator_and_score(
    make_simulator: Coroutine[Any, Any, NeuronSimulator], activation_records: Sequence[ActivationRecord]
) -> ScoredSimulation:
    """Awaits a simulator, then simulates and scores with it."""
    return await simulate_and_score(await make_simulator, activation_records)


def _or_nan(score: float | None) -> float:
    return math.nan if score is None else score
