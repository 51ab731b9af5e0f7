"""`replay`: answers from the journal of an earlier run: no network, no money, the same results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from nscore._sending.history import History, Past
from nscore.backends._protocol import Backend, Call, backend, remade
from nscore.errors import BackendError
from nscore.exchange import Capabilities, Prompt, Reply

__all__ = ["Replay"]


@backend("replay")
@dataclass(frozen=True, slots=True)
class Replay:
    """Answers the requests of a run again from its journal; a request that it never made is `not_run`.

    Args:
        run: the folder of the run.
    """

    run: Path | str
    _inner: Backend = field(init=False, repr=False)
    _can: Capabilities = field(init=False, repr=False)
    _history: History = field(init=False, repr=False)

    def __post_init__(self) -> None:
        history = History.of_run(Path(self.run))
        if history.settings is None:
            raise BackendError(f"{self.run}: nothing was asked in this run: there is nothing to replay.")
        object.__setattr__(self, "_inner", remade(history.settings["backend"]))
        object.__setattr__(self, "_can", msgspec.convert(history.settings["capabilities"], Capabilities))
        object.__setattr__(self, "_history", history)

    def __reduce__(self) -> tuple[object, ...]:
        return Replay, (str(Path(self.run).absolute()),)  # another process reads the journals itself

    @property
    def name(self) -> str:
        """`replay`."""
        return "replay"

    @property
    def model(self) -> str:
        """That of the run."""
        return self._inner.model

    @property
    def url(self) -> str:
        """That of the run: requests are known by it."""
        return self._inner.url

    @property
    def address(self) -> str:
        """Nowhere: nothing is sent."""
        return self._inner.url

    @property
    def assumed(self) -> Capabilities:
        """What the run's server was found to do."""
        return self._can

    def call(self, prompt: Prompt, can: Capabilities, *, seed: int | None = None) -> Call:
        """As the run's backend."""
        return self._inner.call(prompt, can, seed=seed)

    def headers(self) -> Mapping[str, str]:
        """None."""
        return {}

    def secrets(self) -> tuple[str, ...]:
        """Those that the environment holds for the run's backend; the run stored no reply with those of its time."""
        return self._inner.secrets()

    def settings(self) -> dict[str, object]:
        """Those of the run."""
        return self._inner.settings()

    def read(self, raw: bytes) -> Reply:
        """As the run's backend."""
        return self._inner.read(raw)

    def past(self, key: bytes) -> Past | None:
        """The stored reply to a request."""
        return self._history.past(key)
