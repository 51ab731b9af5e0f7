"""Where secrets hide, and how they are kept out of the logs and tracebacks of the libraries that carry them."""

from __future__ import annotations

import logging
import threading
import traceback
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable
from urllib.parse import SplitResult, quote, unquote, unquote_plus, urlsplit
from urllib.request import getproxies

from nscore._sending.retry import redact

__all__ = ["QUIET", "forget_locals", "secrets_of", "secrets_of_proxies"]

# Loggers of other libraries that tell at DEBUG what was sent and answered, or show the errors that tell of it.
_LOGGERS = (
    *(f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")),
    *("httpx", "aiohttp.client", "aiohttp.internal", "asyncio"),
)


def secrets_of(url: str) -> tuple[str, ...]:
    """The password of a URL, or where there is none the user, and its query, each in all forms that are sent.

    >>> secrets_of("http://me:pass%2Fword@host/v1?key=abc")
    ('pass%2Fword', 'pass/word', 'bWU6cGFzcy93b3Jk', 'key=abc', 'abc')
    """
    parts = _split(url)
    if parts is None:  # no URL: whatever stands before its last @
        return tuple(filter(None, [url.rpartition("@")[0].rpartition("://")[2]]))
    known = parts.password or parts.username or ""
    basic = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if known else ""
    sent = b64encode(basic.encode(errors="replace")).decode().rstrip("=")
    values = [pair.partition("=")[2] for pair in parts.query.split("&")]
    plain = [unquote_plus(value) for value in values]
    again = [quote(value, safe="/?:@!$'()*,;") for value in plain]  # aiohttp escapes no more than it must
    found = [known, unquote(known), sent, parts.query, *values, *plain, *again]
    return tuple(dict.fromkeys(s for s in found if s))


def secrets_of_proxies() -> tuple[str, ...]:
    """The passwords of the proxies that the environment names."""
    addresses = [address for name, address in getproxies().items() if name != "no"]
    whole = [address if "://" in address else f"http://{address}" for address in addresses]
    return tuple(dict.fromkeys(secret for address in whole for secret in secrets_of(address)))


def forget_locals(error: BaseException) -> None:
    """Empties the frames that have ended in an error's traceback and in those of the errors it came from.

    Tools that report crashes write the values of local variables, and those of an HTTP library are headers.
    """
    seen: set[int] = set()
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        rest += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            rest += one.exceptions


class _Quiet(logging.Filter):
    """Blots out secrets in what other libraries log, as long as somebody has asked for it.

    It stands at each of the loggers, since a filter at a logger does not see what comes from those below it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()  # a finalizer may call `end` in the midst of `begin`
        self._asked: Counter[str] = Counter()
        self._secrets: tuple[str, ...] = ()

    def begin(self, secrets: Iterable[str]) -> None:
        """From now on, until `end` is called with the same."""
        with self._lock:
            self._asked.update(secrets)
            self._settle()

    def end(self, secrets: Iterable[str]) -> None:
        """No longer for these, unless somebody else has asked for one of them too."""
        with self._lock:
            self._asked -= Counter(secrets)
            self._settle()

    def _settle(self) -> None:
        self._secrets = tuple(sorted(self._asked))
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            if self._secrets:
                logger.addFilter(self)  # once, however often
            else:
                logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass."""
        secrets = self._secrets
        said = record.getMessage()
        shown = redact(said, secrets)
        if shown != said:
            record.msg, record.args = shown, None
        if record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info) if record.exc_info[0] else ""
            shown = redact(trace, secrets)
            if shown != trace:
                record.exc_text, record.exc_info = shown, None
        return True


QUIET = _Quiet()


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
