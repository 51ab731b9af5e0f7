"""How files come to be on the disk: durable, whole or not at all, and an error of the disk in words."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import polars as pl

from nscore._tables.stores import Place, StorePath
from nscore.errors import JournalError, StorageError

__all__ = [
    "DISK",
    "FORMAT",
    "FORMAT_KEY",
    "Disk",
    "WholeFile",
    "make_folder",
    "move_whole",
    "sync_files",
    "sync_folder",
    "told",
    "whole_file",
    "write_table",
    "write_whole",
]

# Stands in the metadata of every Parquet file; raised when a table's columns change their meaning.
FORMAT_KEY, FORMAT = "nscore.format", 1

_MENDS = {
    errno.ENOSPC: "Free some space on the disk",
    errno.EDQUOT: "Free some of the disk quota",
    errno.EROFS: "Make the file system writable",
    errno.EACCES: "Make the folder and its files readable and writable",
    errno.EPERM: "Make the folder and its files readable and writable",
    errno.EMFILE: "Allow more open files (`ulimit -n`)",
    errno.ENFILE: "Allow more open files (`sysctl fs.file-max`)",
    errno.EIO: "Check the disk",
}


class Disk:
    """The operations by which files are written; a test may let them fail."""

    def open(self, path: Path, flags: int) -> int:
        """Opens a file, or a folder."""
        return os.open(path, flags, 0o644)

    def write(self, file: int, data: memoryview) -> int:
        """Writes some of the data; gives how many bytes."""
        return os.write(file, data)

    def fsync(self, file: int) -> None:
        """Waits until what was written has reached the disk."""
        os.fsync(file)

    def truncate(self, file: int, size: int) -> None:
        """Cuts a file."""
        os.ftruncate(file, size)

    def replace(self, source: Path, target: Path) -> None:
        """Renames a file, over another if there is one."""
        source.replace(target)

    def mkdir(self, path: Path) -> None:
        """Makes a folder."""
        path.mkdir(exist_ok=True)


DISK = Disk()


@contextlib.contextmanager
def told(path: Path, verb: str, kind: type[JournalError | StorageError] = StorageError) -> Iterator[None]:
    """Turns an error of the operating system into one that names the file and the mend."""
    try:
        yield
    except OSError as error:
        mend = _MENDS.get(error.errno or 0, "Mend this")
        behind = ": it goes on behind what is stored" if kind is JournalError else ""
        raise kind(
            f"{path}: cannot {verb} it: {error.strerror or error}. {mend}, then run the same command again{behind}."
        ) from error


def make_folder(path: Place, kind: type[JournalError | StorageError] = StorageError, disk: Disk | None = None) -> None:
    """Makes a folder and those above it, if they are not there; they stay there after a loss of power. A store has none."""
    if isinstance(path, StorePath):
        return
    disk = disk or DISK
    with told(path, "make", kind):
        for folder in reversed([each for each in (path, *path.parents) if not each.exists()]):
            disk.mkdir(folder)
            _sync_folder(folder.parent, disk)


class WholeFile:
    """A file that is being written under another name; Polars writes to it as to any binary file.

    Attributes:
        failed: the error that ended the writing, if one did.
    """

    def __init__(self, file: int, disk: Disk) -> None:
        self.failed: OSError | None = None
        self._file, self._disk, self._hash = file, disk, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        """Writes all of the data."""
        rest = view = memoryview(data)
        try:
            while rest:
                rest = rest[self._disk.write(self._file, rest) :]
        except OSError as error:
            self.failed = error  # Polars tells of it without its number
            raise
        self._hash.update(view)
        return len(view)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """`whole_file` closes it."""

    @property
    def sha256(self) -> str:
        """Of what was written."""
        return self._hash.hexdigest()


@contextlib.contextmanager
def whole_file(path: Place, *, durable: bool = True) -> Iterator[WholeFile]:
    """A file that appears under its name when it is whole and, unless that is left to `sync_files`, durable.

    What goes to a store is written on this machine first, and is uploaded when it is whole.

    Raises:
        StorageError: if the disk, or the store, does not do it.
    """
    if isinstance(path, StorePath):
        with tempfile.TemporaryDirectory(prefix="nscore-") as folder:
            copy = Path(folder, "object")
            with whole_file(copy, durable=False) as out:
                yield out
            path.upload(copy)
        return
    disk = DISK
    part = path.with_name(f".{path.name}.part")
    with told(path, "write"):
        file = disk.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            out = WholeFile(file, disk)
            try:
                yield out
            except pl.exceptions.PolarsError as error:
                raise out.failed or error from error
            if durable:
                disk.fsync(file)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
        finally:
            os.close(file)
        disk.replace(part, path)
        _sync_folder(path.parent, disk)


def move_whole(source: Path, target: Path) -> None:
    """Gives a whole, durable file another name on the same disk, over another if there is one.

    Raises:
        StorageError: if the disk does not do it.
    """
    with told(target, "write"):
        DISK.replace(source, target)
        _sync_folder(target.parent, DISK)


def write_whole(path: Place, content: bytes) -> str:
    """Writes a file, whole or not at all; gives its SHA-256."""
    with whole_file(path) as out:
        out.write(content)
    return out.sha256


def write_table(
    path: Place,
    frame: pl.DataFrame | pl.LazyFrame,
    *,
    durable: bool = True,
    at_once: int | None = None,
    compression: Literal["zstd", "lz4"] = "zstd",
) -> str:
    """Writes a table as Parquet, whole or not at all; gives its SHA-256. See `whole_file`.

    The same rows give the same bytes, however the frame's memory is cut into chunks. `at_once` rows of a lazy one are held,
    and become a row group; as many as Polars likes, if left out.
    """
    metadata = {FORMAT_KEY: str(FORMAT)}
    with whole_file(path, durable=durable) as out:
        if isinstance(frame, pl.DataFrame):
            frame.rechunk().write_parquet(out, metadata=metadata, compression=compression)  # type: ignore[arg-type]
        else:
            frame.sink_parquet(out, metadata=metadata, row_group_size=at_once, compression=compression)  # type: ignore[call-overload]
    return out.sha256


def sync_files(files: Iterable[Path]) -> None:
    """Makes files durable that were written without waiting for it."""
    for path in files:
        with told(path, "sync"):
            file = DISK.open(path, os.O_RDONLY)
            try:
                DISK.fsync(file)
            finally:
                os.close(file)


def sync_folder(path: Path, kind: type[JournalError | StorageError] = StorageError, disk: Disk | None = None) -> None:
    """Makes the names in a folder durable."""
    with told(path, "sync", kind):
        _sync_folder(path, disk or DISK)


def _sync_folder(path: Path, disk: Disk) -> None:
    folder = disk.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        disk.fsync(folder)
    finally:
        os.close(folder)
