"""Plots as inline SVG: axes with titles and marks, and shapes placed by values; no style but classes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from nscore._drawing.markup import Child, Markup, join, tag
from nscore._drawing.numbers import short, steps

__all__ = ["USUAL", "Axis", "Plane", "plot", "shape"]

LEFT, RIGHT, TOP, BOTTOM = 62, 14, 22, 42
USUAL, SCALE = 300, 1.2


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its title with the unit, its ends, and the words at its marks where those are no numbers.

    Args:
        title: what is measured, and in which unit.
        low: the value at one end.
        high: the value at the other.
        words: what stands at 0, 1, 2, ... instead of numbers.
        marks: about how many marks.
    """

    title: str
    low: float
    high: float
    words: Sequence[str] | None = None
    marks: int = 5

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1."""
        return 0.5 if self.high <= self.low else (value - self.low) / (self.high - self.low)

    def labels(self) -> list[tuple[float, str]]:
        """Where marks stand, and what stands at them."""
        if self.words is None:
            places = steps(self.low, self.high, self.marks)
            step = min((b - a for a, b in itertools.pairwise(places)), default=1.0)
            digits = next((d for d in range(4) if abs(round(step, d) - step) < 1e-9 * max(step, 1e-9)), 4)
            return [(v, short(v, digits)) for v in places]
        every = -(-len(self.words) // (2 * self.marks + 2))
        return [(i, word) for i, word in enumerate(self.words) if i % every == 0]


@dataclass(frozen=True, slots=True)
class Plane:
    """Where values lie in a plot, in its pixels."""

    x: Axis
    y: Axis
    width: float = USUAL
    height: float = 190

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        across = LEFT + self.x.share(x) * (self.width - LEFT - RIGHT)
        down = self.height - BOTTOM - self.y.share(y) * (self.height - TOP - BOTTOM)
        return round(across, 1), round(down, 1)

    def rect(self, x: tuple[float, float], y: tuple[float, float], class_: str, title: str | None = None) -> Markup:
        """A box between two values on each axis."""
        (a, b), (c, d) = self.at(x[0], y[1]), self.at(x[1], y[0])
        width, height = round(max(c - a, 0.5), 1), round(max(d - b, 0), 1)
        return shape("rect", title, class_=class_, x=a, y=b, width=width, height=height)

    def line(self, points: Sequence[tuple[float, float]], class_: str, title: str | None = None) -> Markup:
        """A line through points."""
        path = " ".join(f"{a},{b}" for a, b in (self.at(*p) for p in points))
        return shape("polyline", title, class_=class_, points=path)

    def dot(self, x: float, y: float, radius: float, class_: str, title: str | None = None) -> Markup:
        """A disc around a point."""
        a, b = self.at(x, y)
        return shape("circle", title, class_=class_, cx=a, cy=b, r=round(radius, 1))


def shape(name: str, title: str | None, **attributes: str | float) -> Markup:
    """A shape, with what is told when one points at it."""
    return tag(name, None if title is None else tag("title", title), **attributes)


def plot(plane: Plane, title: str, told: str, *shapes: Child) -> Markup:
    """A whole plot: grid, shapes, axes; `told` is what it shows in a sentence, for those who cannot see it."""
    left, bottom = plane.at(plane.x.low, plane.y.low)
    right, top = plane.at(plane.x.high, plane.y.high)
    grid, marks = [], []
    for value, word in plane.y.labels():
        y = plane.at(plane.x.low, value)[1]
        grid.append(tag("line", class_="grid", x1=left, x2=right, y1=y, y2=y))
        marks.append(tag("text", word, class_="mark end", x=left - 5, y=y + 3.5))
    tilted = plane.x.words is not None and max(map(len, plane.x.words), default=0) * len(plane.x.labels()) > 44
    for value, word in plane.x.labels():
        x = plane.at(value, plane.y.low)[0]
        grid.append(tag("line", class_="tick", x1=x, x2=x, y1=bottom, y2=bottom + 4))
        turned = f"rotate(-30 {x} {bottom + 12})" if tilted else None
        named = word if not tilted or len(word) < 11 else f"…{word[-9:]}"
        marks.append(
            tag("text", named, class_="mark end" if tilted else "mark middle", x=x, y=bottom + 15, transform=turned)
        )
    middle = (top + bottom) / 2
    return tag(
        "svg",
        tag("title", f"{title}: {told}"),
        tag("text", title, class_="title", x=left, y=13),
        join(grid),
        join(shapes),
        tag("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom),
        tag("line", class_="axis", x1=left, x2=left, y1=top, y2=bottom),
        join(marks),
        tag("text", plane.x.title, class_="name middle", x=(left + right) / 2, y=plane.height - 6),
        tag("text", plane.y.title, class_="name middle", x=12, y=middle, transform=f"rotate(-90 12 {middle})"),
        class_="plot" if plane.width <= USUAL else "plot broad",
        role="img",
        aria_label=f"{title}: {told}",
        width=round(plane.width * SCALE),
        viewBox=f"0 0 {plane.width:g} {plane.height:g}",
    )
