"""`nscore export`: its flags reach the export, its counts are printed, and its exit code says what is missing."""

from __future__ import annotations

import gzip
import json

import polars as pl
import pytest
from simulation_tables import command

import nscore as ns

NAMES = ["layer", "neuron", "explanation_id", "sequence", "position", "token", "activation", "predicted"]


def tokens(**columns):
    rows = [
        (5, n, "0", s, p, f"t{p}", float(n + p * p), float(p * s)) for n in (7, 12) for s in (1, 2) for p in (0, 1, 2)
    ]
    return pl.DataFrame(rows, schema=NAMES, orient="row").with_columns(**columns)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with both tables."""
    tokens().write_parquet(tmp_path / "simulated.parquet")
    texts = pl.DataFrame({"layer": 5, "neuron": [7, 12], "explanation_id": "0", "explanation": ["red", "blue"]})
    texts.write_parquet(tmp_path / "explanations.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(**columns):
    tokens(**columns).write_parquet("simulated.parquet")


def test_counts_are_printed_and_the_same_as_json(capsys, folder):
    code, out, _ = command(capsys, "export", "openai", ".", "-o", "a")
    assert code == 0
    size = sum(file.stat().st_size for file in (folder / "a").rglob("*.jsonl"))
    told = f"wrote a: 2 files, {size:,} bytes: 2 neurons, 2 explanations, 4 records, 12 tokens"
    assert out.splitlines() == [told]
    code, out, _ = command(capsys, "export", "openai", ".", "-o", "b", "--json")
    assert code == 0
    found = json.loads(out)
    counts = {"files": 2, "size": size, "neurons": 2, "explanations": 2, "records": 4, "tokens": 12}
    assert found == {"out": "b", "judgements": 0, "left_out": {}, "filled": 0} | counts


def test_a_prediction_that_is_missing_is_exit_code_3_or_is_written_as_zero(capsys):
    put(
        predicted=pl.when((pl.col("neuron") == 7) & (pl.col("sequence") == 1) & (pl.col("position") == 2))
        .then(None)
        .otherwise("predicted")
    )
    code, out, _ = command(capsys, "export", "openai", ".", "-o", "a")
    assert code == 3
    assert out.splitlines()[1:] == ["left out: 1 records with a token without a prediction"]
    code, out, _ = command(capsys, "export", "openai", ".", "-o", "b", "--on-failure", "zero")
    assert code == 0
    assert out.splitlines()[1:] == ["filled: 1 tokens without a prediction were written as 0.0"]


def test_several_simulators_are_refused_until_one_is_named(capsys, folder):
    pl.concat(
        [tokens(simulator=pl.lit(n), predicted=pl.lit(v)) for n, v in (("lexical", 1.0), ("shuffled", 2.0))]
    ).write_parquet("simulated.parquet")
    code, out, err = command(capsys, "export", "openai", ".", "-o", "a")
    assert (code, out) == (1, "")
    assert "--simulator" in err
    assert not (folder / "a").exists()
    assert command(capsys, "export", "openai", ".", "-o", "a", "--simulator", "shuffled")[0] == 0
    found = json.loads((folder / "a/5/7.jsonl").read_text())
    (scored,) = found["scored_explanations"]
    sequence = scored["scored_simulation"]["scored_sequence_simulations"][0]["sequence_simulation"]
    assert sequence["expected_activations"] == [2.0, 2.0, 2.0]


def test_splits_and_what_an_author_was_shown_are_chosen_by_flags(capsys):
    put(split=pl.when(pl.col("sequence") == 1).then(pl.lit("calibration")).otherwise(pl.lit("test")))
    _, out, _ = command(capsys, "export", "openai", ".", "-o", "a", "--splits", "calibration", "--json")
    assert json.loads(out)["left_out"] == {"records of splits other than calibration": 2}
    put(shown=pl.col("sequence") == 1)
    code, out, _ = command(capsys, "export", "openai", ".", "-o", "b")
    assert (code, out) == (1, "")
    _, out, _ = command(capsys, "export", "openai", ".", "-o", "b", "--leaks", "allow", "--json")
    assert json.loads(out)["records"] == 4


def test_texts_of_another_file_are_taken(capsys, folder):
    pl.read_parquet("explanations.parquet").with_columns(explanation=pl.lit("green")).write_parquet("other.parquet")
    assert command(capsys, "export", "openai", ".", "-o", "a", "--explanations", "other.parquet")[0] == 0
    assert json.loads((folder / "a/5/7.jsonl").read_text())["scored_explanations"][0]["explanation"] == "green"


def test_neuronpedias_flags_reach_its_lines_and_are_refused_by_others(capsys, folder):
    flags = ["--model-id", "gpt2", "--metrics", "rsquared_score", "--score-model", "s", "--explanation-model", "e"]
    assert command(capsys, "export", "neuronpedia", ".", "-o", "a", *flags)[0] == 0
    (file,) = (folder / "a").rglob("*.gz")
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    scores = ns.score(tokens()).sort("neuron")["rsquared_score"].to_list()
    names = ["modelId", "explanationScoreTypeName", "explanationScoreModelName", "explanationModelName"]
    assert [[line[n] for n in names] for line in lines] == [["gpt2", "rsquared_score", "s", "e"]] * 2
    assert [line["value"] for line in lines] == pytest.approx(scores, rel=1e-12)
    code, _, err = command(capsys, "export", "openai", ".", "-o", "b", "--model-id", "gpt2")
    assert code == 1
    assert "model_id: openai has no such option" in err
    assert not (folder / "b").exists()


def test_a_folder_that_is_not_empty_is_left_as_it_is(capsys, folder):
    (folder / "a").mkdir()
    (folder / "a/mine").write_text("mine")
    code, out, err = command(capsys, "export", "openai", ".", "-o", "a")
    assert (code, out) == (1, "")
    assert err.startswith("nscore export: a: is there already and not empty")
    assert [(p.name, p.read_text()) for p in (folder / "a").iterdir()] == [("mine", "mine")]


def test_an_unknown_format_lists_the_formats_and_is_exit_code_2(capsys):
    code, out, err = command(capsys, "export", "opnai", ".", "-o", "a")
    assert (code, out) == (2, "")
    assert all(name in err for name in ("delphi", "neuronpedia", "openai"))
