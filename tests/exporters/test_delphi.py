"""`delphi` files: simulations with a group for each quantile, judgements of each scorer, and the texts beside them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import polars as pl
import pytest
from delphi_files import judged, write
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import nscore as ns

KEYS = {"layer": "layers.5", "neuron": 7}
FORMATS = Path(__file__).parents[3] / "shared" / "data" / "formats"


def simulated(strata):
    """A record of two tokens for each stratum."""
    rows = []
    for sequence, stratum in enumerate(strata):
        for position, (true, predicted) in enumerate([(0.0, 1.0), (2.0 + sequence, 3.0)]):
            rows.append((sequence, position, f"t{position}", true, predicted, stratum))
    names = ["sequence", "position", "token", "activation", "predicted", "stratum"]
    return pl.DataFrame(rows, schema=names, orient="row").select(
        *(pl.lit(v).alias(k) for k, v in KEYS.items()), pl.all()
    )


def written(folder, scorer="simulation", name="layers.5_latent7.txt"):
    return json.loads((folder / "scores" / scorer / name).read_bytes(), parse_constant=pytest.fail)


def test_simulations_have_a_group_of_all_and_one_for_each_quantile(tmp_path):
    table = simulated(["quantile_1", "quantile_0", "quantile_1", "not_active"])
    done = ns.export_files("delphi", None, tmp_path / "out", simulated=table)
    assert (done.files, done.records) == (1, 4)
    groups = written(tmp_path / "out")
    assert [(g["distance"], [s["distance"] for s in g["scored_sequence_simulations"]]) for g in groups] == [
        (0, [1, 0, 1, -1]),
        (1, [0]),
        (2, [1, 1]),
    ]
    scores = ns.score(table, strata=True)
    for group, stratum in zip(groups, ["", "quantile_0_only_", "quantile_1_only_"], strict=True):
        assert group["ev_correlation_score"] == scores[f"{stratum}ev_correlation_score"].item()
    simulation = groups[1]["scored_sequence_simulations"][0]["simulation"]
    assert (simulation["tokens"], simulation["expected_activations"]) == (["t0", "t1"], [1.0, 3.0])


def test_a_score_that_is_no_number_is_nan_in_quotes(tmp_path):
    table = simulated(["quantile_0"]).with_columns(activation=0.0, predicted=0.0)
    ns.export_files("delphi", None, tmp_path / "out", simulated=table)
    assert written(tmp_path / "out")[0]["rsquared_score"] == "nan"


@given(st.lists(st.sampled_from(["quantile_0", "quantile_3", "not_active"]), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_simulations_come_back_with_their_strata_and_scores(strata):
    table = simulated(strata)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ns.export_files("delphi", None, folder / "a", simulated=table)
        ns.import_files("delphi", folder / "a", folder / "back")
        back = pl.read_parquet(folder / "back/simulated.parquet").select(table.columns)
        assert_frame_equal(back, table, check_dtypes=False)
        assert ns.check(folder / "back").agrees
        ns.export_files("delphi", folder / "back", folder / "b")
        assert written(folder / "a") == written(folder / "b")


def test_judgements_come_back_as_they_were_with_what_was_judged(tmp_path):
    entries = [
        judged(True, True, probability=0.9, distance=4, tokens=["St", "ock"], activations=[4.75, 0.0]),
        judged(False, True, probability=0.6, distance=-1),
        judged(True, None, distance=0, tokens=["x"], activations=[1.5]),
    ]
    other = [judged(False, False, probability=0.25, distance=-1, tokens=["y"], activations=[0.0])]
    write(tmp_path / "theirs/scores/detection/layers.5_latent7.txt", entries)
    write(tmp_path / "theirs/scores/fuzz/layers.5_latent7.txt", other)
    write(tmp_path / "theirs/explanations/layers.5_latent7.txt", "words about stocks")
    ns.import_files("delphi", tmp_path / "theirs", tmp_path / "back")
    done = ns.export_files("delphi", tmp_path / "back", tmp_path / "ours")
    assert (done.files, done.neurons, done.judgements, done.left_out) == (3, 1, 4, {})
    for scorer in ("detection", "fuzz"):
        assert written(tmp_path / "ours", scorer) == written(tmp_path / "theirs", scorer)
    assert json.loads((tmp_path / "ours/explanations/layers.5_latent7.txt").read_bytes()) == "words about stocks"


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the published files are not here")
@pytest.mark.parametrize("scorer", ["detection", "fuzz"])
def test_published_judgements_give_the_same_tables_again(tmp_path, scorer):
    ns.import_files("delphi", FORMATS / f"delphi_{scorer}", tmp_path / "a")
    ns.export_files("delphi", tmp_path / "a", tmp_path / "ours")
    ns.import_files("delphi", tmp_path / "ours", tmp_path / "b")
    kept = pl.exclude("scorer")  # the folder's name, which the published files lie without
    first, second = (pl.read_parquet(tmp_path / f"{n}/judgements.parquet").select(kept) for n in "ab")
    assert_frame_equal(first, second)


def test_items_of_which_no_tokens_are_known_are_counted_and_keep_their_text(tmp_path):
    table = pl.DataFrame(
        KEYS | {"item": [0, 1], "label": [True, False], "predicted_label": [True, None], "text": ["a <<b>>", None]}
    )
    done = ns.export_files("delphi", None, tmp_path / "out", judgements=table)
    assert done.left_out == {"tokens of judged items (they are in no table)": 2}
    first, second = written(tmp_path / "out", "judgements")
    assert (first["text"], first["correct"], first["str_tokens"]) == ("a <<b>>", True, [])
    assert (second["prediction"], second["correct"]) == (None, None)


def test_tokens_of_what_was_judged_may_be_those_of_the_records(tmp_path):
    table = pl.DataFrame(KEYS | {"item": [1], "label": [True], "predicted_label": [False]})
    records = simulated(["top", "top"]).drop("predicted")
    ns.export_files("delphi", None, tmp_path / "out", judgements=table, records=records)
    (entry,) = written(tmp_path / "out", "judgements")
    assert (entry["str_tokens"], entry["activations"], entry["correct"]) == (["t0", "t1"], [0.0, 3.0], False)


def test_a_latent_has_one_explanation_and_the_others_are_counted(tmp_path):
    both = pl.concat([simulated(["top"]).with_columns(explanation_id=pl.lit(name)) for name in "ab"])
    texts = pl.DataFrame(KEYS | {"explanation_id": ["a", "b"], "explanation": ["first", "second"]})
    done = ns.export_files("delphi", None, tmp_path / "out", simulated=both, explanations=texts)
    assert done.left_out == {"further explanations of a neuron (delphi has one)": 1}
    assert done.records == 1
    assert json.loads((tmp_path / "out/explanations/layers.5_latent7.txt").read_bytes()) == "first"


def test_slashes_of_a_module_are_written_as_delphi_does_and_two_modules_are_never_one_file(tmp_path):
    table = simulated(["top"])
    slash = table.with_columns(layer=pl.lit("a/b"))
    ns.export_files("delphi", None, tmp_path / "out", simulated=slash)
    assert written(tmp_path / "out", name="a--b_latent7.txt")
    dashes = pl.concat([slash, table.with_columns(layer=pl.lit("a--b"))])
    with pytest.raises(ns.TableError, match=r"would be written to scores/simulation/a--b_latent7\.txt"):
        ns.export_files("delphi", None, tmp_path / "both", simulated=dashes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
