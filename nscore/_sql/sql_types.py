"""The dtypes in which SQL is answered, so that two engines give one answer; and what their errors have in common.

What the files hold becomes 64 bits wide before an engine counts with it, since sums and differences of narrow integers
overflow in one engine and not in the other; texts of every form become text. NaN becomes null: one engine leaves it out
of MAX, the other puts it first. The same is done to the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from nscore.errors import NscoreError, QueryError
from nscore.frames import Source
from nscore.records import is_text

__all__ = ["INTEGERS", "Opened", "plain", "settled", "twice"]

INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)


@dataclass(frozen=True, slots=True)
class Opened:
    """The tables that a question may be about.

    Attributes:
        folder: where they lie.
        names: of all that lie there.
        tables: those that the question names.
    """

    folder: str
    names: tuple[str, ...]
    tables: Mapping[str, Source]

    def no_table(self, name: str) -> str:
        """What to say about a table that is not there."""
        return f"no table {name!r} in {self.folder}: the tables are {', '.join(self.names)}"

    def columns(self) -> str:
        """The columns of the tables that the question names."""
        told = (f"{name} has {', '.join(given.schema()) or 'none'}" for name, given in self.tables.items())
        return "; ".join(told) or "the question names no table"

    def fault(self, error: BaseException) -> NscoreError | None:
        """The first file that explains an error met while rows were read."""
        return next((fault for given in self.tables.values() if (fault := given.fault(error)) is not None), None)


def plain(dtype: pl.DataType) -> pl.DataType:
    """The dtype in which values of another are counted with and answered.

    >>> plain(pl.UInt8()), plain(pl.Float32()), plain(pl.Categorical()), plain(pl.List(pl.Int16()))
    (Int64, Float64, String, List(Int64))
    """
    if dtype in INTEGERS or dtype == pl.Duration:
        return pl.Int64()
    if dtype.is_float() or dtype.is_decimal() or dtype == pl.Null or (dtype.is_integer() and dtype != pl.UInt64):
        return pl.Float64()
    if isinstance(dtype, pl.Datetime):
        return pl.Datetime("us", "UTC" if dtype.time_zone else None)
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(plain(dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: plain(field.dtype) for field in dtype.fields})  # type: ignore[arg-type]
    return pl.String() if is_text(dtype) else dtype


def settled(answer: pl.DataFrame) -> pl.DataFrame:
    """An answer in plain dtypes; an integer that 64 bits do not hold is a float."""
    return answer.select(_settled(answer[name]) for name in answer.columns)


def twice() -> QueryError:
    """Two columns of an answer have one name."""
    return QueryError("two columns of the answer have the same name: give each its own with AS")


def _settled(column: pl.Series) -> pl.Series:
    dtype = column.dtype
    if dtype == pl.Null:
        return column.cast(pl.Int64)
    # DuckDB's wide sums come as decimals without a fraction
    if dtype.is_integer() or (isinstance(dtype, pl.Decimal) and dtype.scale == 0):
        fitting = (column.cast(kind, strict=False) for kind in (pl.Int64, pl.UInt64))
        return next((fits for fits in fitting if fits.null_count() == column.null_count()), column.cast(pl.Float64))
    column = column.cast(plain(dtype))
    return column.fill_nan(None) if dtype.is_float() else column
