"""Tables come in as Polars, Arrow, pandas or Parquet files, here or in a store; a row at fault is found again in its file."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import polars as pl

from nscore._tables.commits import committed_files
from nscore._tables.parquet import REWRITE, Contents, contents_of
from nscore._tables.scan import scan
from nscore._tables.stores import Place, StorePath, is_address, is_in_store, said_of, shown, unreachable
from nscore.errors import TableError
from nscore.records import is_text

__all__ = ["Eager", "Frame", "Lazy", "Source", "aligned", "like", "reading", "source"]


class ArrowStream(Protocol):
    """Anything that speaks Arrow's C stream: pyarrow tables, pandas and DuckDB frames, and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A table on its way in: a lazy frame, and the files it is read from, if it is.

    Attributes:
        frame: the table.
        files: where it is read from; none if it is not from files.
        eager: whether it came as an eager frame.
        contents: what each file says of itself; None for one that is not on this machine.
    """

    frame: pl.LazyFrame
    files: tuple[str, ...]
    eager: bool
    contents: tuple[Contents | None, ...] = ()

    @property
    def name(self) -> str:
        """What to call it in an error."""
        if not self.files:
            return "the frame"
        first = shown(self.files[0])
        return first if len(self.files) == 1 else f"{first} and {len(self.files) - 1} more"

    def schema(self) -> pl.Schema:
        """The columns and dtypes; a file that is no Parquet is a `TableError`."""
        with reading(self):
            return self.frame.collect_schema()

    def fault(self, error: BaseException) -> TableError | None:
        """What is wrong with the first of the files that explains an error; None if none does."""
        looks = (self._unreadable, self._misfit)
        of_columns = isinstance(error, pl.exceptions.SchemaError | pl.exceptions.ColumnNotFoundError)
        for look in reversed(looks) if of_columns else looks:
            found = look(error)
            if found is not None:
                return found
        return None

    def _unreadable(self, error: BaseException) -> TableError | None:
        for file in self.files:
            try:
                scan(file).sink_batches(lambda _rows: None, engine="streaming")
            except FAULTS as fault:
                return _unreadable(file, error, fault)
        return None

    def _misfit(self, _error: BaseException) -> TableError | None:
        """The first column of the first file that another file lacks, or has in another dtype."""
        first: dict[str, pl.DataType] = {}
        for file in self.files:
            try:
                here = scan(file).collect_schema()
            except FAULTS:
                return None
            first = first or here
            for column, dtype in first.items():
                if here.get(column) == dtype:
                    continue
                lacks = column not in here
                cast = "" if dtype.is_nested() else f", pl.col({column!r}).cast(pl.{dtype})"
                return TableError(
                    "missing column" if lacks else "wrong dtype",
                    shown(file),
                    column=column,
                    found=f"{'it is not there' if lacks else f'found {here[column]}'}; in {shown(self.files[0])} it is {dtype}",
                    mend=f"{REWRITE} {'Add the column.' if lacks else f'Cast the column{cast}.'}",
                )
        return None

    def height(self) -> int | None:
        """How many rows there are, where that costs nothing to know."""
        if not self.files and not self.eager:
            return None
        return sum(map(self._height, range(len(self.files)))) if self.files else self._counted(self.frame)

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """What a query over the table gives; a file that cannot be read is a `TableError`."""
        with reading(self):
            return frame.collect(engine="streaming")

    def where(self, row: int) -> str:
        """The file and the row in it (from 0) that row `row` of the whole table came from."""
        for i, file in enumerate(self.files):
            height = self._height(i)
            if row < height:
                return f"{shown(file)}, row {row}"
            row -= height
        return f"{self.name}, row {row}"

    def row_of(self, at_fault: pl.Expr) -> str | None:
        """Where the first row stands for which `at_fault` is true; None if there is none."""
        found = self.first(at_fault)
        return None if found is None else found[0]

    def first(self, at_fault: pl.Expr, *columns: str) -> tuple[str, list[Any]] | None:
        """Where the first row stands for which `at_fault` is true, and what it holds in some columns."""
        rows = self.frame.with_row_index("__row").filter(at_fault).select("__row", *columns).head(1)
        for row, *values in self.collect(rows).iter_rows():
            return self.where(row), values
        return None

    def _height(self, i: int) -> int:
        known = self.contents[i]
        return self._counted(scan(self.files[i])) if known is None else known.rows

    def _counted(self, frame: pl.LazyFrame) -> int:
        return int(self.collect(frame.select(pl.len())).item())


FAULTS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)

Eager: TypeAlias = "pl.DataFrame | ArrowStream"
Lazy: TypeAlias = "pl.LazyFrame | str | Place | Sequence[str | Place] | Source"
Frame: TypeAlias = "Eager | Lazy"


def source(frame: Frame) -> Source:
    """Takes a table in: Polars (eager or lazy), Arrow, pandas, or paths, folders and globs of Parquet.

    Paths may be addresses: files, folders and globs at `s3://`, `gs://` and `az://`, files at `https://`. Endpoints, regions
    and keys come from the environment, see `nscore._tables.stores`.

    Raises:
        TableError: if a path matches no file, a store does not give it, or a file on this machine is no Parquet.
    """
    if isinstance(frame, Source):
        return frame
    if isinstance(frame, pl.DataFrame):
        return Source(frame.lazy(), (), eager=True)
    if isinstance(frame, pl.LazyFrame):
        return Source(frame, (), eager=False)
    if isinstance(frame, str | Path | StorePath):
        files = _files(str(frame))
    elif hasattr(frame, "__arrow_c_stream__"):
        return Source(pl.DataFrame(frame).lazy(), (), eager=True)
    elif isinstance(frame, Sequence):
        files = tuple(file for path in frame for file in _files(str(path)))
        if not files:
            raise _no_file("an empty list of paths")
    else:
        raise TypeError(f"expected a frame or a path, found {type(frame).__name__}")
    contents = tuple(None if is_address(file) else contents_of(file) for file in files)
    return Source(scan(files), files, eager=False, contents=contents)


def aligned(frame: pl.LazyFrame, schema: pl.Schema, keys: Sequence[str]) -> pl.LazyFrame:
    """The table with its keys in the dtypes that another table has them in, so that the two can be joined."""
    here = frame.collect_schema()
    other = [k for k in keys if here[k] != schema[k]]
    # what does not fit the other dtype is null, and matches nothing there; bytes fit none
    bytes_ = [k for k in other if pl.Binary in (here[k], schema[k])]
    # a category has no number but its place in a list: its text is taken
    texts = [pl.col(k).cast(pl.String) for k in other if k not in bytes_ and (is_text(here[k]) or is_text(schema[k]))]
    casts = [pl.col(k).cast(schema[k], strict=False) for k in other if k not in bytes_]
    nulls = [pl.lit(None, dtype=schema[k]).alias(k) for k in bytes_]
    return frame.with_columns(texts).with_columns(*casts, *nulls)


def like(given: Source, result: pl.LazyFrame) -> pl.DataFrame | pl.LazyFrame:
    """The result as the table came in: eager for eager, lazy for lazy."""
    return result.collect() if given.eager else result


class reading:  # noqa: N801  (reads as a statement: with reading(source))
    """Turns what Polars says of a file into a `TableError` that names the file; of a frame it is left as it is.

    Where several tables are read at once, the file at fault is looked for in all of them; an error that is no file's
    fault is left as it is, too. A panic of Polars' reader, which is no `Exception` and would pass every handler, is
    never let through.
    """

    def __init__(self, *given: Source) -> None:
        self._given = [source for source in given if source.files]

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not self._given or not isinstance(error, FAULTS):
            return
        fault = next((fault for given in self._given if (fault := given.fault(error))), None)
        # statistics are read only where rows are filtered, not when a file is read whole
        if fault is None and isinstance(error, pl.exceptions.PanicException | pl.exceptions.ComputeError):
            fault = TableError("unreadable", self._given[0].name, found=_said_by(error), mend=REWRITE)
        if fault is not None:
            # what an engine says of an address holds its signature
            raise fault from (None if any(is_address(file) for given in self._given for file in given.files) else error)


def _unreadable(file: str, error: BaseException, fault: BaseException) -> TableError:
    """What is wrong with a file that cannot be read alone; of one that cannot be fetched, what its server says."""
    if not is_address(file):
        return TableError("unreadable", file, found=_said_by(error), mend=REWRITE)
    of_server = isinstance(fault, OSError) or "object-store" in str(fault) or "error sending request" in str(fault)
    return unreachable(file, fault) if of_server else _broken(file, fault)


def _broken(file: str, fault: BaseException) -> TableError:
    return TableError("unreadable", shown(file), found=said_of(fault), mend=REWRITE)


def _said_by(error: BaseException) -> str:
    """What Polars found, in a line."""
    said = str(error)
    if isinstance(error, pl.exceptions.PanicException):
        # the threads' panics are told in one another's quotes: the innermost is where it began
        said = re.split(r'\\*"|\\+n', re.split(r'Panic\(Id\(\d+\), \\*"', said)[-1])[0]
        said = f"Polars gave up on it ({said})"
    return said.split("\n", maxsplit=1)[0].rstrip(". ")


def _files(path: str) -> tuple[str, ...]:
    path = path.removeprefix("file://")
    if is_in_store(path):
        return _in_store(StorePath(path))
    if is_address(path):
        return (path,)
    if Path(path).is_dir():
        known = committed_files(Path(path))
        if known is not None:
            return tuple(map(str, known))
        path = str(Path(glob.escape(path)) / "*.parquet")
    if Path(path).is_file():
        return _committed([path]) or (path,)
    files = tuple(sorted(glob.glob(path, recursive=True)))  # noqa: PTH207  (the pattern may be absolute)
    if not files:
        raise _no_file(path)
    return _committed(files)


def _committed(files: Sequence[str]) -> tuple[str, ...]:
    """Of files in the folder of a run's table those that belong to it, each as it was written; of others all."""
    kept: list[str] = []
    places: Iterable[Place] = map(StorePath if is_in_store(files[0]) else Path, files)
    for folder, group in itertools.groupby(places, key=lambda file: file.parent):
        there: list[Place] = list(group)
        known = committed_files(folder, there)
        kept += map(str, there if known is None else known)
    return tuple(kept)


def _in_store(given: StorePath) -> tuple[str, ...]:
    """What lies at an address in a store: a file, a folder's, or those that a glob names."""
    path = str(given)
    if given.is_file():
        return _committed([path])
    if given.is_dir():
        known = committed_files(given)
        return tuple(map(str, known)) if known is not None else _some(given.glob("*.parquet"), path)
    first = re.search(r"[*?\[]", path)
    if first is None:
        raise _no_file(path)
    head = path[: first.start()].rpartition("/")[0]
    return _committed(_some(StorePath(head).glob(path[len(head) + 1 :]), path))


def _some(files: Sequence[StorePath], path: str) -> tuple[str, ...]:
    if not files:
        raise _no_file(path)
    return tuple(map(str, files))


def _no_file(path: str) -> TableError:
    return TableError(
        "no such file",
        path,
        found="no Parquet file is there",
        mend="Check the path (a file, a folder of *.parquet, or a glob in quotes).",
    )
