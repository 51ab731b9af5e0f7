"""The run directory as one reads it: what a simulation was started with, and the tables that came out of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from nscore import __version__
from nscore._drawing.markup import tag
from nscore._sending.history import JOURNAL, History
from nscore.errors import NscoreError, RunError
from nscore.frames import source

__all__ = ["JOURNAL", "REQUESTS", "SETTINGS", "SIMULATED", "Run", "history_of", "journal_of", "opened", "readable"]

FORMAT = 1
SETTINGS = "run.json"
SIMULATED, REQUESTS = "simulated.parquet", "requests.parquet"


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A simulation's results on disk.

    Args:
        path: the folder of the run.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def simulated(self) -> pl.LazyFrame:
        """The `simulated` table: one row a token, `predicted` filled.

        Raises:
            RunError: if nothing is written yet.
            TableError: if a file of it is not as it was written.
        """
        return self._table(SIMULATED)

    def requests(self) -> pl.LazyFrame:
        """The `requests` table: one row a call to the model. Raises as `simulated` does."""
        return self._table(REQUESTS)

    def settings(self) -> dict[str, Any]:
        """What the run was started with, and what its server was found to do.

        Raises:
            RunError: if no run was started here, or it is one of a newer nscore.
            JournalError: if its journal is damaged.
        """
        return opened(self.path, history_of(self.path))

    def _repr_html_(self) -> str:
        import nscore as ns  # noqa: PLC0415  (a run is described by what stands above it)

        try:
            return tag("h3", str(self.path)) + ns.describe(self.path)._repr_html_()
        except NscoreError as error:
            return tag("p", str(error))

    def _table(self, name: str) -> pl.LazyFrame:
        if not any((self.path / name).glob("*.parquet")):
            raise RunError(f"{self.path / name}: nothing is written yet. Run the same simulation again: it goes on.")
        return source(self.path / name).frame


def readable(settings: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> bytes:
    """What `run.json` says to those who want to know of a run; the journal is what counts."""
    return json.dumps({**settings, "inputs": inputs}, indent=2, ensure_ascii=False).encode() + b"\n"


def journal_of(path: Path) -> Path:
    """The folder of a run's journal; raises a `RunError` if no run was started there."""
    if not (path / JOURNAL).is_dir():
        raise RunError(f"{path}: no run was started here. Name the folder of a run.")
    return path / JOURNAL


def history_of(path: Path) -> History:
    """What the journals of a run tell; raises a `RunError` if no run was started there."""
    journal_of(path)
    return History.of_run(path)


def opened(path: Path, history: History) -> dict[str, Any]:
    """The settings of a run; raises a `RunError` if it never had any, or is one of a newer nscore."""
    content = history.settings
    if content is None:
        raise RunError(f"{path}: the run was broken off before anything was asked. Start it again.")
    if content["format"] > FORMAT:
        raise RunError(
            f"{path}: written by nscore {content['nscore']}, format {content['format']}; this is nscore {__version__}, "
            f"which reads up to format {FORMAT}. Update nscore."
        )
    return content
