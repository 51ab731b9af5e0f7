"""What a backend is, and the shelf they stand on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable
from urllib.parse import SplitResult, urlsplit, urlunsplit

from nscore._sending.secrets import forget_locals, secrets_of, secrets_of_proxies
from nscore._shelf import Shelf
from nscore.errors import BackendError
from nscore.exchange import Capabilities, Prompt, Reply

__all__ = ["BACKENDS", "Backend", "Call", "Server", "backend", "remade"]


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
    """Puts a class on the shelf under a name; an error in making one shows no argument of it, which may be a key."""

    def register(factory: Factory) -> Factory:
        if isinstance(factory, type):
            _make_discreetly(factory)
        BACKENDS.add(name, factory)
        return factory

    return register


def remade(settings: Mapping[str, Any]) -> Backend:
    """The backend that its settings tell of, with the key that the environment holds."""
    given = dict(settings)
    return BACKENDS[given.pop("name")](**given)


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
        wrong = self._filled(url_variable, usual, key_variables, without)
        if wrong:  # raised here, where no local variable is a secret
            raise BackendError(wrong)

    def _filled(self, url_variable: str, usual: str, key_variables: tuple[str, ...], without: str) -> str | None:
        """Fills it in, or says what is wrong."""
        given = self.base_url or os.environ.get(url_variable) or usual
        parts = _parts(given)
        if parts is None:
            return f"base_url={_shown(given)!r}: expected http://HOST or https://HOST, with a path"
        if not (isinstance(self.model, str) and self.model.strip() and self.model.isprintable()):
            return f"model={self.model!r}: name a model on one line, as the server calls it"
        path = parts.path.rstrip("/").removesuffix(without)
        object.__setattr__(self, "base_url", urlunsplit(parts._replace(path=path, fragment="")))
        key = self.api_key or next((os.environ[v] for v in key_variables if os.environ.get(v)), None)
        if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
            return "the API key holds characters that no HTTP header can: a line break, perhaps"
        object.__setattr__(self, "api_key", key)
        return None

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
        """The key, what `secrets_of` finds in the URL, and the passwords of the environment's proxies."""
        found = [self.api_key, *secrets_of(self.base_url or ""), *secrets_of_proxies()]
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


def _make_discreetly(made: type) -> None:
    """Has a class forget the arguments of what cannot be made: a traceback may be shown with the values of variables."""
    init = made.__init__  # type: ignore[misc]

    @wraps(init)
    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807
        try:
            init(self, *args, **kwargs)
        except BaseException as error:
            del args, kwargs
            forget_locals(error)
            raise

    made.__init__ = __init__  # type: ignore[misc]


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


def _shown(url: str) -> str:
    """Of what is no URL, the part that can be no secret: after the last @ and before the query."""
    if len(url) >= 16 and not re.search("[.:/]", url):  # a key in the wrong place
        return "***"
    rest = re.split("[?#]", url, maxsplit=1)
    if "@" in "".join(rest[1:]):  # a password with a ?, or an @ in the query: nobody knows
        return "***"
    return re.sub(r".*@", "***@", rest[0], flags=re.DOTALL)
