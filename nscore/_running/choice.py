"""Who simulates: from names and objects to simulators, and whether they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nscore.backends import Backend
from nscore.errors import SimulatorError
from nscore.simulators import PromptSimulator, Shuffled, Simulator, resolve_simulator

__all__ = ["Simulators", "asking", "asks", "check_offline", "chosen"]

AnySimulator = str | Simulator | PromptSimulator
Simulators = AnySimulator | Sequence[AnySimulator]


def chosen(simulator: Simulators) -> list[Simulator | PromptSimulator]:
    """The simulators that were named, each once."""
    given: Sequence[AnySimulator] = (
        [simulator] if isinstance(simulator, str | Simulator | PromptSimulator) else list(simulator)
    )
    known = [resolve_simulator(s) for s in given]
    names = [s.name for s in known]
    if not known or len(set(names)) < len(names):
        raise SimulatorError(f"simulator={names}: name at least one simulator, and each once")
    return known


def asks(simulator: Simulator | PromptSimulator) -> bool:
    """Whether a simulator, or what it controls, asks a model."""
    inner = simulator.inner if isinstance(simulator, Shuffled) else simulator
    return isinstance(inner, PromptSimulator)


def asking(given: Sequence[Simulator | PromptSimulator], backend: Backend | None) -> list[PromptSimulator | Shuffled]:
    """The simulators, all of which ask a model, and there is one."""
    those = [s for s in given if isinstance(s, PromptSimulator | Shuffled) and asks(s)]
    others = [s.name for s in given if not asks(s)]
    if others:
        raise SimulatorError(f"{', '.join(others)}: asks no model; simulate with it by itself, without a backend")
    if backend is None:
        raise SimulatorError(
            f"{those[0].name} asks a language model: name one, backend=nscore.OpenAI(model=..., base_url=...) "
            "(--base-url URL --model NAME)"
        )
    return those


def check_offline(
    given: Sequence[Simulator | PromptSimulator], backend: Backend | None, out: str | Path | None, limit: int | None
) -> None:
    """Raises a `SimulatorError` if simulators that ask nobody are given what only those need that do."""
    if backend is not None or out is not None or limit is not None:
        raise SimulatorError(
            f"{given[0].name} asks no model: backend=, out= and limit= are for those that do: name one, "
            "simulator='json_list'"
        )
