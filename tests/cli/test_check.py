"""`nscore check`: what it prints, writes and gives as its exit code."""

from __future__ import annotations

import polars as pl
import pytest
from simulation_tables import command, read_json

import nscore as ns

SCORES = ["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder as an import makes it, whose scores are right."""
    rows = [(5, n, "0", s, p, float(n + p * p), float(p * s)) for n in (0, 1) for s in (0, 1, 2) for p in range(4)]
    names = ["layer", "neuron", "explanation_id", "sequence", "position", "activation", "predicted"]
    table = pl.DataFrame(rows, schema=names, orient="row")
    table.write_parquet(tmp_path / "simulated.parquet")
    ns.score(table).select(*names[:3], *SCORES).write_parquet(tmp_path / "published_scores.parquet")
    records = ns.score_sequences(table).select(*names[:4], *SCORES)
    records.write_parquet(tmp_path / "published_sequence_scores.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rounded(folder):
    file = folder / "published_scores.parquet"
    pl.read_parquet(file).with_columns(pl.col(SCORES).round(3)).write_parquet(file)


def test_scores_that_agree_are_exit_code_0(capsys):
    code, out, err = command(capsys, "check", ".")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "explanations: 6 scores: 6 agree, 0 differ, 0 were not published",
        "records: 18 scores: 18 agree, 0 differ, 0 were not published",
    ]


def test_scores_that_differ_are_exit_code_3_with_the_cause_in_words_and_the_rows_on_disk(capsys, folder):
    rounded(folder)
    code, out, err = command(capsys, "check", ".", "-o", "found")
    assert (code, err) == (3, "")
    assert "explanations: 6 scores: 0 agree, 6 differ" in out
    assert "at most): rounding: right, and written with fewer digits" in out
    rows = pl.read_parquet("found/check.parquet")
    assert set(rows["detail"]) == {"rounded to 3 decimals"}
    assert pl.read_parquet("found/check_records.parquet").height == 18
    assert "wrote found/check.parquet" in out


def test_json_has_the_counts_and_the_causes(capsys, folder):
    rounded(folder)
    code, out, _ = command(capsys, "check", ".", "--json")
    told = read_json(out)
    assert code == 3
    assert told["check"] == {"scores": 6, "agree": 0, "differ": 6}
    assert told["check_records"] == {"scores": 18, "agree": 18, "differ": 0}
    assert [(row["of"], row["score"], row["cause"], row["n"]) for row in told["causes"]] == [
        ("explanations", score, "rounding", 2) for score in sorted(SCORES)
    ]


def test_a_folder_without_published_scores_is_one_line_and_exit_code_1(capsys, folder):
    (folder / "published_scores.parquet").unlink()
    code, out, err = command(capsys, "check", ".")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "there is no published_scores" in err
