"""What a backend is, and the shelf they stand on."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from nscore._shelf import Shelf
from nscore.errors import BackendError
from nscore.exchange import Capabilities, Prompt, Reply

__all__ = ["BACKENDS", "Backend", "Call", "Server", "backend"]


class Call(NamedTuple):
    """An HTTP POST: the path below the base URL, and the body before it is JSON."""

    path: str
    body: dict[str, object]


@runtime_checkable
class Backend(Protocol):
    """The wire format of one kind of model server. It does no I/O."""

    @property
    def name(self) -> str:
        """The name on the shelf."""

    @property
    def model(self) -> str:
        """The model, as the server calls it."""

    @property
    def url(self) -> str:
        """The base URL, without secrets."""

    @property
    def address(self) -> str:
        """The base URL that is connected to, secrets included."""

    @property
    def assumed(self) -> Capabilities:
        """What such a server can do at best: what the probe starts from, and what a dry run assumes."""

    def call(self, prompt: Prompt, can: Capabilities, *, seed: int | None = None) -> Call:
        """The request that asks for a prompt. `seed` tells replicates of one prompt apart."""

    def headers(self) -> Mapping[str, str]:
        """The headers of every request, secrets among them."""

    def secrets(self) -> tuple[str, ...]:
        """What must never be written anywhere."""

    def settings(self) -> dict[str, object]:
        """What, besides the prompt, decides an answer; without secrets."""

    def read(self, raw: bytes) -> Reply:
        """What a reply of status 200 says.

        Raises:
            ReplyError: if it says nothing.
        """


Factory = TypeVar("Factory", bound=Callable[..., Backend])

BACKENDS: Shelf[Callable[..., Backend]] = Shelf("backend", "nscore.backends")


def backend(name: str) -> Callable[[Factory], Factory]:
    """Puts a class on the shelf under a name."""

    def register(factory: Factory) -> Factory:
        BACKENDS.add(name, factory)
        return factory

    return register


@dataclass(frozen=True, slots=True)
class Server:
    """What all model servers are reached by.

    Args:
        model: the model, as the server calls it.
        base_url: where the server is; left out, what the ecosystem's environment variable says, else the usual place. It
            may hold a user, a password and a query, which are sent, and are in no `repr`, file or log.
        api_key: left out, what the ecosystem's environment variable holds when the backend is made. It is in no
            `repr`, file or log.
        extra: further fields of every request's body (`{"reasoning_effort": "low"}`); one that is None leaves out
            what nscore would send.
        thinking_tokens: room for thinking, added to the limit of every answer of a model that thinks.
    """

    model: str
    base_url: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    extra: Mapping[str, object] = field(default_factory=dict)
    thinking_tokens: int = 4096

    def _resolve(self, url_variable: str, usual: str, key_variables: tuple[str, ...], without: str = "") -> None:
        """Fills in what was left out from the environment; `without` is left out at the end of the URL's path."""
        given = self.base_url or os.environ.get(url_variable) or usual
        parts = _parts(given)
        if parts is None:
            shown = re.sub(r"[?#].*", "", re.sub(r".*@", "***@", given, flags=re.DOTALL), flags=re.DOTALL)
            raise BackendError(f"base_url={shown!r}: expected http://HOST or https://HOST, with a path")
        if not (isinstance(self.model, str) and self.model.strip() and self.model.isprintable()):
            raise BackendError(f"model={self.model!r}: name a model on one line, as the server calls it")
        path = parts.path.rstrip("/").removesuffix(without)
        object.__setattr__(self, "base_url", urlunsplit(parts._replace(path=path, fragment="")))
        key = self.api_key or next((os.environ[v] for v in key_variables if os.environ.get(v)), None)
        if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
            raise BackendError("the API key holds characters that no HTTP header can: a line break, perhaps")
        object.__setattr__(self, "api_key", key)

    @property
    def name(self) -> str:
        """The name on the shelf."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The base URL, without user, password and query."""
        return _without_secrets(self.base_url or "")

    @property
    def address(self) -> str:
        """The base URL, with what secrets it holds."""
        return self.base_url or ""

    def secrets(self) -> tuple[str, ...]:
        """The key, and the password, or where there is none the user, and the query of the URL."""
        parts = urlsplit(self.base_url or "")
        known = parts.password or parts.username or ""
        values = [value for _, value in parse_qsl(parts.query)]
        basic = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if known else ""
        sent = b64encode(basic.encode()).decode()
        found = [self.api_key, known, unquote(known), sent, parts.query, *values]
        return tuple(dict.fromkeys(s for s in found if s))

    def settings(self) -> dict[str, object]:
        """See `Backend.settings`."""
        return {
            "name": self.name,
            "model": self.model,
            "base_url": self.url,
            "extra": dict(self.extra),
            "thinking_tokens": self.thinking_tokens,
        }

    def _limit(self, prompt: Prompt, can: Capabilities) -> int:
        """The room for an answer. Models think in conversations: a plain text is gone on with at once."""
        thinks = can.thinks and can.chat and prompt.form == "chat"
        return prompt.max_tokens + (self.thinking_tokens if thinks else 0)

    def _body(self, **fields: object) -> dict[str, object]:
        """The body: what nscore sends, and over it what the user adds."""
        return {k: v for k, v in ({"model": self.model} | fields | dict(self.extra)).items() if v is not None}


def _parts(url: str) -> SplitResult | None:
    """The parts of a URL; None where nothing can be sent to it."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # a port that is none raises
    except ValueError:
        return None
    whole = parts.scheme in {"http", "https"} and parts.hostname and url.isprintable() and " " not in url
    return parts if whole else None


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
