"""The walk over a table: it does not matter where batches are cut, in which order rows lie, how long records are."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tables import QUICK, scored, shuffles

import nscore as ns
from nscore._tables import runs as _runs
from nscore._tables.runs import boundaries, strictly_sorted

KEYS = ["layer", "neuron", "explanation_id", "sequence"]
COUNTS = ["n_tokens", "n_predicted", "n_scored", "coverage"]
SAME_LENGTHS = st.shared(st.integers(1, 9), key="length")


@contextmanager
def cut_at(places):
    """Within it, every table is read in batches that are cut before these rows."""

    def batches(frame):
        rows = frame.collect()
        ends = [*sorted(place for place in places if 0 < place < rows.height), rows.height]
        for start, end in zip([0, *ends], ends, strict=False):
            yield rows[start:end]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_runs, "_batches", batches)
        yield


places = st.sets(st.integers(1, 100))


def close(left, right):
    assert_frame_equal(left, right, rel_tol=1e-12, abs_tol=1e-12)


@QUICK
@given(scored(), places)
def test_scores_do_not_depend_on_where_batches_are_cut(table, cuts):
    whole = ns.score_sequences(table)
    with cut_at(cuts):
        assert ns.score_sequences(table).equals(whole)


@QUICK
@given(scored(SAME_LENGTHS, nulls=False), places)
def test_scores_of_records_of_one_length_do_not_depend_on_where_batches_are_cut(table, cuts):
    whole = ns.score_sequences(table)
    with cut_at(cuts):
        assert ns.score_sequences(table).equals(whole)


@QUICK
@given(scored(), places)
def test_keys_and_counts_do_not_depend_on_where_batches_are_cut(table, cuts):
    whole = ns.score_sequences(table, on_failure="zero")
    with cut_at(cuts):
        found = ns.score_sequences(table, on_failure="zero")
    assert found.select(*KEYS, "stratum", *COUNTS).equals(whole.select(*KEYS, "stratum", *COUNTS))
    close(found, whole)


@QUICK
@given(scored(), places)
def test_what_is_refused_does_not_depend_on_where_batches_are_cut(table, cuts):
    last = table.height - 1
    spoilt = table.with_columns(position=pl.when(pl.int_range(pl.len()) == last).then(50).otherwise("position"))
    with pytest.raises(ns.TableError) as whole:
        ns.score_sequences(spoilt)
    with cut_at(cuts), pytest.raises(ns.TableError) as found:
        ns.score_sequences(spoilt)
    assert str(found.value) == str(whole.value)
    assert found.value.where == f"the frame, row {last}"


@QUICK
@given(st.data(), scored(), places)
def test_shuffled_rows_give_the_same_scores_however_they_are_cut(data, table, cuts):
    shuffled = data.draw(shuffles(table))
    whole = ns.score_sequences(table)
    close(ns.score_sequences(shuffled), whole)
    with cut_at(cuts):
        close(ns.score_sequences(shuffled), whole)


@QUICK
@given(st.data(), scored(), places)
def test_no_position_is_needed(data, table, cuts):
    whole = ns.score_sequences(table)
    assert ns.score_sequences(table.drop("position")).equals(whole)
    with cut_at(cuts):
        close(ns.score_sequences(table.drop("position")), whole)
        close(ns.score_sequences(data.draw(shuffles(table)).drop("position")), whole)


@pytest.mark.parametrize("columns", [["position"], []])
def test_scattered_rows_are_scored_where_a_record_carries_nothing_but_its_keys(columns):
    table = pl.DataFrame(
        {
            "layer": 0,
            "neuron": 7,
            "sequence": [1, 2, 1, 2],
            "position": [0, 0, 1, 1],
            "activation": [1.0, 1.0, 3.0, 2.0],
            "predicted": [2.0, 3.0, 4.0, 1.0],
        }
    ).select("layer", "neuron", "sequence", *columns, "activation", "predicted")
    scores = ns.score_sequences(table)
    assert scores["sequence"].to_list() == [1, 2]
    assert scores["ev_correlation_score"].to_list() == pytest.approx([1.0, -1.0])
    close(scores, ns.score_sequences(table.sort("sequence", maintain_order=True)))


@pytest.mark.parametrize("cuts", [{1}, {5, 10, 15}, set(range(1, 40)), {39}, {20}])
def test_a_record_may_be_longer_than_a_batch(cuts):
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "layer": 0,
            "neuron": 7,
            "sequence": [1] * 5 + [2] * 30 + [3] * 5,
            "position": [*range(5), *range(30), *range(5)],
            "activation": rng.normal(size=40),
            "predicted": rng.normal(size=40),
        }
    )
    with cut_at(cuts):
        scores = ns.score_sequences(table)
    assert scores["n_tokens"].to_list() == [5, 30, 5]
    for i, (start, end) in enumerate([(0, 5), (5, 35), (35, 40)]):
        expected = np.corrcoef(table["activation"][start:end], table["predicted"][start:end])[0, 1]
        assert scores["ev_correlation_score"][i] == pytest.approx(expected, rel=1e-12)


def test_a_record_longer_than_the_blocks_of_the_engine_is_one_record():
    n = 3 * _runs.BLOCK_ROWS + 17
    rng = np.random.default_rng(1)
    t = rng.normal(size=n)
    table = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [0] + [1] * (n - 2) + [2], "activation": t})
    table = table.with_columns(
        predicted=pl.Series(t + rng.normal(size=n)), position=pl.int_range(pl.len()).over("sequence")
    )
    scores = ns.score_sequences(table.lazy())
    assert scores["n_tokens"].to_list() == [1, n - 2, 1]
    inner = table[1:-1]
    expected = np.corrcoef(inner["activation"], inner["predicted"])[0, 1]
    assert scores["ev_correlation_score"][1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("positions", [True, False])
def test_many_rows_without_any_order_are_sorted_first(positions):
    rng = np.random.default_rng(2)
    n = 6000
    table = pl.DataFrame(
        {
            "layer": 0,
            "neuron": np.arange(n) // 600,
            "sequence": np.arange(n) // 20 % 30,
            "position": np.arange(n) % 20,
            "split": "test",
            "activation": rng.normal(size=n),
            "predicted": rng.normal(size=n),
        }
    )
    whole = ns.score_sequences(table)
    assert whole.height == 300
    shuffled = table.sample(fraction=1, shuffle=True, seed=3)
    close(ns.score_sequences(shuffled if positions else shuffled.drop("position")), whole)


@pytest.mark.parametrize("cuts", [set(), {1}, {2, 4}])
def test_a_table_without_rows_has_no_scores(cuts):
    table = pl.DataFrame(
        schema={"layer": pl.Int32, "neuron": pl.Int32, "sequence": pl.Int32, "activation": pl.Float32}
    ).with_columns(predicted=pl.col("activation"), position=pl.col("sequence"))
    with cut_at(cuts):
        scores = ns.score_sequences(table)
    assert scores.height == 0
    assert scores.schema["ev_correlation_score"] == pl.Float64


columns = st.sampled_from(
    [
        st.none() | st.integers(-2, 2),
        st.none() | st.sampled_from(["", "a", "b"]),
        st.none() | st.booleans(),
        st.floats(-1, 1).map(lambda x: round(x, 0)),
    ]
)


@QUICK
@given(columns.flatmap(lambda values: st.lists(st.tuples(values, st.integers(0, 1)), max_size=12)))
@example([])
@example([(None, 0), (None, 0)])
def test_a_boundary_is_a_row_that_differs_from_the_one_before(rows):
    frame = pl.DataFrame({"a": [a for a, _ in rows], "b": [b for _, b in rows]})
    expected = [i == 0 or rows[i] != rows[i - 1] for i in range(len(rows))]
    assert boundaries(frame, ["a", "b"]).tolist() == expected
    assert boundaries(frame, []).tolist() == [i == 0 for i in range(len(rows))]


@QUICK
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from("abc")), max_size=6))
@example([(0, 0, "a"), (0, 0, "b"), (0, 1, "a"), (2, 0, "a")])
def test_rows_are_strictly_sorted_where_each_tuple_is_greater_than_the_one_before(rows):
    frame = pl.DataFrame(rows, schema={"a": pl.Int64, "b": pl.UInt8, "c": pl.String}, orient="row")
    expected = all(before < here for before, here in pairwise(rows))
    assert strictly_sorted(frame, ["a", "b", "c"]) == expected
