"""The moments: against fractions, merged against the whole, and the numpy forms against the expressions."""

from __future__ import annotations

from fractions import Fraction
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference import QUICK, THOROUGH, assert_row, both, tables

import nscore as ns
from nscore._tables import fused as _fused
from nscore.metrics import CATALOGUE, MOMENTS, Moments

COUNTS, MEANS = MOMENTS[:3], ["activation_mean", "predicted_mean"]
SQUARES = ["activation_m2", "predicted_m2", "comoment"]
DECOMPOSING = [m.name for m in CATALOGUE.values() if m.decomposes]


def of(table, weight=None):
    return table.select(Moments.of("activation", "predicted", weight).named()).row(0, named=True)


def exact(t, p):
    """The moments after the counts as fractions, of at least one token."""
    t, p = [Fraction(float(v)) for v in t], [Fraction(float(v)) for v in p]
    n = len(t)
    t_mean, p_mean = sum(t) / n, sum(p) / n
    pairs = list(zip(t, p, strict=True))
    return {
        "activation_mean": t_mean,
        "predicted_mean": p_mean,
        "activation_m2": sum((a - t_mean) ** 2 for a in t),
        "predicted_m2": sum((b - p_mean) ** 2 for b in p),
        "comoment": sum((a - t_mean) * (b - p_mean) for a, b in pairs),
        "activation_abs_sum": sum(map(abs, t)),
        "abs_error_sum": sum(abs(a - b) for a, b in pairs),
        "squared_error_sum": sum((a - b) ** 2 for a, b in pairs),
    }


def assert_moments(found, t, p, *, seams=False):
    """Means to the last digits of the largest value, sums to 1e-12, and a constant to the bit.

    With `seams` the moments were merged from pieces whose means had been rounded: by that much, and no more, the
    centred moments may also be off.
    """
    if not len(t):
        assert all(found[name] in (None, 0) for name in MOMENTS[5:]), found  # a mean of nothing may be anything
        return
    truth = exact(t, p)
    sizes = {"activation": Fraction(np.abs(t).max()), "predicted": Fraction(np.abs(p).max())}
    allowed = {name: Fraction(1e-12) * abs(value) for name, value in truth.items()}
    allowed |= {f"{column}_mean": Fraction(1e-15) * size * 4 for column, size in sizes.items()}
    t_m2, p_m2 = (float(truth[f"{column}_m2"]) ** 0.5 for column in sizes)
    allowed["comoment"] = Fraction(1e-12) * Fraction(t_m2) * Fraction(p_m2)
    if seams:
        t_off, p_off = (float(size) * 2.0**-50 * len(t) ** 0.5 for size in sizes.values())
        allowed["activation_m2"] += Fraction(2 * t_m2 * t_off) + Fraction(t_off) ** 2
        allowed["predicted_m2"] += Fraction(2 * p_m2 * p_off) + Fraction(p_off) ** 2
        allowed["comoment"] += Fraction(t_m2 * p_off + p_m2 * t_off) + Fraction(t_off) * Fraction(p_off)
    for name, value in truth.items():
        assert abs(Fraction(found[name]) - value) <= allowed[name], (name, found[name], float(value))
    for column, x in ("activation", t), ("predicted", p):
        if x.min() == x.max():
            assert (found[f"{column}_mean"], found[f"{column}_m2"], found["comoment"]) == (x[0], 0.0, 0.0)


@THOROUGH
@given(table=tables())
def test_moments_are_those_of_the_tokens_with_both(table):
    found, (t, p) = of(table), both(table)
    assert_moments(found, t, p)
    assert [found[c] for c in COUNTS] == [table.height, table["predicted"].count(), len(t)]


@THOROUGH
@given(table=tables(weights=(1, 4)))
def test_whole_weights_equal_repeated_rows(table):
    found, (t, p) = of(table, "w"), both(table)
    assert_moments(found, t, p)
    assert [found[c] for c in COUNTS] == [table.height, table["predicted"].count(), len(t)]


@THOROUGH
@given(table=tables(weights=(0, 2)))
def test_a_weight_of_zero_takes_a_token_out(table):
    assert_moments(of(table, "w"), *both(table))


def test_moments_worked_by_hand():
    table = pl.DataFrame({"activation": [1, 2, 6, None], "predicted": [0, 4, 5, 1]})
    expected = [4, 4, 3, 3.0, 3.0, 14.0, 14.0, 11.0, 9.0, 4.0, 6.0]
    assert of(table) == pytest.approx(dict(zip(MOMENTS, expected, strict=True)), rel=1e-15)


def test_a_literal_prediction_counts_for_every_token():
    table = pl.DataFrame({"activation": [1.0, 2.0, None]})
    found = table.select(Moments.of("activation", pl.lit(0.5)).named()).row(0, named=True)
    assert [found[c] for c in COUNTS] == [3, 3, 2]


@THOROUGH
@given(table=tables(max_size=40), cuts=st.integers(1, 8), seed=st.integers(0, 99))
def test_merged_moments_equal_those_of_the_whole(table, cuts, seed):
    piece = pl.Series(np.random.default_rng(seed).integers(0, cuts, table.height), dtype=pl.Int64)
    pieces = table.group_by(piece.alias("piece")).agg(Moments.of("activation", "predicted").named())
    found, (t, p) = pieces.select(Moments.merged().named()).row(0, named=True), both(table)
    assert_moments(found, t, p, seams=True)
    assert [found[c] for c in COUNTS] == [table.height, table["predicted"].count(), len(t)]


@THOROUGH
@given(parts=st.lists(tables(max_size=8), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_pieces_merged_by_weight_equal_repeated_pieces(parts, seed):
    w = np.random.default_rng(seed).integers(1, 4, len(parts))
    pieces = pl.DataFrame([of(part) for part in parts]).with_columns(w=w)
    found = pieces.select(Moments.merged("w").named()).row(0, named=True)
    columns = zip(*(map(np.tile, both(part), (n, n)) for part, n in zip(parts, w, strict=True)), strict=True)
    assert_moments(found, *map(np.concatenate, columns), seams=True)


@THOROUGH
@given(parts=st.lists(tables(max_size=8), min_size=1, max_size=5), out=st.integers(0, 4))
@example(
    parts=[pl.DataFrame({"activation": [t], "predicted": [p]}) for t, p in [(-1e9, -1e9), (0.1, 0.2), (0.3, 0.9)]],
    out=0,
)
def test_a_piece_of_weight_zero_is_left_out(parts, out):
    pieces = pl.DataFrame([of(part) for part in parts]).with_columns(w=pl.int_range(pl.len()) != out)
    found = pieces.select(Moments.merged("w").named()).row(0, named=True)
    columns = [both(part) for i, part in enumerate(parts) if i != out] or [(np.zeros(0), np.zeros(0))]
    assert_moments(found, *map(np.concatenate, zip(*columns, strict=True)), seams=True)


@pytest.mark.parametrize("value", [0.1, -1 / 3, 1e8 + 0.1])
def test_constants_stay_constant_through_every_merge(value):
    rng = np.random.default_rng(5)
    table = pl.DataFrame({"activation": np.full(999, value), "predicted": rng.normal(size=999)})
    moments = Moments.of("activation", "predicted")
    for pieces in 300, 30, 4, 1:
        piece = pl.Series("piece", rng.integers(0, pieces, table.height))
        table = table.group_by(piece).agg(moments.named()).drop("piece")
        moments = Moments.merged()
    assert table.select("activation_mean", "activation_m2", "comoment").row(0) == (value, 0.0, 0.0)
    assert table.select(ns.ev_correlation_score(Moments.stored())).item() == 0.0


@pytest.mark.parametrize("name", DECOMPOSING)
@QUICK
@given(table=tables(min_size=1))
def test_scores_from_stored_moments_equal_those_from_tokens(name, table):
    stored = table.select(Moments.of("activation", "predicted").named())
    assert_row(stored.select(CATALOGUE[name].from_moments()).row(0, named=True), table)


@QUICK
@given(table=tables(min_size=1, weights=(1, 3)))
def test_scores_from_moments_known_already_equal_those_from_tokens(table):
    known = Moments.of("activation", "predicted", "w")
    assert_row(table.select(CATALOGUE[name].function(known) for name in DECOMPOSING).row(0, named=True), table)


def expressed(frame, expressions):
    """The moments after the counts of each run, by the expressions: rows moments, columns runs."""
    return frame.group_by("run", maintain_order=True).agg(expressions.named()).select(MOMENTS[3:])


@pytest.mark.parametrize("block", [3, 16, _fused.BLOCK_ROWS])
@pytest.mark.parametrize("even", [True, False])
@QUICK
@given(data=st.data())
def test_moments_of_runs_are_those_of_the_expressions(block, even, data):
    size = data.draw(st.integers(1, 9))
    size = {"min_size": size, "max_size": size} if even else {"min_size": 1, "max_size": 9}
    parts = data.draw(st.lists(tables(**size, nulls=False), min_size=1, max_size=6))
    runs = [both(part) for part in parts]
    starts = np.cumsum([0, *(len(t) for t, _ in runs[:-1])])
    with patch.object(_fused, "BLOCK_ROWS", block):
        found = _fused.moments_of_runs(*map(np.concatenate, zip(*runs, strict=True)), starts)
    for column, (t, p), part in zip(found.T, runs, parts, strict=True):
        fused, polars = dict(zip(MOMENTS[3:], column, strict=True)), of(part)
        assert_moments(fused, t, p)
        assert_moments(polars, t, p)


@pytest.mark.parametrize("block", [64, _fused.BLOCK_ROWS])
@pytest.mark.parametrize("lengths", [[200_000, 5, 1, 140_000], [100] * 2000, [1, 2, 3, 500] * 20, [1] * 50, []])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
def test_long_and_many_runs_are_those_of_the_expressions(block, lengths, dtype):
    run = np.repeat(np.arange(len(lengths)), lengths)
    rng = np.random.default_rng(len(lengths))
    t = np.where(run % 3 == 1, 7.3, rng.normal(5, 3, len(run))).astype(dtype)
    p = np.where(run % 4 == 2, 0.1, rng.normal(0, 30, len(run)) + t).astype(dtype)
    starts = np.cumsum(lengths, dtype=np.intp) - np.array(lengths, dtype=np.intp)
    with patch.object(_fused, "BLOCK_ROWS", block):
        found = _fused.moments_of_runs(t, p, starts)
    frame = pl.DataFrame({"run": run, "activation": t, "predicted": p})
    expected = expressed(frame, Moments.of("activation", "predicted")).to_numpy().T
    # a comoment is a sum of both signs: it is measured against the two spreads
    scale = np.where(np.arange(8)[:, None] == 4, np.sqrt(expected[2] * expected[3]), np.abs(expected))
    scale[:2] = np.abs(expected[5] + expected[6])
    assert (np.abs(found - expected) <= 1e-12 * scale).all()
    constant = expected[2:4] == 0
    assert (found[2:4][constant] == 0).all()
    assert (found[:2][constant] == expected[:2][constant]).all()


@pytest.mark.parametrize("weighted", [False, True])
@QUICK
@given(groups=st.lists(st.lists(tables(min_size=1, max_size=6, nulls=False), min_size=1, max_size=4), max_size=4))
def test_moments_of_merged_runs_are_those_of_the_expressions(weighted, groups):
    rows = [{"run": i, **of(part)} for i, group in enumerate(groups) for part in group]
    table = pl.DataFrame(rows, schema=["run", *MOMENTS]).with_columns(w=pl.int_range(pl.len()) % 3 + 1.0)
    w = table["w"].to_numpy() if weighted else None
    mass = table["n_scored"].cast(pl.Float64).to_numpy() * (1 if w is None else w)
    starts = np.flatnonzero(np.diff(table["run"].cast(pl.Int64).to_numpy(), prepend=-1))
    columns = [table[c].cast(pl.Float64).to_numpy() for c in MOMENTS[3:]]
    found = _fused.moments_of_merged_runs(columns, mass, w, starts) if rows else np.empty((8, 0))
    polars = expressed(table, Moments.merged("w" if weighted else None)).rows(named=True)
    often = iter(table["w"].cast(int).to_list())
    for fused, expected, group in zip(found.T, polars, groups, strict=True):
        repeated = [both(part) for part in group for _ in range(next(often) if weighted else 1)]
        t, p = map(np.concatenate, zip(*repeated, strict=True))
        assert_moments(dict(zip(MOMENTS[3:], fused, strict=True)), t, p, seams=True)
        assert_moments(expected, t, p, seams=True)
