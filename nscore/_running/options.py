"""How a run is carried out, and what it costs: none of it changes an answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from nscore._sending.limits import Money
from nscore._sending.prices import Price, listed_price
from nscore._sending.retry import Retries
from nscore.backends import Backend
from nscore.errors import SettingError

__all__ = ["Keep", "Options", "Prices", "check_limit", "price_of"]

Keep = Literal["raw", "needed"]
Prices = Price | tuple[float, float] | tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a run is carried out: none of it changes an answer.

    Args:
        concurrency: the most requests in flight; the engine finds by trying how many the server bears.
        requests_per_minute: a limit to keep.
        tokens_per_minute: another, of prompts and answers together.
        timeout_s: the longest that one attempt may take.
        retries: how often and after how long a request is sent again.
        price: dollars for a million tokens; None where nobody knows.
        max_cost: dollars that are never exceeded.
        keep: whether all of a reply is kept, or what the simulators read of it.
        distribution: whether the probability of each activation is kept as a column.
    """

    concurrency: int = 64
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout_s: float = 120.0
    retries: Retries = field(default_factory=Retries)
    price: Price | None = None
    max_cost: Money | None = None
    keep: Keep = "raw"
    distribution: bool = False

    def __post_init__(self) -> None:
        for name, count in (("concurrency", self.concurrency), ("attempts", self.retries.attempts)):
            if count < 1:
                raise SettingError(f"{name}: found {count}, expected 1 or more")
        for name, number in (
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("timeout_s", self.timeout_s),
        ):
            if number is not None and not 0 < number < math.inf:
                raise SettingError(f"{name}: found {number}, expected a number above 0")
        if self.max_cost is not None and not 0 <= self.max_cost < math.inf:
            raise SettingError(f"max_cost: found {self.max_cost}, expected dollars, 0 or more")
        if self.keep not in {"raw", "needed"}:
            raise SettingError(f"keep: found {self.keep!r}, expected 'raw' or 'needed'")


def check_limit(limit: int | None) -> None:
    """Raises a `SettingError` for a limit that lets nothing through."""
    if limit is not None and limit < 1:
        raise SettingError(f"limit: found {limit}, expected 1 or more")


def price_of(given: Prices | None, backend: Backend, *, max_cost: float | None = None) -> Price | None:
    """What was said, else what the table of prices says of a backend's model.

    Raises:
        SettingError: if nobody knows, and there is a limit to keep.
    """
    if given is not None:
        return given if isinstance(given, Price) else Price(*given)
    price = listed_price(backend.url, backend.model) if backend.name != "replay" else None
    if price is None and max_cost is not None:
        raise SettingError(
            f"max_cost: nobody knows what {backend.model} costs at {backend.url}; say it: price=(input, output) dollars "
            "for a million tokens (--price INPUT,OUTPUT)"
        )
    return price
