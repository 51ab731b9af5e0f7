"""The leash of a run's workers: they work as long as the session that started them holds it, wherever they are.

It is a lock on a file below the run's folder, which the system gives back however the session ends, and in the file a word
that only this session knows: one that comes after it holds the same lock with another word.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from pathlib import Path

from nscore._sending.history import JOURNALS, journals_of
from nscore._sending.journal import locked
from nscore._tables import disk as _disk
from nscore._tables.disk import make_folder, told
from nscore.errors import JournalError

__all__ = ["Leash", "is_held"]

# Workers look a few times a second whether it is held, and then end what they do.
LOOK_S, PATIENCE_S = 0.2, 15.0


class Leash:
    """Takes the leash of a run, and waits for the end of the workers of an earlier session.

    Args:
        path: the folder of the run, whose journal is locked already.

    Attributes:
        word: what its workers know it by.

    Raises:
        JournalError: if a worker of an earlier session goes on and on.
    """

    def __init__(self, path: Path) -> None:
        make_folder(path / JOURNALS, JournalError)
        self.word = secrets.token_hex(16)
        self._lock: int | None = _locked(path / JOURNALS / "lock", self.word)
        try:
            for folder in journals_of(path):
                os.close(_awaited(folder))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Lets go: the workers end, and what they were answered is kept."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def is_held(path: Path, word: str) -> bool:
    """Whether the session that knows this word goes on; `path` is the folder of its run."""
    try:
        file = os.open(path / JOURNALS / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        if os.pread(file, 64, 0).decode(errors="replace") != word:
            return False
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def _locked(path: Path, word: str) -> int:
    """Takes the lock, for which workers may be looking just now, and writes the word."""
    disk, end = _disk.DISK, time.monotonic() + PATIENCE_S
    with told(path, "open", JournalError):
        lock = disk.open(path, os.O_RDWR | os.O_CREAT)
    try:
        with told(path, "lock", JournalError):
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.01)
            disk.truncate(lock, 0)
            disk.write(lock, memoryview(word.encode()))
    except BaseException:
        os.close(lock)
        raise
    return lock


def _awaited(folder: Path) -> int:
    """The lock of a shard's journal, when whoever has it has let go."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return locked(folder, _disk.DISK)
        except JournalError as error:
            if not isinstance(error.__cause__, BlockingIOError) or time.monotonic() > end:
                raise
            time.sleep(LOOK_S / 2)
