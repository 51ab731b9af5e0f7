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

from nscore._sending.segments import (
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
)
from nscore._tables import disk as _disk
from nscore._tables.disk import Disk, make_folder, sync_folder, told
from nscore.errors import JournalError

__all__ = ["Entry", "Journal", "JournalReader", "Location", "locked"]

_FULL_COMMIT = 64
_LONGEST_S = 0.02


_Waiter = concurrent.futures.Future[Location] | asyncio.Future[Location]
_Outcome = Location | JournalError


class _Queued(NamedTuple):
    head: bytes | None  # None: no frame, somebody only waits for those before
    payload: bytes
    waiter: _Waiter | None
    durable: bool = True  # what is waited for; else that it is written


class Journal(JournalReader):
    """An append-only, checksummed log of what a run sent and was answered.

    One thread writes. Frames that somebody needs written are written at once; those that somebody needs durable wait
    until there are 64 of them or 20 ms have passed, and share a sync (fsync). After an error nothing more is appended:
    what was durable stays, and a journal opened anew goes on behind it.

    Args:
        folder: where the segments lie; made if it is not there, and locked until `close`.
        segment_bytes: after how many bytes a new segment begins.
        disk: the operations on files.

    Attributes:
        cut_bytes: how many bytes of a torn end were cut off when it was opened.
        failed: the error that ended the writing, if one did.
        queued_bytes: heads and payloads that were queued and are not written yet.

    Raises:
        JournalError: another journal works on this folder, it cannot be written, or it is damaged elsewhere than at
            its torn end.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = 256 << 20, disk: Disk | None = None) -> None:
        self.cut_bytes = 0
        self.failed: JournalError | None = None
        self.queued_bytes = 0
        self._disk = _disk.DISK if disk is None else disk
        self._segment_bytes = segment_bytes
        self._file: int | None = None
        self._wake = threading.Condition()
        self._queue: list[_Queued] = []
        self._unsynced: list[tuple[_Queued, Location]] = []
        self._waited = 0  # how many wait for a sync
        self._since = 0.0  # when the first of what is not written or not synced came
        self._hurry = self._at_once = self._closing = False
        make_folder(folder, JournalError, self._disk)
        super().__init__(folder)
        self._lock = locked(folder, self._disk)
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

        `at_once` does not wait for others to share the sync, as something else waits for this.
        """
        waiter: asyncio.Future[Location] = asyncio.get_running_loop().create_future()
        self._put(_Queued(msgspec.json.encode(head), payload, waiter), at_once=at_once)
        return await waiter

    async def write(self, head: dict[str, object]) -> Location:
        """Appends a frame and waits until it is written: the end of this process cannot undo it, a loss of power can."""
        waiter: asyncio.Future[Location] = asyncio.get_running_loop().create_future()
        self._put(_Queued(msgspec.json.encode(head), b"", waiter, durable=False))
        return await waiter

    def note(self, head: dict[str, object]) -> None:
        """Queues a frame for which nobody waits: written within 20 ms, durable with the next that is waited for."""
        self._put(_Queued(msgspec.json.encode(head), b"", None))

    def flush(self) -> None:
        """Waits until all that was queued is durable."""
        waiter = concurrent.futures.Future[Location]()
        waiter.set_running_or_notify_cancel()
        self._put(_Queued(None, b"", waiter), at_once=True)
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
        with told(path, "open", JournalError):
            file = self._disk.open(path, os.O_RDWR)
        try:
            with told(path, "cut", JournalError):
                self.cut_bytes = os.fstat(file).st_size - end
                if self.cut_bytes:
                    self._disk.truncate(file, end)
                self._disk.fsync(file)  # a process that was killed may have written more than it had synced
        finally:
            os.close(file)

    def _put(self, queued: _Queued, *, at_once: bool = False) -> None:
        if len(queued.payload) > LARGEST_PAYLOAD:
            raise JournalError(f"{self.folder}: a payload of {len(queued.payload):,} bytes; the most is 1 GiB.")
        with self._wake:
            if self.failed is not None:
                raise _again(self.failed)
            if self._closing:
                raise JournalError(f"{self.folder}: this journal is closed. Open it again to append.")
            first = not (self._queue or self._unsynced)
            if first:
                self._since = time.monotonic()
            self._queue.append(queued)
            self._waited += queued.waiter is not None and queued.durable
            self.queued_bytes += _bytes(queued)
            self._hurry = self._hurry or not queued.durable
            self._at_once = self._at_once or at_once
            if first or self._hurry or self._at_once or self._waited == _FULL_COMMIT:
                self._wake.notify()

    def _write_all(self) -> None:
        batch: list[_Queued] = []
        try:
            while (taken := self._take()) is not None:
                batch, sync = taken
                self._commit(batch, sync=sync)
                batch = []
            self._seal()
        except Exception as error:  # noqa: BLE001  (whatever ends this thread, nobody may wait for it in vain)
            failed = error if isinstance(error, JournalError) else JournalError(f"{self.folder}: {error!r}")
            with self._wake:
                self.failed = failed
                waiting = [queued for queued, _ in self._unsynced] + batch + self._queue
                self._queue, self._unsynced = [], []
                self.queued_bytes = 0
            _tell(waiting, itertools.repeat(failed))
        finally:
            if self._file is not None:
                os.close(self._file)

    def _take(self) -> tuple[list[_Queued], bool] | None:
        """The frames to write now, and whether to sync; None when the journal is closed and all is done."""
        with self._wake:
            while True:
                left = self._since + _LONGEST_S - time.monotonic() if self._queue or self._unsynced else None
                if self._closing and left is None:
                    return None
                due = self._closing or self._at_once or self._waited >= _FULL_COMMIT or (left is not None and left <= 0)
                if due or self._hurry:
                    break
                self._wake.wait(left)
            batch, self._queue = self._queue, []
            self._hurry = False
            if due:
                self._at_once, self._waited, self._since = False, 0, time.monotonic()
            return batch, due

    def _commit(self, batch: list[_Queued], *, sync: bool) -> None:
        frames: list[bytes] = []
        locations = []
        at = 0
        if any(queued.head is not None for queued in batch) and (self._file is None or self._at >= self._segment_bytes):
            self._begin_segment()
        for queued in batch:
            locations.append(Location(self._number, self._at + at))
            if queued.head is not None:
                frames.append(frame_bytes(queued.head, queued.payload, self._durable))
                at += len(frames[-1])
        self._write(b"".join(frames))
        both = list(zip(batch, locations, strict=True))
        with self._wake:
            self.queued_bytes -= sum(map(_bytes, batch))
            self._unsynced += [(q, at) for q, at in both if q.waiter is not None and q.durable]
        written = [(q, at) for q, at in both if not q.durable]
        _tell([q for q, _ in written], (at for _, at in written))
        if sync and self._unsynced:
            self._sync()
            with self._wake:
                told_, self._unsynced = self._unsynced, []
            _tell([q for q, _ in told_], (at for _, at in told_))

    def _begin_segment(self) -> None:
        self._sync()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        path = segment_path(self.folder, self._number + 1)
        with told(path, "open", JournalError):
            file = self._disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with self._wake:
            self._file, self._number, self._at, self._durable = file, self._number + 1, 0, 0
        self._write(first_line(self._number))
        self._sync()
        for folder in (self.folder, self.folder.parent):
            sync_folder(folder, JournalError, self._disk)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        with told(segment_path(self.folder, self._number), "write", JournalError):
            while rest and self._file is not None:
                written = self._disk.write(self._file, rest)
                rest = rest[written:]
                self._at += written

    def _sync(self) -> None:
        if self._file is None or self._durable == self._at:
            return
        with told(segment_path(self.folder, self._number), "sync", JournalError):
            self._disk.fsync(self._file)
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


def locked(folder: Path, disk: Disk) -> int:
    """Takes the lock of a journal; closing the file that is given, or the end of the process, gives it back.

    Raises:
        JournalError: another process has it.
    """
    path = folder / "lock"
    with told(path, "open", JournalError):
        lock = disk.open(path, os.O_RDWR | os.O_CREAT)
    try:
        with told(path, "lock", JournalError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            disk.truncate(lock, 0)
            disk.write(lock, memoryview(str(os.getpid()).encode()))
    except JournalError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace") or "which has just begun"
        os.close(lock)
        if not isinstance(error.__cause__, BlockingIOError):
            raise
        raise JournalError(
            f"{folder}: another process ({holder}) works on this run. Wait until it is done, or end it."
        ) from error.__cause__
    return lock


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
