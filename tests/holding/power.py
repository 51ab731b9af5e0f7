"""A disk whose calls are written down, and what a loss of power may leave of them.

What was synced is there. Of the rest, each write is there, or is not, or up to some sector, or as zeros of its length;
names that were made or changed since their folder was synced may or may not be, in the order of their making.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from nscore._tables.disk import Disk

SECTOR = 512


@dataclass(eq=False)
class Inode:
    """A file: what was done to it, in order; the calls are numbered through the whole log."""

    done: list[tuple[int, str, int, bytes]] = field(default_factory=list)
    size: int = 0


class Recording(Disk):
    """A disk that writes down all that it is told, and what was acknowledged."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._files: dict[int, tuple[Inode | None, Path, bool]] = {}
        self._places: dict[int, int] = {}
        self.inodes: dict[Path, Inode] = {}
        self.names: list[tuple[int, str, Path, object]] = []
        self.synced: list[tuple[int, Path]] = []
        self.acknowledged: list[tuple[int, str]] = []
        self.length = 0

    def _next(self):
        self.length += 1
        return self.length

    def acknowledge(self, key):
        """Somebody was told that this is stored."""
        with self._lock:
            self.acknowledged.append((self._next(), key))

    def open(self, path, flags):
        with self._lock:
            file = super().open(path, flags)
            if flags & os.O_DIRECTORY:
                self._files[file] = None, path, False
                return file
            if path not in self.inodes:
                self.inodes[path] = Inode()
                self.names.append((self._next(), "make", path, self.inodes[path]))
            inode = self.inodes[path]
            if flags & os.O_TRUNC and inode.size:
                inode.done.append((self._next(), "truncate", 0, b""))
                inode.size = 0
            self._files[file] = inode, path, bool(flags & os.O_APPEND)
            self._places[file] = 0
            return file

    def write(self, file, data):
        with self._lock:
            written = super().write(file, data)
            inode, _, appends = self._files[file]
            at = inode.size if appends else self._places[file]
            inode.done.append((self._next(), "write", at, bytes(data[:written])))
            self._places[file] = at + written
            inode.size = max(inode.size, at + written)
            return written

    def fsync(self, file):
        with self._lock:
            super().fsync(file)
            inode, path, _ = self._files[file]
            if inode is None:
                self.synced.append((self._next(), path))
            else:
                inode.done.append((self._next(), "sync", 0, b""))

    def truncate(self, file, size):
        with self._lock:
            super().truncate(file, size)
            inode = self._files[file][0]
            inode.done.append((self._next(), "truncate", size, b""))
            inode.size = size

    def replace(self, source, target):
        with self._lock:
            super().replace(source, target)
            self.inodes[target] = self.inodes.pop(source)
            self.names.append((self._next(), "replace", target, (source, self.inodes[target])))

    def mkdir(self, path):
        with self._lock:
            super().mkdir(path)
            self.names.append((self._next(), "mkdir", path, None))


def after_power_loss(log: Recording, at: int, rng, root: Path, target: Path):
    """Makes a folder like `root` as a loss of power after call `at` may leave it."""
    there: dict[Path, Inode | None] = {root: None}
    cut: dict[Path, bool] = {}
    for number, what, path, more in log.names:
        if number > at:
            break
        folder = path.parent
        durable = any(number < when <= at and synced == folder for when, synced in log.synced)
        # names that are not durable are lost from some point on, each folder for itself
        cut[folder] = cut.get(folder, False) or (not durable and rng.random() < 0.5)
        if cut[folder] and not durable:
            continue
        if what == "replace":
            source, inode = more
            there.pop(source, None)
            there[path] = inode
        else:
            there[path] = more
    for path, inode in sorted(there.items(), key=lambda item: len(item[0].parts)):
        if path.parent not in there and path != root:
            continue
        place = target / path.relative_to(root)
        if inode is None:
            place.mkdir(exist_ok=True)
        elif place.parent.is_dir():
            place.write_bytes(content(inode, at, rng))


def content(inode: Inode, at: int, rng) -> bytes:
    """What may be in a file."""
    calls = [call for call in inode.done if call[0] <= at]
    last = max((i for i, call in enumerate(calls) if call[1] == "sync"), default=-1)
    found = bytearray()
    for i, (_, what, place, data) in enumerate(calls):
        fate = "kept" if i < last else rng.choice(["kept", "lost", "torn", "zeros"])
        if what == "truncate" and fate == "kept":
            del found[place:]
        if what != "write" or fate == "lost":
            continue
        whole = len(data) if fate != "torn" else rng.randrange(len(data) + 1) // SECTOR * SECTOR
        left = bytes(whole) if fate == "zeros" else data[:whole]
        found.extend(bytes(max(0, place - len(found))))
        found[place : place + whole] = left
    return bytes(found)
