"""A setting is a flag, else the environment, else `nscore.toml`, else the default."""

from __future__ import annotations

import os

import polars as pl
import pytest
from simulation_tables import command, small_explanations, small_records

import nscore as ns


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with a simulated table, and no setting from outside."""
    for name in [name for name in os.environ if name.startswith("NSCORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    simulated = ns.simulate(small_records(), small_explanations(), simulator=["constant", "token_lookup"])
    simulated.write_parquet("simulated.parquet")
    return tmp_path


def score(capsys, *arguments):
    return command(capsys, "score", "simulated.parquet", *arguments)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, "linear"),
        ({"file": "percentile"}, "percentile"),
        ({"environment": "percentile"}, "percentile"),
        ({"file": "percentile", "environment": "none"}, "none"),
        ({"file": "percentile", "flag": "none"}, "none"),
        ({"environment": "percentile", "flag": "linear"}, "linear"),
        ({"file": "percentile", "environment": "none", "flag": "linear"}, "linear"),
    ],
)
def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(
    capsys, folder, monkeypatch, given, used
):
    if "file" in given:
        folder.joinpath("nscore.toml").write_text(f"[calibrate]\nmethod = '{given['file']}'")
    if "environment" in given:
        monkeypatch.setenv("NSCORE_METHOD", given["environment"])
    flags = ["--method", given["flag"]] if "flag" in given else []
    assert command(capsys, "calibrate", "simulated.parquet", "-o", "out", *flags)[0] == 0
    assert pl.read_parquet("out/calibration.parquet")["method"].unique().to_list() == [used]


@pytest.mark.parametrize("metrics", ['"pearson, cosine"', '["pearson", "cosine"]'])
def test_lists_in_the_file_are_lists_or_separated_by_commas(capsys, folder, metrics):
    folder.joinpath("nscore.toml").write_text(f"[score]\nmetrics = {metrics}\nout = 'here'\non-failure = 'zero'")
    assert score(capsys)[0] == 0
    assert pl.read_parquet("here/scores.parquet").columns[-2:] == ["pearson", "cosine"]
    assert pl.read_parquet("here/sequence_scores.parquet")["on_failure"].unique().to_list() == ["zero"]


def test_a_setting_of_the_environment_stands_for_a_required_flag(capsys, folder, monkeypatch):
    monkeypatch.setenv("NSCORE_OUT", "there")
    monkeypatch.setenv("NSCORE_METRICS", "spearman,pearson")
    assert score(capsys)[0] == 0
    assert pl.read_parquet(folder / "there" / "scores.parquet").columns[-2:] == ["spearman", "pearson"]


@pytest.mark.parametrize(("value", "on"), [("1", True), ("true", True), ("yes", True), ("0", False), ("false", False)])
def test_a_switch_is_turned_on_and_off_by_the_environment(capsys, monkeypatch, value, on):
    monkeypatch.setenv("NSCORE_STRATA", value)
    assert score(capsys, "-o", "out")[0] == 0
    assert ("top_only_rsquared_score" in pl.read_parquet_schema("out/scores.parquet")) is on


def test_the_environment_turns_off_what_the_file_turns_on_and_a_flag_turns_it_on_again(capsys, folder, monkeypatch):
    folder.joinpath("nscore.toml").write_text("[score]\nstrata = true\nout = 'out'")
    for environment, flags, on in [(None, [], True), ("0", [], False), ("0", ["--strata"], True)]:
        if environment:
            monkeypatch.setenv("NSCORE_STRATA", environment)
        assert score(capsys, *flags)[0] == 0
        assert ("top_only_rsquared_score" in pl.read_parquet_schema("out/scores.parquet")) is on


def test_the_table_of_one_command_says_nothing_to_another(capsys, folder):
    folder.joinpath("nscore.toml").write_text("[calibrate]\nmethod = 'percentile'\n[simulate]\nby = ['unit']")
    assert score(capsys, "-o", "out")[0] == 0
    assert command(capsys, "metrics")[0] == 0


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[score", "table declaration"),
        ("[score]\nmetric = 'pearson'", "no setting is called 'metric'; there are: out, by, metrics"),
        ("[score]\nsimulated = 'a.parquet'", "no setting is called 'simulated'"),
        ("[score]\nhelp = true", "no setting is called 'help'"),
        ("[score]\non_failure = 'maybe'", "found 'maybe', expected one of drop, zero"),
        ("[score]\non_failure = 1", "found 1, expected one of drop, zero"),
        ("[score]\nstrata = 'maybe'", "strata"),
        ("[score]\nout = ['a', 'b']", "out"),
        ("[score]\nby = [1, 2]", "by"),
        ("[score]\nweights = 3", "weights"),
        ("score = 3", "score"),
        ("score = ['a']", "score"),
    ],
)
def test_what_is_wrong_in_the_file_is_one_line_that_names_the_file_and_the_setting(capsys, folder, toml, said):
    folder.joinpath("nscore.toml").write_text(toml)
    flags = [] if "out = " in toml else ["-o", "out"]
    code, out, err = score(capsys, *flags)
    assert (code, out) == (1, "")
    assert err.startswith("nscore score: nscore.toml")
    assert err.count("\n") == 1
    assert said in err


def test_a_file_that_is_no_utf_8_is_told_so(capsys, folder):
    folder.joinpath("nscore.toml").write_bytes(b"[score]\nout = '\xff'")
    code, _, err = score(capsys)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("nscore score: nscore.toml: ")


@pytest.mark.parametrize(("name", "value"), [("NSCORE_ON_FAILURE", "maybe"), ("NSCORE_STRATA", "maybe")])
def test_a_wrong_value_in_the_environment_is_named(capsys, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    code, out, err = score(capsys, "-o", "out")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"nscore score: {name}: found 'maybe'")
