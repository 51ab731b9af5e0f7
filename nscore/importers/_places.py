"""Where files lie: on this machine, behind http(s), in an object store; they are listed in the order of their numbers."""

from __future__ import annotations

import errno
import glob
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import pyarrow.fs  # type: ignore[import-untyped]

from nscore._tables.stores import StorePath, is_in_store, said_of, shown
from nscore.errors import SourceError

__all__ = ["SourceFile", "listed"]

LARGEST_DOWNLOAD = 1 << 34


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of another system.

    Attributes:
        path: a path on this machine, or an address; of an address, without what follows the `?`.
        size: its bytes, where that was to be had for nothing.
        query: that, such as `?region=eu-west-1`; it may hold a key or a signature, and is shown nowhere.
    """

    path: str
    size: int = 0
    query: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return "://" not in self.path

    def read(self) -> bytes:
        """All of its bytes.

        Raises:
            SourceError: if they cannot be had.
        """
        try:
            return _content(self.path, self.query)
        except OSError as error:
            raise self._unreadable(error.strerror or said_of(error)) from (error if self.is_local else None)
        except (ValueError, pyarrow.ArrowException) as error:
            if isinstance(error, SourceError):
                raise
            raise self._unreadable(f"{type(error).__name__}: {said_of(error)}") from (error if self.is_local else None)

    def open(self) -> BinaryIO:
        """Its bytes as a stream; those of a file that is not on this machine are fetched before.

        Raises:
            SourceError: if they cannot be had.
        """
        if not self.is_local:
            return io.BytesIO(self.read())
        try:
            return Path(self.path).open("rb")
        except (OSError, ValueError) as error:
            raise self._unreadable(getattr(error, "strerror", None) or str(error)) from error

    def beside(self, name: str) -> SourceFile | None:
        """The file of a name in the same folder; None where there is none. Only for files on this machine and in stores."""
        path = self.path.rpartition("/")[0] + "/" + name if "/" in self.path else name
        if self.is_local:
            return SourceFile(path) if Path(path).is_file() else None
        store, inner = _store(path + self.query)
        return SourceFile(path, query=self.query) if store.get_file_info(inner).type == _FILE else None

    def fault(self, found: str, *, place: str = "", mend: str = "") -> SourceError:
        """What to raise where the file is not what it should be; `place` says where in it."""
        return SourceError(shown(self.path), found, place=place, mend=mend)

    def _unreadable(self, why: str) -> SourceError:
        return self.fault(f"cannot be read: {why}", mend="See whether the path is right and may be read.")


def listed(paths: Sequence[str | Path], wants: Callable[[str], bool]) -> list[SourceFile]:
    """The files under some paths: files as they are named; of folders, those that are wanted, at any depth.

    Local paths may be globs; `s3://`, `gs://`, `az://` folders are looked through, `http(s)://` names one file.
    They come in the order of the paths, within a folder by their names, numbers in these as numbers.

    Raises:
        SourceError: if there is nothing.
    """
    found: list[SourceFile] = []
    for given in paths:
        path = str(given).removeprefix("file://")
        here = list(_under(path, wants))
        if not here:
            raise SourceFile(path.partition("?")[0] if "://" in path else path).fault(
                "no file of this format is there",
                mend="Check the path (a file, a folder, a glob in quotes, or an address) and the format.",
            )
        found += here
    return list({(file.path, file.query): file for file in found}.values())


def _under(path: str, wants: Callable[[str], bool]) -> Iterator[SourceFile]:
    if path.startswith(("http://", "https://")):
        address, mark, rest = path.partition("?")
        yield SourceFile(address, query=mark + rest)
        return
    if "://" in path:
        yield from _in_store(path, wants)
        return
    there = [path] if os.path.lexists(path) else sorted(glob.glob(path, recursive=True), key=_by_number)  # noqa: PTH207
    for each in there:
        if Path(each).is_dir():
            files = [entry for entry in _walked(each) if wants(entry.path)]
            yield from sorted(files, key=lambda file: _by_number(file.path))
        else:
            yield SourceFile(each, Path(each).stat().st_size if Path(each).exists() else 0)


def _walked(folder: str) -> Iterator[SourceFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walked(entry.path)
            elif entry.is_file():
                yield SourceFile(entry.path, entry.stat().st_size)


def _in_store(address: str, wants: Callable[[str], bool]) -> Iterator[SourceFile]:
    path, mark, rest = address.partition("?")
    query = mark + rest
    try:
        store, inner = _store(address)
        info = store.get_file_info(inner)
        if info.type == _FILE:
            yield SourceFile(path, info.size, query)
            return
        entries = store.get_file_info(pyarrow.fs.FileSelector(inner, recursive=True, allow_not_found=True))
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        mend = "See whether the address and the keys are right."
        raise SourceFile(path).fault(f"cannot be listed: {said_of(error)}", mend=mend) from None
    head = path.removesuffix("/").removesuffix(inner.removesuffix("/"))
    files = [each for each in entries if each.type == _FILE and wants(each.path)]
    for each in sorted(files, key=lambda e: _by_number(e.path)):
        yield SourceFile(head + each.path, each.size, query)


_FILE = pyarrow.fs.FileType.File


def _store(address: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """As tables are found; an address here may also hold options and keys, as pyarrow takes them."""
    if is_in_store(address) and not re.search("[?@]", address):
        return StorePath(address).opened()
    store, inner = pyarrow.fs.FileSystem.from_uri(address)
    return store, inner


def _content(path: str, query: str) -> bytes:
    if "://" not in path:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (thousands of files a second)
            return file.readall()
    if urlsplit(path).scheme in {"http", "https"}:
        # a client of HTTP takes a fifth as long to import as all else, in each process, and few files are fetched
        from nscore._sending.fetching import fetched  # noqa: PLC0415
        from nscore._sending.loop import run_to_end  # noqa: PLC0415

        content = run_to_end(lambda: fetched(path + query, largest=LARGEST_DOWNLOAD))
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "status 404: there is no such file")
        return content
    store, inner = _store(path + query)
    with store.open_input_file(inner) as stream:
        return bytes(stream.read())


def _by_number(path: str) -> list[tuple[int, int, str]]:
    """A key under which `9.json` comes before `10.json`."""
    pieces = re.split(r"([0-9]+)", path)
    return [(1, int(piece), "") if i % 2 else (0, 0, piece) for i, piece in enumerate(pieces)]
