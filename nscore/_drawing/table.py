"""A frame as plain text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl

from nscore._drawing.markup import cut, visible
from nscore._drawing.terminal import wide

__all__ = ["plain_table"]

GAP = "  "


def plain_table(frame: pl.DataFrame, *, width: int = 60) -> str:
    r"""A line for each row, numbers to the right, and no text that moves the cursor or is longer than `width`.

    Polars would draw one, too, but by settings in the environment, which no process of several threads may change.

    >>> print(plain_table(pl.DataFrame({"neuron": [7, None], "score": [0.5, 12.0], "why": ["a\tb", None]})))
     neuron   score  why
          7   0.500  a\tb
       null  12.000  null
    """
    columns = [_column(each, width) for each in frame]
    return "\n".join(f" {GAP.join(cells)}".rstrip() for cells in zip(*columns, strict=True))


def _column(values: pl.Series, width: int) -> list[str]:
    cells = [visible(values.name), *(cut(_cell(each), width) for each in values)]
    most = max(map(wide, cells))
    blanks = [" " * (most - wide(cell)) for cell in cells]
    number = values.dtype.is_numeric()
    return [blank + cell if number else cell + blank for cell, blank in zip(cells, blanks, strict=True)]


def _cell(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else f"{value:.3f}" if abs(value) < 1e16 else f"{value:.3e}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_cell(name)}: {_cell(each)}" for name, each in value.items()) + "}"
    if isinstance(value, Sequence | pl.Series) and not isinstance(value, str | bytes):
        return f"[{', '.join(map(_cell, value))}]"
    return visible(str(value))
