"""A run's limits, shared out: what one request may take of them, and what each of several workers gets."""

from __future__ import annotations

import dataclasses
import math

from nscore._running.options import Options
from nscore._running.shards import Request
from nscore._sending.prices import Price
from nscore.backends import Backend
from nscore.errors import LimitError, SettingError
from nscore.exchange import Capabilities

__all__ = ["check_tokens", "most_of", "room_of", "shared", "tokens_of"]

BYTES_PER_TOKEN = 3.0


def room_of(backend: Backend, can: Capabilities, request: Request) -> int:
    """The most tokens that an answer may have, thinking and what the user sets included."""
    settings = backend.settings()
    thinking = settings.get("thinking_tokens") if can.thinks else None
    extra = settings.get("extra")
    named = [extra.get(name) for name in ("max_tokens", "max_completion_tokens")] if isinstance(extra, dict) else []
    given = max((n for n in named if isinstance(n, int)), default=0)
    return max(given, request.prompt.max_tokens + (thinking if isinstance(thinking, int) else 0))


def tokens_of(request: Request, room: int) -> float:
    """What a request takes of a limit on tokens, at about."""
    return len(request.body) / BYTES_PER_TOKEN + room


def most_of(request: Request, room: int, price: Price | None) -> float:
    """What one attempt may cost at most, in dollars; 0 where nobody knows prices."""
    return 0.0 if price is None else price.most(request.prompt, room - request.prompt.max_tokens)


def shared(options: Options, workers: int) -> Options:
    """What each of several workers may do, so that all together keep the limits; money is lent by the shard.

    Raises:
        SettingError: if a limit is too small for so many.
    """
    if workers == 1:
        return options
    shares: dict[str, object] = {"concurrency": options.concurrency // workers}
    if options.requests_per_minute is not None:  # whole requests, or windows of a minute would hold one too many
        shares["requests_per_minute"] = float(math.floor(options.requests_per_minute / workers))
    if options.tokens_per_minute is not None:
        shares["tokens_per_minute"] = options.tokens_per_minute / workers
    for name, share in shares.items():
        if not share:
            raise SettingError(
                f"{name}: {getattr(options, name):g} cannot be shared out among {workers} workers; take fewer workers "
                "(--workers)"
            )
    return dataclasses.replace(options, **shares)  # type: ignore[arg-type]


def check_tokens(options: Options, largest: float, workers: int) -> None:
    """Raises a `LimitError` if a worker's share of the tokens a minute is less than the largest request takes."""
    whole = options.tokens_per_minute
    if whole is not None and whole / workers < largest <= whole:
        raise LimitError(
            f"a request of {largest:g} tokens fits a limit of {whole:g} tokens a minute, but not what each of {workers} "
            "workers gets of it; take fewer workers (--workers)"
        )
