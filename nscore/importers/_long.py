"""Records on their way into the long table: what is said once a record, and the lists of its tokens, become a row a token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from nscore.records import LAYER, NEURON, POSITION, SEQUENCE

__all__ = ["finite", "keys_of", "long"]

Counts = npt.NDArray[np.int64]


def keys_of(layers: Sequence[int | str], neurons: Sequence[int | str]) -> dict[str, pl.Series]:
    """The two key columns: integers where all of them are, else texts."""
    return {name: _series(name, values) for name, values in ((LAYER, layers), (NEURON, neurons))}


def long(index: pl.DataFrame, lengths: Sequence[int], columns: Mapping[str, pl.Series]) -> pl.DataFrame:
    """One row a token: the keys and `sequence` of its record, `position`, the columns, and what else the index holds.

    Args:
        index: one row a record: keys, `sequence`, and further columns.
        lengths: how many tokens each has.
        columns: the tokens of all records, one after another.

    >>> index = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": [0, 1]})
    >>> long(index, [2, 1], {"token": pl.Series(["a", "b", "c"])}).rows()
    [(0, 7, 0, 0, 'a'), (0, 7, 0, 1, 'b'), (0, 7, 1, 0, 'c')]
    """
    counts = np.asarray(lengths, dtype=np.int64)
    rows = pl.Series(np.repeat(np.arange(len(counts), dtype=np.uint32), counts))
    # a table in memory has fewer rows than an int32 can count, and half the bytes are half the time
    position = np.arange(len(rows), dtype=np.int32)
    position -= np.repeat((np.cumsum(counts) - counts).astype(np.int32), counts)
    first = index.columns[: index.columns.index(SEQUENCE) + 1]
    said = {name: _repeated(index[name], counts, rows) for name in index.columns}
    return pl.DataFrame(
        [
            *(said.pop(name) for name in first),
            pl.Series(POSITION, position),
            *(series.alias(name) for name, series in columns.items()),
            *said.values(),
        ]
    )


def finite(values: Sequence[float | None]) -> pl.Series:
    """Numbers as a column; what is no finite number is null."""
    series = pl.Series(values, dtype=pl.Float64)
    # of a few thousand numbers the sum is the quickest look at all of them
    if not series.null_count() and math.isfinite(series.sum()):
        return series
    return series.replace([float("inf"), float("-inf")], None).fill_nan(None)


def _repeated(column: pl.Series, counts: Counts, rows: pl.Series) -> pl.Series:
    """Each value as often as its count says; `rows` says the same as places."""
    if column.dtype.is_numeric() and not column.null_count():
        return pl.Series(column.name, np.repeat(column.to_numpy(), counts))
    return column.gather(rows)


def _series(name: str, values: Sequence[int | str]) -> pl.Series:
    if all(isinstance(value, int) for value in values):
        return pl.Series(name, values, dtype=pl.Int64)
    return pl.Series(name, [str(value) for value in values], dtype=pl.String)
