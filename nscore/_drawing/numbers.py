"""Numbers as people read them: short, with a true minus sign, and never a digit that is not known."""

# ruff: noqa: RUF001, RUF002 -- the dash that tables have for nothing

from __future__ import annotations

import math

__all__ = ["UNKNOWN", "ceiling", "count", "short", "steps"]

UNKNOWN = "–"


def short(value: float | None, digits: int = 3) -> str:
    """A number to so many digits behind the point, or as many significant ones where it is large or tiny.

    >>> short(0.12345), short(-1234.5), short(0.000012), short(None), short(float("-inf"))
    ('0.123', '-1,234', '1.2e-05', '–', '-inf')
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    size = abs(value)
    if math.isinf(size):
        said = "inf"
    elif size >= 1e7 or 0 < size < 0.5 * 10**-digits:
        said = f"{size:.{max(digits - 1, 0)}g}"
    elif size >= 1000:
        said = f"{size:,.0f}"
    else:
        said = f"{size:.{digits}f}"
    return f"-{said}" if value < 0 and said.strip("0.") else said


def count(value: float | None) -> str:
    """How many, with separators.

    >>> count(50000)
    '50,000'
    """
    return UNKNOWN if value is None else f"{value:,.0f}"


def steps(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two, about so many: the places of an axis' marks.

    >>> steps(0, 1, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not low < high or math.isinf(high - low):
        return [low]
    rough = (high - low) / max(about, 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = min((unit * m for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) if abs(i * step) > 1e-9 else i * step for i in range(first, last + 1)]


def ceiling(value: float) -> float:
    """The next round number above: where an axis may end.

    >>> ceiling(87), ceiling(0)
    (100.0, 1.0)
    """
    if not value > 0 or math.isinf(value):
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * m for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 20) if unit * m >= value)
