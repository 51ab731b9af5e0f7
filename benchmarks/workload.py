"""What the benchmarks of the simulation stage share: tables of any size, and the test server in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

HERE = Path(__file__).parent
SERVER = HERE.parent / "tests" / "model_server.py"
LENGTHS = re.compile(r'"tokens":(\[.*?\])')


def tables(neurons: int, records: int, tokens: int, folder: Path) -> tuple[Path, Path]:
    """Records and explanations as Parquet; every record has tokens of its own."""
    rows = neurons * records * tokens
    rng = np.random.default_rng(0)
    words = pl.Series(
        [" the", " of", " and", " red", " blue", " run", " light", " paper", " seven", " green", " to", " in"]
    )
    neuron = np.arange(rows, dtype=np.int32) // (records * tokens)
    record = np.arange(rows, dtype=np.int32) // tokens
    position = np.arange(rows, dtype=np.int32) % tokens
    token = words.gather(pl.Series(rng.integers(0, len(words), rows, dtype=np.int64)))
    number = pl.Series(record).cast(pl.String)
    frame = pl.DataFrame(
        {
            "layer": pl.repeat(0, rows, dtype=pl.Int32, eager=True),
            "neuron": neuron,
            "sequence": record % records,
            "position": position,
            "token": pl.select(pl.when(pl.Series(position) == 0).then(number).otherwise(token)).to_series(),
            "activation": rng.exponential(size=rows).astype(np.float32),
        }
    )
    given, told = folder / "records.parquet", folder / "explanations.parquet"
    frame.write_parquet(given)
    pl.DataFrame(
        {
            "layer": pl.repeat(0, neurons, dtype=pl.Int32, eager=True),
            "neuron": np.arange(neurons, dtype=np.int32),
            "explanation_id": "a",
            "explanation": [f"words for colours, of kind {i}" for i in range(neurons)],
        }
    ).write_parquet(told)
    return given, told


def answer(messages: list[dict[str, str]]) -> str:
    """Numbers for every token of every record, and 29 kB of chatter that does not compress away."""
    asked = messages[-1]["content"]
    if "number 10" in asked:
        return "10"
    lengths = [len(json.loads(tokens)) for tokens in LENGTHS.findall(asked)]
    rows = [{"record": i, "activations": [j % 11 for j in range(n)]} for i, n in enumerate(lengths, 1)]
    return json.dumps({"records": rows}) + "\n" + random.Random(0).randbytes(14_500).hex()  # noqa: S311


@contextlib.contextmanager
def server(*flags: str, port: int = 0) -> Iterator[str]:
    """The test server; gives its URL."""
    command = [sys.executable, str(SERVER), "--port", str(port), "--answer", "workload:answer", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE, env=_environment()) as process:
        assert process.stdout is not None  # noqa: S101
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
