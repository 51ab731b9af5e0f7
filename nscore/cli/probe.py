"""`nscore probe`: what a model server can do, and which simulators work with it."""

from __future__ import annotations

import argparse
import dataclasses

import nscore as ns
from nscore.cli._backend import add_backend, backend_of
from nscore.cli._common import add_json, print_json
from nscore.errors import BackendError, SettingError
from nscore.probe import check_needs
from nscore.simulators import SIMULATORS, PromptSimulator

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add_backend(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Probes the server and prints what was found."""
    if arguments.replay is not None:
        raise SettingError("--replay: there is no server behind a run; name one: --base-url URL --model NAME")
    backend = backend_of(arguments)
    if backend is None:
        raise SettingError("--model: name the model, as the server calls it")
    can = ns.probe(backend)
    made = [SIMULATORS[name]() for name in SIMULATORS]
    asking = [s for s in made if isinstance(s, PromptSimulator)]
    works = {s.name: _works(s, can, backend) for s in asking}
    if arguments.json:
        print_json({"can": dataclasses.asdict(can), "simulators": works})
        return 0
    for name, value in dataclasses.asdict(can).items():
        print(f"{name:<18}{'not known' if value is None else value}")
    print(f"\nsimulators that work: {', '.join(n for n, w in works.items() if w) or 'none'}")
    return 0


def _works(simulator: PromptSimulator, can: ns.Capabilities, backend: ns.Backend) -> bool:
    try:
        check_needs([simulator], can, backend)
    except BackendError:
        return False
    return True
