"""What the simulators share whose answer is a list of numbers: several records a prompt, one number a token."""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from nscore.errors import ReplyError, SimulatorError
from nscore.exchange import Capabilities, Message, Prompt, Reply
from nscore.records import OK
from nscore.simulators._generated import Generated
from nscore.simulators._prompted import Ask, Need, Predictions, Prompted, Span
from nscore.simulators._prompts import examples, visible

__all__ = ["ListSimulator", "Listed"]

TOP_LOGPROBS = 15
# A character has at most so many in its longest compatible form.
_COMPATIBLE = 18
_WORD_OR_SIGN = re.compile(r"[A-Za-z]+|[^A-Za-z]")


class Listed(NamedTuple):
    """One entry of an answer.

    Attributes:
        token: the token it repeats; None where it repeats none.
        value: the number it gives; None where that is no number of the scale.
        place: where in the answer's text the number stands; None where that is not known.
    """

    token: str | None
    value: float | None
    place: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSimulator(Prompted):
    """A simulator whose answers are lists.

    Args:
        pack: how many records of one explanation are asked for in one prompt, so that its instruction and examples are
        paid for once. A reply that lacks one record fails that record only.
    """

    pack: int = 1

    def __post_init__(self) -> None:
        Prompted.__post_init__(self)
        if self.pack < 1:
            raise SimulatorError(f"{self.name}: pack={self.pack}: at least one record a prompt")

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing but answers."""
        return frozenset()

    def top(self, can: Capabilities) -> int:
        """10, or 9 where expected values are read and "10" is not one token."""
        return 10 if not can.logprobs or can.ten == 1 else 9

    def asks(self, explanation: str, records: Sequence[Sequence[str]], can: Capabilities) -> Iterator[Ask]:
        """A prompt for every `pack` records."""
        head = [Message("system", self.instruction(self.top(can)))]
        for example in examples():
            head.append(Message("user", self.question(example.explanation, [example.tokens])))
            head.append(Message("assistant", self.answer([example.tokens], [example.values(self.top(can))])))
        for start in range(0, len(records), self.pack):
            packed = records[start : start + self.pack]
            lengths = [len(tokens) for tokens in packed]
            yield Ask(
                Prompt(
                    (*head, Message("user", self.question(explanation, packed))),
                    max_tokens=self.room(packed),
                    logprobs=min(TOP_LOGPROBS, can.logprobs),
                    schema=self.schema(lengths, self.top(can)) if can.structured else None,
                    temperature=self.warmth,
                ),
                tuple(Span(start + i, 0, n) for i, n in enumerate(lengths)),
            )

    def read(self, ask: Ask, records: Sequence[Sequence[str]], reply: Reply, can: Capabilities) -> list[Predictions]:
        """The numbers of each record, or what is wrong with them; see `PromptSimulator.read`."""
        if reply.finish == "refused":
            raise ReplyError("refused", f"the model refused: {reply.text[:200]}")
        cut = reply.finish == "length"
        try:
            listed = self.parse(reply.text, len(ask.spans), placed=reply.tokens is not None)
        except ReplyError:
            if cut:
                raise ReplyError("truncated", "the answer ended at its limit") from None
            raise
        lengths = [span.stop - span.start for span in ask.spans]
        fitting = [_of_length(listed.get(number), length) for number, length in enumerate(lengths, 1)]
        generated = None
        if reply.tokens is not None:
            places = [e.place for entries in fitting if entries for e in entries if e.place is not None]
            generated = Generated(reply.text, reply.tokens, places)
        result = []
        for span, length, entries in zip(ask.spans, lengths, fitting, strict=True):
            if entries is None:
                result.append(Predictions.none("truncated" if cut else "length_mismatch", length))
            else:
                tokens = records[span.record][span.start : span.stop]
                result.append(self._predicted(tokens, entries, generated, self.top(can)))
        return result

    def _predicted(
        self, tokens: Sequence[str], entries: Sequence[Listed], generated: Generated | None, top: int
    ) -> Predictions:
        if generated is None and all(entry.token is None for entry in entries):
            values = [e.value if e.value is not None and 0 <= e.value <= top else None for e in entries]
            return Predictions(["parse_error" if v is None else OK for v in values], values)
        found = Predictions([], [], [], [])
        for token, entry in zip(tokens, entries, strict=True):
            same = entry.token is None or _repeats(entry.token, token)
            value = entry.value if entry.value is not None and 0 <= entry.value <= top else None
            chances = None
            if same and value is not None and generated is not None and entry.place is not None:
                chances = generated.expected(entry.place, top)
            found.status.append("length_mismatch" if not same else "parse_error" if value is None else OK)
            found.predicted.append(None if not same else chances.value if chances else value)
            found.digit_mass.append(chances.mass if chances else None)
            found.distribution.append(chances.distribution if chances else None)
        return found

    @abstractmethod
    def instruction(self, top: int) -> str:
        """What the model is to do."""

    @abstractmethod
    def question(self, explanation: str, records: Sequence[Sequence[str]]) -> str:
        """An explanation and numbered records, as the user's turn."""

    @abstractmethod
    def answer(self, records: Sequence[Sequence[str]], values: Sequence[Sequence[int]]) -> str:
        """The turn of a model that does as it is told."""

    @abstractmethod
    def parse(self, text: str, records: int, *, placed: bool) -> Mapping[int, list[Listed]]:
        """The entries of each record by its number, if asked with their places.

        Raises:
            ReplyError: if there is no list at all.
        """

    def room(self, records: Sequence[Sequence[str]]) -> int:
        """More tokens than an answer about the records can have: each byte of a token, each sign around it, each word.

        No more than that: servers refuse limits beyond their own.
        """
        one, longer, two = _signs(self, (1,)), _signs(self, (2,)), _signs(self, (1, 1))
        tokens = sum(map(len, records))
        signs = one + (len(records) - 1) * (two - one) + (tokens - len(records)) * (longer - one)
        # all tokens as one: a text takes as many bytes in an answer as its characters do
        together = "".join(token for record in records for token in record)
        written = len(self.answer([[together]], [[0]]).encode()) - len(self.answer([[""]], [[0]]).encode())
        # a blank before each number; 32 for what surrounds the answer
        return signs + written + tokens + 32

    def schema(self, lengths: Sequence[int], top: int) -> Mapping[str, object] | None:
        """The JSON schema of an answer about records of these lengths, where it is JSON."""
        del lengths, top
        return None


@cache
def _signs(simulator: ListSimulator, lengths: tuple[int, ...]) -> int:
    """The words and signs of an answer about records of these lengths whose tokens are empty."""
    frame = simulator.answer([[""] * n for n in lengths], [[10] * n for n in lengths])
    return len(_WORD_OR_SIGN.findall(frame))


def _of_length(entries: list[Listed] | None, length: int) -> list[Listed] | None:
    return entries if entries is not None and len(entries) == length else None


def _repeats(repeated: str, token: str) -> bool:
    """Whether a token was repeated as models do."""
    # to normalize a long row of accents takes quadratic time
    if len("".join(repeated.split())) > _COMPATIBLE * (1 + len(visible(token))):
        return False
    return not _plain(repeated).isdisjoint(_plain(token))


def _plain(token: str) -> set[str]:
    """A token as models repeat it: without regard to blanks, to compatible forms, and to what could not be decoded.

    Blanks come as the escapes that were shown, as themselves, or not at all.
    """
    texts = (unicodedata.normalize("NFKC", each).replace("\ufffd", "") for each in (token, visible(token)))
    return {"".join(text.split()) for text in texts}
