"""What nscore adds to the original's scores: cases by hand, plain references, edges, weights and invariances."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import (
    BY_RANK,
    FAR_BUT_WEIGHTLESS,
    NUMPY,
    QUICK,
    SLACK,
    THOROUGH,
    TOLERANCE,
    assert_row,
    average_precision,
    both,
    columns,
    exact,
    scores,
    tables,
)
from reference import auroc as plain_auroc

import nscore as ns
from nscore.metrics import CATALOGUE, DEFAULT
from nscore.metrics._ranks import mass_below

OTHERS = [name for name in CATALOGUE if name not in DEFAULT]
MEASURED = [name for name in OTHERS if name != "coverage"]
# Weighted ranks are tried by themselves; the plan of a weighted spearman takes long to make, whatever the table.
WEIGHED = [name for name in OTHERS if name != "spearman"]


def score(name, t, p):
    return scores(pl.DataFrame({"activation": t, "predicted": p}, strict=False), [name])[name]


@pytest.mark.parametrize(
    ("name", "t", "p", "expected"),
    [
        ("pearson", [0, 1, 2, 3], [0, 2, 1, 3], 0.8),
        ("spearman", [1, 2, 30], [1, 40, 500], 1.0),
        ("spearman", [1, 2, 3], [3, 2, 1], -1.0),
        ("spearman", [1, 1, 2, 2], [1, 2, 3, 4], 4 / math.sqrt(4 * 5)),
        ("cosine", [3, 4], [4, 3], 0.96),
        ("cosine", [1, 0], [0, 1], 0.0),
        ("cosine", [2], [-5], -1.0),
        ("r2_about_mean", [1, 2, 3], [1, 2, 4], 0.5),
        ("r2_about_mean", [1, 2, 3], [2, 2, 2], 0.0),
        ("d2_absolute_error", [1, 2, 30], [1, 2, 20], 1 - 10 / 29),
        ("d2_absolute_error", [1, 2, 3, 10], [2, 2, 2, 2], 0.0),
        ("mean_squared_error", [1, 2], [1, 4], 2.0),
        ("mean_absolute_error", [1, 2], [2, -1], 2.0),
        ("auroc", [0, 0, 1, 2], [1, 3, 2, 4], 0.75),
        ("auroc", [0, 1], [7, 7], 0.5),
        ("auroc", [-1, 1], [1, 0], 0.0),
        ("average_precision", [0, 0, 1, 2], [1, 3, 2, 4], (1 + 2 / 3) / 2),
        ("average_precision", [0, 1, 0, 0], [7, 7, 7, 7], 0.25),
        ("coverage", [1, 2, None, 4], [1, None, 3, None], 0.5),
    ],
)
def test_metrics_are_what_a_hand_makes_them(name, t, p, expected):
    assert score(name, t, p) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", OTHERS)
@THOROUGH
@given(table=tables(min_size=1))
def test_metrics_equal_their_references(name, table):
    assert_row(scores(table, [name]), table)


@pytest.mark.parametrize("name", WEIGHED)
@THOROUGH
@given(table=tables(min_size=1, weights=(1, 4)))
def test_whole_weights_equal_repeated_rows(name, table):
    assert_row(scores(table, [name], "w"), table)


@pytest.mark.parametrize("name", WEIGHED)
@THOROUGH
@given(table=tables(min_size=1, weights=(0, 2)))
@example(table=FAR_BUT_WEIGHTLESS)
def test_a_weight_of_zero_takes_a_token_out(name, table):
    assert_row(scores(table, [name], "w"), table)


@pytest.mark.parametrize("name", WEIGHED)
@THOROUGH
@given(table=tables(min_size=1), weight=st.sampled_from([0.1, 1 / 3, 2.0, 1e3]))
def test_equal_weights_change_nothing(name, table, weight):
    assert_row(scores(table.with_columns(v=weight), [name], "v"), table)


@settings(THOROUGH, max_examples=3)
@given(table=tables(min_size=1, weights=(0, 3)))
def test_weighted_spearman_is_that_of_repeated_rows(table):
    assert_row(scores(table, ["spearman"], "w"), table)


@THOROUGH
@given(x=columns(20, nulls=False), w=st.lists(st.integers(0, 4), min_size=20, max_size=20))
def test_the_mass_below_is_the_mean_rank_less_a_half_among_repeated_rows(x, w):
    found = pl.select(mass_below(pl.lit(x.cast(pl.Float64)), pl.lit(pl.Series(w, dtype=pl.Float64)))).to_series()
    values = x.cast(pl.Float64).to_numpy()
    repeated = np.repeat(values, w)
    assert found.to_list() == [(repeated < v).sum() + (repeated == v).sum() / 2 for v in values]
    alone = pl.select(mass_below(pl.lit(x), None)).to_series()
    assert alone.to_list() == [(values < v).sum() + (values == v).sum() / 2 for v in values]


@pytest.mark.parametrize("name", OTHERS)
@QUICK
@given(table=tables(min_size=1), seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(name, table, seed):
    assert_row(scores(table.sample(fraction=1, shuffle=True, seed=seed), [name]), table)


@pytest.mark.parametrize("name", ["pearson", "cosine", "r2_about_mean", "d2_absolute_error", "mean_squared_error"])
@pytest.mark.parametrize(("base", "step"), [(1e8, 1e-7), (1.0, 1e-15), (-3e50, 1e36)])
@pytest.mark.parametrize("n", [3, 10, 1000])
def test_on_near_constants_metrics_are_no_farther_than_numpy_from_the_exact_value(name, base, step, n):
    rng = np.random.default_rng(n)
    t, p = base + step * rng.integers(0, 9, size=(2, n))
    truth = exact(name, t, p)
    ours, theirs = (abs(Fraction(x) - truth) for x in (score(name, t, p), NUMPY[name](t, p)))
    assert ours <= theirs + SLACK * max(1, abs(truth)), (float(ours), float(theirs))


@pytest.mark.parametrize("name", MEASURED)
def test_metrics_of_no_tokens_are_null(name):
    assert score(name, [], []) is None
    assert score(name, [None, None], [None, None]) is None
    assert score(name, [1.0, None], [None, 2.0]) is None


@pytest.mark.parametrize("name", ["pearson", "spearman", "r2_about_mean", "d2_absolute_error"])
def test_metrics_about_the_middle_of_a_constant_activation_are_null(name):
    for n in 1, 3, 1000:
        p = np.random.default_rng(n).normal(size=n)
        assert score(name, np.full(n, 0.1), p) is None


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlations_with_a_constant_prediction_are_null(name):
    for n in 1, 3, 1000:
        t = np.random.default_rng(n).normal(size=n)
        assert score(name, t, np.full(n, 0.1)) is None


def test_cosine_is_null_when_either_is_all_zero():
    assert score("cosine", [0.0, 0.0], [1.0, 2.0]) is None
    assert score("cosine", [1.0, 2.0], [0.0, -0.0]) is None


def test_ranking_metrics_are_null_without_both_classes():
    assert score("auroc", [1.0, 2.0], [1.0, 2.0]) is None
    assert score("auroc", [0.0, -2.0], [1.0, 2.0]) is None
    assert score("average_precision", [0.0, -2.0], [1.0, 2.0]) is None
    assert score("average_precision", [1.0, 2.0], [1.0, 2.0]) == 1.0


@pytest.mark.parametrize("name", BY_RANK)
def test_zeros_of_either_sign_are_tied(name):
    t = [0.0, -0.0, 1.0, 2.0, -0.0, 3.0]
    signed, plain = [0.0, -0.0, 0.0, -0.0, 5.0, -5.0], [0.0, 0.0, 0.0, 0.0, 5.0, -5.0]
    expected = score(name, np.abs(t), plain)
    assert score(name, t, signed) == expected
    table = pl.DataFrame({"activation": t, "predicted": signed, "w": [1.0] * 6})
    assert scores(table, [name], "w")[name] == pytest.approx(expected, abs=1e-15)


@THOROUGH
@given(table=tables(min_size=1), threshold=st.sampled_from([-1.0, 0.5, 3.0, 100.0]))
def test_the_threshold_says_which_tokens_are_active(table, threshold):
    found = table.select(ns.auroc(threshold=threshold), ns.average_precision(threshold=threshold)).row(0)
    for value, function in zip(found, (plain_auroc, average_precision), strict=True):
        expected = function(*both(table), threshold)
        assert value == (expected if expected is None else pytest.approx(expected, abs=TOLERANCE))


whole = st.lists(st.tuples(st.integers(-500, 500), st.integers(-500, 500)), min_size=2, max_size=30)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
@QUICK
@given(rows=whole, scale=st.sampled_from([0.5, 3, 1e30]), shift=st.integers(-1000, 1000))
def test_correlations_are_unchanged_by_positive_affine_maps_and_turned_by_negative_ones(name, rows, scale, shift):
    t, p = np.array(rows, dtype=float).T
    r = score(name, t, p)
    assert score(name, scale * (t + shift), p) == pytest.approx(r, abs=TOLERANCE)
    assert score(name, t, scale * (p + shift)) == pytest.approx(r, abs=TOLERANCE)
    assert score(name, t, -scale * (p + shift)) == pytest.approx(r and -r, abs=TOLERANCE)


@pytest.mark.parametrize("name", BY_RANK)
@QUICK
@given(rows=whole)
def test_rank_metrics_are_unchanged_by_an_increasing_map_of_the_prediction(name, rows):
    t, p = np.array(rows, dtype=float).T
    assert score(name, t, p**3 + p) == score(name, t, p)


@THOROUGH
@given(rows=whole)
def test_auroc_of_the_opposite_prediction_is_the_rest_to_one(rows):
    t, p = np.array(rows, dtype=float).T
    a, b = score("auroc", t, p), score("auroc", t, -p)
    assert (a is None and b is None) or a + b == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("scale", [1e6, 1e-6, 1e90])
def test_mean_squared_error_keeps_its_digits_where_the_prediction_is_about_the_activation(scale):
    t = scale * np.random.default_rng(3).normal(1, 0.3, size=1000)
    p = t * (1 + 1e-9 * np.random.default_rng(4).normal(size=1000))
    expected = NUMPY["mean_squared_error"](t, p)
    assert score("mean_squared_error", t, p) == pytest.approx(expected, rel=1e-13, abs=0)
    assert float(exact("mean_squared_error", t, p)) == pytest.approx(expected, rel=1e-13, abs=0)


def test_coverage_counts_predictions_whether_or_not_the_activation_is_known():
    assert score("coverage", [None, 1.0, None, 2.0], [1.0, None, 3.0, 4.0]) == 0.75
    assert score("coverage", [1.0, 2.0], [None, None]) == 0.0
    assert score("coverage", [], []) is None


def test_coverage_does_not_look_at_weights():
    table = pl.DataFrame({"activation": [1, 2, 3], "predicted": [1, None, 3], "w": [1, 100, 7]})
    assert scores(table, ["coverage"], "w")["coverage"] == 2 / 3


def test_coverage_of_a_literal_prediction_is_one():
    assert pl.DataFrame({"activation": [1, 2, 3]}).select(ns.coverage(predicted=pl.lit(0.0))).item() == 1.0


@pytest.mark.parametrize("name", OTHERS)
def test_metrics_take_names_and_expressions_and_give_float64_under_their_name(name):
    table = pl.DataFrame({"a": [0, 1, 4, 2], "b": [1, 1, 5, 2]}, schema={"a": pl.Float32, "b": pl.Int16})
    function = getattr(ns, name)
    found = table.select(function("a", "b"), other=function(pl.col("a"), pl.col("b").cast(pl.Float32)))
    assert found.schema == {name: pl.Float64, "other": pl.Float64}
    assert found[name].item() == found["other"].item()
