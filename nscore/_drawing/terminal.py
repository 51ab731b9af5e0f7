"""Heat maps on a terminal: two lines of colour for each line of tokens, or digits where there are no colours."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Literal

from nscore._drawing.colours import Colour, fill, ink
from nscore._drawing.heat import Record, Scales
from nscore._drawing.markup import cut, visible

__all__ = ["Colours", "colours_of", "record_lines", "wide"]

Colours = Literal["none", "256", "truecolor"]
TOKEN = 24
RESET = "\x1b[0m"
MARGIN = " " * 6


def colours_of(stream: IO[str], environment: Mapping[str, str] | None = None) -> Colours:
    """Which colours a stream shows: none where it is no terminal, or `NO_COLOR` is set.

    >>> import io
    >>> colours_of(io.StringIO(), {"TERM": "xterm-256color"})
    'none'
    """
    known = os.environ if environment is None else environment
    term = known.get("TERM", "")
    if known.get("NO_COLOR") or not stream.isatty() or term in {"", "dumb"}:
        return "none"
    return "truecolor" if known.get("COLORTERM") in {"truecolor", "24bit"} else "256"


def record_lines(record: Record, scales: Scales, *, colours: Colours, width: int) -> Iterator[str]:
    """The lines of a record, its name first."""
    yield visible(record.name) + (f" ({record.part})" if record.part else "")
    words = [_shown(token) for token in record.tokens]
    true = [scales.activation.level(t) for t in record.activation]
    predicted = [scales.predicted.level(p) for p in record.predicted]
    plain = colours == "none"
    # tokens that bring no spaces of their own, as word pieces, are kept apart
    gap = "" if not plain and any(w[:1] == " " or w[-1:] == " " for w in words) else " "
    sizes = [
        max(wide(w), len(_digit(t)), len(_digit(p))) if plain else wide(w)
        for w, t, p in zip(words, true, predicted, strict=True)
    ]
    for first, last in _lines([size + len(gap) for size in sizes], width - len(MARGIN)):
        row = slice(first, last)
        cells = list(zip(words[row], true[row], predicted[row], sizes[row], strict=True))
        if plain:
            yield (MARGIN + " ".join(w + " " * (n - wide(w)) for w, _, _, n in cells)).rstrip()
            yield ("true  " + " ".join(_digit(t).ljust(n) for _, t, _, n in cells)).rstrip()
            yield ("pred. " + " ".join(_digit(p).ljust(n) for _, _, p, n in cells)).rstrip()
        else:
            apart = RESET + gap if gap else ""
            yield "true  " + apart.join(_painted(w, t, colours) for w, t, _, _ in cells) + RESET
            yield "pred. " + apart.join(_painted(_blank(p, n), p, colours) for _, _, p, n in cells) + RESET


def wide(shown: str) -> int:
    """Columns that a text takes on a terminal.

    >>> wide("ab"), wide("漢")
    (2, 2)
    """
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in shown)


def _shown(token: str) -> str:
    shown = visible(cut(token, TOKEN))
    # a mark without a letter of its own would join the token before
    return f"◌{shown}" if shown and unicodedata.combining(shown[0]) else shown or "∅"


def _lines(widths: Sequence[int], width: int) -> Iterator[tuple[int, int]]:
    first = taken = 0
    for i, each in enumerate(widths):
        if taken + each > width and i > first:
            yield first, i
            first, taken = i, 0
        taken += each
    if widths:
        yield first, len(widths)


def _digit(level: int | None) -> str:
    """As in OpenAI's prompts, 0 to 10, where 10 is the strongest; a dot where nothing is known."""
    return "." if level is None else str(level)


def _blank(level: int | None, size: int) -> str:
    return ("·" if level is None else " ") * size


def _painted(word: str, level: int | None, colours: Colours) -> str:
    if level is None:
        return f"{RESET}{word}"
    background = fill(level, dark=True)
    return f"\x1b[{_code(48, background, colours)};{_code(38, ink(background), colours)}m{word}"


def _code(layer: int, colour: Colour, colours: Colours) -> str:
    if colours == "truecolor":
        return f"{layer};2;{colour.red};{colour.green};{colour.blue}"
    # the cube of 6 x 6 x 6 colours that starts at 16
    r, g, b = (0 if c < 48 else 1 if c < 115 else (c - 35) // 40 for c in (colour.red, colour.green, colour.blue))
    return f"{layer};5;{16 + 36 * r + 6 * g + b}"
