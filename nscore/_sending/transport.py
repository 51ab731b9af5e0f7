"""One HTTP POST to a model server, as an outcome and bytes: whatever happens on the wire is told, never raised."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Literal
from urllib.request import getproxies, proxy_bypass

import httpx

from nscore._sending.retry import Outcome, redact, redact_bytes, retry_after
from nscore._sending.secrets import QUIET, forget_locals, secrets_of, secrets_of_proxies
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
        body: the reply's bytes, without secrets; empty where none came whole.
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

    What a server says back of the secrets is in no reply that is handed on and in no error; while a transport is open,
    neither is it in what the libraries below log.

    Args:
        base_url: what paths are appended to; user and password in it are sent as Basic authentication.
        headers: sent with every request.
        timeout_s: the longest that one attempt may take, from connecting to the last byte.
        secrets: what must be in no answer, error or log; those of the address and of proxies are known.
        by: who carries the bytes; `auto` is aiohttp where it is installed.

    Raises:
        BackendError: if nothing can be sent to the address, or the environment names a proxy that cannot be used.
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
        self._secrets = tuple(dict.fromkeys([*secrets, *secrets_of(base_url), *secrets_of_proxies()]))
        self._timeout_s = timeout_s
        try:
            self._prepare(base_url, headers, by)
        except BaseException as error:
            del base_url, headers, secrets  # a traceback may be shown with the values of variables
            forget_locals(error)
            raise
        QUIET.begin(self._secrets)
        self._quiet = weakref.finalize(self, QUIET.end, self._secrets)

    def _prepare(self, base_url: str, headers: Mapping[str, str], by: Literal["auto", "httpx", "aiohttp"]) -> None:
        # What httpx says of a URL that it cannot read may hold half a password: its error is not even a context.
        with contextlib.suppress(httpx.InvalidURL):
            self._base_url = httpx.URL(base_url)
        if not hasattr(self, "_base_url"):
            raise BackendError("nothing can be sent to the base URL: it is too long, or its host is no name of a host")
        basic = httpx.BasicAuth(self._base_url.username, self._base_url.password)
        signed = next(basic.auth_flow(httpx.Request("POST", self._base_url))).headers
        sent = {"content-type": "application/json", "user-agent": "nscore", "accept": "*/*"} | dict(headers)
        if self._base_url.userinfo:
            sent.setdefault("authorization", signed["authorization"])
        self._headers = httpx.Headers(sent)
        self._timeouts = {
            "connect": min(CONNECT_S, self._timeout_s),
            "read": self._timeout_s,
            "write": self._timeout_s,
            "pool": self._timeout_s,
        }
        self._urls: dict[str, httpx.URL] = {}
        self._ssl: ssl.SSLContext | Literal[False] = (
            httpx.create_ssl_context() if self._base_url.scheme == "https" else False
        )
        wrong = ""
        try:
            self._proxy = _proxy(self._base_url)
        except httpx.InvalidURL:
            wrong = "its address is no URL"
        except ValueError:
            wrong = "its address begins neither with http:// or https:// nor with socks5:// or socks5h://"
        except ImportError as error:
            wrong = str(error)
        if wrong:
            raise BackendError(f"the proxy that the environment names cannot be used: {wrong}")
        self._shared = None if by == "httpx" else _aiohttp(self._ssl, self._proxy, needed=by == "aiohttp")
        self._idle: list[httpx.AsyncBaseTransport] = []
        self._all: list[httpx.AsyncBaseTransport] = [] if self._shared is None else [self._shared]

    async def post(self, path: str, body: bytes) -> Answer:
        """Sends one request and reads its whole reply; never raises but when cancelled."""
        try:
            return await self._posted(path, body)
        except BaseException as error:
            forget_locals(error)
            raise

    async def _posted(self, path: str, body: bytes) -> Answer:
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
        content = redact_bytes(content, self._secrets)
        said = retry_after(response.headers, datetime.now(UTC)) if response.status_code != httpx.codes.OK else None
        detail = "" if response.is_success else self._shown(content[:_LOOKED_AT].decode(errors="replace"))
        outcome = Outcome("reply", response.status_code, said, detail)
        return Answer(outcome, content, time.monotonic() - start)

    async def aclose(self) -> None:
        """Closes every connection, without waiting long for any; a task that is cancelled meanwhile closes them too."""
        closing = asyncio.ensure_future(self._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait([closing])
            raise

    async def _close(self) -> None:
        lanes, self._idle, self._all = self._all, [], []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(*(lane.aclose() for lane in lanes), return_exceptions=True)
        self._quiet()

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
    # UnicodeError: a status line that is no UTF-8, by way of httpx-aiohttp
    return (TimeoutError, UnicodeError, httpx.HTTPError, *_aiohttp_errors())


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


def _proxy(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy that the environment names for a URL; raises if it cannot be used."""
    named = getproxies()
    address = named.get(url.scheme) or named.get("all")
    if not address or proxy_bypass(url.host):
        return None
    proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
    httpx.AsyncHTTPTransport(verify=False, proxy=proxy)
    return proxy
