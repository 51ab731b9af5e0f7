"""Which token of a reply stands at a place of the prompt, found by laying the tokens over it, however spelled."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise, product
from typing import AnyStr, NamedTuple

__all__ = ["Found", "locate"]

_PART, _SPACE = "\ufffd", "▁"
# A text has no more tokens than bytes; so many may stand around it, most of them thinking.
_AROUND = 1 << 18
# What a search may take before it is given up: a fifth of a gigabyte, a few seconds. An echo takes one or two a token.
_MOST_STEPS = 1 << 19
_INNER = bytes(range(0x80, 0xC0))  # those of a character's bytes that are not its first
_ESCAPED = re.compile(rb"(?:bytes:|byte: )(?=.*\\x)(.*)|<0(x[0-9a-fA-F]{2})>", re.DOTALL)
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")
_NO_LETTERS = bytes(byte for byte in range(256) if not bytes([byte]).isalpha())
# GPT-2's bytes_to_unicode: a byte that prints is its own character, the others are numbered from 256 on.
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = sorted(range(256), key=lambda byte: byte not in _PRINTED)
_RAW = dict(zip(map(chr, [*_PRINTED, *range(256, 324)]), _BYTES, strict=True))


class Found(NamedTuple):
    """A place, found again in a reply.

    Attributes:
        index: the token that holds the character at the place.
        prefix: what it holds of the prompt before that; one U+FFFD where it starts inside a character (and perhaps too
            few where it starts inside one of several that are U+FFFD in the prompt).
    """

    index: int  # type: ignore[assignment]  # nobody searches a place for a value
    prefix: str


def locate(
    prompt: str, places: Sequence[int], texts: Sequence[str], exact: Sequence[bytes | None] | None = None
) -> list[Found] | None:
    r"""Which token stands at each place of a prompt that a server echoed.

    There may be tokens in front of the prompt (BOS, a template) and behind it (what was generated). Those between must
    cover it to the byte, each spelled as servers do: plain text; parts of a character as U+FFFD or left out;
    `bytes:\xe2`; sentencepiece's `▁the`, `<0xE2>`, dropped leading space; byte-level BPE's `Ġthe`.

    Args:
        prompt: the text that was sent.
        places: ascending offsets in it, in characters, best of ASCII letters: spellings leave those as they are.
        texts: the tokens as the server spells them.
        exact: their bytes, as far as they are known; trusted where they cover the prompt.

    Returns:
        One for each place; None where the tokens do not cover the prompt, or do in ways that disagree about a token.

    Example:
        >>> locate("é\tunknown", [2], ["<s>", "\ufffd", "\ufffd", "\tunknown", "5"])
        [Found(index=3, prefix='\t')]
    """
    if not places:
        return []
    if any(a > b for a, b in pairwise([0, *places, len(prompt) - 1])):
        raise IndexError(f"places {list(places)} in a prompt of {len(prompt)} characters: they ascend, and lie in it")
    data = _utf8(prompt)
    offsets = [*accumulate(len(_utf8(prompt[a:b])) for a, b in pairwise([0, *places]))]
    laid = None
    if exact is not None and len(exact) == len(texts):
        pieces = [_utf8(text) if piece is None else piece for text, piece in zip(texts, exact, strict=True)]
        laid = _laid(data, pieces, offsets, texts)
    if laid is None and (plain := _laid(prompt, texts, places, texts)):
        return [Found(index, prompt[start:place]) for place, (index, start) in zip(places, plain, strict=True)]
    if not (laid := laid or _agreed(_walk(data, texts), len(data), offsets)):
        return None
    heads = [data[start:place] for place, (_, start) in zip(offsets, laid, strict=True)]
    wholes = [head.lstrip(_INNER) for head in heads]
    prefixes = [_PART * (w != h) + w.decode("utf-8", "surrogatepass") for w, h in zip(wholes, heads, strict=True)]
    return [Found(index, prefix) for (index, _), prefix in zip(laid, prefixes, strict=True)]


def _laid(
    whole: AnyStr, pieces: Sequence[AnyStr], places: Sequence[int], texts: Sequence[str]
) -> list[tuple[int, int]] | None:
    """The piece at each place and where it starts, if the pieces hold the prompt to the letter and beyond doubt.

    However it is spelled, a token's text has the letters of its part of the prompt, escapes aside. So where the
    prompt's letters come but once among those of all pieces, no other way to lay them disagrees about a letter.
    """
    joined = whole[:0].join(pieces)
    at = joined.find(whole)
    if at < 0 or not all(whole[place : place + 1].isalpha() and whole[place : place + 1].isascii() for place in places):
        return None
    text, part = (_utf8(each) if isinstance(each, str) else each for each in (joined, whole))
    letters, wanted = (each.translate(None, _NO_LETTERS) for each in (text, part))
    starts = [*accumulate(map(len, pieces), initial=0)]
    cut = all(starts[bisect_left(starts, edge)] == edge for edge in (at, at + len(whole)))
    # not by `rfind`, which takes quadratic time on letters made for it
    if not cut or _any_escaped(text, texts) or letters.find(wanted, letters.find(wanted) + 1) >= 0:
        return None
    return [(index, starts[index] - at) for index in (bisect_right(starts, at + place) - 1 for place in places)]


def _walk(data: bytes, texts: Sequence[str]) -> list[dict[int, set[int]]]:
    """For each token the bytes where it may start and, from each, where it may end; [] if there are too many ways."""
    layers: list[dict[int, set[int]]] = []
    reached: set[int] = set()
    left = min(8 * (len(texts) + len(data)), _MOST_STEPS)
    firsts = _firsts(data, texts) if len(texts) <= len(data) + _AROUND else None
    if firsts is None:
        return []
    for text, first in zip(texts, firsts, strict=True):
        starts = reached | {0} if first else reached
        if (left := left - len(starts) * (1 + len(text) // _KEPT)) < 0:
            return []
        layers.append({start: _ends(data, start, text) for start in starts})
        reached = set().union(*layers[-1].values()) - {len(data)}
    return layers


def _firsts(data: bytes, texts: Sequence[str]) -> list[bool] | None:
    """Whether the prompt may start at a token, as its letters do; None if they may nearly everywhere."""
    if _any_escaped(data, texts):
        return [True] * len(texts)
    letters = [(_unescaped(text) or _utf8(text)).translate(None, _NO_LETTERS) for text in texts]
    joined, wanted = b"".join(letters), data.translate(None, _NO_LETTERS)
    at: set[int] = set()
    left = 8 * (len(joined) + len(data))
    found = joined.find(wanted)
    while found >= 0:
        at.add(found)
        if (left := left - len(wanted)) < 0:
            return None
        found = joined.find(wanted, found + 1)
    return [before in at for before in accumulate(map(len, letters), initial=0)][:-1]


def _agreed(layers: list[dict[int, set[int]]], size: int, places: Sequence[int]) -> list[tuple[int, int]] | None:
    """The token at each place and where it starts at the latest, if all ways to cover the prompt agree about it."""
    held: dict[int, tuple[int, int]] = {}
    alive = {size}
    for index in reversed(range(len(layers))):
        before = {size}
        for start, ends in layers[index].items():
            if reaching := ends & alive:
                before.add(start)
                for place in places[bisect_left(places, start) : bisect_left(places, max(reaching))]:
                    other, last = held.get(place, (index, start))
                    if other != index:
                        return None
                    held[place] = (index, max(start, last))
        alive = before
    return [held[place] for place in places] if held else None


def _ends(data: bytes, start: int, text: str) -> set[int]:
    """Where a token may end that starts at this byte of the prompt."""
    spellings = _spellings(text) if len(text) <= _KEPT else _all_spellings(text)
    ends = {start + len(spelling) for spelling in spellings if data.startswith(spelling, start)}
    if start == 0:  # sentencepiece, and some byte-level tokenizers, put a space in front of a text
        ends |= {len(s) - 1 for s in spellings if s[:1] == b" " and data.startswith(s[1:])}
    end = start + len(spellings[0])
    if _PART in text or data[start] & 0xC0 == 0x80 or data[end : end + 1] >= b"\xc0":
        ends.update(_cut_ends(data, start, text))
    return ends


def _all_spellings(text: str) -> tuple[bytes, ...]:
    """All bytes that a token of this text may stand for, unless it begins or ends inside a character."""
    plain = _utf8(text)
    found = [plain, b" " + plain]
    if (spaces := text.count(_SPACE)) <= 3:
        first, *others = text.split(_SPACE)
        ways = ([*zip(way, others, strict=True)] for way in product(_SPACE + " ", repeat=spaces))
        found += [_utf8(first + "".join(map("".join, way))) for way in ways]
    else:
        found.append(_utf8(text.replace(_SPACE, " ")))
    if unescaped := _unescaped(text):
        found.append(unescaped)
    if all(char in _RAW for char in text):
        found.append(bytes(_RAW[char] for char in text))
    return tuple(dict.fromkeys(found))


_spellings = lru_cache(maxsize=1 << 16)(_all_spellings)
# Longer texts than that are no tokens of any vocabulary, and not worth the room.
_KEPT = 256


def _unescaped(text: str) -> bytes | None:
    """The bytes of an escaped token; None if it is none."""
    escaped = _ESCAPED.fullmatch(_utf8(text))
    return escaped and _ESCAPE.sub(lambda hex_: bytes.fromhex(hex_[1].decode()), escaped[1] or b"\\" + escaped[2])


def _any_escaped(data: bytes, texts: Sequence[str]) -> bool:
    return (b"<0x" in data or b"\\x" in data) and any(map(_unescaped, texts))


def _cut_ends(data: bytes, start: int, text: str) -> Iterator[int]:
    """Where a token may end that begins or ends inside a character, those parts being U+FFFD or left out."""
    whole = _next_character(data, start)
    parts = len(text) - len(text.lstrip(_PART))
    if parts == len(text):
        yield from range(start + max(parts, 1), whole + 1)
    for begun in range(min(parts, whole - start) + 1):
        rest = text[begun:]
        # a character begun in the token has no more than three bytes there
        for cut in range(min(len(rest) - len(rest.rstrip(_PART)), 3) + 1):
            chars = _utf8(rest[: len(rest) - cut])
            end = whole + len(chars)
            if data.startswith(chars, whole):
                if cut == 0:
                    yield end
                yield from range(end + max(cut, 1), _next_character(data, end + 1))


def _next_character(data: bytes, at: int) -> int:
    return min(at + 3, len(data)) - len(data[at : at + 3].lstrip(_INNER))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
