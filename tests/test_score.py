"""Scores of records and explanations: against numpy loops, between each other, and their policies."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tables import refused

import nscore as ns
from nscore.metrics import CATALOGUE

ORIGINAL = ["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"]
MERGING = [m.name for m in CATALOGUE.values() if m.decomposes]


@st.composite
def simulated(draw, *, nulls=True):
    """A simulated table of a few neurons, with records of any length, nulls, constants and zeros."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    frames = []
    for neuron in range(draw(st.integers(1, 4))):
        for sequence in range(draw(st.integers(1, 5))):
            n = draw(st.integers(1, 9))
            kind = draw(st.sampled_from(["normal", "zeros", "constant", "sparse"]))
            t = {
                "normal": rng.normal(size=n),
                "zeros": np.zeros(n),
                "constant": np.full(n, 0.1),
                "sparse": np.maximum(rng.normal(size=n) - 1, 0),
            }[kind]
            p = draw(st.sampled_from([rng.normal(size=n), np.full(n, 3.3), t.copy()]))
            missing = rng.random(n) < draw(st.sampled_from([0, 0.3, 1])) * nulls
            frames.append(
                pl.DataFrame(
                    {
                        "layer": 3,
                        "neuron": neuron,
                        "sequence": sequence,
                        "position": range(n),
                        "activation": t,
                        "predicted": [None if m else x for x, m in zip(p, missing, strict=True)],
                        "stratum": ["top", "random"][sequence % 2],
                        "weight": [1, 2, 3][sequence % 3],
                    },
                    schema_overrides={"predicted": pl.Float64},
                )
            )
    return pl.concat(frames)


def by_loop(frame, keys, metrics, prefix=""):
    """The metrics' expressions on one group at a time."""
    rows = []
    for key, part in frame.group_by(keys, maintain_order=True):
        scores = part.select(CATALOGUE[m].from_tokens() for m in metrics).row(0, named=True)
        rows.append(dict(zip(keys, key, strict=True)) | {prefix + m: s for m, s in scores.items()})
    return pl.DataFrame(rows, infer_schema_length=None).sort(keys)


def close(a, b, columns):
    assert_frame_equal(a.select(columns), b.select(columns), rel_tol=1e-12, abs_tol=1e-12, check_dtypes=False)


@settings(max_examples=15, deadline=None)
@given(simulated())
def test_sequence_scores_equal_a_loop_over_records(frame):
    keys = ["layer", "neuron", "sequence"]
    got = ns.score_sequences(frame, metrics="all")
    close(got, by_loop(frame, keys, list(CATALOGUE)), [*keys, *CATALOGUE])


@settings(max_examples=15, deadline=None)
@given(simulated())
def test_pooled_scores_equal_a_loop_over_explanations(frame):
    keys = ["layer", "neuron"]
    close(ns.score(frame, metrics="all"), by_loop(frame, keys, list(CATALOGUE)), [*keys, *CATALOGUE])


@settings(max_examples=15, deadline=None)
@given(simulated())
def test_pool_of_sequence_scores_equals_score_of_tokens(frame):
    pooled = ns.pool(ns.score_sequences(frame), metrics=MERGING, strata=True)
    assert_frame_equal(pooled, ns.score(frame, metrics=MERGING, strata=True))


@settings(max_examples=8, deadline=None)
@given(simulated())
def test_strata_equal_the_scores_of_each_stratum_alone(frame):
    whole = ns.score(frame, metrics="all", strata=True)
    for stratum in frame["stratum"].unique():
        part = frame.filter(pl.col("stratum") == stratum)
        alone = by_loop(part, ["layer", "neuron"], list(CATALOGUE), prefix=f"{stratum}_only_")
        both = whole.join(alone.select("layer", "neuron"), on=["layer", "neuron"], how="semi")
        close(both, alone, alone.columns)


@settings(max_examples=8, deadline=None)
@given(simulated())
def test_shards_merge_into_what_one_pass_gives(frame):
    whole = ns.pool(ns.score_sequences(frame))
    shards = [ns.score_sequences(frame.filter(pl.col("sequence") % 2 == i)) for i in (1, 0)]
    close(ns.pool(pl.concat(shards)), whole, whole.columns)


@settings(max_examples=8, deadline=None)
@given(simulated())
def test_weights_count_a_record_as_often_as_they_say(frame):
    repeated = pl.concat(
        frame.filter(pl.col("weight") > i).with_columns(pl.col("sequence") + 100 * i) for i in range(3)
    )
    scores = [m for m in CATALOGUE if m != "coverage"]  # it counts work, not weight
    close(
        ns.score(frame, metrics="all", weights="weight"),
        ns.score(repeated, metrics="all"),
        ["layer", "neuron", *scores],
    )


@settings(max_examples=8, deadline=None)
@given(simulated())
def test_zero_policy_scores_what_is_missing_as_zero(frame):
    filled = frame.with_columns(pl.col("predicted").fill_null(0))
    scores = [m for m in CATALOGUE if m != "coverage"]
    for function in (ns.score, ns.score_sequences):
        zero, full = function(frame, metrics="all", on_failure="zero"), function(filled, metrics="all")
        close(zero, full, scores)
        assert zero["coverage"].equals(function(frame)["coverage"])


@settings(max_examples=8, deadline=None)
@given(simulated(), st.randoms())
def test_order_of_rows_and_kind_of_frame_do_not_matter(frame, random):
    rows = list(range(frame.height))
    random.shuffle(rows)
    expected = ns.score(frame, metrics="all")
    close(ns.score(frame[rows], metrics="all"), expected, expected.columns)
    assert_frame_equal(ns.score(frame.lazy(), metrics="all"), expected)
    assert_frame_equal(ns.score(frame.to_arrow(), metrics="all"), expected)


def test_pooled_score_is_not_the_mean_of_sequence_scores():
    frame = pl.DataFrame(
        {
            "layer": 0,
            "neuron": 0,
            "sequence": [0, 0, 1, 1],
            "activation": [0.0, 1.0, 0.0, 10.0],
            "predicted": [0.0, 2.0, 5.0, 0.0],
        }
    )
    t, p = frame["activation"].to_numpy(), frame["predicted"].to_numpy()
    pooled = ns.score(frame)["ev_correlation_score"].item()
    assert pooled == pytest.approx(np.corrcoef(t, p)[0, 1], abs=1e-12)
    assert pooled != pytest.approx(ns.score_sequences(frame)["ev_correlation_score"].mean(), abs=1e-3)


def test_explanation_without_a_prediction_keeps_its_row_with_null_scores():
    frame = pl.DataFrame(
        {
            "layer": 0,
            "neuron": [0, 0, 1, 1],
            "sequence": 0,
            "position": [0, 1, 0, 1],
            "activation": [1.0, 2.0, 1.0, 2.0],
        }
    ).with_columns(pl.when(pl.col("neuron") == 0).then(pl.col("activation")).alias("predicted"))
    for table in (ns.score(frame, metrics="all"), ns.score_sequences(frame, metrics="all")):
        lost = table.filter(pl.col("neuron") == 1)
        assert lost["coverage"].to_list() == [0.0]
        assert lost.select([m for m in CATALOGUE if m != "coverage"]).null_count().row(0) == (1,) * 12


def test_column_in_which_nothing_was_predicted_yet_scores_null():
    frame = pl.DataFrame({"layer": 0, "neuron": 0, "sequence": 0, "activation": [1.0, 2.0], "predicted": [None, None]})
    assert ns.score(frame).row(0, named=True)["ev_correlation_score"] is None


def test_empty_table_gives_empty_tables_with_the_same_columns():
    frame = pl.DataFrame({"layer": [0], "neuron": [0], "sequence": [0], "activation": [1.0], "predicted": [1.0]})
    for function in (ns.score, ns.score_sequences):
        assert function(frame.clear()).schema == function(frame).schema


def test_two_explanations_of_a_neuron_are_rows_of_their_own():
    one = pl.DataFrame(
        {"layer": 0, "neuron": 0, "sequence": 0, "position": [0, 1], "activation": [1.0, 2.0], "predicted": [1.0, 2.0]}
    )
    frame = pl.concat([one.with_columns(explanation_id=pl.lit(e), simulator=pl.lit(s)) for e in "ab" for s in "xy"])
    scores = ns.score(frame)
    assert scores.columns[:4] == ["layer", "neuron", "simulator", "explanation_id"]
    assert scores.height == 4
    with pytest.raises(ns.TableError, match="simulator"):
        ns.score(frame.drop("position"), by=["layer", "neuron", "explanation_id"])


def test_only_valid_and_test_are_scored_unless_named():
    frame = pl.DataFrame(
        {
            "layer": 0,
            "neuron": 0,
            "sequence": [0, 1, 2, 3],
            "activation": 1.0,
            "predicted": 1.0,
            "split": ["train", "calibration", "valid", "test"],
        }
    )
    assert ns.score_sequences(frame)["split"].to_list() == ["valid", "test"]
    assert ns.score(frame, splits=["train"])["n_sequences"].item() == 1
    assert ns.score(frame, splits=["train"], metrics=["spearman"])["n_tokens"].item() == 1
    with pytest.raises(ns.TableError, match=r"unknown split.*'validation'"):
        ns.score(frame, splits=["validation"])
    with pytest.raises(ns.TableError, match="assign_splits"):
        ns.score(frame.drop("split"), splits=["test"])


def test_pool_refuses_a_mixture_of_policies():
    frame = pl.DataFrame({"layer": 0, "neuron": 0, "sequence": [0, 1], "activation": 1.0, "predicted": 1.0})
    parts = [
        ns.score_sequences(frame.filter(pl.col("sequence") == i), on_failure=policy)
        for i, policy in enumerate(["drop", "zero"])
    ]
    with pytest.raises(ns.PoolError, match="'drop' and 'zero'"):
        ns.pool(pl.concat(parts))


def test_pool_refuses_a_record_twice_and_a_metric_of_ranks():
    frame = pl.DataFrame({"layer": 0, "neuron": 0, "sequence": [0, 1], "activation": 1.0, "predicted": 1.0})
    table = ns.score_sequences(frame)
    with pytest.raises(ns.TableError, match="sequence=0 stands in two rows"):
        ns.pool(pl.concat([table, table]))
    with pytest.raises(ns.PoolError, match=r"spearman does not decompose.*nscore\.score"):
        ns.pool(table, metrics=["spearman"])
    with pytest.raises(ns.TableError, match="comoment"):
        ns.pool(table.drop("comoment"))


def test_pool_by_fewer_keys_pools_across_neurons():
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "layer": np.repeat([0, 1], 20),
            "neuron": np.tile(np.repeat([0, 1], 10), 2),
            "sequence": 0,
            "position": np.tile(np.arange(10), 4),
            "activation": rng.normal(size=40),
            "predicted": rng.normal(size=40),
        }
    )
    pooled = ns.pool(ns.score_sequences(frame), by=["layer"], metrics=MERGING)
    close(pooled, by_loop(frame, ["layer"], MERGING), ["layer", *MERGING])
    by_neuron = ns.pool(ns.score_sequences(frame), by=["neuron"], metrics=MERGING)
    close(by_neuron, by_loop(frame, ["neuron"], MERGING), ["neuron", *MERGING])


def test_expression_of_the_users_own_is_scored_under_its_name():
    frame = pl.DataFrame(
        {"layer": 0, "neuron": 0, "sequence": 0, "activation": [0.0, 1.0, 2.0], "predicted": [0.0, 1, 0]}
    )
    mine = ns.auroc(threshold=1.5).alias("auroc_above_1.5")
    scores = ns.score(frame, metrics=["pearson", mine])
    assert scores["auroc_above_1.5"].item() == frame.select(mine).item() == 0.25
    assert scores.columns[-2:] == ["pearson", "auroc_above_1.5"]


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        (ns.score, ["failures", "low_coverage", "coverage", "n_tokens", "n_predicted", "n_sequences"]),
        (ns.score_sequences, ["failures", "on_failure", "coverage", "n_tokens", "n_predicted", "n_scored", "comoment"]),
    ],
)
def test_an_expression_is_refused_the_name_of_a_column_beside_the_scores(stage, names):
    frame = pl.DataFrame({"layer": 0, "neuron": 0, "sequence": 0, "activation": [0.0, 1.0], "predicted": [0.0, None]})
    lost = pl.col("predicted").null_count()
    for name in names:
        with refused(
            "taken name",
            "metrics=",
            column=name,
            found="a column of this name stands beside the scores",
            mend="Give the metric another: expression.alias(...).",
        ):
            stage(frame, metrics=["pearson", lost.alias(name)])
    assert stage(frame, metrics=["coverage", lost.alias("n_lost")])["n_lost"].to_list() == [1]


def test_scores_written_to_parquet_pool_the_same(tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"layer": 0, "neuron": 0, "sequence": np.arange(50) // 5, "activation": rng.normal(size=50), "predicted": 1.0}
    )
    ns.score_sequences(frame).write_parquet(tmp_path / "sequence_scores.parquet")
    assert_frame_equal(ns.pool(tmp_path / "sequence_scores.parquet"), ns.score(frame))
