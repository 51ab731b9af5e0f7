"""A table as a page's script reads it: columns of numbers as bytes, texts as places in a list, and nothing of markup."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import polars as pl

from nscore._drawing.markup import cut, visible

__all__ = ["as_json", "numbers", "texts"]

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def as_json(content: object) -> str:
    r"""JSON that can stand inside a page: nothing in it is markup, a comment, or the end of a script.

    >>> as_json({"a": "</script><!--"})
    '{"a":"\\u003c/script\\u003e\\u003c!--"}'
    """
    said = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign, escape in _UNSAFE.items():
        said = said.replace(sign, escape)
    return said


def numbers(name: str, column: pl.Series, **more: object) -> dict[str, Any]:
    """A column of numbers: 4 bytes each, 8 where 4 do not hold them; what is not known is NaN."""
    kind = "f4"
    if column.dtype.is_integer():
        low, high = column.min() or 0, column.max() or 0
        fits = not column.null_count() and low >= -(2**31) and high < 2**31  # type: ignore[operator]
        kind = "i4" if fits else "f8"
    dtype = pl.Int32 if kind == "i4" else pl.Float64
    values = column.cast(dtype) if kind == "i4" else column.cast(dtype).fill_null(float("nan"))
    with np.errstate(over="ignore"):  # beyond 10^38 is infinite to a reader
        data = values.to_numpy().astype(f"<{kind}")
    return {"name": name, "kind": kind, "data": base64.b64encode(data.tobytes()).decode("ascii")} | more


def texts(name: str, column: pl.Series, length: int, **more: object) -> dict[str, Any]:
    """A column of few or many texts: each that differs once, in order, and for each row its place in that list.

    A text is cut to `length` characters; one that is not known stands at -1.
    """
    values = column.unique().drop_nulls().sort().to_list()
    place = {value: i for i, value in enumerate(values)}
    codes = np.array([place.get(value, -1) for value in column.to_list()], dtype="<i4")
    said = [cut(visible(str(value)), length) for value in values]
    return {
        "name": name,
        "kind": "text",
        "values": said,
        "data": base64.b64encode(codes.tobytes()).decode("ascii"),
    } | more
