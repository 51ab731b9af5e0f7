"""SAEDashboard's batches become records with its bins as strata; what is broken is named."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import polars as pl
import pytest
from dashboard_files import dashboard, drawn, known, placed
from hypothesis import given, settings
from hypothesis import strategies as st

import nscore as ns
from nscore.errors import SourceError

REAL = Path(__file__).parents[3] / "shared/data/formats/saedashboard/batch-1.json"
TOP, HIGH, LOW = (-1, 4.0, -1), (3.0, 4.0, 0.01), (0.0, 1.0, 0.9)


def imported(folder, features, **options):
    (folder / "batch-0.json").write_text(json.dumps(dashboard(features)))
    return ns.import_files("saedashboard", folder / "batch-0.json", folder / "out", **options)


def read(folder, name="records"):
    return pl.read_parquet(folder / f"out/{name}.parquet")


def test_bins_are_strata_and_splits_follow_the_highest_value(tmp_path):
    records = [([f"t{i}", "b"], [float(i), 0.0], TOP) for i in range(1, 6)] + [(["c"], [0.0], LOW)]
    told = imported(tmp_path, [(7, [*records, records[0]])])
    firsts = read(tmp_path).filter(position=0).select("token", "stratum", "split")
    assert sorted(firsts.rows()) == [
        ("c", "random", "calibration"),
        ("t1", "top", "train"),
        ("t2", "top", "test"),
        ("t3", "top", "valid"),
        ("t4", "top", "calibration"),
        ("t5", "top", "train"),
    ]
    assert read(tmp_path, "neurons")["frac_nonzero"].to_list() == [0.25]
    assert (told.neurons, told.records, told.tokens) == (1, 6, 11)
    assert told.left_out == {
        "correlations and alignments of neurons": 1,
        "logits of neurons": 1,
        "records whose tokens their neuron has twice": 1,
    }


@given(st.lists(drawn(), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_records_are_those_that_a_plain_reader_finds(neurons):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        imported(folder, list(enumerate(neurons)))
        expected = {}
        for number, records in enumerate(neurons):
            origin = [(*record, None) for record in records]
            expected[number] = [(records[at], stratum, split) for at, stratum, _, split in placed(origin)]
        there = read(folder) if (folder / "out/records.parquet").exists() else None
        for number, kept in expected.items():
            rows = [] if there is None else there.filter(neuron=number)
            got = (
                []
                if there is None
                else [
                    (list(part["token"]), list(part["activation"]), part["stratum"][0], part["split"][0])
                    for _, part in rows.group_by("sequence", maintain_order=True)
                ]
            )
            plain = [
                (tokens, [float(v) if v is not None and known([v]) else None for v in values], stratum, split)
                for (tokens, values, _), stratum, split in kept
            ]
            assert sorted(got, key=str) == sorted(plain, key=str)


@pytest.mark.skipif(not REAL.exists(), reason="the shared data do not lie beside the project")
def test_a_real_file_is_read_and_scored(tmp_path):
    told = ns.import_files("saedashboard", REAL, tmp_path / "out")
    assert told.neurons > 0
    assert told.tokens == read(tmp_path).height > 0
    ns.validate(tmp_path / "out/records.parquet", "records")
    keys = read(tmp_path).select("layer", "neuron").unique()
    explanations = keys.with_columns(explanation_id=pl.lit("a"), explanation=pl.lit("the"))
    scores = ns.score(ns.simulate(tmp_path / "out/records.parquet", explanations))
    assert scores.height > 0


WRONG = {
    "no JSON": b"{",
    "Object missing required field `features`": b"{}",
    "2 tokens and 1 values": json.dumps(dashboard([(1, [(["a", "b"], [1.0], TOP)])])).encode(),
    "Expected `float": json.dumps(dashboard([(1, [(["a"], ["x"], TOP)])])).encode(),
    "Expected `int`": json.dumps(dashboard([("one", [])])).encode(),
}


@pytest.mark.parametrize("found", WRONG)
def test_a_broken_file_is_named(tmp_path, found):
    (tmp_path / "batch-1.json").write_bytes(WRONG[found])
    with pytest.raises(SourceError, match=r"batch-1\.json") as caught:
        ns.import_files("saedashboard", tmp_path / "batch-1.json", tmp_path / "out")
    assert found.split(" and ")[0] in str(caught.value)


GOOD = json.dumps(dashboard([(1, [(["a", "b"], [1.0, 0.0], HIGH)])])).encode()


@given(st.binary(max_size=50) | st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=2)))
@settings(max_examples=150, deadline=None)
def test_whatever_a_file_holds_is_read_or_is_a_typed_error(change):
    content = change if isinstance(change, bytes) else GOOD[: change[0]] + change[1] + GOOD[change[0] + 1 :]
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "batch-0.json").write_bytes(content)
        told = ns.import_files(
            "saedashboard", Path(name) / "batch-0.json", Path(name) / "out", on_error="skip", executor="local"
        )
        assert told.files + len(told.skipped) == 1
