"""One HTTP POST to a model server, as an outcome and bytes: whatever happens on the wire is told, never raised."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from nscore._retry import Outcome, redact, retry_after

__all__ = ["Answer", "Transport"]

LARGEST_REPLY = 1 << 28
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended.

    Attributes:
        outcome: the kind of ending, the status, what the server asks for.
        body: the reply's bytes; empty where none came whole.
        latency_s: from the first byte sent to the last byte read.
        unsent: whether nothing of the request can have reached the server.
    """

    outcome: Outcome
    body: bytes
    latency_s: float
    unsent: bool = False


class Transport:
    """A model server's connections.

    Each request in flight has an `httpx.AsyncClient` of its own with one connection; idle ones are used again, and all
    share one SSL context. A client's pool scans all its connections for every request, so one client for many requests
    grows slower the more are in flight. Proxies are taken from the environment, as httpx does.

    Args:
        base_url: what paths are appended to; user and password in it are sent as Basic authentication.
        headers: sent with every request.
        timeout_s: the longest that one attempt may take, from connecting to the last byte.
        secrets: what must not stand in an error.
    """

    def __init__(
        self, base_url: str, headers: Mapping[str, str], *, timeout_s: float = 120.0, secrets: Iterable[str] = ()
    ) -> None:
        self._base_url = httpx.URL(base_url)
        self._headers = {"content-type": "application/json", "user-agent": "nscore"} | dict(headers)
        self._timeout_s = timeout_s
        self._secrets = tuple(secrets)
        self._ssl: ssl.SSLContext | bool = httpx.create_ssl_context() if self._base_url.scheme == "https" else False
        self._idle: list[httpx.AsyncClient] = []
        self._all: list[httpx.AsyncClient] = []

    async def post(self, path: str, body: bytes) -> Answer:
        """Sends one request and reads its whole reply; never raises but when cancelled."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s), self._client() as client:
                url = self._base_url.copy_with(path=self._base_url.path.rstrip("/") + path)
                async with client.stream("POST", url, content=body) as response:
                    content = await self._whole(response)
        except (TimeoutError, httpx.TimeoutException) as error:
            unsent = isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
            return self._failed("timeout", error, start, unsent=unsent)
        except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.ProxyError) as error:
            return self._failed("connection", error, start, unsent=True)
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            return self._failed("connection", error, start)
        except httpx.HTTPError as error:
            return self._failed("protocol", error, start)
        said = retry_after(response.headers, datetime.now(UTC)) if response.status_code != httpx.codes.OK else None
        detail = "" if response.is_success else redact(content[:500].decode(errors="replace"), self._secrets)
        outcome = Outcome("reply", response.status_code, said, detail)
        return Answer(outcome, content, time.monotonic() - start)

    async def aclose(self) -> None:
        """Closes every connection, without waiting long for any."""
        clients, self._idle, self._all = self._all, [], []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(*(c.aclose() for c in clients), return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        client = self._idle.pop() if self._idle else self._new()
        try:
            yield client
        finally:
            self._idle.append(client)

    def _new(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            headers=self._headers,
            timeout=httpx.Timeout(self._timeout_s, connect=min(CONNECT_S, self._timeout_s)),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60),
            verify=self._ssl,
        )
        self._all.append(client)
        return client

    async def _whole(self, response: httpx.Response) -> bytes:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > LARGEST_REPLY:
                raise httpx.DecodingError(f"a reply of more than {LARGEST_REPLY:,} bytes", request=response.request)
            parts.append(part)
        return b"".join(parts)

    def _failed(self, kind: str, error: Exception, start: float, *, unsent: bool = False) -> Answer:
        words = str(error) or ("no whole reply in time" if isinstance(error, TimeoutError) else "")
        detail = redact(f"{type(error).__name__}: {words}".rstrip(": "), self._secrets)
        return Answer(Outcome(kind, detail=detail), b"", time.monotonic() - start, unsent)  # type: ignore[arg-type]
