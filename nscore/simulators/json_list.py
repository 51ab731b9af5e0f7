"""`json_list`: a chat model answers with one number for each token, as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from nscore.errors import ReplyError
from nscore.simulators._lists import Listed, ListSimulator
from nscore.simulators._prompts import instruction, piece, visible
from nscore.simulators._protocol import simulator

__all__ = ["JsonList"]

RECORDS, RECORD, TOKENS, ACTIVATIONS, TOKEN, ACTIVATION = (
    "records",
    "record",
    "tokens",
    "activations",
    "token",
    "activation",
)
# Strings are matched whole, so that a number in one is none.
_STRING_OR_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)', re.DOTALL)
_ANSWER = re.compile(rf'\{{\s*"(?:{RECORDS}|{RECORD})"')
_KEY = re.compile(rf'"{ACTIVATIONS}"\s*:\s*\Z')
_OPENING = re.compile(r"[{\[]")
_QUOTED = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,17})?")
# Where chatter holds brackets, or an answer is broken, later ones are tried.
_TRIES = 20


class _Spot(float):
    """A number and where it stands."""

    place: int


@simulator("json_list")
@dataclass(frozen=True, slots=True, kw_only=True)
class JsonList(ListSimulator):
    """Asks a chat model for a JSON list of numbers, one for each token of each record.

    Where the server honours a JSON schema the length of each list is part of it; everywhere it is checked. Where the
    server gives logprobs of generated tokens, a prediction is the expected value at the number instead of the number.

    Args:
        numbers_alone: whether the answer leaves out the tokens. It then takes about a quarter of the tokens, and a model
            that loses its place is not found out; else a token that is repeated wrongly is a `length_mismatch`.

    Source: after the logprob-free simulator of OpenAI's transformer-debugger.
    """

    numbers_alone: bool = False

    @property
    def name(self) -> str:
        """`json_list`."""
        return "json_list"

    def instruction(self, top: int) -> str:
        """See `ListSimulator`."""
        return instruction(self.name, top, echo="" if self.numbers_alone else piece(self.name, "echo"))

    def question(self, explanation: str, records: Sequence[Sequence[str]]) -> str:
        """See `ListSimulator`."""
        rows = [{RECORD: i, TOKENS: [visible(t) for t in tokens]} for i, tokens in enumerate(records, 1)]
        return f"The neuron fires on: {visible(explanation)}\n{_compact({RECORDS: rows})}"

    def answer(self, records: Sequence[Sequence[str]], values: Sequence[Sequence[int]]) -> str:
        """See `ListSimulator`."""
        rows = []
        for i, (tokens, numbers) in enumerate(zip(records, values, strict=True), 1):
            pairs: list[object] = [
                v if self.numbers_alone else {TOKEN: visible(t), ACTIVATION: v}
                for t, v in zip(tokens, numbers, strict=True)
            ]
            rows.append({RECORD: i, ACTIVATIONS: pairs})
        return _compact({RECORDS: rows})

    def schema(self, lengths: Sequence[int], top: int) -> Mapping[str, object] | None:
        """See `ListSimulator`. Of several records only the shortest and the longest length can be said."""
        number: dict[str, object] = {"type": "integer", "minimum": 0, "maximum": top}
        entry = number if self.numbers_alone else _object({TOKEN: {"type": "string"}, ACTIVATION: number})
        numbers = {"type": "array", "items": entry, "minItems": min(lengths), "maxItems": max(lengths)}
        row = _object({RECORD: {"type": "integer"}, ACTIVATIONS: numbers})
        return _object({RECORDS: {"type": "array", "items": row, "minItems": len(lengths), "maxItems": len(lengths)}})

    def parse(self, text: str, records: int, *, placed: bool) -> Mapping[int, list[Listed]]:
        """See `ListSimulator`. Chatter before and after the JSON is passed over."""
        rows = _rows(text, placed=placed)
        if not rows:
            raise ReplyError("parse_error", f"expected an object with {RECORDS!r}, found {text[:200]!r}")
        found: dict[int, list[Listed]] = {}
        for row in rows:
            numbers = _activations(row)
            if numbers is None:
                continue
            given = row.get(RECORD)
            number = int(given) if isinstance(given, float) and given.is_integer() else None
            if records == 1 and len(rows) == 1:
                number = 1  # there is no other
            if number is None or number in found:
                raise ReplyError("parse_error", f"a record without a number of its own: {given!r}")
            found[number] = [_listed(entry) for entry in numbers]
        return found


def _activations(row: object) -> list[object] | None:
    numbers = row.get(ACTIVATIONS) if isinstance(row, dict) else None
    return numbers if isinstance(numbers, list) else None


def _listed(entry: object) -> Listed:
    token = None
    if type(entry) is float:
        return Listed(None, entry, None)
    if isinstance(entry, dict):
        token, entry = entry.get(TOKEN), entry.get(ACTIVATION)
    if isinstance(entry, str) and _QUOTED.fullmatch(entry):
        entry = float(entry)
    return Listed(
        token if isinstance(token, str) else None,
        float(entry) if isinstance(entry, float) else None,
        entry.place if isinstance(entry, _Spot) else None,
    )


def _object(properties: dict[str, object]) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _compact(content: object) -> str:
    return msgspec.json.encode(content).decode()


def _rows(text: str, *, placed: bool) -> list[dict[str, object]]:
    """The rows of the answer: of the first JSON in a text that has any; else of rows, or of the longest list, alone."""
    alone: list[dict[str, object]] = []
    longest: list[object] = []
    for start, content in _decoded(text, placed=placed):
        rows = content.get(RECORDS) if isinstance(content, dict) else content
        if isinstance(content, dict) and _activations(content) is not None:
            alone.append(content)
        elif isinstance(rows, list):
            if given := [row for row in rows if _activations(row) is not None]:
                return given
            # of a broken answer only its list of numbers, and not one in a token that it repeats
            if not _ANSWER.search(text, 0, start) or _KEY.search(text, max(0, start - 40), start):
                longest = max(longest, rows, key=len)
    return alone or ([{ACTIVATIONS: longest}] if longest else [])


def _decoded(text: str, *, placed: bool) -> Iterator[tuple[int, object]]:
    """Each JSON object or list in a text that can be read, and where; if asked, numbers know where they stand."""
    start, tries = -1, _TRIES
    while tries and (opening := _OPENING.search(text, start + 1)):
        start = opening.start()
        decoder = _PLAIN
        if placed:
            decoder = _decoder(m.start(1) for m in _STRING_OR_NUMBER.finditer(text, start) if m[1])
        try:
            content, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            tries -= 1
            continue
        yield start, content
        start = end - 1


# A number of any length is a float, perhaps an infinite one, which is on no scale.
_PLAIN = json.JSONDecoder(parse_int=float, parse_float=float, parse_constant=lambda _: None, strict=False)


def _decoder(places: Iterator[int]) -> json.JSONDecoder:
    def number(literal: str) -> object:
        place = next(places, None)
        if place is None:
            return None
        spot = _Spot(literal)
        spot.place = place
        return spot

    return json.JSONDecoder(parse_int=number, parse_float=number, parse_constant=lambda _: None, strict=False)
