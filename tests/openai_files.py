"""Files as OpenAI's tools write them, newer and older forms, and what a plain reader makes of them."""

from __future__ import annotations

import json

from hypothesis import strategies as st

TOKENS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
FLOATS = st.floats(-1e6, 1e6)
SPLITS = {"top": ["train", "calibration", "valid", "test"]}
OTHER = ["calibration", "valid", "test"]


def record(tokens, activations, *, named=True):
    return ({"dataclass_name": "ActivationRecord"} if named else {}) | {"activations": activations, "tokens": tokens}


@st.composite
def activation_records(draw):
    tokens = draw(st.lists(TOKENS, min_size=1, max_size=4))
    values = draw(st.lists(FLOATS, min_size=len(tokens), max_size=len(tokens)))
    return record(tokens, values, named=draw(st.booleans()))


@st.composite
def neuron_files(draw):
    """A file's content: layer, neuron, and what is in it."""
    old = draw(st.booleans())
    layer, neuron = draw(st.integers(0, 99)), draw(st.integers(0, 10**6))
    names = ("layer", "idx") if old else ("layer_index", "neuron_index")
    identity = {names[0]: str(layer) if draw(st.booleans()) else layer, names[1]: neuron}
    lists = st.lists(activation_records(), max_size=5)
    content = {
        "neuron_id": identity,
        "most_positive_activation_records": draw(lists),
        "random_sample": draw(lists),
        "mean": draw(st.one_of(st.none(), FLOATS, st.just(float("nan")))),
        "kurtosis": draw(st.one_of(st.none(), FLOATS, st.just(float("nan")))),
    }
    if draw(st.booleans()):
        content["random_sample_by_quantile"] = draw(st.lists(lists, max_size=2))
        content["quantile_boundaries"] = draw(st.lists(FLOATS, max_size=3))
    return layer, neuron, content


def rows_of(layer, neuron, content):
    """The rows of `records`, the plain way."""
    groups = [("top", content["most_positive_activation_records"]), ("random", content["random_sample"])]
    groups += [(f"quantile_{i}", g) for i, g in enumerate(content.get("random_sample_by_quantile") or [])]
    sequence, rows = 0, []
    for stratum, group in groups:
        for rank, each in enumerate(group):
            turns = SPLITS.get(stratum, OTHER)
            for position, (token, value) in enumerate(zip(each["tokens"], each["activations"], strict=True)):
                rows.append((layer, neuron, sequence, position, token, value, stratum, turns[rank % len(turns)]))
            sequence += 1
    return rows


def written(folder, layer, neuron, content, *, suffix="json"):
    file = folder / str(layer) / f"{neuron}.{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), "utf-8")
    return file


def sequence(tokens, true, predicted, *, old=False, raw=None, distribution=True, scores=(0.5, 0.25, 0.125)):
    """A scored sequence; `old` uses the names that were used before."""
    simulation = {
        "tokens": tokens,
        "expected_activations": predicted,
        "unit" if old else "activation_scale": "neuron_activations",
    }
    if distribution:
        simulation["distribution_values"] = [[0, 1, 2]] * len(tokens)
        simulation["distribution_probabilities"] = [[0.5, 0.25, 0.25]] * len(tokens)
    if raw is not None:
        simulation["uncalibrated_simulation"] = simulation | {"expected_activations": raw}
    if old:
        simulation["response"] = {"choices": []}
    named = dict(zip(["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"], scores, strict=False))
    return {"simulation" if old else "sequence_simulation": simulation, "true_activations": true} | named


def results(layer, neuron, explained, *, old=False):
    """`NeuronSimulationResults`; `explained` gives (explanation, sequences or None)."""
    scored = [
        {
            "explanation_or_baseline" if old else "explanation": text,
            "scored_simulation": None
            if sequences is None
            else {
                "scored_sequence_simulations": sequences,
                "ev_correlation_score": 0.75,
                "rsquared_score": float("nan"),
            },
        }
        for text, sequences in explained
    ]
    identity = {"layer" if old else "layer_index": layer, "idx" if old else "neuron_index": neuron}
    return {"neuron_id": identity, "scored_explanation_or_baseline_list" if old else "scored_explanations": scored}
