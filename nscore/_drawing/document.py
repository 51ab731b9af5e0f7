"""A whole page in one file, which may load nothing: its own style and its own script alone, known by their hashes."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from nscore._drawing.markup import Markup, tag
from nscore._drawing.pieces import style

__all__ = ["document", "policy"]


def policy(style_text: str, script_text: str) -> str:
    """What the browser lets the page do: apply this style, run this script, and no more.

    Trusted types leave no way to make markup of a text, whatever the script does.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_hash(style_text)}'",
            f"script-src '{_hash(script_text)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")


def document(title: str, body: Markup, data: str) -> str:
    """The page; `data` is JSON that holds no markup, which its script reads."""
    look, script = style(), files("nscore").joinpath("_drawing", "report.js").read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy(look, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(look)),
    )
    held = tag("script", Markup(data), type="application/json", id="data")
    page = tag("body", body, held, tag("script", Markup(script)), class_="nscore page")
    return "<!DOCTYPE html>\n" + tag("html", head, page, lang="en") + "\n"
