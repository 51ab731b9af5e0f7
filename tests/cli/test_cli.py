"""The command line as a whole: help, exit codes, where a setting comes from, what is loaded, a closed pipe."""

from __future__ import annotations

import os
import subprocess
import sys

import polars as pl
import pytest
from simulation_tables import command, small_explanations, small_records, write_small_tables

import nscore as ns
from nscore.cli import COMMANDS

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with small tables, and no setting from outside."""
    for name in [name for name in os.environ if name.startswith("NSCORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    write_small_tables(tmp_path)
    simulated = ns.simulate(small_records(), small_explanations(), simulator=["constant", "token_lookup"])
    simulated.write_parquet("simulated.parquet")
    return tmp_path


def python(*arguments, stdout=subprocess.PIPE, env=None):
    run = [sys.executable, *arguments]
    return subprocess.run(run, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=env)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_tells_about_itself(capsys, name):
    code, out, err = command(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: nscore {name}")
    assert "--json" in out


def test_help_names_every_command_and_no_command_at_all_is_a_usage_error(capsys):
    code, out, _ = command(capsys, "--help")
    assert code == 0
    assert all(f"\n    {name}" in out for name in COMMANDS)
    assert command(capsys) == (2, out, "")


def test_version(capsys):
    assert command(capsys, "--version") == (0, f"nscore {ns.__version__}\n", "")
    assert python("-m", "nscore", "--version").stdout == f"nscore {ns.__version__}\n"


@pytest.mark.parametrize("run", ["", "main(['--help'])", "main(['--version'])", "main([])"])
def test_help_and_the_import_of_the_package_load_nothing_heavy(run):
    script = f"""import sys, nscore
from nscore.cli import main
try:
    {run or "pass"}
except SystemExit:
    pass
print("loaded:", *sorted({{"polars", "numpy", "pyarrow", "httpx", "tqdm", "pandas"}} & set(sys.modules)))"""
    assert python("-c", script).stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize(
    "arguments",
    [
        ["scores"],
        ["score"],
        ["score", "simulated.parquet"],
        ["score", "simulated.parquet", "-o", "out", "--on-failure", "maybe"],
        ["score", "simulated.parquet", "-o", "out", "--stra"],
        ["simulate", "records.parquet", "-o", "out"],
        ["calibrate", "simulated.parquet", "-o", "out", "--method", "cubic"],
        ["metrics", "more"],
        ["demo", "--nothing"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_tells_the_usage(capsys, arguments):
    code, out, err = command(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: nscore")


def damage(name):
    """Leaves the footer of a Parquet file as it was, so that only reading its rows shows the damage."""
    with open(name, "r+b") as file:  # noqa: PTH123  (in place)
        file.seek(4)
        file.write(b"\xff" * 40)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("score nothing.parquet -o out", "nothing.parquet: no such file"),
        ("score text.parquet -o out", "text.parquet: unreadable"),
        ("score records.parquet -o out", "records.parquet, column 'predicted'"),
        ("score damaged_simulated.parquet -o out", "damaged_simulated.parquet"),
        ("score simulated.parquet no_predictions.parquet -o out", "no_predictions.parquet"),
        ("score simulated.parquet -o text.parquet", "text.parquet"),
        ("score simulated.parquet -o out --metrics pearsn", "Did you mean 'pearson'"),
        ("score simulated.parquet -o out --splits tets", "'tets'"),
        ("score simulated.parquet -o out --by layer,unit", "'unit'"),
        ("score simulated.parquet -o out --weights length", "'length'"),
        ("simulate text.parquet explanations.parquet -o out", "text.parquet: unreadable"),
        ("simulate records.parquet text.parquet -o out", "text.parquet: unreadable"),
        ("simulate records.parquet records.parquet -o out", "records.parquet, column 'explanation_id'"),
        ("simulate damaged_records.parquet explanations.parquet -o out", "damaged_records.parquet"),
        ("simulate records.parquet damaged_explanations.parquet -o out", "damaged_explanations.parquet"),
        ("simulate records.parquet explanations.parquet -o out --simulator lexcal", "Did you mean 'lexical'"),
        ("calibrate text.parquet -o out", "text.parquet: unreadable"),
        ("calibrate records.parquet -o out", "records.parquet, column 'predicted'"),
        ("calibrate damaged_simulated.parquet -o out", "damaged_simulated.parquet"),
        ("calibrate simulated.parquet no_predictions.parquet -o out", "no_predictions.parquet"),
        ("calibrate simulated.parquet -o out --fit-split test", "--fit-on-scored"),
        ("calibrate simulated.parquet -o out --fit-split train", "no row"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_on_stderr_and_exit_code_1(capsys, folder, arguments, said):
    folder.joinpath("text.parquet").write_text("no Parquet")
    pl.read_parquet("simulated.parquet").drop("predicted").write_parquet("no_predictions.parquet")
    for name in ("records", "explanations", "simulated"):
        pl.read_parquet(f"{name}.parquet").write_parquet(f"damaged_{name}.parquet")
        damage(f"damaged_{name}.parquet")
    code, out, err = command(capsys, *arguments.split())
    assert (code, out) == (1, "")
    assert err.startswith(f"nscore {arguments.split()[0]}: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    "arguments", ["score one.parquet --by=", "simulate records.parquet explanations.parquet --simulator="]
)
def test_an_empty_list_of_names_is_refused_in_words(capsys, arguments):
    one = (pl.col("neuron") == 7) & (pl.col("simulator") == "constant")
    pl.read_parquet("simulated.parquet").filter(one).write_parquet("one.parquet")
    code, out, err = command(capsys, *arguments.split(), "-o", "out")
    assert code in {1, 2}
    assert out == ""
    assert arguments.split()[-1].strip("-=") in err


def test_the_same_exit_codes_without_a_traceback_from_a_process():
    wrong = python("-m", "nscore", "score", "nothing.parquet", "-o", "out")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    usage = python("-m", "nscore", "score")
    assert (usage.returncode, usage.stdout) == (2, "")
    done = python("-m", "nscore", "score", "simulated.parquet", "-o", "out", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    small_records().with_columns(split=pl.lit("test")).write_parquet("untaught.parquet")
    small_explanations().drop("shown_sequences").write_parquet("told.parquet")
    arguments = ["untaught.parquet", "told.parquet", "--simulator", "token_lookup", "-o", "out"]
    failed = python("-m", "nscore", "simulate", *arguments)
    assert (failed.returncode, failed.stderr) == (3, "")
    assert "not_run" in failed.stdout


@pytest.mark.parametrize(
    ("called", "arguments"),
    [
        ("nscore.simulate", "simulate records.parquet explanations.parquet -o out"),
        ("nscore.cli.calibrate.with_fits", "calibrate simulated.parquet -o out"),
        ("nscore.score_sequences", "score simulated.parquet -o out"),
        ("nscore.simulate", "demo -o out"),
        ("nscore.cli.metrics.plain_table", "metrics"),
    ],
)
def test_ctrl_c_is_exit_code_130_and_one_line(capsys, monkeypatch, called, arguments):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(called, interrupted)
    expected = f"nscore {arguments.split()[0]}: interrupted\n"
    assert command(capsys, *arguments.split()) == (130, "", expected)


def test_a_write_that_is_interrupted_leaves_the_earlier_file_whole(capsys, folder, monkeypatch):
    assert command(capsys, "score", "simulated.parquet", "-o", "out")[0] == 0
    before = folder.joinpath("out", "scores.parquet").read_bytes()

    def half(_, path, **__):
        path.write(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", half)
    assert command(capsys, "score", "simulated.parquet", "-o", "out")[0] == 130
    assert folder.joinpath("out", "scores.parquet").read_bytes() == before
    assert {file.name for file in folder.joinpath("out").iterdir()} == {"scores.parquet", "sequence_scores.parquet"}


@pytest.mark.parametrize("arguments", ["metrics", "metrics --json", "metrics --markdown"])
def test_head_gets_its_line_and_nobody_complains(arguments):
    line = f"{sys.executable} -m nscore {arguments} | head -1; echo ${{PIPESTATUS[@]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=BUFFERED)
    assert (done.stdout.splitlines()[-1], done.stdout.count("\n"), done.stderr) == ("0 0", 2, "")


@pytest.mark.parametrize(
    "arguments", ["metrics", "score simulated.parquet -o out", "--help", "score --help", "--version"]
)
@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_a_pipe_that_is_closed_from_the_start_is_quiet(arguments, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as closed:
        done = python("-m", "nscore", *arguments.split(), stdout=closed, env=BUFFERED | unbuffered)
    assert (done.returncode, done.stderr) == (0, "")
