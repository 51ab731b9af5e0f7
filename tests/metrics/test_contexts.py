"""A metric is one expression: eager, lazy, streaming, select, over, group_by and a Python loop agree."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import QUICK, assert_row, expressions, tables

import nscore as ns
from nscore.metrics import CATALOGUE, Moments

ALL = list(CATALOGUE)
# The plan of a weighted spearman takes long to make; it has a test of its own below.
LIGHT = [name for name in ALL if name != "spearman"]


def frames(table, names, weight=None):
    """One frame of scores by group (`g`) for each way to ask for them."""
    exprs = expressions(names, weight)
    lazy = table.lazy()
    yield "group_by", table.group_by("g").agg(exprs)
    yield "in order", table.group_by("g", maintain_order=True).agg(exprs)
    yield "lazy", lazy.group_by("g").agg(exprs).collect()
    yield "streaming", lazy.group_by("g").agg(exprs).collect(engine="streaming")
    over = table.select("g", *(e.over("g") for e in exprs))
    assert over.height == table.height
    yield "over", over.unique()
    yield "lazy over", lazy.select("g", *(e.over("g") for e in exprs)).unique().collect(engine="streaming")
    parts = table.partition_by("g")
    yield "loop", pl.concat([part.select(pl.col("g").first(), *exprs) for part in parts])


def assert_same_everywhere(table, names, weight=None):
    """Every way gives one row a group, and each is the reference's."""
    parts = table.partition_by("g", as_dict=True)
    for way, found in frames(table, names, weight):
        assert sorted(found["g"]) == sorted(g for (g,) in parts), way
        assert found.columns == ["g", *names], way
        for row in found.rows(named=True):
            assert_row(row, parts[(row["g"],)])
    whole = [
        table.select(expressions(names, weight)),
        table.lazy().select(expressions(names, weight)).collect(),
        table.lazy().select(expressions(names, weight)).collect(engine="streaming"),
    ]
    for found in whole:
        assert_row(found.row(0, named=True), table)


@st.composite
def grouped(draw, weights=None, groups=6):
    """Groups of rows, shuffled."""
    parts = draw(st.lists(tables(min_size=1, max_size=8, weights=weights), min_size=1, max_size=groups))
    columns = pl.col("activation", "predicted").cast(pl.Float64)
    table = pl.concat([part.with_columns(columns, g=pl.lit(g)) for g, part in enumerate(parts)])
    return table.sample(fraction=1, shuffle=True, seed=draw(st.integers(0, 99)))


@QUICK
@given(table=grouped())
def test_every_context_gives_the_same_scores(table):
    assert_same_everywhere(table, LIGHT)


@settings(QUICK, max_examples=8)
@given(table=grouped(weights=(1, 3), groups=4))
def test_every_context_gives_the_same_weighted_scores(table):
    assert_same_everywhere(table, LIGHT, "w")


@settings(QUICK, max_examples=5)
@given(table=grouped())
def test_every_context_gives_the_same_spearman(table):
    assert_same_everywhere(table, ["spearman"])


def test_every_context_gives_the_same_weighted_spearman():
    rng = np.random.default_rng(1)
    t, p = rng.integers(0, 6, size=(2, 60))
    table = pl.DataFrame({"g": rng.integers(0, 5, 60), "activation": t, "predicted": p, "w": rng.integers(1, 4, 60)})
    parts = table.partition_by("g", as_dict=True)
    spearman = ns.spearman(weight="w")
    for found in (
        table.group_by("g").agg(spearman),
        table.lazy().group_by("g").agg(spearman).collect(engine="streaming"),
        table.select("g", spearman.over("g")).unique(),
    ):
        assert found.height == len(parts)
        for row in found.rows(named=True):
            assert_row(row, parts[(row["g"],)])


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_many_groups_equal_a_loop(engine):
    rng = np.random.default_rng(0)
    n = 12_000
    table = pl.DataFrame(
        {
            "g": rng.integers(0, 3_000, n),
            "activation": np.maximum(rng.normal(size=n) - 0.5, 0),
            "predicted": rng.integers(0, 11, n) / 10,
        }
    ).with_columns(pl.when(pl.lit(rng.random(n)) > 0.1).then("predicted"), pl.col("activation").cast(pl.Float32))
    found = table.lazy().group_by("g").agg(expressions()).collect(engine=engine)
    parts = table.partition_by("g", as_dict=True)
    assert found.height == len(parts)
    for row in found.rows(named=True):
        assert_row(row, parts[(row["g"],)])


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_a_group_without_a_token_to_score_has_null_scores(engine):
    table = pl.DataFrame(
        {
            "g": [1, 1, 2, 2, 3, 3],
            "activation": [1.0, 2.0, None, 3.0, 0.0, 5.0],
            "predicted": [None, None, 4.0, None, 0.5, 1.0],
            "w": [1.0, 2.0, 3.0, 1.0, 1.0, 1.0],
        }
    )
    for weight in None, "w":
        lazy = table.lazy().group_by("g", maintain_order=True).agg(expressions(LIGHT, weight))
        found = lazy.collect(engine=engine).sort("g")
        assert found["coverage"].to_list() == [0.0, 0.5, 1.0]
        nothing = found.drop("g", "coverage").head(2)
        assert nothing.equals(nothing.clear(2)), nothing


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_an_empty_table_has_a_null_score_and_no_groups(name, weight, engine):
    schema = {"g": pl.Int64, "activation": pl.Float32, "predicted": pl.Float32, "w": pl.Float64}
    table, scores = pl.LazyFrame(schema=schema), expressions([name], weight)
    assert table.select(scores).collect(engine=engine).rows() == [(None,)]
    found = table.group_by("g").agg(scores).collect(engine=engine)
    assert (found.height, found.schema[name]) == (0, pl.Float64)


def test_every_score_is_float64_in_every_context():
    table = pl.DataFrame({"g": [1, 1, 2, 2], "activation": [0, 1, 0, 3], "predicted": [1, 1, 0, 2]})
    for way, found in frames(table, ALL):
        assert set(found.drop("g").dtypes) == {pl.Float64}, way


def test_metrics_filter_and_combine_as_any_expression_does():
    table = pl.DataFrame({"g": [1, 1, 1, 2, 2, 2], "activation": [0, 1, 5, 0, 3, 1], "predicted": [1, 2, 6, 0, 2, 2]})
    found = table.group_by("g", maintain_order=True).agg(
        high=ns.mean_squared_error(
            pl.col("activation").filter(pl.col("activation") > 0), pl.col("predicted").filter(pl.col("activation") > 0)
        ),
        gap=ns.pearson() - ns.spearman(),
    )
    parts = [
        part.filter(pl.col("activation") > 0).select(ns.mean_squared_error()).item() for part in table.partition_by("g")
    ]
    assert found["high"].to_list() == parts
    assert found["gap"].is_finite().all()


@QUICK
@given(table=grouped(groups=4))
def test_moments_by_group_equal_those_of_each_part(table):
    named = Moments.of("activation", "predicted").named()
    for engine in "in-memory", "streaming":
        by_group = table.lazy().group_by("g").agg(named).collect(engine=engine)
        scored = by_group.select("g", *(m.from_moments() for m in CATALOGUE.values() if m.decomposes))
        for row in scored.rows(named=True):
            assert_row(row, table.filter(g=row["g"]))
