"""Polars answers a question in SQL over the tables of a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import polars as pl

from nscore._sql.sql import Question, Token
from nscore._sql.sql_types import INTEGERS, Opened, plain, settled, twice
from nscore._tables.scan import scan
from nscore.errors import QueryError
from nscore.frames import FAULTS, Source

__all__ = ["ask_polars", "counts_as_sql"]

# Polars' own stack ends somewhat above this many steps, and the process with it.
DEEPEST = 300
# Functions that give integers of 32 bits or fewer, some without a sign, so that LENGTH(token) - 5 would be four billion.
NARROW = {
    *("length", "char_length", "character_length", "octet_length", "bit_length", "array_length", "bit_count"),
    *("strpos", "position", "extract", "date_part"),
}
WIDE = " + CAST(0 AS BIGINT)"
PLACE = re.compile(r" at Line: (\d+), Column: (\d+)")


def ask_polars(asked: Question, given: Opened) -> pl.DataFrame:
    """The answer; raises a `QueryError` where there is none, a `TableError` for a file that cannot be read."""
    if not counts_as_sql():
        raise QueryError(
            f"the SQL of Polars {pl.__version__} is not the standard's (the sum of nothing is 0 in it, and 5/2 is 2): "
            "install DuckDB (pip install 'duckdb>=1.4') or a newer Polars"
        )
    if asked.depth > DEEPEST:
        raise QueryError(
            f"the question chains {asked.depth:,} operators and clauses, and Polars is asked up to {DEEPEST}: "
            "shorten it, or ask DuckDB (pip install 'duckdb>=1.4')"
        )
    asked = asked.adding(list(_widened(asked.tokens)))
    try:
        plan = _plan(asked, given)
        plan.collect_schema()
    except FAULTS as error:
        raise _told(asked, error, given) from error
    try:
        return settled(plan.collect(engine="streaming"))
    except FAULTS as error:
        raise given.fault(error) or _told(asked, error, given) from error


@cache
def counts_as_sql() -> bool:
    """Whether the sums, the division and the IN of Polars' SQL are those of the standard; older versions had others."""
    told = pl.SQLContext({"t": pl.LazyFrame({"x": [1]})}).execute(
        "SELECT SUM(x) AS s, SUM(5) / 2 AS d FROM t WHERE x > 1 UNION ALL SELECT 5 / 2 AS s, 1.0 AS d FROM t"
    )
    return set(told.collect()["s"]) == {None, 2.5}


def _plan(asked: Question, given: Opened) -> pl.LazyFrame:
    """The question as a plan, of which nothing has been read yet."""
    return pl.SQLContext({name: _wide(table) for name, table in given.tables.items()}).execute(asked.sql)


def _widened(tokens: tuple[Token, ...]) -> Iterator[tuple[int, str]]:
    """What makes wide integers of the narrow ones: around what a function gives, within what SUM is given."""
    open_: list[Token | None] = []
    for i, token in enumerate(tokens):
        if token.text == "(":
            name = tokens[i - 1] if i and tokens[i - 1].kind == "word" else None
            open_.append(name)
            if name is not None and name.text.lower() in NARROW:
                yield name.place, "("
            elif name is not None and name.text.lower() == "sum":
                distinct = tokens[i + 1 : i + 2] and tokens[i + 1].text.lower() == "distinct"
                yield (tokens[i + 1].place + len("distinct") if distinct else token.place + 1), " ("
        elif token.text == ")" and open_:
            name = open_.pop()
            if name is not None and name.text.lower() in NARROW:
                yield token.place + 1, WIDE + ")"
            elif name is not None and name.text.lower() == "sum":
                yield token.place, ")" + WIDE


def _wide(given: Source) -> pl.LazyFrame:
    """A table in plain dtypes; the reader widens the integers, so that it still passes over rows by its statistics."""
    schema = given.schema()
    frame = given.frame
    if given.files:
        frame = scan(
            given.files,
            schema={name: plain(dtype) if dtype in INTEGERS else dtype for name, dtype in schema.items()},
            cast_options=pl.ScanCastOptions(integer_cast="upcast"),
        )
    return frame.with_columns(
        pl.col(name).cast(plain(dtype)).fill_nan(None) if dtype.is_float() else pl.col(name).cast(plain(dtype))
        for name, dtype in schema.items()
        if dtype.is_float() or (dtype not in INTEGERS and dtype != plain(dtype))
    )


def _told(asked: Question, error: BaseException, given: Opened) -> QueryError:
    said = str(error).split("\n", maxsplit=1)[0].removeprefix("sql parser error: ")
    if isinstance(error, pl.exceptions.PanicException):
        return asked.told(f"Polars gave up on it ({said})")
    if isinstance(error, pl.exceptions.DuplicateError):
        return twice()
    if found := re.fullmatch(r"relation '(.*)' was not found", said):
        return asked.told(given.no_table(found[1]))
    if isinstance(error, pl.exceptions.ColumnNotFoundError) or "no column named" in said:
        return asked.told(f"{said.split('; valid', maxsplit=1)[0]}: {given.columns()}")
    if not (place := PLACE.search(said)):
        return asked.told(said)
    lines = asked.sql.split("\n")[: int(place[1]) - 1]
    return asked.told(PLACE.sub("", said), sum(len(line) + 1 for line in lines) + int(place[2]) - 1)
