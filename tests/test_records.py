"""The columns and dtypes that tables must have; keys of any dtype, and columns that travel along."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from tables import EXPLODE, SPLITS, cast_mend, explanations, records, refused, simulated

import nscore as ns
from nscore.records import SCORED_SPLITS, TABLES, default_by, scored_splits

KEYS = "layer, neuron"


@pytest.mark.parametrize(
    ("kind", "table"), [("records", records()), ("explanations", explanations()), ("simulated", simulated())]
)
def test_each_missing_column_is_named_with_those_there_are(kind, table):
    keys = ["layer", "neuron"] + ["explanation_id"] * (kind != "records")
    for column in [c for c in [*keys, *TABLES[kind].required] if c != "explanation_id"]:
        needed = dict.fromkeys([*keys, *TABLES[kind].required])
        rest = table.drop(column)
        rename = f", or name your keys with by=[...] instead of {column!r}." if column in keys else "."
        with refused(
            "missing column",
            column=column,
            found=f"the columns are {', '.join(rest.columns)}",
            mend=f"A table of {kind} needs {', '.join(needed)}: rename a column{rename}",
        ):
            ns.validate(rest, kind)


def test_an_explanation_without_an_id_is_refused():
    with refused(
        "missing column",
        column="explanation_id",
        found="the columns are layer, neuron, explanation",
        mend=f"A table of explanations needs {KEYS}, explanation_id, explanation: rename a column.",
    ):
        ns.validate(explanations().drop("explanation_id"), "explanations")


def test_a_table_without_columns_says_so():
    with refused(
        "missing column",
        column="layer",
        found="the columns are none",
        mend=f"A table of records needs {KEYS}, sequence, position, token, activation: rename a column, "
        "or name your keys with by=[...] instead of 'layer'.",
    ):
        ns.validate(pl.DataFrame(), "records")


@pytest.mark.parametrize(
    ("kind", "column", "dtype", "wanted", "mend"),
    [
        ("records", "activation", pl.String, "a float or integer dtype", "pl.Float32"),
        ("records", "activation", pl.Boolean, "a float or integer dtype", "pl.Float32"),
        ("records", "position", pl.Float64, "an integer dtype", "pl.Int32"),
        ("records", "token", pl.Int64, "text (String, Categorical or Enum)", "pl.String"),
        ("records", "split", pl.Int64, "text (String, Categorical or Enum)", "pl.String"),
        ("simulated", "predicted", pl.String, "a float or integer dtype", "pl.Float32"),
        ("simulated", "status", pl.Int64, "text (String, Categorical or Enum)", "pl.String"),
        ("simulated", "shown", pl.Int64, "Boolean", "pl.Boolean"),
        ("explanations", "explanation", pl.Int64, "text (String, Categorical or Enum)", "pl.String"),
        ("explanations", "shown_sequences", pl.Int64, "a list of sequences", "pl.List(pl.Int64)"),
    ],
)
def test_a_wrong_dtype_is_named_with_the_cast_that_mends_it(kind, column, dtype, wanted, mend):
    table = {"records": records(), "simulated": simulated(), "explanations": explanations()}[kind]
    table = table.with_columns(pl.lit(1).cast(dtype).alias(column))
    with refused("wrong dtype", column=column, found=f"found {dtype}, expected {wanted}", mend=cast_mend(column, mend)):
        ns.validate(table, kind)


@pytest.mark.parametrize(
    ("column", "dtype", "wanted"),
    [
        ("position", "List(Int64)", "an integer dtype"),
        ("token", "List(String)", "text (String, Categorical or Enum)"),
        ("activation", "List(Float64)", "a float or integer dtype"),
    ],
)
def test_a_row_a_record_with_lists_is_told_to_be_exploded(column, dtype, wanted):
    lists = records().group_by("layer", "neuron", "sequence", maintain_order=True).agg(column)
    table = lists.join(records().drop(column).unique("sequence"), on=["layer", "neuron", "sequence"])
    with refused("wrong dtype", column=column, found=f"found {dtype}, expected {wanted}", mend=EXPLODE):
        ns.validate(table, "records")


def test_keys_are_those_of_a_neuron_and_those_of_an_explanation_where_they_exist():
    assert default_by([]) == ["layer", "neuron"]
    assert default_by(["sequence", "explanation_id", "neuron", "simulator", "model"]) == [
        "layer",
        "neuron",
        "simulator",
        "explanation_id",
    ]


def test_valid_and_test_are_scored_unless_splits_are_named():
    assert SCORED_SPLITS == ("valid", "test")
    assert scored_splits(["split"], None) == ("valid", "test")
    assert scored_splits(["split"], ["train", "calibration"]) == ("train", "calibration")
    assert scored_splits(["layer"], None) is None


def test_a_split_that_is_asked_for_must_be_one():
    with refused(
        "unknown split", "splits=", found=f"found 'tset', expected some of {SPLITS}", mend="Correct the name."
    ):
        ns.score(simulated(), splits=["test", "tset"])


def test_a_split_that_is_asked_for_must_be_in_the_table():
    with refused(
        "missing column",
        "splits=",
        column="split",
        found="splits valid, test were asked for and the table has no such column",
        mend="Add it (see nscore.assign_splits), or leave splits= out to score every record.",
    ):
        ns.score(simulated().drop("split"), splits=["valid", "test"])


LAYERS = {
    "hook point": pl.Series(["blocks.3.mlp", "blocks.11.mlp"]),
    "categorical": pl.Series(["blocks.3.mlp", "blocks.11.mlp"], dtype=pl.Categorical),
    "enum": pl.Series(["blocks.3.mlp", "blocks.11.mlp"], dtype=pl.Enum(["blocks.3.mlp", "blocks.11.mlp"])),
    "binary": pl.Series([b"\x03", b"\x0b"]),
    "flag": pl.Series([False, True]),
    "date": pl.Series([dt.date(2024, 1, 3), dt.date(2024, 1, 11)]),
} | {
    str(dtype): pl.Series([3, 11], dtype=dtype)
    for dtype in (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Float32)
}


def in_two_layers(table, layers):
    """The table once for each of two layers, which have a neuron each."""
    return pl.concat(
        [table.with_columns(pl.lit(layer).alias("layer"), pl.lit(layer).alias("neuron")) for layer in (0, 1)]
    ).with_columns(layers.gather([0] * table.height + [1] * table.height).alias("layer"))


@pytest.mark.parametrize("labels", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("key", ["layer", "neuron", "sequence"])
def test_keys_and_sequences_may_be_of_any_dtype(labels, key):
    plain = in_two_layers(simulated().rename({"split": "stratum"}), pl.Series([0, 1]))
    table = plain.with_columns(labels.gather(plain[key].rank("dense") - 1).alias(key))
    ns.validate(table, "simulated")
    expected, scores = ns.score_sequences(plain), ns.score_sequences(table[::-1])
    assert scores.schema[key] == labels.dtype
    assert set(scores[key]) == set(labels)
    rest = [column for column in scores.columns if column != key]
    order = ["layer", "neuron", "explanation_id", "sequence", "stratum"]
    order.remove(key)
    assert_frame_equal(scores.select(rest).sort(order), expected.select(rest).sort(order), rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.parametrize("dtype", ["hook point", "categorical", "enum", "UInt8", "Int32", "Int64"])
def test_every_stage_keeps_the_dtype_of_a_key(dtype):
    layers = LAYERS[dtype]
    ranked = in_two_layers(records(), layers).with_columns(
        stratum=pl.lit("random"), rank=pl.col("sequence"), dataset=pl.lit("wiki")
    )
    split = ns.assign_splits(ranked)
    run = ns.simulate(split, in_two_layers(explanations(), layers), simulator=["lexical", "constant"])
    for method in ("linear", "percentile"):
        calibrated = ns.calibrate(run, method)
        assert calibrated["predicted"].null_count() == 0
        for table in (split, run, calibrated):
            assert table.schema["layer"] == layers.dtype
            assert set(table["dataset"]) == {"wiki"}
    scores = ns.score(calibrated)
    assert scores.schema["layer"] == layers.dtype
    assert scores.height == 2 * 2 * 2
    ns.validate(scores, "scores")


def test_columns_that_nscore_does_not_know_travel_along_in_any_dtype():
    odd = {
        "model": pl.lit("gpt"),
        "seen": pl.lit(dt.date(2024, 1, 1)),
        "ids": pl.lit([1, 2], dtype=pl.List(pl.Int64)),
    }
    table = records().with_columns(**odd)
    ns.validate(table, "records")
    run = ns.simulate(table, explanations())
    assert_frame_equal(run.select(odd.keys()).unique(), table.select(odd.keys()).unique())
    ns.validate(run, "simulated")


def test_keys_are_a_parameter():
    table = simulated().rename({"layer": "hook", "neuron": "latent"}).with_columns(model=pl.lit("m"))
    by = ["model", "hook", "latent", "explanation_id"]
    ns.validate(table, "simulated", by=by)
    expected = ns.score(simulated())
    scores = ns.score(table, by=by)
    assert scores.columns[:4] == by
    assert_frame_equal(scores.drop(by), expected.drop("layer", "neuron", "explanation_id"))


def test_stratum_and_predicted_may_be_null():
    table = simulated(predicted=pl.Series([None] * 12, dtype=pl.Float64)).with_columns(
        stratum=pl.lit(None, dtype=pl.String)
    )
    ns.validate(table, "simulated")
    ns.validate(table.with_columns(predicted=None), "simulated")  # a column of dtype Null
    assert ns.score(table)["ev_correlation_score"].to_list() == [None, None]
    assert ns.score(table)["coverage"].to_list() == [0.0, 0.0]
