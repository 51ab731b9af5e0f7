"""Texts that stand in a file once and in its rows many times: written out they would fill the memory."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from holding.file_readers import Readers
from tables import explanations, records, simulated

import nscore as ns
from nscore._tables.parquet import contents_of
from nscore.frames import source

LONG, ROWS = "x" * 50_000, 200_000
MEND = "If that is meant, shorten them, or read the table yourself and give the frame: pl.scan_parquet(file)."


def many(table, column, dtype, rows=ROWS, text=LONG):
    """A small table's first row so many times, each another record or explanation, with one long text in a column."""
    numbers = np.arange(rows)
    first = {
        "explanations": lambda: explanations(shown_sequences=[[8], [9]])[:1].with_columns(explanation_id=pl.lit(0)),
        "records": lambda: records(split=["test"] * 6)[:1],
        "simulated": lambda: simulated(split=["test"] * 12, status=["ok"] * 12, stratum=["top"] * 12)[:1],
        "sequence_scores": lambda: ns.score_sequences(simulated()),
    }[table]()[np.zeros(rows, dtype=np.uint32)]
    another = "explanation_id" if table == "explanations" else "sequence"
    first = first.with_columns(pl.Series(another, numbers))
    if dtype not in (pl.String, pl.List(pl.String), pl.Binary):
        # one value, taken as often: nothing is written out
        return first.with_columns(pl.Series(column, [text], dtype=dtype)[np.zeros(rows, dtype=np.uint32)])
    once = pa.array(text if dtype == pl.List(pl.String) else [text])
    repeated = pa.DictionaryArray.from_arrays(np.zeros(rows, dtype=np.int32), once)
    if dtype == pl.List(pl.String):
        repeated = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), repeated)
    names = list(dict.fromkeys([*first.columns, column]))
    return first.drop(column, strict=False).to_arrow().append_column(column, repeated).select(names)


def written(table, file):
    """The table as a file; a dictionary of Arrow's is a column of texts."""
    if isinstance(table, pl.DataFrame):
        table.write_parquet(file)
    else:
        pq.write_table(table, file, store_schema=False)
    return file


COLUMNS = {
    "explanations": ["explanation", "explanation_id", "layer"],
    "records": ["token", "split", "layer"],
    "simulated": ["split", "status", "stratum", "explanation_id", "layer"],
}


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum([LONG])], ids=["text", "category", "enum"])
@pytest.mark.parametrize("table", COLUMNS)
def test_a_long_text_in_every_row_is_an_error_that_names_the_column_and_ends_no_process(tmp_path, table, dtype):
    with Readers(tmp_path) as readers:
        for column in COLUMNS[table]:
            written(many(table, column, dtype), tmp_path / "strange.parquet")
            readers.read(table, column, commands=True)
            assert readers.said, column
            assert all(
                f"strange.parquet, column '{column}': decompression bomb: texts of 10,000,000,000 bytes, the longest of "
                "50,000, would come out of "
                in words
                and words.endswith(MEND)
                for words in readers.said
            ), readers.said
            readers.said.clear()
    assert not readers.faults
    assert not readers.counts["ok"]


def test_pool_refuses_long_keys(tmp_path):
    file = written(many("sequence_scores", "layer", pl.String), tmp_path / "long.parquet")
    with pytest.raises(ns.TableError, match=r"long\.parquet, column 'layer': decompression bomb"):
        ns.pool(file)


def test_splits_refuse_long_strata(tmp_path):
    table = many("records", "stratum", pl.Categorical).with_columns(rank=0)
    file = written(table, tmp_path / "long.parquet")
    with pytest.raises(ns.TableError, match=r"long\.parquet, column 'stratum': decompression bomb"):
        ns.assign_splits(file)


@pytest.mark.parametrize("dtype", [pl.List(pl.String), pl.List(pl.Categorical)], ids=["text", "category"])
def test_the_leak_check_refuses_long_names_of_records(tmp_path, dtype):
    file = written(many("explanations", "shown_sequences", dtype, text=[LONG]), tmp_path / "long.parquet")
    with pytest.raises(ns.TableError, match=r"long\.parquet, column 'shown_sequences': decompression bomb"):
        ns.score(simulated().with_columns(sequence=pl.col("sequence").cast(pl.String)), explanations=file)


def test_bytes_are_measured_too(tmp_path):
    file = written(many("simulated", "layer", pl.Binary, text=LONG.encode()), tmp_path / "long.parquet")
    with pytest.raises(ns.TableError, match=r"long\.parquet, column 'layer': decompression bomb"):
        ns.score(file)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "list"])
def test_texts_that_share_their_beginning_are_not_written_out_before_they_are_measured(tmp_path, version, nested):
    file, rows, text = tmp_path / "long.parquet", 12_000, LONG[:10_000]
    texts = pa.array([[text]] * rows if nested else [text] * rows)
    table = pa.table({"layer": pa.array(range(rows)), "a.b": texts})
    path = "a.b.list.element" if nested else "a.b"
    pq.write_table(
        table, file, use_dictionary=False, column_encoding={path: "DELTA_BYTE_ARRAY"}, data_page_version=version
    )
    name = "a" if nested else "a.b"
    said = (
        rf"long\.parquet, column '{re.escape(name)}': decompression bomb: texts of [0-9,]+ bytes, the longest of 10,000"
    )
    with pytest.raises(ns.TableError, match=said) as caught:
        source(file)
    found = int(re.search(r"texts of ([0-9,]+)", str(caught.value))[1].replace(",", ""))
    assert 1 << 26 < found < rows * len(text), "it is read no further than must be"


def test_texts_that_share_their_beginning_may_be_many(tmp_path):
    file, rows = tmp_path / "many.parquet", 100_000
    table = pa.table({"name": pa.array([f"the same beginning of all {i:07}" for i in range(rows)])})
    pq.write_table(table, file, use_dictionary=False, column_encoding={"name": "DELTA_BYTE_ARRAY"})
    assert contents_of(str(file)).rows == rows
    assert source(file).frame.collect()["name"][-1] == f"the same beginning of all {rows - 1:07}"


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_ordinary_texts_are_measured_and_pass(tmp_path, dtype):
    names = pl.Series("explanation_id", [f"explanation {i}" for i in range(3_000)], dtype=dtype)
    table = many("simulated", "token", pl.Categorical, rows=300_000, text="a")
    table = table.with_columns(names[np.arange(300_000) // 100], sequence=pl.lit(1), position=np.arange(300_000) % 100)
    table.write_parquet(tmp_path / "names.parquet", row_group_size=300_000)
    assert contents_of(str(tmp_path / "names.parquet")).wide == {"explanation_id"}
    scores = ns.score(tmp_path / "names.parquet")
    assert scores.height == 3_000
    assert scores["explanation_id"].dtype == dtype
