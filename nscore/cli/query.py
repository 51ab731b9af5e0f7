"""`nscore query`: a question in SQL over the tables of a folder; a table, CSV, JSON or Parquet out."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import get_args

import polars as pl

import nscore as ns
from nscore._drawing.table import plain_table
from nscore._sql.cookbook import cookbook
from nscore._tables.disk import make_folder, write_table, write_whole
from nscore._tables.stores import Place, place
from nscore.query import Engine

__all__ = ["configure", "run"]

FORMATS = ["table", "csv", "json", "parquet"]
# A terminal is for eyes; the other formats have every row.
ROWS = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("folder", nargs="?", metavar="DIR", help="the folder of a run or of results, or one table")
    parser.add_argument(
        "sql", nargs="?", metavar="SQL", help="the question; - reads it from stdin; without one, the tables are listed"
    )
    parser.add_argument("--engine", choices=get_args(Engine), default="auto", help="(default: duckdb if it is there)")
    parser.add_argument("--format", choices=FORMATS, help="(default: table, or as the ending of FILE says)")
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("-o", "--out", dest="file", type=place, metavar="FILE", help="write the answer to a file")
    parser.add_argument("--cookbook", action="store_true", help="print the questions that are asked most, as SQL")
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Asks and prints, or writes."""
    if arguments.cookbook:
        print("\n\n".join(map(str, cookbook())))
        return 0
    if arguments.folder is None:
        arguments.usage_error("name a folder: nscore query DIR SQL; or see --cookbook")
    kind = _format(arguments)
    if arguments.sql is None:
        answer = _listing(arguments.folder)
    else:
        sql = sys.stdin.read() if arguments.sql == "-" else arguments.sql
        answer = ns.query(arguments.folder, sql, engine=arguments.engine)
    if arguments.file is not None:
        _write(answer, arguments.file, kind)
        print(f"wrote {arguments.file}: {answer.height:,} rows", file=sys.stderr)
    elif kind in WRITERS:
        sys.stdout.write(WRITERS[kind](answer))
    else:
        _show(answer)
    return 0


def _format(arguments: argparse.Namespace) -> str:
    ending = "" if arguments.file is None else arguments.file.suffix.removeprefix(".")
    if arguments.json and arguments.format not in {None, "json"}:
        arguments.usage_error(f"--json and --format {arguments.format} are two formats")
    kind = "json" if arguments.json else arguments.format or (ending if ending in FORMATS else "table")
    if kind == "table" and arguments.file is not None:
        arguments.usage_error(f"{arguments.file}: say which --format it is to have: csv, json or parquet")
    if kind == "parquet" and arguments.file is None:
        arguments.usage_error("--format parquet: name a file with -o FILE")
    return str(kind)


def _listing(folder: str) -> pl.DataFrame:
    """What can be asked about."""
    there = ns.tables(folder)
    sources = {name: there.source(name) for name in there}
    return pl.DataFrame(
        {
            "table": list(sources),
            "rows": [given.height() for given in sources.values()],
            "columns": [", ".join(given.schema()) for given in sources.values()],
        },
        schema={"table": pl.String, "rows": pl.Int64, "columns": pl.String},
    )


def _show(answer: pl.DataFrame) -> None:
    shown = answer.head(ROWS)
    print(plain_table(shown, width=200))
    if answer.height > ROWS:
        print(f"({ROWS:,} of {answer.height:,} rows: --format csv, json or parquet has all)", file=sys.stderr)


def _write(answer: pl.DataFrame, file: Place, kind: str) -> None:
    make_folder(file.absolute().parent)
    if kind == "parquet":
        write_table(file, answer)
    else:
        write_whole(file, WRITERS[kind](answer).encode())


def _csv(answer: pl.DataFrame) -> str:
    """CSV, in which lists, structs and bytes are texts: as JSON has them."""
    others = [name for name, dtype in answer.schema.items() if dtype.is_nested() or dtype == pl.Binary]
    texts = (
        pl.Series(name, [None if v is None else _text(v) for v in answer[name].to_list()], dtype=pl.String)
        for name in others
    )
    return answer.with_columns(texts).write_csv()


def _text(value: object) -> str:
    value = _plain(value)
    return value if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _json(answer: pl.DataFrame) -> str:
    """JSON, a row a line."""
    rows = (json.dumps(_plain(row), allow_nan=False) for row in answer.iter_rows(named=True))
    return "[" + ",\n ".join(rows) + "]\n"


def _plain(value: object) -> object:
    """What JSON has for a value: nothing for an infinity, hexadecimal digits for bytes, a text for a date."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return value.hex()
        case dict():
            return {str(k): _plain(v) for k, v in value.items()}
        case list():
            return [_plain(v) for v in value]
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


WRITERS: dict[str, Callable[[pl.DataFrame], str]] = {"csv": _csv, "json": _json}
