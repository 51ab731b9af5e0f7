"""A file behind http(s): its bytes, asked for again where the server is busy or the line breaks."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import httpx

from nscore._sending.retry import Retries, redact, retry_after, verdict
from nscore._sending.secrets import secrets_of
from nscore.errors import SourceError

__all__ = ["fetched"]

RETRIES = Retries(attempts=5, longest_backoff_s=8.0, longest_wait_s=30.0)
TIMEOUT_S = 60.0


async def fetched(url: str, *, largest: int) -> bytes | None:
    """All bytes of a file, at most so many; None where there is none.

    Raises:
        SourceError: if they cannot be had; neither it nor what it follows from shows a key of the address.
    """
    rng = random.Random()  # noqa: S311  (jitter, no secret)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=True) as client:
        for attempt in range(RETRIES.attempts):
            said, wait = "", None
            try:
                async with client.stream("GET", url) as response:
                    content = await _whole(response, largest)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                said = redact(f"{type(error).__name__}: {error}", secrets_of(url))
                told = "final" if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol) else "again"
            else:
                if response.status_code == httpx.codes.NOT_FOUND:
                    return None
                told, said = verdict(response.status_code, content), f"status {response.status_code}"
                if told == "ok":
                    return content
                wait = retry_after(response.headers, datetime.now(UTC))
            wait_s = RETRIES.wait(attempt, wait, rng) if told == "again" else None
            if wait_s is None:
                break
            await asyncio.sleep(wait_s)
    mend = "Try again later, or download it by hand."
    raise SourceError(redact(url, secrets_of(url)), f"it cannot be fetched: {said}", mend=mend)


async def _whole(response: httpx.Response, largest: int) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > largest:
            url = str(response.url)
            found = f"more than {largest:,} bytes"
            raise SourceError(redact(url, secrets_of(url)), found, mend="No file of its kind is so large.")
        parts.append(part)
    return b"".join(parts)
