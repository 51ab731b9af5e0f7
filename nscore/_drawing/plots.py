"""The plots of nscore: how scores are spread, scores by layer, predicted against true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nscore._drawing.markup import Child, Markup, cut, tag
from nscore._drawing.numbers import UNKNOWN, ceiling, count, short, steps
from nscore._drawing.svg import USUAL, Axis, Plane, plot, shape

__all__ = ["Bin", "Box", "boxes", "calibration", "histogram", "shares", "spread"]

Floats = npt.NDArray[np.float64]
BINS = 40


@dataclass(frozen=True, slots=True)
class Box:
    """Quantiles of a group of values, and how many there are."""

    name: str
    n: int
    quantiles: tuple[float, float, float, float, float]
    """At 10%, 25%, 50%, 75% and 90%."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Tokens whose predictions lie close together: their means, the quartiles of what is true, how many."""

    n: int
    predicted: float
    activation: float
    low: float
    high: float


def spread(values: Floats, floor: float | None = None) -> tuple[float, float]:
    """The ends of an axis for values, at round numbers: all of them; from `floor` on if some lie below it."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if floor is not None and low < floor < high:
        low = floor
    if low == high:
        return low - 0.5, high + 0.5
    places = steps(low, high, 5)
    if len(places) < 2:
        return low, high
    step = places[1] - places[0]
    return step * np.floor(low / step + 1e-9), step * np.ceil(high / step - 1e-9)


def histogram(values: Floats, name: str, *, ends: tuple[float, float], title: str, colour: int) -> Markup:
    """How many values lie where; those below the lower end stand in a bar of their own, the median is marked."""
    known = values[~np.isnan(values)]
    low, high = ends
    inside = known[(known >= low) & (known <= high)]
    below, above = int((known < low).sum()), int((known > high).sum())
    counts, edges = np.histogram(inside, BINS, (low, high))
    top = ceiling(float(max(counts.max(initial=0), below, above)))
    pad = (high - low) / BINS
    x = Axis(name, low - 2.5 * pad * bool(below), high + 2.5 * pad * bool(above))
    plane = Plane(x, Axis("explanations", 0, top, marks=4))
    bars: list[Child] = [
        plane.rect((a, b), (0, n), f"bar s{colour}", f"{short(a)} to {short(b)}: {count(n)}")
        for a, b, n in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        if n
    ]
    for n, at, told in (
        (below, low - 2.2 * pad, f"below {short(low)}"),
        (above, high + 0.7 * pad, f"above {short(high)}"),
    ):
        if n:
            bars.append(plane.rect((at, at + 1.5 * pad), (0, n), "bar beyond", f"{told}: {count(n)}"))
    if not known.size:
        return plot(plane, title, "no value is defined")
    quartiles = np.quantile(known, (0.25, 0.5, 0.75), method="nearest").tolist()
    if low <= quartiles[1] <= high:
        bars.append(plane.line([(quartiles[1], 0), (quartiles[1], top)], "median", f"median {short(quartiles[1])}"))
    beyond = f", {count(below)} below {short(low)}" * bool(below) + f", {count(above)} above {short(high)}" * bool(
        above
    )
    told = f"{count(known.size)} values, median {short(quartiles[1])}, half of them between {short(quartiles[0])} and "
    return plot(plane, title, f"{told}{short(quartiles[2])}{beyond}", *bars)


def boxes(
    groups: Sequence[Box], name: str, *, ends: tuple[float, float], title: str, across: str, colour: int
) -> Markup:
    """A box a group: the middle half, a line at the median, whiskers from 10% to 90%."""
    low, high = ends
    plane = Plane(
        Axis(across, -0.6, len(groups) - 0.4, words=[g.name for g in groups]),
        Axis(name, low, high),
        width=max(USUAL, min(76 + 26 * len(groups), 640)),
    )
    half = 0.32
    shapes: list[Child] = []
    for i, group in enumerate(groups):
        a, b, c, d, e = (min(max(q, low), high) for q in group.quantiles)
        told = f"{group.name}: median {short(group.quantiles[2])}, half between {short(group.quantiles[1])} and "
        told += f"{short(group.quantiles[3])}, n = {count(group.n)}"
        shapes += [
            plane.line([(i, a), (i, e)], f"whisker s{colour}"),
            plane.rect((i - half, i + half), (b, d), f"box s{colour}", told),
            plane.line([(i - half, c), (i + half, c)], "median"),
        ]
    medians = ", ".join(f"{g.name} {short(g.quantiles[2])}" for g in groups[:30])
    return plot(plane, title, f"medians {medians}" if groups else "no value is defined", *shapes)


def calibration(bins: Sequence[Bin], *, shared: bool, title: str = "Calibration") -> Markup:
    """Predicted against true: a dot a bin of predictions, the larger the more tokens, with the quartiles of what is true in it.

    The diagonal, where predictions are right on average, stands only where both are in the same unit (`shared`).
    """
    xs = np.array([b.predicted for b in bins])
    ys = np.array([y for b in bins for y in (b.activation, b.low, b.high)])
    (x0, x1), (y0, y1) = spread(xs), spread(ys)
    if shared and bins:
        x0, x1 = y0, y1 = min(x0, y0), max(x1, y1)
    unit = "neuron's unit" if shared else "simulator's scale"
    pad_x, pad_y = 0.04 * (x1 - x0), 0.04 * (y1 - y0)
    plane = Plane(
        Axis(f"predicted ({unit})", x0 - pad_x, x1 + pad_x),
        Axis("true (neuron's unit)", y0 - pad_y, y1 + pad_y),
        width=280,
        height=240,
    )
    shapes: list[Child] = [plane.line([(x0, x0), (x1, x1)], "diagonal", "predicted = true")] if shared and bins else []
    most = max((b.n for b in bins), default=1)
    for b in bins:
        told = f"predicted {short(b.predicted)}, true {short(b.activation)} on average, n = {count(b.n)}"
        shapes.append(plane.line([(b.predicted, b.low), (b.predicted, b.high)], "whisker s0"))
        shapes.append(plane.dot(b.predicted, b.activation, 2.5 + 2.5 * (b.n / most) ** 0.5, "dot s0", told))
    told = "; ".join(f"{short(b.predicted)} predicted, {short(b.activation)} true" for b in bins) or UNKNOWN
    return plot(plane, title, f"means of tokens in bins: {told}", *shapes)


def shares(rows: Sequence[tuple[str, Sequence[tuple[str, int]]]], title: str) -> Markup:
    """A bar a row, as long as the whole, cut into parts by how many each holds; the first part is the good one."""
    names = list(dict.fromkeys(name for _, parts in rows for name, n in parts if n))
    left, width, high = 120.0, 560.0, 20.0
    bars: list[Child] = []
    for i, (row, parts) in enumerate(rows):
        at, total, y = left, sum(n for _, n in parts), 30 + i * (high + 8)
        bars.append(tag("text", cut(row, 18), class_="mark end", x=left - 6, y=y + 14))
        for name, n in parts:
            size = (width - left - 10) * n / total if total else 0.0
            told = f"{row}, {name}: {count(n)} of {count(total)} tokens"
            colour = f"bar s{names.index(name) % 8} {'' if name == parts[0][0] else 'lost'}" if n else ""
            bars.append(
                shape("rect", told, class_=colour, x=round(at, 1), y=y, width=round(size, 1), height=high)
                if n
                else None
            )
            at += size
    bottom = 30 + len(rows) * (high + 8)
    at = left
    for i, name in enumerate(names):
        bars.append(tag("rect", class_=f"bar s{i % 8}", x=at, y=bottom + 4, width=10, height=10))
        bars.append(tag("text", name, class_="mark", x=at + 14, y=bottom + 13))
        at += 30 + 6.2 * len(name)
    told = "; ".join(f"{row}: " + ", ".join(f"{count(n)} {name}" for name, n in parts if n) for row, parts in rows)
    return tag(
        "svg",
        tag("title", f"{title}: {told}"),
        tag("text", title, class_="title", x=left, y=16),
        bars,
        class_="plot wide",
        role="img",
        aria_label=f"{title}: {told}",
        viewBox=f"0 0 {max(width, at):g} {bottom + 22:g}",
    )
