"""`all_at_once`: one prompt shows every token as unknown; the logprobs of the prompt say what the model expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nscore._sending.align import Found, locate
from nscore.errors import ReplyError, SimulatorError
from nscore.exchange import Capabilities, Message, Prompt, Reply, TokenLogprobs
from nscore.records import OK
from nscore.simulators._prompted import Ask, Need, Predictions, Prompted, Span
from nscore.simulators._prompts import Example, examples, instruction, visible
from nscore.simulators._protocol import simulator
from nscore.simulators._values import expected

__all__ = ["AllAtOnce"]

UNKNOWN = "unknown"
TOP_LOGPROBS = 15


@simulator("all_at_once")
@dataclass(frozen=True, slots=True, kw_only=True)
class AllAtOnce(Prompted):
    """Reads the expected activation of every token of a record from the logprobs of one prompt.

    The prompt gives each token as a line `token<TAB>unknown`. At each `unknown` the probabilities of the numbers 0 to
    10 (0 to 9 where "10" is two tokens) are brought to 1, and their mean is the prediction; `digit_mass` is what they
    were together before. The places are found by their offset in the prompt. Needs a server that gives logprobs of the
    tokens of a prompt: vLLM, SGLang, llama-cpp-python.

    Source: the all-at-once simulator of Bills et al. 2023, "Language models can explain neurons in language models".
    """

    def __post_init__(self) -> None:
        Prompted.__post_init__(self)
        if self.replicates > 1 or self.temperature:
            raise SimulatorError(
                f"{self.name} samples nothing: replicates and temperature are for the other simulators"
            )

    @property
    def name(self) -> str:
        """`all_at_once`."""
        return "all_at_once"

    @property
    def needs(self) -> frozenset[Need]:
        """Logprobs of the prompt."""
        return frozenset({"completions", "prompt_logprobs"})

    def asks(self, explanation: str, records: Sequence[Sequence[str]], can: Capabilities) -> Iterator[Ask]:
        """One prompt a record."""
        top = self.top(can)
        shown = "\n".join(_example(i, example, top) for i, example in enumerate(examples(), 1))
        head = f"{instruction(self.name, top)}\n\n{shown}\n{_head(len(examples()) + 1, explanation)}"
        for index, tokens in enumerate(records):
            lines, places, at = [], [], len(head)
            for token in tokens:
                text = visible(token)
                places.append(at + len(text) + 1)
                lines.append(f"{text}\t{UNKNOWN}\n")
                at += len(lines[-1])
            text = f"{head}{''.join(lines)}<end>\n"
            yield Ask(
                Prompt(
                    (Message("user", text),),
                    form="text",
                    max_tokens=1,
                    prompt_logprobs=TOP_LOGPROBS,
                    places=tuple(places),
                ),
                (Span(index, 0, len(tokens)),),
            )

    def read(self, ask: Ask, records: Sequence[Sequence[str]], reply: Reply, can: Capabilities) -> list[Predictions]:
        """The expected value at each place; see `PromptSimulator.read`."""
        del records
        if reply.prompt is None:
            raise ReplyError("parse_error", "the reply holds no logprobs of the prompt")
        found = _located(ask.prompt.text, ask.prompt.places, reply.prompt)
        if found is None:
            raise ReplyError("parse_error", "the tokens in the reply are not those of the prompt")
        top = self.top(can)
        # of a token that holds several places only the first can be answered: no number begins with the others
        before = [None, *(place.index for place in found)]
        at = [
            expected(reply.prompt.top(place.index), top, place.prefix) if place.index != last else None
            for place, last in zip(found, before, strict=False)
        ]
        return [
            Predictions(
                [OK if e else "no_answer" for e in at],
                [e.value if e else None for e in at],
                [e.mass if e else None for e in at],
                [e.distribution if e else None for e in at],
            )
        ]


def _located(prompt: str, places: Sequence[int], tokens: TokenLogprobs) -> list[Found] | None:
    """See `locate`."""
    found = locate(prompt, places, tokens.texts, tokens.exact)
    if found is not None or not tokens.texts or tokens.texts[0]:
        return found
    # vLLM does not spell a prompt's first token. Where it is no BOS, it is of the first word, which can be missed.
    word = prompt.index(" ")
    return locate(prompt[word:], [place - word for place in places], tokens.texts, tokens.exact)


def _head(number: int, explanation: str) -> str:
    return f"Neuron {number} fires on: {visible(explanation)}\n<start>\n"


def _example(number: int, example: Example, top: int) -> str:
    values = [UNKNOWN] * example.unknown + [str(v) for v in example.values(top)[example.unknown :]]
    lines = "".join(f"{t}\t{v}\n" for t, v in zip(example.tokens, values, strict=True))
    return f"{_head(number, example.explanation)}{lines}<end>\n"
