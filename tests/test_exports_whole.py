"""Exports are whole or not there, whatever order the rows lie in and wherever the explanations are."""

from __future__ import annotations

import json
import stat
import threading

import polars as pl
import pytest
from asking import backend, explanations_of, records_of, serve

import nscore as ns
from nscore import exports
from nscore._files import exported as parts
from nscore._files.wholes import whole_groups
from nscore.errors import LeakError, SettingError, StorageError, TableError
from nscore.frames import source


def table(neurons=5, sequences=3, tokens=4):
    rows = [
        (layer, n, "0", s, p, f"t{p}", float(n + p), float(p * s + layer))
        for layer in (0, 1)
        for n in range(neurons)
        for s in range(sequences)
        for p in range(tokens)
    ]
    names = ["layer", "neuron", "explanation_id", "sequence", "position", "token", "activation", "predicted"]
    return pl.DataFrame(rows, schema=names, orient="row")


def texts(simulated):
    return (
        simulated.select("layer", "neuron", "explanation_id")
        .unique()
        .with_columns(explanation=pl.format("{}", "neuron"))
    )


def export(simulated, out, **options):
    given = {"simulated": simulated, "explanations": texts(table())} | options
    return ns.export_files("openai", None, out, **given)


def files_of(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("rows", [1, 7, 13, 1 << 18])
@pytest.mark.parametrize("order", ["sorted", "shuffled", "by record"])
def test_the_files_do_not_depend_on_blocks_or_on_the_order_of_the_rows(tmp_path, monkeypatch, rows, order):
    export(table(), tmp_path / "a")
    monkeypatch.setattr(parts, "BLOCK_ROWS", rows)
    given = {
        "sorted": table(),
        "shuffled": table().sample(fraction=1.0, shuffle=True, seed=3),
        "by record": table().sort("sequence", "neuron", "layer", "position"),
    }[order]
    given.write_parquet(tmp_path / "simulated.parquet", row_group_size=11)
    export(tmp_path / "simulated.parquet", tmp_path / "b")
    names = files_of(tmp_path / "a")
    assert names == files_of(tmp_path / "b")
    assert len(names) == 10
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


@pytest.mark.parametrize("rows", [1, 10, 17, 10_000])
@pytest.mark.parametrize("shuffled", [False, True])
def test_blocks_hold_whole_groups_and_every_row_once(rows, shuffled):
    frame = table().with_row_index("row")
    frame = frame.sample(fraction=1.0, shuffle=True, seed=1) if shuffled else frame
    blocks = list(whole_groups(source(frame), frame.lazy(), ["layer", "neuron"], rows))
    groups = [set(block.select("layer", "neuron").rows()) for block in blocks]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 10
    assert sorted(row for block in blocks for row in block["row"]) == list(range(frame.height))
    assert all(block.height < rows + 12 for block in blocks)


def test_a_block_is_no_larger_than_the_groups_that_fill_it():
    frame = table()
    blocks = list(whole_groups(source(frame), frame.lazy(), ["layer", "neuron"], 13))
    assert {block.height for block in blocks} == {24}


def test_no_rows_make_no_files(tmp_path):
    done = export(table().clear(), tmp_path / "out")
    assert (done.files, done.neurons) == (0, 0)
    assert done.left_out == {}
    assert files_of(tmp_path) == []


def test_an_error_at_the_last_neuron_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "BLOCK_ROWS", 10)
    broken = table().with_columns(
        activation=pl.when((pl.col("layer") == 1) & (pl.col("neuron") == 4)).then(float("nan")).otherwise("activation")
    )
    with pytest.raises(TableError, match="found nan"):
        export(broken, tmp_path / "deep/out")
    assert files_of(tmp_path) == []
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_disk_that_fails_leaves_nothing_behind_and_no_thread(tmp_path, monkeypatch):
    def write(path, content):
        if path.name == "3.jsonl":
            raise StorageError(f"{path}: cannot write it")
        return whole(path, content)

    whole = exports.write_whole
    monkeypatch.setattr(exports, "write_whole", write)
    with pytest.raises(StorageError, match="cannot write"):
        export(table(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("nscore-export")]


def test_an_empty_folder_is_taken_and_its_rights_are_those_of_any_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "like").mkdir()
    export(table(), tmp_path / "out")
    assert len(files_of(tmp_path / "out")) == 10
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out", "like")}
    assert len(modes) == 1
    with pytest.raises(SettingError, match="already and not empty"):
        export(table(), tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SettingError, match="already and not empty"):
        export(table(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_invalid_row_is_named_with_its_file(tmp_path):
    table().filter(~((pl.col("neuron") == 3) & (pl.col("position") == 2))).write_parquet(tmp_path / "simulated.parquet")
    with pytest.raises(TableError, match=r"simulated\.parquet, row .*gap in positions"):
        export(tmp_path / "simulated.parquet", tmp_path / "out")


def test_scored_splits_are_exported_and_others_counted(tmp_path):
    split = pl.when(pl.col("sequence") == 0).then(pl.lit("calibration")).otherwise(pl.lit("test"))
    done = export(table().with_columns(split=split), tmp_path / "a")
    assert (done.records, done.left_out) == (20, {"records of splits other than valid and test": 10})
    assert not done.incomplete
    done = export(table().with_columns(split=split), tmp_path / "b", splits=["calibration"])
    assert done.records == 10


def test_records_that_the_author_was_shown_are_refused_unless_allowed(tmp_path):
    shown = table().with_columns(shown=pl.col("sequence") == 1)
    with pytest.raises(LeakError):
        export(shown, tmp_path / "out")
    assert export(shown, tmp_path / "out", leaks="allow").records == 30


@pytest.mark.parametrize("column", ["activation", "token"])
def test_a_record_in_which_something_is_not_known_is_left_out_and_counted(tmp_path, column):
    here = (pl.col("neuron") == 2) & (pl.col("sequence") == 1) & (pl.col("position") == 3) & (pl.col("layer") == 0)
    done = export(table().with_columns(pl.when(~here).then(column).alias(column)), tmp_path / "out")
    article = "an" if column == "activation" else "a"
    assert (done.records, done.left_out) == (29, {f"records with {article} {column} that is not known": 1})
    (scored,) = json.loads((tmp_path / "out/0/2.jsonl").read_text())["scored_explanations"]
    assert len(scored["scored_simulation"]["scored_sequence_simulations"]) == 2


def test_an_explanation_of_which_no_record_is_left_is_left_out(tmp_path):
    gone = table().with_columns(predicted=pl.when((pl.col("neuron") != 2) | (pl.col("layer") == 1)).then("predicted"))
    done = export(gone, tmp_path / "out")
    assert done.left_out == {
        "explanations of which no record is left": 1,
        "records with a token without a prediction": 3,
    }
    assert (done.neurons, done.files) == (9, 9)


def test_a_run_knows_the_texts_that_it_asked_about(tmp_path):
    with serve() as server:
        ns.simulate(
            records_of(neurons=3),
            explanations_of(neurons=3, each=2),
            simulator=["json_list", "shuffled_json_list"],
            backend=backend(server),
            out=tmp_path / "run",
        )
    with pytest.raises(SettingError, match="json_list, shuffled_json_list"):
        ns.export_files("openai", tmp_path / "run", tmp_path / "out")
    done = ns.export_files("openai", tmp_path / "run", tmp_path / "out", simulator="json_list")
    assert (done.neurons, done.explanations, done.left_out) == (3, 6, {})
    ns.import_files("openai", tmp_path / "out", tmp_path / "back")
    expected = [f"words {n} {e}" for n in range(3) for e in range(2)]
    assert pl.read_parquet(tmp_path / "back/explanations.parquet")["explanation"].to_list() == expected
    # a control was asked about the texts of other neurons, and these are what its predictions are for
    ns.export_files("openai", tmp_path / "run", tmp_path / "control", simulator="shuffled_json_list")
    content = json.loads((tmp_path / "control/0/0.jsonl").read_text())
    assert all(not e["explanation"].startswith("words 0") for e in content["scored_explanations"])


def test_two_texts_for_one_explanation_are_refused(tmp_path):
    with pytest.raises(TableError, match="several explanations"):
        export(table(), tmp_path / "out", explanations=pl.concat([texts(table())] * 2))


def test_choices_that_are_none_are_refused(tmp_path):
    with pytest.raises(SettingError, match="no such option"):
        export(table(), tmp_path / "out", model_id="x")
    with pytest.raises(SettingError, match="on_failure"):
        export(table(), tmp_path / "out", on_failure="keep")
    with pytest.raises(SettingError, match="does not say who predicted"):
        export(table(), tmp_path / "out", simulator="lexical")
    with pytest.raises(SettingError, match="none called 'lexicl'"):
        export(table().with_columns(simulator=pl.lit("lexical")), tmp_path / "out", simulator="lexicl")
    with pytest.raises(SettingError, match="openai is made from simulated"):
        ns.export_files("openai", None, tmp_path / "out")
    with pytest.raises(SettingError, match="no folder is there"):
        ns.export_files("openai", tmp_path / "nowhere", tmp_path / "out")
