"""The plan of a simulation: records and explanations in shards of whole neurons, and the requests of each shard.

What is in a shard, and in which order, follows from the inputs alone. Shards are made one after another as a stream, so
that a million requests take no more memory than a thousand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import polars as pl

from nscore._meeting import Meeting
from nscore.backends import Backend
from nscore.errors import TableError
from nscore.exchange import Capabilities, Prompt
from nscore.frames import reading
from nscore.records import EXPLANATION, EXPLANATION_ID, POSITION, SEQUENCE, SIMULATOR, TOKEN, is_text
from nscore.simulators import Ask, PromptSimulator, Shuffled
from nscore.validate import validate

__all__ = ["Group", "Plan", "Request", "Shard", "request_key"]

SHARD_ROWS = 1 << 15
BATCH_ROWS = 1 << 15
SLICE_ROWS = 1 << 12
# Whose bytes are their values.
PLAIN = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64)
# A run makes two passes, one to count; a small plan is made once.
REMEMBERED_BYTES = 6 << 20


@dataclass(frozen=True, slots=True)
class Group:
    """The records of one explanation that one simulator is asked about."""

    simulator: PromptSimulator
    explanation: str
    records: list[list[str]]
    starts: list[int]
    identity: dict[str, object]
    sequences: list[object]


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a model.

    Attributes:
        key: what tells it from every other: change anything that changes the answer, and it changes.
        ask: the prompt and its spans.
        path: where it is posted.
        body: the canonical JSON that is posted.
        group: the explanation and records that the spans are about.
        rows: the rows of the shard that each span is, first and behind the last.
        replicate: which of several answers to the same prompt.
    """

    key: bytes
    ask: Ask
    path: str
    body: bytes
    group: Group
    rows: tuple[tuple[int, int], ...]
    replicate: int

    @property
    def prompt(self) -> Prompt:
        """What is asked."""
        return self.ask.prompt


@dataclass(slots=True)
class Shard:
    """Whole neurons: their rows, and the requests that fill them.

    Attributes:
        index: its place in the plan.
        pairs: the rows in their final order.
        requests: in the order in which they are sent.
        too_long: rows that are not sent.
        whole: whether a limit left none of its requests out.
        digest: of all its rows and requests, limit or none: it tells whether the inputs are the same as before.
    """

    index: int
    pairs: pl.DataFrame
    requests: list[Request]
    too_long: list[tuple[int, int]]
    whole: bool = True
    digest: str = ""


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
        digests: of the shards that the last pass made.
    """

    meeting: Meeting
    simulators: Sequence[PromptSimulator | Shuffled]
    backend: Backend
    can: Capabilities
    limit: int | None = None
    digests: list[str] = field(init=False, default_factory=list)
    _stopped: bool = field(init=False, default=False)
    _made: list[Shard] | None = field(init=False, default=None)
    _texts: list[pl.DataFrame] = field(init=False)
    _seen: pl.DataFrame | None = field(init=False)
    _rows: int = field(init=False)

    def __post_init__(self) -> None:
        meeting = self.meeting
        texts = meeting.texts.collect()
        self._texts = []
        for simulator in self.simulators:
            told = texts if not isinstance(simulator, Shuffled) else simulator.swapped(texts, meeting.keys)
            self._texts.append(told.with_columns(pl.lit(simulator.name).alias(SIMULATOR)))
        self._seen = meeting.seen.collect() if meeting.seen is not None else None
        each = texts.height / max(1, texts.select(pl.struct(meeting.keys).n_unique()).item())
        self._rows = max(1, int(SHARD_ROWS / (each * len(self.simulators))))

    @property
    def prompted(self) -> list[PromptSimulator]:
        """Those who ask, inside of their controls."""
        inner = [s.inner if isinstance(s, Shuffled) else s for s in self.simulators]
        return [s for s in inner if isinstance(s, PromptSimulator)]

    @property
    def replicates(self) -> int:
        """The most answers that any simulator asks for to one prompt."""
        return max(s.replicates for s in self.prompted)

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
        for block in _blocks(_ordered(self.meeting), self.meeting.keys, self._rows):
            self._check(block)
            pairs = self._pairs(block)
            if not pairs.height:
                continue
            if self._stopped:
                return
            shard = self._shard(index, pairs)
            self.digests.append(shard.digest)
            if left is not None:
                shard = _cut(shard, left)
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

    def _shard(self, index: int, pairs: pl.DataFrame) -> Shard:
        digest = hashlib.sha256()
        for part in pairs.drop(EXPLANATION).iter_slices(SLICE_ROWS):  # the requests' keys hold the explanations
            for values in _content(part):
                digest.update(values)
        requests: list[Request] = []
        too_long: list[tuple[int, int]] = []
        for group in self._groups(pairs):
            simulator = group.simulator
            sent: list[int] = []
            for number, tokens in enumerate(group.records):
                start, kept = group.starts[number], len(tokens)
                if kept > simulator.max_record_tokens:
                    kept = simulator.max_record_tokens if simulator.long_records == "cut" else 0
                    too_long.append((start + kept, start + len(tokens)))
                if kept:
                    sent.append(number)
            records = [group.records[n][: simulator.max_record_tokens] for n in sent]
            group.records[:] = records
            starts = [group.starts[n] for n in sent]
            group.sequences[:] = [group.sequences[n] for n in sent]
            for ask in simulator.asks(group.explanation, records, self.can):
                rows = tuple((starts[s.record] + s.start, starts[s.record] + s.stop) for s in ask.spans)
                for replicate in range(simulator.replicates):
                    seed = replicate if simulator.replicates > 1 else None
                    call = self.backend.call(ask.prompt, self.can, seed=seed)
                    body = msgspec.json.encode(call.body, order="sorted")
                    key = request_key(self.backend.url, call.path, body, replicate)
                    digest.update(key)
                    requests.append(Request(key, ask, call.path, body, group, rows, replicate))
        return Shard(index, pairs, requests, too_long, digest=digest.hexdigest())

    def _groups(self, pairs: pl.DataFrame) -> Iterator[Group]:
        own = [*self.meeting.keys, SIMULATOR, EXPLANATION_ID]
        runs = pairs.select(group=pl.struct(own).rle_id(), record=pl.struct(*own, SEQUENCE).rle_id()).with_row_index(
            "row"
        )
        records = runs.group_by("record", maintain_order=True).agg(pl.first("group"), pl.first("row"), pl.len())
        firsts = records.group_by("group", maintain_order=True).agg("row", "len")
        tokens = pairs[TOKEN].cast(pl.String).to_list()
        sequences = pairs[SEQUENCE].to_list()
        by_name = {s.name: inner for s, inner in zip(self.simulators, self.prompted, strict=True)}
        for _, starts, lengths in firsts.iter_rows():
            identity = pairs.row(starts[0], named=True)
            simulator = by_name[identity[SIMULATOR]]
            yield Group(
                simulator,
                identity[EXPLANATION],
                [tokens[s : s + n] for s, n in zip(starts, lengths, strict=True)],
                list(starts),
                {k: identity[k] for k in own},
                [sequences[s] for s in starts],
            )


def request_key(url: str, path: str, body: bytes, replicate: int) -> bytes:
    """SHA-256 over all that decides an answer: the base URL without secrets, the path, the whole body, the replicate."""
    parts = (url.encode(), path.encode(), str(replicate).encode(), body)
    return hashlib.sha256(b"".join(len(p).to_bytes(8) + p for p in parts)).digest()


def _content(rows: pl.DataFrame) -> Iterator[bytes]:
    """The values of a frame as bytes, the same in every process and version: codes of categories are not."""
    for column in rows.iter_columns():
        yield f"\0{column.name}\0{column.dtype}\0".encode()
        values = column.cast(pl.String) if is_text(column.dtype) else column
        if values.null_count():
            yield values.is_null().to_numpy().tobytes()
        if values.dtype == pl.String:
            known = values.fill_null("")
            yield known.str.len_bytes().to_numpy().tobytes()
            yield known.str.join().item().encode()
        elif values.dtype in PLAIN:
            yield values.fill_null(0).to_numpy().tobytes()
        elif "Binary" in str(values.dtype):  # JSON cannot hold bytes
            yield repr(values.to_list()).encode()
        else:
            yield values.to_frame().write_ndjson().encode()


def _cut(shard: Shard, requests: int) -> Shard:
    """A shard of its first requests, and of the rows that they fill."""
    if len(shard.requests) <= requests:
        return shard
    kept = shard.requests[:requests]
    # a record counts as reached by its first request
    reached = np.zeros(shard.pairs.height, dtype=bool)
    for request in kept:
        for start, stop in request.rows:
            reached[start:stop] = True
    place = np.cumsum(reached) - 1
    moved = [
        Request(
            r.key,
            r.ask,
            r.path,
            r.body,
            r.group,
            tuple((int(place[a]), int(place[b - 1]) + 1) for a, b in r.rows),
            r.replicate,
        )
        for r in kept
    ]
    return Shard(shard.index, shard.pairs.filter(pl.Series(reached)), moved, [], whole=False, digest=shard.digest)


def _ordered(meeting: Meeting) -> pl.LazyFrame:
    """The asked records in the order of the keys; sorted, in memory, only if they are not."""
    order = [*meeting.keys, SEQUENCE, POSITION]
    last: pl.DataFrame | None = None
    with reading(meeting.given):
        for batch in meeting.asked.select(order).collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            rows = batch if last is None else pl.concat([last, batch])
            if not rows.equals(rows.sort(order, maintain_order=True)):
                return meeting.asked.sort(order)
            last = batch.tail(1)
    return meeting.asked


def _blocks(frame: pl.LazyFrame, keys: Sequence[str], rows: int) -> Iterator[pl.DataFrame]:
    """Blocks of whole neurons, each of the least number of them that has `rows` rows."""
    held: list[pl.DataFrame] = []
    height = 0
    for batch in frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
        held.append(batch)
        height += batch.height
        if height <= rows:
            continue
        block = pl.concat(held)
        begin = 0
        firsts = _firsts(block, keys)
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
