"""Tables of one's own: any names, a row a token or a row a record, three formats; what does not fit is named."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nscore as ns
from nscore.errors import SettingError, SourceError

TOKENS = pl.DataFrame(
    {
        "layer": [5] * 5,
        "neuron": [7, 7, 7, 8, 8],
        "sequence": [1, 1, 2, 1, 1],
        "position": [0, 1, 0, 0, 1],
        "token": ["a", " red", "é\n", "x", '"'],
        "activation": [0.0, 2.5, 1.0, 0.25, 3.0],
    }
)


def written(frame, path):
    match path.suffix:
        case ".parquet":
            frame.write_parquet(path)
        case ".csv":
            frame.write_csv(path)
        case ".jsonl":
            frame.write_ndjson(path)
    return path


def imported(path, **options):
    told = ns.import_files("table", path, path.parent / "out", **options)
    return told, pl.read_parquet(path.parent / f"out/{next(iter(told.tables))}.parquet")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_the_three_formats_give_the_same_records(tmp_path, suffix):
    told, records = imported(written(TOKENS, tmp_path / f"a.{suffix}"))
    assert records.select(TOKENS.columns).rows() == TOKENS.rows()
    assert (told.neurons, told.records, told.tokens) == (2, 3, 5)
    ns.validate(records, "records")


@pytest.mark.parametrize("columns", [{"neuron": "feature", "activation": "act"}, "neuron=feature, activation=act"])
def test_columns_are_renamed_constants_added_and_positions_made(tmp_path, columns):
    theirs = TOKENS.rename({"neuron": "feature", "activation": "act"}).drop("layer", "position")
    _, records = imported(written(theirs, tmp_path / "a.csv"), columns=columns, constants={"layer": 5})
    assert records.select(TOKENS.columns).rows() == TOKENS.rows()


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_row_may_be_a_record_with_lists(tmp_path, suffix):
    lists = TOKENS.group_by("layer", "neuron", "sequence", maintain_order=True).agg(
        tokens="token", activations="activation"
    )
    _, records = imported(written(lists, tmp_path / f"a.{suffix}"))
    assert records.select(TOKENS.columns).rows() == TOKENS.rows()


def test_what_was_imported_is_simulated_and_scored(tmp_path):
    imported(written(TOKENS, tmp_path / "a.csv"))
    texts = pl.DataFrame({"layer": 5, "neuron": [7, 8], "explanation_id": "a", "explanation": ['"red"', '"x"']})
    (tmp_path / "more").mkdir()
    told, explanations = imported(written(texts, tmp_path / "more/b.jsonl"))
    assert told.explanations == 2
    scores = ns.score(ns.simulate(tmp_path / "out/records.parquet", explanations))
    assert scores["n_tokens"].to_list() == [3, 2]


def test_simulated_tables_are_known_by_their_columns(tmp_path):
    told, simulated = imported(written(TOKENS.with_columns(predicted=1.0), tmp_path / "a.parquet"))
    assert list(told.tables) == ["simulated"]
    assert ns.score(simulated)["n_predicted"].to_list() == [3, 2]


WRONG = {
    "layer": (TOKENS.drop("layer"), {}, "layer"),
    "activation": (TOKENS.with_columns(activation=pl.Series(["0", "1", "no", "3", "4"])), {}, "no"),
    "columns=": (TOKENS, {"columns": {"neuron": "nothing"}}, "no column 'nothing'"),
    "no table of nscore's": (TOKENS.drop("token"), {}, "by token and activation"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_does_not_fit_is_named_with_its_file(tmp_path, name, suffix):
    frame, options, found = WRONG[name]
    path = written(frame, tmp_path / f"a.{suffix}")
    with pytest.raises(SourceError, match=rf"a\.{suffix}") as caught:
        imported(path, **options)
    assert name in str(caught.value)
    assert found in str(caught.value)


def test_options_of_another_form_are_refused(tmp_path):
    path = written(TOKENS, tmp_path / "a.csv")
    with pytest.raises(SettingError, match="kind: found 'records!'"):
        imported(path, kind="records!")
    with pytest.raises(SettingError, match="'layer' is among the columns too"):
        imported(path, columns={"layer": "l"}, constants={"layer": 1})


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=12, unique_by=lambda r: r[0]),
    st.integers(1, 6),
)
@settings(max_examples=40, deadline=None)
def test_pieces_of_whole_records_give_the_table_of_one_reading(records, piece):
    rows = [(5, n, 1, p, f"t{p}", float(p)) for n, length in sorted(records) for p in range(length)]
    frame = pl.DataFrame(rows, schema=TOKENS.columns, orient="row")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr("nscore.importers._tabular.ROWS", piece)
        _, got = imported(written(frame, Path(name) / "a.parquet"))
        assert got.select(TOKENS.columns).rows() == rows


GOOD = b"layer,neuron,sequence,token,activation\n5,7,1,a,0.5\n5,7,1,b,1.0\n"
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in TOKENS.to_dicts())


@given(
    st.sampled_from([(GOOD, "csv"), (LINES, "jsonl")]),
    st.binary(max_size=40) | st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=2)),
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_file_holds_is_read_or_is_a_typed_error(good, change):
    valid, suffix = good
    content = change if isinstance(change, bytes) else valid[: change[0]] + change[1] + valid[change[0] + 1 :]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"a.{suffix}"
        path.write_bytes(content)
        told = ns.import_files("table", path, Path(name) / "out", on_error="skip", executor="local")
        assert told.files + len(told.skipped) == 1


def test_a_parquet_file_that_is_cut_is_named(tmp_path):
    path = written(TOKENS, tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SourceError, match=r"a\.parquet"):
        imported(path)
