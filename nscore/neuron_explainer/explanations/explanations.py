"""What simulations and their scores are: the original's dataclasses, and its files of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import Enum
from functools import wraps
from typing import Any, TypeVar

from nscore.errors import SourceError
from nscore.neuron_explainer._files import Where, aread, joined, made, plain, read, shown
from nscore.neuron_explainer.activations.activations import NeuronId
from nscore.neuron_explainer.fast_dataclasses import FastDataclass, register_dataclass
from nscore.records import Status

__all__ = [
    "ActivationScale",
    "NeuronSimulationResults",
    "ScoredExplanation",
    "ScoredSequenceSimulation",
    "ScoredSimulation",
    "SequenceSimulation",
    "load_neuron_explanations",
    "load_neuron_explanations_async",
    "read_explanation_file",
]


Class = TypeVar("Class", bound=type)


class ActivationScale(str, Enum):  # noqa: UP042  (the original's; str() of a StrEnum is another)
    """What the numbers of a simulation are: the neuron's own units, 0 to 10, or a person's 0 to 2."""

    NEURON_ACTIVATIONS = "neuron_activations"
    SIMULATED_NORMALIZED_ACTIVATIONS = "simulated_normalized_activations"
    HUMAN_PREDICTED_ACTIVATIONS = "human_predicted_activations"


@register_dataclass
@dataclass
class SequenceSimulation(FastDataclass):
    """What was predicted for each token of one text.

    `expected_activations` holds NaN where there is no prediction: a reply that could not be read, was cut off, refused,
    or names no activation. The original has zeros there, which look like predictions. `status`, which is no field and in
    no file, then says for each token what became of it; it is None where every token was predicted, or nobody knows.

    `distribution_values` and `distribution_probabilities` are empty lists at such a token, and altogether empty where a
    simulator gives no distributions. A calibration maps the values, too.
    """

    tokens: list[str]
    expected_activations: list[float]
    activation_scale: ActivationScale
    distribution_values: list[list[float]]
    distribution_probabilities: list[list[float]]
    uncalibrated_simulation: SequenceSimulation | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.status: list[Status] | None = None


def _renamed_simulation(cls: Class) -> Class:
    """Lets the field `sequence_simulation` go by its older name, `simulation`, too."""
    init = cls.__init__  # type: ignore[misc]

    @wraps(init)
    def __init__(self: object, *args: object, **named: object) -> None:  # noqa: N807
        if "simulation" in named:
            named["sequence_simulation"] = named.pop("simulation")
        init(self, *args, **named)

    cls.__init__ = __init__  # type: ignore[misc]
    return cls


@register_dataclass
@_renamed_simulation
@dataclass(eq=False)
class ScoredSequenceSimulation(FastDataclass):
    """A simulation of one text beside the truth, with the scores of that text alone.

    The simulation is also there under the name `simulation`, as the older form of the original has it. Two are equal
    where all is equal, NaN and NaN included. A score is NaN where no token was predicted.
    """

    sequence_simulation: SequenceSimulation
    true_activations: list[float]
    ev_correlation_score: float | None
    rsquared_score: float | None = None
    absolute_dev_explained_score: float | None = None

    @property
    def simulation(self) -> SequenceSimulation:
        """`sequence_simulation`."""
        return self.sequence_simulation

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ScoredSequenceSimulation):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]  # it may be changed, as all dataclasses here


@register_dataclass
@dataclass
class ScoredSimulation(FastDataclass):
    """Simulations of several texts, with the scores over all their tokens together.

    Over no token the correlation is None and the other two are NaN.
    """

    scored_sequence_simulations: list[ScoredSequenceSimulation]
    ev_correlation_score: float | None = None
    rsquared_score: float | None = None
    absolute_dev_explained_score: float | None = None

    def get_preferred_score(self) -> float | None:
        """The correlation."""
        return self.ev_correlation_score

    @property
    def coverage(self) -> float:
        """The share of the tokens that have a prediction, of which alone the scores tell; NaN where there is no token."""
        predicted = [x for s in self.scored_sequence_simulations for x in s.sequence_simulation.expected_activations]
        return sum(not math.isnan(x) for x in predicted) / len(predicted) if predicted else math.nan


@register_dataclass
@dataclass
class ScoredExplanation(FastDataclass):
    """An explanation, and how its simulation scored."""

    explanation: str
    scored_simulation: ScoredSimulation

    def get_preferred_score(self) -> float | None:
        """The correlation."""
        return self.scored_simulation.get_preferred_score()


@register_dataclass
@dataclass
class NeuronSimulationResults(FastDataclass):
    """A neuron, and its explanations with their scores."""

    neuron_id: NeuronId
    scored_explanations: list[ScoredExplanation]


def load_neuron_explanations(
    explanations_path: Where, layer_index: str | int, neuron_index: str | int
) -> NeuronSimulationResults | None:
    """Reads `{explanations_path}/{layer}/{neuron}.jsonl`, on disk or at an http(s) address; None if there is none.

    Raises:
        SourceError: if it cannot be fetched, or holds something else.
    """
    where = joined(explanations_path, layer_index, f"{neuron_index}.jsonl")
    return _results(read(where), where)


async def load_neuron_explanations_async(
    explanations_path: Where, layer_index: str | int, neuron_index: str | int
) -> NeuronSimulationResults | None:
    """The async twin of `load_neuron_explanations`."""
    return await read_explanation_file(joined(explanations_path, layer_index, f"{neuron_index}.jsonl"))


async def read_explanation_file(explanation_filename: Where) -> NeuronSimulationResults | None:
    """Reads the scored explanations of a neuron from one file; see `load_neuron_explanations`."""
    return _results(await aread(explanation_filename), explanation_filename)


def _results(raw: bytes | None, where: Where) -> NeuronSimulationResults | None:
    if raw is None:
        return None
    lines = [line for line in raw.splitlines() if line.strip()]
    if len(lines) != 1:
        raise SourceError(shown(where), f"{len(lines)} lines", mend="Expected one, with the results of one neuron.")
    return made(plain(lines[0], where), NeuronSimulationResults, where)


def _same(a: Any, b: Any) -> bool:  # noqa: ANN401
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both_nan or bool(a == b)
