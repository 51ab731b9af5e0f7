"""Splits are the original's interleaved slices of the records of a stratum in the order of their rank."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tables import QUICK, as_files, records, refused, shuffles

import nscore as ns

INTERLEAVE = (
    "Splits interleave the records of a stratum in the order of their rank: add the column, or name yours with "
    "rank=... ."
)


def ranked(n_top, n_random, neurons=(7,), n_tokens=2):
    """Top and random records of some neurons, in the order of their rank, which counts from 0 in each stratum."""
    rows = [
        (neuron, 100 * neuron + sequence, stratum, rank)
        for neuron in neurons
        for sequence, (stratum, rank) in enumerate(
            [("top", i) for i in range(n_top)] + [("random", i) for i in range(n_random)]
        )
    ]
    schema = {"neuron": pl.Int64, "sequence": pl.Int64, "stratum": pl.String, "rank": pl.Int64}
    records = pl.DataFrame(rows, schema=schema, orient="row").with_columns(layer=pl.lit(0))
    tokens = pl.DataFrame({"position": range(n_tokens), "token": "x", "activation": 1.0})
    return records.join(tokens, how="cross")


def as_the_original(table, n):
    """The split of each sequence, by the original's slices."""
    placed = {}
    for (stratum, _), rows in table.group_by("stratum", "neuron", maintain_order=True):
        records = rows.sort("rank")["sequence"].unique(maintain_order=True).to_list()
        if stratum == "top":
            slices = {
                "train": records[0::4][:n],
                "calibration": records[1::4][:n],
                "valid": records[2::4][:n],
                "test": records[3::4][:n],
            }
        else:
            slices = {"calibration": records[0::3][:n], "valid": records[1::3][:n], "test": records[2::3][:n]}
        placed |= {sequence: split for split, taken in slices.items() for sequence in taken}
    return placed


@QUICK
@given(st.data(), st.integers(0, 13), st.integers(0, 13), st.none() | st.integers(0, 4))
def test_splits_are_the_slices_of_the_original(data, n_top, n_random, n):
    table = ranked(n_top, n_random, neurons=(7, 8))
    shuffled = data.draw(shuffles(table))
    split = ns.assign_splits(shuffled, n_per_split=n)
    placed = as_the_original(table, n)
    assert dict(zip(split["sequence"], split["split"], strict=True)) == placed
    # each token of a record that was taken, in the order of the rows
    assert split.drop("split").equals(shuffled.filter(pl.col("sequence").is_in(placed)).select(split.columns[:-1]))


def test_the_demos_of_the_original_take_five_a_split_and_stratum():
    split = ns.assign_splits(ranked(20, 15, n_tokens=1), n_per_split=5)
    counts = {row[:2]: row[2] for row in split.group_by("split", "stratum").len().iter_rows()}
    both = [(name, stratum) for name in ("calibration", "valid", "test") for stratum in ("top", "random")]
    assert counts == dict.fromkeys([("train", "top"), *both], 5)


def test_what_belongs_to_no_split_is_left_out():
    assert ns.assign_splits(ranked(9, 7, n_tokens=1), n_per_split=1)["sequence"].to_list() == [
        *(700, 701, 702, 703),
        *(709, 710, 711),
    ]


def test_any_stratum_but_top_has_no_train_split():
    quantile = ranked(0, 7, n_tokens=1).with_columns(stratum=pl.lit("quantile_3"))
    assert ns.assign_splits(quantile)["split"].to_list() == ["calibration", "valid", "test"] * 2 + ["calibration"]


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["random", "top"])])
def test_a_stratum_may_be_a_category(dtype):
    table = ranked(5, 4)
    split = ns.assign_splits(table.with_columns(pl.col("stratum").cast(dtype)))
    assert_frame_equal(split.with_columns(pl.col("stratum").cast(pl.String)), ns.assign_splits(table))


@QUICK
@given(st.lists(st.floats(-1e6, 1e6), min_size=9, max_size=9, unique=True))
def test_only_the_order_of_the_ranks_matters(ranks):
    table = ranked(9, 0, n_tokens=1)
    mine = table.drop("rank").with_columns(strength=pl.Series(sorted(ranks)))
    assert ns.assign_splits(mine, rank="strength")["split"].equals(ns.assign_splits(table)["split"])


def test_each_neuron_is_split_alone_by_whatever_keys():
    table = ranked(6, 5, neurons=(1, 2, 3))
    together = ns.assign_splits(table, n_per_split=1)
    alone = [ns.assign_splits(part, n_per_split=1) for part in table.partition_by("neuron")]
    assert_frame_equal(together, pl.concat(alone))
    renamed = table.rename({"neuron": "latent"}).drop("layer")
    by_latent = ns.assign_splits(renamed, by=["latent"], n_per_split=1)
    assert by_latent["split"].equals(together["split"])


def test_records_of_two_neurons_may_share_a_sequence_and_be_placed_apart():
    table = ranked(4, 0, neurons=(0, 1), n_tokens=1).with_columns(pl.col("sequence") % 100)
    table = table.with_columns(rank=pl.when(pl.col("neuron") == 1).then(-pl.col("rank")).otherwise("rank"))
    split = ns.assign_splits(table)
    order = ["train", "calibration", "valid", "test"]
    assert split.filter(neuron=0)["split"].to_list() == order
    assert split.filter(neuron=1)["split"].to_list() == order[::-1]


@pytest.mark.parametrize("n", [None, 2])
def test_eager_lazy_and_files_agree(n, tmp_path):
    table = ranked(9, 8)
    eager = ns.assign_splits(table, n_per_split=n)
    files = as_files(tmp_path, table)
    assert isinstance(eager, pl.DataFrame)
    for frame in (table.lazy(), files, tmp_path, str(tmp_path / "*.parquet")):
        lazy = ns.assign_splits(frame, n_per_split=n)
        assert isinstance(lazy, pl.LazyFrame)
        assert_frame_equal(lazy.collect(), eager)
    for frame in (table.to_arrow(), table.to_pandas()):
        assert_frame_equal(ns.assign_splits(frame, n_per_split=n), eager)


def test_a_split_that_was_there_is_replaced():
    table = ranked(4, 3)
    stale = table.with_columns(split=pl.lit("test"))
    assert_frame_equal(ns.assign_splits(stale), ns.assign_splits(table))


def test_the_result_is_a_valid_table_of_records():
    ns.validate(ns.assign_splits(ranked(9, 8)), "records")


@pytest.mark.parametrize("column", ["layer", "neuron", "sequence", "stratum", "rank"])
def test_a_missing_column_is_named(column):
    table = ranked(4, 3).drop(column)
    with refused("missing column", column=column, found=f"the columns are {', '.join(table.columns)}", mend=INTERLEAVE):
        ns.assign_splits(table)
    named = ranked(4, 3).rename({"rank": "place"})
    with refused("missing column", column="rank", found=f"the columns are {', '.join(named.columns)}", mend=INTERLEAVE):
        ns.assign_splits(named.lazy())


@pytest.mark.parametrize("rank", [3, None])
def test_two_records_of_one_rank_are_refused(rank, tmp_path):
    tied = ranked(6, 6).with_columns(
        rank=pl.when(pl.col("sequence").is_in([707, 709])).then(pl.lit(rank)).otherwise(pl.col("rank") + 10)
    )
    (file,) = as_files(tmp_path, tied, n_files=1)
    for frame, where in [(tied, "the frame"), (file, file)]:
        with refused(
            "repeated rank",
            where,
            column="rank",
            found=f"layer=0, neuron=7, stratum='random', rank={rank} is the rank of two records",
            mend="Expected another rank for each record of a stratum.",
        ):
            ns.assign_splits(frame)


@pytest.mark.parametrize("column", ["rank", "stratum"])
def test_a_rank_or_stratum_that_differs_within_a_record_is_refused(column):
    # each record would be in two splits at once, and each of its rows be there twice
    table = records(stratum=["top"] * 6, rank=[0, 0, 0, 1, 1, 1])
    other = {"rank": [0, 0, 2, 1, 1, 3], "stratum": ["top", "top", "random"] * 2}[column]
    with pytest.raises(ns.TableError, match=f"column '{column}'"):
        ns.assign_splits(table.with_columns(pl.Series(column, other)))
