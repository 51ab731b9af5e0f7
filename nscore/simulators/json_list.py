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
# Strings are matched whole, so that a number in one is none, and without a way back, which takes room a character.
_STRING_OR_NUMBER = re.compile(r'"(?:[^"\\]++|\\.)*+"|(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)', re.DOTALL)
_ANSWER = re.compile(rf'\{{\s*"(?:{RECORDS}|{RECORD})"')
_KEY = re.compile(rf'"{ACTIVATIONS}"\s*:\s*\Z')
_OPENING = re.compile(r"[{\[]")
_QUOTED = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,17})?")
_NOT_ZERO = re.compile(r"-?[0.]*[1-9]")
# Where chatter holds brackets, or an answer is broken, later ones are tried: so often, and so many characters in all.
_TRIES, _CHARACTERS = 20, 1 << 20
# To begin to read takes as long as to read so many.
_BEGINNING = 100


class _Spot(float):
    """A number and where it stands."""

    __slots__ = ("place",)
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
        for given, numbers in rows:
            number = int(given) if isinstance(given, float) and given.is_integer() else None
            if records == 1 and len(rows) == 1:
                number = 1  # there is no other
            if number is None or number in found:
                raise ReplyError("parse_error", f"a record without a number of its own in {text[:200]!r}")
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


def _rows(text: str, *, placed: bool) -> list[tuple[object, list[object]]]:
    """The record and the numbers of each row of an answer; if asked, numbers know where they stand.

    The rows are those of the first JSON in a text that has any; else they stand alone, or the longest list does.
    """
    alone: list[tuple[int, object]] = []
    longest: tuple[int, object] = (0, [])
    answer = _ANSWER.search(text)
    for start, content in _decoded(text):
        rows = _listed_in(content)
        if _activations(content) is not None:
            alone.append((start, content))
        elif rows and any(_activations(row) is not None for row in rows):
            return _with_activations(_listed_in(_read(text, start, content, placed=placed)))
        # of a broken answer only its list of numbers, and not one in a token that it repeats
        elif answer is None or answer.end() > start or _KEY.search(text, max(0, start - 40), start):
            longest = max(longest, (start, content), key=lambda found: len(_listed_in(found[1])))
    if alone:
        return _with_activations([_read(text, *each, placed=placed) for each in alone])
    numbers = _listed_in(longest[1]) and _listed_in(_read(text, *longest, placed=placed))
    return [(None, numbers)] if numbers else []


def _listed_in(content: object) -> list[object]:
    rows = content.get(RECORDS) if isinstance(content, dict) else content
    return rows if isinstance(rows, list) else []


def _with_activations(rows: list[object]) -> list[tuple[object, list[object]]]:
    given = ((row.get(RECORD), _activations(row)) for row in rows if isinstance(row, dict))
    return [(record, numbers) for record, numbers in given if numbers is not None]


def _decoded(text: str) -> Iterator[tuple[int, object]]:
    """Each JSON object or list in a text that can be read, and where."""
    start, tries, left = -1, _TRIES, _CHARACTERS + 4 * len(text)
    while tries and left > 0 and (opening := _OPENING.search(text, start + 1)):
        start = opening.start()
        try:
            content, end = _PLAIN.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            tries -= 1
            left -= getattr(error, "pos", len(text)) - start
            continue
        yield start, content
        left -= end - start + _BEGINNING
        start = end - 1


def _read(text: str, start: int, content: object, *, placed: bool) -> object:
    """The content that stands at a place of a text; if asked, its numbers know where they stand."""
    if not placed:
        return content
    places = (m.start(1) for m in _STRING_OR_NUMBER.finditer(text, start) if m[1])

    def number(literal: str) -> object:
        place, value = next(places, None), _number(literal)
        if place is None or value is None:
            return value
        spot = _Spot(value)
        spot.place = place
        return spot

    decoder = json.JSONDecoder(parse_int=number, parse_float=number, parse_constant=lambda _: None, strict=False)
    try:
        return decoder.raw_decode(text, start)[0]
    except RecursionError:  # it was nested just not too deeply
        return content


def _number(literal: str) -> float | None:
    """A number; of any length, and perhaps infinite, which is on no scale. One that is only nearly 0 is none."""
    number = float(literal)
    return None if number == 0 and _NOT_ZERO.match(literal) else number


_PLAIN = json.JSONDecoder(parse_int=float, parse_float=_number, parse_constant=lambda _: None, strict=False)
