"""The best explanation of each neuron: by which bound, on which split, and what the choice was worth."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tables import QUICK, refused, shuffles

import nscore as ns

SCORE = "ev_correlation_score"
KEYS = ["layer", "neuron", "explanation_id"]


def candidates(noises, n_neurons=2, n_records=12, seed=0):
    """Scores of one explanation for each noise; half of the records are for choosing."""
    rng = np.random.default_rng(seed)
    n_tokens = 8
    n = n_neurons * n_records * n_tokens
    t = rng.normal(size=n)
    record = np.arange(n) // n_tokens
    keys = {"layer": 0, "neuron": record // n_records, "sequence": record % n_records, "activation": t}
    frame = pl.DataFrame(keys).with_columns(
        split=pl.when(pl.col("sequence") % 2 == 0).then(pl.lit("valid")).otherwise(pl.lit("test"))
    )
    parts = [
        frame.with_columns(explanation_id=pl.lit(name), predicted=pl.Series(t + noise * rng.normal(size=n)))
        for name, noise in noises.items()
    ]
    return ns.score_sequences(pl.concat(parts))


def bounds(table, split, level=0.95, **options):
    return ns.intervals(table.filter(split=split), metrics=[SCORE], by=KEYS, level=level, **options)


def test_the_highest_lower_bound_on_valid_is_chosen_and_told_on_test():
    table = candidates({"a": 1.5, "b": 0.5, "c": 3.0}, n_neurons=5)
    found = ns.best(table, level=0.9)
    valid, test = bounds(table, "valid", 0.8), bounds(table, "test", 0.9)
    for row in found.iter_rows(named=True):
        here = valid.filter(neuron=row["neuron"]).sort(f"{SCORE}_low", descending=True).row(0, named=True)
        there = test.filter(neuron=row["neuron"], explanation_id=here["explanation_id"]).row(0, named=True)
        assert row["explanation_id"] == here["explanation_id"] == "b"
        assert (row[f"{SCORE}_valid"], row[f"{SCORE}_valid_bound"]) == (here[SCORE], here[f"{SCORE}_low"])
        assert row[f"{SCORE}_test"] == there[SCORE]
        assert (row[f"{SCORE}_test_low"], row[f"{SCORE}_test_high"]) == (there[f"{SCORE}_low"], there[f"{SCORE}_high"])
        assert row[f"{SCORE}_drop"] == here[SCORE] - there[SCORE]
        mean = test.filter(neuron=row["neuron"])[SCORE].mean()
        assert row[f"{SCORE}_test_mean"] == pytest.approx(mean)
        assert (row["n_candidates"], row["chosen_by"]) == (3, "bound")


def test_scores_of_the_other_split_have_no_say():
    table = candidates({"a": 1.0, "b": 1.1})
    moments = ["comoment", "activation_m2", "predicted_m2"]
    other = table.with_columns(pl.when(pl.col("split") == "test").then(0.0).otherwise(c).alias(c) for c in moments)
    assert_frame_equal(ns.best(table).select(KEYS), ns.best(other).select(KEYS))


def test_a_sure_score_is_chosen_before_a_higher_one_that_one_record_makes():
    rng = np.random.default_rng(0)
    rows = []
    for name, offs in {"lucky": [0.01] * 3 + [4.0] * 3, "steady": [2.0] * 6}.items():
        for i, off in enumerate(offs * 2):
            e = rng.choice([-1.0, 1.0], 20) * off
            rows.append(
                pl.DataFrame(
                    {"explanation_id": name, "sequence": i, "split": "valid" if i < 6 else "test"}
                ).with_columns(activation=pl.Series([np.zeros(20)]), predicted=pl.Series([e]))
            )
    table = ns.score_sequences(pl.concat(rows).explode("activation", "predicted").with_columns(layer=0, neuron=7))
    # mean absolute errors: 2.005 and 2.0; the bounds tell them apart by far
    found = ns.best(table, metric="mean_absolute_error", method="jackknife").row(0, named=True)
    assert found["explanation_id"] == "steady"
    assert found["mean_absolute_error_valid_bound"] == pytest.approx(2.0)
    table = table.with_columns(
        pl.when(explanation_id="steady").then(pl.col("abs_error_sum") * 1.1).otherwise("abs_error_sum")
    )
    found = ns.best(table, metric="mean_absolute_error", method="jackknife").row(0, named=True)
    assert (found["explanation_id"], found["mean_absolute_error_valid"]) == ("steady", pytest.approx(2.2))


def test_the_winners_curse_is_seen_where_candidates_are_equally_good():
    table = candidates({f"e{i}": 2.0 for i in range(8)}, n_neurons=60)
    found = ns.best(table, method="jackknife")
    assert found[f"{SCORE}_drop"].mean() > 0.05
    # on the split where nobody chose, the chosen are as good as any
    assert found[f"{SCORE}_test"].mean() == pytest.approx(found[f"{SCORE}_test_mean"].mean(), abs=0.04)


def test_without_bounds_the_score_chooses_and_without_scores_nothing():
    table = candidates({"a": 2.0, "b": 0.1}, n_records=2, n_neurons=1)
    found = ns.best(table).row(0, named=True)
    assert (found["explanation_id"], found["chosen_by"], found[f"{SCORE}_valid_bound"]) == ("b", "score", None)
    assert found[f"{SCORE}_test"] is not None
    nothing = ns.best(table.with_columns(n_scored=0 * pl.col("n_scored"))).row(0, named=True)
    assert (nothing["explanation_id"], nothing["chosen_by"], nothing["n_candidates"]) == (None, None, 2)
    assert nothing[f"{SCORE}_test"] is None


def test_a_candidate_without_a_bound_comes_after_those_with_one():
    many, few = candidates({"a": 3.0}, n_neurons=1), candidates({"b": 0.01}, n_records=2, n_neurons=1)
    found = ns.best(pl.concat([many, few])).row(0, named=True)
    assert (found["explanation_id"], found["n_candidates"]) == ("a", 2)


def test_equals_are_chosen_in_the_order_of_their_keys():
    one = candidates({"a": 1.0})
    table = pl.concat([one.with_columns(explanation_id=pl.lit(x)) for x in ("z", "k", "m")])
    assert ns.best(table)["explanation_id"].to_list() == ["k", "k"]


def test_simulators_choose_each_for_itself_or_are_chosen_among():
    both = [candidates({"a": x, "b": 0.8}, seed=i) for i, x in enumerate([0.1, 5.0])]
    parts = [
        t.select("layer", "neuron", pl.lit(f"s{i}").alias("simulator"), pl.all().exclude("layer", "neuron"))
        for i, t in enumerate(both)
    ]
    table = pl.concat(parts)
    found = ns.best(table)
    assert found.select("simulator", "neuron", "explanation_id").sort("simulator", "neuron").rows() == [
        ("s0", 0, "a"),
        ("s0", 1, "a"),
        ("s1", 0, "b"),
        ("s1", 1, "b"),
    ]
    among = ns.best(table, of=["simulator", "explanation_id"])
    assert among.select("layer", "neuron", "simulator", "explanation_id", "n_candidates").rows() == [
        (0, 0, "s0", "a", 4),
        (0, 1, "s0", "a", 4),
    ]


@QUICK
@given(st.data())
def test_order_of_rows_changes_nothing(data):
    table = candidates({"a": 1.0, "b": 1.0})
    assert_frame_equal(
        ns.best(data.draw(shuffles(table)), resamples=30), ns.best(table, resamples=30), check_exact=True
    )


def test_a_folder_is_taken(tmp_path):
    table = candidates({"a": 1.0, "b": 0.5})
    table.write_parquet(tmp_path / "sequence_scores.parquet")
    assert_frame_equal(ns.best(tmp_path), ns.best(table))


def test_what_is_missing_is_told():
    table = candidates({"a": 1.0})
    with refused(
        "missing split",
        column="split",
        found="no record is in 'test'",
        mend="Simulate and score it too, or name another with choose_on= and report_on=.",
    ):
        ns.best(table.filter(split="valid"))
    for column in ("split", "explanation_id"):
        with pytest.raises(ns.TableError, match=f"column '{column}': missing column"):
            ns.best(table.drop(column))
    with pytest.raises(ns.SettingError, match=r"level: found 0.5, expected a share between 0.5 and 1"):
        ns.best(table, level=0.5)
    with pytest.raises(ns.SettingError, match="its score would be too high"):
        ns.best(table, report_on="valid")
    with pytest.raises(ns.PoolError, match="auroc does not decompose"):
        ns.best(table, metric="auroc")
