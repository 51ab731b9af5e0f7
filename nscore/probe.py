"""The probe: a few small requests that find out what a model server can do, whatever it says of itself."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import fields, replace
from itertools import accumulate
from typing import Literal

import msgspec

from nscore._sending.align import locate
from nscore._sending.loop import run_to_end
from nscore._sending.retry import Retries, verdict
from nscore._sending.transport import Answer, Transport
from nscore.backends import Backend, members_of
from nscore.errors import BackendError, ReplyError
from nscore.exchange import Capabilities, Message, Prompt, Reply, TokenLogprobs
from nscore.simulators import SIMULATORS, PromptSimulator

__all__ = ["aprobe", "check_needs", "probe"]

# Refusals that teach something, for one request.
TRIES = 6
# A busy server is asked again, but nobody waits long for a probe.
RETRIES = Retries(attempts=4, base_s=0.5, longest_backoff_s=4.0, longest_wait_s=20.0)
# How far the logprob of one token may differ between two requests: servers batch, and round.
NEAR = 0.15
TEXT = "The colours were red,\t10\nblue,\t0\nand green,\tunknown\n"
LONGER = TEXT + "Of these, the brightest is"
PLACES = (TEXT.index("10"), TEXT.index("unknown"))
SCHEMA = {
    "type": "object",
    "properties": {"sizes": {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3}},
    "required": ["sizes"],
    "additionalProperties": False,
}

# How servers say that they will not, whatever the number.
_NEVER = re.compile(
    r"not (?:be )?(?:supported|allowed|enabled|available|permitted|implemented)|n't support|unsupported|not support"
)
_PART = "\ufffd"

Post = Callable[[str, bytes], Awaitable[Answer]]


def probe(backend: Backend, *, timeout_s: float = 60.0) -> Capabilities:
    """Asks a model server what it can do, by five to eight small requests. `aprobe` is its async twin.

    Args:
        backend: the server; of several (`Servers`), each is asked, and those that answer must be able to do the same.
        timeout_s: the longest that it may take for one of them.

    Returns:
        What it was found to do.

    Raises:
        BackendError: if it cannot be reached, refuses the key or the model, or answers nothing that can be read.

    Examples:
        >>> from nscore import OpenAI
        >>> probe(OpenAI(model="tiny", base_url="http://127.0.0.1:9/v1"))
        Traceback (most recent call last):
        nscore.errors.BackendError: tiny at http://127.0.0.1:9/v1: ...
    """
    return run_to_end(lambda: aprobe(backend, timeout_s=timeout_s))


async def aprobe(backend: Backend, *, timeout_s: float = 60.0) -> Capabilities:
    """The async twin of `probe`.

    Examples:
        >>> from nscore import OpenAI
        >>> import asyncio
        >>> asyncio.run(aprobe(OpenAI(model="tiny", base_url="http://127.0.0.1:9/v1")))
        Traceback (most recent call last):
        nscore.errors.BackendError: tiny at http://127.0.0.1:9/v1: ...
    """
    members = [member for member, _ in members_of(backend)]
    return await (_probed(members[0], timeout_s) if len(members) == 1 else _agreed(members, timeout_s))


async def _agreed(members: Sequence[Backend], timeout_s: float) -> Capabilities:
    """What all those of several servers can do that answer; raises a `BackendError` if they differ, or none does."""
    found = await asyncio.gather(*(_probed(each, timeout_s) for each in members), return_exceptions=True)
    able = [(m, can) for m, can in zip(members, found, strict=True) if isinstance(can, Capabilities)]
    failed = [(m, error) for m, error in zip(members, found, strict=True) if isinstance(error, BaseException)]
    for _, error in failed:
        if not able or not isinstance(error, BackendError):
            raise error
    first, can = able[0]
    for other, its in able[1:]:
        names = [field.name for field in fields(can) if getattr(its, field.name) != getattr(can, field.name)]
        if names:
            raise BackendError(
                f"{other.url} and {first.url} are not equal: "
                + ", ".join(f"{name}: found {getattr(its, name)} and {getattr(can, name)}" for name in names)
                + ". An answer of one could not count as an answer of the other."
            )
    for member, error in failed:
        warnings.warn(f"{member.url} is set aside until it answers: {error}", stacklevel=2)
    return can


async def _probed(backend: Backend, timeout_s: float) -> Capabilities:
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

    def __init__(
        self, backend: Backend, post: Post, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._backend, self._post, self._sleep = backend, post, sleep
        self._rng = random.Random()  # noqa: S311  (jitter, no secret)
        self._missing = ""
        self.can = backend.assumed

    async def found(self) -> Capabilities:
        """Asks everything."""
        await self._chat()
        if self._backend.assumed.structured and self.can.chat:
            self.can = replace(self.can, structured=await self._structured())
        if self._backend.assumed.completions:
            await self._completions()
        if not self.can.chat and not self.can.completions:
            raise BackendError(
                f"{self._where}: it has neither chat nor completions, or not this model: {self._missing} "
                "See whether the base URL (most end in /v1) and the model are right."
            )
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
            self.can = replace(self.can, chat=False, structured=False)
            return
        if thinks := reply.thought or (reply.finish == "length" and not reply.text.strip()):
            self.can = replace(self.can, thinks=True)
            if not reply.text.strip():  # now with room for the thinking, and an answer after it
                reply = await self._ask(asked, "chat") or reply
        self.can = replace(self.can, logprobs=_depth(reply.tokens, self.can.logprobs), thinks=thinks, ten=_ten(reply))

    async def _structured(self) -> bool:
        asked = Prompt((Message("user", "Write the word hello."),), max_tokens=64, schema=SCHEMA)
        reply = await self._ask(asked, "structured")
        try:
            content = json.loads(reply.text) if reply is not None else None
        except (ValueError, RecursionError):
            return False
        sizes = content.get("sizes") if isinstance(content, dict) else None
        return isinstance(sizes, list) and len(sizes) == 3 and all(isinstance(s, int) for s in sizes)

    async def _completions(self) -> None:
        """Do the logprobs of a prompt come, and do they stand at their tokens?"""
        asked = self._backend.assumed.prompt_logprobs
        reply = await self._ask(_text(TEXT, prompt_logprobs=asked), "completions")
        if reply is None:
            self.can = replace(self.can, completions=False, prompt_logprobs=0, aligned=None)
            return
        found = None if reply.prompt is None else locate(TEXT, PLACES, reply.prompt.texts, reply.prompt.exact)
        depth = 0 if reply.prompt is None or found is None else _depth(reply.prompt, self.can.prompt_logprobs)
        self.can = replace(self.can, prompt_logprobs=depth, aligned=None)
        if reply.prompt is not None and found is not None:
            whole = reply.prompt.texts[found[0].index][len(found[0].prefix) :].strip()
            self.can = replace(self.can, ten=1 if whole.startswith("10") else 2)
        if depth or not self.can.chat:
            await self._generated(depth)

    async def _generated(self, depth: int) -> None:
        """Do logprobs come with what is generated after a plain text, and are they those of the same tokens in a prompt?"""
        of_chat = self.can.logprobs
        asked = self._backend.assumed.logprobs
        self.can = replace(self.can, logprobs=asked)
        written = await self._ask(_text(LONGER, max_tokens=4, logprobs=asked), "generated")
        given = None if written is None else written.tokens
        self.can = replace(self.can, logprobs=of_chat if self.can.chat else _depth(given, self.can.logprobs))
        if depth and written is not None and written.tokens is not None:
            self.can = replace(self.can, aligned=await self._aligned(written.text, written.tokens))

    async def _aligned(self, text: str, written: TokenLogprobs) -> bool | None:
        """Whether tokens that were generated have the same logprobs when they stand in a prompt."""
        if _PART in text or "".join(written.texts) != text:
            return None
        asked = _text(LONGER + text + " of all\n", prompt_logprobs=self.can.prompt_logprobs)
        starts = [len(LONGER) + at for at in accumulate(map(len, written.texts), initial=0)]
        # a blank before a word may belong to its token or not; its letters tell where it is
        letters = [i for i, t in enumerate(written.texts) if t.strip().isalnum() and t.isascii()]
        places = [starts[i + 1] - len(written.texts[i].lstrip()) for i in letters]
        again = await self._ask(asked, "completions") if letters else None
        if again is None or again.prompt is None:
            return None
        found = locate(asked.text, places, again.prompt.texts, again.prompt.exact)
        near = []
        for i, place in zip(letters, found or [], strict=False):
            token = written.texts[i].strip()
            there = dict(written.top(i)).get(written.texts[i])
            if there is None or again.prompt.texts[place.index].strip() != token:
                break  # from here on the text is cut into other tokens
            here = [p for t, p in again.prompt.top(place.index) if t.strip() == token]
            near.append(any(math.isclose(p, there, abs_tol=NEAR) for p in here))
        return 2 * sum(near) > len(near) if near else None

    async def _ask(self, prompt: Prompt, what: str) -> Reply | None:
        """A reply, once the server's names for things are found; None where it has nothing of the kind."""
        tries = learned = 0
        while True:
            call = self._backend.call(prompt, self.can)
            answer = await self._post(call.path, msgspec.json.encode(call.body, order="sorted"))
            status, said = answer.outcome.http_status, answer.outcome.detail
            told = "again" if status is None else verdict(status, answer.body)
            failure: Exception | None = None
            if told == "ok":
                try:
                    return self._backend.read(answer.body)
                except ReplyError as error:
                    told, said, failure = "again" if error.again else "final", str(error), error
            elif status is not None and learned < TRIES and (change := self._change(status, said.lower(), what)):
                self.can = replace(self.can, **change)  # type: ignore[arg-type]
                learned += 1
                continue
            if told == "again" and not answer.unsent and answer.outcome.kind != "timeout":
                wait_s = RETRIES.wait(tries, answer.outcome.retry_after_s, self._rng)
                if wait_s is not None:
                    tries += 1
                    await self._sleep(wait_s)
                    continue
            if status is not None and self._is_missing(status, said, what):
                self._missing = f"status {status}: {said}"
                return None
            shown = f"status {status}" if status is not None else answer.outcome.kind
            raise BackendError(f"{self._where}: {shown}: {said}") from failure

    def _is_missing(self, status: int, said: str, what: str) -> bool:
        """Whether a refusal says that the server has nothing of the kind, not that it failed or will not have us."""
        if what in {"structured", "generated"}:
            return status in {200, 400, 404, 415, 422, 500, 501}
        if status == 200:  # what came could not be read
            return what == "completions"
        no_template = status in {400, 422, 500} and re.search("chat[ _]template", said.lower())
        return status in {404, 405, 501} or (what == "chat" and bool(no_template))

    def _change(self, status: int, said: str, what: str) -> dict[str, object] | None:
        """What to leave out or to name otherwise after a refusal; None where it says nothing of the sort."""
        can, chat = self.can, what in {"chat", "structured"}
        if status not in {400, 403, 422, 500, 501}:
            return None
        if chat and can.limit == "max_tokens" and "max_completion_tokens" in said:
            return {"limit": "max_completion_tokens"}
        if can.temperature and "temperature" in said:
            return {"temperature": False}
        echoes = what == "completions"
        if "logprobs" not in said and not (echoes and "echo" in said):
            return None
        name = "prompt_logprobs" if echoes else "logprobs"
        now = can.prompt_logprobs if echoes else can.logprobs
        if not now:
            return None
        smaller = [n for n in map(int, re.findall(r"(?<![\w.-])\d{1,4}(?![\w-])", said)) if 0 < n < now]
        once_more = now == getattr(self._backend.assumed, name) and not _NEVER.search(said)
        return {name: max(smaller, default=min(5, now - 1)) if once_more else 0}


def _text(text: str, *, max_tokens: int = 1, logprobs: int = 0, prompt_logprobs: int = 0) -> Prompt:
    message = Message("user", text)
    return Prompt((message,), form="text", max_tokens=max_tokens, logprobs=logprobs, prompt_logprobs=prompt_logprobs)


def _depth(tokens: TokenLogprobs | None, asked: int) -> int:
    """How many of the alternatives that were asked for come with a token.

    A token that is not among the likeliest comes besides them, and is the least likely; those that are spelled alike
    come as one. So it is the most where they are enough, else the fewest.
    """
    depths = []
    for index, text in enumerate(tokens.texts if tokens is not None else ()):
        tops = sorted(tokens.top(index) if tokens is not None else (), key=lambda top: top[1])
        besides = 1 < len(tops) < asked and tops[0][0] == text
        depths.append(len(tops) - besides)
    most = max(depths, default=0)
    return asked if most >= asked else min(d for d in depths if d) if most else 0


def _ten(reply: Reply) -> Literal[1, 2] | None:
    """As how many tokens a reply writes 10."""
    if reply.tokens is None or "10" not in reply.text:
        return None
    return 1 if any(text.strip() == "10" for text in reply.tokens.texts) else 2
