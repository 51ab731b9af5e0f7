"""One HTTP POST to a model server, as an outcome and bytes: whatever happens on the wire is told, never raised."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Literal
from urllib.request import getproxies, proxy_bypass

import httpx

from nscore._retry import Outcome, redact, retry_after
from nscore.errors import BackendError

__all__ = ["Answer", "Transport"]

LARGEST_REPLY = 1 << 28
CONNECT_S = 10.0
_LOOKED_AT = 1 << 16


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

    Each request in flight has an httpx transport of its own with one connection; idle ones are used again, and all
    share one SSL context: a pool looks through all its connections for every request, so that one pool for many
    requests grows slower the more are in flight. Where `httpx-aiohttp` is installed (the extra `fast`), aiohttp's pool,
    which does not, carries them all. Nothing else of an httpx client is needed here, so there is none. Proxies are
    taken from the environment.

    Args:
        base_url: what paths are appended to; user and password in it are sent as Basic authentication.
        headers: sent with every request.
        timeout_s: the longest that one attempt may take, from connecting to the last byte.
        secrets: what must not stand in an error.
        by: who carries the bytes; `auto` is aiohttp where it is installed.

    Raises:
        BackendError: if the environment names a proxy that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        timeout_s: float = 120.0,
        secrets: Iterable[str] = (),
        by: Literal["auto", "httpx", "aiohttp"] = "auto",
    ) -> None:
        self._base_url = httpx.URL(base_url)
        basic = httpx.BasicAuth(self._base_url.username, self._base_url.password)
        signed = next(basic.auth_flow(httpx.Request("POST", self._base_url))).headers
        sent = {"content-type": "application/json", "user-agent": "nscore", "accept": "*/*"} | dict(headers)
        if self._base_url.userinfo:
            sent.setdefault("authorization", signed["authorization"])
        self._headers = httpx.Headers(sent)
        self._timeouts = {
            "connect": min(CONNECT_S, timeout_s),
            "read": timeout_s,
            "write": timeout_s,
            "pool": timeout_s,
        }
        self._timeout_s = timeout_s
        self._secrets = tuple(secrets)
        self._urls: dict[str, httpx.URL] = {}
        self._ssl: ssl.SSLContext | Literal[False] = (
            httpx.create_ssl_context() if self._base_url.scheme == "https" else False
        )
        self._proxy = _proxy(self._base_url, self._secrets)
        self._shared = None if by == "httpx" else _aiohttp(self._ssl, self._proxy, needed=by == "aiohttp")
        self._idle: list[httpx.AsyncBaseTransport] = []
        self._all: list[httpx.AsyncBaseTransport] = [] if self._shared is None else [self._shared]

    async def post(self, path: str, body: bytes) -> Answer:
        """Sends one request and reads its whole reply; never raises but when cancelled."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                with self._lane() as lane:
                    response = await lane.handle_async_request(self._request(path, body))
                    try:
                        content = await _whole(response)
                    finally:
                        await response.aclose()
        except _errors() as error:
            return self._failed(error, start)
        said = retry_after(response.headers, datetime.now(UTC)) if response.status_code != httpx.codes.OK else None
        detail = "" if response.is_success else self._shown(content[:_LOOKED_AT].decode(errors="replace"))
        outcome = Outcome("reply", response.status_code, said, detail)
        return Answer(outcome, content, time.monotonic() - start)

    async def aclose(self) -> None:
        """Closes every connection, without waiting long for any."""
        lanes, self._idle, self._all = self._all, [], []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(*(lane.aclose() for lane in lanes), return_exceptions=True)

    @contextlib.contextmanager
    def _lane(self) -> Iterator[httpx.AsyncBaseTransport]:
        if self._shared is not None:
            yield self._shared
            return
        lane = self._idle.pop() if self._idle else self._new()
        try:
            yield lane
        finally:
            self._idle.append(lane)

    def _new(self) -> httpx.AsyncBaseTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60)
        lane = httpx.AsyncHTTPTransport(verify=self._ssl, limits=limits, proxy=self._proxy)
        self._all.append(lane)
        return lane

    def _request(self, path: str, body: bytes) -> httpx.Request:
        if path not in self._urls:
            whole = self._base_url.path.rstrip("/") + path
            self._urls[path] = self._base_url.copy_with(path=whole, userinfo=b"")
        extensions = {"timeout": self._timeouts}
        return httpx.Request("POST", self._urls[path], headers=self._headers, content=body, extensions=extensions)

    def _shown(self, text: str) -> str:
        """The beginning of a text, without secrets: they go first, so that none is cut and then not known."""
        return redact(text, self._secrets)[:500]

    def _failed(self, error: Exception, start: float) -> Answer:
        kind, unsent = _how(error)
        words = str(error) or ("no whole reply in time" if isinstance(error, TimeoutError) else "")
        detail = self._shown(f"{type(error).__name__}: {words}".rstrip(": "))
        return Answer(Outcome(kind, detail=detail), b"", time.monotonic() - start, unsent)


async def _whole(response: httpx.Response) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > LARGEST_REPLY:
            raise httpx.DecodingError(f"a reply of more than {LARGEST_REPLY:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _how(error: BaseException) -> tuple[Literal["timeout", "connection", "protocol"], bool]:
    """The kind of a failure, and whether nothing of the request can have reached the server."""
    if isinstance(error.__cause__, _aiohttp_errors()):  # as httpx-aiohttp has it, every one is a timeout of connecting
        return _how(error.__cause__)
    names = {kind.__name__ for kind in type(error).__mro__}
    for found, how in _HOWS.items():
        if found in names:
            return how
    return "protocol", False


# The names of httpx's errors and of aiohttp's, which may not be there; the first that fits tells.
_HOWS: dict[str, tuple[Literal["timeout", "connection", "protocol"], bool]] = {
    "ConnectTimeout": ("timeout", True),
    "PoolTimeout": ("timeout", True),
    "ConnectionTimeoutError": ("timeout", True),
    "TimeoutException": ("timeout", False),
    "TimeoutError": ("timeout", False),
    "ConnectError": ("connection", True),
    "UnsupportedProtocol": ("connection", True),
    "ProxyError": ("connection", True),
    "ClientConnectorError": ("connection", True),
    "ClientHttpProxyError": ("connection", True),
    "InvalidURL": ("connection", True),
    "NetworkError": ("connection", False),
    "RemoteProtocolError": ("connection", False),
    "ClientConnectionError": ("connection", False),
    "ClientPayloadError": ("connection", False),
}


@cache
def _errors() -> tuple[type[Exception], ...]:
    return (TimeoutError, httpx.HTTPError, *_aiohttp_errors())


@cache
def _aiohttp_errors() -> tuple[type[Exception], ...]:
    try:
        from aiohttp import ClientError  # noqa: PLC0415  (an extra)
    except ImportError:
        return ()
    return (ClientError,)


def _aiohttp(
    context: ssl.SSLContext | Literal[False], proxy: httpx.Proxy | None, *, needed: bool
) -> httpx.AsyncBaseTransport | None:
    try:
        from httpx_aiohttp import AiohttpTransport  # noqa: PLC0415  (an extra)
    except ImportError:
        if needed:
            raise
        return None
    limits = httpx.Limits(max_connections=0, keepalive_expiry=60)  # 0: aiohttp's word for no limit
    return AiohttpTransport(verify=context, limits=limits, proxy=proxy)


def _proxy(url: httpx.URL, secrets: tuple[str, ...]) -> httpx.Proxy | None:
    """The proxy that the environment names for a URL."""
    named = getproxies()
    address = named.get(url.scheme) or named.get("all")
    if not address or proxy_bypass(url.host):
        return None
    try:
        proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
        httpx.AsyncHTTPTransport(verify=False, proxy=proxy)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        said = redact(str(error), secrets)
        raise BackendError(f"the proxy that the environment names cannot be used: {said}") from None
    return proxy
