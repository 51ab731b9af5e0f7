"""Real neurons: scores equal those that the original's numpy formulas gave, where the shared data lie beside the project."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import nscore as ns

DATA = Path(__file__).parents[2] / "shared" / "data"
ORIGINAL = ["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"]

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the folder of reference data is not here")


def differ(got, reference, keys, columns):
    """The largest difference of any score, relative to max(1, |score|)."""
    both = got.join(reference, on=keys, how="full", suffix="_reference", coalesce=True)
    assert both.height == got.height == reference.height
    error = pl.max_horizontal(
        (pl.col(c) - pl.col(f"{c}_reference")).abs() / pl.max_horizontal(1.0, pl.col(f"{c}_reference").abs())
        for c in columns
    )
    assert both.select(pl.col(columns)).null_count().transpose().sum().item() == 0
    return both.select(error.max()).item()


def test_every_sequence_score_equals_the_reference():
    got = ns.score_sequences(DATA / "simulated_512.parquet")
    reference = pl.read_parquet(DATA / "sequence_scores_512.parquet")
    assert differ(got, reference, ["layer", "neuron", "sequence"], ORIGINAL) < 1e-12


@pytest.mark.parametrize("way", ["score", "pool", "expressions"])
def test_every_pooled_and_stratum_score_equals_the_reference(way):
    file = DATA / "simulated_512.parquet"
    reference = pl.read_parquet(DATA / "scores_512.parquet")
    if way == "score":
        got = ns.score(file, strata=True)
    elif way == "pool":
        got = ns.pool(ns.score_sequences(file), strata=True)
    else:
        keys, tokens = ["layer", "neuron"], pl.scan_parquet(file)
        metrics = [ns.ev_correlation_score(), ns.rsquared_score(), ns.absolute_dev_explained_score()]
        got = tokens.group_by(keys).agg(metrics).collect(engine="streaming")
        for stratum in ("top", "random"):
            named = [m.name.prefix(f"{stratum}_only_") for m in metrics]
            part = tokens.filter(pl.col("stratum") == stratum).group_by(keys).agg(named).collect(engine="streaming")
            got = got.join(part, on=keys)
    columns = [f"{prefix}{score}" for prefix in ("", "top_only_", "random_only_") for score in ORIGINAL]
    assert differ(got, reference, ["layer", "neuron"], columns) < 1e-12


def test_records_are_valid_and_the_chain_runs_on_them():
    records = pl.read_parquet(DATA / "records_512.parquet")
    ns.validate(records, "records")
    rank = pl.col("sequence").rank("dense").over("layer", "neuron", "stratum").alias("rank")
    split = ns.assign_splits(records.with_columns(rank))
    assert split.height == records.height
    explanations = (
        records.select("layer", "neuron").unique().with_columns(explanation_id=pl.lit("a"), explanation=pl.lit("x"))
    )
    simulated = ns.simulate(split, explanations, simulator="token_lookup")
    scores = ns.score(ns.calibrate(simulated))
    assert scores.height == 512
    assert scores["coverage"].min() == 1
    assert scores["ev_correlation_score"].mean() > 0.3
