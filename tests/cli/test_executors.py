"""`--executor`: the same files, whoever works."""

from __future__ import annotations

import polars as pl

from nscore.cli import main


def test_score_with_an_executor_writes_the_same_files(tmp_path):
    df = pl.DataFrame(
        {
            "layer": 0,
            "neuron": [1, 1, 1, 2, 2, 2],
            "sequence": 0,
            "activation": [0.0, 1.0, 3.0, 0.0, 4.0, 1.0],
            "predicted": [0.0, 1.0, 2.0, 2.0, 0.0, 1.0],
        }
    )
    df.write_parquet(tmp_path / "simulated.parquet")
    given = ["score", str(tmp_path / "simulated.parquet")]
    assert main([*given, "-o", str(tmp_path / "a")]) == 0
    assert main([*given, "-o", str(tmp_path / "b"), "--executor", "processes", "--workers", "1"]) == 0
    for name in ("scores", "sequence_scores"):
        one, two = (tmp_path / folder / f"{name}.parquet" for folder in "ab")
        assert one.read_bytes() == two.read_bytes()
