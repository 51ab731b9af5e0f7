"""`token_lookup`: the mean activation of the token over the train split."""

from __future__ import annotations

import math
from collections import defaultdict

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation_tables import PROPERTY, explained, record, small_explanations, small_records

import nscore as ns

SPLITS = ["train", "calibration", "valid", "test"]
TOKENS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "A", "##a", "é", ""]), st.floats(-1e6, 1e6)), min_size=1, max_size=6
)


def mean(values):
    return math.fsum(values) / len(values)


def looked_up(records, **options):
    neurons = records["neuron"].unique().sort().to_list()
    explanations = pl.concat([explained("read by nobody", neuron=n) for n in neurons])
    return ns.simulate(records, explanations, simulator="token_lookup", splits=SPLITS, **options)


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(SPLITS), TOKENS), min_size=1, max_size=12))
def test_it_equals_a_dictionary_of_means_over_the_train_split(drawn):
    seen, everything = defaultdict(list), defaultdict(list)
    for neuron, split, tokens in drawn:
        for token, activation in tokens if split == "train" else ():
            seen[neuron, token].append(activation)
            everything[neuron].append(activation)
    records = pl.concat(
        record([t for t, _ in tokens], [x for _, x in tokens], neuron=neuron, sequence=sequence, split=split)
        for sequence, (neuron, split, tokens) in enumerate(drawn)
    )
    result = looked_up(records)
    assert result.height == records.height
    for row in result.iter_rows(named=True):
        values = seen.get((row["neuron"], row["token"])) or everything.get(row["neuron"])
        expected = (None, "not_run") if values is None else (pytest.approx(mean(values), abs=1e-6), "ok")
        assert (row["predicted"], row["status"]) == expected


def test_a_case_worked_by_hand():
    records = pl.concat(
        [
            record(["a", "b", "a"], [1.0, 5.0, 3.0], sequence=1, split="train"),
            record(["a"], [8.0], sequence=2, split="train"),
            record(["a", "b", "A"], [100.0, 100.0, 100.0], sequence=3, split="test"),
        ]
    )
    result = looked_up(records).filter(pl.col("split") == "test")
    assert result["predicted"].to_list() == [4.0, 5.0, 4.25]


def test_an_unseen_token_gets_the_mean_of_the_tokens_and_not_the_mean_of_the_means():
    records = pl.concat(
        [record(["a"] * 3 + ["b"], [1.0, 1.0, 1.0, 5.0], split="train"), record(["new"], sequence=2, split="test")]
    )
    assert looked_up(records).filter(pl.col("token") == "new")["predicted"].to_list() == [2.0]


def test_a_neuron_without_train_records_is_null_and_not_run():
    records = pl.concat([record(["a"], 2.0, split="train"), record(["a"], 2.0, neuron=8, sequence=2, split="valid")])
    result = looked_up(records)
    assert result.select("neuron", "predicted", "status").rows() == [(7, 2.0, "ok"), (8, None, "not_run")]


def test_other_splits_teach_it_nothing():
    records = small_records()
    louder = pl.when(pl.col("split") == "train").then("activation").otherwise(pl.col("activation") + 1000)
    first, second = looked_up(records), looked_up(records.with_columns(louder.alias("activation")))
    assert first["predicted"].to_list() == second["predicted"].to_list()


def test_the_explanation_is_not_read():
    records, explanations = small_records(), small_explanations()
    other = explanations.with_columns(explanation=pl.lit("something else"))
    first, second = (ns.simulate(records, e, simulator="token_lookup") for e in (explanations, other))
    assert first.equals(second)


def test_neurons_are_told_apart_by_every_key():
    records = pl.concat(
        record(["a"], x, model=model, layer="mlp.0", sequence=s, split=split)
        for model, x in (("m", 1.0), ("n", 2.0))
        for s, split in enumerate(["train", "test"])
    )
    explanations = pl.concat(explained("x", model=model, layer="mlp.0") for model in ("m", "n"))
    result = ns.simulate(records, explanations, simulator="token_lookup", by=["model", "layer", "neuron"])
    assert result.select("model", "predicted").rows() == [("m", 1.0), ("n", 2.0)]


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["a", "b", "new"])])
def test_tokens_may_be_categories(dtype):
    records = pl.concat([record(["a", "b"], [1.0, 3.0], split="train"), record(["a", "new"], sequence=2, split="test")])
    result = looked_up(records.with_columns(pl.col("token").cast(dtype)))
    assert result.filter(pl.col("split") == "test")["predicted"].to_list() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Int16])
def test_predictions_are_float64_whatever_the_activations_are(dtype):
    records = record(["a", "a"], [1.0, 2.0], split="train").with_columns(pl.col("activation").cast(dtype))
    result = looked_up(records)
    assert result.schema["predicted"] == pl.Float64
    assert result["predicted"].to_list() == [1.5, 1.5]


def test_records_without_splits_are_a_table_error_that_names_the_mend():
    with pytest.raises(ns.TableError, match="assign_splits") as caught:
        ns.simulate(record(["a"]), explained("x"), simulator="token_lookup")
    assert caught.value.column == "split"
    assert caught.value.problem == "missing column"
