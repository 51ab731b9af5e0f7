"""Runs that an earlier nscore made are opened, verified, made again and replayed: each format has a run in tests/data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from asking import value
from polars.testing import assert_frame_equal
from simulation_tables import command

import nscore as ns
from nscore.run import FORMAT

DATA = Path(__file__).parents[1] / "data"
FORMATS = sorted(int(folder.name.removeprefix("run_format_")) for folder in DATA.glob("run_format_*"))
TABLES = ("simulated.parquet", "requests.parquet")
STATUSES = {"ok": 20, "http_error": 2, "length_mismatch": 1, "parse_error": 1}


@pytest.fixture(params=FORMATS)
def made(request):
    return DATA / f"run_format_{request.param}"


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made / "run", tmp_path / "run")


def files_of(path):
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in sorted(path.rglob("*.*")) if f.is_file()}


def table(path, name):
    return pl.concat([pl.read_parquet(file) for file in sorted((path / name).glob("*.parquet"))])


def test_there_is_a_run_of_every_format():
    assert list(range(1, FORMAT + 1)) == FORMATS


def test_it_opens_and_holds_what_was_answered(made, run):
    simulated, requests = ns.Run(run).simulated().collect(), ns.Run(run).requests().collect()
    assert_frame_equal(simulated, table(made / "run", "simulated.parquet"))
    assert dict(requests["status"].value_counts().rows()) == STATUSES
    assert simulated.height == 96
    known = simulated.filter(pl.col("status") == "ok")
    assert known["predicted"].to_list() == [float(value(token)) for token in known["token"]]
    assert known.height == 80
    assert simulated["predicted"].null_count() == 16
    scores = ns.score(simulated)
    assert scores.select("n_tokens", "n_predicted").sum().row(0) == (64, 56)
    failures = scores["failures"].struct
    assert [failures.field(c).sum() for c in ("length_mismatch", "parse_error", "http_error")] == [4, 4, 0]


def test_it_is_described_and_whole(run, capsys):
    before = files_of(run)
    told = ns.describe(run)
    assert told.settings["format"] in FORMATS
    assert (told.sent, told.replies, told.in_doubt, told.statuses) == (24, 22, 0, STATUSES)
    assert told.spent == pytest.approx(0.020735)
    found = ns.verify(run)
    assert (found.problems, found.replies, found.shards) == ([], 22, 4)
    assert files_of(run) == before
    code, said, _ = command(capsys, "runs", "show", run)
    assert code == 0
    assert "length_mismatch" in said


def test_its_tables_are_made_again_from_its_journal(made, run):
    for name in TABLES:
        shutil.rmtree(run / name)
    ns.rebuild(run)
    for name in TABLES:
        assert_frame_equal(table(run, name), table(made / "run", name))
    assert ns.verify(run).problems == []
    # another Polars may write the same rows as other bytes
    if json.loads((made / "made.json").read_bytes())["polars"] == pl.__version__:
        assert files_of(run) == files_of(made / "run")


def test_what_was_asked_is_answered_again_from_it(made, run, tmp_path):
    again = ns.simulate(
        made / "records.parquet",
        made / "explanations.parquet",
        simulator=["json_list", "tab_list"],
        backend=ns.Replay(run),
        out=tmp_path / "again",
    )
    assert_frame_equal(again.simulated().collect(), ns.Run(run).simulated().collect())
    columns = ["request", "status", "http_status", "error"]
    assert_frame_equal(again.requests().select(columns).collect(), ns.Run(run).requests().select(columns).collect())
