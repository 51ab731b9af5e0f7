"""DuckDB answers a question in SQL over the tables of a folder, and can open nothing else."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]

from nscore._sql.sql import Question
from nscore._sql.sql_types import Opened, plain, settled, twice
from nscore.errors import QueryError
from nscore.frames import FAULTS, Source

__all__ = ["ask_duckdb", "duckdb_version"]

OLDEST = (1, 4)
# Table functions that make rows of nothing but their arguments.
HARMLESS = {"unnest", "range", "generate_series"}
NAMES: dict[Any, str] = {
    pl.Int64: "BIGINT",
    pl.UInt64: "UBIGINT",
    pl.Float64: "DOUBLE",
    pl.String: "VARCHAR",
    pl.Boolean: "BOOLEAN",
    pl.Binary: "BLOB",
    pl.Date: "DATE",
    pl.Time: "TIME",
}


def ask_duckdb(asked: Question, given: Opened) -> pl.DataFrame:
    """The answer; raises a `QueryError` where there is none, a `TableError` for a file that cannot be read."""
    version = duckdb_version()
    if version is None or version < OLDEST:
        found = "it is not installed" if version is None else f"found {version[0]}.{version[1]}"
        raise QueryError(f"DuckDB 1.4 or newer is needed, and {found}: pip install 'duckdb>=1.4', or ask Polars")
    import duckdb  # noqa: PLC0415  (an extra)

    # of a file, or of the engine: what is wrong with the question itself has other kinds
    of_files = (duckdb.IOException, duckdb.InvalidInputException, duckdb.InternalException)
    with tempfile.TemporaryDirectory(prefix="nscore-query-") as spill, duckdb.connect(":memory:") as engine:
        try:
            _open(engine, given, spill)
            _check(engine, asked)
            answer = pl.DataFrame(engine.sql(asked.sql).to_arrow_table())
        except (duckdb.Error, pa.ArrowException, *FAULTS) as error:
            fault = given.fault(error) if isinstance(error, of_files) else None
            raise fault or _told(asked, error, given) from error
    return settled(answer)


@cache
def duckdb_version() -> tuple[int, int] | None:
    """The first two numbers of the DuckDB that is installed; None where none is."""
    try:
        import duckdb  # noqa: PLC0415  (an extra)
    except ImportError:
        return None
    major, minor = re.findall(r"\d+", duckdb.__version__)[:2]
    return int(major), int(minor)


def _open(engine: Any, given: Opened, spill: str) -> None:  # noqa: ANN401  (duckdb may not be there)
    """Makes a view of each table, and shuts everything else: files, the network, extensions, Python's variables."""
    paths = [path for table in given.tables.values() for path in _paths(table)]
    files = [*paths, *map(_literal, paths)]
    for setting in (
        f"temp_directory = {_text(spill)}",
        "default_null_order = 'NULLS_LAST_ON_ASC_FIRST_ON_DESC'",
        "TimeZone = 'UTC'",
        "errors_as_json = true",
        "python_enable_replacements = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        f"allowed_paths = [{', '.join(map(_text, files))}]",
        "enable_external_access = false",
    ):
        engine.execute(f"SET {setting}")
    _check_case("tables", given.tables)
    for name, table in given.tables.items():
        engine.execute(_view(name, table))
    engine.execute("SET lock_configuration = true")


def _view(name: str, table: Source) -> str:
    columns = table.schema()
    _check_case(f"columns of {name}", columns)
    if not columns:
        raise QueryError(f"{name} has no columns, and DuckDB reads no such table")
    selected = ", ".join(_selected(column, dtype) for column, dtype in columns.items())
    files = ", ".join(_text(_literal(path)) for path in _paths(table))
    source = f"read_parquet([{files}], hive_partitioning = false, union_by_name = false)"
    return f"CREATE VIEW {_quoted(name)} AS SELECT {selected} FROM {source}"  # noqa: S608  (names are quoted)


def _selected(column: str, dtype: pl.DataType) -> str:
    """A column in its plain dtype; where statistics tell of rows that are not wanted, DuckDB looks through a CAST."""
    name = _quoted(column)
    told = name if plain(dtype) == dtype else f"CAST({name} AS {_type(plain(dtype))})"
    if dtype.is_float():
        # not nullif: the statistics of Parquet leave NaN out, and by them DuckDB takes x = 'nan' for false
        told = f"CASE WHEN isnan({told}) THEN NULL ELSE {told} END"
    return f"{told} AS {name}"


def _type(dtype: pl.DataType) -> str:
    """The name of a plain dtype."""
    if isinstance(dtype, pl.List):
        return f"{_type(dtype.inner)}[]"  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        fields = (f"{_quoted(field.name)} {_type(field.dtype)}" for field in dtype.fields)  # type: ignore[arg-type]
        return f"STRUCT({', '.join(fields)})"
    if isinstance(dtype, pl.Datetime):
        return "TIMESTAMP WITH TIME ZONE" if dtype.time_zone else "TIMESTAMP"
    return NAMES[type(dtype)]


def _paths(table: Source) -> list[str]:
    return [str(Path(file).absolute()) for file in table.files]


def _literal(path: str) -> str:
    """A path as a pattern that it alone matches."""
    return re.sub(r"[*?\[]", lambda found: f"[{found[0]}]", path)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _check_case(what: str, names: Collection[str]) -> None:
    counts = Counter(name.lower() for name in names)
    if same := [name for name in names if counts[name.lower()] > 1]:
        raise QueryError(
            f"{what}: {', '.join(map(repr, same))} differ in case alone, and are one to DuckDB: ask Polars"
        )


def _check(engine: Any, asked: Question) -> None:  # noqa: ANN401  (duckdb may not be there)
    """Refuses what is no SELECT, and functions that make tables of anything but what they are given."""
    told = engine.execute("SELECT CAST(json_serialize_sql(CAST(? AS VARCHAR)) AS VARCHAR)", [asked.sql]).fetchall()
    try:
        tree = json.loads(told[0][0])
    except RecursionError:
        raise QueryError("the question is nested too deep") from None
    if tree["error"]:
        # before DuckDB 2, the parser alone counted characters
        characters = int(tree["position"]) if "position" in tree and "location" not in tree else None
        place = _place(asked, tree.get("position")) if characters is None else characters
        raise asked.told(tree["error_message"], place)
    if len(tree["statements"]) != 1:
        raise QueryError("one question at a time")
    for name in _table_functions(tree["statements"]):
        if name.lower() not in HARMLESS:
            raise QueryError(f"{name}: only the tables of the folder are read, and {', '.join(sorted(HARMLESS))}")


def _table_functions(tree: object) -> Iterator[str]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("type") == "TABLE_FUNCTION":
                yield str(node["function"].get("function_name"))
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _told(asked: Question, error: BaseException, given: Opened) -> QueryError:
    if isinstance(error, pl.exceptions.DuplicateError):
        return twice()
    kind, _, said = str(error).partition(" Error: ")
    try:
        details = json.loads(said)
    except ValueError:
        details = {"exception_message": (said or kind).split("\n\nLINE ", maxsplit=1)[0]}
    said = details["exception_message"].split("\n", maxsplit=1)[0]
    place = _place(asked, details.get("position"))
    if found := re.match(r"Table with name (.*) does not exist", said):
        return asked.told(given.no_table(details.get("name", found[1])), place)
    if kind == "Binder" and "column" in said.lower():
        return asked.told(f"{said.rstrip('!.')}: {given.columns()}", place)
    return asked.told(said, place)


def _place(asked: Question, position: object) -> int | None:
    """The character at which an error stands, of the byte that DuckDB counts."""
    if not isinstance(position, str) or not position.isdigit():
        return None
    return len(asked.sql.encode()[: int(position)].decode(errors="ignore"))
