"""The flags that name a model server, and the backend that they make."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nscore.backends import BACKENDS, Backend, Replay
from nscore.errors import SettingError

__all__ = ["add_backend", "backend_of", "money"]


def add_backend(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    group = parser.add_argument_group("model server")
    group.add_argument(
        "--backend", default="openai", metavar="NAME", help=f"one of {', '.join(BACKENDS)} (default: openai)"
    )
    group.add_argument(
        "--base-url", metavar="URL", help="(default: $OPENAI_BASE_URL, for anthropic $ANTHROPIC_BASE_URL)"
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
    group.add_argument("--replay", type=Path, metavar="RUN", help="answers from the journal of an earlier run instead")


def backend_of(arguments: argparse.Namespace) -> Backend | None:
    """The backend that the flags name; None where they name none. The key comes from the environment alone."""
    if arguments.replay is not None:
        return Replay(arguments.replay)
    given: dict[str, object] = {
        name: getattr(arguments, name)
        for name in ("base_url", "model", "thinking_tokens")
        if getattr(arguments, name) is not None
    }
    if arguments.extra is not None:
        try:
            extra = json.loads(arguments.extra)
        except ValueError as error:
            raise SettingError(f"--extra: found {arguments.extra!r}, expected a JSON object ({error})") from None
        if not isinstance(extra, dict):
            raise SettingError(f"--extra: found {arguments.extra!r}, expected a JSON object")
        given["extra"] = extra
    if arguments.backend == "replay":
        raise SettingError("--backend replay: name the run whose answers are replayed, --replay RUN")
    factory = BACKENDS[arguments.backend]
    if not given:
        return None
    if "model" not in given:
        raise SettingError("--model: name the model, as the server calls it")
    return factory(**given)


def money(text: str) -> tuple[float, ...]:
    """Dollars for a million tokens: of prompts, of answers and, if given, of cached prompts."""
    parts = [float(part) for part in text.split(",")]
    if len(parts) not in {2, 3}:
        raise ValueError(text)
    return tuple(parts)
