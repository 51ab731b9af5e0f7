"""`neuronpedia` lines: what they are called there, what has no place, and that they are read back."""

from __future__ import annotations

import gzip
import json

import polars as pl
import pytest

import nscore as ns
from nscore.errors import SettingError

TEXTS = pl.DataFrame(
    {"layer": "6-res-jb", "neuron": [7, 8], "explanation_id": "a", "explanation": ["the colour red", "\u2028 é"]}
)


def scores(**columns):
    usual = {"n_sequences": [2, 3], "n_tokens": [10, 20], "coverage": [1.0, 0.5], "ev_correlation_score": [0.5, 0.25]}
    return TEXTS.drop("explanation").with_columns(**{k: pl.Series(v) for k, v in (usual | columns).items()})


def export(out, **options):
    given = {"scores": scores(), "explanations": TEXTS, "model_id": "gpt2-small"} | options
    return ns.export_files("neuronpedia", None, out, **given)


def lines(out):
    files = sorted(out.rglob("*.gz"))
    return [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


def test_a_line_has_the_names_of_both_of_neuronpedias_tables(tmp_path):
    done = export(tmp_path / "out", score_model="gpt-4o-mini", explanation_model="claude")
    assert (done.files, done.explanations, done.records) == (1, 2, 0)
    (file,) = tmp_path.rglob("*.gz")
    assert str(file.relative_to(tmp_path)) == "out/gpt2-small/6-res-jb/explanation_scores/batch-0.jsonl.gz"
    first, _ = lines(tmp_path)
    assert json.loads(first.pop("jsonDetails")) == {"n_sequences": 2, "n_tokens": 10, "coverage": 1.0}
    assert first == {
        "modelId": "gpt2-small",
        "layer": "6-res-jb",
        "index": "7",
        "description": "the colour red",
        "typeName": None,
        "explanationModelName": "claude",
        "explanationId": "a",
        "explanationScoreTypeName": "ev_correlation_score",
        "explanationScoreModelName": "gpt-4o-mini",
        "value": 0.5,
    }


def test_the_same_scores_give_the_same_bytes(tmp_path):
    for name in "ab":
        export(tmp_path / name)
    first, second = (next((tmp_path / name).rglob("*.gz")).read_bytes() for name in "ab")
    assert first == second


def test_what_the_explanations_say_of_model_author_and_kind_is_taken(tmp_path):
    told = TEXTS.with_columns(model=pl.lit("gemma"), explanation_model=pl.lit("o1"), explanation_type=pl.lit("oai"))
    export(tmp_path / "out", explanations=told, model_id=None)
    assert {(x["modelId"], x["explanationModelName"], x["typeName"]) for x in lines(tmp_path)} == {
        ("gemma", "o1", "oai")
    }
    with pytest.raises(SettingError, match="--model-id"):
        export(tmp_path / "b", model_id=None)


@pytest.mark.parametrize("value", [None, float("nan"), float("-inf")])
def test_a_score_that_is_no_finite_number_is_left_out_and_counted(tmp_path, value):
    done = export(tmp_path / "out", scores=scores(ev_correlation_score=[value, 0.25]))
    assert done.left_out == {"ev_correlation_score that is no finite number": 1}
    assert [x["index"] for x in lines(tmp_path)] == ["8"]
    assert done.incomplete


def test_scores_are_chosen_by_name_and_one_that_is_not_there_is_refused(tmp_path):
    more = scores(auroc=[0.75, 0.5])
    export(tmp_path / "out", scores=more, metrics=["auroc", "ev_correlation_score"])
    assert [(x["index"], x["explanationScoreTypeName"], x["value"]) for x in lines(tmp_path)] == [
        ("7", "auroc", 0.75),
        ("7", "ev_correlation_score", 0.5),
        ("8", "auroc", 0.5),
        ("8", "ev_correlation_score", 0.25),
    ]
    with pytest.raises(SettingError, match="no 'spearman'"):
        export(tmp_path / "b", metrics=["spearman"])


def test_the_lines_are_read_back_by_the_importer(tmp_path):
    export(tmp_path / "out", score_model="m")
    ns.import_files("neuronpedia", tmp_path / "out", tmp_path / "back")
    texts = pl.read_parquet(tmp_path / "back/explanations.parquet")
    assert sorted(texts["explanation"]) == sorted(TEXTS["explanation"])
    (published,) = (p for p in (tmp_path / "back").glob("*scores*.parquet"))
    back = pl.read_parquet(published).sort("neuron")
    assert back.select("neuron", "scorer", "scorer_model", "score").rows() == [
        (7, "ev_correlation_score", "m", 0.5),
        (8, "ev_correlation_score", "m", 0.25),
    ]
