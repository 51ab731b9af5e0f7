"""The questions that analysts ask most, from `cookbook.toml`, which users can read and tests run."""

from __future__ import annotations

import textwrap
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Recipe", "cookbook"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A question and its SQL.

    Attributes:
        name: one word for it.
        question: as one would ask it.
        sql: the statement.
    """

    name: str
    question: str
    sql: str

    def __str__(self) -> str:
        asked = textwrap.fill(f"{self.name}: {self.question}", 110)
        return "\n".join([*(f"-- {line}" for line in asked.splitlines()), f"{self.sql};"])


@cache
def cookbook() -> tuple[Recipe, ...]:
    """All of them, in the order of the file.

    >>> print(cookbook()[1].question)
    Which explanations score best?
    """
    content = tomllib.loads(files("nscore").joinpath("cookbook.toml").read_text("utf-8"))
    return tuple(Recipe(r["name"], r["question"], r["sql"].strip()) for r in content["recipe"])
