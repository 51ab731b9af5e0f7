"""Folders that the tests of questions in SQL ask: tables with every kind of value in them, damaged files, engines."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pyarrow.parquet as pq

from nscore._sql.sql_polars import counts_as_sql

# The oldest Polars that is allowed counts otherwise than SQL does, and is refused: a test of its own holds that.
ENGINES = ["duckdb", "polars"] if counts_as_sql() else ["duckdb"]


def kinds():
    """A row for each edge of each dtype that a table may have."""
    nan, inf = float("nan"), float("inf")
    return pl.DataFrame(
        {
            "layer": pl.Series([0, 0, 1, 1, 2, None], dtype=pl.UInt8),
            "i8": pl.Series([-128, 127, 0, None, 1, 2], dtype=pl.Int8),
            "u32": pl.Series([0, 2**32 - 1, 5, None, 1, 2], dtype=pl.UInt32),
            "i64": pl.Series([-(2**62), 2**62, 0, None, 1, 2], dtype=pl.Int64),
            "u64": pl.Series([0, 2**64 - 1, 5, None, 1, 2], dtype=pl.UInt64),
            "f32": pl.Series([0.1, nan, inf, None, -inf, -0.0], dtype=pl.Float32),
            "f64": pl.Series([0.5, nan, inf, None, -2.5, 3.0], dtype=pl.Float64),
            "score": pl.Series([0.5, nan, 0.25, None, -2.5, 3.0], dtype=pl.Float64),
            "text": ["a", "", None, "é\n", "B", "a"],
            "status": pl.Series(["ok", "ok", None, "refused", "ok", "refused"], dtype=pl.Enum(["refused", "ok"])),
            "category": pl.Series(["x", "y", None, "x", "y", "z"], dtype=pl.Categorical),
            "flag": [True, False, None, True, True, False],
            "day": [dt.date(2020, 1, 1), None, dt.date(1969, 12, 31), dt.date(2020, 1, 2), None, None],
            "at": pl.Series([dt.datetime(2020, 1, 1, 1, 2, 3, 4), *[None] * 5], dtype=pl.Datetime("ns")),  # noqa: DTZ001
            "zoned": pl.Series([dt.datetime(2020, 1, 1, tzinfo=dt.UTC), *[None] * 5], dtype=pl.Datetime("ms", "UTC")),
            "raw": [b"\x00\xff", None, b"", b"a", b"b", b"c"],
            "list": pl.Series([[1, 2], [], None, [None], [3], [4]], dtype=pl.List(pl.UInt16)),
            "counts": [{"a": 1, "b": 0.5}, {"a": None, "b": None}, None, {"a": 2, "b": 1.0}, None, None],
            "nothing": pl.Series([None] * 6, dtype=pl.Null),
        }
    )


def chunks(file, column):
    """Where the bytes of a column lie in a Parquet file, row group by row group."""
    about = pq.read_metadata(file)
    for group in range(about.num_row_groups):
        parts = (about.row_group(group).column(i) for i in range(about.num_columns))
        chunk = next(part for part in parts if part.path_in_schema == column)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        yield start, start + chunk.total_compressed_size


def spoil(file, column, groups=None):
    """Makes what is in the pages of a column unreadable, their headers not."""
    content = bytearray(file.read_bytes())
    for group, (start, end) in enumerate(chunks(file, column)):
        if groups is None or group in groups:
            last = max(start + 30, end - 200)
            content[last:end] = b"\xff" * (end - last)
    file.write_bytes(content)
