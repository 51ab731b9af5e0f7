"""Makes a simulated table of any size: neurons x 10 records x 64 tokens, written as Polars writes Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RECORDS, TOKENS = 10, 64
NEURONS_PER_LAYER = 6_400
AT_ONCE = 400  # neurons in a row group: 256,000 rows, about what Polars' own writer puts into one


def blocks(neurons: int, seed: int = 0) -> Iterator[pa.Table]:
    """The table in pieces of whole neurons: sparse activations, and predictions that know something of them."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"token{i}" for i in range(5_000)])
    for first in range(0, neurons, AT_ONCE):
        count = min(AT_ONCE, neurons - first)
        rows = count * RECORDS * TOKENS
        neuron = np.repeat(np.arange(first, first + count, dtype=np.int32), RECORDS * TOKENS)
        activation = np.maximum(rng.standard_normal(rows, dtype=np.float32) - 0.5, 0)
        predicted = np.abs(activation + rng.standard_normal(rows, dtype=np.float32)) * 2
        yield pa.table(
            {
                "layer": neuron // NEURONS_PER_LAYER,
                "neuron": neuron % NEURONS_PER_LAYER,
                "sequence": np.tile(np.repeat(np.arange(RECORDS, dtype=np.int32), TOKENS), count),
                "position": np.tile(np.arange(TOKENS, dtype=np.int32), count * RECORDS),
                "token": pa.array(vocabulary[rng.integers(0, len(vocabulary), rows)]),
                "activation": activation,
                "predicted": predicted,
            }
        )


def write(file: Path, neurons: int) -> None:
    """Writes the table, one row group at a time."""
    pieces = blocks(neurons)
    first = next(pieces)
    with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for piece in pieces:
            writer.write_table(piece)
