"""Tables in the shapes that others leave them in: against a plain reader, with other dtypes, out of order, hostile."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nscore as ns
from nscore.errors import SourceError

HEAD = "layer,neuron,sequence,token,activation\n"
ROW = {"layer": 5, "neuron": 7, "sequence": 1, "token": "a", "activation": 0.5}


def imported(path, **options):
    """Each table that comes out."""
    with tempfile.TemporaryDirectory() as out:
        told = ns.import_files("table", path, Path(out) / "out", executor="local", **options)
        return told, {name: pl.read_parquet(Path(out) / f"out/{name}.parquet") for name in told.tables}


def text(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(path, *rows):
    return text(path, "".join(json.dumps(row) + "\n" for row in rows))


def refused(path, **options):
    with pytest.raises(SourceError) as caught:
        imported(path, **options)
    assert caught.value.path == str(path)
    return str(caught.value).removeprefix(f"{path}, ").removeprefix(f"{path}: ")


TOKENS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=4)
VALUES = st.one_of(st.none(), st.integers(-5, 5), st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf]))
RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 3),
        st.lists(st.tuples(TOKENS, VALUES), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda record: record[:3],
)


@given(RECORDS, st.sampled_from(["csv", "jsonl", "lists", "parquet"]), st.booleans(), st.integers(1, 7))
@settings(max_examples=120, deadline=None)
def test_records_are_those_that_a_plain_reader_finds(records, shape, named, piece):
    rows = [
        {"layer": layer, "neuron": neuron, "sequence": sequence, "position": i, "token": token, "activation": value}
        for layer, neuron, sequence, tokens in records
        for i, (token, value) in enumerate(tokens)
    ]
    expected = [
        (*list(row.values())[:5], None if (v := row["activation"]) is None or not math.isfinite(v) else float(v))
        for row in rows
    ]
    theirs = {"neuron": "latent", "activation": "act"} if named else {}
    keys = {name: theirs.get(name, name) for name in rows[0]}
    renamed = [{keys[name]: value for name, value in row.items()} for row in rows]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / f"a.{'jsonl' if shape == 'lists' else shape}"
        for name in ("ROWS", "ROWS_OF_LISTS", "LINES"):
            patch.setattr(f"nscore.importers._tabular.{name}", piece)
        if shape == "csv":
            out = io.StringIO()
            writer = csv.DictWriter(out, renamed[0], quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
            writer.writeheader()
            writer.writerows(renamed)
            text(path, out.getvalue())
        elif shape == "jsonl":
            lines(path, *renamed)
        elif shape == "lists":
            each = [dict(zip(keys.values(), record[:3], strict=False)) for record in records]
            for row, record in zip(each, records, strict=True):
                row["tokens"], row[theirs.get("activation", "values")] = map(list, zip(*record[3], strict=True))
            lines(path, *each)
        else:
            pl.DataFrame(renamed, strict=False, infer_schema_length=None).write_parquet(path)
        told, tables = imported(path, columns=theirs)
        assert tables["records"].rows() == expected
        assert (told.records, told.tokens) == (len(records), len(rows))
        assert told.left_out.get("numbers that are not finite (now null)", 0) == sum(
            v is not None and not math.isfinite(v) for v in (row["activation"] for row in rows)
        )


def test_positions_out_of_order_are_put_in_order_within_a_record(tmp_path):
    rows = [ROW | {"position": p, "token": t} for p, t in ((2, "c"), (0, "a"), (1, "b"))]
    _, tables = imported(lines(tmp_path / "a.jsonl", *rows))
    assert tables["records"].select("position", "token").rows() == [(0, "a"), (1, "b"), (2, "c")]


def test_lists_without_tokens_and_columns_of_other_lists_are_counted(tmp_path):
    row = {"layer": 1, "neuron": 2, "tokens": ["a", 5], "activations": ["1.5", None], "ids": [1], "tag": "x"}
    empty = row | {"tokens": [], "activations": None}
    told, tables = imported(lines(tmp_path / "a.jsonl", row, empty, row))
    assert tables["records"].rows() == [
        (1, 2, sequence, i, token, value, "x")
        for sequence in (1, 3)
        for i, (token, value) in enumerate([("a", 1.5), ("5", None)])
    ]
    assert told.left_out == {"columns of lists that are not of tokens": 1, "records without tokens": 1}


def test_what_a_failed_prediction_was_is_told_by_its_status(tmp_path):
    row = {
        "layer": 1,
        "neuron": 2,
        "explanation_id": 3,
        "tokens": ["a", "b"],
        "activations": [1, 0],
        "status": ["ok", "ok"],
    }
    _, tables = imported(lines(tmp_path / "a.jsonl", row | {"predicted": [math.nan, 2]}))
    simulated = tables["simulated"]
    assert simulated.select("explanation_id", "predicted", "status").rows() == [
        ("3", None, "parse_error"),
        ("3", 2.0, "ok"),
    ]
    assert ns.score(simulated)["coverage"].item() == 0.5


def test_explanations_get_ids_and_those_without_a_text_are_counted(tmp_path):
    told, tables = imported(text(tmp_path / "a.csv", "layer,neuron,explanation\n1,2,red\n1,2,blue\n1,3,\n1,3,green\n"))
    assert tables["explanations"].rows() == [(1, 2, "0", "red"), (1, 2, "1", "blue"), (1, 3, "0", "green")]
    assert told.left_out == {"explanations without a text": 1}
    ns.validate(tables["explanations"], "explanations")


def test_judgements_are_scored(tmp_path):
    path = text(
        tmp_path / "a.csv",
        "layer,neuron,explanation_id,scorer,item,label,predicted_label,probability\n"
        "1,2,a,detection,5,1,True,0.9\n1,2,a,detection,6,0,no,0.25\n1,2,a,detection,7,0,,\n",
    )
    judgements = imported(path)[1]["judgements"]
    assert judgements.select("label", "predicted_label", "probability").rows() == [
        (True, True, 0.9),
        (False, False, 0.25),
        (False, None, None),
    ]
    assert ns.score_judgements(judgements).select("n_judged", "balanced_accuracy").row(0) == (2, 1.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"neuron": pl.col("neuron").cast(pl.Float64)}, ROW),
        ({"neuron": pl.col("neuron").cast(pl.Int8)}, ROW),
        ({"neuron": pl.col("neuron").cast(pl.String)}, ROW | {"neuron": "7"}),
        ({"token": pl.col("token").cast(pl.Categorical)}, ROW),
        ({"activation": pl.col("activation").cast(pl.Decimal(9, 2))}, ROW),
        ({"activation": pl.col("activation").cast(pl.Float32)}, ROW),
        ({"activation": pl.lit(" 0.5 ")}, ROW),
        ({"activation": pl.lit(None)}, ROW | {"activation": None}),
        ({"layer": pl.date(2020, 1, 2)}, ROW | {"layer": "2020-01-02"}),
    ],
)
def test_dtypes_are_cast_where_that_loses_nothing(tmp_path, change, expected):
    pl.DataFrame([ROW]).with_columns(**change).write_parquet(tmp_path / "a.parquet")
    found = imported(tmp_path / "a.parquet")[1]["records"].row(0, named=True)
    assert found == {"position": 0} | expected


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"neuron": pl.lit(7.5)}, "row 0, column 'neuron': found 7.5, expected a whole number or a text"),
        ({"neuron": pl.lit(2**64 - 1, pl.UInt64)}, "row 0, column 'neuron': found 18446744073709551615"),
        ({"neuron": pl.lit(None, pl.Int64)}, "row 0, column 'neuron': found null, expected a value"),
        ({"neuron": pl.concat_list("neuron")}, "row 0, column 'neuron': found List(Int64), expected a whole number"),
        ({"token": pl.lit(None, pl.String)}, "row 0, column 'token': found null, expected a value"),
        ({"token": pl.lit(b"a")}, "row 0, column 'token': found Binary, expected a text"),
        ({"token": pl.concat_list("token")}, "row 0, column 'activation': found Float64, expected lists"),
        ({"activation": pl.lit("much")}, "row 0, column 'activation': found 'much', expected a number"),
        ({"activation": pl.lit(value=True)}, "row 0, column 'activation': found True, expected a number"),
        ({"activation": pl.struct("activation")}, "row 0, column 'activation': found Struct"),
        ({"position": pl.lit(1)}, "row 0, column 'position': found 1 where 0 is due: expected 0, 1, 2, ..."),
        ({"position": pl.lit(0.5)}, "row 0, column 'position': found 0.5, expected a whole number"),
    ],
)
def test_what_cannot_be_cast_is_named_with_its_row_and_column(tmp_path, change, found):
    path = tmp_path / "a.parquet"
    pl.DataFrame([ROW]).with_columns(**change).write_parquet(path)
    assert refused(path).startswith(found)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        (
            "a.csv",
            HEAD + "5,7,1,a,1\n5,7,2,b,1\n5,7,1,c,1\n",
            "row 2: layer 5, neuron 7, sequence 1 begins a second time",
        ),
        ("a.csv", HEAD + "5,7,1,a,1,9\n", "cannot be read: found more fields"),
        ("a.csv", HEAD + "5,7,1\n", "row 0, column 'token': found null"),
        ("a.csv", HEAD.encode() + b"5,7,1,\xe9,1\n", "cannot be read: invalid utf-8"),
        ("a.csv", "", "cannot be read: empty CSV"),
        ("a.csv", gzip.compress(HEAD.encode(), mtime=0), "it is packed"),
        ("a.csv", "layer,neuron,token,activation\n5,7,a,1\n", "no column 'sequence'; the columns are layer, neuron"),
        ("a.txt", "x", "the name does not say which format it is"),
        ("a.jsonl", '{"layer": 5', "line 1: no JSON"),
        ("a.jsonl", "[]", "line 1: Expected `object`"),
        ("a.jsonl", json.dumps(ROW) + "\n\n" + '{"layer": 5}', "line 3, column 'neuron': found null"),
        (
            "a.jsonl",
            '{"layer":1,"neuron":1,"tokens":["a"],"values":[1,2]}',
            "line 1: lists of other lengths: 1 in 'token', 2",
        ),
        ("a.jsonl.gz", gzip.compress(json.dumps(ROW).encode(), mtime=0)[:-9], "line 1: cut off"),
    ],
)
def test_broken_tables_are_named_with_the_place(tmp_path, name, content, found):
    assert refused(text(tmp_path / name, content)).startswith(found)


def test_tables_with_other_columns_are_brought_together(tmp_path):
    text(tmp_path / "a.csv", HEAD.strip() + ",extra\n1,2,1,a,1,z\n")
    text(tmp_path / "b.csv", HEAD.strip() + ",more\nmlp,2,1,a,1,y\n")
    for rows in (1, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nscore.imports.PART_ROWS", rows)
            records = imported(tmp_path)[1]["records"]
        assert records.select("layer", "extra", "more").rows() == [("1", "z", None), ("mlp", None, "y")]


@pytest.mark.parametrize("rows", [1, 1 << 20])
def test_columns_that_no_dtype_holds_are_refused(tmp_path, monkeypatch, rows):
    monkeypatch.setattr("nscore.imports.PART_ROWS", rows)
    lines(tmp_path / "a.jsonl", ROW | {"extra": "z"})
    lines(tmp_path / "b.jsonl", ROW | {"neuron": 8, "extra": [1]})
    with pytest.raises(SourceError, match="of another"):
        imported(tmp_path)


def test_a_table_behind_an_address_is_fetched(tmp_path):
    served = {"/a.csv": (HEAD + "5,7,1,a,1\n").encode(), "/a.jsonl": json.dumps(ROW).encode()}
    pl.DataFrame([ROW]).write_parquet(tmp_path / "a.parquet")
    served["/a.parquet"] = (tmp_path / "a.parquet").read_bytes()

    class Files(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(served[self.path])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in served:
            _, tables = imported(f"http://127.0.0.1:{server.server_port}{name}")
            assert tables["records"].select("layer", "neuron", "token").rows() == [(5, 7, "a")]
        server.shutdown()


JSON = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.floats(), st.text(max_size=3)),
        *(st.integers(-5, 5), st.sampled_from([2**63, 2**64, -(2**63), 10**400, "9" * 30, "\ud800", 1e308])),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=5,
)
FIELDS = ["layer", "neuron", "sequence", "position", "token", "activation", "predicted", "split", "status", "extra"]
FIELDS += ["explanation", "explanation_id", "label", "predicted_label", "item", "shown_sequences"]


GOOD = [
    ROW,
    ROW | {"predicted": 1.0, "explanation_id": "a"},
    ROW | {"token": ["a"], "activation": [1]},
    {"layer": 1, "neuron": 2, "explanation": "x"},
    {"layer": 1, "neuron": 2, "explanation_id": "a", "item": 1, "label": True, "predicted_label": False},
]


@given(st.sampled_from(GOOD), st.data())
@settings(max_examples=120, deadline=None)
def test_wrong_types_in_any_field_are_a_source_error_or_nothing(row, data):
    changes = data.draw(st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        path = lines(Path(folder) / "a.jsonl", row, row | {"sequence": 9} | changes)
        try:
            imported(path)
        except SourceError as error:
            assert str(path) in str(error) or "more than once" in str(error)  # noqa: PT017


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_flipped_bytes_of_parquet_are_a_source_error_or_other_values(data):
    whole = io.BytesIO()
    pl.DataFrame([ROW, ROW]).write_parquet(whole)
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = text(Path(folder) / "a.parquet", bytes(content))
        try:
            imported(path)
        except SourceError as error:
            assert str(path) in str(error)  # noqa: PT017
