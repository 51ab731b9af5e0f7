"""Lines of a file, packed with gzip or not, one after another: of a large file, a broken one, a bomb no more is held."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from nscore.importers._places import SourceFile

__all__ = ["lines"]

PIECE = 1 << 20
LONGEST_LINE = 16 << 20
# No text of tokens and numbers is packed so tightly: what is, once it is large, is meant to fill a memory or a disk.
EXPANSION, LARGE = 200, 64 << 20
MAGIC = b"\x1f\x8b"


def lines(file: SourceFile) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, each with its number from 1; what is packed is known by its first bytes.

    Raises:
        SourceError: if it cannot be read, is cut off or damaged, a line is longer than 16 MiB, or far more comes out of
            it than can be meant; it names the line.
    """
    number, begun = 0, b""
    with file.open() as raw:
        pieces = _pieces(file, raw)
        while True:
            try:
                piece = next(pieces, b"")
            except _Broken as broken:
                raise file.fault(broken.found, place=f"line {number + 1}", mend=broken.mend) from broken.__cause__
            if not piece:
                break
            whole = piece.split(b"\n")
            whole[0] = begun + whole[0]
            if len(whole[0]) > LONGEST_LINE:
                raise file.fault(
                    f"longer than {LONGEST_LINE:,} bytes",
                    place=f"line {number + 1}",
                    mend="Expected one JSON object a line; see whether the file is JSON lines.",
                )
            begun = whole.pop()
            for line in whole:
                number += 1
                if line and not line.isspace():
                    yield number, line
    if begun and not begun.isspace():
        yield number + 1, begun


class _Broken(Exception):  # noqa: N818  (no error of nscore's: it becomes one where the line is known)
    def __init__(self, found: str, mend: str) -> None:
        super().__init__(found)
        self.found, self.mend = found, mend


def _pieces(file: SourceFile, raw: BinaryIO) -> Iterator[bytes]:
    packed = raw.read(len(MAGIC)) == MAGIC
    raw.seek(0)
    if not packed and file.path.partition("?")[0].endswith(".gz"):
        raise _Broken("not packed with gzip, as its name says it is", _AGAIN)
    stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if packed else raw
    size = 0
    while True:
        try:
            piece = stream.read(PIECE)
        except EOFError as error:
            raise _Broken("cut off: the packed data end too early", _AGAIN) from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise _Broken(f"damaged: {error}", _AGAIN) from error
        except OSError as error:
            raise _Broken(f"cannot be read: {error.strerror or error}", _AGAIN) from error
        if not piece:
            return
        size += len(piece)
        if packed and size > max(LARGE, EXPANSION * raw.tell()):
            raise _Broken(
                f"decompression bomb: {size:,} bytes came out of the first {raw.tell():,}",
                "If that is meant, unpack it (gunzip), and import what comes out.",
            )
        yield piece


_AGAIN = "Download it again, or leave it out (--on-error skip)."
