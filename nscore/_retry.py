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
from typing import Literal
from urllib.parse import quote

__all__ = ["Outcome", "Retries", "redact", "retry_after", "verdict"]


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
    JSON would write them. What looks like a secret: the credentials after `Bearer` or `Basic`, keys with the usual
    beginnings, an `api_key` and its value, and a user with a password in a URL.

    >>> redact("POST https://me:pass@host/v1 with Bearer abc.def: key hunter22 is wrong", ["hunter22"])
    'POST https://***@host/v1 with Bearer ***: key *** is wrong'
    """
    written = {
        form
        for secret in secrets
        for form in (secret, quote(secret, safe="", errors="replace"), json.dumps(secret)[1:-1])
    }
    for form in sorted(written, key=len, reverse=True):  # a secret within a longer one must not split it
        if len(form) >= 4:
            text = text.replace(form, "***")
    for pattern, shown in _LOOKS_SECRET:
        text = pattern.sub(shown, text)
    return text


_LOOKS_SECRET = (
    (re.compile(r"(?<=://)[^/\s?#\"'<>]*@"), "***@"),
    (re.compile(r"\b(bearer|basic)(\s+|%20|\+)[\w.~+/=*%-]*[\w~+/=*%-]", re.IGNORECASE), r"\1\2***"),
    (re.compile(r"\b((?:api|access)[-_]?(?:key|token)[\"']?\s*[:=]\s*[\"']?)[^\s\"'&,;#]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(?:sk|pk|rk|gsk|hf|xai|pplx|nvapi|r8)[-_][\w*-]{8,}"), "***"),
    (re.compile(r"\bAIza[\w-]{20,}"), "***"),
)


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
