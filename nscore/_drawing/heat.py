"""Records as heat maps of their tokens: what is true above what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nscore._drawing.colours import LEVELS, Limit
from nscore._drawing.markup import Markup, cut, join, tag, text
from nscore._drawing.numbers import short

__all__ = ["Record", "Scales", "legend", "record_html"]

TOKEN = 60
"""Characters of a token that are shown."""


@dataclass(frozen=True, slots=True)
class Record:
    """Some tokens of a record, in their order.

    Attributes:
        name: what is said of it in a line.
        tokens: their texts.
        activation: what is true; None where that is not known.
        predicted: what was predicted; None where nothing was.
        status: why nothing was; None where the table does not say.
        first: the position of the first of them.
        length: how many tokens the whole record has.
    """

    name: str
    tokens: Sequence[str]
    activation: Sequence[float | None]
    predicted: Sequence[float | None]
    status: Sequence[str | None]
    first: int
    length: int

    @property
    def part(self) -> str | None:
        """Which tokens these are, where they are not all."""
        last = self.first + len(self.tokens)
        return None if len(self.tokens) == self.length else f"tokens {self.first} to {last - 1} of {self.length:,}"

    def peaks(self) -> str:
        """Where it is strongest, and where the prediction is, in words."""
        said = []
        for what, values in ("true", self.activation), ("predicted", self.predicted):
            known = [(v, -i) for i, v in enumerate(values) if v is not None]
            if not known:
                said.append(f"nothing {what} is known")
                continue
            i = -max(known)[1]
            said.append(
                f"highest {what} at position {self.first + i}, “{cut(self.tokens[i].strip(), 24)}”: "
                f"true {short(self.activation[i])}, predicted {short(self.predicted[i])}"
            )
        return "; ".join(said)


@dataclass(frozen=True, slots=True)
class Scales:
    """What the strongest colour means, of what is true and of what is predicted."""

    activation: Limit
    predicted: Limit

    @property
    def shared(self) -> bool:
        """Whether both mean the same."""
        return self.activation == self.predicted


def record_html(record: Record, scales: Scales) -> Markup:
    """A record: each token on the colour of what is true, above a strip in the colour of what was predicted."""
    cells = map(_cell, record.tokens, record.activation, record.predicted, record.status, [scales] * len(record.tokens))
    return tag(
        "figure",
        tag("figcaption", tag("b", record.name), tag("span", f" {record.part}") if record.part else None),
        tag("p", Markup("".join(cells)), class_="tokens", dir="ltr", data_heat=True),
        tag("p", record.peaks(), class_="told"),
        class_="record",
    )


def _cell(token: str, t: float | None, p: float | None, status: str | None, scales: Scales) -> str:
    told = f"true {short(t)}, predicted {short(p) if p is not None else status or 'nothing'}"
    true, predicted = _class(scales.activation.level(t), "tu"), _class(scales.predicted.level(p), "pq")
    shown = text(cut(token, TOKEN)) if token else "&empty;"
    return f'<i class="{true} {predicted}" title="{text(told)}">{shown}</i>'


def _class(level: int | None, letters: str) -> str:
    if level is None:
        return f"{letters[0]}x"
    return f"{letters[level < 0]}{abs(level)}"


def legend(scales: Scales) -> Markup:
    """What the colours mean."""

    def ramp(letters: str, limit: Limit, what: str) -> Markup:
        cells = join(tag("i", class_=f"{_class(k, letters)}") for k in range(-LEVELS, LEVELS + 1, 2))
        low, high = short(-limit.value, 2), short(limit.value, 2)
        return tag("span", f"{what} ", low, tag("span", cells, class_=f"ramp {letters}", aria_hidden="true"), high)

    return tag(
        "p",
        ramp("tu", scales.activation, "true (on the token)"),
        ramp("pq", scales.predicted, "predicted (the strip below it)"),
        tag("span", f"{'the same scale' if scales.shared else 'each on its own scale'}; striped: not known"),
        class_="legend",
    )
