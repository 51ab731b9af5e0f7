"""The append-only, checksummed journal of a run: the only truth about what was paid for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import fcntl
import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from nscore._segments import (
    LARGEST_PAYLOAD,
    Entry,
    JournalReader,
    Location,
    entries_of,
    first_line,
    frame_bytes,
    frames_of,
    segment_path,
    segments_of,
    told,
)
from nscore.errors import JournalError

__all__ = ["Entry", "Journal", "JournalReader", "Location"]

_FULL_COMMIT = 64
_LONGEST_S = 0.02


class _Files:
    """The operations on files that a journal writes by; a test may let them fail."""

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags, 0o644)

    def write(self, file: int, data: memoryview) -> int:
        return os.write(file, data)

    def fsync(self, file: int) -> None:
        os.fsync(file)

    def truncate(self, file: int, size: int) -> None:
        os.ftruncate(file, size)


_Waiter = concurrent.futures.Future[Location] | asyncio.Future[Location]
_Outcome = Location | JournalError


class _Queued(NamedTuple):
    head: bytes | None  # None: no frame, somebody only waits for those before
    payload: bytes
    waiter: _Waiter | None


class Journal(JournalReader):
    """An append-only, checksummed log of what a run sent and was answered.

    One thread writes: it gathers frames until 64 are waited for or 20 ms have passed, writes them at once, makes them
    durable (fsync) and only then tells who waits. After an error nothing more is appended: what was durable stays, and
    a journal opened anew goes on behind it.

    Args:
        folder: where the segments lie; made if it is not there, and locked until `close`.
        segment_bytes: after how many bytes a new segment begins.
        files: the operations on files.

    Attributes:
        cut_bytes: how many bytes of a torn end were cut off when it was opened.
        failed: the error that ended the writing, if one did.
        queued_bytes: heads and payloads that were queued and are not written yet.

    Raises:
        JournalError: another journal works on this folder, it cannot be written, or it is damaged elsewhere than at
            its torn end.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = 256 << 20, files: _Files | None = None) -> None:
        self.cut_bytes = 0
        self.failed: JournalError | None = None
        self.queued_bytes = 0
        self._files = _Files() if files is None else files
        self._segment_bytes = segment_bytes
        self._file: int | None = None
        self._wake = threading.Condition()
        self._queue: list[_Queued] = []
        self._waited = 0
        self._since = 0.0
        self._urgent = self._closing = False
        with told(folder, "open"):
            folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder)
        self._lock = self._locked()
        try:
            self._number, self._at = self._checked()
            self._durable = self._at
        except BaseException:
            os.close(self._lock)
            raise
        self._writer = threading.Thread(target=self._write_all, name=f"journal {folder}", daemon=True)
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # An error that is on its way out is worth more than the one that closing would repeat.
        with contextlib.suppress(JournalError) if error is not None else contextlib.nullcontext():
            self.close()

    def append(self, head: dict[str, object], payload: bytes = b"") -> concurrent.futures.Future[Location]:
        """Queues a frame; the future is done when it is durable."""
        waiter = concurrent.futures.Future[Location]()
        waiter.set_running_or_notify_cancel()  # what is queued is written: there is nothing to cancel
        self._put(_Queued(msgspec.json.encode(head), payload, waiter))
        return waiter

    async def store(self, head: dict[str, object], payload: bytes = b"", *, at_once: bool = False) -> Location:
        """Appends a frame and waits until it is durable; a task that is cancelled meanwhile leaves it queued.

        `at_once` does not wait for others to share the commit, as something else waits for this.
        """
        waiter: asyncio.Future[Location] = asyncio.get_running_loop().create_future()
        self._put(_Queued(msgspec.json.encode(head), payload, waiter), urgent=at_once)
        return await waiter

    def note(self, head: dict[str, object]) -> None:
        """Queues a frame for which nobody waits: written within 20 ms, durable with the next that is waited for."""
        self._put(_Queued(msgspec.json.encode(head), b"", None))

    def flush(self) -> None:
        """Waits until all that was queued is durable."""
        waiter = concurrent.futures.Future[Location]()
        waiter.set_running_or_notify_cancel()
        self._put(_Queued(None, b"", waiter), urgent=True)
        waiter.result()

    def close(self) -> None:
        """Writes what is queued, ends the thread, gives up the lock.

        Raises:
            JournalError: the journal had failed or fails now; it is closed all the same.
        """
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify()
        self._writer.join()
        os.close(self._lock)
        if self.failed is not None:
            raise _again(self.failed)

    def entries(self) -> Iterator[Entry]:
        """All frames that are durable now, oldest first."""
        with self._wake:
            last, durable = self._number, self._durable
        sizes = [None] * (last - 1) + [durable] * (durable > 0)
        return entries_of(
            itertools.chain.from_iterable(frames_of(self.folder, n, size=size) for n, size in enumerate(sizes, start=1))
        )

    def _locked(self) -> int:
        path = self.folder / "lock"
        with told(path, "open"):
            lock = self._files.open(path, os.O_RDWR | os.O_CREAT)
        try:
            with told(path, "lock"):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._files.truncate(lock, 0)
                self._files.write(lock, memoryview(str(os.getpid()).encode()))
        except JournalError as error:
            holder = os.pread(lock, 20, 0).decode(errors="replace") or "which has just begun"
            os.close(lock)
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            raise JournalError(
                f"{self.folder}: another process ({holder}) works on this run. Wait until it is done, or end it."
            ) from error.__cause__
        return lock

    def _checked(self) -> tuple[int, int]:
        """Checks all segments, cuts off a torn end, and gives the number and the length of the last one."""
        numbers = segments_of(self.folder)
        ends = [0]
        for number in numbers:
            ends.append(0)
            for frame in frames_of(self.folder, number, last=number == numbers[-1]):
                ends[number] = frame.end
        if numbers:
            self._cut(segment_path(self.folder, numbers[-1]), ends[-1])
        if numbers and not ends[-1]:
            ends.pop()  # no whole frame was in it: it is empty now, and the next segment takes its name
        return len(ends) - 1, ends[-1]

    def _cut(self, path: Path, end: int) -> None:
        with told(path, "open"):
            file = self._files.open(path, os.O_RDWR)
        try:
            with told(path, "cut"):
                self.cut_bytes = os.fstat(file).st_size - end
                if self.cut_bytes:
                    self._files.truncate(file, end)
                self._files.fsync(file)  # a process that was killed may have written more than it had synced
        finally:
            os.close(file)

    def _put(self, queued: _Queued, *, urgent: bool = False) -> None:
        if len(queued.payload) > LARGEST_PAYLOAD:
            raise JournalError(f"{self.folder}: a payload of {len(queued.payload):,} bytes; the most is 1 GiB.")
        with self._wake:
            if self.failed is not None:
                raise _again(self.failed)
            if self._closing:
                raise JournalError(f"{self.folder}: this journal is closed. Open it again to append.")
            if not self._queue:
                self._since = time.monotonic()
                self._wake.notify()
            self._queue.append(queued)
            self._waited += queued.waiter is not None
            self.queued_bytes += _bytes(queued)
            self._urgent = self._urgent or urgent
            if self._urgent or self._waited == _FULL_COMMIT:
                self._wake.notify()

    def _write_all(self) -> None:
        batch: list[_Queued] = []
        try:
            while batch := self._take():
                locations = self._commit(batch)
                with self._wake:
                    self.queued_bytes -= sum(map(_bytes, batch))
                _tell(batch, locations)
            self._seal()
        except Exception as error:  # noqa: BLE001  (whatever ends this thread, nobody may wait for it in vain)
            failed = error if isinstance(error, JournalError) else JournalError(f"{self.folder}: {error!r}")
            with self._wake:
                self.failed = failed
                batch, self._queue = batch + self._queue, []
                self.queued_bytes = 0
            _tell(batch, itertools.repeat(failed))
        finally:
            if self._file is not None:
                os.close(self._file)

    def _take(self) -> list[_Queued]:
        """The frames of the next commit; none when the journal is closed and all is written."""
        with self._wake:
            while not (self._queue or self._closing):
                self._wake.wait()
            while not (self._closing or self._urgent) and self._waited < _FULL_COMMIT:
                left = self._since + _LONGEST_S - time.monotonic()
                if left <= 0:
                    break
                self._wake.wait(left)
            batch, self._queue = self._queue, []
            self._waited, self._urgent = 0, False
        return batch

    def _commit(self, batch: list[_Queued]) -> list[Location]:
        frames: list[bytes] = []
        locations = []
        at = 0
        if any(head is not None for head, _, _ in batch) and (self._file is None or self._at >= self._segment_bytes):
            self._begin_segment()
        for head, payload, _ in batch:
            locations.append(Location(self._number, self._at + at))
            if head is not None:
                frames.append(frame_bytes(head, payload, self._durable))
                at += len(frames[-1])
        self._write(b"".join(frames))
        if any(waiter is not None for _, _, waiter in batch):
            self._sync()
        return locations

    def _begin_segment(self) -> None:
        self._sync()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        path = segment_path(self.folder, self._number + 1)
        with told(path, "open"):
            file = self._files.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with self._wake:
            self._file, self._number, self._at, self._durable = file, self._number + 1, 0, 0
        self._write(first_line(self._number))
        self._sync()
        for folder in (self.folder, self.folder.parent):
            with told(folder, "sync"):
                entry = self._files.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    self._files.fsync(entry)
                finally:
                    os.close(entry)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        with told(segment_path(self.folder, self._number), "write"):
            while rest and self._file is not None:
                written = self._files.write(self._file, rest)
                rest = rest[written:]
                self._at += written

    def _sync(self) -> None:
        if self._file is None or self._durable == self._at:
            return
        with told(segment_path(self.folder, self._number), "sync"):
            self._files.fsync(self._file)
        with self._wake:
            self._durable = self._at

    def _seal(self) -> None:
        """Ends a segment with an empty frame that says that all before was durable: a damage there is no torn end."""
        self._sync()
        # All that was asked for is safe by now, with the seal or without.
        with contextlib.suppress(JournalError):
            if self._file is not None:
                self._write(frame_bytes(b"", b"", self._durable))
                self._sync()


def _bytes(queued: _Queued) -> int:
    return len(queued.head or b"") + len(queued.payload)


def _tell(batch: list[_Queued], outcomes: Iterable[_Outcome]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Waiter, _Outcome]]] = {}
    for queued, outcome in zip(batch, outcomes, strict=False):
        if isinstance(queued.waiter, asyncio.Future):
            by_loop.setdefault(queued.waiter.get_loop(), []).append((queued.waiter, outcome))
        elif queued.waiter is not None:
            _end([(queued.waiter, outcome)])
    for loop, ended in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(_end, ended)


def _end(ended: list[tuple[_Waiter, _Outcome]]) -> None:
    for waiter, outcome in ended:
        if waiter.done():  # its task was cancelled
            continue
        if isinstance(outcome, JournalError):
            waiter.set_exception(_again(outcome))
        else:
            waiter.set_result(outcome)


def _again(error: JournalError) -> JournalError:
    """The same error for another who waits: one object raised many times would gather all their tracebacks."""
    again = JournalError(*error.args)
    again.__cause__ = error.__cause__
    return again
