"""Tables of strangers, a few rows at a time: Parquet and CSV through Polars, JSON lines one by one; errors name the file."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Generator, Iterator, Sequence
from typing import IO, Any

import msgspec
import polars as pl

from nscore._tables.batches import batches_of
from nscore._tables.scan import store_options
from nscore.errors import TableError
from nscore.frames import FAULTS, source
from nscore.importers._json import decoded
from nscore.importers._lines import lines
from nscore.importers._places import SourceFile

__all__ = ["ROW", "SUFFIXES", "batches", "is_untyped", "place_of", "together"]

ROW = "__row"

ROWS, ROWS_OF_LISTS = 1 << 17, 1 << 10
LINES, LINES_BYTES = 1 << 15, 4 << 20
PARQUET, CSV, JSON = (".parquet", ".pq"), (".csv", ".tsv"), (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
SUFFIXES = (*PARQUET, *CSV, *JSON)


def is_untyped(file: SourceFile) -> bool:
    """Whether its format knows texts alone."""
    return _name(file).endswith(CSV)


def place_of(file: SourceFile, row: int, column: str = "") -> str:
    """Where something stands: JSON lines are counted from 1, the rows of tables from 0."""
    where = f"{'line' if _name(file).endswith(JSON) else 'row'} {row}"
    return f"{where}, column {column!r}" if column else where


def batches(file: SourceFile) -> Iterator[pl.DataFrame]:
    """The rows of a table, in order, some at a time, numbered in `ROW`; of CSV every other column is text.

    Raises:
        SourceError: if it cannot be read.
    """
    name = _name(file)
    if name.endswith(JSON):
        yield from _json_lines(file)
    elif name.endswith(SUFFIXES):
        with _faults(file), contextlib.ExitStack() as stack:
            frame = _scanned(file, name, stack)
            listy = any(dtype.is_nested() for dtype in frame.collect_schema().dtypes())
            with contextlib.closing(batches_of(frame, ROWS_OF_LISTS if listy else ROWS)) as found:
                height = 0
                for rows in found:
                    number = pl.int_range(height, height + rows.height, dtype=pl.Int64, eager=True)
                    yield rows.drop(ROW, strict=False).insert_column(0, number.alias(ROW))
                    height += rows.height
    else:
        raise file.fault(
            "the name does not say which format it is",
            mend=f"Expected one of {', '.join(SUFFIXES)}: rename it.",
        )


def together(file: SourceFile, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Rows one after another: what some lack is null, and a column is in the dtype in which all of them fit.

    Raises:
        SourceError: if there is no such dtype; `file` is the last of the files they are from.
    """
    try:
        return pl.concat(frames, how="diagonal_relaxed", rechunk=True)
    except pl.exceptions.PolarsError as error:
        found = str(error).split("\n", maxsplit=1)[0]
        raise file.fault(
            f"a column is here of another dtype than above, or in the files before: {found}",
            mend="Cast it in the files, or import them apart.",
        ) from error


def _name(file: SourceFile) -> str:
    return file.path.partition("?")[0].lower()


@contextlib.contextmanager
def _faults(file: SourceFile) -> Generator[None, None, None]:
    try:
        yield
    except TableError as error:
        found = str(error).removeprefix(f"{error.where}: ")
        raise file.fault(found) from error
    except FAULTS as error:
        found = str(error).split("\n", maxsplit=1)[0] or type(error).__name__
        raise file.fault(
            f"cannot be read: {found}", mend="Write it again, or leave it out (--on-error skip)."
        ) from error


def _scanned(file: SourceFile, name: str, stack: contextlib.ExitStack) -> pl.LazyFrame:
    path = file.path
    if path.startswith(("http://", "https://")) or file.query:
        path = stack.enter_context(_fetched(file)).name
    if name.endswith(PARQUET):
        return source(path).frame
    if "://" not in path:
        _check_plain(file, path)
    separator = "\t" if name.endswith(".tsv") else ","
    store = store_options(path)
    return pl.scan_csv(path, separator=separator, infer_schema=False, glob=False, storage_options=store)


@contextlib.contextmanager
def _fetched(file: SourceFile) -> Iterator[IO[bytes]]:
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(file.read())
        copy.flush()
        yield copy


def _check_plain(file: SourceFile, path: str) -> None:
    """Polars would unpack what is packed, however much comes out of it."""
    with SourceFile(path).open() as content:
        start = content.read(4)
    if start[:2] == b"\x1f\x8b" or start == b"\x28\xb5\x2f\xfd" or start[:2] in {b"\x78\x01", b"\x78\x9c", b"\x78\xda"}:
        raise file.fault("it is packed", mend="Unpack it first (gunzip, unzstd).")


def _json_lines(file: SourceFile) -> Iterator[pl.DataFrame]:
    held: list[tuple[int, bytes]] = []
    size = 0
    for number, content in lines(file):
        held.append((number, content))
        size += len(content)
        if len(held) >= LINES or size >= LINES_BYTES:
            yield _framed(_decoded(file, held))
            held, size = [], 0
    if held:
        yield _framed(_decoded(file, held))


def _decoded(file: SourceFile, held: Sequence[tuple[int, bytes]]) -> list[tuple[int, dict[str, Any]]]:
    """All lines at once, which is quicker; one by one where one of them is not what it should be."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        rows = _ROW.decode_lines(b"\n".join(content for _, content in held))
        if len(rows) == len(held):
            return [(number, row) for (number, _), row in zip(held, rows, strict=True)]
    return [(number, decoded(file, content, _ROW, place=f"line {number}")) for number, content in held]


_ROW = msgspec.json.Decoder(dict[str, Any])


def _framed(rows: Sequence[tuple[int, dict[str, Any]]]) -> pl.DataFrame:
    names = dict.fromkeys(name for _, row in rows for name in row)
    columns = [_column(name, [row.get(name) for _, row in rows]) for name in names if name != ROW]
    return pl.DataFrame([pl.Series(ROW, [number for number, _ in rows], dtype=pl.Int64), *columns])


def _column(name: str, values: list[Any]) -> pl.Series:
    """Values of one type as a column of it; of several, as texts."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {list}:
        flat = [item for value in values for item in value or ()]
        dtype = _dtype(flat)
        lists = [value if value is None else _said(value, dtype) for value in values]
        return pl.Series(name, lists, dtype=pl.List(dtype))
    dtype = _dtype(values)
    return pl.Series(name, _said(values, dtype), dtype=dtype)


def _dtype(values: Sequence[Any]) -> type[pl.DataType]:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return pl.Boolean
    if kinds <= {int, float} and kinds:
        known = [value for value in values if value is not None]
        small = int not in kinds or (min(known) >= -(2**63) and max(known) < 2**63)
        return pl.String if not small else pl.Float64 if float in kinds else pl.Int64
    return pl.String


def _said(values: Sequence[Any], dtype: type[pl.DataType]) -> Sequence[Any]:
    if dtype != pl.String:
        return values
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
