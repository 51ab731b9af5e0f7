"""The original's three scores: cases by hand, numpy, edges to the bit, near constants, weights and invariances."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference import (
    FAR_BUT_WEIGHTLESS,
    NUMPY,
    SLACK,
    THOROUGH,
    TOLERANCE,
    assert_row,
    columns,
    exact,
    scores,
    tables,
    well_conditioned,
)

import nscore as ns

ORIGINAL = ["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"]
# what a mean of these leaves behind is a rounding error, unless it is looked for
AWKWARD = [0.1, 1 / 3, -0.7, 1e-100, 1.1e100, 123456.789]


def frame(t, p, **more):
    return pl.DataFrame({"activation": t, "predicted": p, **more}, strict=False)


def score(name, t, p):
    return scores(frame(t, p), [name])[name]


@pytest.mark.parametrize(
    ("name", "t", "p", "expected"),
    [
        ("ev_correlation_score", [0, 0, 2, 2], [1, 1, 5, 5], 1.0),
        ("ev_correlation_score", [0, 0, 2, 2], [5, 5, 1, 1], -1.0),
        ("ev_correlation_score", [0, 1, 2, 3], [0, 2, 1, 3], 0.8),
        ("ev_correlation_score", [1, 2, 1, 2], [1, 1, 2, 2], 0.0),
        ("rsquared_score", [1, 2, 3], [1, 2, 3], 1.0),
        ("rsquared_score", [1, 2, 3], [0, 0, 0], 0.0),
        ("rsquared_score", [1, 2, 3], [1, 2, 5], 10 / 14),
        ("rsquared_score", [1, 0], [3, 0], -3.0),
        ("absolute_dev_explained_score", [1, -2, 3], [1, -2, 3], 1.0),
        ("absolute_dev_explained_score", [1, -2, 3], [1, 0, 3], 4 / 6),
        ("absolute_dev_explained_score", [1, 0], [3, 0], -1.0),
    ],
)
def test_scores_are_what_a_hand_makes_them(name, t, p, expected):
    assert score(name, t, p) == pytest.approx(expected, abs=1e-15)


def test_rsquared_is_about_zero_and_not_about_the_mean():
    assert score("rsquared_score", [2, 4], [3, 3]) == pytest.approx(0.9)
    assert score("r2_about_mean", [2, 4], [3, 3]) == 0.0


@pytest.mark.parametrize("name", ORIGINAL)
@THOROUGH
@given(table=tables())
def test_scores_equal_the_originals(name, table):
    assert_row(scores(table, [name]), table)


@pytest.mark.parametrize("value", AWKWARD)
@pytest.mark.parametrize("n", [2, 3, 7, 64, 1000])
def test_correlation_is_zero_when_prediction_is_constant(value, n):
    t = np.random.default_rng(n).normal(size=n)
    assert score("ev_correlation_score", t, np.full(n, value)) == 0.0


@pytest.mark.parametrize("value", AWKWARD)
@pytest.mark.parametrize("n", [2, 3, 7, 64, 1000])
def test_correlation_is_zero_when_activation_is_constant(value, n):
    p = np.random.default_rng(n).normal(size=n)
    assert score("ev_correlation_score", np.full(n, value), p) == 0.0
    assert score("ev_correlation_score", np.full(n, value), np.full(n, value)) == 0.0


@pytest.mark.parametrize("value", AWKWARD)
def test_correlation_of_a_constant_is_zero_when_weighted(value):
    w = np.random.default_rng(0).uniform(0.1, 3, size=50)
    table = frame(np.arange(50), np.full(50, value), w=w)
    assert scores(table, ["ev_correlation_score"], "w")["ev_correlation_score"] == 0.0


def test_correlation_is_zero_when_a_column_is_constant_but_for_the_sign_of_zero():
    assert score("ev_correlation_score", [0.0, 1.0, 2.0], [0.0, -0.0, 0.0]) == 0.0


@pytest.mark.parametrize("value", AWKWARD)
def test_correlation_of_one_token_is_zero(value):
    assert score("ev_correlation_score", [value], [0.3]) == 0.0
    assert score("ev_correlation_score", [value, 1.0, None], [0.3, None, 2.0]) == 0.0


@pytest.mark.parametrize("name", ORIGINAL)
@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32, pl.Int64, pl.Null])
def test_scores_of_no_tokens_are_null(name, dtype):
    for t, p in ([], []), ([None, None], [None, None]):
        table = pl.DataFrame({"activation": t, "predicted": p}, schema={"activation": dtype, "predicted": dtype})
        assert scores(table, [name])[name] is None
    assert score(name, [1.0, None], [None, 2.0]) is None


@pytest.mark.parametrize("name", ["rsquared_score", "absolute_dev_explained_score"])
def test_explained_shares_are_minus_infinity_when_only_the_activation_is_zero(name):
    assert score(name, [0.0, 0.0], [0.0, 1e-100]) == -math.inf


@pytest.mark.parametrize("name", ["rsquared_score", "absolute_dev_explained_score"])
def test_explained_shares_are_nan_when_all_is_zero(name):
    assert math.isnan(score(name, [0.0, 0.0], [0.0, -0.0]))
    assert math.isnan(score(name, [0], [0]))


@THOROUGH
@given(t=columns(8, nulls=False))
def test_a_perfect_prediction_scores_one(t):
    t = t.cast(pl.Float64)
    constant, zero = t.n_unique() == 1, (t == 0).all()
    found = scores(frame(t, t), ORIGINAL)
    if not constant and t.min() != t.max():
        assert found["ev_correlation_score"] == pytest.approx(1.0, abs=SLACK)
    if not zero:
        assert found["rsquared_score"] == found["absolute_dev_explained_score"] == 1.0


@THOROUGH
@given(table=tables(min_size=2))
def test_correlation_is_never_outside_of_minus_one_and_one(table):
    r = scores(table, ["ev_correlation_score"])["ev_correlation_score"]
    assert r is None or -1 <= r <= 1


@pytest.mark.parametrize("name", ["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"])
@pytest.mark.parametrize(("base", "step"), [(1e8, 1e-7), (1e8, 1e-6), (1.0, 1e-15), (-3e50, 1e36), (7e-90, 1e-104)])
@pytest.mark.parametrize("n", [3, 10, 1000])
def test_on_near_constants_scores_are_no_farther_than_numpy_from_the_exact_value(name, base, step, n):
    rng = np.random.default_rng(n)
    t = base + step * rng.integers(0, 9, size=n)
    for p in base + step * rng.integers(0, 9, size=n), t + step * rng.integers(0, 3, size=n), rng.normal(size=n):
        assert not well_conditioned(t)
        truth = exact(name, t, p)
        ours, theirs = (abs(Fraction(x) - truth) for x in (score(name, t, p), NUMPY[name](t, p)))
        assert ours <= theirs + SLACK * max(1, abs(truth)), (float(ours), float(theirs))


@pytest.mark.parametrize("name", ORIGINAL)
@THOROUGH
@given(table=tables(weights=(1, 4)))
def test_whole_weights_equal_repeated_rows(name, table):
    assert_row(scores(table, [name], "w"), table)


@pytest.mark.parametrize("name", ORIGINAL)
@THOROUGH
@given(table=tables(weights=(0, 2)))
@example(table=FAR_BUT_WEIGHTLESS)
def test_a_weight_of_zero_takes_a_token_out(name, table):
    assert_row(scores(table, [name], "w"), table)


@pytest.mark.parametrize("name", ORIGINAL)
@THOROUGH
@given(table=tables(), weight=st.sampled_from([0.1, 1 / 3, 2.0, 1e3]))
def test_equal_weights_change_nothing(name, table, weight):
    assert_row(scores(table, [name], pl.lit(weight)), table)


@pytest.mark.parametrize("name", ORIGINAL)
@THOROUGH
@given(table=tables(), seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(name, table, seed):
    assert_row(scores(table.sample(fraction=1, shuffle=True, seed=seed), [name]), table)


whole = st.lists(st.tuples(st.integers(-500, 500), st.integers(-500, 500)), min_size=2, max_size=30)


@THOROUGH
@given(rows=whole, scale=st.sampled_from([0.5, 3, 1e30, 1e-30]), shift=st.integers(-1000, 1000))
def test_correlation_is_unchanged_by_positive_affine_maps_and_turned_by_negative_ones(rows, scale, shift):
    t, p = np.array(rows, dtype=float).T
    r = score("ev_correlation_score", t, p)
    assert score("ev_correlation_score", scale * (t + shift), p) == pytest.approx(r, abs=TOLERANCE)
    assert score("ev_correlation_score", t, scale * (p + shift)) == pytest.approx(r, abs=TOLERANCE)
    assert score("ev_correlation_score", t, -scale * (p + shift)) == pytest.approx(-r, abs=TOLERANCE)


@THOROUGH
@given(rows=whole)
def test_correlation_is_symmetric(rows):
    t, p = zip(*rows, strict=True)
    assert score("ev_correlation_score", t, p) == pytest.approx(score("ev_correlation_score", p, t), abs=1e-15)


@pytest.mark.parametrize("name", ORIGINAL)
def test_scores_take_names_and_expressions_and_give_float64_under_their_name(name):
    table = pl.DataFrame({"a": [0, 1, 4, 2], "b": [1, 1, 5, 2]}, schema={"a": pl.Float32, "b": pl.Int16})
    function = getattr(ns, name)
    found = table.select(function("a", "b"), other=function(pl.col("a"), pl.col("b").cast(pl.Float32)))
    assert found.schema == {name: pl.Float64, "other": pl.Float64}
    assert found[name].item() == found["other"].item()


@pytest.mark.parametrize("name", ORIGINAL)
def test_a_literal_is_a_constant_prediction(name):
    table = frame([0.0, 1.0, None, 4.0], [2.5] * 4)
    found = table.select(getattr(ns, name)("activation", pl.lit(2.5))).item()
    assert found == scores(table, [name])[name]
