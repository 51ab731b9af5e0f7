"""A long table in blocks of whole groups: as it comes where the rows of each lie together, else block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import polars as pl

from nscore._tables.batches import batches_of
from nscore._tables.runs import boundaries
from nscore.frames import Source, reading

__all__ = ["whole_groups"]

COUNT, BLOCK = "__count", "__block"


def whole_groups(given: Source, frame: pl.LazyFrame, by: list[str], rows: int) -> Iterator[pl.DataFrame]:
    """Blocks of about so many rows; no group stands in two of them.

    One pass over the keys tells how the rows lie. Where they are scattered, each block is a pass over the table: little
    memory, and more time.

    Args:
        given: where the frame comes from, for what is said of broken files.
        frame: a query over it.
        by: the columns that make a group.
        rows: how many a block has, about: less than so many and those of one group.
    """
    with reading(given):
        stretches = _stretches(frame, by)
        if stretches.select(pl.struct(by).is_duplicated().any()).item():
            yield from _scattered(frame, stretches, by, rows)
        else:
            yield from _orderly(frame, by, rows)


def _stretches(frame: pl.LazyFrame, by: list[str]) -> pl.DataFrame:
    """Each stretch of rows of one group, in their order, and how long it is."""
    schema = frame.collect_schema()
    parts = [pl.DataFrame(schema={name: schema[name] for name in by} | {COUNT: pl.Int64})]
    with closing(batches_of(frame.select(by))) as batches:
        for batch in batches:
            starts = np.flatnonzero(boundaries(batch, by))
            parts.append(batch[starts].with_columns(pl.Series(COUNT, np.diff(starts, append=batch.height))))
    pieces = pl.concat(parts)
    # a stretch that two batches share is one
    starts = np.flatnonzero(boundaries(pieces, by))
    counts = np.add.reduceat(pieces[COUNT].to_numpy(), starts) if len(starts) else np.empty(0, np.int64)
    return pieces[starts].with_columns(pl.Series(COUNT, counts))


def _orderly(frame: pl.LazyFrame, by: list[str], rows: int) -> Iterator[pl.DataFrame]:
    held: list[pl.DataFrame] = []
    height = 0
    with closing(batches_of(frame)) as batches:
        for batch in batches:
            held.append(batch)
            height += batch.height
            if height < rows:
                continue
            block = pl.concat(held)
            begin = 0
            starts = np.flatnonzero(boundaries(block, by))
            while (at := int(np.searchsorted(starts, begin + rows))) < len(starts):
                stop = int(starts[at])
                yield block.slice(begin, stop - begin)
                begin = stop
            held, height = [block.slice(begin)], block.height - begin
    if height:
        yield pl.concat(held)


def _scattered(frame: pl.LazyFrame, stretches: pl.DataFrame, by: list[str], rows: int) -> Iterator[pl.DataFrame]:
    groups = stretches.group_by(by, maintain_order=True).agg(pl.col(COUNT).sum())
    numbered = groups.with_columns(((pl.col(COUNT).cum_sum() - pl.col(COUNT)) // rows).alias(BLOCK))
    for block in numbered.partition_by(BLOCK, maintain_order=True):
        mine = block.lazy().select(by)
        yield frame.join(mine, on=by, how="semi", nulls_equal=True, maintain_order="left").collect(engine="streaming")
