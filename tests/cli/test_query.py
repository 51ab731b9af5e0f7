"""`nscore query`: what it prints and writes, what it lists, and how it refuses."""

from __future__ import annotations

import io
import json

import polars as pl
import pytest
from asked_tables import ENGINES, kinds
from polars.testing import assert_frame_equal
from simulation_tables import command, read_json

import nscore as ns
from nscore._sql.cookbook import cookbook

SQL = "SELECT x, y FROM t ORDER BY x"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in ("NSCORE_ENGINE", "NSCORE_FORMAT", "NSCORE_FILE", "NSCORE_JSON", "NSCORE_COOKBOOK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    rows = {"x": [1, 2, 3], "y": ["plain", "\x1b[2J\n", None], "z": [0.5, float("nan"), float("inf")]}
    pl.DataFrame(rows).write_parquet("in/t.parquet")
    kinds().write_parquet("in/kinds.parquet")
    return tmp_path


@pytest.mark.parametrize("engine", ENGINES)
def test_an_answer_is_printed_as_a_table_that_moves_no_cursor(capsys, engine):
    code, out, err = command(capsys, "query", "in", SQL, "--engine", engine)
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["x", "y"],
        ["1", "plain"],
        ["2", r"\x1b[2J\n"],
        ["3", "null"],
    ]


def test_flags_may_stand_before_the_question(capsys):
    code, out, _ = command(capsys, "query", "in", "--json", "SELECT COUNT(*) AS n FROM kinds")
    assert (code, json.loads(out)) == (0, [{"n": 6}])
    for more in (["SELECT 1", "SELECT 2"], ["--jsn"]):
        code, _, err = command(capsys, "query", "in", *more)
        assert (code, err.splitlines()[-1]) == (2, f"nscore: error: unrecognized arguments: {more[-1]}")


def test_the_command_is_the_function(capsys):
    code, _, err = command(capsys, "query", "in", "SELECT * FROM kinds", "-o", "new/out.parquet")
    assert (code, err) == (0, "wrote new/out.parquet: 6 rows\n")
    assert_frame_equal(pl.read_parquet("new/out.parquet"), ns.query("in", "SELECT * FROM kinds"))


def test_csv_and_json_go_to_stdout_or_to_a_file_and_are_the_same(capsys):
    for kind in ("csv", "json"):
        code, out, err = command(capsys, "query", "in", "SELECT * FROM kinds", "--format", kind)
        assert (code, err) == (0, "")
        assert command(capsys, "query", "in", "SELECT * FROM kinds", "-o", f"out.{kind}")[0] == 0
        with open(f"out.{kind}", encoding="utf-8", newline="") as file:  # noqa: PTH123  (as it is)
            assert file.read() == out


def test_json_has_a_row_a_line_and_null_for_what_it_has_no_number_for(capsys):
    _, out, _ = command(capsys, "query", "in", "SELECT * FROM t ORDER BY x", "--json")
    assert read_json(out) == [
        {"x": 1, "y": "plain", "z": 0.5},
        {"x": 2, "y": "\x1b[2J\n", "z": None},
        {"x": 3, "y": None, "z": None},
    ]
    assert len(out.splitlines()) == 3
    row = read_json(command(capsys, "query", "in", "SELECT * FROM kinds WHERE i8 = -128", "--json")[1])[0]
    assert (row["list"], row["counts"], row["day"]) == ([1, 2], {"a": 1, "b": 0.5}, "2020-01-01")
    assert row["raw"] == "00ff"


def test_csv_holds_lists_and_structs_as_json(capsys):
    _, out, _ = command(capsys, "query", "in", "SELECT i8, list, counts, raw, text FROM kinds", "--format", "csv")
    read = pl.read_csv(io.StringIO(out))
    assert json.loads(read["list"][0]) == [1, 2]
    assert json.loads(read["counts"][0]) == {"a": 1, "b": 0.5}
    assert read["raw"][0] == "00ff"
    assert read["i8"].to_list() == kinds()["i8"].to_list()


def test_without_a_question_the_tables_are_listed(capsys):
    code, out, err = command(capsys, "query", "in", "--json")
    assert (code, err) == (0, "")
    assert read_json(out) == [
        {"table": "kinds", "rows": 6, "columns": ", ".join(kinds().columns)},
        {"table": "t", "rows": 3, "columns": "x, y, z"},
    ]


def test_a_question_may_come_from_stdin(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT COUNT(*) AS n\nFROM t;\n"))
    assert read_json(command(capsys, "query", "in", "-", "--json")[1]) == [{"n": 3}]


def test_a_long_answer_is_cut_for_eyes_and_says_so_and_is_whole_elsewhere(capsys):
    pl.DataFrame({"x": range(1500)}).write_parquet("in/long.parquet")
    code, out, err = command(capsys, "query", "in", "SELECT x FROM long")
    assert (code, len(out.splitlines())) == (0, 1001)
    assert err == "(1,000 of 1,500 rows: --format csv, json or parquet has all)\n"
    assert len(command(capsys, "query", "in", "SELECT x FROM long", "--format", "csv")[1].splitlines()) == 1501


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "name a folder"),
        (["in", SQL, "--format", "parquet"], "name a file with -o FILE"),
        (["in", SQL, "-o", "out.txt"], "say which --format"),
        (["in", SQL, "-o", "out.csv", "--format", "table"], "say which --format"),
        (["in", SQL, "--json", "--format", "csv"], "two formats"),
        (["in", SQL, "--engine", "sqlite"], "invalid choice"),
    ],
)
def test_wrong_usage_is_exit_code_2(capsys, flags, said):
    code, out, err = command(capsys, "query", *flags)
    assert (code, out) == (2, "")
    assert err.startswith("usage: nscore query")
    assert said in err


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_is_a_line_and_a_caret_and_exit_code_1(capsys, folder, engine):
    code, out, err = command(capsys, "query", "in", "SELECT x FROM t WHERE )", "--engine", engine)
    assert (code, out) == (1, "")
    first, line, caret = err.splitlines()
    assert first.startswith("nscore query: ")
    assert (line, caret) == ("  SELECT x FROM t WHERE )", f"  {' ' * 22}^" if engine == "polars" else caret)
    assert caret.endswith("^")
    code, _, err = command(capsys, "query", "in", "COPY t TO 'x.csv'", "--engine", engine)
    assert (code, (folder / "x.csv").exists()) == (1, False)
    assert "tables are read here, never written" in err
    code, _, err = command(capsys, "query", "in", "SELECT x FROM nope", "--engine", engine)
    assert (code, "the tables are kinds, t" in err) == (1, True)
    assert command(capsys, "query", "nowhere", SQL, "--engine", engine)[0] == 1


def test_the_cookbook_is_printed_and_each_of_it_can_be_asked_as_printed(capsys):
    code, out, err = command(capsys, "query", "--cookbook")
    assert (code, err) == (0, "")
    printed = out.rstrip("\n").split("\n\n")
    assert printed == [str(recipe) for recipe in cookbook()]
    scores = {"layer": [0], "neuron": [1], "simulator": ["s"], "explanation_id": ["a"], "coverage": [1.0]}
    pl.DataFrame(scores | {"ev_correlation_score": [0.5]}).write_parquet("in/scores.parquet")
    top = next(text for text in printed if text.startswith("-- top:"))
    assert read_json(command(capsys, "query", "in", top, "--json")[1])[0]["score"] == 0.5


def test_engine_and_format_are_settings(capsys, monkeypatch):
    monkeypatch.setenv("NSCORE_FORMAT", "csv")
    monkeypatch.setenv("NSCORE_OUT", "folder of the other commands")
    assert command(capsys, "query", "in", "SELECT 1 AS x") == (0, "x\n1\n", "")
    monkeypatch.setenv("NSCORE_JSON", "true")
    monkeypatch.delenv("NSCORE_FORMAT")
    assert command(capsys, "query", "in", "SELECT 1 AS x") == (0, '[{"x": 1}]\n', "")
    monkeypatch.setenv("NSCORE_ENGINE", "sqlite")
    assert "expected one of auto, duckdb, polars" in command(capsys, "query", "in", SQL)[2]
