"""What the original does, in plain numpy and lists, and small neurons in its file format."""

from __future__ import annotations

import json
import math

import numpy as np
from reference import quiet

from nscore.neuron_explainer import ActivationScale, NeuronSimulator, SequenceSimulation

TEXTS = [["the", " red", " fox"], ["a", " blue", " sky", " and"], ["red", " tea"], ["no", "\tcolour", " here\n"]]


def correlation(t, p):
    """`np.corrcoef`, with 0.0 for NaN; of constants it is 0.0, where numpy may leave rounding noise."""
    t, p = np.asarray(t, float), np.asarray(p, float)
    if len(t) and (t.min() == t.max() or p.min() == p.max()):
        return 0.0
    r = quiet(lambda: np.corrcoef(t, p)[0, 1])
    return 0.0 if math.isnan(r) else r


def rsquared(t, p):
    t, p = np.asarray(t, float), np.asarray(p, float)
    return quiet(lambda: 1 - np.mean(np.square(t - p)) / np.mean(np.square(t)))


def absolute(t, p):
    t, p = np.asarray(t, float), np.asarray(p, float)
    return quiet(lambda: 1 - np.mean(np.abs(t - p)) / np.mean(np.abs(t)))


def same(a, b, slack=1e-12):
    """Whether two scores are equal, with the slack of formats.md; None and NaN equal themselves alone."""
    if a is None or b is None or math.isnan(a) or math.isnan(b):
        return (a is None) == (b is None) and (a is None or math.isnan(a) == math.isnan(b))
    return a == b or abs(a - b) <= slack * max(1.0, abs(b))


def record_of(number):
    """The tokens and activations of record number `number` of the small neuron."""
    tokens = [*TEXTS[number % len(TEXTS)], f" n{number}"]
    return {"tokens": tokens, "activations": [float((number + 3 * i) % 7) - 1.0 for i in range(len(tokens))]}


def neuron_content(layer=9, neuron=6236, top=20, random=15, **more):
    """A `NeuronRecord` as its file has it: 20 strongest records and 15 random ones."""
    named = [{"dataclass_name": "ActivationRecord"} | record_of(i) for i in range(top + random)]
    return {
        "dataclass_name": "NeuronRecord",
        "neuron_id": {"dataclass_name": "NeuronId", "neuron_index": neuron, "layer_index": layer},
        "random_sample": named[top:],
        "random_sample_by_quantile": None,
        "quantile_boundaries": None,
        "mean": math.nan,
        "variance": 0.25,
        "skewness": None,
        "kurtosis": math.nan,
        "most_positive_activation_records": named[:top],
    } | more


def results_content(old=False, **more):
    """`NeuronSimulationResults` as their file has them, under the names of today or the older ones."""
    raw = {
        "tokens": ["a", "b"],
        "expected_activations": [1.0, 4.0],
        "unit" if old else "activation_scale": "simulated_normalized_activations",
        "distribution_values": [[1.0, 0.0], [4.0]],
        "distribution_probabilities": [[0.75, 0.25], [1.0]],
    }
    mapped = raw | {
        "expected_activations": [0.5, 2.0],
        "unit" if old else "activation_scale": "neuron_activations",
        "distribution_values": [[0.5, 0.0], [2.0]],
        "uncalibrated_simulation": raw,
    }
    sequence = {
        "simulation" if old else "sequence_simulation": mapped,
        "true_activations": [0.0, 3.0],
        "ev_correlation_score": 1.0,
        "rsquared_score": 1 - 1.25 / 9,
        "absolute_dev_explained_score": 0.5,
    }
    pooled = {k: v for k, v in sequence.items() if k.endswith("_score")}
    scored = {
        "explanation_or_baseline" if old else "explanation": "the letter b",
        "scored_simulation": {"scored_sequence_simulations": [sequence, sequence]} | pooled,
    }
    identity = {"idx": 3, "layer": "5"} if old else {"neuron_index": 3, "layer_index": 5}
    listed = "scored_explanation_or_baseline_list" if old else "scored_explanations"
    return {"neuron_id": identity, listed: [scored]} | more


def write(folder, content, layer=9, name="6236.json"):
    """Writes a file where the original has it."""
    path = folder / str(layer) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def simulation(expected, tokens=None, scale=ActivationScale.SIMULATED_NORMALIZED_ACTIVATIONS, **more):
    """A simulation without distributions."""
    tokens = tokens or [f"t{i}" for i in range(len(expected))]
    given = {"distribution_values": [], "distribution_probabilities": []} | more
    return SequenceSimulation(tokens, list(expected), scale, **given)


class Fixed(NeuronSimulator):
    """A simulator of a user's own: of each text it predicts what it was told, with a distribution around it."""

    def __init__(self, predicted):
        self.predicted = predicted
        self.asked = []

    async def simulate(self, tokens):
        self.asked.append(list(tokens))
        expected = self.predicted[tuple(tokens)]
        values = [[] if math.isnan(x) else [x, x + 1] for x in expected]
        chances = [[] if math.isnan(x) else [0.75, 0.25] for x in expected]
        return simulation(expected, list(tokens), distribution_values=values, distribution_probabilities=chances)
