"""Each command: it equals the Python function it stands for, writes readable Parquet, and sums up."""

from __future__ import annotations

import os

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from simulation_tables import command, read_json, small_explanations, small_records, write_small_tables

import nscore as ns
from nscore.metrics import CATALOGUE, DEFAULT
from nscore.records import FAILING


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with small tables, and no setting from outside."""
    for name in [name for name in os.environ if name.startswith("NSCORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    write_small_tables(tmp_path)
    with_failures().write_parquet("simulated.parquet")
    return tmp_path


def with_failures():
    """A simulated table in which some tokens have no prediction, and each record a weight."""
    simulated = ns.simulate(small_records(), small_explanations(), simulator=["token_lookup", "constant"])
    failed = (pl.col("position") == 1) & (pl.col("sequence") % 3 == 0)
    return simulated.with_columns(
        pl.when(~failed).then("predicted").alias("predicted"),
        pl.when(failed).then(pl.lit("refused")).otherwise("status").alias("status"),
        (pl.col("sequence") + 0.5).alias("weight"),
    )


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {}),
        (["--strata"], {"strata": True}),
        (["--metrics", "all"], {"metrics": "all"}),
        (["--metrics", "spearman, pearson", "--strata"], {"metrics": ["spearman", "pearson"], "strata": True}),
        (["--on-failure", "zero"], {"on_failure": "zero"}),
        (["--splits", "calibration,test"], {"splits": ["calibration", "test"]}),
        (["--weights", "weight"], {"weights": "weight"}),
        (["--weights", "weight", "--metrics", "all"], {"weights": "weight", "metrics": "all"}),
        (["--by", "simulator,layer,neuron"], {"by": ["simulator", "layer", "neuron"]}),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_score_writes_what_the_python_functions_give(capsys, flags, options):
    assert command(capsys, "score", "simulated.parquet", "-o", "out", *flags)[::2] == (0, "")
    assert_frame_equal(pl.read_parquet("out/scores.parquet"), ns.score(with_failures(), **options), check_exact=True)
    of_records = {key: value for key, value in options.items() if key not in {"strata", "weights"}}
    if "weights" in options:
        of_records["keep"] = [options["weights"]]
    expected = ns.score_sequences(with_failures(), **of_records)
    assert_frame_equal(pl.read_parquet("out/sequence_scores.parquet"), expected, check_exact=True)
    ns.validate("out/scores.parquet", "scores", by=options.get("by"))
    ns.validate("out/sequence_scores.parquet", "sequence_scores", by=options.get("by"))


def test_score_takes_several_paths_a_folder_and_a_glob_as_one_table(capsys, folder):
    folder.joinpath("parts").mkdir()
    for i, part in enumerate(with_failures().partition_by("neuron")):
        part.write_parquet(f"parts/{i}.parquet")
    expected = ns.score(with_failures())
    files = [f"parts/{i}.parquet" for i in range(3)]
    for paths in (files, ["parts"], ["parts/*.parquet"], [files[2], "parts/[01].parquet"]):
        assert command(capsys, "score", *paths, "-o", "out")[0] == 0
        assert_frame_equal(pl.read_parquet("out/scores.parquet"), expected)


def test_score_sums_up_counts_coverage_and_quantiles(capsys):
    code, out, _ = command(capsys, "score", "simulated.parquet", "-o", "out", "--json")
    given, scores = read_json(out), pl.read_parquet("out/scores.parquet")
    assert code == 0
    assert (given["explanations"], given["records"]) == (6, scores["n_sequences"].sum())
    assert (given["tokens"], given["predicted"]) == tuple(scores.select("n_tokens", "n_predicted").sum().row(0))
    assert given["coverage"] == given["predicted"] / given["tokens"] < 1
    assert given["files"] == ["out/scores.parquet", "out/sequence_scores.parquet"]
    assert [(row["simulator"], row["score"], row["n"]) for row in given["scores"]] == [
        (name, score, 3) for name in ("constant", "token_lookup") for score in DEFAULT
    ]
    lookup = scores.filter(pl.col("simulator") == "token_lookup")["ev_correlation_score"]
    row = given["scores"][3]
    assert (row["mean"], row["0%"], row["100%"]) == pytest.approx((lookup.mean(), lookup.min(), lookup.max()))
    text = command(capsys, "score", "simulated.parquet", "-o", "out")[1]
    assert text.startswith(
        f"3 neurons, 6 rows of scores, {given['records']} records, {given['tokens']} tokens; coverage "
    )
    assert "wrote out/scores.parquet" in text


def test_score_tells_which_explanations_are_flagged_and_what_failed(capsys):
    here = (pl.col("neuron") == 7) & (pl.col("position") > 1)
    table = with_failures().with_columns(
        predicted=pl.when(~here).then("predicted"), status=pl.when(~here).then("status")
    )
    table.write_parquet("simulated.parquet")
    lost = pl.col("predicted").is_null() & pl.col("split").is_in(["valid", "test"])
    n, n_here = (table.filter(lost & rows).height for rows in (pl.lit(value=True), here))
    scores = ns.score(table)
    n_low = scores.filter(pl.col("coverage") < 0.95).height
    assert n > n_here > n - n_here > 0
    assert n_low >= 2
    text = command(capsys, "score", "simulated.parquet", "-o", "out")[1]
    tokens = scores["n_tokens"].sum()
    assert text.splitlines()[1] == (
        f"{n_low} of {scores.height} explanations have less than 95% coverage (low_coverage); "
        f"{n} of {tokens} tokens have no prediction: {n_here} not_run, {n - n_here} refused"
    )
    given = read_json(command(capsys, "score", "simulated.parquet", "-o", "out", "--json")[1])
    assert given["low_coverage"] == n_low
    assert given["failures"] == dict.fromkeys(FAILING, 0) | {"refused": n - n_here, "not_run": n_here}


def test_score_says_nothing_of_failures_where_there_are_none(capsys):
    kept = ns.simulate(small_records(), small_explanations(), simulator="constant")
    kept.write_parquet("whole.parquet")
    text = command(capsys, "score", "whole.parquet", "-o", "out")[1]
    assert text.splitlines()[1] == ""
    assert "low_coverage" not in text
    given = read_json(command(capsys, "score", "whole.parquet", "-o", "out", "--json")[1])
    assert (given["low_coverage"], given["failures"]) == (0, dict.fromkeys(FAILING, 0))


def test_failures_without_a_flag_are_told_all_the_same(capsys):
    few = pl.col("position").cum_count() == 1
    kept = ns.simulate(small_records(), small_explanations(), simulator="constant", splits=["test"])
    table = kept.with_columns(
        predicted=pl.when(~few).then("predicted"), status=pl.when(few).then(pl.lit("truncated")).otherwise("status")
    ).with_columns(neuron=0, sequence=pl.struct("neuron", "sequence").rank("dense"), explanation_id=pl.lit("a"))
    table.write_parquet("one.parquet")
    text = command(capsys, "score", "one.parquet", "-o", "out")[1]
    assert text.splitlines()[1] == f"1 of {table.height} tokens have no prediction: 1 truncated"


def test_tables_are_written_with_the_number_of_their_format(capsys):
    assert command(capsys, "score", "simulated.parquet", "-o", "out")[0] == 0
    assert command(capsys, "calibrate", "simulated.parquet", "-o", "out")[0] == 0
    for name in ("scores", "sequence_scores", "simulated", "calibration"):
        assert pl.read_parquet_metadata(f"out/{name}.parquet")["nscore.format"] == "1"


def test_a_folder_that_cannot_be_written_is_one_line(capsys, folder):
    folder.joinpath("out").mkdir()
    folder.joinpath("out", ".scores.parquet.part").mkdir()
    code, out, err = command(capsys, "score", "simulated.parquet", "-o", "out")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "out/scores.parquet: cannot write it" in err


def test_scores_that_are_undefined_are_counted_and_the_json_stays_json(capsys):
    with_failures().with_columns(activation=pl.lit(0.0)).write_parquet("silent.parquet")
    code, out, _ = command(capsys, "score", "silent.parquet", "-o", "out", "--metrics", "all", "--json")
    assert code == 0
    undefined = {row["score"]: row["undefined"] for row in read_json(out)["scores"]}
    assert undefined["pearson"] == undefined["auroc"] == 3
    assert undefined["coverage"] == 0


def test_score_refuses_what_its_author_was_shown_unless_it_is_allowed(capsys):
    with_failures().drop("shown").write_parquet("unmarked.parquet")
    leaking = small_explanations().with_columns(shown_sequences=pl.concat_list(pl.lit(6)))
    leaking.write_parquet("leaking.parquet")
    told = ["score", "unmarked.parquet", "-o", "out", "--explanations"]
    assert command(capsys, *told, "explanations.parquet")[0] == 0
    code, out, err = command(capsys, *told, "leaking.parquet")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "--leaks allow" in err
    assert command(capsys, *told, "leaking.parquet", "--leaks", "allow")[0] == 0


def test_simulate_writes_what_the_python_function_gives(capsys):
    names = ["constant", "shuffled_token_lookup", "token_lookup"]
    flags = ["--simulator", ",".join(names), "--splits", "calibration,test", "-o", "new/out"]
    code, out, err = command(capsys, "simulate", "records.parquet", "explanations.parquet", *flags)
    assert (code, err) == (0, "")
    assert all(name in out for name in names)
    expected = ns.simulate(small_records(), small_explanations(), simulator=names, splits=["calibration", "test"])
    assert_frame_equal(pl.read_parquet("new/out/simulated.parquet"), expected, check_exact=True)


def test_simulate_is_lexical_with_keys_of_ones_own(capsys):
    by = ["model", "layer", "neuron"]
    small_records().with_columns(model=pl.lit("m"), layer=pl.lit("mlp.0")).write_parquet("records.parquet")
    small_explanations().with_columns(model=pl.lit("m"), layer=pl.lit("mlp.0")).write_parquet("explanations.parquet")
    arguments = ["records.parquet", "explanations.parquet", "--by", "model, layer,neuron", "-o", "out"]
    assert command(capsys, "simulate", *arguments)[0] == 0
    result = pl.read_parquet("out/simulated.parquet")
    assert result.columns[:4] == [*by, "simulator"]
    expected = ns.simulate("records.parquet", "explanations.parquet", by=by).collect()
    assert_frame_equal(result, expected, check_exact=True)


def test_simulate_counts_the_tokens_by_status_and_failed_rows_are_exit_code_3(capsys):
    untaught = (pl.col("neuron") == 8) & (pl.col("split") == "train")
    small_records().filter(~untaught).write_parquet("records.parquet")
    flags = ["--simulator", "token_lookup", "-o", "out", "--json"]
    code, out, err = command(capsys, "simulate", "records.parquet", "explanations.parquet", *flags)
    assert (code, err) == (3, "")
    result = pl.read_parquet("out/simulated.parquet")
    lost = result.filter(pl.col("status") == "not_run")
    assert lost["neuron"].unique().to_list() == [8]
    assert read_json(out) == {
        "tokens": [
            {"simulator": "token_lookup", "status": "not_run", "tokens": lost.height},
            {"simulator": "token_lookup", "status": "ok", "tokens": result.height - lost.height},
        ],
        "files": ["out/simulated.parquet"],
    }


@pytest.mark.parametrize("name", ["out [1]", "é*", "?"])
def test_a_folder_may_have_any_name(capsys, name):
    flags = ["--simulator", "constant", "-o", name]
    assert command(capsys, "simulate", "records.parquet", "explanations.parquet", *flags)[0] == 0
    assert command(capsys, "calibrate", f"{name}/simulated.parquet", "-o", name)[0] == 0
    assert command(capsys, "score", f"{name}/simulated.parquet", "-o", name)[0] == 0


@pytest.mark.parametrize("method", ["linear", "percentile", "none"])
def test_calibrate_writes_what_the_python_functions_give(capsys, method):
    code, out, err = command(capsys, "calibrate", "simulated.parquet", "-o", "out", "--method", method)
    assert (code, err) == (0, "")
    assert out.startswith("6 explanations")
    expected, fitted = ns.calibrate(with_failures(), method), ns.fit_calibration(with_failures(), method)
    assert_frame_equal(pl.read_parquet("out/simulated.parquet"), expected)
    assert_frame_equal(pl.read_parquet("out/calibration.parquet"), fitted)
    ns.validate("out/simulated.parquet", "simulated")


def test_calibrate_can_write_over_what_it_reads_and_again(capsys):
    expected = ns.calibrate(with_failures())
    for _ in range(2):
        path = "simulated.parquet"
        assert command(capsys, "calibrate", path, "-o", ".")[0] == 0
        assert_frame_equal(pl.read_parquet(path), expected)


def test_calibrate_fits_what_is_scored_only_if_it_is_told_to(capsys):
    flags = ["calibrate", "simulated.parquet", "-o", "out", "--fit-split", "test"]
    assert command(capsys, *flags)[0] == 1
    assert command(capsys, *flags, "--fit-on-scored")[0] == 0
    expected = ns.calibrate(with_failures(), fit=pl.col("split") == "test", fit_on_scored=True)
    assert_frame_equal(pl.read_parquet("out/simulated.parquet"), expected)


def test_calibrate_counts_slopes_and_an_explanation_without_rows_to_fit_is_exit_code_3(capsys):
    turned = pl.when(pl.col("neuron") == 7).then(10 - pl.col("predicted")).otherwise("predicted")
    lookup, calibration = pl.col("simulator") == "token_lookup", pl.col("split") == "calibration"
    table = with_failures().filter(~(lookup & calibration & (pl.col("neuron") == 8)))
    table.with_columns(turned.alias("predicted")).write_parquet("simulated.parquet")
    code, out, err = command(capsys, "calibrate", "simulated.parquet", "-o", "out", "--json")
    assert (code, err) == (3, "")
    files = ["out/simulated.parquet", "out/calibration.parquet"]
    counts = {"without_rows_to_fit": 1, "negative_slope": 1, "zero_slope": 3}
    assert read_json(out) == {"explanations": 6, **counts, "files": files}
    lost = pl.read_parquet("out/simulated.parquet").filter(pl.col("status") == "not_calibrated")
    assert lost.select("simulator", "neuron").unique().rows() == [("token_lookup", 8)]
    assert "a negative slope turns" in command(capsys, "calibrate", "simulated.parquet", "-o", "out")[1]


def test_metrics_lists_the_catalogue_as_text_as_json_and_for_a_readme(capsys):
    code, out, err = command(capsys, "metrics", "--json")
    assert (code, err) == (0, "")
    rows = read_json(out)
    assert [row["metric"] for row in rows] == list(CATALOGUE)
    assert [row["metric"] for row in rows if row["default"]] == list(DEFAULT)
    assert {row["better"] for row in rows} == {"higher", "lower"}
    text = command(capsys, "metrics")[1]
    table = command(capsys, "metrics", "--markdown")[1]
    assert len(table.splitlines()) == len(rows) + 2
    for metric in CATALOGUE.values():
        assert f"\n {metric.name} " in text
        assert metric.meaning in text
        assert f"| `{metric.name}` |" in table
