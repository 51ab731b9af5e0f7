"""The catalogue of metrics: each with its best value, its direction, and whether it decomposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import polars as pl

from nscore._shelf import Shelf
from nscore.metrics._moments import Moments

__all__ = ["CATALOGUE", "DEFAULT", "Metric", "MetricLike", "metric", "resolve"]


Function = TypeVar("Function", bound=Callable[..., pl.Expr])


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of the catalogue."""

    name: str
    function: Callable[..., pl.Expr]
    best: float
    higher_is_better: bool
    decomposes: bool
    """Whether it is a formula of moments, which merge; if not, it is computed from the tokens."""
    worst: float = float("nan")
    """Its worst value; NaN if there is none, or none is known."""

    @property
    def meaning(self) -> str:
        """The first line of its docstring."""
        return (self.function.__doc__ or "").strip().split("\n", maxsplit=1)[0]

    def from_tokens(self, weight: str | None = None) -> pl.Expr:
        """The expression over a table of tokens."""
        return self.function(weight=weight).alias(self.name)

    def from_moments(self) -> pl.Expr:
        """The expression over a table of moments, row by row."""
        return self.function(Moments.stored()).alias(self.name)


MetricLike: TypeAlias = "str | Metric | pl.Expr"

CATALOGUE: Shelf[Metric] = Shelf("metric", "nscore.metrics")
DEFAULT = ("ev_correlation_score", "rsquared_score", "absolute_dev_explained_score")


def metric(
    *, best: float, higher_is_better: bool = True, decomposes: bool, worst: float = float("nan")
) -> Callable[[Function], Function]:
    """Puts a function on the catalogue under its own name, unchanged."""

    def register(function: Function) -> Function:
        entry = Metric(function.__name__, function, best, higher_is_better, decomposes, worst)
        CATALOGUE.add(entry.name, entry)
        return function

    return register


def resolve(metrics: Sequence[MetricLike] | str | None) -> list[Metric]:
    """Names, entries or expressions as entries: the three original scores if None, everything for `"all"`.

    An expression is a metric of the user's own: computed from the tokens, under its output name.

    Raises:
        UnknownNameError: if a name is not in the catalogue.
    """
    if metrics is None:
        metrics = DEFAULT
    elif metrics == "all":
        return CATALOGUE.values()
    elif isinstance(metrics, str):
        metrics = [metrics]
    return list({m.name: m for m in map(_entry, metrics)}.values())


def _entry(given: MetricLike) -> Metric:
    if isinstance(given, Metric):
        return given
    if isinstance(given, pl.Expr):
        expression = given
        return Metric(
            expression.meta.output_name(),
            lambda **_: expression,
            best=float("nan"),
            higher_is_better=True,
            decomposes=False,
        )
    return CATALOGUE[given]
