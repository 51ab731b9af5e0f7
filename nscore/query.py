"""Questions in SQL over the tables of a run or of a folder of results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import polars as pl

from nscore._sql.sql import question
from nscore._sql.sql_duckdb import ask_duckdb, duckdb_version
from nscore._sql.sql_polars import ask_polars
from nscore._sql.sql_types import Opened
from nscore._tables.stores import Place, StorePath, place
from nscore.errors import QueryError, TableError
from nscore.frames import Source, source
from nscore.run import JOURNAL

__all__ = ["ENDING", "Engine", "Tables", "query", "tables"]

Engine = Literal["auto", "duckdb", "polars"]
ENDING = ".parquet"


class Tables(Mapping[str, pl.LazyFrame]):
    """The tables of a folder by name; each is opened, and its files are looked at, when it is first taken.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Place, found: Mapping[str, tuple[Place, ...]]) -> None:
        self.path = path
        self._found, self._opened = dict(found), dict[str, Source]()

    def __getitem__(self, name: str) -> pl.LazyFrame:
        return self.source(name).frame

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"<tables of {self.path}: {', '.join(self)}>"

    def source(self, name: str) -> Source:
        """A table and the files it is read from.

        Raises:
            KeyError: if none has the name.
            TableError: if two have, or a file is not as it was written.
        """
        if name not in self._found:
            raise KeyError(f"no table {name!r} in {self.path}: the tables are {', '.join(self)}")
        if name not in self._opened:
            first, *more = self._found[name]
            if more:
                found = f"{first.name} and {more[0].name} are both there"
                raise TableError("two tables of one name", str(self.path / name), found=found, mend="Move one away.")
            self._opened[name] = source(first)
        return self._opened[name]


def tables(path: str | Place) -> Tables:
    """The tables of a run or of a folder of results, each a lazy frame.

    A table is a file `scores.parquet`, or a folder of that name or named `scores` with Parquet files in it. Of a run
    only what is committed is read, and is compared with what was written when the table is taken.

    Args:
        path: the folder; or one table, which is then the only one.

    Returns:
        The tables by name, which is the file's without its ending. They are opened when taken, so that a folder is
        looked through at once however large it is.

    Raises:
        TableError: if the folder is not there, or has no table.

    Examples:
        >>> import tempfile
        >>> import nscore as ns
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ns.sample.explanations().write_parquet(f"{folder}/explanations.parquet")
        ...     tables = ns.tables(folder)
        ...     list(tables), tables["explanations"].select("layer", "neuron").head(1).collect().row(0)
        (['explanations'], (0, 10))
    """
    folder = place(path)
    if folder.is_file() or (folder.is_dir() and folder.suffix == ENDING):
        return Tables(folder.parent, {folder.name.removesuffix(ENDING): (folder,)})
    if not folder.is_dir():
        raise TableError(
            "no such folder", str(path), found="nothing is there", mend="Name the folder of a run or of results."
        )
    found: dict[str, tuple[Place, ...]] = {}
    entries: Iterable[Place] = folder.iterdir()
    for entry in sorted(entries, key=str):
        if _is_table(entry):
            name = entry.name.removesuffix(ENDING)
            found[name] = (*found.get(name, ()), entry)
    if not found:
        raise TableError(
            "no tables", str(path), found="no Parquet file is there", mend="Name the folder of a run or of results."
        )
    return Tables(folder, found)


def query(path: str | Place, sql: str, *, engine: Engine = "auto") -> pl.DataFrame:
    """Answers a question in SQL over the tables of a run or of a folder of results.

    Only what the question needs is read: its tables, of them its columns, and of these not the parts that by the files'
    statistics hold no row that is asked for. Both engines give the same answer:

    - integers are Int64, floats and decimals Float64, texts String; NaN, an undefined score, is null;
    - null is the greatest value: first in `ORDER BY x DESC` unless `NULLS LAST` is asked for;
    - `/` divides as floats do, and `0.1` is a float;
    - without `ORDER BY` rows come in any order, and a column without `AS` has a name of the engine's own.

    Args:
        path: the folder, or one table of it; `tables` says what is found there.
        sql: one statement that reads: `SELECT`, `WITH`, `VALUES`. Files, the network and settings are out of its reach.
        engine: `duckdb`, `polars`, or `auto`: DuckDB where it is installed, but Polars for tables in a store.

    Raises:
        QueryError: if the question is no SQL, does more than read, or names a table or a column that is not there.
        TableError: if the folder has no tables, or a file of one that is named cannot be read.

    Examples:
        >>> import tempfile
        >>> import nscore as ns
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ns.sample.explanations().write_parquet(f"{folder}/explanations.parquet")
        ...     ns.query(folder, "SELECT layer, COUNT(*) AS n FROM explanations GROUP BY layer ORDER BY layer LIMIT 2")
        shape: (2, 2)
        ┌───────┬─────┐
        │ layer ┆ n   │
        │ ---   ┆ --- │
        │ i64   ┆ i64 │
        ╞═══════╪═════╡
        │ 0     ┆ 10  │
        │ 1     ┆ 10  │
        └───────┴─────┘
    """
    asked = question(sql)
    there = tables(path)
    used = {name: there.source(name) for name in there if name.lower() in asked.words}
    given = Opened(str(path), tuple(there), used)
    in_store = isinstance(there.path, StorePath)
    if engine == "auto":
        engine = "polars" if in_store or duckdb_version() is None else "duckdb"
    if engine == "duckdb" and in_store:
        raise QueryError(f"{path}: DuckDB is let to no network, so tables in a store are asked with the engine polars")
    if engine not in {"duckdb", "polars"}:
        raise QueryError(f"engine {engine!r}: expected auto, duckdb or polars")
    return ask_duckdb(asked, given) if engine == "duckdb" else ask_polars(asked, given)


def _is_table(entry: Place) -> bool:
    if entry.name.startswith(".") or entry.name == JOURNAL:
        return False
    if entry.name.endswith(ENDING) and entry.name != ENDING:
        return True
    return entry.is_dir() and any(entry.glob(f"*{ENDING}"))
