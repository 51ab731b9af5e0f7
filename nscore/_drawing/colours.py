"""Colours: one scale of activations for pages and terminals, and a colour for each series, for all eyes."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["LEVELS", "SERIES", "Colour", "Limit", "css", "fill", "ink"]

LEVELS = 10
"""Steps from nothing to the strongest, above zero and below it."""

# Okabe and Ito's palette, "Color universal design", 2008: told apart by every kind of sight.
SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#888888")


@dataclass(frozen=True, slots=True)
class Colour:
    """Red, green and blue, each 0 to 255."""

    red: int
    green: int
    blue: int

    def __str__(self) -> str:
        return f"#{self.red:02x}{self.green:02x}{self.blue:02x}"

    @property
    def luminance(self) -> float:
        """How bright it looks, 0 to 1 (WCAG 2)."""
        parts = [c / 255 for c in (self.red, self.green, self.blue)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _of(code: str) -> Colour:
    return Colour(*(int(code[i : i + 2], 16) for i in (1, 3, 5)))


# Nothing, the strongest above zero, the strongest below: vermillion or orange against blue on white or near black.
_LIGHT = tuple(map(_of, ("#ffffff", "#e8650a", "#56b4e9")))
_DARK = tuple(map(_of, ("#22252b", "#f5a31a", "#3f9fe0")))


@dataclass(frozen=True, slots=True)
class Limit:
    """The value at which a scale is at its strongest, above and below zero."""

    value: float

    def level(self, value: float | None) -> int | None:
        """The step of a value, -10 to 10; None for one that is not known.

        >>> [Limit(2.0).level(x) for x in (0.0, 1.0, -2.0, 9.0, None)]
        [0, 5, -10, 10, None]
        """
        if value is None or math.isnan(value):
            return None
        share = 0.0 if not self.value else max(-1.0, min(1.0, value / self.value))
        return round(share * LEVELS)


def fill(level: int, *, dark: bool = False) -> Colour:
    """The colour of a step.

    >>> str(fill(0)), str(fill(10)), str(fill(-10))
    ('#ffffff', '#e8650a', '#56b4e9')
    """
    none, above, below = _DARK if dark else _LIGHT
    end, share = (above if level > 0 else below), abs(level) / LEVELS
    mixed = (a + (b - a) * share for a, b in ((none.red, end.red), (none.green, end.green), (none.blue, end.blue)))
    return Colour(*(round(c) for c in mixed))


def ink(background: Colour) -> Colour:
    """Black or white, whichever is easier to read on a colour.

    >>> str(ink(fill(10))), str(ink(fill(0, dark=True)))
    ('#000000', '#ffffff')
    """
    bright = background.luminance
    return Colour(0, 0, 0) if (bright + 0.05) / 0.05 >= 1.05 / (bright + 0.05) else Colour(255, 255, 255)


def css() -> str:
    """The classes of the steps: `t` and `u` true above and below zero, `p` and `q` predicted."""
    light, dark = (_classes(dark=dark) for dark in (False, True))
    series = "".join(f".nscore .s{i}{{--s:{c}}}" for i, c in enumerate(SERIES))
    # on black the darker blue is hard to see: the two blues change places
    swapped = f".nscore .s0{{--s:{SERIES[5]}}}.nscore .s5{{--s:{SERIES[0]}}}"
    return f"{light}{series}@media screen and (prefers-color-scheme:dark){{{dark}{swapped}}}"


def _classes(*, dark: bool) -> str:
    rules = []
    for level in range(-LEVELS, LEVELS + 1):
        colour, n = fill(level, dark=dark), abs(level)
        rules.append(f".nscore .{'u' if level < 0 else 't'}{n}{{--t:{colour};--i:{ink(colour)}}}")
        rules.append(f".nscore .{'q' if level < 0 else 'p'}{n}{{--p:{colour}}}")
    return "".join(rules)
