"""Whether a table has the columns that its stage needs, and none of texts that would fill the memory written out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from nscore._tables.parquet import refuse_texts
from nscore.frames import Source
from nscore.records import TOKEN, Table, is_text

__all__ = ["check_table", "check_texts"]


def check_table(given: Source, table: Table, by: Sequence[str], beside: Sequence[str] = ()) -> None:
    """Raises for a missing column or a wrong dtype, and for texts too long and too many.

    Args:
        given: the table.
        table: its kind.
        by: the keys.
        beside: other columns whose texts count; a token's do not where they are only passed on.

    Raises:
        TableError: as it says.
    """
    table.check(given.schema(), given.name, by)
    known = [c for c in [*by, *table.required, *table.optional] if c != TOKEN]
    check_texts(given, [*known, *beside])


def check_texts(given: Source, columns: Iterable[str]) -> None:
    """Raises for a column of a file whose texts, each written out where it stands, would fill the memory.

    A text that is repeated stands in a file and in memory only once, until rows are sorted, joined or compared by it,
    or a category becomes a text.

    Raises:
        TableError: naming the file and the column.
    """
    wanted = set(columns)
    for file, content in zip(given.files, given.contents, strict=True):
        if content is None:
            continue
        for column in sorted(wanted & content.wide):
            size, rows = content.size, pl.scan_parquet(file, glob=False).select(pl.col(column).alias("text"))
            longest, total = given.collect(_measured(rows)).row(0)
            refuse_texts(file, column, size, longest=longest or 0, total=total)


def _measured(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The length of the longest text, and of all."""
    while rows.collect_schema()["text"] == pl.List:
        rows = rows.explode("text", empty_as_null=False)
    dtype = rows.collect_schema()["text"]
    text, times = pl.col("text"), pl.lit(1)
    if is_text(dtype) and dtype != pl.String:
        # each category becomes a text once
        rows, times = rows.group_by("text").len("times"), pl.col("times")
    length = (text.bin.size() if dtype == pl.Binary else text.cast(pl.String).str.len_bytes()).cast(pl.Int64)
    return rows.select(length.max().alias("longest"), (length * times).sum().alias("total"))
