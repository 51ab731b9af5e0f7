"""Tables come in as Polars, Arrow, pandas or Parquet files; a row that is at fault is found again in its file."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import polars as pl

from nscore.errors import TableError
from nscore.records import is_text

__all__ = ["Eager", "Frame", "Lazy", "Source", "aligned", "like", "reading", "source"]


class ArrowStream(Protocol):
    """Anything that speaks Arrow's C stream: pyarrow tables, pandas and DuckDB frames, and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A table on its way in: a lazy frame, and the files it is read from, if it is."""

    frame: pl.LazyFrame
    files: tuple[str, ...]
    eager: bool

    @property
    def name(self) -> str:
        """What to call it in an error."""
        if not self.files:
            return "the frame"
        return self.files[0] if len(self.files) == 1 else f"{self.files[0]} and {len(self.files) - 1} more"

    def schema(self) -> pl.Schema:
        """The columns and dtypes; a file that is no Parquet is a `TableError`."""
        with reading(self):
            return self.frame.collect_schema()

    def file_at_fault(self) -> str:
        """The file that cannot be read, or lacks a column that the first one has, or has it in another dtype."""
        first = None
        for file in self.files:
            try:
                here = pl.read_parquet_schema(file)
            except (pl.exceptions.PolarsError, OSError):
                return file
            first = first or here
            if any(here.get(column) != dtype for column, dtype in first.items()):
                return file
        for file in self.files:
            try:
                pl.read_parquet(file, glob=False)
            except (pl.exceptions.PolarsError, OSError):
                return file
        return self.name

    def height(self) -> int | None:
        """How many rows there are, where that costs nothing to know."""
        if not self.files and not self.eager:
            return None
        return int(self.collect(self.frame.select(pl.len())).item())

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """What a query over the table gives; a file that cannot be read is a `TableError`."""
        with reading(self):
            return frame.collect(engine="streaming")

    def where(self, row: int) -> str:
        """The file and the row in it (from 0) that row `row` of the whole table came from."""
        for file in self.files:
            height = int(self.collect(pl.scan_parquet(file, glob=False).select(pl.len())).item())
            if row < height:
                return f"{file}, row {row}"
            row -= height
        return f"{self.name}, row {row}"

    def row_of(self, at_fault: pl.Expr) -> str | None:
        """Where the first row stands for which `at_fault` is true; None if there is none."""
        rows = self.frame.with_row_index("__row").filter(at_fault).select("__row").head(1)
        found = self.collect(rows)
        return self.where(found.item()) if found.height else None


Eager: TypeAlias = "pl.DataFrame | ArrowStream"
Lazy: TypeAlias = "pl.LazyFrame | str | Path | Sequence[str | Path]"
Frame: TypeAlias = "Eager | Lazy | Source"


def source(frame: Frame) -> Source:
    """Takes a table in: Polars (eager or lazy), Arrow, pandas, or paths, folders and globs of Parquet.

    Raises:
        TableError: if a path matches no file.
    """
    if isinstance(frame, Source):
        return frame
    if isinstance(frame, pl.DataFrame):
        return Source(frame.lazy(), (), eager=True)
    if isinstance(frame, pl.LazyFrame):
        return Source(frame, (), eager=False)
    if isinstance(frame, str | Path):
        files = _files(str(frame))
    elif hasattr(frame, "__arrow_c_stream__"):
        return Source(pl.DataFrame(frame).lazy(), (), eager=True)
    elif isinstance(frame, Sequence):
        files = tuple(file for path in frame for file in _files(str(path)))
        if not files:
            raise _no_file("an empty list of paths")
    else:
        raise TypeError(f"expected a frame or a path, found {type(frame).__name__}")
    return Source(pl.scan_parquet(list(files), glob=False, extra_columns="ignore"), files, eager=False)


def aligned(frame: pl.LazyFrame, schema: pl.Schema, keys: Sequence[str]) -> pl.LazyFrame:
    """The table with its keys in the dtypes that another table has them in, so that the two can be joined."""
    here = frame.collect_schema()
    texts = [pl.col(k).cast(pl.String) for k in keys if here[k] != schema[k] and is_text(schema[k])]
    # what does not fit the other dtype is null, and matches nothing there
    casts = [pl.col(k).cast(schema[k], strict=False) for k in keys if here[k] != schema[k]]
    return frame.with_columns(texts).with_columns(casts)


def like(given: Source, result: pl.LazyFrame) -> pl.DataFrame | pl.LazyFrame:
    """The result as the table came in: eager for eager, lazy for lazy."""
    return result.collect() if given.eager else result


class reading:  # noqa: N801  (reads as a statement: with reading(source))
    """Turns what Polars says of a file into a `TableError` that names the file; of a frame it is left as it is."""

    def __init__(self, given: Source) -> None:
        self._given = given

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._given.files and isinstance(error, pl.exceptions.PolarsError | OSError):
            raise TableError(
                "unreadable",
                self._given.file_at_fault(),
                found=str(error).split("\n", maxsplit=1)[0].rstrip(". "),
                mend="Expected whole Parquet files with the same columns; write the file again.",
            ) from error


def _files(path: str) -> tuple[str, ...]:
    if "://" in path:
        return (path,)
    if Path(path).is_dir():
        path = str(Path(glob.escape(path)) / "*.parquet")
    if Path(path).is_file():
        return (path,)
    files = tuple(sorted(glob.glob(path, recursive=True)))  # noqa: PTH207  (the pattern may be absolute)
    if not files:
        raise _no_file(path)
    return files


def _no_file(path: str) -> TableError:
    return TableError(
        "no such file",
        path,
        found="no Parquet file is there",
        mend="Check the path (a file, a folder of *.parquet, or a glob in quotes).",
    )
