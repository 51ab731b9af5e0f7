"""The plan of a simulation: records and explanations in shards of whole neurons, and the requests of each shard.

What is in a shard, and in which order, follows from the inputs alone. Shards are made one after another as a stream, so
that a million requests take no more memory than a thousand.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from nscore._running.shards import Questions, Shard, cut
from nscore._tables.batches import batches_of
from nscore._tables.meeting import Meeting
from nscore.backends import Backend
from nscore.errors import TableError
from nscore.exchange import Capabilities
from nscore.frames import reading
from nscore.records import POSITION, SEQUENCE, SIMULATOR
from nscore.simulators import PromptSimulator, Shuffled
from nscore.validate import validate

__all__ = ["Plan", "blocks"]

SHARD_ROWS = 1 << 15
BATCH_ROWS = 1 << 15
# A run makes two passes, one to count; a small plan is made once.
REMEMBERED_BYTES = 6 << 20


@dataclass(slots=True)
class Plan:
    """What a run is to ask.

    Args:
        meeting: the records and explanations.
        simulators: prompt simulators, or controls of such.
        backend: the wire format.
        can: what the server can do.
        limit: how many requests at most; None for all.

    Attributes:
        questions: who is asked what.
        digests: of the shards that the last pass made.
    """

    meeting: Meeting
    simulators: Sequence[PromptSimulator | Shuffled]
    backend: Backend
    can: Capabilities
    limit: int | None = None
    questions: Questions = field(init=False)
    digests: list[str] = field(init=False, default_factory=list)
    _stopped: bool = field(init=False, default=False)
    _made: list[Shard] | None = field(init=False, default=None)
    _texts: list[pl.DataFrame] = field(init=False)
    _seen: pl.DataFrame | None = field(init=False)
    _rows: int = field(init=False)

    def __post_init__(self) -> None:
        meeting = self.meeting
        self.questions = Questions(meeting.keys, self.simulators, self.backend, self.can)
        texts = meeting.texts.collect()
        self._texts = []
        for simulator in self.simulators:
            told = texts if not isinstance(simulator, Shuffled) else simulator.swapped(texts, meeting.keys)
            self._texts.append(told.with_columns(pl.lit(simulator.name).alias(SIMULATOR)))
        self._seen = meeting.seen.collect() if meeting.seen is not None else None
        each = texts.height / max(1, texts.select(pl.struct(meeting.keys).n_unique()).item())
        self._rows = max(1, int(SHARD_ROWS / (each * len(self.simulators))))

    def shards(self) -> Iterator[Shard]:
        """The shards in their order; with a limit, the last one is cut. What a small pass made, the next gives again."""
        if self._made is not None:
            made, self._made = self._made, None
            yield from made
            return
        made, size = [], 0
        for shard in self._passed():
            size += sum(len(request.body) for request in shard.requests) + shard.pairs.height
            if size <= REMEMBERED_BYTES:
                made.append(shard)
            else:
                made.clear()
            yield shard
        if size <= REMEMBERED_BYTES:
            self._made = made

    def _passed(self) -> Iterator[Shard]:
        left = self.limit
        index = 0
        self.digests = []
        for block in blocks(self.meeting, self._rows):
            self._check(block)
            pairs = self._pairs(block)
            if not pairs.height:
                continue
            if self._stopped:
                return
            shard = self.questions.shard(index, pairs)
            self.digests.append(shard.digest)
            if left is not None:
                shard = cut(shard, left)
                left -= len(shard.requests)
            yield shard
            index += 1
            if left == 0:
                return

    def stop(self) -> None:
        """Lets a pass in another thread end at its next shard: nobody wants the rest."""
        self._stopped = True

    def _check(self, block: pl.DataFrame) -> None:
        """Whole neurons are validated as they come by; an error is found again where it stands in its file."""
        try:
            validate(block, "records", by=self.meeting.keys)
        except TableError:
            validate(self.meeting.given, "records", by=self.meeting.keys)
            raise

    def _pairs(self, block: pl.DataFrame) -> pl.DataFrame:
        seen = None if self._seen is None else self._seen.lazy()
        meeting = Meeting(**{n: getattr(self.meeting, n) for n in Meeting.__slots__} | {"seen": seen})
        parts = [meeting.pairs(block.lazy(), texts.lazy()) for texts in self._texts]
        return pl.concat(parts).sort(meeting.order).collect()


def _ordered(meeting: Meeting) -> Iterable[pl.LazyFrame]:
    """The asked records in the order of the keys, one stretch after another; sorted, in memory, only if they are not."""
    order = [*meeting.keys, SEQUENCE, POSITION]
    last: pl.DataFrame | None = None
    with closing(_batches(stretch.select(order) for stretch in meeting.stretches())) as batches:
        for batch in batches:
            rows = batch if last is None else pl.concat([last, batch])
            if not rows.equals(rows.sort(order, maintain_order=True)):
                return [meeting.asked.sort(order)]
            last = batch.tail(1)
    return meeting.stretches()


def _batches(stretches: Iterable[pl.LazyFrame]) -> Generator[pl.DataFrame, None, None]:
    for stretch in stretches:
        yield from batches_of(stretch, BATCH_ROWS)


def blocks(meeting: Meeting, rows: int) -> Iterator[pl.DataFrame]:
    """Blocks of whole neurons, each of the least number of them that has `rows` rows."""
    held: list[pl.DataFrame] = []
    height = 0
    with reading(meeting.given), closing(_batches(_ordered(meeting))) as batches:
        for batch in batches:
            held.append(batch)
            height += batch.height
            if height <= rows:
                continue
            block = pl.concat(held)
            begin = 0
            firsts = _firsts(block, meeting.keys)
            while (at := int(np.searchsorted(firsts, begin + rows))) < len(firsts):
                stop = int(firsts[at])
                yield block.slice(begin, stop - begin)
                begin = stop
            held, height = [block.slice(begin)], block.height - begin
    if height:
        yield pl.concat(held)


def _firsts(block: pl.DataFrame, keys: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The first row of each neuron."""
    ids = block.select(pl.struct(keys).rle_id()).to_series().to_numpy()
    return np.flatnonzero(np.diff(ids, prepend=-1)).astype(np.int64)
