"""Simulation: records and explanations in, the long table with `predicted` out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from simulation_tables import PROPERTY, explained, record, small_explanations, small_records, write_small_tables

import nscore as ns
from nscore.records import Status
from nscore.simulators import SIMULATORS, simulator

RECORD = ["sequence", "position", "token", "activation"]
PREDICTION = ["predicted", "status"]


@dataclass(frozen=True)
class Length:
    """A simulator as a user would write it: the length of the token; an empty one it refuses."""

    name: str = "length"

    def simulate(self, pairs, *, keys, train):
        assert keys
        assert train is None or train.collect()["split"].unique().to_list() in ([], ["train"])
        n = pl.col("token").cast(pl.String).str.len_chars().cast(pl.Float64)
        status = pl.when(n > 0).then(pl.lit("ok")).otherwise(pl.lit("refused"))
        return pairs.with_columns(pl.when(n > 0).then(n).alias("predicted"), status.alias("status"))


def records_of(counts):
    """Neuron i has counts[i] records, of one to three tokens."""
    return pl.concat(
        record(["a", "b", "c"][: 1 + s % 3], neuron=n, sequence=s) for n, count in counts.items() for s in range(count)
    )


def test_columns_are_the_keys_then_what_is_predicted_then_what_travels_along():
    records = small_records().with_columns(dataset=pl.lit("d"), layer_type=pl.lit("mlp")).select(pl.all().reverse())
    result = ns.simulate(records.select(reversed(records.columns)), small_explanations())
    first = ["layer", "neuron", "simulator", "explanation_id", *RECORD, *PREDICTION, "split", "stratum"]
    assert result.columns == [*first, "layer_type", "dataset", "shown"]


def test_without_splits_strata_and_shown_sequences_there_is_no_such_column():
    result = ns.simulate(record(["a"]), explained("x"))
    assert result.columns == ["layer", "neuron", "simulator", "explanation_id", *RECORD, *PREDICTION]


def test_further_columns_of_the_explanations_are_not_taken_over():
    told = explained("x").with_columns(author=pl.lit("me"), price=pl.lit(1.0))
    assert ns.simulate(record(["a"]), told).equals(ns.simulate(record(["a"]), explained("x")))


def test_rows_are_sorted_by_the_keys_the_sequence_and_the_position_whatever_their_order_was():
    records, explanations = small_records(), small_explanations()
    names = ["token_lookup", "constant", "lexical", "shuffled"]
    result = ns.simulate(records, explanations, simulator=names)
    assert result.equals(result.sort("layer", "neuron", "simulator", "explanation_id", "sequence", "position"))
    scattered = (frame.sample(fraction=1, shuffle=True, seed=3) for frame in (records, explanations))
    assert_frame_equal(ns.simulate(*scattered, simulator=names[::-1]), result)


@PROPERTY
@given(st.dictionaries(st.integers(0, 5), st.integers(1, 4)), st.dictionaries(st.integers(0, 5), st.integers(1, 3)))
def test_every_record_meets_every_explanation_of_its_neuron_and_no_other(n_records, n_explanations):
    both = sorted(n_records.keys() & n_explanations.keys())
    if not both:
        return
    explanations = pl.concat(explained(*["x"] * count, neuron=n) for n, count in n_explanations.items())
    result = ns.simulate(records_of(n_records), explanations, simulator=["constant", Length()])
    expected = [
        (n, name, e, s, p)
        for n in both
        for name in ("constant", "length")
        for e in "abc"[: n_explanations[n]]
        for s in range(n_records[n])
        for p in range(1 + s % 3)
    ]
    assert result.select("neuron", "simulator", "explanation_id", "sequence", "position").rows() == expected


def test_several_simulators_are_rows_of_one_table():
    names = ["constant", "lexical", "shuffled_token_lookup", "token_lookup"]
    together = ns.simulate(small_records(), small_explanations(), simulator=names)
    alone = [ns.simulate(small_records(), small_explanations(), simulator=name) for name in names]
    order = ["layer", "neuron", "simulator", "explanation_id", "sequence", "position"]
    assert_frame_equal(together, pl.concat(alone).sort(order))


def test_the_result_is_a_valid_simulated_table():
    result = ns.simulate(small_records(), small_explanations(), simulator=["lexical", "token_lookup", "shuffled"])
    ns.validate(result, "simulated")
    assert result.schema["predicted"] == pl.Float64
    assert set(result["status"]) <= set(get_args(Status))


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (None, {"calibration", "valid", "test"}),
        (["test"], {"test"}),
        (("train", "valid"), {"train", "valid"}),
    ],
)
@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["test", "valid", "train", "calibration"])])
def test_splits_say_what_is_simulated(splits, expected, dtype):
    records = small_records().with_columns(pl.col("split").cast(dtype))
    result = ns.simulate(records, small_explanations(), simulator="token_lookup", splits=splits)
    assert set(result["split"].cast(pl.String)) == expected
    assert result.height == records.filter(pl.col("split").cast(pl.String).is_in(expected)).height


def test_splits_are_a_table_error_where_there_are_none_or_the_name_is_unknown():
    with pytest.raises(ns.TableError, match="missing column"):
        ns.simulate(record(["a"]), explained("x"), splits=["test"])
    with pytest.raises(ns.TableError, match="'tets'"):
        ns.simulate(small_records(), small_explanations(), splits=["tets"])


def test_lazy_frames_and_paths_give_lazily_what_eager_frames_give(tmp_path):
    records, explanations = small_records(), small_explanations()
    write_small_tables(tmp_path)
    records.filter(pl.col("neuron") == 7).write_parquet(tmp_path / "part0.parquet")
    records.filter(pl.col("neuron") != 7).write_parquet(tmp_path / "part1.parquet")
    options = {"simulator": ["token_lookup", "shuffled_token_lookup", Length()]}
    expected = ns.simulate(records, explanations, **options)
    told = tmp_path / "explanations.parquet"
    for lazy in (records.lazy(), tmp_path / "records.parquet", str(tmp_path / "part*.parquet")):
        result = ns.simulate(lazy, told, **options)
        assert isinstance(result, pl.LazyFrame)
        assert_frame_equal(result.collect(), expected)
    assert_frame_equal(ns.simulate(records.to_arrow(), explanations.lazy(), **options), expected)


def test_keys_may_be_others_and_layers_strings():
    by = ["model", "layer", "neuron"]
    records = pl.concat(record(["red"], model=m, layer="blocks.0.mlp") for m in ("m", "n"))
    explanations = pl.concat(explained(text, model=m, layer="blocks.0.mlp") for m, text in (("m", "red"), ("n", "no")))
    result = ns.simulate(records, explanations, by=by, simulator=["lexical", "shuffled"])
    assert result.columns == [*by, "simulator", "explanation_id", *RECORD, *PREDICTION]
    assert result.select("model", "simulator", "predicted").rows() == [
        ("m", "lexical", 5.0),
        ("m", "shuffled", 0.0),
        ("n", "lexical", 0.0),
        ("n", "shuffled", 5.0),
    ]


def test_a_simulator_of_ones_own_is_given_as_it_is():
    assert isinstance(Length(), ns.Simulator)
    result = ns.simulate(record(["red", ""]), explained("x"), simulator=Length())
    assert result.select("simulator", *PREDICTION).rows() == [("length", 3.0, "ok"), ("length", None, "refused")]


def test_a_registered_simulator_is_found_by_name_and_has_its_control():
    name = "length_of_token"
    simulator(name)(lambda: Length(name))
    try:
        result = ns.simulate(small_records(), small_explanations(), simulator=[name, f"shuffled_{name}"])
        assert result["simulator"].unique().sort().to_list() == [name, f"shuffled_{name}"]
        with pytest.raises(ValueError, match="already"):
            simulator(name)(Length)
    finally:
        SIMULATORS._items.pop(name)  # noqa: SLF001  (the shelf forgets nothing otherwise)


def test_nothing_to_simulate_is_a_table_error_that_names_the_keys():
    with pytest.raises(ns.TableError, match="Compare the keys layer, neuron") as caught:
        ns.simulate(record(["a"]), explained("x", neuron=99))
    assert caught.value.problem == "nothing to simulate"
    with pytest.raises(ns.TableError, match="splits calibration, valid, test"):
        ns.simulate(small_records().filter(pl.col("split") == "train"), small_explanations())


def test_an_unknown_simulator_suggests_a_known_one():
    with pytest.raises(ns.UnknownNameError, match="Did you mean 'lexical'"):
        ns.simulate(record(["a"]), explained("x"), simulator="lexcal")


def test_no_simulator_at_all_is_a_value_error():
    with pytest.raises(ValueError, match="at least one"):
        ns.simulate(record(["a"]), explained("x"), simulator=[])


def test_a_record_that_the_author_was_shown_is_simulated_only_where_it_is_not_scored():
    shown = explained("x").with_columns(shown_sequences=pl.concat_list(pl.lit(1)))
    for records in (record(["a"]), record(["a"], split="test")):
        with pytest.raises(ns.LeakError, match="sequence=1"):
            ns.simulate(records, shown, simulator="constant")
        assert ns.simulate(records, shown, simulator="constant", leaks="allow")["shown"].to_list() == [True]
    both = pl.concat([record(["a"], split="calibration"), record(["a"], sequence=2, split="test")])
    assert ns.simulate(both, shown, simulator="constant").select("sequence", "shown").rows() == [(1, True), (2, False)]


def test_invalid_tables_are_table_errors():
    for records, told in [
        (record(["a"]).drop("token"), explained("x")),
        (record(["a", "b"]).filter(pl.col("position") == 1), explained("x")),
        (record(["a"], [float("nan")]), explained("x")),
        (record(["a"]), explained("x").drop("explanation_id")),
        (record(["a"]), explained(" ")),
        (record(["a"]), pl.concat([explained("x"), explained("y")])),
    ]:
        with pytest.raises(ns.TableError):
            ns.simulate(records, told)


def test_a_column_of_the_records_called_explanation_is_not_read_for_the_explanation():
    records = record(["red", "blue"]).with_columns(explanation=pl.lit("blue"))
    assert ns.simulate(records, explained("red"))["predicted"].to_list() == [5.0, 0.0]


@pytest.mark.parametrize(
    "left",
    [
        {"predicted": 9.0},
        {"predicted_raw": 9.0},
        {"status": "refused"},
        {"simulator": "other"},
        {"explanation_id": "z"},
        {"shown": True},
    ],
    ids=lambda left: next(iter(left)),
)
def test_what_an_earlier_simulation_left_in_the_records_is_replaced(left):
    records, names = small_records(), ["constant", "lexical"]
    expected = ns.simulate(records, small_explanations(), simulator=names)
    again = records.with_columns(**{column: pl.lit(value) for column, value in left.items()})
    assert_frame_equal(ns.simulate(again, small_explanations(), simulator=names), expected)
