"""What tokens cost: a small table, what a request cost, and what it can cost at most."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit

from nscore.errors import SettingError
from nscore.exchange import Prompt, Usage

__all__ = ["Price", "dollars", "listed_price"]

MILLION = 1e6
# The hosts whose prices the table knows; anybody may serve a model of the same name for another price.
HOSTS = {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}
# A model's name may end in the date of its version; any other ending ("gpt-5-pro") is another model, at another price.
DATE = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2}|latest)$")
# What a server may put around each message, in tokens.
AROUND = 16


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a million tokens.

    Args:
        input: of prompts.
        output: of answers, thinking included.
        cached: of the part of prompts that the server had cached; as `input` where left out.
    """

    input: float
    output: float
    cached: float | None = None

    def __post_init__(self) -> None:
        for value in (self.input, self.output, self.cached):
            if value is not None and not 0 <= value < float("inf"):
                raise SettingError(f"price: found {value}, expected dollars for a million tokens, 0 or more")

    def of(self, usage: Usage) -> float | None:
        """What a request cost; None where the server does not say how many tokens it was."""
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
        dear = self.input if self.cached is None else self.cached
        full = (usage.prompt_tokens - cached) * self.input
        return (full + cached * dear + usage.completion_tokens * self.output) / MILLION

    def most(self, prompt: Prompt, thinking_tokens: int = 0) -> float:
        """What a request can cost at most: every byte of the prompt a token, the answer as long as it may be."""
        tokens = sum(len(m.text.encode()) + AROUND for m in prompt.messages) + AROUND
        return (tokens * self.input + (prompt.max_tokens + thinking_tokens) * self.output) / MILLION


@cache
def _table() -> dict[str, dict[str, Price]]:
    content = tomllib.loads(files("nscore").joinpath("prices.toml").read_text("utf-8"))
    return {host: {m: Price(**p) for m, p in content[host].items()} for host in HOSTS.values()}


def listed_price(url: str, model: str) -> Price | None:
    """What the table says a model costs at a base URL; None where it does not know.

    >>> listed_price("https://api.openai.com/v1", "gpt-4o-mini-2024-07-18")
    Price(input=0.15, output=0.6, cached=0.075)
    """
    prices = _table().get(HOSTS.get(urlsplit(url).hostname or "", ""), {})
    return prices.get(DATE.sub("", model))


def dollars(amount: float) -> str:
    """An amount to read.

    >>> dollars(1234.5), dollars(0.01234)
    ('$1,234.50', '$0.0123')
    """
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"
