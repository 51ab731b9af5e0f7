"""`openai`: `NeuronSimulationResults`, one line of JSON a neuron, as the original's reader takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from nscore.errors import TableError
from nscore.exporters._paths import safe_name
from nscore.exporters._protocol import OutFile, Part, exporter
from nscore.exporters._tokens import SCORES, Explained, Record, explained, number, whole_number
from nscore.records import NEURON, POSITION, TOKEN

__all__ = ["OpenAI"]

IN_NEURON_UNITS, NORMALIZED = "neuron_activations", "simulated_normalized_activations"


@exporter("openai")
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAI:
    """Writes `{layer}/{neuron}.jsonl`: the explanations of a neuron, their simulations, their scores, in the newest form.

    A calibrated prediction has the scale `neuron_activations` and the raw one in `uncalibrated_simulation`; another has
    `simulated_normalized_activations` and none, unless `published_sequence_scores` beside the table says otherwise. The
    distributions are those of the table where it has them: `distribution_values` and `distribution_probabilities`, or what a
    simulator of nscore keeps in `distribution`, which is on the raw scale. Where there is none, each token has an empty list,
    as the original writes where a simulator gives no distribution.

    A score that is no finite number is `null`: so the original's own writer spells NaN. The format does not name explanations and
    records; they stand in the order of their ids.

    Source: the dataclasses of OpenAI's transformer-debugger.
    """

    takes: ClassVar[tuple[str, ...]] = ("simulated",)
    needs: ClassVar[tuple[str, ...]] = (POSITION, TOKEN)
    needs_texts: ClassVar[bool] = True
    several: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """`openai`."""
        return "openai"

    def files(self, part: Part) -> Iterator[OutFile]:
        """A file a neuron; see `Exporter.files`."""
        for explanations in explained(part):
            layer, neuron = whole_number(explanations[0].layer), whole_number(explanations[0].neuron)
            if not isinstance(neuron, int):
                raise TableError(
                    "wrong value",
                    part.table,
                    column=NEURON,
                    found=f"found {neuron!r}; openai numbers its neurons",
                    mend="Give them whole numbers.",
                )
            told = {
                "dataclass_name": "NeuronSimulationResults",
                "neuron_id": {"dataclass_name": "NeuronId", "neuron_index": neuron, "layer_index": layer},
                "scored_explanations": [_explanation(one) for one in explanations],
            }
            path = (safe_name(layer), f"{safe_name(neuron)}.jsonl")
            yield OutFile(path, msgspec.json.encode(told) + b"\n")


def _explanation(one: Explained) -> dict[str, Any]:
    return {
        "dataclass_name": "ScoredExplanation",
        "explanation": one.explanation,
        "scored_simulation": {
            "dataclass_name": "ScoredSimulation",
            "scored_sequence_simulations": [_sequence(record) for record in one.records],
        }
        | {name: number(one.scores[name]) for name in SCORES},
    }


def _sequence(record: Record) -> dict[str, Any]:
    return {
        "dataclass_name": "ScoredSequenceSimulation",
        "sequence_simulation": _calibrated(record),
        "true_activations": record.activations,
    } | {name: number(value) for name, value in record.scores.items()}


def _calibrated(record: Record) -> dict[str, Any]:
    values, probabilities = record.values, record.probabilities
    before = None
    if record.raw is not None:
        before = _simulation(record.tokens, record.raw, NORMALIZED, _over_digits(record), None)
    elif values is None or probabilities is None:
        values, probabilities = _over_digits(record)
    scale = record.scale or (NORMALIZED if record.raw is None else IN_NEURON_UNITS)
    return _simulation(record.tokens, record.predicted, scale, (values, probabilities), before)


Lists = list[list[float] | None] | None


def _simulation(
    tokens: list[str],
    expected: list[float],
    scale: str,
    distribution: tuple[Lists, Lists],
    before: dict[str, Any] | None,
) -> dict[str, Any]:
    values, probabilities = distribution
    return {
        "dataclass_name": "SequenceSimulation",
        "tokens": tokens,
        "expected_activations": expected,
        "activation_scale": scale,
        "distribution_values": _filled(values, len(tokens)),
        "distribution_probabilities": _filled(probabilities, len(tokens)),
        "uncalibrated_simulation": before,
    }


def _over_digits(record: Record) -> tuple[Lists, Lists]:
    """The distribution that nscore's simulators keep: the probability of each activation 0, 1, 2, ..."""
    chances = record.raw_probabilities
    if chances is None:
        return None, None
    return [None if each is None else [float(i) for i in range(len(each))] for each in chances], chances


def _filled(lists: Lists, n: int) -> list[list[float]]:
    # one empty list for all: millions of them would keep Python's collector busy
    return [each or [] for each in lists] if lists is not None else [[]] * n
