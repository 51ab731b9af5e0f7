"""The flags that name a model server, and the backend that they make."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from nscore._sending.retry import redact
from nscore.backends import BACKENDS, Backend, Replay, Servers
from nscore.errors import SettingError

__all__ = ["add_backend", "backend_of", "money"]


def add_backend(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    group = parser.add_argument_group("model server")
    group.add_argument(
        "--backend", default="openai", metavar="NAME", help=f"one of {', '.join(BACKENDS)} (default: openai)"
    )
    group.add_argument(
        "--base-url",
        metavar="URL[=WEIGHT]",
        action=_Addresses,
        help="may be given several times, for servers that are equal, with the weight of each"
        " (default: $OPENAI_BASE_URL, for anthropic $ANTHROPIC_BASE_URL)",
    )
    group.add_argument("--model", metavar="NAME", help="the model, as the server calls it")
    group.add_argument(
        "--extra",
        metavar="JSON",
        help='further fields of every request\'s body: \'{"reasoning_effort": "low"}\'; null leaves a field out',
    )
    group.add_argument(
        "--thinking-tokens", type=int, metavar="N", help="room for thinking in each answer (default: 4096)"
    )
    group.add_argument("--api-key", nargs="?", action=_NoKey, help=argparse.SUPPRESS)
    group.add_argument("--replay", type=Path, metavar="RUN", help="answers from the journal of an earlier run instead")


def backend_of(arguments: argparse.Namespace) -> Backend | None:
    """The backend that the flags name; None where they name none. The key comes from the environment alone."""
    if arguments.replay is not None:
        return Replay(arguments.replay)
    given: dict[str, object] = {
        name: getattr(arguments, name) for name in ("model", "thinking_tokens") if getattr(arguments, name) is not None
    }
    if arguments.extra is not None:
        shown = redact(repr(arguments.extra), ())
        try:
            extra = json.loads(arguments.extra)
        except ValueError as error:
            raise SettingError(f"--extra: found {shown}, expected a JSON object ({error})") from None
        if not isinstance(extra, dict):
            raise SettingError(f"--extra: found {shown}, expected a JSON object")
        given["extra"] = extra
    if arguments.backend == "replay":
        raise SettingError("--backend replay: name the run whose answers are replayed, --replay RUN")
    factory = BACKENDS[arguments.backend]
    told = arguments.base_url or []
    servers = [_weighed(text) for text in (told.split() if isinstance(told, str) else told)]
    if not given and not servers:
        return None
    if "model" not in given:
        raise SettingError("--model: name the model, as the server calls it")
    if len(servers) == 1:
        given["base_url"] = servers[0][0]
    if len(servers) < 2:
        return factory(**given)
    return Servers([factory(**given, base_url=url) for url, _ in servers], weights=[weight for _, weight in servers])


def _weighed(text: str) -> tuple[str, float]:
    """A base URL and its weight, which is 1 where none is said; what follows a ? is the URL's own."""
    url, _, weight = text.rpartition("=")
    if "?" in text or not re.fullmatch(r"\d+(\.\d+)?", weight):
        return text, 1.0
    return url, float(weight)


def money(text: str) -> tuple[float, ...]:
    """Dollars for a million tokens: of prompts, of answers and, if given, of cached prompts."""
    parts = [float(part) for part in text.split(",")]
    if len(parts) not in {2, 3}:
        raise ValueError(text)
    return tuple(parts)


class _Addresses(argparse.Action):
    """Base URLs; those of flags take the place of those of the environment or of nscore.toml, which are text."""

    def __call__(
        self, _parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, *_: object
    ) -> None:
        there = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(there if isinstance(there, list) else []), *str(values).split()])


class _NoKey(argparse.Action):
    """A flag that is none, since it would be tried: the usual refusal would print the key."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(
            "--api-key: there is no such flag, since all users of a machine see the flags of its processes. "
            "Set $OPENAI_API_KEY, for anthropic $ANTHROPIC_API_KEY."
        )
