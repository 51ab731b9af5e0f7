"""Reads what Parquet says of itself, without reading what it holds: its footer, and the headers of its pages.

They are structs in Thrift's compact protocol. Whatever is wrong with one is an error of Python's: of a number, an index,
a type.
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any, NamedTuple

__all__ = ["Headers", "Pages", "struct"]


# Fields of a footer, of a row group in it, of a chunk of a column, of what the chunk says of itself, of a page.
FILE_ROWS, ROW_GROUPS = 3, 4
CHUNKS, GROUP_ROWS = 1, 3
ABOUT = 3
N_VALUES, COMPRESSED, DATA_AT, DICTIONARY_AT = 5, 7, 9, 11
PAGE_OUT, PAGE_IN, DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_2, PAGE_VALUES = 2, 3, 5, 7, 8, 1
LEVELS, ENCODING, ENCODING_2 = (5, 6), 2, 4
# Texts of which only what differs from the text before is written.
SHARED_PREFIXES = 7

LONGEST_LIST = 1_000_000
# How much is read for the header of a page, and at once where pages are small.
HEADER_BYTES, AHEAD_BYTES, SMALL_BYTES = 512, 1 << 14, 1 << 12
# Old writers leave the header of the dictionary out of a chunk's length.
SLACK = 100


def _pattern(words: bytes, **named: bytes) -> bytes:
    """A pattern with others in place of their names: N is a number, S a text of up to 32 bytes."""
    short = b"|".join(rb"\x%02x[\s\S]{%d}" % (n, n) for n in range(33))
    for name, pattern in {**named, "N": rb"(?:[\x80-\xff]{0,9}[\x00-\x7f])", "S": b"(?:" + short + b")"}.items():
        words = words.replace(name.encode(), pattern)
    return words


# What nearly all writers write, in their order of fields, so that little is walked field by field. The header of a
# page: what comes out of it, what is in it, how many values, of data or of a dictionary. The description of a chunk:
# how many values, the bytes of its pages, where they are and where its dictionary is.
_STATISTICS = rb"(?:[\x18\x28\x38\x48\x58]S|[\x15\x16\x25\x26\x35\x36\x45\x46]N|[\x11\x12\x21\x22]){0,8}\x00"
_PAGE = re.compile(
    _pattern(
        rb"\x15[\x00-\x06]\x15(N)\x15(N)(?:\x2c\x15(N)\x15(N)\x15N\x15N(?:\x1cT)?|\x4c\x15(N)\x15N[\x11\x12]?)\x00\x00",
        T=_STATISTICS,
    )
)
_CHUNK = re.compile(
    _pattern(
        rb"\x26N\x1c\x15N\x19(?:E)\x19(?:\x18S|\x28SS|\x38SSS)\x15N\x16(N)\x16N\x16(N)\x26(N)(?:\x26(N))?"
        rb"(?:[\x1c\x3c]T)?(?:[\x19\x29\x49](?:P))?(?:\x3c(?:\x16N)?(?:[\x19\x29](?:H)){0,2}\x00)?\x00"
        rb"(?:\x16N\x15N)?(?:[\x16\x36]N\x15N)?\x00",
        T=_STATISTICS,
        E=b"|".join(rb"\x%d5N{%d}" % (n, n) for n in range(1, 7)),
        P=b"|".join(rb"\x%dc(?:\x15N\x15N\x15N\x00){%d}" % (n, n) for n in range(1, 7)),
        H=b"|".join(rb"\x%d6N{%d}" % (n, n) for n in range(7)),
    )
)


class Pages(NamedTuple):
    """What pages say: their values, the bytes that come out of them, and of texts the longest that can be in them.

    `longest` is 0 where each text is written out where it stands: then `out` tells.
    """

    values: int
    out: int
    longest: int
    shared: bool


class Headers:
    """The bytes of a file, read where the headers of pages are; many at once where pages are small."""

    def __init__(self, content: int, end: int) -> None:
        self._content, self._end = content, end
        self._data, self._start, self._safe = b"", 0, -1

    def pages(self, at: int, stop: int) -> Pages:
        """What the pages of a chunk say they hold."""
        values = out = longest = 0
        shared = False
        last = min(stop + SLACK, self._end)
        ahead = HEADER_BYTES if stop - at > SMALL_BYTES else AHEAD_BYTES
        while at < stop:
            if not self._start <= at <= self._safe:
                self._read(at, ahead)
            if usual := _PAGE.match(self._data, at - self._start):
                a, b, c, d, e = usual.groups(b"\0")
                unpacked, packed, data, encoding, others = _quick(a), _quick(b), _quick(c), _quick(d), _quick(e)
                at += usual.end() - usual.start() + packed
            else:
                unpacked, packed, data, encoding, others, length = self._walked(at)
                at += length + packed
            if unpacked < 0 or packed < 0 or at > last:
                raise ValueError("a page is longer than its column")
            if data < 0 or not 0 <= others <= unpacked:
                raise ValueError(f"a page of {unpacked:,} bytes says it holds {data + others:,} values")
            values += data
            out += unpacked
            if others:
                longest = max(longest, unpacked - 4 * others)
            elif encoding == SHARED_PREFIXES:
                longest, shared = max(longest, unpacked), True
        return Pages(values, out, longest, shared)

    def _read(self, at: int, ahead: int) -> None:
        self._data, self._start = os.pread(self._content, min(ahead, self._end - at), at), at
        whole = at + ahead >= self._end
        self._safe = self._end if whole else at + ahead - HEADER_BYTES

    def _walked(self, at: int) -> tuple[int, int, int, int, int, int]:
        """What the header of a page says, and its own length."""
        ahead = HEADER_BYTES
        while True:
            try:
                page, after = struct(self._data, at - self._start)
                break
            except IndexError:
                if ahead > self._end - at:
                    raise
                ahead *= 16  # a long text among its statistics
                self._read(at, ahead)
        length = after - (at - self._start)
        held = [page[kind][PAGE_VALUES] for kind in (DATA_PAGE, DATA_PAGE_2) if kind in page]
        others = page[DICTIONARY_PAGE][PAGE_VALUES] if DICTIONARY_PAGE in page else 0
        levels = [page[DATA_PAGE_2][field] for field in LEVELS] if DATA_PAGE_2 in page else [0]
        if len(held) > 1 or min(levels) < 0 or sum(levels) > page[PAGE_IN]:
            raise ValueError("a page is of two kinds, or shorter than its levels")
        first = page.get(DATA_PAGE, {}).get(ENCODING, 0)
        encoding = page.get(DATA_PAGE_2, {}).get(ENCODING_2, first)
        return page[PAGE_OUT], page[PAGE_IN], sum(held), encoding, others, length


def struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct in Thrift's compact protocol as its fields, and where it ends; texts are passed over.

    Integers are read in place: a call for each would double the time.
    """
    fields: dict[int, Any] = {}
    field = 0
    while head := data[at]:
        at += 1
        if head > 15:
            field += head >> 4
        else:
            field, at = _integer(data, at)
        if field in fields:
            raise ValueError("its footer says one thing twice")
        kind = head & 15
        if 4 <= kind <= 6 or kind == 8:
            n = data[at]
            at += 1
            if n > 127:
                n &= 127
                shift = 7
                while (byte := data[at]) > 127:
                    n |= (byte & 127) << shift
                    shift += 7
                    at += 1
                n |= byte << shift
                at += 1
            if kind == 8:
                fields[field] = None
                at += n
            else:
                fields[field] = (n >> 1) ^ -(n & 1)
        elif kind < 3:
            fields[field] = None
        elif kind == 12:
            fields[field], at = struct(data, at)
        else:
            fields[field], at = _value(data, at, kind)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in {9, 10}:
        head = data[at]
        n, at = (head >> 4, at + 1) if head < 0xF0 else _varint(data, at + 1)
        kind = head & 15
        if n > LONGEST_LIST:
            raise ValueError(f"it says that a list has {n:,} items")
        items: list[Any] = []
        for _ in range(n):
            if kind == 12 and (usual := _CHUNK.match(data, at)):
                values, taken, first, dictionary = usual.groups(b"\0")
                about = {N_VALUES: _quick(values), COMPRESSED: _quick(taken), DATA_AT: _quick(first)}
                item, at = {ABOUT: about | {DICTIONARY_AT: _quick(dictionary)}}, usual.end()
            else:
                item, at = struct(data, at) if kind == 12 else _value(data, at, kind)
            items.append(item)
        return items, at
    if kind == 12:
        return struct(data, at)
    if 4 <= kind <= 6:
        return _integer(data, at)
    if kind == 8:
        n, at = _varint(data, at)
        return None, at + n
    # a flag in a list, a byte, a double, a UUID; there is no map in a footer
    return None, at + {1: 1, 2: 1, 3: 1, 7: 8, 13: 16}[kind]


@functools.lru_cache(1 << 12)
def _quick(number: bytes) -> int:
    """An integer that stands alone; at once if it is short, as nearly all are."""
    if len(number) > 4:
        return _integer(number, 0)[0]
    n = int.from_bytes(number, "little")
    n = n & 0x7F | n >> 1 & 0x3F80 | n >> 2 & 0x1FC000 | n >> 3 & 0xFE00000
    return (n >> 1) ^ -(n & 1)


def _integer(data: bytes, at: int) -> tuple[int, int]:
    n, at = _varint(data, at)
    return (n >> 1) ^ -(n & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    n = data[at] & 127
    shift = 0
    while data[at] > 127:
        at += 1
        shift += 7
        n |= (data[at] & 127) << shift
    return n, at + 1
