"""Whole files with wrong tables in them: one line that names the file, the row, the column and the mend, and code 1."""

from __future__ import annotations

import math

import polars as pl
import pytest
from tables import explanations, records, simulated

from nscore.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records(split=["calibration"] * 3 + ["test"] * 3).write_parquet("records.parquet")
    explanations(shown_sequences=[[9], [9]]).write_parquet("explanations.parquet")
    simulated().with_columns(status=pl.lit("ok")).write_parquet("simulated.parquet")


COMMANDS = {
    "records": "simulate wrong.parquet explanations.parquet",
    "explanations": "simulate records.parquet wrong.parquet",
    "simulated, scored": "score wrong.parquet",
    "simulated, calibrated": "calibrate wrong.parquet",
}
NESTED = {
    "a list": lambda c: pl.concat_list(c).alias(c),
    "a struct": lambda c: pl.struct(c).alias(c),
    "bytes": lambda c: pl.lit(b"\xff\xfe").alias(c),
}


def refused(capsys, command):
    """What a command says as it fails, in one line."""
    assert main([*command.split(), "-o", "out"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"nscore {command.split()[0]}: ")
    assert told.err.count("\n") == 1
    return told.err


def table(kind):
    return pl.read_parquet(f"{kind.split(',', maxsplit=1)[0]}.parquet")


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_column_that_is_missing_is_named_with_its_file_and_what_is_needed(capsys, kind):
    needed = {"layer", "neuron", "sequence", "position", "token", "activation", "predicted", "explanation"}
    optional = {"position", "token"} if kind.startswith("simulated") else set()
    for column in needed - optional:
        if column in table(kind).columns:
            table(kind).drop(column).write_parquet("wrong.parquet")
            said = refused(capsys, COMMANDS[kind])
            assert f"wrong.parquet, column '{column}': missing column: the columns are " in said
            assert f"A table of {kind.split(',')[0]} needs " in said


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("form", NESTED)
def test_a_column_of_lists_structs_or_bytes_is_named_with_its_file_and_the_mend(capsys, kind, form):
    may_be_bytes = {"layer", "neuron", "sequence", "explanation_id"} if form == "bytes" else set()
    for column in set(table(kind).columns) - {"shown_sequences"} - may_be_bytes:
        table(kind).with_columns(NESTED[form](column)).write_parquet("wrong.parquet")
        said = refused(capsys, COMMANDS[kind])
        assert f"wrong.parquet, column '{column}': wrong dtype: found " in said
        assert any(mend in said for mend in ("Cast it: ", "explode the lists first", "make one value of it"))


@pytest.mark.parametrize("kind", ["records", "simulated, scored"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_named_with_its_row(capsys, kind, value):
    row = pl.int_range(pl.len()) == 4
    for column in {"activation", "predicted"} & set(table(kind).columns):
        spoilt = pl.when(row).then(pl.lit(value)).otherwise(column).alias(column)
        table(kind).with_columns(spoilt).write_parquet("wrong.parquet")
        said = refused(capsys, COMMANDS[kind])
        assert f"wrong.parquet, row 4, column '{column}': " in said
        assert f"found {value}, expected a finite number" in said


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_not_calibrated_on(capsys, value):
    spoilt = pl.when(pl.int_range(pl.len()) == 1).then(pl.lit(value)).otherwise("predicted").alias("predicted")
    table("simulated").with_columns(spoilt).write_parquet("wrong.parquet")
    assert "wrong.parquet, row 1, column 'predicted': non-finite value" in refused(capsys, "calibrate wrong.parquet")


@pytest.mark.parametrize("kind", ["records", "simulated, scored"])
def test_rows_that_stand_twice_or_are_missing_are_named(capsys, kind):
    whole = table(kind)
    pl.concat([whole, whole]).write_parquet("wrong.parquet")
    place = f"wrong.parquet, row {whole.height}, column 'position': duplicate position: "
    assert place in refused(capsys, COMMANDS[kind])
    whole.filter(pl.int_range(pl.len()) != 1).write_parquet("wrong.parquet")
    assert "wrong.parquet, row 1, column 'position': gap in positions: found 2 after 0 " in refused(
        capsys, COMMANDS[kind]
    )


def test_explanations_that_stand_twice_or_are_empty_are_named(capsys):
    whole = table("explanations")
    pl.concat([whole, whole]).write_parquet("wrong.parquet")
    assert "wrong.parquet, row 2: repeated row: " in refused(capsys, COMMANDS["explanations"])
    whole.with_columns(explanation=pl.Series(["a", " "])).write_parquet("wrong.parquet")
    assert "wrong.parquet, row 1, column 'explanation': empty" in refused(capsys, COMMANDS["explanations"])
    whole.clear().write_parquet("wrong.parquet")
    assert "wrong.parquet: nothing to simulate: " in refused(capsys, COMMANDS["explanations"])


def test_a_split_that_nobody_knows_is_named_with_its_row(capsys):
    for kind in ("records", "simulated, scored"):
        rows = table(kind).with_columns(split=pl.col("split").replace("test", "tset"))
        rows.write_parquet("wrong.parquet")
        assert "wrong.parquet, row 3, column 'split': unknown split: found 'tset'" in refused(capsys, COMMANDS[kind])


@pytest.mark.parametrize("command", ["score", "calibrate"])
@pytest.mark.parametrize("column", ["layer", "sequence", "activation", "predicted", "explanation_id"])
@pytest.mark.parametrize("dtype", [pl.Int8, pl.Date, pl.Categorical])
def test_of_two_files_the_one_with_another_dtype_is_named_and_its_column(capsys, command, column, dtype):
    whole = table("simulated")
    whole[:6].write_parquet("first.parquet")
    other = pl.lit("1").cast(dtype) if dtype == pl.Categorical else pl.lit(1).cast(dtype)
    whole[6:].with_columns(other.alias(column)).write_parquet("second.parquet")
    said = refused(capsys, f"{command} first.parquet second.parquet")
    assert f"second.parquet, column '{column}': wrong dtype: found " in said
    assert f"in first.parquet it is {whole[column].dtype}" in said
    assert f"Cast the column, pl.col('{column}').cast(pl.{whole[column].dtype})" in said


@pytest.mark.parametrize("command", ["score", "calibrate"])
def test_of_two_files_the_one_without_a_column_is_named(capsys, command):
    whole = table("simulated")
    whole[:6].write_parquet("first.parquet")
    whole[6:].drop("predicted").write_parquet("second.parquet")
    said = refused(capsys, f"{command} first.parquet second.parquet")
    assert "second.parquet, column 'predicted': missing column: it is not there; in first.parquet it is Float64" in said


def test_keys_that_are_bytes_match_no_numbers(capsys):
    for kind in ("records", "explanations"):
        table(kind).with_columns(layer=pl.lit(b"\xff")).write_parquet("wrong.parquet")
        assert "nothing to simulate: no explanation is of a neuron that has records" in refused(capsys, COMMANDS[kind])


@pytest.mark.parametrize("dtype", [pl.Categorical, pl.Enum(["0", "7"]), pl.String, pl.Int8, pl.Float64])
def test_keys_of_the_explanations_may_be_written_otherwise(capsys, dtype):
    text = dtype not in (pl.Int8, pl.Float64)
    keys = [(pl.col(c).cast(pl.String) if text else pl.col(c)).cast(dtype) for c in ("layer", "neuron")]
    table("explanations").with_columns(keys).write_parquet("told.parquet")
    assert main(["simulate", "records.parquet", "told.parquet", "-o", "out"]) == 0
    assert pl.read_parquet("out/simulated.parquet").height == 12
    capsys.readouterr()
