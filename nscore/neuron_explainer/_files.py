"""Files of the original's dataclasses: their bytes from disk or web, and the rules by which their JSON is read."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from typing import TypeVar

import msgspec

from nscore._sending.fetching import fetched
from nscore._sending.loop import run_to_end
from nscore._sending.retry import redact
from nscore._sending.secrets import secrets_of
from nscore.errors import SourceError
from nscore.importers import SourceFile
from nscore.importers._json import loose

__all__ = ["aread", "joined", "made", "plain", "read", "shown"]

T = TypeVar("T")
Where = str | Path

LARGEST = 1 << 30

# What fields were called before.
RENAMED = {
    "idx": "neuron_index",
    "layer": "layer_index",
    "unit": "activation_scale",
    "simulation": "sequence_simulation",
    "explanation_or_baseline": "explanation",
    "scored_explanation_or_baseline_list": "scored_explanations",
    "attention_id": "attention_head_id",
}
DROPPED = {"response"}
_WEB = re.compile(r"https?://", re.IGNORECASE)
_AZURE = re.compile(r"az://([^/]+)/(.*)", re.DOTALL)


def joined(folder: Where, layer: str | int, name: str) -> Where:
    """`{folder}/{layer}/{name}`, on disk or in the web; `az://account/container` is Azure's storage."""
    azure = _AZURE.fullmatch(str(folder))
    if azure:
        folder = f"https://{azure[1]}.blob.core.windows.net/{azure[2]}"
    if _WEB.match(str(folder)):
        return f"{str(folder).rstrip('/')}/{layer}/{name}"
    return Path(folder) / str(layer) / name


def shown(where: Where) -> str:
    """A file's name without secrets."""
    return redact(str(where), secrets_of(str(where)))


def read(where: Where) -> bytes | None:
    """The bytes of a file, local or at an http(s) address; None where there is none."""
    if isinstance(where, str) and _WEB.match(where):
        return run_to_end(lambda: fetched(where, largest=LARGEST))
    try:
        return Path(where).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


async def aread(where: Where) -> bytes | None:
    """The async twin of `read`."""
    if isinstance(where, str) and _WEB.match(where):
        return await fetched(where, largest=LARGEST)
    return await asyncio.to_thread(read, where)


def plain(raw: bytes | str, where: Where) -> object:
    """What a JSON text holds, with its fields under the names of today.

    A predicted activation that is null is NaN: the original writes NaN so. Bare NaN is read too.

    Raises:
        SourceError: if it is no JSON.
    """
    return _renamed(loose(SourceFile(shown(where)), raw, mend=_MEND))


def made(content: object, kind: type[T], where: Where) -> T:
    """A dataclass, with all that it holds, of what `plain` gives.

    Raises:
        SourceError: if a field is missing, or holds something else.
    """
    try:
        return msgspec.convert(content, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        found, _, place = str(error).partition(" - at ")
    raise SourceError(shown(where), found, place=place.strip("`"), mend=f"Expected a {kind.__name__}.")


_MEND = "Expected a file as the original writes it: see whether it came whole."


def _renamed(value: object) -> object:
    if isinstance(value, list):
        return [_renamed(each) for each in value]
    if not isinstance(value, dict):
        return value
    named: dict[str, object] = {RENAMED.get(str(k), str(k)): _renamed(v) for k, v in value.items() if k not in DROPPED}
    layer = named.get("layer_index")
    if isinstance(layer, str) and re.fullmatch("[0-9]{1,18}", layer):
        named["layer_index"] = int(layer)
    expected = named.get("expected_activations")
    if isinstance(expected, list):
        named["expected_activations"] = [math.nan if v is None else v for v in expected]
        # older files leave out what they do not know
        named.setdefault("distribution_values", [])
        named.setdefault("distribution_probabilities", [])
    if "true_activations" in named:
        named.setdefault("ev_correlation_score", None)
    return named
