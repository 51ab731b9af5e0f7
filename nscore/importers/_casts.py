"""Columns of strangers in the dtypes of nscore's tables, cast where that loses nothing; else the row that is at fault."""

from __future__ import annotations

from typing import NamedTuple

import polars as pl

from nscore.records import Kind, is_text

__all__ = ["Misfit", "as_kind"]


class Misfit(Exception):  # noqa: N818  (it becomes a SourceError where file and row are known)
    """A value that is not what its column holds.

    Attributes:
        row: which of the column's it is.
        found: it.
        expected: what was expected, in words.
    """

    def __init__(self, row: int, found: str, expected: str) -> None:
        super().__init__(row, found, expected)
        self.row, self.found, self.expected = row, found, expected


class _Told(NamedTuple):
    wanted: str
    dtype: pl.DataType | type[pl.DataType]


_TOLD: dict[Kind, _Told] = {
    "any": _Told("a whole number or a text", pl.Int64),
    "text": _Told("a text", pl.String),
    "integer": _Told("a whole number", pl.Int64),
    "number": _Told("a number", pl.Float64),
    "flag": _Told("true or false", pl.Boolean),
    "list": _Told("a list", pl.List),
}
_YES, _NO = ["true", "t", "yes", "1", "1.0"], ["false", "f", "no", "0", "0.0"]
_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"


def as_kind(column: pl.Series, kind: Kind, *, untyped: bool) -> pl.Series:
    """The column in the dtype of its kind; what was null stays so, and numbers that are not finite become null.

    Args:
        column: some values.
        kind: what it is to hold.
        untyped: whether texts may stand for anything, as in a CSV: then a key whose texts are all whole numbers is a
            column of integers.

    Raises:
        Misfit: for the first value that does not fit.
    """
    if column.dtype == pl.Null:
        return column.cast(
            pl.String if kind in {"any", "text"} else pl.List(pl.Int64) if kind == "list" else _TOLD[kind].dtype
        )
    if kind == "list":
        return column if column.dtype == pl.List else _refuse(column, kind)
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object):
        return _refuse(column, kind)
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    cast = {"any": _key, "text": _text, "integer": _integer, "number": _number, "flag": _flag}[kind]
    found = _key(column, untyped=untyped) if kind == "any" else cast(column)
    _check(column, found, kind)
    if kind == "number":
        return found.to_frame().select(pl.when(pl.all().is_finite()).then(pl.all())).to_series()
    return found


def _refuse(column: pl.Series, kind: Kind) -> pl.Series:
    """No value of such a dtype fits, but null does."""
    _check(column, pl.Series(column.name, [None] * len(column), dtype=pl.Null), kind)
    return as_kind(pl.Series(column.name, [None] * len(column), dtype=pl.Null), kind, untyped=False)


def _check(column: pl.Series, found: pl.Series, kind: Kind) -> None:
    lost = (found.is_null() & column.is_not_null()).arg_true()
    if len(lost):
        value = column[int(lost[0])]
        said = repr(value) if isinstance(value, str | int | float | bool) else f"{column.dtype}"
        raise Misfit(int(lost[0]), said if len(said) < 80 else said[:77] + "...", _TOLD[kind].wanted)


def _key(column: pl.Series, *, untyped: bool = False) -> pl.Series:
    if is_text(column.dtype):
        known = column.drop_nulls()
        return column.cast(pl.Int64) if untyped and len(known) and known.str.contains(_WHOLE).all() else column
    return _integer(column) if column.dtype.is_numeric() else column.cast(pl.String)


def _text(column: pl.Series) -> pl.Series:
    return column.cast(pl.String)


def _integer(column: pl.Series) -> pl.Series:
    if is_text(column.dtype):
        column = _blank(column)
        whole = column.cast(pl.Int64, strict=False)
        # 3.0, as others write integers that had a gap among them
        return whole if whole.null_count() == column.null_count() else _integer(column.cast(pl.Float64, strict=False))
    if column.dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    if not column.dtype.is_numeric():
        return pl.Series(column.name, [None] * len(column), dtype=pl.Int64)
    number = column.cast(pl.Float64, strict=False)
    exact = number.is_finite() & (number == number.round()) & (number.abs() <= 2**53)
    return number.to_frame().select(pl.when(exact).then(pl.all())).to_series().cast(pl.Int64, strict=False)


def _number(column: pl.Series) -> pl.Series:
    if is_text(column.dtype):
        return _blank(column).cast(pl.Float64, strict=False)
    if not column.dtype.is_numeric():
        return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    return column.cast(pl.Float64, strict=False)


def _flag(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Boolean:
        return column
    text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    return text.replace_strict(
        _YES + _NO, [True] * len(_YES) + [False] * len(_NO), default=None, return_dtype=pl.Boolean
    )


def _blank(column: pl.Series) -> pl.Series:
    return column.str.strip_chars()
