"""HTML as values: every text goes through one gate that leaves nothing of it to act as markup or to hide."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Child", "Markup", "cut", "join", "tag", "text", "visible"]

# What a reader cannot see, or what changes what he sees around it: controls, marks of direction, characters of no
# width, separators, surrogates and what is no character.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
VOID = {"meta", "link", "input", "br", "col"}


class Markup(str):
    """Finished HTML, which is put in as it is."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"


def visible(given: str) -> str:
    r"""A text in which what cannot be seen stands as an escape.

    >>> visible("a\x1b[31m\u202eb\n")
    'a\\x1b[31m\\u202eb\\n'
    """
    return _UNSEEN.sub(_escape, given)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"  # half a character: no file and no terminal takes it
    return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def cut(given: str, length: int) -> str:
    """The text, its end replaced by an ellipsis where it is longer.

    >>> cut("activation", 4)
    'act…'
    """
    return given if len(given) <= length else given[: max(length - 1, 0)] + "…"


def text(given: object) -> Markup:
    """Anything as text in HTML, in content and in quoted attributes.

    >>> text("<b> & '")
    '&lt;b&gt; &amp; &#x27;'
    """
    return Markup(html.escape(visible(str(given)), quote=True))


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element. A trailing underscore of an attribute's name is dropped, others become hyphens.

    >>> tag("a", "1 < 2", class_="x", aria_label='"')
    '<a class="x" aria-label="&quot;">1 &lt; 2</a>'
    """
    parts = [
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    ]
    head = f"<{name}{''.join(parts)}>"
    return Markup(head if name in VOID else f"{head}{join(children)}</{name}>")


def join(children: Child) -> Markup:
    """Children one after the other; None is nothing."""
    if children is None:
        return Markup()
    if isinstance(children, Markup):
        return children
    if isinstance(children, str | int | float):
        return text(children)
    return Markup("".join(map(join, children)))
