"""The public API as a user would write it; mypy, in strict mode, checks it and nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import polars as pl

import nscore as ns
from nscore._tables.stores import StorePath


def in_a_group_by(df: pl.DataFrame, lf: pl.LazyFrame) -> None:
    """Metrics are expressions."""
    assert_type(ns.ev_correlation_score(), pl.Expr)
    assert_type(df.group_by("layer").agg(ns.ev_correlation_score(), ns.auroc(threshold=0.5)), pl.DataFrame)
    lf.select(ns.spearman("t", pl.col("p"), weight="w").over("layer"))


def stages(df: pl.DataFrame, lf: pl.LazyFrame, path: Path) -> None:
    """Eager in, eager out; scores are eager always."""
    assert_type(ns.calibrate(df), pl.DataFrame)
    assert_type(ns.calibrate(lf, "percentile", fit=pl.col("split") == "calibration"), pl.LazyFrame)
    assert_type(ns.simulate(df, path, simulator=["lexical", ns.TokenLookup()]), pl.DataFrame)
    assert_type(ns.simulate("records/*.parquet", df), pl.LazyFrame)
    assert_type(ns.assign_splits(df, n_per_split=5), pl.DataFrame)
    assert_type(ns.score(df, by=["layer", "neuron"], metrics=["pearson", ns.cosine()], strata=True), pl.DataFrame)
    assert_type(ns.score_sequences([path, path], on_failure="zero"), pl.DataFrame)
    assert_type(ns.pool("scores/*.parquet", weights="weight"), pl.DataFrame)
    assert_type(ns.fit_calibration(lf), pl.DataFrame)
    assert_type(ns.query(path, "SELECT * FROM scores", engine="duckdb"), pl.DataFrame)
    assert_type(ns.tables("run")["scores"], pl.LazyFrame)
    ns.validate(df, "records")
    ns.score(df.to_arrow())


def looking(df: pl.DataFrame, path: Path) -> None:
    """Pages, neurons, tables of scores."""
    assert_type(ns.report(path, out=path / "report.html", neurons=20, named=["0/134"]), Path | StorePath)
    assert_type(ns.report(ns.Run(path), scores=df, metric="pearson"), Path | StorePath)
    assert_type(ns.show(path, 0, 134, simulator="lexical").text(colours="256"), str)
    assert_type(ns.view(df, explanations=path), ns.View)


async def asking(df: pl.DataFrame, path: Path) -> None:
    """A model server: with a folder a run comes back, without one the frame."""
    server = ns.OpenAI(model="tiny", base_url="http://localhost:8000/v1")
    assert_type(ns.simulate(df, df, simulator="json_list", backend=server), pl.DataFrame)
    assert_type(ns.simulate(path, df, simulator=ns.AllAtOnce(), backend=ns.VLLM("tiny")), pl.LazyFrame)
    run = ns.simulate(df, df, simulator=[ns.JsonList(pack=10), "shuffled_json_list"], backend=server, out="run")
    assert_type(run, ns.Run)
    assert_type(run.requests(), pl.LazyFrame)
    assert_type(ns.estimate(df, df, simulator="tab_list", backend=server, price=(0.15, 0.6)).price, float | None)
    assert_type(ns.probe(server), ns.Capabilities)
    await ns.asimulate(df, df, simulator="json_list", backend=server, max_cost=5.0, price=ns.Price(0.15, 0.6))


@ns.metric(best=0.0, higher_is_better=False, decomposes=False)
def my_bias(activation: str = "activation", predicted: str = "predicted", *, weight: str | None = None) -> pl.Expr:
    """A metric of one's own."""
    del weight
    return (pl.col(predicted) - pl.col(activation)).mean()


def errors() -> None:
    """One base."""
    try:
        ns.validate("nowhere.parquet", "records")
    except ns.TableError as error:
        assert_type(error.column, str | None)
    except ns.NscoreError:
        raise


assert_type(my_bias(), pl.Expr)
sim: ns.Simulator = ns.Shuffled(ns.Lexical())
