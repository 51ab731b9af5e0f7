"""Every question of the cookbook, asked of a run in both engines, against the same in Polars expressions."""

from __future__ import annotations

import polars as pl
import pytest
from asked_tables import ENGINES
from asking import answer, backend, explanations_of, records_of, serve
from polars.testing import assert_frame_equal

import nscore as ns
from nscore._sql.cookbook import cookbook

KEYS = ["layer", "neuron", "simulator", "explanation_id"]
RECIPES = {recipe.name: recipe for recipe in cookbook()}
SCORE = pl.col("ev_correlation_score")


def mute(messages):
    """The model of the other tests, which writes no JSON about the second record of a neuron, and is cut off once."""
    text = str(messages[-1]["content"])
    return "I had rather not." if "s1" in text or ("n2s3" in text and "words 2 1" in text) else answer(messages)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three neurons in two layers, two explanations each; a sixth of the records have no prediction. With prices."""
    out = tmp_path_factory.mktemp("cookbook") / "run"
    records = records_of(neurons=3, records=6, tokens=7).with_columns(layer=pl.col("neuron") // 2)
    # the third neuron fires rarely, and as the model says
    spoken = (pl.col("token") == "fox").cast(pl.Float64)
    records = records.with_columns(activation=pl.when(pl.col("neuron") == 2).then(spoken).otherwise("activation"))
    explanations = explanations_of(neurons=3, each=2).with_columns(layer=pl.col("neuron") // 2)
    with serve(answer=mute) as server:
        price = ns.Price(1.0, 2.0)
        ns.simulate(
            records, explanations, simulator="json_list", backend=backend(server), out=out, price=price, attempts=2
        )
    sequences = ns.score_sequences(out / "simulated.parquet")
    sequences.write_parquet(out / "sequence_scores.parquet")
    ns.pool(sequences).write_parquet(out / "scores.parquet")
    return out


def plain(folder):
    """The tables with NaN as null, as questions see them."""
    no_nan = pl.selectors.float().fill_nan(None)
    return {name: frame.with_columns(no_nan).collect() for name, frame in ns.tables(folder).items()}


def ranked(scores, **order):
    return scores.sort("ev_correlation_score", *KEYS, nulls_last=True, **order).head(10)


def top(t):
    best = ranked(t["scores"], descending=[True, False, False, False, False])
    return best.select(*KEYS, SCORE.alias("score"), "coverage")


def bottom(t):
    return ranked(t["scores"]).select(*KEYS, SCORE.alias("score"), "coverage")


def by_layer(t):
    told = (
        t["scores"]
        .group_by("layer", "simulator")
        .agg(
            explanations=pl.len(),
            mean_score=SCORE.mean(),
            median_score=SCORE.median(),
            coverage=pl.col("n_predicted").sum() / pl.col("n_tokens").sum(),
        )
    )
    return told.sort("layer", "simulator")


def best_of_each_neuron(t):
    neuron = KEYS[:3]
    order = [False, False, False, True, False]
    placed = t["scores"].sort(*neuron, SCORE, "explanation_id", descending=order, nulls_last=True)
    firsts = placed.group_by(neuron, maintain_order=True).agg(
        pl.col("explanation_id").first(), score=SCORE.first(), ahead=SCORE.first() - SCORE.get(1, null_on_oob=True)
    )
    return firsts.select(*KEYS, "score", "ahead")


def failures(t):
    counted = t["simulated"].group_by("status").agg(tokens=pl.len())
    return counted.with_columns(share=pl.col("tokens") / pl.col("tokens").sum()).sort(
        "tokens", "status", descending=[True, False]
    )


def failed_requests(t):
    told = (
        t["requests"]
        .group_by("status", "http_status")
        .agg(
            requests=pl.len(),
            attempts=pl.col("attempts").sum(),
            price=pl.when(pl.col("price").count() > 0).then(pl.col("price").sum()),
            median_latency_s=pl.col("latency_s").median(),
        )
    )
    order = [True, False, False]
    return told.sort("requests", "status", "http_status", descending=order, nulls_last=True)


def hard_tokens(t):
    error = (pl.col("activation") - pl.col("predicted")).abs()
    told = (
        t["simulated"]
        .filter(pl.col("predicted").is_not_null())
        .group_by("token")
        .agg(
            n=pl.len(), activation=pl.col("activation").mean(), predicted=pl.col("predicted").mean(), error=error.mean()
        )
    )
    return told.filter(pl.col("n") >= 3).sort("error", "token", descending=[True, False], nulls_last=True).head(20)


def density(t):
    told = t["simulated"].group_by(KEYS).agg(density=(pl.col("activation") > 0).mean()).join(t["scores"], on=KEYS)
    bins = told.group_by((10 * pl.col("density")).floor().truediv(10).alias("density_from"))
    return bins.agg(explanations=pl.len(), mean_score=SCORE.mean()).sort("density_from")


def cost(t):
    paid = t["requests"].group_by(KEYS).agg(price=pl.col("price").sum(), requests=pl.len())
    bins = t["scores"].join(paid, on=KEYS).group_by((5 * SCORE).floor().truediv(5).alias("score_from"))
    told = bins.agg(explanations=pl.len(), requests=pl.col("requests").sum(), price=pl.col("price").sum())
    return told.sort("score_from", nulls_last=True)


def misses(t):
    missed = t["sequence_scores"].filter(SCORE < 0.2, pl.col("activation_mean") > 0)
    order = [True, *[False] * 5]
    columns = [*KEYS, "sequence", "activation_mean", "predicted_mean", SCORE.alias("score")]
    return missed.sort("activation_mean", *KEYS, "sequence", descending=order).select(columns).head(20)


def coverage(t):
    columns = [*KEYS, "n_tokens", "n_predicted", "coverage", SCORE.alias("score")]
    return t["scores"].filter("low_coverage").sort("coverage", *KEYS).select(columns)


EXPECTED = {
    told.__name__: told
    for told in (
        *(by_layer, top, bottom, best_of_each_neuron, failures, failed_requests),
        *(hard_tokens, density, cost, misses, coverage),
    )
}


def test_each_recipe_has_a_name_a_question_and_one_statement():
    assert list(RECIPES) == list(EXPECTED)
    assert len(cookbook()) == len(RECIPES)
    for recipe in cookbook():
        assert recipe.question.rstrip(")").endswith(("?", "0"))
        assert ";" not in recipe.sql
        assert str(recipe).splitlines()[0].startswith(f"-- {recipe.name}: ")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_gives_what_polars_expressions_give(run, name, engine):
    answer = ns.query(run, RECIPES[name].sql, engine=engine)
    assert answer.height, "a question that finds nothing shows nothing"
    assert_frame_equal(answer, EXPECTED[name](plain(run)), check_dtypes=False, rel_tol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_run_has_prices_failures_and_misses_worked_by_hand(run, engine):
    def ask(name):
        return ns.query(run, RECIPES[name].sql, engine=engine)

    # 3 neurons with 6 records of 7 tokens, 2 explanations: 252 tokens; one record of each neuron, and one more once
    assert ask("failures").rows() == [("ok", 203, 203 / 252), ("length_mismatch", 49, 49 / 252)]
    requests = ask("failed_requests")
    assert requests["requests"].to_list() == [29, 7]
    assert requests["price"].min() > 0
    assert ask("cost")["price"].sum() == pytest.approx(requests["price"].sum())
    assert ask("coverage")["coverage"].round(9).to_list() == [round(4 / 6, 9), *[round(5 / 6, 9)] * 5]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    simulated = ns.simulate(ns.sample.records(), ns.sample.explanations(), simulator=["lexical", "constant"])
    sequences = ns.score_sequences(simulated)
    for name, frame in {"simulated": simulated, "sequence_scores": sequences, "scores": ns.pool(sequences)}.items():
        frame.write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["by_layer", "top", "bottom", "best_of_each_neuron", "density", "misses"])
def test_recipe_answers_on_the_sample(sample, name, engine):
    answer = ns.query(sample, RECIPES[name].sql, engine=engine)
    assert answer.height
    assert_frame_equal(answer, EXPECTED[name](plain(sample)), check_dtypes=False, rel_tol=1e-9)
