"""`ApiClient`: requests to a model server that speaks OpenAI's API, through nscore's transport and retries."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from nscore._sending.limits import Concurrency
from nscore._sending.retry import Retries, redact, verdict
from nscore._sending.transport import Answer, Transport
from nscore.backends import OpenAI
from nscore.errors import BackendError, OutageError, ReplyError, SettingError

__all__ = ["ApiClient"]

TIMEOUT_S = 120.0
MOST = 64
# Servers that say so refuse for load.
BUSY = {429, 503, 529}


class _Session:
    """The connections of one event loop, for as long as requests are under way there."""

    def __init__(self, most: int) -> None:
        self.users = 0
        self.gate = Concurrency(most)
        self.transports: dict[float, Transport] = {}


class ApiClient:
    """Sends requests to a model; a bad key, or a request that the server will not have, ends in an error at once.

    The server is `$OPENAI_BASE_URL`, or api.openai.com, and the key `$OPENAI_API_KEY`, both read when the client is made;
    no key is needed to import or to make it. May be used in any event loop, and in several one after another; its
    connections are shared by the requests that are under way at the same time, and closed with the last of them.

    Args:
        model_name: the model, as the server calls it.
        max_concurrent: the most requests in flight; 64 if None. Of these, as many as the server bears.
        cache: whether a request that was answered is answered again from memory.

    Attributes:
        retries: how often a request is tried, and how long is waited in between; may be set.

    Raises:
        BackendError: if the environment's address is none, or the model no name.
        SettingError: if `max_concurrent` is below 1.
    """

    def __init__(self, model_name: str, max_concurrent: int | None = None, cache: bool = False) -> None:  # noqa: FBT001, FBT002  (the original's)
        if max_concurrent is not None and max_concurrent < 1:
            raise SettingError(f"max_concurrent: found {max_concurrent}, expected 1 or more, or None")
        self.model_name = model_name
        self.max_concurrent = max_concurrent
        self.backend = OpenAI(model=model_name)
        self.retries = Retries()
        self._answers: dict[tuple[str, bytes], bytes] | None = {} if cache else None
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}

    async def make_request(self, timeout_seconds: float | None = None, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """Sends the body `kwargs` and gives the reply's JSON.

        What has `messages` goes to chat completions, everything else to completions; the model is added.

        Args:
            timeout_seconds: the longest that one try may take; 120 if None.
            kwargs: the fields of the body.

        Raises:
            BackendError: if the server refuses, or does not answer as such servers do after all tries.
            OutageError: if it could not be reached, or broke off, at the last of all tries.
        """
        path = "/chat/completions" if "messages" in kwargs else "/completions"
        body = msgspec.json.encode(kwargs | {"model": self.model_name}, order="sorted")
        raw = await self.send(path, body, timeout_seconds)
        try:
            reply = json.loads(raw.decode("utf-8-sig", "replace"))  # NaN included, which some servers send
        except RecursionError:
            reply = None
        if not isinstance(reply, dict):
            raise BackendError(f"{self.backend.model} at {self.backend.url}: the reply is no JSON object")
        return reply

    async def async_generate(self, timeout: float | None = None, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401, ASYNC109
        """`make_request` under its later name."""
        return await self.make_request(timeout_seconds=timeout, **kwargs)

    async def send(self, path: str, body: bytes, timeout_s: float | None = None) -> bytes:
        """Sends a body that is JSON already, and gives the reply's bytes; errors as `make_request`."""
        key = (path, body)
        if self._answers is not None and key in self._answers:
            return self._answers[key]
        async with self._session() as session:
            raw = await self._sent(session, path, body, TIMEOUT_S if timeout_s is None else float(timeout_s))
        if self._answers is not None:
            self._answers[key] = raw
        return raw

    async def _sent(self, session: _Session, path: str, body: bytes, timeout_s: float) -> bytes:
        rng = random.Random()  # noqa: S311  (jitter, no secret)
        if timeout_s not in session.transports:
            session.transports[timeout_s] = Transport(
                self.backend.address, self.backend.headers(), timeout_s=timeout_s, secrets=self.backend.secrets()
            )
        where = f"{self.backend.model} at {self.backend.url}"
        attempt = 0
        while True:
            answer = await _posted(session, session.transports[timeout_s], path, body)
            outcome, said = answer.outcome, answer.outcome.detail
            status = outcome.http_status
            told = "again" if status is None else verdict(status, answer.body)
            if told == "ok":
                try:
                    self.backend.read(answer.body)
                except ReplyError as error:
                    if error.again:
                        told, said = "again", redact(str(error), self.backend.secrets())
                if told == "ok":
                    return answer.body
            wait_s = self.retries.wait(attempt, outcome.retry_after_s, rng) if told == "again" else None
            attempt += 1
            if wait_s is None:
                tries = f" ({attempt} tries)" if attempt > 1 else ""
                if status is None:
                    raise OutageError(f"{where}: {outcome.kind}{tries}: {said}")
                raise BackendError(f"{where}: status {status}{tries}: {said}")
            await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[_Session]:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            session = self._sessions[loop] = _Session(self.max_concurrent or MOST)
        session.users += 1
        try:
            yield session
        finally:
            session.users -= 1
            if not session.users:
                del self._sessions[loop]
                await asyncio.gather(*(transport.aclose() for transport in session.transports.values()))


async def _posted(session: _Session, transport: Transport, path: str, body: bytes) -> Answer:
    """One try, in its turn."""
    slot = await session.gate.enter()
    load = "other"
    try:
        answer = await transport.post(path, body)
        status = answer.outcome.http_status
        late = answer.outcome.kind == "timeout" and not answer.unsent
        load = "busy" if status in BUSY or late else "ok" if status is not None and status < 500 else "other"
        return answer
    finally:
        session.gate.leave(load, slot)  # type: ignore[arg-type]
