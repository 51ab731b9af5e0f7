"""Makes the run beside it, in the format that it is named after: a new format gets a folder of its own, this one stays.

`python tests/data/run_format_1/make.py`, with nscore as it was when the format was the newest.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from unittest import mock

import polars as pl

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from asking import answer, backend, explanations_of, records_of, serve  # noqa: E402
from model_server import RefusalError  # noqa: E402

import nscore as ns  # noqa: E402

PORT = 28_733  # requests are known by the address that they were sent to


def partly(messages):
    """Answers by rule, but for two records: one is refused, of the other nothing can be read."""
    said = str(messages)
    if "n2s1" in said:
        return "I see no record."
    if "n3s0" in said:
        raise RefusalError(400, "this text is not welcome")
    return answer(messages)


def main():
    for old in ("run", "records.parquet", "explanations.parquet"):
        shutil.rmtree(HERE / old, ignore_errors=True) if old == "run" else (HERE / old).unlink(missing_ok=True)
    splits = pl.when(pl.col("sequence") == 0).then(pl.lit("calibration")).otherwise(pl.lit("test"))
    records = records_of(4, 3).with_columns(split=splits, stratum=pl.lit("top", dtype=pl.Categorical))
    records.write_parquet(HERE / "records.parquet")
    explanations_of(4).write_parquet(HERE / "explanations.parquet")
    with mock.patch("nscore._running.plan.SHARD_ROWS", 40), serve(answer=partly, port=PORT) as server:
        ns.simulate(
            HERE / "records.parquet",
            HERE / "explanations.parquet",
            simulator=["json_list", "tab_list"],
            backend=backend(server, api_key="canary-key-1"),
            out=HERE / "run",
            price=(1.0, 2.0),
        )
    made = {"nscore": ns.__version__, "polars": pl.__version__}
    (HERE / "made.json").write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
