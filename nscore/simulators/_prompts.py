"""The words of the prompts and the examples they show, from a data file that has a version."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Example", "examples", "instruction", "piece", "version", "visible"]

# Characters that would break a line, or that nobody sees, are shown as escapes.
_ESCAPES = {c: repr(chr(c))[1:-1] for c in [*range(32), 127, 0x85, 0x2028, 0x2029]}


@dataclass(frozen=True, slots=True)
class Example:
    """A record whose activations the model is shown, on the scale 0 to 10."""

    explanation: str
    tokens: tuple[str, ...]
    activations: tuple[int, ...]
    unknown: int

    def values(self, top: int) -> list[int]:
        """The activations on the scale 0 to `top`."""
        return [round(a * top / 10) for a in self.activations]


@cache
def _data() -> dict[str, object]:
    return tomllib.loads(files("nscore.simulators").joinpath("prompts/prompts.toml").read_text("utf-8"))


def version(name: str) -> str:
    """The simulator's name and the version of the prompts, as it stands in results."""
    return f"{name}/{_data()['version']}"


def piece(name: str, key: str) -> str:
    """A text of a simulator's."""
    table = _data()[name]
    assert isinstance(table, dict)  # noqa: S101  (the file is the package's own)
    return str(table[key])


def instruction(name: str, top: int, **pieces: str) -> str:
    """What a simulator asks for, on the scale 0 to `top`."""
    return piece(name, "instruction").strip().format(top=top, **pieces)


@cache
def examples() -> tuple[Example, ...]:
    """The records that are shown with their activations."""
    rows = _data()["examples"]
    assert isinstance(rows, list)  # noqa: S101
    return tuple(
        Example(r["explanation"], tuple(r["tokens"]), tuple(r["activations"]), int(r["unknown"])) for r in rows
    )


def visible(text: str) -> str:
    r"""A text on one line: tabs, line breaks and unseen characters as escapes.

    >>> print(visible("a\tb\n"))
    a\tb\n
    """
    return text if text.isprintable() else text.translate(_ESCAPES)
