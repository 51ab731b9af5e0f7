"""The run directory: the settings of a simulation, its journal, and the tables that come out of it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from nscore import __version__
from nscore._history import History, begun
from nscore._journal import Journal
from nscore.backends import Backend
from nscore.errors import RunError
from nscore.exchange import Capabilities
from nscore.simulators import PromptSimulator, Shuffled

__all__ = ["Run", "Workplace"]

FORMAT = 1
SETTINGS, JOURNAL = "run.json", "journal"
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
        """The `simulated` table: one row a token, `predicted` filled."""
        return self._table(SIMULATED)

    def requests(self) -> pl.LazyFrame:
        """The `requests` table: one row a call to the model."""
        return self._table(REQUESTS)

    def settings(self) -> dict[str, Any]:
        """What the run was started with, and what its server was found to do."""
        return _settings(self.path / SETTINGS)

    def _table(self, name: str) -> pl.LazyFrame:
        files = sorted((self.path / name).glob("*.parquet"))
        if not files:
            raise RunError(f"{self.path / name}: nothing is written yet. Run the same simulation again: it goes on.")
        return pl.scan_parquet(files, glob=False)


class Workplace:
    """A run directory that is being worked on: one process at a time, settings that stay, files that are whole.

    Args:
        path: the folder; made if it is not there.
        simulators: whom the run asks with.
        backend: whom it asks.
        keys: the keys of a neuron.
        distribution: whether the probability of each activation becomes a column.

    Raises:
        RunError: if the folder holds a run with other settings, one of a newer nscore, or results of something else.
        JournalError: if another process works on it, or its journal is damaged.
    """

    def __init__(
        self,
        path: Path,
        *,
        simulators: Sequence[PromptSimulator | Shuffled],
        backend: Backend,
        keys: Sequence[str],
        distribution: bool = False,
    ) -> None:
        self.path = path
        self._wanted = {
            "simulators": [_described(s) for s in simulators],
            "backend": backend.settings(),
            "keys": list(keys),
            "distribution": distribution,
        }
        if path.exists() and not path.is_dir():
            raise RunError(f"{path}: this is a file. Name a folder for the run.")
        file = path / SETTINGS
        there = _settings(file) if file.exists() else None
        if there is not None:
            self._compare(there)
        elif found := [name for name in (SIMULATED, REQUESTS) if (path / name).exists()]:
            raise RunError(f"{path}: holds a {found[0]} that is no run's. Name another folder, or remove it.")
        self.journal = Journal(path / JOURNAL)
        try:
            self.history = History(self.journal)
            told = None if there is None else there.get("capabilities")
            self.can: Capabilities | None = None if told is None else Capabilities(**told)
        except BaseException:
            self.journal.close()
            raise

    def settle(self, can: Capabilities) -> None:
        """Writes down what the server was found to do; from then on the run's requests are what they are."""
        self.can = can
        content = {"format": FORMAT, "nscore": __version__} | self._wanted | {"capabilities": dataclasses.asdict(can)}
        _write_whole(self.path / SETTINGS, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")

    def check_plan(self, digests: Sequence[str], *, whole: bool) -> None:
        """Whether a plan's shards are those that the run worked on so far.

        Args:
            digests: of the plan's shards.
            whole: whether those are all; with a limit there may be more.

        Raises:
            RunError: if one is another, or is gone.
        """
        for index, digest in sorted(self.history.digests.items()):
            if index < len(digests) and digests[index] == digest:
                continue
            if index < len(digests) or whole:
                raise RunError(
                    f"{self.path}: the records, explanations or splits of shard {index} are not those that this run "
                    "began with. Start a new run in another folder; requests that are the same need not be paid for "
                    "twice: replay them."
                )

    def begin(self, index: int, digest: str) -> None:
        """Notes what a shard holds, before anything of it is sent."""
        if index not in self.history.digests:
            self.journal.note(begun(index, digest))

    def is_done(self, index: int) -> bool:
        """Whether a shard is written out for good, and its files are as they were written."""
        there = self.history.shards.get(index)
        files = {} if there is None else there["files"]
        return isinstance(files, dict) and bool(files) and all(_hash(self.path / n) == h for n, h in files.items())

    def write_shard(self, index: int, simulated: pl.DataFrame, requests: pl.DataFrame) -> dict[str, str]:
        """Writes the tables of a shard, each file whole or not at all; gives their SHA-256."""
        files = {}
        for name, frame in ((SIMULATED, simulated), (REQUESTS, requests)):
            folder = self.path / name
            folder.mkdir(exist_ok=True)
            buffer = io.BytesIO()
            frame.write_parquet(buffer)
            content = buffer.getvalue()
            file = f"{name}/part-{index:06d}.parquet"
            _write_whole(self.path / file, content)
            files[file] = hashlib.sha256(content).hexdigest()
        return files

    def check_space(self, needed: int) -> None:
        """Raises a `RunError` if the disk has not so many bytes left, those counted that the journal has already."""
        free = shutil.disk_usage(self.path).free
        needed -= sum(file.stat().st_size for file in (self.path / JOURNAL).glob("*.log"))
        if free < needed:
            raise RunError(
                f"{self.path}: the run needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Free some "
                "space, name a folder on another disk, or keep less of each reply: keep='needed' (--keep needed)."
            )

    def close(self) -> None:
        """Makes what is queued durable and gives up the lock."""
        self.journal.close()

    def _compare(self, there: Mapping[str, Any]) -> None:
        differences = []
        for name, wanted in self._wanted.items():
            if there.get(name) != json.loads(json.dumps(wanted)):
                differences += _differences(name, there.get(name), json.loads(json.dumps(wanted)))
        if differences:
            raise RunError(
                f"{self.path}: holds a run with other settings:\n  "
                + "\n  ".join(differences)
                + "\nName another folder, or use the settings of this run to go on with it."
            )


def _hash(file: Path) -> str | None:
    """A file's SHA-256; None where it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


def _described(simulator: PromptSimulator | Shuffled) -> dict[str, object]:
    if isinstance(simulator, Shuffled):
        assert isinstance(simulator.inner, PromptSimulator)  # noqa: S101  (simulate has seen to it)
        return {"name": simulator.name, "seed": simulator.seed, "inner": _described(simulator.inner)}
    options: dict[str, object] = dataclasses.asdict(simulator) if dataclasses.is_dataclass(simulator) else {}
    return {"name": simulator.name, "prompts": simulator.version} | options


def _differences(name: str, there: object, wanted: object) -> list[str]:
    if isinstance(there, dict) and isinstance(wanted, dict):
        return [
            d
            for key in sorted({*there, *wanted})
            if there.get(key) != wanted.get(key)
            for d in _differences(f"{name}.{key}", there.get(key), wanted.get(key))
        ]
    if isinstance(there, list) and isinstance(wanted, list) and len(there) == len(wanted):
        pairs = enumerate(zip(there, wanted, strict=True))
        return [d for i, (a, b) in pairs if a != b for d in _differences(f"{name}[{i}]", a, b)]
    return [f"{name}: the run has {json.dumps(there)}, now {json.dumps(wanted)}"]


def _settings(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{file}: no such file. Name the folder of a run.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: cannot be read as the settings of a run ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise RunError(f"{file}: these are not the settings of a run.")
    if content["format"] > FORMAT:
        raise RunError(
            f"{file}: written by nscore {content.get('nscore')}, format {content['format']}; this is nscore "
            f"{__version__}, which reads up to format {FORMAT}. Update nscore."
        )
    return content


def _write_whole(file: Path, content: bytes) -> None:
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
