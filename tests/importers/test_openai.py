"""OpenAI's files become the tables that a plain reader would make of them; a broken one is named."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai_files import neuron_files, record, results, rows_of, sequence, written

import nscore as ns
from nscore.errors import SourceError
from nscore.importers import OpenAI, SourceFile


def read(folder, name="records"):
    return pl.read_parquet(folder / f"{name}.parquet")


def imported(folder, *contents, suffix="json", **options):
    for layer, neuron, content in contents:
        written(folder / "in", layer, neuron, content, suffix=suffix)
    return ns.import_files("openai", folder / "in", folder / "out", **options)


@given(st.lists(neuron_files(), min_size=1, max_size=3, unique_by=lambda n: n[:2]))
@settings(max_examples=60, deadline=None)
def test_records_are_those_that_a_plain_reader_finds(neurons):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = imported(folder, *neurons)
        ordered = sorted(neurons, key=lambda n: n[:2])
        expected = [row for neuron in ordered for row in rows_of(*neuron)]
        assert (told.tokens, told.records) == (len(expected), len({row[:3] for row in expected}))
        assert read(folder, "out/records").rows() == expected
        stats = read(folder, "out/neurons")
        assert stats.select("layer", "neuron").rows() == [n[:2] for n in ordered]
        for row, (_, _, content) in zip(stats.iter_rows(named=True), ordered, strict=True):
            for moment in ("mean", "kurtosis"):
                value = content[moment]
                assert row[moment] == (None if value is None or math.isnan(value) else value)
            assert row["quantile_boundaries"] == content.get("quantile_boundaries")


def test_splits_take_so_many_of_each_stratum_and_the_rest_is_left_out(tmp_path):
    def some(name, n):
        return [record([f"{name}{i}", "b"], [float(i), 0.0]) for i in range(n)]

    content = {
        "neuron_id": {"layer_index": 3, "neuron_index": 8},
        "most_positive_activation_records": some("t", 20),
        "random_sample": some("r", 20),
    }
    imported(tmp_path, (3, 8, content), per_split=2)
    records = read(tmp_path, "out/records")
    firsts = records.filter(position=0).select("split", "stratum", "token").rows()
    of = {(split, stratum): [t for s, m, t in firsts if (s, m) == (split, stratum)] for split, stratum, _ in firsts}
    assert of["train", "top"] == ["t0", "t4"]
    assert of["test", "top"] == ["t3", "t7"]
    assert of["calibration", "random"] == ["r0", "r3"]
    assert of["valid", "random"] == ["r1", "r4"]
    assert ("train", "random") not in of
    # tokens stay with their record
    assert records.filter(pl.col("token") == "r4")["activation"].to_list() == [4.0]
    assert records.group_by("sequence").len()["len"].to_list() == [2] * 14


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("distribution", [False, True])
def test_simulations_become_a_simulated_table_with_the_published_scores_beside(tmp_path, old, distribution):
    first = sequence(["a", "b"], [1.0, 2.0], [0.5, 1.5], old=old, raw=[3.0, 4.0])
    # the original's writer has null for NaN, Python's own has it bare
    nothing = None if old else float("nan")
    second = sequence(["c"], [0.0], [nothing], old=old, scores=(float("nan"), None, 0.5))
    content = results("7", 12, [("colours", [first, second]), ("not simulated", None)], old=old)
    told = imported(tmp_path, (7, 12, content), suffix="jsonl", distribution=distribution)
    simulated = read(tmp_path, "out/simulated")
    columns = ["layer", "neuron", "explanation_id", "sequence", "position", "token"]
    assert simulated.select(*columns, "activation", "predicted", "predicted_raw", "status").rows() == [
        (7, 12, "0", 0, 0, "a", 1.0, 0.5, 3.0, "ok"),
        (7, 12, "0", 0, 1, "b", 2.0, 1.5, 4.0, "ok"),
        (7, 12, "0", 1, 0, "c", 0.0, None, None, "parse_error"),
    ]
    assert ("distribution_values" in simulated.columns) is distribution
    if distribution:
        assert simulated["distribution_probabilities"].to_list() == [[0.5, 0.25, 0.25]] * 3
        assert told.left_out == {"explanations without a simulation": 1}
    else:
        assert told.left_out["predicted distributions (kept with --distribution)"] == 3
    explanations = read(tmp_path, "out/explanations")
    assert explanations.select("explanation_id", "explanation").rows() == [("0", "colours"), ("1", "not simulated")]
    pooled = read(tmp_path, "out/published_scores").row(0, named=True)
    assert pooled["ev_correlation_score"] == 0.75
    assert math.isnan(pooled["rsquared_score"])
    assert pooled["absolute_dev_explained_score"] is None
    each = read(tmp_path, "out/published_sequence_scores")
    assert each["activation_scale"].to_list() == ["neuron_activations"] * 2
    assert each["ev_correlation_score"].to_list()[0] == 0.5
    assert math.isnan(each["ev_correlation_score"].to_list()[1])
    assert (told.explanations, told.records, told.tokens) == (2, 2, 3)
    scores = ns.score(tmp_path / "out/simulated.parquet")
    assert scores.select("n_tokens", "n_predicted", "ev_correlation_score").row(0) == (3, 2, pytest.approx(1.0))


def test_simulators_without_logprobs_have_no_distribution(tmp_path):
    each = sequence(["a", "b"], [1.0, 2.0], [0.5, 1.5])
    each["sequence_simulation"] |= {"distribution_values": [], "distribution_probabilities": []}
    content = results(7, 12, [("colours", [each, sequence(["c"], [0.0], [1.0])])])
    imported(tmp_path, (7, 12, content), suffix="jsonl", distribution=True)
    found = read(tmp_path, "out/simulated")["distribution_values"].to_list()
    assert found == [None, None, [0.0, 1.0, 2.0]]


def test_files_of_both_kinds_are_read_together(tmp_path):
    content = {"neuron_id": {"layer_index": 1, "neuron_index": 2}, "random_sample": [record(["a"], [1.0])]}
    written(tmp_path / "in", 1, 2, content)
    written(tmp_path / "in", 1, 2, results(1, 2, [("x", [sequence(["a"], [1.0], [2.0])])]), suffix="jsonl")
    told = ns.import_files("openai", tmp_path / "in", tmp_path / "out")
    assert told.tables.keys() == {
        *("records", "neurons", "simulated", "explanations", "published_scores", "published_sequence_scores")
    }
    assert told.neurons == 1


def test_a_layer_may_have_a_name_and_the_path_may_say_which_neuron_it_is(tmp_path):
    records = {"random_sample": [record(["a"], [1.0])]}
    written(tmp_path / "in", "blocks.3", 9, records)
    written(tmp_path / "in", 4, 10, records)
    ns.import_files("openai", tmp_path / "in", tmp_path / "out")
    assert read(tmp_path, "out/records").select("layer", "neuron").rows() == [("4", 10), ("blocks.3", 9)]


def test_records_of_attention_heads_are_left_out_and_counted(tmp_path):
    pairs = {"random_sample": [record(["a", "b"], [1.0, 0.5, 0.5])], "neuron_id": {"layer_index": 1, "attention_id": 2}}
    written(tmp_path / "in", 1, 2, pairs)
    written(tmp_path / "in", 1, 3, {"random_sample": [record(["a"], [1.0])]})
    told = ns.import_files("openai", tmp_path / "in", tmp_path / "out")
    assert told.left_out == {"attention heads: their activations belong to pairs of tokens": 1}
    assert told.tokens == 1


def test_what_python_writes_beyond_json_is_read(tmp_path):
    file = tmp_path / "in/2/5.json"
    file.parent.mkdir(parents=True)
    text = '{"random_sample": [{"tokens": ["\\ud83d", ", \\"mean\\": NaN"], "activations": [NaN, -Infinity]}], "mean": NaN}'
    file.write_text("\ufeff" + text, "utf-8")
    told = ns.import_files("openai", tmp_path / "in", tmp_path / "out")
    assert read(tmp_path, "out/records").select("token", "activation").rows() == [
        ("\ufffd", None),
        (', "mean": NaN', None),
    ]
    assert told.left_out == {"activations that are no finite numbers (now null)": 2}


WRONG = {
    "no JSON": b"{",
    "nested too deep": b'{"mean":' + b"[" * 100_000,
    "empty": b"",
    "Expected `object`": b"[1]",
    "neither a NeuronRecord": b'{"mean": 1}',
    "2 tokens and 1 activations": json.dumps({"random_sample": [record(["a", "b"], [1.0])]}).encode(),
    "Expected `float`": json.dumps({"random_sample": [record(["a"], ["1.0"])]}).encode(),
    "Expected `str`": json.dumps({"random_sample": [record([5], [1.0])]}).encode(),
    "Object missing required field": b'{"random_sample": [{"tokens": ["a"]}]}',
}


@pytest.mark.parametrize("found", WRONG)
def test_a_broken_file_is_an_error_that_names_it_or_is_skipped(tmp_path, found):
    written(tmp_path / "in", 1, 3, {"random_sample": [record(["a"], [1.0])]})
    bad = tmp_path / "in/1/2.json"
    bad.write_bytes(WRONG[found])
    with pytest.raises(SourceError) as caught:
        ns.import_files("openai", tmp_path / "in", tmp_path / "out")
    assert str(caught.value).startswith(str(bad))
    assert found in str(caught.value)
    assert not (tmp_path / "out").exists()
    told = ns.import_files("openai", tmp_path / "in", tmp_path / "out", on_error="skip")
    assert told.skipped == [(str(bad), str(caught.value))]
    assert (told.files, told.neurons) == (1, 1)
    assert read(tmp_path, "out/skipped")["file"].to_list() == [str(bad)]
    assert str(bad) in str(told)


def test_the_place_in_the_file_is_named(tmp_path):
    content = {"random_sample": [record(["a"], [1.0]), record(["a", "b"], [1.0])]}
    file = written(tmp_path, 1, 2, content)
    with pytest.raises(SourceError, match=r"\$\.random_sample\[1\]: 2 tokens and 1 activations"):
        list(OpenAI().parse(SourceFile(str(file))))
    content["random_sample"][1]["activations"] = [1.0, None]
    file = written(tmp_path, 1, 2, content)
    with pytest.raises(SourceError, match=r"\$\.random_sample\[1\]\.activations\[1\]: Expected `float`, got `null`"):
        list(OpenAI().parse(SourceFile(str(file))))


GOOD = json.dumps(results(1, 2, [("x", [sequence(["a"], [1.0], [2.0])])]) | {"random_sample": []}).encode()


@given(st.binary(max_size=60) | st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=3)))
@example(b'{"random_sample": [], "neuron_id": {"layer_index": 1e400, "neuron_index": 2}}')
@example(b'{"random_sample": [], "neuron_id": {"layer_index": 1, "neuron_index": 123456789012345678901234567890}}')
@settings(max_examples=300, deadline=None)
def test_whatever_a_file_holds_is_read_or_is_a_typed_error(change):
    content = change if isinstance(change, bytes) else GOOD[: change[0]] + change[1] + GOOD[change[0] + 1 :]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in/1"
        folder.mkdir(parents=True)
        (folder / "2.jsonl").write_bytes(content)
        told = ns.import_files("openai", Path(name) / "in", Path(name) / "out", on_error="skip")
        assert told.files + len(told.skipped) == 1
