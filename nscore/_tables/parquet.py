"""Looks at a Parquet file before Polars does, so that a hostile or broken one is an error and not the process's end.

Polars allocates by what a file says of itself, and an allocation that fails ends the process. So what is said is checked
first: the footer and the headers of the pages, not what is in a page (but see `_read_through`). Arrow's reader goes before: it bounds the depth
of every struct in the footer and the length of every list. What it let through is walked here, since it ends the
process over some columns when it is asked for them one by one.
"""

from __future__ import annotations

import io
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from nscore._tables.disk import FORMAT, FORMAT_KEY
from nscore._tables.pages import (
    ABOUT,
    CHUNKS,
    COMPRESSED,
    DATA_AT,
    DICTIONARY_AT,
    FILE_ROWS,
    GROUP_ROWS,
    N_VALUES,
    ROW_GROUPS,
    Headers,
    Pages,
    struct,
)
from nscore.errors import TableError

__all__ = ["REWRITE", "Contents", "contents_of", "refuse_texts"]

REWRITE = "Expected whole Parquet files with the same columns; write the file again."

# What a file may hold at most for each of its bytes, once it is large. A row group takes some hundred bytes for the
# description of its columns alone, so that ordinary writers stay below a few hundred rows a byte whatever they write.
ROWS_A_BYTE, LARGE_ROWS = 2_000, 10_000_000
EXPANSION, LARGE_BYTES = 4_000, 1 << 30
TEXTS = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
# So many rows are in hand at once: where texts are that many times as long as their file, so many must find room.
ROWS_AT_ONCE, TEXT_EXPANSION, LARGE_TEXTS = 1 << 17, 50, 1 << 26

# What is raised by bytes that are no Parquet.
FOUND = (
    pa.ArrowException,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)


class Contents(NamedTuple):
    """What a file says of itself.

    Args:
        rows: how many it has.
        size: its bytes.
        wide: the columns whose texts would perhaps fill the memory, were each written out where it stands: a text
            that is repeated stands in a file only once.
    """

    rows: int
    size: int
    wide: frozenset[str]


def contents_of(file: str) -> Contents:
    """What a file holds.

    Raises:
        TableError: if it is no regular file or no Parquet, if what it says of its rows and pages cannot be, or if so
            much would come out of so few bytes that no table can be meant.
    """
    try:
        with _opened(file) as content:
            return _checked(file, content.fileno(), content.seek(0, 2))
    except TableError:
        raise
    except FOUND as error:
        raise TableError("unreadable", file, found=_said_by(error), mend=REWRITE) from error


def _opened(file: str) -> io.FileIO:
    path = Path(file)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        found = "found a folder" if stat.S_ISDIR(mode) else "found a pipe or a device"
        raise TableError("not a file", file, found=found, mend="Expected a Parquet file: copy it to one.")
    return path.open("rb", buffering=0)


def refuse_texts(file: str, column: str, size: int, *, longest: int, total: int) -> None:
    """Raises if the texts of a column are too much for a file of so many bytes, or for those that are in hand at once."""
    if _too_much(size, longest, total):
        raise TableError(
            "decompression bomb",
            file,
            column=column,
            found=f"texts of {total:,} bytes, the longest of {longest:,}, would come out of {size:,} bytes",
            mend="If that is meant, shorten them, or read the table yourself and give the frame: pl.scan_parquet(file).",
        )


def _too_much(size: int, longest: int, total: int) -> bool:
    at_once = longest * ROWS_AT_ONCE > LARGE_TEXTS and total > max(LARGE_TEXTS, TEXT_EXPANSION * size)
    return at_once or total > max(LARGE_BYTES, EXPANSION * size)


def _checked(file: str, content: int, size: int) -> Contents:
    """What it says; raises for what cannot be, or is too much."""
    end, leaves, said = _footer(file, content, size)
    rows, groups = said[FILE_ROWS], said[ROW_GROUPS]
    counts = [group[GROUP_ROWS] for group in groups]
    if rows < 0 or any(n < 0 for n in counts) or sum(counts) != rows:
        raise ValueError(f"it says {rows:,} rows, and its row groups {sum(counts):,}")
    _refuse_bomb(file, size, rows, "rows", max(LARGE_ROWS, ROWS_A_BYTE * size))
    held = out = more = 0
    texts = _Texts()
    headers = Headers(content, end)
    for i, (group, n) in enumerate(zip(groups, counts, strict=True)):
        if len(group[CHUNKS]) != len(leaves):
            raise ValueError(f"row group {i} has {len(group[CHUNKS])} columns, and the table {len(leaves)}")
        for j, chunk in enumerate(group[CHUNKS]):
            about = chunk[ABOUT]
            values, taken, start = about[N_VALUES], about[COMPRESSED], about[DATA_AT]
            # some writers say 0 where there is no dictionary
            start = min(start, about.get(DICTIONARY_AT) or start)
            if start < 4 or taken < 0 or start + taken > end:
                raise ValueError(f"column {j} of row group {i} lies outside of the file")
            held += taken
            if held > size:  # before they are walked: one upon another they could take for ever
                raise ValueError("its columns lie upon one another")
            pages = headers.pages(start, start + taken)
            if pages.values != values or values < n or (values > n and not leaves[j].repeated):
                said_so = f"{n:,} rows, {values:,} values, and {pages.values:,} in its pages"
                raise ValueError(f"column {j} of row group {i} has {said_so}")
            out, more = out + pages.out, more + values - n
            texts.add(leaves[j], j, pages)
    _refuse_bomb(file, size, rows + more, "values", max(LARGE_ROWS, ROWS_A_BYTE * size))
    _refuse_bomb(file, size, out, "bytes", max(LARGE_BYTES, EXPANSION * size))
    wide = texts.wide(size)
    for j in texts.shared.intersection(wide):
        _read_through(file, size, j, leaves[j].column, max(1, LARGE_BYTES // 4 // texts.longest[j]))
    return Contents(int(rows), size, frozenset(leaves[j].column for j in wide))


class _Texts:
    """How long the texts of each column may be at most, by what their pages say, and those of all its rows."""

    def __init__(self) -> None:
        self.longest, self.total, self.shared = Counter[int](), Counter[int](), set[int]()

    def add(self, leaf: _Leaf, j: int, pages: Pages) -> None:
        if leaf.texts and pages.longest:
            self.longest[j] = max(self.longest[j], pages.longest)
            self.total[j] += pages.values * pages.longest
            if pages.shared:
                self.shared.add(j)

    def wide(self, size: int) -> list[int]:
        return [j for j in self.total if _too_much(size, self.longest[j], self.total[j])]


def _read_through(file: str, size: int, leaf: int, column: str, rows: int) -> None:
    """Reads the texts of a column, a few rows at a time, and raises once they are too much.

    Of texts that are written without what they share with the text before, no header tells how long they are; Polars
    would write them all out at once.
    """
    longest = total = 0
    content = pq.ParquetFile(file)
    path = content.schema.column(leaf).path
    for batch in content.iter_batches(min(rows, 1 << 12), columns=[path], use_threads=False):
        texts = batch.column(0)
        while pa.types.is_nested(texts.type):
            texts = texts.flatten()
            texts = texts[0] if isinstance(texts, list) else texts
        lengths = pl.Series(texts).cast(pl.Binary).bin.size()
        longest = max(longest, int(lengths.fill_null(0).to_numpy().max(initial=0)))
        total += int(lengths.cast(pl.Int64).sum())
        refuse_texts(file, column, size, longest=longest, total=total)


class _Leaf(NamedTuple):
    """A column of values: which of the table's columns it is in, whether it repeats, whether it holds texts."""

    column: str
    repeated: bool
    texts: bool


def _footer(file: str, content: int, size: int) -> tuple[int, list[_Leaf], dict[int, Any]]:
    """Where the footer begins, the columns of values, and what it says."""
    tail = os.pread(content, 8, max(size - 8, 0))
    if tail[-4:] == b"PARE":
        raise TableError("unreadable", file, found="it is encrypted", mend="Decrypt it, and write it again.")
    length = int.from_bytes(tail[:4], "little")
    end = size - 8 - length
    if tail[-4:] != b"PAR1" or end < 4:
        raise ValueError("it does not end as Parquet does: it is cut off, or of another format")
    footer = os.pread(content, length + 8, end)
    # the footer and what follows it pass for a file
    metadata = pq.read_metadata(pa.BufferReader(footer))
    form = (metadata.metadata or {}).get(FORMAT_KEY.encode(), b"0")
    if not form.isdigit() or int(form[:9]) > FORMAT:
        raise TableError(
            "newer table",
            file,
            found=f"written in format {form.decode(errors='replace')[:20]}; this nscore reads up to {FORMAT}",
            mend="Update nscore.",
        )
    schema = metadata.schema
    leaves = [_leaf(schema.column(j)) for j in range(len(schema))]
    return end, leaves, struct(footer, 0)[0]


def _leaf(column: Any) -> _Leaf:  # noqa: ANN401  (pyarrow has no types)
    # a path of one name is of a column of the table, though there should be dots in it
    whole = column.path if column.path == column.name else column.path.split(".")[0]
    return _Leaf(whole, column.max_repetition_level > 0, column.physical_type in TEXTS)


def _refuse_bomb(file: str, size: int, found: int, what: str, most: int) -> None:
    if found > most:
        raise TableError(
            "decompression bomb",
            file,
            found=f"{found:,} {what} would come out of {size:,} bytes",
            mend="If that is meant, write the table again in row groups of at most 1,000,000 rows, or read it "
            "yourself and give the frame: pl.scan_parquet(file).",
        )


def _said_by(error: BaseException) -> str:
    """What was found, in a line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return "the name of a column is no UTF-8"
    if isinstance(error, LookupError | TypeError | RecursionError):
        return "what it says of its columns and pages cannot be read"
    return str(error).split("\n", maxsplit=1)[0].rstrip(". ")
