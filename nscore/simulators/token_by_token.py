"""`token_by_token`: one request a token, whose answer is one number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nscore.errors import ReplyError
from nscore.exchange import Capabilities, Message, Prompt, Reply
from nscore.records import OK, Status
from nscore.simulators._generated import Generated
from nscore.simulators._prompted import Ask, Need, Predictions, Prompted, Span
from nscore.simulators._prompts import examples, instruction, visible
from nscore.simulators._protocol import simulator

__all__ = ["TokenByToken"]

TOP_LOGPROBS = 15
# The tokens of an example that are shown: the strongest, one of its likes, one silent.
SHOWN = 3
# Not the end of a negative number or of a fraction: those are no answers.
_NUMBER = re.compile(r"(?<![0-9.\-\u2212])[0-9]+")


@simulator("token_by_token")
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenByToken(Prompted):
    """Asks for each token on its own, with the text so far, and takes the expected value of the answer's number.

    The dearest simulator: a record of n tokens takes n requests and about n * n / 2 tokens of text besides the
    instruction; the requests of a record share their beginning. Needs logprobs of generated tokens.

    Source: the one-at-a-time simulator of Bills et al. 2023, "Language models can explain neurons in language models".
    """

    @property
    def name(self) -> str:
        """`token_by_token`."""
        return "token_by_token"

    @property
    def needs(self) -> frozenset[Need]:
        """Logprobs of generated tokens."""
        return frozenset({"logprobs"})

    def asks(self, explanation: str, records: Sequence[Sequence[str]], can: Capabilities) -> Iterator[Ask]:
        """One prompt a token."""
        top = self.top(can)
        head = [Message("system", instruction(self.name, top))]
        for example in examples():
            values = example.values(top)
            for i in sorted({0, *sorted(range(len(values)), key=lambda i: -values[i])[: SHOWN - 1]}):
                head.append(_question(example.explanation, example.tokens, i))
                head.append(Message("assistant", str(values[i])))
        for index, tokens in enumerate(records):
            for i in range(len(tokens)):
                prompt = Prompt(
                    (*head, _question(explanation, tokens, i)),
                    max_tokens=2,
                    logprobs=TOP_LOGPROBS,
                    temperature=self.warmth,
                )
                yield Ask(prompt, (Span(index, i, i + 1),))

    def read(self, ask: Ask, records: Sequence[Sequence[str]], reply: Reply, can: Capabilities) -> list[Predictions]:
        """The expected value at the answer's number; see `PromptSimulator.read`."""
        del ask, records
        if reply.finish == "refused":
            raise ReplyError("refused", "the model refused")
        if reply.tokens is None:
            raise ReplyError("parse_error", "the reply holds no logprobs")
        number = _NUMBER.search(reply.text)
        if number is None:
            status: Status = "truncated" if reply.finish == "length" and not reply.text.strip() else "parse_error"
            raise ReplyError(status, f"expected a number, found {reply.text[:200]!r}")
        answer = Generated(reply.text, reply.tokens, [number.start()]).expected(number.start(), self.top(can))
        if answer is None:
            return [Predictions(["no_answer"], [None], [None], [None])]
        return [Predictions([OK], [answer.value], [answer.mass], [answer.distribution])]


def _question(explanation: str, tokens: Sequence[str], index: int) -> Message:
    text = visible("".join(tokens[: index + 1]))
    return Message(
        "user", f"The neuron fires on: {visible(explanation)}\nText: {text}\nLast token: {visible(tokens[index])}"
    )
