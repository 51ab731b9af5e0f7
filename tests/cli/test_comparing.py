"""`nscore compare`, `nscore best` and `nscore score --intervals`: they equal the functions they stand for."""

from __future__ import annotations

import os

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from simulation_tables import command, read_json, small_explanations, small_records

import nscore as ns

SCORE = "ev_correlation_score"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with the scores of two simulators and two explanations, and no setting from outside."""
    for name in [name for name in os.environ if name.startswith("NSCORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    told = small_explanations()
    other = told.with_columns(explanation_id=pl.lit("other"), explanation=pl.lit('the words "plain text"'))
    simulated = ns.simulate(small_records(), pl.concat([told, other]), simulator=["lexical", "constant"])
    simulated.write_parquet("simulated.parquet")
    (tmp_path / "run").mkdir()
    ns.score_sequences(simulated).write_parquet("run/sequence_scores.parquet")
    return tmp_path


def scored():
    return pl.read_parquet("run/sequence_scores.parquet")


def first_id():
    return next(i for i in scored()["explanation_id"].unique() if i != "other")


def test_score_writes_intervals_that_equal_the_functions(capsys):
    flags = ["--intervals", "jackknife", "--metrics", "pearson,spearman"]
    assert command(capsys, "score", "simulated.parquet", "-o", "out", *flags)[::2] == (0, "")
    found = pl.read_parquet("out/scores.parquet")
    simulated = pl.read_parquet("simulated.parquet")
    metrics = ["pearson", "spearman"]
    assert_frame_equal(found, ns.score(simulated, metrics=metrics, intervals="jackknife"), check_exact=True)
    assert found.columns[-4:] == ["pearson", "pearson_low", "pearson_high", "spearman"]
    ns.validate("out/scores.parquet", "scores")
    more = ["--intervals", "bca", "--level", "0.5", "--resamples", "70", "--seed", "3", "--metrics", "pearson"]
    assert command(capsys, "score", "simulated.parquet", "-o", "out", *more)[0] == 0
    expected = ns.intervals(scored(), metrics=["pearson"], method="bca", level=0.5, resamples=70, seed=3)
    assert_frame_equal(pl.read_parquet("out/scores.parquet"), expected, check_exact=True)
    none = ns.score(simulated, metrics=["spearman"], intervals="bca")
    assert_frame_equal(none, ns.score(simulated, metrics=["spearman"]))


def test_score_says_what_level_cannot_be(capsys):
    code, _, err = command(capsys, "score", "simulated.parquet", "-o", "out", "--intervals", "bca", "--level", "95")
    assert code == 1
    assert err == "nscore score: level: found 95.0, expected a share between 0 and 1, such as 0.95\n"


def test_compare_writes_and_prints_what_the_function_gives(capsys):
    flags = ["--simulators", "lexical,constant", "--metrics", SCORE, "--resamples", "50", "--seed", "2"]
    code, out, err = command(capsys, "compare", "run", *flags, "-o", "out", "--json")
    expected = ns.compare(scored(), simulators=("lexical", "constant"), metrics=[SCORE], resamples=50, seed=2)
    assert (code, err) == (0, "")
    assert_frame_equal(pl.read_parquet("out/comparison.parquet"), expected.neurons, check_exact=True)
    assert_frame_equal(pl.read_parquet("out/comparison_summary.parquet"), expected.summary, check_exact=True)
    given = read_json(out)
    assert (given["compared"], given["only_a"], given["only_b"], given["unmatched_records"]) == (6, 0, 0, 0)
    assert given["scores"] == expected.summary.rows(named=True)
    assert len(given["largest"]) == 6
    assert given["files"] == ["out/comparison.parquet", "out/comparison_summary.parquet"]


def test_compare_takes_two_tables_and_writes_nothing_unasked(capsys, folder):
    ids = ["--explanation-ids", f"{first_id()},other"]
    code, out, _ = command(capsys, "compare", "run", "run/sequence_scores.parquet", *ids, "--intervals", "jackknife")
    assert code == 0
    assert out.startswith("6 on both sides (0 only in A, 0 only in B), ")
    assert f"The largest differences of {SCORE}:" in out
    assert sorted(p.name for p in folder.iterdir()) == ["run", "simulated.parquet"]


def test_compare_fails_in_one_line(capsys):
    code, out, err = command(capsys, "compare", "run")
    assert (code, out) == (1, "")
    assert (
        err
        == "nscore compare: b: one table was given and no simulators or explanation_ids of it that are to be compared\n"
    )
    code, _, err = command(capsys, "compare", "run", "--simulators", "lexical,nobody")
    assert (code, err.count("\n")) == (1, 1)
    assert "expected 'nobody'" in err
    assert command(capsys, "compare", "run", "--simulators", "lexical")[0] == 2


def test_best_writes_and_prints_what_the_function_gives(capsys):
    code, out, err = command(capsys, "best", "run", "-o", "out", "--metric", "pearson", "--level", "0.8", "--json")
    expected = ns.best(scored(), metric="pearson", level=0.8)
    assert (code, err) == (0, "")
    assert_frame_equal(pl.read_parquet("out/best.parquet"), expected, check_exact=True)
    given = read_json(out)
    assert (given["neurons"], given["candidates"], given["files"]) == (6, 12, ["out/best.parquet"])
    assert sum(given["chosen_by"].values()) == 6
    both = expected.drop_nulls(["pearson_valid", "pearson_test", "pearson_test_mean"])
    assert given["mean_valid_of_chosen"] == pytest.approx(both["pearson_valid"].mean())
    assert given["mean_test_of_all"] == pytest.approx(both["pearson_test_mean"].mean())


def test_best_tells_what_the_choice_is_worth(capsys, folder):
    code, out, _ = command(capsys, "best", "run", "--of", "simulator,explanation_id", "--intervals", "percentile")
    assert code == 0
    assert out.startswith("3 neurons, 12 candidates; chosen: 3 by ")
    assert "  valid of chosen  " in out
    assert "  test of all      " in out
    assert sorted(p.name for p in folder.iterdir()) == ["run", "simulated.parquet"]
    code, _, err = command(capsys, "best", "run", "--choose-on", "test")
    assert (code, err.count("\n")) == (1, 1)
