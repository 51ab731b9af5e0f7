"""Files as Delphi writes them, and what a plain reader would draw from its cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

NAMES = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "int32": "I32",
    "int64": "I64",
}


def safetensors(**tensors):
    """The bytes of a safetensors file; a pair of a dtype's name and an array stands for dtypes that numpy has not."""
    header, blobs, at = {"__metadata__": {"format": "np"}}, [], 0
    for name, tensor in tensors.items():
        dtype, array = tensor if isinstance(tensor, tuple) else (NAMES[str(tensor.dtype)], tensor)
        blob = array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(blobs)


def cache(places, values, tokens, *, start=0, dtype=np.uint16, **other):
    """The bytes of a shard; `places` are (row, position, latent of the whole hook point)."""
    locations = np.array([(r, p, n - start) for r, p, n in places], dtype=dtype).reshape(-1, 3)
    tensors = {
        "locations": locations,
        "activations": np.array(values, dtype=np.float16),
        "tokens": np.array(tokens, dtype=np.int64),
    }
    return safetensors(**{name: tensor for name, tensor in (tensors | other).items() if tensor is not None})


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def shard(folder, name, content, hookpoint="layers.5"):
    return write(Path(folder) / "latents" / hookpoint / f"{name}.safetensors", content)


@st.composite
def caches(draw):
    """Rows of tokens, and where a few latents fire in them, in the order of the text, as Delphi caches them."""
    rows, width = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    start, width_of_shard = draw(st.sampled_from([0, 3])), draw(st.integers(1, 4))
    place = st.tuples(
        st.integers(0, rows - 1), st.integers(0, width - 1), st.integers(start, start + width_of_shard - 1)
    )
    places = sorted(draw(st.sets(place, max_size=40)))
    # few values, so that windows are equally high
    values = [draw(st.sampled_from([0.5, 1.0, 2.0, -1.0])) for _ in places]
    tokens = [[draw(st.integers(0, 50)) for _ in range(width)] for _ in range(rows)]
    return places, values, tokens, start, start + width_of_shard - 1


def windows(places, values, tokens, context):
    """By latent: the windows in which it fires, the highest first, and those in which it does not; (ids, activations)."""
    fires, width = {}, len(tokens[0])
    for (row, position, latent), value in zip(places, values, strict=True):
        fires.setdefault(latent, {})[row, position] = value
    cuts = [(row, a, min(a + context, width)) for row in range(len(tokens)) for a in range(0, width, context)]
    found = {}
    for latent, own in sorted(fires.items()):
        active, silent = [], []
        for row, a, b in cuts:
            here = {p: own[row, p] for p in range(a, b) if (row, p) in own}
            record = ([str(t) for t in tokens[row][a:b]], [here.get(p, 0.0) for p in range(a, b)])
            if here:
                active.append((max(here.values()), record))
            else:
                silent.append(record)
        found[latent] = ([record for _, record in sorted(active, key=lambda pair: -pair[0])], silent)
    return found


def judged(label, prediction, *, probability=None, distance=None, tokens=("a", " b"), activations=None, **other):
    """An item as detection and fuzzing write it."""
    values = [1.5, 0.0][: len(tokens)] if label else [0.0] * len(tokens)
    return {
        "str_tokens": list(tokens),
        "activations": values if activations is None else activations,
        "distance": (0 if label else -1.0) if distance is None else distance,
        "activating": label,
        "prediction": prediction,
        "probability": probability,
        "correct": None if prediction is None else prediction == label,
    } | other


def simulated(tokens, true, predicted, distance, score=0.5):
    """A sequence as Delphi's simulation scorer writes it."""
    simulation = {
        "tokens": tokens,
        "expected_activations": predicted,
        "activation_scale": "simulated_normalized_activations",
        "distribution_values": [],
        "distribution_probabilities": [],
        "uncalibrated_simulation": None,
    }
    return {
        "distance": distance,
        "simulation": simulation,
        "true_activations": true,
        "ev_correlation_score": score,
        "rsquared_score": 0,
        "absolute_dev_explained_score": 0,
    }


def group(distance, sequences, score=0.5):
    return {
        "distance": distance,
        "scored_sequence_simulations": sequences,
        "ev_correlation_score": score,
        "rsquared_score": 0,
        "absolute_dev_explained_score": 0,
    }
