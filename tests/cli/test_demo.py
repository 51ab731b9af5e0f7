"""`nscore demo`: the whole chain on the bundled sample."""

from __future__ import annotations

import contextlib
import io

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from simulation_tables import command, read_json, small_explanations, small_records

import nscore as ns
from nscore.cli import main

TABLES = ["records", "explanations", "simulated", "calibration", "sequence_scores", "scores"]
KEYS = ["layer", "neuron", "simulator", "explanation_id"]
SCORE = "ev_correlation_score"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo, run once: the folder that it wrote to, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    printed, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        code = main(["demo", "-o", str(out)])
    assert (code, complained.getvalue()) == (0, "")
    return out, printed.getvalue()


@pytest.fixture(scope="module")
def tables(demo):
    return {name: pl.read_parquet(demo[0] / f"{name}.parquet") for name in TABLES}


def test_it_writes_its_six_tables_directly_in_the_folder_and_nothing_else(demo):
    assert {path.name for path in demo[0].iterdir()} == {f"{name}.parquet" for name in TABLES}


@pytest.mark.parametrize("name", ["records", "explanations", "simulated", "sequence_scores", "scores"])
def test_each_table_is_valid(demo, name):
    ns.validate(demo[0] / f"{name}.parquet", name)


def test_records_and_explanations_are_the_sample(tables):
    assert_frame_equal(tables["records"], ns.sample.records())
    assert_frame_equal(tables["explanations"], ns.sample.explanations())


def test_the_tables_follow_from_each_other(tables):
    simulated, fitted, sequences = (tables[name] for name in ("simulated", "calibration", "sequence_scores"))
    assert_frame_equal(ns.fit_calibration(simulated), fitted)
    assert_frame_equal(ns.calibrate(simulated, fitted=fitted), simulated)
    assert_frame_equal(ns.score_sequences(simulated), sequences)
    assert_frame_equal(ns.pool(sequences, strata=True), tables["scores"])
    assert_frame_equal(ns.score(simulated, strata=True), tables["scores"])


def test_every_neuron_has_a_score_from_each_simulator(tables):
    neurons = ns.sample.explanations().height
    names = ["constant", "lexical", "shuffled", "token_lookup"]
    assert tables["scores"].group_by("simulator").len().sort("simulator").rows() == [(n, neurons) for n in names]
    assert tables["scores"].select(KEYS).is_unique().all()
    assert tables["scores"]["coverage"].unique().to_list() == [1.0]
    assert tables["scores"][SCORE].is_finite().all()
    assert {f"top_only_{SCORE}", f"random_only_{SCORE}"} <= set(tables["scores"].columns)


def test_only_held_out_records_are_scored(tables):
    assert tables["sequence_scores"]["split"].unique().sort().to_list() == ["test", "valid"]
    assert not tables["simulated"]["shown"].any()


def test_explanations_score_well_above_the_same_explanations_shuffled(tables):
    columns = {c: f"{c}_mean" for c in (SCORE, f"top_only_{SCORE}", f"random_only_{SCORE}")}
    means = tables["scores"].group_by("simulator").agg(pl.col(c).mean().alias(m) for c, m in columns.items())
    mean = {row["simulator"]: row for row in means.iter_rows(named=True)}
    for column in columns.values():
        assert mean["lexical"][column] > 2 * mean["shuffled"][column]
        assert mean["constant"][column] == 0
    assert mean["lexical"][columns[SCORE]] > mean["shuffled"][columns[SCORE]] + 0.25
    own, chance = (tables["scores"].filter(pl.col("simulator") == s).sort(KEYS)[SCORE] for s in ("lexical", "shuffled"))
    assert (own > chance).mean() > 0.8


def test_it_tells_where_the_tables_are_and_what_to_look_at(demo):
    out, printed = demo
    neurons = ns.sample.explanations().height
    assert printed.startswith(f"{neurons} MLP neurons of all-MiniLM-L6-v2, {ns.sample.records().height:,} tokens")
    for name in ("scores", "sequence_scores", "simulated"):
        assert f"{out}/{name}.parquet" in printed
    assert "nscore simulate RECORDS EXPLANATIONS" in printed


@pytest.fixture
def small_sample(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NSCORE_OUT", raising=False)
    monkeypatch.setattr(ns.sample, "records", small_records)
    monkeypatch.setattr(ns.sample, "explanations", small_explanations)
    return tmp_path


def test_its_json_holds_the_spread_of_the_scores_and_the_files(capsys, small_sample):
    code, out, err = command(capsys, "demo", "--json", "-o", "here")
    assert (code, err) == (0, "")
    given = read_json(out)
    assert given["files"] == [f"here/{name}.parquet" for name in TABLES]
    assert {row["simulator"] for row in given["scores"]} == {"constant", "lexical", "shuffled", "token_lookup"}
    assert all(small_sample.joinpath(file).is_file() for file in given["files"])


def test_without_a_folder_it_writes_to_nscore_demo_and_again_over_it(capsys, small_sample):
    for _ in range(2):
        assert command(capsys, "demo")[::2] == (0, "")
        assert {p.name for p in small_sample.joinpath("nscore-demo").iterdir()} == {f"{n}.parquet" for n in TABLES}
