"""What `validate` refuses and in which words; that it finds the row at fault wherever it stands."""

from __future__ import annotations

import math

import polars as pl
import pytest
from tables import (
    GAP,
    LOST,
    NULL_KEY,
    SPLITS,
    explanations,
    records,
    refused,
    simulated,
)

import nscore as ns
from nscore.records import TABLES

FIRST, SECOND = "layer=0, neuron=7, sequence=1", "layer=0, neuron=7, sequence=2"


def test_whole_tables_of_every_kind_pass():
    sequence_scores = ns.score_sequences(simulated())
    tables = {
        "records": records(),
        "explanations": explanations(),
        "simulated": simulated(),
        "sequence_scores": sequence_scores,
        "scores": ns.score(simulated()),
        "judgements": pl.DataFrame(
            {"layer": 0, "neuron": 7, "item": [0, 1], "label": True, "predicted_label": [True, None]}
        ),
    }
    assert set(tables) == set(TABLES)
    for kind, table in tables.items():
        assert ns.validate(table, kind) is None


def test_an_unknown_kind_of_table_is_named_with_the_nearest_one():
    with pytest.raises(ns.UnknownNameError, match=r"no table is called 'recods'\. Did you mean 'records'"):
        ns.validate(records(), "recods")


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_an_activation_that_is_no_number_is_refused(value):
    with refused(
        "null or non-finite value",
        "the frame, row 4",
        column="activation",
        found=f"found {value}, expected a finite number",
        mend=LOST.format("activation"),
    ):
        ns.validate(records(activation=[0.0, 1.0, 0.5, 0.0, value, 0.25]), "records")


@pytest.mark.parametrize("column", ["activation", "predicted"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("stage", [lambda table: ns.validate(table, "simulated"), ns.score_sequences, ns.score])
def test_a_simulated_table_may_hold_null_but_no_infinity(column, value, stage):
    table = simulated(**{column: [0.0, 1.0, None] * 3 + [value, 2.0, 3.0]})
    with refused(
        "non-finite value",
        "the frame, row 9",
        column=column,
        found=f"found {value}, expected a finite number or null",
        mend=LOST.format(column)[:-1] + f"; what is not known is null: pl.col({column!r}).fill_nan(None).",
    ):
        stage(table)
    ns.validate(table.with_columns(pl.col(column).replace(value, None)), "simulated")


def test_integers_and_half_floats_are_numbers_too():
    for dtype in (pl.Int8, pl.UInt16, pl.Int64, pl.Float16, pl.Float32):
        ns.validate(records().with_columns(pl.col("activation").cast(dtype)), "records")


@pytest.mark.parametrize(
    ("by", "carried"), [(["layer", "neuron"], "; the table has explanation_id too"), (["neuron"], "")]
)
def test_a_key_that_by_leaves_out_shows_as_a_duplicate_position(by, carried):
    table = simulated() if carried else pl.concat([records(), records(layer=[1] * 6)])
    name = ", ".join(f"{key}={0 if key == 'layer' else 7}" for key in by)
    with refused(
        "duplicate position",
        "the frame, row 6",
        column="position",
        found=f"found 0 a second time in {name}, sequence=1",
        mend=f"Name every key in by=[...] (now {', '.join(by)}{carried}), or drop the repeated rows.",
    ):
        ns.validate(table, "simulated" if carried else "records", by=by)


def test_two_explanations_are_never_pooled_by_silence_where_there_are_no_positions():
    with refused(
        "two explanation_ids in one record",
        "the frame, row 6",
        column="explanation_id",
        found=f"found 'a' and 'b' in {FIRST}",
        mend="Name 'explanation_id' in by=[...]: two are never pooled by silence.",
    ):
        ns.score_sequences(simulated().drop("position"), by=["layer", "neuron"])


@pytest.mark.parametrize("dtype", [pl.UInt8, pl.Int8])
def test_positions_that_wrap_round_are_no_positions(dtype):
    n = 512
    table = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": 1, "token": "a", "activation": [1.0] * n})
    table = table.with_columns(position=pl.int_range(n, dtype=pl.Int64).cast(dtype, wrap_numerical=True))
    with pytest.raises(ns.TableError, match=r"column 'position': (duplicate position|gap in positions)"):
        ns.validate(table, "records")


@pytest.mark.parametrize(
    ("positions", "row", "found"),
    [
        ([0, 1, 2, 0, 2, 3], 4, f"found 2 after 0 in {SECOND}"),
        ([0, 1, 2, 0, 1, 3], 5, f"found 3 after 1 in {SECOND}"),
        ([1, 2, 3, 0, 1, 2], 0, f"found 1 as the first in {FIRST}"),
        ([0, 1, 2, 1, 2, 3], 3, f"found 1 as the first in {SECOND}"),
        ([-1, 0, 1, 0, 1, 2], 0, f"found -1 as the first in {FIRST}"),
    ],
)
def test_positions_count_from_zero_without_a_gap(positions, row, found):
    with refused("gap in positions", f"the frame, row {row}", column="position", found=found, mend=GAP):
        ns.validate(records(position=positions), "records")


@pytest.mark.parametrize("column", ["position", "token"])
def test_a_null_token_tells_of_a_record_without_tokens(column):
    # what a record with empty lists becomes where Polars explodes it into a row of nulls
    exploded = pl.concat([records(), records(sequence=[3] * 6)[:1].with_columns(pl.lit(None).alias(column))])
    with refused(
        "empty record",
        "the frame, row 6",
        column=column,
        found=f"the {column} is null, as it is after exploding a record without tokens",
        mend=f"Drop records without tokens: frame.filter(pl.col({column!r}).is_not_null()).",
    ):
        ns.validate(exploded, "records")


def test_records_without_a_row_are_refused_and_other_tables_are_not():
    with refused("empty table", found="no rows", mend="Expected one row a token."):
        ns.validate(records().clear(), "records")
    ns.validate(simulated().clear(), "simulated")
    ns.validate(explanations().clear(), "explanations")


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["test", "tset", "train"])])
@pytest.mark.parametrize("value", ["tset", None])
def test_a_split_that_nobody_knows_is_refused(dtype, value):
    splits = pl.Series("split", ["train"] * 3 + [value] * 3, dtype=dtype)
    with refused(
        "unknown split",
        "the frame, row 3",
        column="split",
        found=f"found {value!r}, expected one of {SPLITS}",
        mend="Rename it, or drop the rows that belong to no split.",
    ):
        ns.validate(records().with_columns(splits), "records")


def test_a_record_has_one_split_and_one_stratum():
    for column in ("split", "stratum"):
        with refused(
            f"two {column}s in one record",
            "the frame, row 4",
            column=column,
            found=f"found 'train' and 'test' in {SECOND}",
            mend=f"Expected one {column} for all tokens of a record.",
        ):
            ns.validate(records(**{column: ["train"] * 4 + ["test"] * 2}), "records")


@pytest.mark.parametrize("variant", ["explanation_id", "simulator"])
@pytest.mark.parametrize("positions", [True, False])
def test_a_record_is_as_long_under_one_explanation_or_simulator_as_under_another(variant, positions):
    four = [1, 1, 1, 1]
    long = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": four, "position": range(4), "activation": 1.0})
    both = [long.with_columns(pl.lit("a").alias(variant)), long[:3].with_columns(pl.lit("b").alias(variant))]
    table = pl.concat(both).with_columns(predicted=2.0)
    with refused(
        "mixed lengths",
        "the frame, row 4",
        column="position" if positions else "sequence",
        found=f"the record {FIRST} has 3 tokens under {variant}='b' and 4 elsewhere",
        mend="Expected every token of a record under each; what was not predicted keeps its row, with null.",
    ):
        ns.score_sequences(table if positions else table.drop("position"))


@pytest.mark.parametrize("column", ["layer", "neuron", "sequence"])
def test_a_null_key_is_refused(column):
    table = records().with_columns(pl.when(pl.col("token") != " blue").then(column).alias(column))
    with refused("null key", "the frame, row 4", column=column, found="the key is null", mend=NULL_KEY):
        ns.validate(table, "records")


@pytest.mark.parametrize("column", ["layer", "neuron", "explanation_id"])
def test_a_null_key_of_an_explanation_is_refused(column):
    table = explanations().with_columns(pl.when(pl.int_range(2) == 0).then(column).alias(column))
    with refused("null key", "the frame, row 1", column=column, found="the key is null", mend=NULL_KEY):
        ns.validate(table, "explanations")


@pytest.mark.parametrize("kind", ["explanations", "sequence_scores", "scores"])
def test_a_row_that_is_repeated_is_refused(kind):
    table = {
        "explanations": explanations(),
        "sequence_scores": ns.score_sequences(simulated()),
        "scores": ns.score(simulated()),
    }[kind]
    name = "layer=0, neuron=7, explanation_id='a'" + ", sequence=2" * (kind == "sequence_scores")
    with refused(
        "repeated row",
        "the frame, row 2",
        found=f"{name} stands in an earlier row too",
        mend="Expected one row for each; drop one, or name every key in by=[...].",
    ):
        ns.validate(pl.concat([table, table[:1]]), kind)


@pytest.mark.parametrize("text", ["", " ", "\n\t ", None])
def test_a_blank_explanation_is_refused(text):
    with refused(
        "empty explanation", "the frame, row 1", column="explanation", found="found no text", mend="Drop the row."
    ):
        ns.validate(explanations(explanation=["x", text]), "explanations")


@pytest.mark.parametrize("coverage", [-0.1, 1.5])
def test_a_coverage_is_a_share(coverage):
    scores = ns.score(simulated()).with_columns(coverage=pl.Series([1.0, coverage]))
    with refused(
        "value out of range", "the frame, row 1", column="coverage", found="expected 0 to 1", mend="Score again."
    ):
        ns.validate(scores, "scores")
