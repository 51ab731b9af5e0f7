"""Walks a long table once, in batches, and gives one row for each record: its keys, its length, what was measured.

A run is a maximal stretch of consecutive rows of one record with consecutive positions. In a table that lies record
by record, each record is one run, and everything that must hold of it (no gap, no duplicate, one split) is read off
the few columns of the runs, not off the tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from nscore._progress import bar
from nscore._tables.batches import batches_of
from nscore._tables.fused import BLOCK_ROWS, Indices, Numbers
from nscore.frames import Source, reading
from nscore.records import POSITION, SEQUENCE

__all__ = ["Columns", "Layout", "boundaries", "runs", "strictly_sorted"]

Column: TypeAlias = "npt.NDArray[np.generic] | pl.Series"
Columns: TypeAlias = dict[str, Column]
Measure: TypeAlias = Callable[[pl.DataFrame, Indices], Columns]

FIRST, LENGTH = "__first_position", "__length"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns say what: the keys, what is constant over a record, whether positions are known."""

    by: tuple[str, ...]
    carried: tuple[str, ...]
    values: tuple[str, ...]
    positions: bool

    @property
    def record(self) -> list[str]:
        """What identifies a record."""
        return [*self.by, SEQUENCE]

    @property
    def columns(self) -> list[str]:
        """Everything that must be read."""
        position = [POSITION] if self.positions else []
        return list(dict.fromkeys([*self.record, *self.carried, *position, *self.values]))


def runs(given: Source, layout: Layout, measure: Measure) -> pl.DataFrame:
    """One row a run, in the order of the rows: the record, what it carries, first position, length, measures."""
    frame = given.frame.select(layout.columns)
    with reading(given), bar("reading", "tokens", given.height) as step:
        try:
            return _walk(frame, layout, measure, step, orderly=True)
        except _Scattered:
            order = [*layout.record, *([POSITION] if layout.positions else [])]
            return _walk(frame.sort(order, maintain_order=True), layout, measure, step, orderly=False)


def boundaries(frame: pl.DataFrame, columns: list[str]) -> npt.NDArray[np.bool_]:
    """True on each row that differs from the row before it in any of the columns, and on the first."""
    starts = np.zeros(frame.height, dtype=np.bool_)
    starts[:1] = True
    for column in columns:
        series = frame.get_column(column)
        if _plain(series):
            _mark(starts, series.to_numpy(), lambda here, before: here != before)
        else:
            starts[1:] |= series.slice(1).ne_missing(series.slice(0, max(frame.height - 1, 0))).to_numpy()
    return starts


def strictly_sorted(frame: pl.DataFrame, columns: list[str]) -> bool:
    """Whether each row comes after the row before it, in the order of the columns."""
    if frame.height < 2:
        return True
    after: pl.Series | None = None
    for column in reversed(frame.select(columns).get_columns()):
        if column.null_count():
            return False
        here, before = column.slice(1), column.slice(0, column.len() - 1)
        after = here > before if after is None else (here > before) | ((here == before) & after)
    return after is not None and after.all()


class _Scattered(Exception):  # noqa: N818
    """The rows do not lie record by record."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A batch: the rows of its first and last run, which the neighbours may continue, and the runs between."""

    height: int
    head: Columns
    body: Columns
    tail: Columns


def _walk(
    frame: pl.LazyFrame, layout: Layout, measure: Measure, step: Callable[[int], object], *, orderly: bool
) -> pl.DataFrame:
    pieces = []
    with closing(_batches(frame)) as batches:
        for piece in _in_threads(lambda batch: _piece(batch, layout, measure, orderly=orderly), batches):
            pieces.append(piece)
            step(piece.height)
    # What lies at the seams of batches is joined and measured as one more batch, so that the result does not depend
    # on where the batches were cut. Its runs then go back between the bodies that they came from.
    empty = pl.DataFrame(schema=frame.collect_schema())
    seams = [part for piece in pieces for part in (piece.head, piece.tail)]
    joined = pl.DataFrame([_joined(c, [part[c] for part in seams]) for c in empty.columns]) if seams else empty
    starts = _starts(joined, layout)
    seam_runs = _measured(joined, starts, layout, measure)
    result: list[Columns] = []
    done = rows = 0
    for piece in pieces:
        rows += len(piece.head[SEQUENCE])
        upto = int(np.searchsorted(starts, rows))
        result += [_sliced(seam_runs, done, upto), piece.body]
        done = upto
        rows += len(piece.tail[SEQUENCE])
    result.append(_sliced(seam_runs, done, len(starts)))
    return pl.DataFrame([_joined(name, [part[name] for part in result]) for name in seam_runs])


def _batches(frame: pl.LazyFrame) -> Generator[pl.DataFrame, None, None]:
    """The frame in batches of about `BLOCK_ROWS`: as the engine gives them, but for small ones, which are joined."""
    waiting: list[pl.DataFrame] = []
    height = 0
    with closing(batches_of(frame)) as batches:
        for batch in batches:
            waiting.append(batch)
            height += batch.height
            if 2 * height >= BLOCK_ROWS:
                yield waiting[0] if len(waiting) == 1 else pl.concat(waiting)
                waiting, height = [], 0
    if waiting:
        yield waiting[0] if len(waiting) == 1 else pl.concat(waiting)


def _in_threads(work: Callable[[pl.DataFrame], _Piece], batches: Iterator[pl.DataFrame]) -> Iterator[_Piece]:
    """The pieces in order; a few batches are held at a time, at most. numpy lets go of Python's lock."""
    workers = pl.thread_pool_size()
    if workers == 1:  # where Polars is held to one thread, so are we
        yield from map(work, batches)
        return
    with ThreadPoolExecutor(workers) as crew:
        waiting: deque[Future[_Piece]] = deque()
        for batch in batches:
            waiting.append(crew.submit(work, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _piece(batch: pl.DataFrame, layout: Layout, measure: Measure, *, orderly: bool) -> _Piece:
    batch = batch.rechunk()
    starts = _starts(batch, layout)
    if orderly and batch.height > 1000 and 2 * len(starts) > batch.height:
        raise _Scattered
    if len(starts) < 2:
        nothing = _measured(batch.clear(), starts[:0], layout, measure)
        return _Piece(batch.height, _copied(batch, 0, batch.height), nothing, _copied(batch, 0, 0))
    inner = slice(int(starts[1]), int(starts[-1]))
    body = batch[inner]
    return _Piece(
        batch.height,
        _copied(batch, 0, inner.start),
        _measured(body, starts[1:-1] - inner.start, layout, measure),
        _copied(batch, inner.stop, batch.height),
    )


def _copied(rows: pl.DataFrame, start: int, stop: int) -> Columns:
    """Rows without the batch they lie in, which a slice would keep in memory."""
    return {c.name: _taken(c, np.arange(start, stop)) for c in rows.iter_columns()}


def _starts(rows: pl.DataFrame, layout: Layout) -> Indices:
    changed = boundaries(rows, [*layout.record, *layout.carried])
    if layout.positions:
        _mark(changed, _known(rows.get_column(POSITION)), lambda here, before: here - before != 1)
    return np.flatnonzero(changed)


def _measured(rows: pl.DataFrame, starts: Indices, layout: Layout, measure: Measure) -> Columns:
    """The columns of the runs.

    They stay numpy's until the end: a call into Polars' engine for each would cost more than the arithmetic, and would
    wait for the threads that are decoding.
    """
    first: Columns = {c: _taken(rows.get_column(c), starts) for c in [*layout.record, *layout.carried]}
    position = _taken(rows.get_column(POSITION), starts) if layout.positions else np.zeros(len(starts), np.int64)
    length = np.diff(starts, append=rows.height)
    return {**first, FIRST: position, LENGTH: length, **measure(rows, starts)}


def _plain(column: pl.Series) -> bool:
    return column.dtype.is_numeric() and not column.null_count()


def _known(position: pl.Series) -> Numbers:
    values = (position.fill_null(0) if position.null_count() else position).to_numpy()
    # the difference of 8 or 16 bits wraps round, so that 0 would seem to follow 255
    return values.astype(np.int32) if values.itemsize < 4 else values


def _taken(column: pl.Series, rows: Indices) -> Column:
    return column.to_numpy()[rows] if _plain(column) else column.gather(rows)


def _sliced(columns: Columns, start: int, stop: int) -> Columns:
    return {name: column[start:stop] for name, column in columns.items()}


def _joined(name: str, parts: list[Column]) -> pl.Series:
    if all(isinstance(part, np.ndarray) for part in parts):
        return pl.Series(name, np.concatenate(parts))
    return pl.concat([pl.Series(name, part) for part in parts]).rechunk()


def _mark(
    starts: npt.NDArray[np.bool_], values: Numbers, new: Callable[[Numbers, Numbers], npt.NDArray[np.bool_]]
) -> None:
    """Marks the rows at which `new(value, value before)` is true; in blocks, which stay in the cache."""
    for at in range(1, len(values), BLOCK_ROWS):
        upto = min(at + BLOCK_ROWS, len(values))
        starts[at:upto] |= new(values[at:upto], values[at - 1 : upto - 1])
