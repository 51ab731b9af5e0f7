"""JSON as other systems write it: into typed values, with bare NaN, and with an error that names the place."""

from __future__ import annotations

import json
import re
from typing import TypeVar

import msgspec

from nscore.errors import SourceError
from nscore.importers._places import SourceFile

__all__ = ["decoded", "loose"]

T = TypeVar("T")


def decoded(file: SourceFile, content: bytes, decoder: msgspec.json.Decoder[T], *, place: str = "") -> T:
    """What a JSON text holds, as the decoder's type.

    What Python's `json` writes beyond the standard (NaN, Infinity, half a surrogate pair) is read too; such halves become
    U+FFFD.

    Raises:
        SourceError: if it is no JSON, or has other values where the type wants its own.
    """
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        strict = error
    try:
        value = loose(file, content, place=place)
    except SourceError as error:
        raise error from strict
    try:
        converted: T = msgspec.convert(value, decoder.type)
    except (msgspec.ValidationError, RecursionError) as error:
        found, _, at = str(error).partition(" - at ")
        raise file.fault(found, place=" ".join(filter(None, [place, at.strip("`")])), mend=_MEND) from None
    return converted


def loose(file: SourceFile, content: bytes | str, *, place: str = "", mend: str = "") -> object:
    """What a JSON text holds, as Python's own values; see `decoded`.

    Raises:
        SourceError: if it is no JSON.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        return _mended(json.loads(text, parse_int=_integer))
    except (ValueError, RecursionError) as error:
        said = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise file.fault(f"no JSON: {said}", place=place, mend=mend or _MEND) from None


_MEND = "Mend the file, or leave it out (--on-error skip)."
_HALF = re.compile("[\ud800-\udfff]")


def _integer(digits: str) -> int | float:
    # no number of a neuron has so many; int() of very many digits is slow, and refused beyond 4,300
    return int(digits) if len(digits) <= 18 else float(digits)


def _mended(value: object) -> object:
    """The same value without halves of surrogate pairs, which no text can hold."""
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_mended(each) for each in value]
    if isinstance(value, dict):
        return {_mended(k): _mended(v) for k, v in value.items()}
    return value
