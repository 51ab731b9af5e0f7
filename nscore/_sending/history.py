"""What the frames of a run's journal mean: what it asks, what was sent, answered, paid for and written out.

The heads of frames are made here and read here. `settings` says what the run is, `plan` holds the rows of a shard as
Parquet, before anything of it is sent. `sent` is written before a request leaves; `reply` holds the raw bytes and is
durable before they are parsed; `ended` says what an attempt cost. A `sent` without `ended` may have been billed.
`unanswered` says how a request fared that has no reply, `shard` that the tables of a shard are written.

A run has a journal of its own in `journal`; a shard that another process worked on has one beside it, in
`journals/000012`. What a run is stands in its own; what was sent, answered and paid for is the sum of all.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nscore._sending.journal import Entry, JournalReader, Location
from nscore._sending.segments import JOURNAL, JOURNALS

__all__ = [
    "JOURNAL",
    "JOURNALS",
    "Excerpt",
    "History",
    "Past",
    "begun",
    "ended",
    "inputs",
    "journals_of",
    "reply",
    "sent",
    "settings",
    "shard_done",
    "unanswered",
    "unsent",
]


def journals_of(path: Path) -> list[Path]:
    """The journals of shards in the folder of a run, in the order of the shards."""
    return sorted(each for each in (path / JOURNALS).glob("*") if each.name.isdecimal() and each.is_dir())


def settings(content: dict[str, Any]) -> dict[str, object]:
    """What decides the answers of the run."""
    return {"settings": content}


def inputs(content: dict[str, object]) -> dict[str, object]:
    """What the plan of a session came to."""
    return {"inputs": content}


def begun(index: int, digest: str, requests: int | None) -> dict[str, object]:
    """A shard's requests are about to leave: the digest of its plan, and how many where a limit left some out.

    The payload of the first of them is the shard's rows as Parquet, those included that a limit leaves out.
    """
    return {"plan": index, "digest": digest, "requests": requests}


def sent(key: bytes, attempt: int, most: float | None) -> dict[str, object]:
    """A request is about to leave; it can cost `most` dollars."""
    return {"sent": key.hex(), "attempt": attempt, "most": most}


def unsent(key: bytes, attempt: int) -> dict[str, object]:
    """A request that was about to leave did not."""
    return {"unsent": key.hex(), "attempt": attempt}


def reply(key: bytes, attempt: int, latency_s: float, at: str) -> dict[str, object]:
    """A reply came, whose bytes are the payload."""
    return {"reply": key.hex(), "attempt": attempt, "latency_s": latency_s, "at": at}


def ended(key: bytes, attempt: int, cost: float | None, price: float | None, **what: object) -> dict[str, object]:
    """An attempt is over: what it cost, and all attempts so far; None where nobody can say."""
    return {"ended": key.hex(), "attempt": attempt, "cost": cost, "price": price} | what


def unanswered(key: bytes, **fared: object) -> dict[str, object]:
    """A request is given up without a reply: the fields of its row in the `requests` table."""
    return {"unanswered": key.hex()} | fared


def shard_done(index: int, digest: str, files: dict[str, str], *, final: bool) -> dict[str, object]:
    """The tables of a shard are written: the SHA-256 of each file, and whether nothing of it is left to ask."""
    return {"shard": index, "digest": digest, "files": files, "final": final}


@dataclass(slots=True)
class Past:
    """What the journal knows of a request.

    Attributes:
        attempts: how often it was sent, as far as that is known.
        price: dollars, of all attempts that ended.
        raw: its last reply; None where none was stored.
        latency_s: of that.
        at: when that was there.
        paid: whether the attempt that brought it ended, so that `price` holds what it cost.
        unanswered: how it fared, where it was given up after that or without any reply.
    """

    attempts: int = 0
    price: float | None = None
    raw: bytes | None = None
    latency_s: float | None = None
    at: str | None = None
    paid: bool = True
    unanswered: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A shard that was begun: the digest of its plan, how many of its requests, where its rows are."""

    digest: str
    requests: int | None
    rows: Location


@dataclass(frozen=True, slots=True)
class Written:
    """A shard whose tables were written: the SHA-256 of each file, and whether nothing of it is left to ask."""

    files: dict[str, str]
    final: bool


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Where another journal tells of some requests: the first 8 bytes of each key, sorted, and where."""

    folder: Path
    keys: bytes
    places: bytes


@dataclass(slots=True)
class History:
    """What happened in a run so far.

    Args:
        reader: of the run's own journal, or of the one journal that is looked at.
        others: of the journals of its shards.
        excerpts: of still others, which are not read whole and whose sums do not count.

    Attributes:
        settings: what decides its answers; None where it never came so far.
        inputs: what the plan of the last session came to.
        spent: dollars; what was sent and never ended counts at its most.
        sent: calls that were made.
        replies: that were stored.
        in_doubt: how many requests were sent and never ended: the server may have billed them and nobody has the reply.
        planned: the shards that were begun.
        written: the shards whose tables were written.
    """

    reader: JournalReader
    others: Sequence[JournalReader] = ()
    excerpts: Sequence[Excerpt] = ()
    settings: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    spent: float = 0.0
    sent: int = 0
    replies: int = 0
    in_doubt: int = 0
    planned: dict[int, Planned] = field(default_factory=dict)
    written: dict[int, Written] = field(default_factory=dict)
    # The first 8 bytes of the key of each frame that tells of an answer, sorted, in which journal, and where.
    # Arrays: a million requests take 40 MB.
    _keys: array[int] = field(init=False)
    _parts: array[int] = field(init=False)
    _places: array[int] = field(init=False)
    _readers: list[JournalReader] = field(init=False)
    _spent: dict[Path, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._readers = [self.reader, *self.others]
        keys, parts, places = array("Q"), array("I"), array("q")
        for number, reader in enumerate(self._readers):
            self._scan(number, reader, keys, places)
            parts.extend([number] * (len(keys) - len(parts)))
        for excerpt in self.excerpts:
            self._readers.append(JournalReader(excerpt.folder))
            keys.frombytes(excerpt.keys)
            places.frombytes(excerpt.places)
            parts.extend([len(self._readers) - 1] * (len(keys) - len(parts)))
        order = np.argsort(np.asarray(keys, dtype=np.uint64), kind="stable")
        self._keys = array("Q", np.asarray(keys, dtype=np.uint64)[order].tobytes())
        self._parts = array("I", np.asarray(parts, dtype=np.uint32)[order].tobytes())
        self._places = array("q", np.asarray(places, dtype=np.int64)[order].tobytes())

    def _scan(self, number: int, reader: JournalReader, keys: array[int], places: array[int]) -> None:
        # what was sent and has not ended, and whether its reply is there
        open_: dict[tuple[object, object], tuple[float, bool]] = {}
        lost: list[tuple[float, bool]] = []
        spent = 0.0
        for entry in reader.entries():
            head: dict[str, Any] = entry.head
            told = head.get("reply") or head.get("ended") or head.get("unanswered")
            if told is not None:
                keys.append(_short(bytes.fromhex(told)))
                places.append(entry.location.pack())
            if "reply" in head:
                self.replies += 1
                if (call := (head["reply"], head["attempt"])) in open_:
                    open_[call] = open_[call][0], True
            elif "sent" in head:
                self.sent += 1
                call = head["sent"], head["attempt"]
                if call in open_:  # by a session that was killed; this is another call, of a later one
                    lost.append(open_[call])
                open_[call] = _dollars(head["most"]), False
            elif "ended" in head:
                open_.pop((head["ended"], head["attempt"]), None)
                spent += _dollars(head["cost"])
            elif "unsent" in head:
                open_.pop((head["unsent"], head["attempt"]), None)
                self.sent -= 1
            elif not number:
                self._take_of_run(entry)
        lost += open_.values()
        self.in_doubt += sum(not answered for _, answered in lost)
        self._spent[reader.folder] = spent + sum(most for most, _ in lost)
        self.spent += self._spent[reader.folder]

    def _take_of_run(self, entry: Entry) -> None:
        head: dict[str, Any] = entry.head
        if "plan" in head:
            index = head["plan"]
            there = self.planned.get(index)
            rows = there.rows if there is not None and not entry.size else entry.location
            self.planned[index] = Planned(head["digest"], head["requests"], rows)
        elif "shard" in head:
            self.written[head["shard"]] = Written(head["files"], head["final"])
        elif "settings" in head:
            self.settings = head["settings"]
        elif "inputs" in head:
            self.inputs = head["inputs"]

    @classmethod
    def of(cls, folder: Path) -> History:
        """What the journal in a folder tells, to one who only looks."""
        return cls(JournalReader(folder))

    @classmethod
    def of_run(cls, path: Path) -> History:
        """What all journals in the folder of a run tell, to one who only looks."""
        return cls(JournalReader(path / JOURNAL), [JournalReader(folder) for folder in journals_of(path)])

    @property
    def folders(self) -> list[Path]:
        """Those of all journals."""
        return [reader.folder for reader in self._readers]

    def spent_in(self, folder: Path) -> float:
        """Dollars, as `spent`, in one of the journals; 0 where there is none."""
        return self._spent.get(folder, 0.0)

    def rows(self, index: int) -> bytes:
        """The rows of a shard that was begun, as Parquet."""
        return self.reader.read(self.planned[index].rows)

    def knows(self, key: bytes) -> bool:
        """Whether anything is known of a request, as far as the first 8 bytes of its key tell."""
        short = _short(key)
        at = bisect_left(self._keys, short)
        return at < len(self._keys) and self._keys[at] == short

    def past(self, key: bytes) -> Past | None:
        """What is known of a request; None where it is nothing."""
        short = _short(key)
        begin, end = bisect_left(self._keys, short), bisect_right(self._keys, short)
        told = []
        for part, place in zip(self._parts[begin:end], self._places[begin:end], strict=True):
            entry = self._readers[part].entry(Location.unpack(place))
            # keys are found by their first 8 bytes, and then compared whole
            if key.hex() in (entry.head.get("reply"), entry.head.get("ended"), entry.head.get("unanswered")):
                told.append((part, entry))
        if len({part for part, _ in told}) > 1:  # attempts are counted on from one journal to the next
            told.sort(key=lambda each: _turn(each[1].head))
        past, replied = Past(), None
        for part, entry in told:
            _take(past, entry)
            replied = (part, entry.location) if "reply" in entry.head else replied
        if replied is not None:
            past.raw = self._readers[replied[0]].read(replied[1])
        return past if told else None

    def excerpts_of(self, keys: Iterable[bytes], *, without: Path) -> tuple[Excerpt, ...]:
        """Where journals tell of some requests, without one journal."""
        found: dict[int, tuple[array[int], array[int]]] = {}
        for short in sorted({_short(key) for key in keys}):
            for at in range(bisect_left(self._keys, short), bisect_right(self._keys, short)):
                shorts, places = found.setdefault(self._parts[at], (array("Q"), array("q")))
                shorts.append(short)
                places.append(self._places[at])
        folders = {part: self._readers[part].folder for part in found}
        return tuple(
            Excerpt(folders[part], shorts.tobytes(), places.tobytes())
            for part, (shorts, places) in sorted(found.items())
            if folders[part] != without
        )


def _take(past: Past, entry: Entry) -> None:
    head: dict[str, Any] = entry.head
    if "reply" in head:
        past.attempts = head["attempt"] + 1
        past.latency_s, past.at, past.paid, past.unanswered = head["latency_s"], head["at"], False, None
    elif "ended" in head:
        past.attempts, past.price, past.paid = max(past.attempts, head["attempt"] + 1), head["price"], True
    else:
        past.unanswered = {name: value for name, value in head.items() if name != "unanswered"}


def _turn(head: dict[str, Any]) -> float:
    """When a frame of a request was written, among those of several journals: after so many attempts."""
    return head["attempts"] - 0.5 if "unanswered" in head else float(head["attempt"])


def _short(key: bytes) -> int:
    return int.from_bytes(key[:8])


def _dollars(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
