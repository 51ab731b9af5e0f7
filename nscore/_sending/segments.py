"""The segments in which a run's journal lies on the disk: how a frame is written, checked and read."""

from __future__ import annotations

import itertools
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]

from nscore._tables.disk import told
from nscore.errors import JournalError

__all__ = [
    "JOURNAL",
    "JOURNALS",
    "LARGEST_PAYLOAD",
    "Entry",
    "Frame",
    "Gap",
    "JournalReader",
    "Location",
    "entries_of",
    "first_line",
    "frame_bytes",
    "frames_of",
    "pieces_of",
    "segment_path",
    "segments_of",
]

# A segment is a line (the format's version, the segment's number), then frames. A frame is a prefix, the head's JSON
# and the stored payload; the prefix is checksummed itself, so that no flipped length leads a reader astray.
_VERSION = 1
_FIRST_LINE = re.compile(rb"nscore journal (\d+)\b")
_MAGIC = b"\xa9nsJ"
# magic; bytes of the head, the stored and the raw payload; checksums of the head and the stored payload; the bytes of
# this segment that were known to be on the disk when the frame was written.
_PREFIX = struct.Struct("<4sIIIIIQ")
_CHECKSUM = struct.Struct("<I")
_PREFIX_BYTES = _PREFIX.size + _CHECKSUM.size

# In the folder of a run, its journal, and the folder of those of its shards that other processes worked on.
JOURNAL, JOURNALS = "journal", "journals"

LARGEST_PAYLOAD = 1 << 30
_OFFSET_BITS = 40
_BLOCK = 1 << 18


class Location(NamedTuple):
    """Where a frame begins: the segment's number and the byte in it."""

    segment: int
    offset: int

    def pack(self) -> int:
        """Both in one integer of 63 bits."""
        return self.segment << _OFFSET_BITS | self.offset

    @classmethod
    def unpack(cls, packed: int) -> Location:
        """What `pack` packed."""
        return cls(packed >> _OFFSET_BITS, packed & (1 << _OFFSET_BITS) - 1)


class Entry(NamedTuple):
    """A frame without its payload, whose uncompressed length is `size` bytes."""

    head: dict[str, object]
    location: Location
    size: int


class JournalReader:
    """A journal as one sees it who only looks: nothing is locked, nothing is cut off.

    Raises:
        JournalError: there is no such folder; and, at each method, a file that cannot be read or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise JournalError(f"{folder}: there is no journal here. Name the folder of a run that was started.")

    def entries(self) -> Iterator[Entry]:
        """All whole frames, oldest first; a torn end of the last segment is left out."""
        numbers = segments_of(self.folder)
        return entries_of(
            itertools.chain.from_iterable(frames_of(self.folder, n, last=n == numbers[-1]) for n in numbers)
        )

    def entry(self, location: Location) -> Entry:
        """The frame there without its payload."""
        prefix, head = self._part(location, "head")
        return Entry(msgspec.json.decode(head), location, prefix.raw)

    def read(self, location: Location) -> bytes:
        """The payload of the frame there, checked."""
        prefix, stored = self._part(location, "payload")
        if not stored and not prefix.raw:
            return b""
        try:
            return pa.decompress(stored, decompressed_size=prefix.raw, codec="zstd", asbytes=True)  # type: ignore[no-any-return]
        except (OSError, pa.ArrowException) as error:
            path = segment_path(self.folder, location.segment)
            raise _damage(path, location.offset, f"the payload cannot be decompressed ({error})") from error

    def _part(self, location: Location, part: Literal["head", "payload"]) -> tuple[_Prefix, bytes]:
        """The prefix of the frame there, and its head or its stored payload, checked."""
        path = segment_path(self.folder, location.segment)
        with told(path, "read", JournalError), path.open("rb", buffering=0) as file:
            prefix = _prefix(os.pread(file.fileno(), _PREFIX_BYTES, location.offset))
            if prefix is None:
                raise _damage(path, location.offset, "no frame begins there")
            start, size, checksum = _PREFIX_BYTES, prefix.head, prefix.head_checksum
            if part == "payload":
                start, size, checksum = start + size, prefix.stored, prefix.stored_checksum
            data = os.pread(file.fileno(), size, location.offset + start)
        if len(data) != size or zlib.crc32(data) != checksum:
            raise _damage(path, location.offset, f"the {part} does not match its checksum")
        return prefix, data


def frame_bytes(head: bytes, payload: bytes, durable: int) -> bytes:
    stored: bytes = pa.compress(payload, codec="zstd", asbytes=True) if payload else b""
    prefix = _PREFIX.pack(_MAGIC, len(head), len(stored), len(payload), zlib.crc32(head), zlib.crc32(stored), durable)
    return b"".join((prefix, _CHECKSUM.pack(zlib.crc32(prefix)), head, stored))


class _Prefix(NamedTuple):
    head: int
    stored: int
    raw: int
    head_checksum: int
    stored_checksum: int
    durable: int


class Frame(NamedTuple):
    location: Location
    head: bytes
    size: int
    end: int


class Gap(NamedTuple):
    """Bytes of a segment that are no whole frame: damaged, or, at the very end, torn by whatever ended the process."""

    path: Path
    start: int
    end: int
    torn: bool

    def __str__(self) -> str:
        if not self.end:
            return f"{self.path}: this file is missing"
        return f"{self.path}: {self.end - self.start:,} bytes from byte {self.start} on are {'torn' if self.torn else 'damaged'}"


def _prefix(data: bytes) -> _Prefix | None:
    if len(data) < _PREFIX_BYTES or zlib.crc32(data[: _PREFIX.size]) != _CHECKSUM.unpack_from(data, _PREFIX.size)[0]:
        return None
    magic, *numbers = _PREFIX.unpack_from(data)
    return _Prefix(*numbers) if magic == _MAGIC and numbers[2] <= LARGEST_PAYLOAD else None


def segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.log"


def first_line(number: int) -> bytes:
    return b"nscore journal %d %06d\n" % (_VERSION, number)


def _damage(path: Path, at: int, what: str) -> JournalError:
    folder = path.parent
    of_shard = folder.name.isdecimal() and folder.parent.name == JOURNALS
    return JournalError(
        f"{path}, byte {at}: the journal is damaged: {what}. Put a copy of this file back, or keep what is whole: "
        f"nscore runs salvage {folder.parent.parent if of_shard else folder.parent}"
    )


def segments_of(folder: Path) -> list[int]:
    """The numbers of the segments, which have no gap."""
    with told(folder, "read", JournalError):
        numbers = sorted(int(path.stem) for path in folder.glob("*.log") if path.stem.isdecimal())
    for expected, number in enumerate(numbers, start=1):
        if number != expected:
            raise _damage(segment_path(folder, expected), 0, "this file is missing")
    return numbers


def entries_of(frames: Iterator[Frame]) -> Iterator[Entry]:
    decode = msgspec.json.Decoder(dict[str, object]).decode
    return (Entry(decode(frame.head), frame.location, frame.size) for frame in frames if frame.head)


def frames_of(folder: Path, number: int, *, last: bool = False, size: int | None = None) -> Iterator[Frame]:
    """The frames of a segment, or of its first `size` bytes; in the last one payloads are checked, and its end may be torn."""
    path = segment_path(folder, number)
    with told(path, "read", JournalError), path.open("rb", buffering=_BLOCK) as file:
        if size is None:
            size = os.fstat(file.fileno()).st_size
        expected = first_line(number)
        line = file.read(len(expected))
        if line != expected:
            _check_version(path, line)
            if last and size <= len(expected):
                return  # the line is synced before the first frame is written
            raise _damage(path, 0, f"it does not begin with {expected.decode().strip()!r}")
        at = len(expected)
        while at < size:
            frame = _next(file, Location(number, at), size, whole=last)
            if frame is None:
                if last and not _was_durable(file, at, size):
                    return
                raise _damage(path, at, "this frame does not match its checksums")
            yield frame
            at = frame.end


def _next(file: BinaryIO, location: Location, size: int, *, whole: bool) -> Frame | None:
    prefix = _prefix(file.read(_PREFIX_BYTES))
    if prefix is None:
        return None
    end = location.offset + _PREFIX_BYTES + prefix.head + prefix.stored
    if end > size:
        return None
    head = file.read(prefix.head)
    if zlib.crc32(head) != prefix.head_checksum:
        return None
    if not whole:
        file.seek(prefix.stored, os.SEEK_CUR)
    else:
        checksum, rest = 0, prefix.stored
        while block := file.read(min(rest, _BLOCK)):
            checksum, rest = zlib.crc32(block, checksum), rest - len(block)
        if rest or checksum != prefix.stored_checksum:
            return None
    return Frame(location, head, prefix.raw, end)


def pieces_of(folder: Path) -> Iterator[Frame | Gap]:
    """All that is whole of a journal, whatever ails it, each frame checked with its payload; and what is not."""
    with told(folder, "read", JournalError):
        numbers = sorted(int(path.stem) for path in folder.glob("*.log") if path.stem.isdecimal())
    for number in range(1, max(numbers, default=0) + 1):
        path = segment_path(folder, number)
        if number not in numbers:
            yield Gap(path, 0, 0, torn=False)
            continue
        with told(path, "read", JournalError), path.open("rb", buffering=_BLOCK) as file:
            size = os.fstat(file.fileno()).st_size
            line = first_line(number)
            begun = file.read(len(line))
            _check_version(path, begun)
            at = len(line) if begun == line else 0
            while at < size:
                file.seek(at)
                frame = _next(file, Location(number, at), size, whole=True)
                if frame is not None:
                    yield frame
                    at = frame.end
                    continue
                torn = number == numbers[-1] and not _was_durable(file, at, size)
                end = size if torn else _next_whole(file, number, at, size)
                yield Gap(path, at, end, torn=torn)
                at = end


def _next_whole(file: BinaryIO, number: int, at: int, size: int) -> int:
    """Where behind a damage the next whole frame begins; the end of the file if there is none."""
    found = at
    while True:
        file.seek(found + 1)
        step = file.read(_BLOCK + len(_MAGIC) - 1).find(_MAGIC)
        if step < 0:
            found += _BLOCK
            if found >= size:
                return size
            continue
        found += 1 + step
        file.seek(found)
        if _next(file, Location(number, found), size, whole=True) is not None:
            return found


def _check_version(path: Path, line: bytes) -> None:
    match = _FIRST_LINE.match(line)
    if match and int(match[1]) > _VERSION:
        raise JournalError(
            f"{path}: written by a newer nscore (journal version {int(match[1])}; this one reads {_VERSION}). "
            "Update nscore."
        )


def _was_durable(file: BinaryIO, at: int, size: int) -> bool:
    """Whether a later frame says that the bytes from `at` on had reached the disk: then they were damaged, not torn."""
    file.seek(at)
    rest = file.read(size - at)
    found = rest.find(_MAGIC)
    while found >= 0:
        prefix = _prefix(rest[found : found + _PREFIX_BYTES])
        if prefix is not None and prefix.durable > at:
            return True
        found = rest.find(_MAGIC, found + 1)
    return False
