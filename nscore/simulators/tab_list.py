"""`tab_list`: a chat model repeats the tokens, one a line, each with a tab and a number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nscore.errors import ReplyError
from nscore.exchange import Capabilities, Reply
from nscore.simulators._lists import Listed, ListSimulator
from nscore.simulators._prompted import Ask, Predictions
from nscore.simulators._prompts import instruction, visible
from nscore.simulators._protocol import simulator

__all__ = ["TabList"]

END = "# End"
_RECORD = re.compile(r"#+ ?[Rr]ecord ([0-9]{1,4}):?\s*")
_NUMBER = re.compile(r"-?[0-9]{1,4}(?:\.[0-9]{1,17})?")


@simulator("tab_list")
@dataclass(frozen=True, slots=True, kw_only=True)
class TabList(ListSimulator):
    """Asks a chat model for lines `token<TAB>number`, which small models hold better than JSON.

    Lines in any other form, before, between and after, are passed over. A line that repeats another token is a
    `length_mismatch` of that token. Where the server gives logprobs of generated tokens, a prediction is the expected
    value at the number instead of the number.

    Source: after the logprob-free simulator of OpenAI's automated-interpretability, whose last token is always lost.
    """

    @property
    def name(self) -> str:
        """`tab_list`."""
        return "tab_list"

    def instruction(self, top: int) -> str:
        """See `ListSimulator`."""
        return instruction(self.name, top)

    def question(self, explanation: str, records: Sequence[Sequence[str]]) -> str:
        """See `ListSimulator`."""
        parts = [f"The neuron fires on: {visible(explanation)}"]
        for i, tokens in enumerate(records, 1):
            parts += [f"# Record {i}", *(visible(t) for t in tokens)]
        parts.append(END)  # some chat templates drop the blanks at the end, which may be tokens
        return "\n".join(parts)

    def answer(self, records: Sequence[Sequence[str]], values: Sequence[Sequence[int]]) -> str:
        """See `ListSimulator`."""
        parts = []
        for i, (tokens, numbers) in enumerate(zip(records, values, strict=True), 1):
            parts.append(f"# Record {i}")
            parts += [f"{visible(t)}\t{v}" for t, v in zip(tokens, numbers, strict=True)]
        return "\n".join(parts)

    def read(self, ask: Ask, records: Sequence[Sequence[str]], reply: Reply, can: Capabilities) -> list[Predictions]:
        """See `ListSimulator`."""
        if reply.finish == "length":  # the last line may hold but the first digit of its number
            reply = replace(reply, text=reply.text.rpartition("\n")[0])
        return ListSimulator.read(self, ask, records, reply, can)

    def parse(self, text: str, records: int, *, placed: bool) -> Mapping[int, list[Listed]]:
        """See `ListSimulator`."""
        del placed  # it costs nothing here
        found: dict[int, list[Listed]] = {}
        entries: list[Listed] | None = None
        at = 0
        for line in text.split("\n"):
            if head := _RECORD.fullmatch(line):
                number = int(head[1])
                if number in found:
                    raise ReplyError("parse_error", f"record {number} comes twice")
                entries = found[number] = []
            elif given := _numbered(line, at):
                if entries is None and records == 1:
                    entries = found.setdefault(1, [])
                if entries is not None:
                    entries.append(given)
            at += len(line) + 1
        if entries and entries[-1].token == END:
            entries.pop()  # repeated, and numbered, with the rest
        if not found:
            raise ReplyError("parse_error", f"expected lines of a token, a tab and a number, found {text[:200]!r}")
        return found


def _numbered(line: str, at: int) -> Listed | None:
    """The entry on a line that begins at an offset of the text, if it ends in a tab and a number, blanks aside."""
    # by hand: a pattern of it all takes quadratic time on a line of tabs
    token, tab, behind = line.rstrip().rpartition("\t")
    number = behind.lstrip()
    if not (tab and _NUMBER.fullmatch(number)):
        return None
    return Listed(token, float(number), at + len(token) + 1 + len(behind) - len(number))
