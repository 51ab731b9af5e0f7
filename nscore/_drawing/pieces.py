"""Pieces of pages that hold no plot: tables, cards, sections, and a whole fragment with its style."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files

from nscore._drawing.colours import css
from nscore._drawing.markup import Child, Markup, tag

__all__ = ["cards", "fragment", "grid", "section", "style", "table"]


LONG = 40
"""Characters from which on a text takes some lines of a table."""


def style() -> str:
    """The one style of pages and notebooks; every rule is about what stands in an element of the class `nscore`."""
    return files("nscore").joinpath("_drawing", "nscore.css").read_text("utf-8") + css()


def fragment(*children: Child) -> Markup:
    """A part of somebody else's page: it brings its style along, and no script."""
    return tag("div", tag("style", Markup(style())), *children, class_="nscore fragment")


def section(title: str, *children: Child, id_: str | None = None) -> Markup:
    """A part of a page under its title."""
    return tag("section", tag("h2", title), *children, id=id_)


def grid(*children: Child) -> Markup:
    """Things side by side, as many as there is room for."""
    return tag("div", *children, class_="grid-of")


def cards(facts: Iterable[tuple[str, str]]) -> Markup:
    """A few numbers, large, each above what it is."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), class_="cards")


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], *, caption: str, texts: int = 1) -> Markup:
    """A table whose first columns (`texts` of them) are words and whose others are numbers."""

    def cell(i: int, value: Child) -> Markup:
        if i == 0:
            return tag("th", value, scope="row")
        long = isinstance(value, str) and len(value) > LONG
        return tag("td", value, class_=("long" if long else None) if i < texts else "number")

    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag(
                "thead",
                tag(
                    "tr",
                    *(tag("th", h, scope="col", class_=None if i < texts else "number") for i, h in enumerate(head)),
                ),
            ),
            tag("tbody", *(tag("tr", *(cell(i, v) for i, v in enumerate(row))) for row in rows)),
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption,
    )
