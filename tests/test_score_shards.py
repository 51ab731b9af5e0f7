"""Scores that several workers make in shards are those of one pass over the table, bit for bit."""

from __future__ import annotations

import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import nscore as ns
from nscore._tables.stretches import stretches
from nscore.errors import SettingError, TableError
from nscore.executors import Processes

assert callable(ns.score)  # loads the module, which the verb hides
assert callable(ns.score_shards)
score_module = sys.modules["nscore.score"]


def simulated(neurons=9, records=4, tokens=7, seed=0):
    rng = np.random.default_rng(seed)
    n = neurons * records * tokens
    place = np.arange(n)
    return pl.DataFrame(
        {
            "layer": place // (tokens * records) // 5,
            "neuron": place // (tokens * records),
            "explanation_id": "a",
            "sequence": place // tokens % records,
            "position": place % tokens,
            "activation": rng.normal(size=n).astype(np.float32),
            "predicted": [None if x < -1.5 else float(x) for x in rng.normal(size=n)],
            "stratum": np.where(place // tokens % 2 == 0, "top", "random"),
            "weight": 1.0 + place // tokens % 3,
        }
    ).with_columns(status=pl.when(pl.col("predicted").is_null()).then(pl.lit("refused")).otherwise(pl.lit("ok")))


@pytest.fixture
def module(monkeypatch):
    """The module, which the verb hides, with small shards."""
    found = sys.modules["nscore.score_shards"]
    monkeypatch.setattr(found, "LEAST_ROWS", 20)
    monkeypatch.setattr("nscore._tables.stretches.LOOK", 5)
    return found


@pytest.mark.parametrize(
    "options", [{}, {"metrics": "all", "strata": True}, {"weights": "weight", "on_failure": "zero"}]
)
@pytest.mark.usefixtures("module")
def test_shards_give_the_tables_of_one_pass(tmp_path, options):
    df = simulated()
    df.write_parquet(tmp_path / "a.parquet")
    scores, sequences = ns.score_shards(tmp_path / "a.parquet", executor="local", **options)
    exact = {"rel_tol": 1e-12} if "metrics" in options else {"check_exact": True}
    assert_frame_equal(scores, ns.score(df, **options), **exact)
    keep = [options["weights"]] if "weights" in options else []
    rest = {k: v for k, v in options.items() if k in {"metrics", "on_failure"}}
    assert_frame_equal(sequences, ns.score_sequences(df, keep=keep, **rest), **exact)


@pytest.mark.usefixtures("module")
def test_processes_and_several_files_give_the_same(tmp_path):
    df = simulated(neurons=40)
    df[:333].write_parquet(tmp_path / "a-0.parquet")
    df[333:].write_parquet(tmp_path / "a-1.parquet")
    scores, sequences = ns.score_shards(f"{tmp_path}/*.parquet", executor=Processes(2), metrics="all")
    # sums over the tokens of a group have no order, and round as it comes; moments have one
    assert_frame_equal(scores, ns.score(df, metrics="all"), rel_tol=1e-12)
    assert_frame_equal(sequences, ns.score_sequences(df, metrics="all"), rel_tol=1e-12)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(1, 40), st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_every_row_is_in_one_shard_and_no_explanation_in_two(lengths, rows, look):
    df = pl.DataFrame({"layer": 0, "neuron": [i for i, n in enumerate(lengths) for _ in range(n)]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nscore._tables.stretches.LOOK", look)
        found = list(stretches(ns.frames.source(df), ["layer", "neuron"], df.height, rows))
    assert [start for start, _ in found] == [0, *np.cumsum([n for _, n in found])[:-1]]
    assert sum(n for _, n in found) == df.height
    each = [set(df["neuron"][start : start + n]) for start, n in found]
    assert sum(map(len, each)) == len(set().union(*each)) == len(lengths)
    assert all(n < rows + 12 for _, n in found)


@pytest.mark.usefixtures("module")
def test_an_error_names_the_row_in_the_file(tmp_path):
    df = simulated().with_row_index()
    wrong = df.with_columns(activation=pl.when(pl.col("index") == 205).then(float("nan")).otherwise("activation"))
    wrong.drop("index").write_parquet(tmp_path / "a.parquet")
    with pytest.raises(TableError, match=r"a\.parquet, row 205, column 'activation'"):
        ns.score_shards(tmp_path / "a.parquet", executor="local")


@pytest.mark.usefixtures("module")
def test_rows_of_an_explanation_that_lie_apart_are_refused(tmp_path):
    pl.concat([simulated(), simulated(neurons=1).with_columns(sequence=pl.col("sequence") + 9)]).write_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(TableError, match=r"rows of layer=0, neuron=0, explanation_id='a' do not lie together"):
        ns.score_shards(tmp_path / "a.parquet", executor="local")


def test_what_workers_cannot_have_is_refused(tmp_path):
    df = simulated()
    with pytest.raises(SettingError, match="write it to a Parquet file"):
        ns.score_shards(df)
    df.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(SettingError, match="mine is not in the catalogue"):
        ns.score_shards(tmp_path / "a.parquet", metrics=[pl.col("activation").mean().alias("mine")])
    df.clear().write_parquet(tmp_path / "none.parquet")
    scores, sequences = ns.score_shards(tmp_path / "none.parquet", executor="local")
    assert (scores.height, sequences.height) == (0, 0)
    assert scores.columns == ns.score(df).columns


@pytest.mark.parametrize("options", [{}, {"strata": True}, {"weights": "weight"}, {"on_failure": "zero"}])
def test_ranks_of_long_files_are_taken_stretch_by_stretch_and_are_the_same(tmp_path, monkeypatch, options):
    simulated().write_parquet(tmp_path / "a.parquet")
    metrics = ["spearman", "auroc", "d2_absolute_error"]
    whole = ns.score(tmp_path / "a.parquet", metrics=metrics, **options)
    seen = []
    monkeypatch.setattr("nscore._tables.stretches.LOOK", 5)
    monkeypatch.setattr(score_module, "HELD_ROWS", 50)
    monkeypatch.setattr(score_module, "stretches", lambda *a: seen.extend(s := list(stretches(*a))) or s)
    assert_frame_equal(ns.score(tmp_path / "a.parquet", metrics=metrics, **options), whole, rel_tol=1e-12)
    assert len(seen) > 3
    # where the rows of an explanation lie apart, all are taken at once
    scattered = simulated().sort("sequence", "neuron", "position")
    scattered.write_parquet(tmp_path / "b.parquet")
    assert_frame_equal(ns.score(tmp_path / "b.parquet", metrics=metrics, **options), whole)
