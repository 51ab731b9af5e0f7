"""A table in stretches of whole explanations, each small enough to be held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from nscore._tables.runs import boundaries
from nscore.frames import Source

__all__ = ["lazily", "stretches"]

LOOK = 1 << 16


def stretches(given: Source, keys: list[str], height: int, rows: int) -> Iterator[tuple[int, int]]:
    """First row and length of each shard: about so many rows, cut where an explanation begins."""
    start = 0
    while start < height:
        stop = min(start + rows, height)
        while stop < height:
            # from the row before on: an explanation may begin at this very row
            seen = given.collect(given.frame.slice(stop - 1, LOOK).select(keys))
            begins = np.flatnonzero(boundaries(seen, keys)[1:])
            if len(begins):
                stop += int(begins[0])
                break
            stop += seen.height - 1
        yield start, stop - start
        start = stop
    if not height:
        yield 0, 0


def lazily(parts: Callable[[], Iterable[pl.DataFrame | pl.LazyFrame]], schema: pl.Schema) -> pl.LazyFrame:
    """Parts of a table as one lazy frame; each is made when those before it are done with."""

    def batches(
        columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        left = n_rows
        for part in parts():
            batch = (part.lazy() if left is None else part.lazy().head(left)).collect()
            left = None if left is None else left - batch.height
            if predicate is not None:
                batch = batch.filter(predicate)
            yield batch if columns is None else batch.select(columns)
            if left == 0:
                return

    return register_io_source(batches, schema=schema)
