"""A setting is a flag, else the environment, else `nscore.toml`, else the default."""

from __future__ import annotations

import os

import polars as pl
import pytest
from asking import serve
from simulation_tables import command, read_json, small_explanations, small_records, write_small_tables

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


ASK = ["simulate", "records.parquet", "explanations.parquet", "-o", "run", "--json"]


@pytest.fixture
def asking(folder):
    """A model server, and a file that says to ask it for numbers and whole numbers, a choice, a price and a path."""
    write_small_tables(folder)
    with serve() as server:
        folder.joinpath("nscore.toml").write_text(f"""
            [simulate]
            simulator = "json_list"
            base-url = "{server.base_url}"
            model = "tiny"
            pack = 2
            limit = 4
            price = "1,2"
            max-cost = 100
            timeout_s = 7.5
            long_records = "cut"
            keep = "needed"
            extra = '{{"user": "someone"}}'
        """)
        yield server


def test_numbers_choices_and_prices_of_the_file_are_those_of_the_flags(capsys, folder, asking):
    code, out, err = command(capsys, *ASK, "--dry-run")
    assert (code, err) == (0, "")
    told = read_json(out)
    assert told["requests"] == 4
    assert told["price"] == pytest.approx((told["prompt_tokens"] + 2 * told["completion_tokens"]) / 1e6)
    assert command(capsys, *ASK)[0] == 0
    assert ns.Run(folder / "run").settings()["simulators"][0]["long_records"] == "cut"
    assert {received.body["user"] for received in asking.requests} == {"someone"}
    requests = ns.Run(folder / "run").requests().collect()
    assert requests["sequences"].list.len().to_list() == [2] * 4
    assert requests["price"].null_count() == 0


def test_numbers_choices_and_switches_of_the_environment_go_before_those_of_the_file(
    capsys, folder, asking, monkeypatch
):
    for name, value in {
        "LIMIT": "3",
        "PRICE": "10,20,1",
        "TEMPERATURE": "0.25",
        "LONG_RECORDS": "refuse",
        "DRY_RUN": "1",
        "REQUESTS_PER_MINUTE": "1.5",
    }.items():
        monkeypatch.setenv(f"NSCORE_{name}", value)
    told = read_json(command(capsys, *ASK)[1])
    assert (told["requests"], told["duration_s"]) == (3, 120)
    assert told["price"] == pytest.approx((10 * told["prompt_tokens"] + 20 * told["completion_tokens"]) / 1e6)
    assert read_json(command(capsys, *ASK, "--limit", "2")[1])["requests"] == 2
    assert asking.n_requests == 0
    monkeypatch.setenv("NSCORE_DRY_RUN", "0")
    monkeypatch.delenv("NSCORE_REQUESTS_PER_MINUTE")
    assert command(capsys, *ASK)[0] == 0
    run = ns.Run(folder / "run").settings()["simulators"][0]
    assert (run["long_records"], run["temperature"], run["pack"]) == ("refuse", 0.25, 2)


def test_an_earlier_run_that_is_replayed_may_be_a_setting(capsys, asking, monkeypatch):
    assert command(capsys, *ASK)[0] == 0
    monkeypatch.setenv("NSCORE_REPLAY", "run")
    before = asking.n_requests
    assert command(capsys, *ASK[:-2], "again", "--json")[0] == 0
    assert asking.n_requests == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("LIMIT=2.5", "expected a whole number"),
        ("PACK=many", "expected a whole number"),
        ("MAX_COST=much", "expected a number"),
        ("PRICE=1", "expected IN,OUT[,CACHED]"),
        ("PRICE=a,b", "expected IN,OUT[,CACHED]"),
        ("LONG_RECORDS=drop", "expected one of refuse, cut"),
        ("KEEP=none", "expected one of raw, needed"),
        ("DRY_RUN=perhaps", "expected true or false"),
        ("DISTRIBUTION=perhaps", "expected true or false"),
    ],
)
def test_a_wrong_number_or_choice_in_the_environment_is_named(capsys, asking, monkeypatch, given, said):
    name, value = given.split("=")
    monkeypatch.setenv(f"NSCORE_{name}", value)
    code, out, err = command(capsys, *ASK)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"nscore simulate: NSCORE_{name}: found '{value}'")
    assert said in err
    assert asking.n_requests == 0


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("limit = 2.5", "found 2.5, expected a whole number"),
        ("pack = true", "found True, expected a whole number"),
        ("concurrency = '8x'", "found '8x', expected a whole number"),
        ("price = [1, 2]", "found [1, 2], expected IN,OUT[,CACHED]"),
        ("max-cost = 'much'", "found 'much', expected a number"),
        ("api-key = 'sk-1'", "no setting is called 'api_key'"),
        ("records = 'a.parquet'", "no setting is called 'records'"),
    ],
)
def test_a_wrong_number_in_the_file_is_named(capsys, folder, setting, said):
    folder.joinpath("nscore.toml").write_text(f"[simulate]\n{setting}")
    code, out, err = command(capsys, *ASK)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("nscore simulate: nscore.toml, [simulate]")
    assert said in err
