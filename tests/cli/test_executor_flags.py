"""`nscore simulate` on workers, and with several servers: the flags, and what they come to."""

from __future__ import annotations

import argparse

import polars as pl
import pytest
from asking import asked, correct, serve
from polars.testing import assert_frame_equal
from simulation_tables import command, enter

import nscore as ns
from nscore.backends import members_of
from nscore.cli._backend import add_backend, backend_of


def backend(*flags):
    parser = argparse.ArgumentParser()
    add_backend(parser)
    return backend_of(parser.parse_args(["--model", "m", *flags]))


def servers(*flags):
    return [(member.url, weight) for member, weight in members_of(backend(*flags))]


def test_several_base_urls_are_servers_with_weights():
    assert servers("--base-url", "http://a/v1") == [("http://a/v1", 1.0)]
    assert servers("--base-url", "http://a/v1", "--base-url", "http://b/v1=2.5") == [
        ("http://a/v1", 1.0),
        ("http://b/v1", 2.5),
    ]
    assert servers("--base-url", "http://a/v1=3 http://b/v1") == [("http://a/v1", 3.0), ("http://b/v1", 1.0)]
    assert backend("--base-url", "http://a/v1").settings()["base_url"] == "http://a/v1"
    assert backend("--base-url", "http://a/v1?n=2").address == "http://a/v1?n=2"  # that is its query
    with pytest.raises(ns.BackendError, match="named twice"):
        backend("--base-url", "http://a/v1", "--base-url", "http://a/v1")
    with pytest.raises(ns.BackendError, match="numbers above 0"):
        backend("--base-url", "http://a/v1", "--base-url", "http://b/v1=0")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    monkeypatch.setenv("OPENAI_API_KEY", "canary-key-1")


def line(*flags, simulator="json_list"):
    return ["simulate", "records.parquet", "explanations.parquet", "--simulator", simulator, "-o", "run", *flags]


def test_a_file_may_name_servers_and_flags_take_their_place(capsys, tmp_path):
    with serve() as one, serve() as other:
        (tmp_path / "nscore.toml").write_text(f"[simulate]\nbase-url = '{one.base_url} {other.base_url}=1'\n")
        code, out, err = command(capsys, *line("--model", "tiny"))
        assert (code, err) == (0, ""), (out, err)
        assert asked(one) + asked(other) == 15
        assert one.n_requests > asked(one)  # each was probed
        assert other.n_requests > asked(other)
        before = asked(other)
        assert command(capsys, *line("--model", "tiny", "--base-url", one.base_url, "-o", "again"))[0] == 0
        assert asked(other) == before


def test_workers_are_named_by_flags(capsys):
    with serve() as server:
        asking = ["--model", "tiny", "--base-url", server.base_url]
        code, out, err = command(capsys, *line(*asking, "--executor", "processes", "--workers", "2"))
    assert (code, err) == (0, "")
    assert "wrote run/simulated.parquet" in out
    assert correct(ns.Run("run").simulated().collect())


def test_simulators_that_ask_nobody_take_the_same_flags(capsys):
    code, _, err = command(capsys, *line("--executor", "processes", "--workers", "2", simulator="lexical"))
    assert (code, err) == (0, "")
    found = pl.read_parquet("run/simulated.parquet")
    assert_frame_equal(found, ns.simulate("records.parquet", "explanations.parquet").collect())
    code, _, err = command(capsys, *line("--workers", "2", simulator="lexical"))
    assert code == 1
    assert "workers: the executor local has no such option" in err
