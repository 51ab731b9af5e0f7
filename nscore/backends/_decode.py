"""JSON of replies into typed values: quickly where it is sound, and never past what was asked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from nscore._sending.retry import redact
from nscore.errors import ReplyError

__all__ = ["NOTHING", "Tops", "count", "decode", "decode_if_any", "shown", "without_thinking"]

T = TypeVar("T")

# What a field is that was left out; a union with None would forbid everything else.
NOTHING = msgspec.Raw(b"null")

# More tokens than any request has, and a sum of many that a table still holds.
_MOST = 1 << 40
# So much of an error is looked through for secrets that what is shown of it holds none by half.
_SOUGHT = 1 << 20
_SURROGATE = re.compile("[\ud800-\udfff]")
# The end of thinking; before a tab or a quote it is a token that the answer repeats.
_THOUGHT_ENDS = re.compile(r"</think>(?![\t\"])")
# How an answer begins, so that a `</think>` in it is one of its tokens: JSON, a code fence, a record's head.
_ANSWER = re.compile(r"\s*(?:[{\[#]|```)")


def decode(decoder: msgspec.json.Decoder[T], raw: bytes) -> T:
    """Reads JSON; what strict JSON forbids and servers send (NaN, infinities, lone surrogates) is read past.

    Raises:
        ReplyError: if it is no JSON (worth asking again), or JSON of another shape.
    """
    try:
        return decoder.decode(raw)
    except RecursionError:
        raise ReplyError("parse_error", "the reply is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise ReplyError("parse_error", f"the reply has another shape than expected: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        content = json.loads(raw.decode("utf-8-sig", "replace"), parse_constant=lambda _: None, parse_int=_integer)
        return decoder.decode(_SURROGATE.sub("\ufffd", json.dumps(_finite(content), ensure_ascii=False)))
    except msgspec.ValidationError as error:
        raise ReplyError("parse_error", f"the reply has another shape than expected: {error}") from None
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        # half of a reply, or a page of a proxy: the next try may bring the whole
        raise ReplyError("parse_error", f"the reply is no JSON: {str(error)[:200]}", again=True) from None


def decode_if_any(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw) -> T | None:
    """Reads a part of a reply that an answer can do without; None where it has another shape."""
    try:
        return decode(decoder, bytes(raw))
    except ReplyError:
        return None


def count(number: int | None) -> int | None:
    """A number of tokens; None where it is none."""
    return number if number is not None and 0 <= number <= _MOST else None


def shown(said: bytes | str | None, secrets: Iterable[str]) -> str:
    """The beginning of what a server said, without secrets."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    # cut before that, there could be the half of a secret
    return redact(text[:_SOUGHT], secrets)[:300]


def _integer(literal: str) -> float | int | None:
    return int(literal) if len(literal) < 20 else None


def _finite(content: object) -> object:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, list):
        return [_finite(item) for item in content]
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    return content


class Tops:
    """Token logprobs whose alternatives are decoded only where they are asked for.

    Args:
        texts: each token as the server spells it.
        tops: the JSON of the alternatives of each token; shorter lists leave the last tokens without.
        decoder: reads one of them.
        exact: each token's bytes, where known.
    """

    __slots__ = ("_decoder", "_tops", "exact", "texts")

    def __init__(
        self,
        texts: Sequence[str],
        tops: Sequence[msgspec.Raw],
        decoder: msgspec.json.Decoder[dict[str, float | None] | None],
        exact: Sequence[bytes | None] | None = None,
    ) -> None:
        self.texts, self.exact = texts, exact
        self._tops, self._decoder = tops, decoder

    def top(self, index: int) -> list[tuple[str, float]]:
        """See `TokenLogprobs.top`."""
        if index >= len(self._tops):
            return []
        return [
            (text, p) for text, p in (decode(self._decoder, bytes(self._tops[index])) or {}).items() if p is not None
        ]


def without_thinking(text: str) -> tuple[str, bool]:
    """An answer without the thinking before it, and whether there was some; unfinished thinking is no answer.

    Some chat templates write the `<think>` themselves: then only its end is in the answer.

    >>> without_thinking("<think>red, so</think>7")
    ('7', True)
    """
    opened = text.lstrip().startswith("<think>")
    end = _THOUGHT_ENDS.search(text)
    if end is not None and (opened or not _ANSWER.match(text)):
        return text[end.end() :], True
    return ("", True) if opened else (text, False)
