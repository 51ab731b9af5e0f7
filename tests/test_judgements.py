"""Scores of judges are the textbook's on the items that were judged; a failure is counted, and what is undefined is null."""

from __future__ import annotations

import itertools
import json
import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nscore as ns
from nscore.cli import main
from nscore.errors import SettingError
from nscore.records import FAILING

SCORES = ["balanced_accuracy", "f1", "precision", "recall", "specificity", "auroc"]


def refused(frame, problem, column, ask=ns.score_judgements):
    with pytest.raises(ns.TableError) as caught:
        ask(frame)
    assert (caught.value.problem, caught.value.column) == (problem, column)


ROW = st.tuples(
    st.sampled_from([0, 1]),
    st.sampled_from(["detection", "fuzz"]),
    st.sampled_from([True, False, True, False, None]),
    st.sampled_from([True, False, True, False, None]),
    st.sampled_from([0.0, 0.25, 0.25, 0.5, 1.0, None]),
)


def judgements(rows):
    columns = {
        "neuron": pl.Int64,
        "scorer": pl.String,
        "label": pl.Boolean,
        "predicted_label": pl.Boolean,
        "probability": pl.Float64,
    }
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    status = pl.when(pl.col("predicted_label").is_null()).then(pl.lit("parse_error")).otherwise(pl.lit("ok"))
    probability = pl.when(pl.col("predicted_label").is_not_null()).then("probability").alias("probability")
    return frame.with_columns(status.alias("status"), probability).select(
        pl.lit(3).alias("layer"),
        "neuron",
        pl.lit("a").alias("explanation_id"),
        pl.int_range(pl.len()).alias("item"),
        pl.all().exclude("neuron"),
    )


def ratio(part, whole):
    return part / whole if whole else None


def reference(rows):
    """Each score by its formula, from (label, said, probability)."""
    pairs = [(t, s) for t, s, _ in rows if t is not None and s is not None]
    tp, fn, fp, tn = (pairs.count(c) for c in itertools.product([True, False], [True, False]))
    recall, specificity = ratio(tp, tp + fn), ratio(tn, fp + tn)
    both = recall is not None and specificity is not None
    known = [(t, p) for t, _, p in rows if t is not None and p is not None]
    wins = [(p > q) + (p == q) / 2 for (t, p), (u, q) in itertools.product(known, known) if t and not u]
    return {
        "balanced_accuracy": (recall + specificity) / 2 if both else None,
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": recall,
        "specificity": specificity,
        "auroc": ratio(sum(wins), len(wins)),
    }


def same(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert (got[name] is None) == (value is None), name
        assert value is None or math.isclose(got[name], value, abs_tol=1e-12), name


@given(st.lists(ROW, max_size=40))
@settings(max_examples=100, deadline=None)
def test_each_score_is_its_formula_over_the_items_that_were_judged(rows):
    frame = judgements(rows)
    scores = ns.score_judgements(frame)
    groups = {(r["neuron"], r["scorer"]) for r in frame.iter_rows(named=True)}
    assert scores.select("neuron", "scorer").rows() == sorted(groups)
    for row in scores.iter_rows(named=True):
        own = frame.filter(pl.col("neuron") == row["neuron"], pl.col("scorer") == row["scorer"])
        triples = own.select("label", "predicted_label", "probability").rows()
        same({name: row[name] for name in SCORES}, reference(triples))
        judged = own["predicted_label"].count()
        assert (row["n_judgements"], row["n_judged"]) == (own.height, judged)
        assert row["coverage"] == judged / own.height
        assert row["low_coverage"] == (judged / own.height < 0.95)
        assert row["failures"] == dict.fromkeys(FAILING, 0) | {"parse_error": own.height - judged}


@given(st.lists(ROW, min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_the_expressions_in_a_group_by_give_the_same(rows):
    frame = judgements(rows)
    keys = ["layer", "neuron", "explanation_id", "scorer"]
    own = [ns.balanced_accuracy(), ns.f1(), ns.precision(), ns.recall(), ns.specificity()]
    for table in (frame, frame.lazy()):
        got = table.group_by(keys).agg(own).sort(keys).lazy().collect()
        assert got.equals(ns.score_judgements(frame).select(*keys, *SCORES[:-1]))
    whole = frame.select(*own)
    assert whole.equals(ns.score_judgements(frame.drop("scorer"), by=[]).select(SCORES[:-1]))


def test_a_case_by_hand():
    rows = [(0, "fuzz", t, s, None) for t, s in [(True, True)] * 3 + [(True, False)] + [(False, True)] * 2]
    rows += [(0, "fuzz", False, False, None), (0, "fuzz", True, None, None)]
    [row] = ns.score_judgements(judgements(rows)).iter_rows(named=True)
    assert {n: row[n] for n in SCORES} == {
        "balanced_accuracy": (3 / 4 + 1 / 3) / 2,
        "f1": 2 * 3 / (2 * 3 + 2 + 1),
        "precision": 3 / 5,
        "recall": 3 / 4,
        "specificity": 1 / 3,
        "auroc": None,
    }
    assert (row["true_positives"], row["false_negatives"], row["false_positives"], row["true_negatives"]) == (
        3,
        1,
        2,
        1,
    )
    assert (row["n_judgements"], row["n_judged"], row["coverage"], row["low_coverage"]) == (8, 7, 7 / 8, True)


def test_of_one_class_what_needs_both_is_null():
    [row] = ns.score_judgements(judgements([(0, "fuzz", True, True, 0.7), (0, "fuzz", True, False, 0.2)])).iter_rows(
        named=True
    )
    assert (row["recall"], row["precision"]) == (0.5, 1.0)
    assert row["balanced_accuracy"] is row["specificity"] is row["auroc"] is None


def test_where_nothing_was_answered_no_score_is_a_number():
    [row] = ns.score_judgements(judgements([(0, "fuzz", True, None, None), (0, "fuzz", False, None, None)])).iter_rows(
        named=True
    )
    assert [row[name] for name in SCORES] == [None] * 6
    assert (row["coverage"], row["failures"]["parse_error"]) == (0.0, 2)


def test_a_failure_counts_as_wrong_only_where_that_is_asked_for():
    rows = [(0, "fuzz", True, True, 0.9), (0, "fuzz", True, None, None), (0, "fuzz", False, False, 0.1)]
    frame = judgements(rows)
    assert ns.score_judgements(frame)["recall"].item() == 1.0
    wrong = ns.score_judgements(frame, on_failure="wrong")
    assert (wrong["recall"].item(), wrong["specificity"].item()) == (0.5, 1.0)
    assert (wrong["n_judged"].item(), wrong["auroc"].item()) == (2, 1.0)
    with pytest.raises(SettingError, match="on_failure: found 'zero', expected 'drop' or 'wrong'"):
        ns.score_judgements(frame, on_failure="zero")


def test_failures_are_counted_by_their_class_and_without_one_as_not_run():
    frame = pl.DataFrame(
        {
            "layer": 0,
            "neuron": 0,
            "item": range(5),
            "label": True,
            "predicted_label": [None, None, None, None, True],
            "status": ["http_error", "refused", None, "ok", None],
        }
    )
    [failures] = ns.score_judgements(frame)["failures"]
    assert {c: n for c, n in failures.items() if n} == {"http_error": 1, "refused": 1, "not_run": 2}
    assert ns.score_judgements(frame.drop("status"))["failures"].item()["not_run"] == 4


def test_strata_are_scored_apart_where_they_are_keys():
    frame = judgements([(0, "fuzz", True, i % 2 == 0, None) for i in range(3)]).with_columns(
        stratum=pl.Series(["quantile_0", "quantile_0", "quantile_1"])
    )
    scores = ns.score_judgements(frame, by=["layer", "neuron", "stratum"])
    assert scores.select("stratum", "recall").rows() == [("quantile_0", 0.5), ("quantile_1", 1.0)]


def test_a_path_and_a_lazy_frame_score_as_the_frame(tmp_path):
    frame = judgements([(i % 2, "fuzz", i % 3 == 0, i % 2 == 0, i / 20) for i in range(20)])
    frame.write_parquet(tmp_path / "judgements.parquet")
    expected = ns.score_judgements(frame)
    assert ns.score_judgements(tmp_path / "judgements.parquet").equals(expected)
    assert ns.score_judgements(frame.lazy()).equals(expected)


ONE = judgements([(0, "fuzz", True, True, 0.5), (0, "fuzz", False, None, None)])


@pytest.mark.parametrize(
    ("frame", "problem", "column"),
    [
        (ONE.drop("label"), "missing column", "label"),
        (ONE.with_columns(pl.col("label").cast(pl.Int64)), "wrong dtype", "label"),
        (ONE.with_columns(probability=1.5), "value out of range", "probability"),
        (ONE.with_columns(probability=math.nan), "value out of range", "probability"),
        (ONE.with_columns(status=pl.lit("sick")), "unknown status", "status"),
        (ONE.with_columns(status=pl.lit("refused")), "prediction of a failure", "predicted_label"),
        (ONE.with_columns(item=0), "repeated row", "item"),
        (ONE.drop("item"), "missing column", "item"),
    ],
)
def test_a_table_that_is_none_of_judgements_is_refused(frame, problem, column):
    refused(frame, problem, column)
    refused(frame, problem, column, lambda table: ns.validate(table, "judgements"))


def test_a_label_of_a_failure_says_what_to_do():
    with pytest.raises(ns.TableError, match=r"found True where the status is 'refused'\. A failure is never a label"):
        ns.score_judgements(ONE.with_columns(status=pl.lit("refused")))


def test_valid_judgements_are_valid_and_a_null_key_is_not():
    ns.validate(ONE, "judgements")
    with pytest.raises(ns.TableError, match="scorer"):
        ns.validate(ONE.with_columns(scorer=pl.lit(None, dtype=pl.String)), "judgements")


def test_items_judged_by_two_scorers_are_no_repetition_unless_they_are_mixed():
    both = pl.concat([ONE, ONE.with_columns(scorer=pl.lit("detection"))])
    assert ns.score_judgements(both).height == 2
    assert ns.score_judgements(both, by=["layer", "neuron"])["n_judgements"].item() == 4
    refused(both.drop("scorer"), "repeated row", "item")


def told(capsys, *arguments):
    code = main([str(a) for a in arguments])
    return code, capsys.readouterr()


def test_the_command_knows_judgements_by_their_columns(tmp_path, capsys):
    frame = judgements(
        [(i % 2, ["fuzz", "detection"][i // 20], i % 3 == 0, i % 4 != 0 or None, None) for i in range(40)]
    )
    frame.write_parquet(tmp_path / "judgements.parquet")
    code, said = told(capsys, "score", tmp_path / "judgements.parquet", "-o", tmp_path / "out")
    assert code == 0, said.err
    assert "4 rows of scores, 40 judgements, 30 with an answer" in said.out
    assert "without an answer: 10 parse_error" in said.out
    assert pl.read_parquet(tmp_path / "out/judgement_scores.parquet").equals(ns.score_judgements(frame))
    code, said = told(
        capsys, "score", tmp_path / "judgements.parquet", "-o", tmp_path / "out", "--json", "--on-failure", "wrong"
    )
    summary = json.loads(said.out)
    assert (code, summary["judged"], summary["failures"]["parse_error"]) == (0, 30, 10)
    assert {row["scorer"] for row in summary["scores"]} == {"fuzz", "detection"}


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--strata"], "--strata: "),
        (["--metrics", "pearson"], "--metrics: "),
        (["--on-failure", "zero"], "for judgements it is drop or wrong"),
    ],
)
def test_what_there_is_not_for_judgements_is_refused(tmp_path, capsys, flags, why):
    ONE.write_parquet(tmp_path / "judgements.parquet")
    code, said = told(capsys, "score", tmp_path / "judgements.parquet", "-o", tmp_path / "out", *flags)
    assert code != 0
    assert why in said.err
    assert not (tmp_path / "out").exists()


def test_wrong_is_no_policy_of_predicted_activations(tmp_path, capsys):
    simulated = pl.DataFrame(
        {"layer": 0, "neuron": 0, "sequence": 0, "activation": [0.0, 1.0], "predicted": [0.0, 1.0]}
    )
    simulated.write_parquet(tmp_path / "simulated.parquet")
    code, said = told(capsys, "score", tmp_path / "simulated.parquet", "-o", tmp_path / "out", "--on-failure", "wrong")
    assert code != 0
    assert "--on-failure: found wrong" in said.err
