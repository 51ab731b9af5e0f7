"""`nscore import`: what was read is printed, broken files are named, and options go to their format."""

from __future__ import annotations

import json

import polars as pl
import pytest
from openai_files import record, written

from nscore.cli import main


def neuron(folder, i):
    return written(folder, 0, i, {"random_sample": [record(["a", "b"], [0.0, 1.0])] * 6})


def test_what_was_read_is_printed(tmp_path, capsys):
    for i in range(3):
        neuron(tmp_path / "in", i)
    assert main(["import", "openai", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "3 files: 3 neurons, 18 records, 36 tokens, 0 explanations"
    assert printed[1] == f"wrote {tmp_path}/out/records.parquet: 36 rows"


def test_broken_files_that_are_skipped_are_named_and_the_exit_code_says_so(tmp_path, capsys):
    neuron(tmp_path / "in", 1)
    (tmp_path / "in/0/2.json").write_text("[")
    given = ["import", "openai", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main(given) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"nscore import: {tmp_path}/in/0/2.json: no JSON")
    assert error.count("\n") == 1
    assert main([*given, "--on-error", "skip", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["skipped"][0][0] == f"{tmp_path}/in/0/2.json"
    assert told["tables"] == {"records": 12, "neurons": 1, "skipped": 1}


def test_options_go_to_their_format_and_others_are_refused(tmp_path, capsys):
    neuron(tmp_path / "in", 1)
    given = ["import", "openai", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main([*given, "--top", "3"]) == 1
    assert "top: openai has no such option; it has per_split, distribution" in capsys.readouterr().err
    assert main([*given, "--per-split", "1"]) == 0
    assert pl.read_parquet(tmp_path / "out/records.parquet").height == 6


def test_a_table_of_other_column_names_is_read(tmp_path):
    pl.DataFrame({"feature": [7, 7], "act": [0.5, 1.0], "token": ["a", "b"], "sequence": 1}).write_csv(
        tmp_path / "a.csv"
    )
    given = ["import", "table", str(tmp_path / "a.csv"), "-o", str(tmp_path / "out"), "--constants", "layer=5"]
    assert main([*given, "--columns", "neuron=feature,activation=act"]) == 0
    row = pl.read_parquet(tmp_path / "out/records.parquet").row(1, named=True)
    assert {k: row[k] for k in ("layer", "neuron", "sequence", "position", "token", "activation")} == {
        "layer": 5,
        "neuron": 7,
        "sequence": 1,
        "position": 1,
        "token": "b",
        "activation": 1.0,
    }


def test_an_unknown_format_lists_the_formats(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["import", "opnai", "x", "-o", str(tmp_path)])
    assert "openai" in capsys.readouterr().err
