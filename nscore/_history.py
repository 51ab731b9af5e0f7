"""What the frames of a run's journal mean: what was sent, answered, paid for and written out.

The heads of frames are made here and read here. `sent` is queued before a request leaves; `reply` holds the raw bytes and
is durable before they are parsed; `ended` says what an attempt cost. A `sent` without `ended` may have been billed.
`plan` says what a shard holds, before anything of it is sent; `shard` that it is written out for good.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nscore._journal import Entry, JournalReader, Location

__all__ = ["History", "Past", "begun", "ended", "reply", "sent", "shard_done"]


def sent(key: bytes, attempt: int, most: float | None) -> dict[str, object]:
    """A request is about to leave; it can cost `most` dollars."""
    return {"sent": key.hex(), "attempt": attempt, "most": most}


def reply(key: bytes, attempt: int, latency_s: float, at: str) -> dict[str, object]:
    """A reply came, whose bytes are the payload."""
    return {"reply": key.hex(), "attempt": attempt, "latency_s": latency_s, "at": at}


def ended(key: bytes, attempt: int, cost: float | None, **what: object) -> dict[str, object]:
    """An attempt is over and cost so many dollars; None where nobody can say."""
    return {"ended": key.hex(), "attempt": attempt, "cost": cost} | what


def begun(index: int, digest: str) -> dict[str, object]:
    """A shard's requests are about to leave: the digest of its plan."""
    return {"plan": index, "digest": digest}


def shard_done(index: int, digest: str, files: dict[str, str]) -> dict[str, object]:
    """A shard is written out for good: the digest of its plan, and the SHA-256 of each of its files."""
    return {"shard": index, "digest": digest, "files": files}


@dataclass(frozen=True, slots=True)
class Past:
    """A reply that was stored, and how it came."""

    raw: bytes
    attempts: int
    latency_s: float | None
    at: str | None


@dataclass(slots=True)
class History:
    """What happened in a run so far.

    Attributes:
        spent: dollars; what was sent and never ended counts at its most.
        in_doubt: how many requests were sent and never ended: the server may have billed them and nobody has the reply.
        digests: of the shards that were begun, what `begun` said of them.
        shards: of the shards that are written out for good, what `shard_done` said of them.
    """

    reader: JournalReader
    spent: float = 0.0
    in_doubt: int = 0
    digests: dict[int, str] = field(default_factory=dict)
    shards: dict[int, dict[str, object]] = field(default_factory=dict)
    # The first 8 bytes of each key that was answered, sorted, and where. Arrays: a million take 16 MB.
    _keys: array[int] = field(init=False)
    _places: array[int] = field(init=False)

    def __post_init__(self) -> None:
        keys, places = array("Q"), array("q")
        # what was sent and has not ended, and whether its reply is there
        open_: dict[tuple[object, object], tuple[float, bool]] = {}
        lost: list[tuple[float, bool]] = []
        for entry in self.reader.entries():
            head = entry.head
            if "reply" in head:
                keys.append(_short(bytes.fromhex(str(head["reply"]))))
                places.append(entry.location.pack())
                if (call := (head["reply"], head["attempt"])) in open_:
                    open_[call] = open_[call][0], True
            elif "sent" in head:
                call = head["sent"], head["attempt"]
                if call in open_:  # by a session that was killed; this is another call, of a later one
                    lost.append(open_[call])
                open_[call] = _dollars(head["most"]), False
            elif "ended" in head:
                open_.pop((head["ended"], head["attempt"]), None)
                self.spent += _dollars(head["cost"])
            elif "plan" in head:
                self.digests[int(str(head["plan"]))] = str(head["digest"])
            elif "shard" in head:
                self.shards[int(str(head["shard"]))] = head
        lost += open_.values()
        self.in_doubt = sum(not answered for _, answered in lost)
        self.spent += sum(most for most, _ in lost)
        order = np.argsort(np.asarray(keys, dtype=np.uint64), kind="stable")
        self._keys = array("Q", np.asarray(keys, dtype=np.uint64)[order].tobytes())
        self._places = array("q", np.asarray(places, dtype=np.int64)[order].tobytes())

    @classmethod
    def of(cls, folder: Path) -> History:
        """What the journal in a folder tells, to one who only looks."""
        return cls(JournalReader(folder))

    def __len__(self) -> int:
        return len(self._keys)

    def knows(self, key: bytes) -> bool:
        """Whether a reply to a request was stored, as far as the first 8 bytes of its key tell."""
        short = _short(key)
        at = bisect_left(self._keys, short)
        return at < len(self._keys) and self._keys[at] == short

    def past(self, key: bytes) -> Past | None:
        """The last reply to a request; None where none was stored."""
        short = _short(key)
        begin, end = bisect_left(self._keys, short), bisect_right(self._keys, short)
        # keys are found by their first 8 bytes, and then compared whole
        for place in reversed(self._places[begin:end]):
            location = Location.unpack(place)
            entry = self.reader.entry(location)
            if entry.head["reply"] == key.hex():
                return _past(entry, self.reader.read(location))
        return None


def _past(entry: Entry, raw: bytes) -> Past:
    head = entry.head
    latency, at = head.get("latency_s"), head.get("at")
    return Past(
        raw,
        int(str(head["attempt"])) + 1,
        float(latency) if isinstance(latency, int | float) else None,
        at if isinstance(at, str) else None,
    )


def _short(key: bytes) -> int:
    return int.from_bytes(key[:8])


def _dollars(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
