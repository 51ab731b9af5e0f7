"""What a shard asks: its rows on one side, the requests that fill them on the other, and how each request is known.

Both follow from the rows, the simulators, the backend and what the server can do, and from nothing else: a shard that is
made again from its stored rows asks the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
import polars as pl

from nscore.backends import Backend
from nscore.exchange import Capabilities, Prompt
from nscore.records import EXPLANATION, EXPLANATION_ID, SEQUENCE, SIMULATOR, TOKEN, is_text
from nscore.simulators import Ask, PromptSimulator, Shuffled

__all__ = ["Group", "Part", "Questions", "Request", "Shard", "Shards", "cut", "request_key"]

SLICE_ROWS = 1 << 12
# Whose bytes are their values.
PLAIN = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64)


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
        requests: in the order of their rows.
        too_long: rows that are not sent.
        whole: whether a limit left none of its requests out.
        digest: half of the rows, half of the requests, limit or none: it tells whether the inputs are the same as before.
        uncut: the rows of the whole shard.
    """

    index: int
    pairs: pl.DataFrame
    requests: list[Request]
    too_long: list[tuple[int, int]]
    uncut: pl.DataFrame
    whole: bool = True
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Questions:
    """Who is asked what.

    Args:
        keys: of a neuron.
        simulators: prompt simulators, or controls of such.
        backend: the wire format.
        can: what the server can do.
    """

    keys: Sequence[str]
    simulators: Sequence[PromptSimulator | Shuffled]
    backend: Backend
    can: Capabilities

    @property
    def prompted(self) -> list[PromptSimulator]:
        """Those who ask, inside of their controls."""
        inner = [s.inner if isinstance(s, Shuffled) else s for s in self.simulators]
        return [s for s in inner if isinstance(s, PromptSimulator)]

    @property
    def replicates(self) -> int:
        """The most answers that any simulator asks for to one prompt."""
        return max(s.replicates for s in self.prompted)

    def shard(self, index: int, pairs: pl.DataFrame) -> Shard:
        """The requests that fill rows which lie in their final order."""
        rows_digest, digest = hashlib.sha256(), hashlib.sha256()
        for part in pairs.drop(EXPLANATION).iter_slices(SLICE_ROWS):  # the requests' keys hold the explanations
            for values in _content(part):
                rows_digest.update(values)
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
        halves = rows_digest.hexdigest()[:32] + digest.hexdigest()[:32]
        return Shard(index, pairs, requests, too_long, pairs, digest=halves)

    def _groups(self, pairs: pl.DataFrame) -> Iterator[Group]:
        own = [*self.keys, SIMULATOR, EXPLANATION_ID]
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


class Shards(Protocol):
    """Shards that are to be carried out: a plan, or a part of one."""

    @property
    def questions(self) -> Questions:
        """Who is asked what."""

    def shards(self) -> Iterator[Shard]:
        """They, in their order."""

    def stop(self) -> None:
        """Nobody wants the rest."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a plan: some of its shards, or of their requests.

    Args:
        questions: who is asked what.
        given: the shards.
        halt: lets them end.
    """

    questions: Questions
    given: Iterable[Shard]
    halt: Callable[[], object] = lambda: None

    def shards(self) -> Iterator[Shard]:
        """They, in their order."""
        return iter(self.given)

    def stop(self) -> None:
        """Nobody wants the rest."""
        self.halt()


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


def cut(shard: Shard, requests: int) -> Shard:
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
    pairs = shard.pairs.filter(pl.Series(reached))
    return Shard(shard.index, pairs, moved, [], shard.uncut, whole=False, digest=shard.digest)
