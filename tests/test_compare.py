"""Comparisons against numpy and by hand: differences, swaps, adjusted p-values, rankings, chance; what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tables import QUICK, refused, shuffles

import nscore as ns
from nscore._statistics.bounds import Draws

SCORE = "ev_correlation_score"
NEURON = ["layer", "neuron"]


def sequences(noise=1.0, n_records=6, n_neurons=3, seed=0, **columns):
    """Scores of predictions that are off by so much, of the same records for every noise."""
    n_tokens = 10
    n = n_records * n_neurons * n_tokens
    t = np.random.default_rng(9).normal(size=n)
    p = t + noise * np.random.default_rng(seed).normal(size=n)
    record = np.arange(n) // n_tokens
    keys = {"layer": 0, "neuron": record // n_records} | columns | {"sequence": record % n_records}
    return ns.score_sequences(pl.DataFrame(keys | {"activation": t, "predicted": p}))


def pooled(rows):
    """The score of records, each as often as it stands there."""
    return ns.pool(rows.with_columns(sequence=pl.int_range(pl.len())), metrics=[SCORE])[SCORE].item()


def test_difference_is_that_of_pool_and_its_interval_that_of_the_same_resamples():
    a, b = sequences(0.5, n_neurons=1), sequences(2.0, n_neurons=1, seed=1)
    found = ns.compare(a, b, method="percentile", resamples=150, seed=4, level=0.9)
    row = found.neurons.row(0, named=True)
    assert (row[f"{SCORE}_a"], row[f"{SCORE}_b"]) == (pooled(a), pooled(b))
    assert row[f"{SCORE}_difference"] == pooled(a) - pooled(b)
    off = []
    for weights in Draws.of((6,), 150, 4).resamples:
        drawn = np.repeat(np.arange(6), weights.astype(int))
        off.append(pooled(a[drawn]) - pooled(b[drawn]))
    edges = [row[f"{SCORE}_difference_low"], row[f"{SCORE}_difference_high"]]
    np.testing.assert_allclose(edges, np.quantile(off, [0.05, 0.95]), rtol=1e-9)


def test_p_value_is_the_share_of_all_swaps_that_differ_as_much():
    a, b = sequences(0.7, n_neurons=1), sequences(1.2, n_neurons=1, seed=1)
    seen, as_large = abs(pooled(a) - pooled(b)), 0
    for swap in itertools.product([False, True], repeat=6):
        one, two = (pl.concat([(x, y)[s][i] for i, s in enumerate(swap)]) for x, y in ((a, b), (b, a)))
        as_large += abs(pooled(one) - pooled(two)) >= seen * (1 - 1e-9)
    assert ns.compare(a, b).neurons[f"{SCORE}_p_value"].item() == as_large / 64
    assert 2 < as_large < 64


def test_p_value_of_many_records_is_drawn_and_agrees_with_the_other_side():
    a, b = sequences(0.5, n_records=30), sequences(0.9, n_records=30, seed=1)
    here, there = ns.compare(a, b).neurons, ns.compare(b, a).neurons
    assert_frame_equal(here.select(pl.col(f"{SCORE}_p_value")), there.select(pl.col(f"{SCORE}_p_value")))
    assert (here[f"{SCORE}_p_value"] == 0.001).all()  # the one way that was seen, of a thousand
    assert here[f"{SCORE}_difference"].to_list() == [-d for d in there[f"{SCORE}_difference"]]
    np.testing.assert_allclose(here[f"{SCORE}_difference_low"], -there[f"{SCORE}_difference_high"], rtol=1e-9)


def test_p_values_are_level_where_nothing_differs():
    # two sides of the same quality: no more than a tenth of 400 neurons may have p <= 0.1, but for chance
    a, b = sequences(1.0, n_neurons=400, n_records=8), sequences(1.0, n_neurons=400, n_records=8, seed=1)
    found = ns.compare(a, b, method="jackknife", metrics=[SCORE])
    p = found.neurons[f"{SCORE}_p_value"]
    assert 0.05 < (p <= 0.1).mean() < 0.13
    assert 0.42 < (p <= 0.5).mean() < 0.58
    assert found.summary["clear_wins"].item() + found.summary["clear_losses"].item() <= 1
    assert found.summary["mean_difference_low"].item() < 0 < found.summary["mean_difference_high"].item()


def test_q_values_are_those_worked_by_hand():
    # n = 5: 0.001 * 5 / 1, 0.01 * 5 / 2, 0.03 * 5 / 3, 0.04 * 5 / 4 and 0.6 * 5 / 5, none larger than a later one
    p = pl.Series("p", [0.03, 0.001, None, 0.6, 0.01, 0.04])
    expected = pl.Series("p", [0.05, 0.005, None, 0.6, 0.025, 0.05])
    assert_frame_equal(ns.q_values(p).to_frame(), expected.to_frame())
    assert ns.q_values(pl.Series([0.9, 0.8])).to_list() == [0.9, 0.9]
    assert ns.q_values(pl.Series([None, None], dtype=pl.Float64)).to_list() == [None, None]


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.01, 0.99))
def test_what_q_values_reject_is_what_the_step_up_procedure_rejects(p, level):
    order = sorted(p)
    largest = max((i for i, x in enumerate(order, start=1) if x * (len(p) / i) <= level), default=0)
    q = ns.q_values(pl.Series(p)).to_list()
    assert (
        sum(x <= level for x in q) == sum(x <= order[largest - 1] for x in p)
        if largest
        else not any(x <= level for x in q)
    )
    assert all(x >= y for x, y in zip(q, p, strict=True))


def test_wins_losses_and_ties_follow_the_direction_of_the_score():
    a, b = sequences(0.3), sequences(2.0, seed=1)
    mixed = pl.concat([a.filter(neuron=0), b.filter(neuron=1), a.filter(neuron=2)])
    other = pl.concat([b.filter(neuron=0), a.filter(neuron=1), a.filter(neuron=2)])
    found = ns.compare(mixed, other, metrics=[SCORE, "mean_squared_error"]).summary
    assert found.select("score", "wins", "losses", "ties", "n", "undefined").rows() == [
        (SCORE, 1, 1, 1, 3, 0),
        ("mean_squared_error", 1, 1, 1, 3, 0),
    ]
    better = ns.compare(a, b, metrics=["mean_squared_error"]).summary.row(0, named=True)
    assert (better["wins"], better["mean_difference"] < 0) == (3, True)


def test_summary_is_the_textbooks_over_neurons():
    a, b = sequences(1.0, n_neurons=5), sequences(1.5, n_neurons=5, seed=1)
    found = ns.compare(a, b, metrics=[SCORE])
    row, off = found.summary.row(0, named=True), found.neurons[f"{SCORE}_difference"].to_numpy()
    reach = 2.776445 * off.std(ddof=1) / 5**0.5
    assert row["mean_difference"] == pytest.approx(off.mean())
    assert row["mean_difference_low"] == pytest.approx(off.mean() - reach, rel=1e-6)
    assert row["mean_difference_high"] == pytest.approx(off.mean() + reach, rel=1e-6)
    ranks = [np.argsort(np.argsort(found.neurons[f"{SCORE}_{side}"])) for side in "ab"]
    assert row["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    one = ns.compare(a.filter(neuron=0), b.filter(neuron=0)).summary.row(0, named=True)
    assert (one["mean_difference_low"], one["spearman"]) == (None, None)


def test_the_correlations_of_two_calibrations_tie():
    a = sequences(1.0)
    scaled = ns.score_sequences(
        pl.DataFrame(
            {"layer": 0, "neuron": 7, "sequence": [1, 1, 2, 2], "activation": [0.1, 0.7, 0.3, 0.2]}
        ).with_columns(predicted=pl.Series([0.3, 0.9, 0.2, 0.1]))
    )
    other = scaled.with_columns(pl.col("predicted_mean") / 3 + 1, pl.col("predicted_m2") / 9, pl.col("comoment") / 3)
    assert ns.compare(scaled, other, metrics=[SCORE]).summary["ties"].item() == 1
    same = ns.compare(a, a)
    assert same.summary["ties"].to_list() == [3, 3, 3]
    assert same.neurons[f"{SCORE}_p_value"].to_list() == [1.0, 1.0, 1.0]


@QUICK
@given(st.data())
def test_order_of_rows_changes_nothing(data):
    a, b = sequences(0.5), sequences(2.0, seed=1)
    whole = ns.compare(a, b, resamples=40)
    found = ns.compare(data.draw(shuffles(a)), data.draw(shuffles(b)), resamples=40)
    assert_frame_equal(found.neurons, whole.neurons, check_exact=True)
    assert_frame_equal(found.summary, whole.summary, check_exact=True)


def test_only_what_both_sides_scored_is_compared():
    a, b = sequences(0.5), sequences(2.0, seed=1)
    part = b.filter((pl.col("neuron") > 0) & ~((pl.col("neuron") == 1) & (pl.col("sequence") == 3)))
    found = ns.compare(a.filter(pl.col("neuron") < 2), part)
    assert (found.only_a, found.only_b, found.unmatched_records) == (1, 1, 1)
    expected = ns.compare(a.filter((pl.col("neuron") == 1) & (pl.col("sequence") != 3)), b.filter(neuron=1))
    assert_frame_equal(found.neurons, expected.neurons)
    assert found.neurons["n_sequences"].to_list() == [5]


def test_two_simulators_or_explanations_of_one_table_are_compared():
    a, b = (sequences(x, seed=i, simulator=f"s{i}", explanation_id="e") for i, x in enumerate([0.5, 2.0]))
    both = pl.concat([a, b])
    expected = ns.compare(a, b)
    assert expected.neurons.columns[:3] == [*NEURON, "n_sequences"]
    found = ns.compare(both, simulators=("s0", "s1"))
    assert_frame_equal(found.neurons.drop("explanation_id", strict=False), expected.neurons)
    named = pl.concat([t.with_columns(explanation_id=t["simulator"], simulator=pl.lit("s")) for t in (a, b)])
    assert_frame_equal(ns.compare(named, explanation_ids=("s0", "s1")).neurons, expected.neurons)


def test_each_of_several_explanations_is_matched_with_its_like():
    tables = [
        pl.concat([sequences(noise * k, seed=i, explanation_id=f"e{k}") for k in (1, 2)])
        for i, noise in enumerate([0.5, 1.0])
    ]
    found = ns.compare(*tables)
    assert found.neurons.columns[:3] == [*NEURON, "explanation_id"]
    assert found.neurons.height == 6
    alone = ns.compare(*(t.filter(explanation_id="e2") for t in tables))
    kept = [f"{SCORE}_a", f"{SCORE}_b", f"{SCORE}_difference_low", f"{SCORE}_p_value"]
    assert_frame_equal(found.neurons.filter(explanation_id="e2").select(kept), alone.neurons.select(kept))


def test_folders_and_files_are_taken(tmp_path):
    a, b = sequences(0.5), sequences(2.0, seed=1)
    for name, table in (("a", a), ("b", b)):
        (tmp_path / name).mkdir()
        table.write_parquet(tmp_path / name / "sequence_scores.parquet")
        table.drop("on_failure").write_parquet(tmp_path / name / "scores.parquet")
    found = ns.compare(str(tmp_path / "a"), tmp_path / "b" / "sequence_scores.parquet")
    assert_frame_equal(found.neurons, ns.compare(a, b).neurons)


def test_keys_of_another_dtype_are_matched():
    a, b = sequences(0.5), sequences(2.0, seed=1)
    other = b.with_columns(pl.col("layer").cast(pl.UInt8), pl.col("neuron").cast(pl.Int16))
    assert_frame_equal(ns.compare(a, other).neurons, ns.compare(a, b).neurons)


def test_largest_are_the_farthest_apart():
    a, b = sequences(0.5, n_neurons=6), sequences(2.0, n_neurons=6, seed=1)
    found = ns.compare(a, b)
    order = sorted(found.neurons[f"{SCORE}_difference"].abs(), reverse=True)
    top = found.largest(n=4)
    assert top[f"{SCORE}_difference"].abs().to_list() == order[:4]
    assert top.columns[:4] == [*NEURON, "n_sequences", f"{SCORE}_a"]
    with pytest.raises(ns.UnknownNameError, match="compared score"):
        found.largest("pearson")


def test_nothing_in_common_is_told():
    a = sequences()
    with refused(
        "nothing to compare",
        "the frame and the frame",
        found="no record is in both by layer, neuron, sequence: the first has layer=0, neuron=0, sequence=0, ..., the "
        "second layer=9, neuron=0, sequence=0, ...",
        mend="Name the keys that both have with by=[...], or which simulators or explanations are compared.",
    ):
        ns.compare(a, a.with_columns(layer=pl.lit(9, pl.Int32)))


def test_several_explanations_of_one_neuron_are_told():
    twice = pl.concat([sequences(explanation_id=name) for name in "ab"])
    with refused(
        "several explanations of one neuron",
        found="the record layer=0, neuron=0, sequence=0 stands in 2 rows",
        mend="Name which are compared (simulators=, explanation_ids=; on the command line --simulators, --explanation-ids), "
        "or all keys with by=.",
    ):
        ns.compare(twice, sequences())


def test_other_records_of_the_same_name_are_told():
    a = sequences()
    with pytest.raises(ns.TableError, match="sequence=0 has 10 tokens in the one and 11 in the other"):
        ns.compare(a, a.with_columns(pl.col("n_tokens") + 1))


def test_what_is_not_there_to_compare_is_told():
    a = sequences(simulator="s0")
    with pytest.raises(ns.TableError, match="found 's0', expected 's1'"):
        ns.compare(a, simulators=("s0", "s1"))
    with pytest.raises(ns.TableError, match="explanation_id"):
        ns.compare(a, explanation_ids=("x", "y"))
    with pytest.raises(ns.SettingError, match="one table was given"):
        ns.compare(a)
    with pytest.raises(ns.PoolError, match="auroc does not decompose"):
        ns.compare(a, a, metrics=["auroc"])


def scores(**simulators):
    """A table of scores, so many for each simulator."""
    parts = [
        pl.DataFrame({"layer": 0, "neuron": range(len(x)), "simulator": name, "explanation_id": "e"}).with_columns(
            n_sequences=pl.lit(5), n_tokens=pl.lit(50), coverage=pl.lit(1.0), pearson=pl.Series(x, dtype=pl.Float64)
        )
        for name, x in simulators.items()
    ]
    return pl.concat(parts).with_columns(mean_squared_error=-pl.col("pearson"))


def test_chance_stands_beside_each_score():
    table = scores(lexical=[0.9, 0.2, None], shuffled=[0.1, 0.2, 0.3], s=[0.25, 0.0, 1.0], shuffled_s=[0.5, 0.5, None])
    found = ns.against_chance(table)
    assert found["simulator"].to_list() == ["lexical"] * 3 + ["s"] * 3
    assert found["pearson_chance"].to_list() == [0.1, 0.2, 0.3, 0.5, 0.5, None]
    above = [0.8, 0.0, None, -0.25, -0.5, None]
    assert found["pearson_above_chance"].to_list() == pytest.approx(above)
    assert found["pearson_percentile"].to_list() == [100.0, 50.0, None, 0.0, 0.0, 100.0]
    # an error is the other way round: the lower, the better
    assert found["mean_squared_error_percentile"].to_list() == found["pearson_percentile"].to_list()
    assert found["mean_squared_error_above_chance"].to_list() == pytest.approx(
        [None if x is None else -x for x in above]
    )
    one = ns.against_chance(table, metrics=["pearson"])
    assert "mean_squared_error_chance" not in one.columns


def test_controls_of_their_own_kind_are_in_the_middle_of_it():
    rng = np.random.default_rng(0)
    table = scores(lexical=rng.normal(size=500), shuffled=rng.normal(size=500))
    assert ns.against_chance(table)["pearson_percentile"].mean() == pytest.approx(50, abs=5)


def test_scores_of_one_stratum_have_their_chance_too():
    table = scores(lexical=[0.9, 0.2], shuffled=[0.1, 0.2]).with_columns(top_only_pearson=pl.col("pearson") / 2)
    assert ns.against_chance(table)["top_only_pearson_above_chance"].to_list() == pytest.approx([0.4, 0.0])


def test_a_simulator_without_control_keeps_its_rows():
    found = ns.against_chance(scores(lexical=[0.9], shuffled=[0.1], constant=[0.0]))
    assert found.filter(simulator="constant").select("pearson", "pearson_chance", "pearson_percentile").rows() == [
        (0.0, None, None)
    ]


def test_chance_says_what_is_missing():
    with pytest.raises(ns.TableError, match="no control: found 'lexical', and of none of them"):
        ns.against_chance(scores(lexical=[0.9]))
    with pytest.raises(
        ns.TableError, match="column 'cosine': no such score: the scores are pearson, mean_squared_error"
    ):
        ns.against_chance(scores(lexical=[0.9], shuffled=[0.1]), metrics=["cosine"])
    with pytest.raises(ns.TableError, match="two rows"):
        ns.against_chance(pl.concat([scores(lexical=[0.9], shuffled=[0.1]), scores(shuffled=[0.1])]))
    with pytest.raises(ns.TableError, match="simulator"):
        ns.against_chance(scores(lexical=[0.9]).drop("simulator"))


def test_chance_of_real_explanations_lies_below_them():
    simulated = ns.simulate(ns.sample.records(), ns.sample.explanations(), simulator=["lexical", "shuffled"])
    found = ns.against_chance(ns.score(simulated))
    assert found[f"{SCORE}_percentile"].mean() > 90
    assert found[f"{SCORE}_above_chance"].mean() > 0.2
