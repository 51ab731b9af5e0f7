"""The probe: a few small requests that find out what a model server can do, whatever it says of itself."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Literal

import msgspec

from nscore._align import locate
from nscore._loop import run_to_end
from nscore._retry import verdict
from nscore._transport import Answer, Transport
from nscore.backends import Backend
from nscore.errors import BackendError, ReplyError
from nscore.exchange import Capabilities, Message, Prompt, Reply
from nscore.simulators import SIMULATORS, PromptSimulator

__all__ = ["aprobe", "check_needs", "probe"]

TRIES = 8
# How far the logprob of one token may differ between two requests: servers batch, and round.
NEAR = 0.15
TEXT = "The colours were red,\t10\nblue,\t0\nand green,\tunknown\n"
PLACES = (TEXT.index("10"), TEXT.index("unknown"))
SCHEMA = {
    "type": "object",
    "properties": {"sizes": {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3}},
    "required": ["sizes"],
    "additionalProperties": False,
}

Post = Callable[[str, bytes], Awaitable[Answer]]


def probe(backend: Backend, *, timeout_s: float = 60.0) -> Capabilities:
    """Asks a model server what it can do, by about five small requests. `aprobe` is its async twin.

    Args:
        backend: the server.
        timeout_s: the longest that it may take for one of them.

    Returns:
        What it was found to do.

    Raises:
        BackendError: if it cannot be reached, refuses the key or the model, or answers nothing that can be read.
    """
    return run_to_end(lambda: aprobe(backend, timeout_s=timeout_s))


async def aprobe(backend: Backend, *, timeout_s: float = 60.0) -> Capabilities:
    """See `probe`."""
    transport = Transport(
        backend.address,
        backend.headers(),
        timeout_s=timeout_s,
        secrets=backend.secrets(),
    )
    try:
        return await _Probe(backend, transport.post).found()
    finally:
        await transport.aclose()


def check_needs(simulators: Sequence[PromptSimulator], can: Capabilities, backend: Backend) -> None:
    """Raises a `BackendError` if a simulator needs what the server cannot do; it says which simulator would work."""
    has = {
        "chat": can.chat,
        "completions": can.completions,
        "logprobs": can.logprobs > 0,
        "prompt_logprobs": can.prompt_logprobs > 0 and can.aligned is not False,
    }
    for simulator in simulators:
        missing = sorted(need for need in simulator.needs if not has[need])
        if missing:
            made = [(name, SIMULATORS[name]()) for name in SIMULATORS]
            would = [n for n, s in made if isinstance(s, PromptSimulator) and all(has[need] for need in s.needs)]
            raise BackendError(
                f"{simulator.name} cannot work with {backend.model} at {backend.url}: "
                + "; ".join(_MISSING[m] for m in missing)
                + (" (those it gives stand at other tokens than their own)" if can.aligned is False else "")
                + f". Simulators that would work there: {', '.join(would) or 'none'}."
            )


_MISSING = {
    "chat": "it takes no conversations",
    "completions": "it has no completions of plain text",
    "logprobs": "it gives no logprobs of generated tokens",
    "prompt_logprobs": "it gives no logprobs of the tokens of a prompt",
}


class _Probe:
    """One server, asked step by step; each step knows what the ones before found."""

    def __init__(self, backend: Backend, post: Post) -> None:
        self._backend, self._post = backend, post
        self.can = backend.assumed

    async def found(self) -> Capabilities:
        """Asks everything."""
        await self._chat()
        if self._backend.assumed.structured and self.can.chat:
            self.can = replace(self.can, structured=await self._structured())
        if self._backend.assumed.completions:
            await self._completions()
        if not self.can.chat and not self.can.completions:
            raise BackendError(f"{self._where}: it has neither chat nor completions")
        return self.can

    @property
    def _where(self) -> str:
        return f"{self._backend.model} at {self._backend.url}"

    async def _chat(self) -> None:
        """Does it answer, with logprobs, and as how many tokens does it write 10?"""
        asked = Prompt(
            (Message("user", "Write the number 10 and nothing else."),),
            max_tokens=16,
            logprobs=self._backend.assumed.logprobs,
        )
        reply = await self._ask(asked, "chat")
        if reply is None:
            return
        given = 0 if reply.tokens is None else _depth(reply)
        self.can = replace(
            self.can,
            logprobs=min(given, self.can.logprobs),
            thinks=reply.thought or (reply.finish == "length" and not reply.text.strip()),
            ten=_ten(reply),
        )

    async def _structured(self) -> bool:
        asked = Prompt((Message("user", "Write the word hello."),), max_tokens=64, schema=SCHEMA)
        reply = await self._ask(asked, "structured")
        try:
            content = json.loads(reply.text) if reply is not None else None
        except ValueError:
            return False
        sizes = content.get("sizes") if isinstance(content, dict) else None
        return isinstance(sizes, list) and len(sizes) == 3 and all(isinstance(s, int) for s in sizes)

    async def _completions(self) -> None:
        """Do the logprobs of a prompt come, and do they stand at their tokens?"""
        echo = Prompt(
            (Message("user", TEXT),), form="text", max_tokens=1, prompt_logprobs=self._backend.assumed.prompt_logprobs
        )
        reply = await self._ask(echo, "completions")
        if reply is None:
            return
        found = None if reply.prompt is None else locate(TEXT, PLACES, reply.prompt.texts, reply.prompt.exact)
        if reply.prompt is None or found is None:
            self.can = replace(self.can, prompt_logprobs=0, aligned=None)
            if not self.can.chat:
                await self._text_logprobs()
            return
        ten, unknown = found
        depth = len(reply.prompt.top(unknown.index))
        whole = reply.prompt.texts[ten.index][len(ten.prefix) :].strip()
        self.can = replace(
            self.can,
            prompt_logprobs=min(self.can.prompt_logprobs, depth),
            ten=1 if whole.startswith("10") else 2,
            aligned=await self._aligned() if depth else None,
        )
        if not self.can.chat:
            await self._text_logprobs()

    async def _text_logprobs(self) -> None:
        """Where there is no chat: do logprobs come with what is generated after a plain text?"""
        asked = Prompt((Message("user", TEXT),), form="text", max_tokens=1, logprobs=self._backend.assumed.logprobs)
        reply = await self._ask(asked, "completions")
        self.can = replace(self.can, logprobs=0 if reply is None or reply.tokens is None else _depth(reply))

    async def _aligned(self) -> bool | None:
        """Whether a token that is generated has the same logprob when it stands in a prompt."""
        text = TEXT + "Of these, the brightest is"
        asked = Prompt((Message("user", text),), form="text", max_tokens=1, logprobs=self.can.prompt_logprobs)
        reply = await self._ask(asked, "completions")
        if reply is None or reply.tokens is None or not reply.tokens.texts or not reply.text.strip():
            return None
        written = reply.tokens.texts[0]
        there = dict(reply.tokens.top(0)).get(written)
        longer = Prompt(
            (Message("user", text + reply.text + " of all\n"),),
            form="text",
            max_tokens=1,
            prompt_logprobs=self.can.prompt_logprobs,
        )
        again = await self._ask(longer, "completions")
        if there is None or again is None or again.prompt is None:
            return None
        # the token begins where the text ended; a blank in it may not
        found = locate(longer.text, [len(text) + len(reply.text) - len(reply.text.lstrip())], again.prompt.texts)
        if found is None:
            return None
        here = dict(again.prompt.top(found[0].index))
        near = [p for t, p in here.items() if t.strip() == written.strip()]
        return any(math.isclose(p, there, abs_tol=NEAR) for p in near)

    async def _ask(self, prompt: Prompt, what: str) -> Reply | None:
        """A reply, once the server's names for things are found; None where it has no such route."""
        for _ in range(TRIES):
            call = self._backend.call(prompt, self.can)
            answer = await self._post(call.path, msgspec.json.encode(call.body, order="sorted"))
            status = answer.outcome.http_status
            if status is None:
                raise BackendError(f"{self._where}: {answer.outcome.kind} failed: {answer.outcome.detail}")
            if verdict(status, answer.body) == "ok":
                try:
                    return self._backend.read(answer.body)
                except ReplyError as error:
                    if what == "chat":
                        raise BackendError(f"{self._where}: {error}") from error
                    return None
            if not self._learn(status, answer, what):
                return None
        raise BackendError(f"{self._where}: it went on refusing the {what} request: {answer.outcome.detail}")

    def _learn(self, status: int, answer: Answer, what: str) -> bool:
        """Takes from a refusal what to leave out; False where the route is missing."""
        said = answer.outcome.detail
        lower = said.lower()
        if status in {404, 405, 501} and what in {"chat", "completions"} and "model" not in lower:
            self.can = replace(self.can, chat=False) if what == "chat" else replace(self.can, completions=False)
            return False
        if status in {400, 422}:
            changes: list[tuple[bool, dict[str, object]]] = [
                (
                    "max_completion_tokens" in lower and self.can.limit == "max_tokens",
                    {"limit": "max_completion_tokens"},
                ),
                ("temperature" in lower and self.can.temperature, {"temperature": False}),
                ("prompt_logprobs" in lower or "echo" in lower, {"prompt_logprobs": 0}),
                ("logprobs" in lower and what == "chat" and self.can.logprobs > 5, {"logprobs": 5}),
                ("logprobs" in lower and what == "chat" and self.can.logprobs > 0, {"logprobs": 0}),
                ("logprobs" in lower and self.can.prompt_logprobs > 5, {"prompt_logprobs": 5}),
                ("logprobs" in lower and self.can.prompt_logprobs > 0, {"prompt_logprobs": 0}),
                ("chat template" in lower or "chat_template" in lower, {"chat": False}),
            ]
            change = next((c for applies, c in changes if applies), None)
            if change is not None:
                self.can = replace(self.can, **change)  # type: ignore[arg-type]
                return self.can.chat or what != "chat"
            if what == "structured":
                return False
        raise BackendError(f"{self._where}: status {status}: {said}")


def _depth(reply: Reply) -> int:
    """How many alternatives come with a generated token."""
    tokens = reply.tokens
    return 0 if tokens is None else max((len(tokens.top(i)) for i in range(len(tokens.texts))), default=0)


def _ten(reply: Reply) -> Literal[1, 2] | None:
    """As how many tokens a reply writes 10."""
    if reply.tokens is None or "10" not in reply.text:
        return None
    return 1 if any(text.strip() == "10" for text in reply.tokens.texts) else 2
