"""What a simulator is, and the shelf they stand on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import polars as pl

from nscore._shelf import Shelf
from nscore.errors import SimulatorError
from nscore.simulators._prompted import PromptSimulator

__all__ = ["SIMULATORS", "Simulator", "resolve_simulator", "simulator"]


@runtime_checkable
class Simulator(Protocol):
    """Turns (explanation, tokens) into predicted activations. It does no I/O.

    Attributes:
        name: the value of the key column `simulator` in its results.
    """

    @property
    def name(self) -> str:
        """The value of the key column `simulator` in its results."""

    def simulate(self, pairs: pl.LazyFrame, *, keys: Sequence[str], train: pl.LazyFrame | None) -> pl.LazyFrame:
        """Predicts each token of each pair of an explanation and a record.

        Args:
            pairs: one row a token of a record, beside an explanation: the neuron's keys, `explanation_id`,
                `explanation`, `sequence`, `position`, `token` and whatever else travels along; in each record the
                rows are in the order of their positions.
            keys: the keys of a neuron.
            train: the records of the train split, which a simulator may learn from; None where there is no split.

        Returns:
            The same rows and columns in the same order, with `predicted` (Float64, on the scale 0 to 10 or, where
            the simulator says so, in the neuron's units; null when not known) and `status`.
        """


Factory = TypeVar("Factory", bound=Callable[..., "Simulator | PromptSimulator"])

SIMULATORS: Shelf[Callable[..., Simulator | PromptSimulator]] = Shelf("simulator", "nscore.simulators")


def simulator(name: str) -> Callable[[Factory], Factory]:
    """Puts a class on the shelf under a name; called without arguments it makes the simulator's usual form."""
    return SIMULATORS.adding(name)


def resolve_simulator(given: str | Simulator | PromptSimulator, **options: object) -> Simulator | PromptSimulator:
    """A simulator by name: one of the shelf's, or `shuffled_` and such a name for its control.

    Args:
        given: a name, or a simulator, which is given back.
        options: what the simulator is made with, where it is given by name.

    Raises:
        UnknownNameError: if the shelf has no such simulator.
        SimulatorError: if it is the control of a control, or has no such option.
    """
    if not isinstance(given, str):
        return given
    from nscore.simulators.shuffled import Shuffled  # noqa: PLC0415  (the control stands on the protocol)

    inner = given.removeprefix("shuffled_")
    if inner == given or given in SIMULATORS:
        return _made(given, options)
    if inner == "shuffled":
        raise SimulatorError("shuffled_shuffled: the control of a control is no control")
    return Shuffled(_made(inner, options))


def _made(name: str, options: dict[str, object]) -> Simulator | PromptSimulator:
    factory = SIMULATORS[name]
    if options:
        known = inspect.signature(factory).parameters
        for option in options:
            if option not in known:
                raise SimulatorError(f"{name} has no option {option!r}; it has: {', '.join(known) or 'none'}")
    return factory(**options)
