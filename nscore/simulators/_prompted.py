"""What a simulator is that asks a language model: records to prompts, replies to predictions. It does no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from nscore.errors import SimulatorError
from nscore.exchange import Capabilities, Prompt, Reply
from nscore.records import Status
from nscore.simulators._prompts import version

__all__ = ["Ask", "Predictions", "PromptSimulator", "Prompted", "Span"]

Need = Literal["chat", "completions", "logprobs", "prompt_logprobs"]


class Span(NamedTuple):
    """Tokens `start` to `stop` (exclusive) of a record, given by its place among those that were handed over."""

    record: int
    start: int
    stop: int


class Ask(NamedTuple):
    """A prompt, and the tokens whose activations its reply is to give."""

    prompt: Prompt
    spans: tuple[Span, ...]


@dataclass(slots=True)
class Predictions:
    """One value for each token of a span.

    Attributes:
        status: what became of each token.
        predicted: on the scale 0 to 10, or 0 to 9; None where the status is not `ok`.
        digit_mass: the probability of all valid activations, where logprobs are read.
        distribution: the probability of each activation, where logprobs are read.
    """

    status: list[Status]
    predicted: list[float | None]
    digit_mass: list[float | None] = field(default_factory=list)
    distribution: list[list[float] | None] = field(default_factory=list)

    @classmethod
    def none(cls, status: Status, tokens: int) -> Predictions:
        """No predictions, for one reason."""
        return cls([status] * tokens, [None] * tokens)


@runtime_checkable
class PromptSimulator(Protocol):
    """A simulator that asks a language model."""

    @property
    def name(self) -> str:
        """The value of the key column `simulator` in its results."""

    @property
    def version(self) -> str:
        """Its name and the version of its prompts."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it cannot do without."""

    @property
    def replicates(self) -> int:
        """How many answers to each prompt are averaged."""

    @property
    def max_record_tokens(self) -> int:
        """The longest record that is sent whole."""

    @property
    def long_records(self) -> Literal["refuse", "cut"]:
        """What becomes of longer ones."""

    def top(self, can: Capabilities) -> int:
        """The end of the scale that the model is asked to use: 10, or 9."""

    def asks(self, explanation: str, records: Sequence[Sequence[str]], can: Capabilities) -> Iterator[Ask]:
        """The prompts that ask for every token of some records of one neuron."""

    def read(self, ask: Ask, records: Sequence[Sequence[str]], reply: Reply, can: Capabilities) -> list[Predictions]:
        """What a reply says, for each span of the prompt.

        Raises:
            ReplyError: if it says nothing at all.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted:
    """What all simulators that ask a model have in common.

    Args:
        replicates: how many answers to each prompt are averaged; the spread between them is kept.
        temperature: 0 for the likeliest answer; left out, 0, or 1 where there are replicates.
        max_record_tokens: the longest record that is sent whole.
        long_records: what becomes of longer ones: `refuse` sends nothing and marks every token `too_long`; `cut`
            sends the first `max_record_tokens` tokens and marks the others `too_long`.
    """

    replicates: int = 1
    temperature: float | None = None
    max_record_tokens: int = 512
    long_records: Literal["refuse", "cut"] = "refuse"

    def __post_init__(self) -> None:
        if self.replicates < 1 or self.max_record_tokens < 1:
            raise SimulatorError(f"{self.name}: replicates and max_record_tokens are at least 1")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise SimulatorError(f"{self.name}: temperature={self.temperature}: expected a number from 0 on")
        if self.replicates > 1 and self.temperature == 0:
            raise SimulatorError(f"{self.name}: replicates at temperature 0 are the same answer; leave temperature out")
        if self.long_records not in {"refuse", "cut"}:
            raise SimulatorError(f"{self.name}: long_records={self.long_records!r}: expected 'refuse' or 'cut'")

    @property
    def name(self) -> str:
        """The name on the shelf."""
        raise NotImplementedError

    @property
    def version(self) -> str:
        """The name and the version of the prompts."""
        return version(self.name)

    @property
    def warmth(self) -> float:
        """The temperature that is asked for."""
        if self.temperature is not None:
            return self.temperature
        return 0.0 if self.replicates == 1 else 1.0

    def top(self, can: Capabilities) -> int:
        """10 where "10" is one token, else 9: the probability of "1" would hold that of "10" too."""
        return 10 if can.ten == 1 else 9
