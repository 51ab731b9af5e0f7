"""Files as Neuronpedia and SAEDashboard write them, and what a plain reader finds in them."""

from __future__ import annotations

import gzip
import json
import math

from hypothesis import strategies as st

VALUES = st.one_of(
    st.just(0.0),
    st.sampled_from([0.5, 1.0, 2.0, 3]),
    st.floats(-4, 4, width=16),
    st.sampled_from([None, math.nan, math.inf]),
)
TOKENS = st.one_of(st.sampled_from(["a", " red", "\n", "", "é", "\x00", '"', "\U0001f98a"]), st.text(max_size=4))
BINS = st.sampled_from(
    [(-1, 4.0, -1), (0.0, 1.0, 0.9), (1.0, 2.0, 0.05), (3.0, 4.0, 0.01), (None, None, None), (0, 0, 0)]
)


@st.composite
def drawn(draw):
    """Tokens, values and bins of a few records of a neuron; some stand there twice."""
    records = []
    for _ in range(draw(st.integers(0, 6))):
        if records and draw(st.integers(0, 3)) == 0:
            tokens, values, _ = draw(st.sampled_from(records))
        else:
            tokens = draw(st.lists(TOKENS, max_size=5))
            values = draw(st.lists(VALUES, min_size=len(tokens), max_size=len(tokens)))
        records.append((tokens, values, draw(BINS)))
    return records


def known(values):
    return [value for value in values if value is not None and math.isfinite(value)]


def placed(records, per_split=None):
    """Which of the records of a neuron are kept, as (place, stratum, rank, split); each is (tokens, values, bins, origin)."""
    strata = _strata(records)
    best = sorted(range(len(records)), key=lambda i: (strata[i] != "top", *_height(records[i]), i))
    seen, ranks, kept = set(), {}, {}
    for i in best:
        tokens, _, _, origin = records[i]
        if not tokens or (origin, tuple(tokens)) in seen:
            continue
        seen.add((origin, tuple(tokens)))
        rank = ranks[strata[i]] = ranks.get(strata[i], -1) + 1
        splits = ["train", "calibration", "valid", "test"][strata[i] != "top" :]
        if per_split is None or rank // len(splits) < per_split:
            kept[i] = (i, strata[i], rank, splits[rank % len(splits)])
    return [kept[i] for i in sorted(kept)]


def _height(record):
    values = known(record[1])
    return (False, -max(values)) if values else (True, 0)


def _strata(records):
    tops = any(contains is not None and contains < 0 for tokens, _, (_, _, contains), _ in records if tokens)
    binned = [low for tokens, _, bins, _ in records if tokens and _is_bin(*bins) for low in bins[:1]]
    return [_stratum(known(values), bins, tops=tops, last=max(binned, default=None)) for _, values, bins, _ in records]


def _is_bin(low, high, contains):
    return low is not None and high is not None and high > low and not (contains is not None and contains < 0)


def _stratum(values, bins, *, tops, last):
    low, high, contains = bins
    if values and max(values) == 0:
        return "random"
    if contains is not None and contains < 0:
        return "top"
    if _is_bin(*bins):
        if low <= 0 <= high:
            return "random"
        return "top" if low == last and not tops else f"bin_{max(1, round(low / (high - low)))}"
    return "top" if values and max(values) > 0 else "random"


def bins_of(bins):
    """The bins as the tables hold them."""
    return (None, None, None) if bins[2] is not None and bins[2] < 0 else bins


def activation(index, record, **others):
    """A line of Neuronpedia's about a record."""
    tokens, values, (low, high, contains) = record
    shown = known(values)
    return {
        "id": "clx",
        "modelId": "gpt2-small",
        "layer": "6-res-jb",
        "index": str(index),
        "creatorId": "me",
        "dataSource": None,
        "dataIndex": None,
        "tokens": tokens,
        "values": values,
        "maxValue": max(shown, default=0.0),
        "maxValueTokenIndex": 0,
        "minValue": min(shown, default=0.0),
        "dfaValues": [],
        "binMin": low,
        "binMax": high,
        "binContains": contains,
        "qualifyingTokenIndex": 0,
    } | others


def explanation(index, text, **others):
    """A line about an explanation."""
    return {
        "id": f"e{index}",
        "modelId": "gpt2-small",
        "layer": "6-res-jb",
        "index": str(index),
        "description": text,
        "typeName": "oai_token-act-pair",
        "explanationModelName": "gpt-4o-mini",
        "embedding": None,
        "umap_x": 0,
    } | others


def feature(index, **others):
    """A line about a feature."""
    return {
        "modelId": "gpt2-small",
        "layer": "6-res-jb",
        "index": str(index),
        "maxActApprox": 3.5,
        "frac_nonzero": 0.001,
        "freq_hist_data_bar_heights": [3, 1],
        "freq_hist_data_bar_values": [0.5, 1.5],
        "pos_str": [" a"],
        "pos_values": [1.5],
        "neg_str": [],
    } | others


def dashboard(features, **others):
    """A batch of SAEDashboard's: features as (index, records)."""
    return (
        {"model_id": "gpt2-small", "layer": 0, "sae_set": "res-jb"}
        | others
        | {
            "features": [
                {
                    "feature_index": index,
                    "neuron_alignment_indices": [1],
                    "correlated_neurons_pearson": [math.nan],
                    "neg_str": ["x"],
                    "frac_nonzero": 0.25,
                    "freq_hist_data_bar_values": [0.5],
                    "freq_hist_data_bar_heights": [4],
                    "logits_hist_data_bar_values": [0.1],
                    "n_prompts_total": 5000,
                    "n_tokens_in_prompt": 128,
                    "dataset": "openwebtext",
                    "decoder_weights_dist": [],
                    "activations": [
                        {
                            "bin_min": low,
                            "bin_max": high,
                            "bin_contains": contains,
                            "tokens": tokens,
                            "values": values,
                            "qualifying_token_index": 0,
                            "dfa_values": [],
                        }
                        for tokens, values, (low, high, contains) in records
                    ],
                }
                for index, records in features
            ]
        }
    )


def write_lines(path, lines, **settings):
    """JSON lines, packed where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(line, **settings) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def rows_of(layer, neuron, sequence, record, *, place, others):
    """The rows of a record's tokens in the `records` table."""
    tokens, values, bins = record[:3]
    _, stratum, rank, split = place
    for position, (token, value) in enumerate(zip(tokens, values, strict=True)):
        number = None if value is None or not math.isfinite(value) else float(value)
        yield (layer, neuron, sequence, position, token, number, stratum, rank, split, *bins_of(bins), *others)
