"""What SAEDashboard's batches say beside tokens, what they leave unknown, and what a real one holds, by a plain reader."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import polars as pl
import pytest
from dashboard_files import bins_of, dashboard, placed
from hypothesis import given, settings
from hypothesis import strategies as st

import nscore as ns
from nscore.errors import SourceError
from nscore.importers import SAEDashboard, SourceFile

REAL = Path(__file__).parents[3] / "shared/data/formats/saedashboard/batch-1.json"
TOP, HIGH, LOW = (-1, 4.0, -1), (3.0, 4.0, 0.01), (0.0, 1.0, 0.9)


def imported(folder, batch, name="batch-0.json", **options):
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_text(json.dumps(batch))
    return ns.import_files("saedashboard", folder / "in", folder / "out", **options)


def read(folder, name="records"):
    return pl.read_parquet(folder / f"out/{name}.parquet")


def test_what_a_feature_says_of_itself_is_a_row_of_neurons(tmp_path):
    batch = dashboard([(7, [(["a"], [2.5], TOP)]), (9, [])])
    told = imported(tmp_path, batch)
    seven, nine = read(tmp_path, "neurons").rows(named=True)
    assert seven == {
        "layer": 0,
        "neuron": 7,
        "max_activation": 2.5,
        "frac_nonzero": 0.25,
        "histogram_values": [0.5],
        "histogram_heights": [4.0],
        "n_prompts": 5000,
        "n_tokens_in_prompt": 128,
        "dataset": "openwebtext",
        "model": "gpt2-small",
        "sae_set": "res-jb",
        "file": str(tmp_path / "in/batch-0.json"),
    }
    assert (nine["neuron"], nine["max_activation"]) == (9, None)
    assert told.left_out == {"correlations and alignments of neurons": 2, "logits of neurons": 2}
    assert told.neurons == 2
    assert read(tmp_path).select("model", "sae_set").row(0) == ("gpt2-small", "res-jb")


def test_values_that_are_not_known_are_null_and_counted(tmp_path):
    records = [(["a", "b", "c", "d"], [None, math.nan, -math.inf, 1.5], TOP), ([], [], TOP), (["x"], [None], LOW)]
    told = imported(tmp_path, dashboard([(7, records)]))
    assert read(tmp_path)["activation"].to_list() == [None, None, None, 1.5, None]
    assert read(tmp_path).filter(position=0).select("sequence", "stratum").rows() == [(0, "top"), (2, "random")]
    assert told.left_out["activations that are no finite numbers (now null)"] == 4
    assert told.left_out["records without tokens"] == 1


def test_a_batch_with_bare_nan_is_read_as_one_without(tmp_path):
    features = [(n, [([f"t{n}"], [float(n)], HIGH)]) for n in (1, 2)]
    for name, pearson in (("batch-0.json", [0.5]), ("batch-1.json", [math.nan])):
        batch = dashboard(features)
        for feature in batch["features"]:
            feature["correlated_neurons_pearson"] = pearson
        path = tmp_path / name
        path.write_text(json.dumps(batch))
    one, other = (
        SAEDashboard().tables([p.content for p in SAEDashboard().parse(SourceFile(str(tmp_path / name))) if p.content])
        for name in ("batch-0.json", "batch-1.json")
    )
    assert one["records"].equals(other["records"])
    assert one["neurons"].drop("file").equals(other["neurons"].drop("file"))


def test_older_batches_say_less(tmp_path):
    batch = {"layer": "blocks.5", "features": [{"feature_index": 3, "activations": [{"tokens": ["a"], "values": [1]}]}]}
    imported(tmp_path, batch)
    assert read(tmp_path).select("layer", "neuron", "token", "activation", "stratum", "model").rows() == [
        ("blocks.5", 3, "a", 1.0, "top", None)
    ]
    assert read(tmp_path, "neurons")["frac_nonzero"].item() is None


def test_the_strata_of_a_neuron_without_a_group_of_the_highest(tmp_path):
    widths = [(0.0, 1.0, 0.9), (1.0, 2.0, 0.05), (2.0, 3.0, 0.04), (3.0, 4.0, 0.01)]
    records = [([f"t{i}"], [low + 0.5], bins) for i, bins in enumerate(widths) for low in bins[:1]]
    imported(tmp_path, dashboard([(7, records)]))
    assert read(tmp_path)["stratum"].to_list() == ["random", "bin_1", "bin_2", "top"]


def test_per_split_leaves_whole_records_out(tmp_path):
    records = [([f"t{i}", "x"], [float(i), 0.0], TOP) for i in range(1, 10)]
    imported(tmp_path, dashboard([(7, records)]), per_split=1)
    firsts = read(tmp_path).filter(position=0)
    assert firsts.select("token", "split", "rank").rows() == [
        ("t6", "test", 3),
        ("t7", "valid", 2),
        ("t8", "calibration", 1),
        ("t9", "train", 0),
    ]
    assert read(tmp_path).height == 8


def test_a_feature_in_two_batches_is_refused(tmp_path):
    imported(tmp_path, dashboard([(7, [(["a"], [1.0], TOP)])]))
    with pytest.raises(SourceError, match=r"batch-1\.json: holds layer 0, neuron 7, as .*batch-0\.json does"):
        ns.import_files("saedashboard", _two(tmp_path), tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def _two(folder):
    (folder / "in/batch-1.json").write_text(json.dumps(dashboard([(7, [(["b"], [1.0], TOP)])], sae_set="other")))
    return folder / "in"


def test_of_a_folder_the_batches_are_read_and_the_rest_is_left(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/run_settings.json").write_text("{}")
    assert imported(tmp_path, dashboard([(7, [])])).files == 1


@pytest.mark.skipif(not REAL.exists(), reason="the shared data do not lie beside the project")
def test_a_real_batch_holds_what_a_plain_reader_finds(tmp_path):
    told = ns.import_files("saedashboard", REAL, tmp_path / "out")
    expected, twice = [], 0
    for feature in json.loads(REAL.read_bytes())["features"]:
        records = [
            (a["tokens"], a["values"], (a["bin_min"], a["bin_max"], a["bin_contains"]), None)
            for a in feature["activations"]
        ]
        kept = placed(records)
        twice += len(records) - len(kept)
        expected += [
            (0, feature["feature_index"], at, i, token, float(value), stratum, rank, split, *bins_of(records[at][2]))
            for at, stratum, rank, split in kept
            for i, (token, value) in enumerate(zip(*records[at][:2], strict=True))
        ]
    assert read(tmp_path).drop("model", "sae_set").rows() == expected
    assert told.left_out["records whose tokens their neuron has twice"] == twice == 26
    assert {row[6] for row in expected} == {"top", "random", "bin_1"}


JSON = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.floats(), st.text(max_size=3)),
        *(st.integers(-5, 5), st.sampled_from([2**63, 2**64, -(2**63), 10**400, "9" * 30, "\ud800", 1e308])),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=5,
)


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_wrong_types_in_any_field_are_a_source_error_or_nothing(data):
    batch = dashboard([(7, [(["a", "b"], [1.0, 0.0], TOP), (["c"], [0.5], HIGH)])])
    place = data.draw(st.sampled_from([batch, batch["features"][0], batch["features"][0]["activations"][0]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    with tempfile.TemporaryDirectory() as name:
        try:
            imported(Path(name), batch, executor="local")
        except SourceError as error:
            assert "batch-0.json" in str(error)  # noqa: PT017
