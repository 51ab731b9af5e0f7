"""Which outcomes of a request are worth another try, after how long, and what of them may be shown."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from typing import Literal
from urllib.parse import quote

__all__ = ["Outcome", "Retries", "redact", "redact_bytes", "retry_after", "verdict"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended.

    Attributes:
        kind: a `reply` of any status; none in time; none for a broken connection; or bytes that are no HTTP.
        http_status: the reply's, if one came.
        retry_after_s: how long the server asked to be left alone.
        detail: what went wrong in words, without secrets.
    """

    kind: Literal["reply", "timeout", "connection", "protocol"]
    http_status: int | None = None
    retry_after_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often to try, and how long to wait in between.

    Attributes:
        attempts: tries of a request, the first one included.
        base_s: the longest wait after the first try; it doubles with each.
        longest_backoff_s: where the doubling ends.
        longest_wait_s: the longest Retry-After that is waited for; beyond it the request ends at once.
    """

    attempts: int = 8
    base_s: float = 0.5
    longest_backoff_s: float = 30.0
    longest_wait_s: float = 120.0

    def wait(self, attempt: int, floor_s: float | None, rng: random.Random) -> float | None:
        """Seconds until the next try after try number `attempt`, counted from 0; `None` to give up.

        Full jitter, uniform in [0, min(longest_backoff_s, base_s * 2^attempt)]. It comes on top of `floor_s`, the
        Retry-After, so that clients sent away together do not come back together.
        """
        floor_s = floor_s or 0.0
        if attempt + 1 >= self.attempts or not floor_s <= self.longest_wait_s:
            return None
        longest_s = min(self.longest_backoff_s, self.base_s * 2.0 ** min(attempt, 64))
        return max(0.0, floor_s) + rng.uniform(0, longest_s)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds for which a server asks to be left alone, `None` where it says nothing that can be understood.

    `retry-after-ms` comes before `retry-after`, which holds seconds or an HTTP date; `now` must know its time zone. A
    date that has passed is 0. However long it is, it is returned; `Retries` decides.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> retry_after({"retry-after": "2.5"}, noon), retry_after({"Retry-After-Ms": "80"}, noon)
    (2.5, 0.08)
    >>> retry_after({"retry-after": "Thu, 01 Jan 2026 12:00:07 GMT"}, noon)
    7.0
    """
    named = {name.lower(): text for name, text in headers.items()}
    milliseconds = _seconds(named.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = named.get("retry-after", "")
    seconds = _seconds(text)
    return _until(text, now) if seconds is None else seconds


def verdict(http_status: int, body: bytes) -> Literal["ok", "again", "stop", "final"]:
    """What a reply means: an answer, another try, the end of the run, or the end of this request.

    `stop` is what all further requests would meet too: a bad key (401), no money (402, or a 429 that says so), no
    permission (403), no such model or path (404). `final` is what this request would meet again: 400, 413, 422, ...

    >>> [verdict(status, b"") for status in (200, 429, 529, 401, 422)]
    ['ok', 'again', 'again', 'stop', 'final']
    >>> verdict(429, b'{"error": {"code": "insufficient_quota"}}')
    'stop'
    """
    if 200 <= http_status <= 299:
        return "ok"
    if http_status in {401, 402, 403, 404} or (http_status == 429 and _without_money(body)):
        return "stop"
    if http_status in {408, 409, 425, 429} or 500 <= http_status <= 599:
        return "again"
    return "final"


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text with `***` for each of the secrets and for all that looks like one.

    Secrets of fewer than 4 characters are left: they would blot out half the text. They are also found as URLs and
    JSON may write them. What looks like a secret: the credentials after `Bearer` or `Basic`, keys with the usual
    beginnings, an `api_key` and its value, and a user with a password in a URL.

    >>> redact("POST https://me:pass@host/v1 with Bearer abc.def: key hunter22 is wrong", ["hunter22"])
    'POST https://***@host/v1 with Bearer ***: key *** is wrong'
    """
    known = tuple(secret for secret in secrets if len(secret) >= 4)
    text = re.sub(_written(known), "***", text) if known else text
    for pattern, shown in _LOOKS_SECRET:
        text = pattern.sub(shown, text)
    return text


def redact_bytes(raw: bytes, secrets: Iterable[str]) -> bytes:
    """A reply with `***` for each of the secrets, in all the forms that `redact` knows; JSON stays JSON.

    Where there is none in it, that is `raw` itself. What only looks like a secret is left, and so are secrets that a
    model may well write: local servers have keys such as `EMPTY`, `test` or `password`, and no answer is to lose its
    words to them. A secret counts if it has at least 8 characters and not only letters, or at least 16. A number with
    one in it becomes null.

    >>> redact_bytes(b'{"error": "no such key: hunter22"}', ["hunter22", "error"])
    b'{"error": "no such key: ***"}'
    """
    known = tuple(secret for secret in secrets if len(secret) >= (16 if secret.isalpha() else 8))
    shown = raw
    while known and _holds(shown, known):  # each time it is shorter
        shown = _blotted(shown, _written_bytes(known))
    return shown


_LOOKS_SECRET = (
    (re.compile(r"(?<=://)[^/\s?#\"'<>]*@"), "***@"),
    (re.compile(r"\b(bearer|basic)(\s+|%20|\+)[\w.~+/=*%-]*[\w~+/=*%-]", re.IGNORECASE), r"\1\2***"),
    (re.compile(r"\b((?:api|access)[-_]?(?:key|token)[\"']?\s*[:=]\s*[\"']?)[^\s\"'&,;#]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(?:sk|pk|rk|gsk|hf|xai|pplx|nvapi|r8)[-_][\w*-]{8,}"), "***"),
    (re.compile(r"\bAIza[\w-]{20,}"), "***"),
)


@lru_cache(64)
def _written(secrets: tuple[str, ...]) -> str:
    """The pattern of all ways to write the secrets: each character as it is, or as JSON or a URL may escape it."""
    ways = {"".join(map(_ways, secret)) for secret in secrets}
    return "|".join(sorted(ways, key=len, reverse=True))  # a secret within a longer one must not split it


@lru_cache(64)
def _written_bytes(secrets: tuple[str, ...]) -> re.Pattern[bytes]:
    return re.compile(_written(secrets).encode(errors="surrogatepass"))


@cache
def _ways(character: str) -> str:
    """The pattern of a character; JSON in JSON in JSON has up to eight backslashes before it, URLs in URLs many a %25."""
    units = character.encode("utf-16-be", errors="surrogatepass").hex()
    in_json = "".join(rf"\\{{1,8}}u(?i:{units[i : i + 4]})" for i in range(0, len(units), 4))
    in_url = "".join(f"%(?:25){{0,4}}(?i:{byte:02x})" for byte in character.encode(errors="surrogatepass"))
    short = r"\/" if character == "/" else json.dumps(character)[1:-1]
    within = [("" if character == "\\" else r"\\{0,7}") + re.escape(short)] if len(short) == 2 else []
    return f"(?:{'|'.join([*within, in_json, in_url, re.escape(character)])})"


def _holds(raw: bytes, secrets: tuple[str, ...]) -> bool:
    may = any(form in raw for form in _usual(secrets)) or _ODD.search(raw) is not None  # these are quick
    return may and _written_bytes(secrets).search(raw) is not None


@lru_cache(64)
def _usual(secrets: tuple[str, ...]) -> tuple[bytes, ...]:
    """The secrets as they are, and as JSON, URLs and PHP's JSON write them."""
    forms = set()
    for secret in secrets:
        once, wide = json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]
        twice = json.dumps(once)[1:-1]
        forms |= {secret, once, wide, once.replace("/", r"\/"), twice, json.dumps(twice)[1:-1]}
        forms |= {quote(secret, safe=safe, errors="surrogatepass") for safe in ("", "/")}
    return tuple(form.encode(errors="surrogatepass") for form in forms)


# Escapes of what is printable ASCII, which hardly anybody escapes: only then it is looked for in all its ways.
_ODD = re.compile(rb"(?:\\u00|%)[2-7][0-9A-Fa-f]")


def _blotted(raw: bytes, pattern: re.Pattern[bytes]) -> bytes:
    plain = pattern.sub(b"***", raw)
    if not _is_json(raw) or _is_json(plain):
        return plain

    def shown(found: re.Match[bytes]) -> bytes:
        token = found[0]
        if not pattern.search(token):
            return token
        blotted = pattern.sub(b"***", token)
        return b"null" if token[:1] != b'"' else blotted if _is_json(blotted) else b'"***"'

    careful = _TOKEN.sub(shown, raw)
    return careful if _is_json(careful) and not pattern.search(careful) else b'"***"'


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+')


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


def _seconds(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) or number < 0 else number


def _until(text: str, now: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # whatever a hostile date makes of the parser
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


def _without_money(body: bytes) -> bool:
    try:
        error = json.loads(body).get("error")
        kinds = [error.get("code"), error.get("type")]
    except (ValueError, RecursionError, AttributeError):  # no JSON, too deep, not the usual shape
        return False
    return any(isinstance(kind, str) and (kind == "insufficient_quota" or "billing" in kind) for kind in kinds)
