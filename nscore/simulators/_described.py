"""A prompt simulator as the settings of a run tell of it, and made again from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nscore.errors import SimulatorError
from nscore.simulators._prompted import PromptSimulator
from nscore.simulators._protocol import SIMULATORS
from nscore.simulators.shuffled import Shuffled

__all__ = ["described", "remade"]


def described(simulator: PromptSimulator | Shuffled) -> dict[str, Any]:
    """All that decides what it asks."""
    if isinstance(simulator, Shuffled):
        assert isinstance(simulator.inner, PromptSimulator)  # noqa: S101  (simulate has seen to it)
        return {"name": simulator.name, "seed": simulator.seed, "inner": described(simulator.inner)}
    options: dict[str, Any] = dataclasses.asdict(simulator) if dataclasses.is_dataclass(simulator) else {}
    return {"name": simulator.name, "prompts": simulator.version} | options


def remade(told: Mapping[str, Any]) -> PromptSimulator | Shuffled:
    """The simulator that was described.

    Raises:
        SimulatorError: if its prompts are not those of this nscore.
        UnknownNameError: if there is none of that name.
    """
    if "inner" in told:
        inner = remade(told["inner"])
        assert isinstance(inner, PromptSimulator)  # noqa: S101  (a control of a control is never described)
        return Shuffled(inner, told["seed"])
    options = {name: value for name, value in told.items() if name not in {"name", "prompts"}}
    made = SIMULATORS[told["name"]](**options)
    if not isinstance(made, PromptSimulator) or made.version != told["prompts"]:
        raise SimulatorError(
            f"{told['name']}: asked with the prompts {told['prompts']}, which are not those of this nscore. Use the "
            "nscore that the run was made with."
        )
    return made
