"""A run directory that is being worked on: the journal is the truth, and everything else is derived from it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import msgspec
import polars as pl

from nscore import __version__
from nscore._running.bench import bench_folder, part_name
from nscore._running.differences import rows_differ, settings_differ
from nscore._running.filling import Filling
from nscore._running.leash import Leash
from nscore._running.plan import Plan
from nscore._running.shards import Shard
from nscore._sending import history as told
from nscore._sending.history import JOURNALS, History, journals_of
from nscore._sending.journal import Journal, JournalReader, Location
from nscore._tables.commits import commit, sha256_of
from nscore._tables.disk import make_folder, move_whole, write_table, write_whole
from nscore.backends import Backend
from nscore.errors import RunError
from nscore.exchange import Capabilities
from nscore.run import FORMAT, JOURNAL, REQUESTS, SETTINGS, SIMULATED, journal_of, opened, readable
from nscore.simulators import PromptSimulator, Shuffled, described

__all__ = ["Place", "Workplace", "wanted_settings"]

# The marker is written again with a new shard, but not more often than this.
MARKED_S = 2.0


def wanted_settings(
    simulators: Sequence[PromptSimulator | Shuffled], backend: Backend, keys: Sequence[str], *, distribution: bool
) -> dict[str, Any]:
    """What decides the answers of a run and the columns of its tables, besides the records and explanations."""
    return {
        "simulators": [described(s) for s in simulators],
        "backend": backend.settings(),
        "keys": list(keys),
        "distribution": distribution,
    }


class Place(Protocol):
    """Where an engine notes what it does, and writes what comes of it."""

    @property
    def journal(self) -> Journal:
        """What is sent and answered is written here."""

    @property
    def history(self) -> History:
        """What happened before."""

    def begin(self, shard: Shard) -> object:
        """See `Workplace.begin`."""

    def is_done(self, index: int) -> bool:
        """See `Workplace.is_done`."""

    def write_shard(self, filling: Filling, keys: Sequence[str]) -> dict[str, object] | None:
        """See `Workplace.write_shard`; None where there is nothing to say of it."""


class Workplace:
    """A run directory that is being worked on: one process at a time, settings that stay, files that are whole.

    Args:
        path: the folder; made if it is not there.
        wanted: the settings that the run must have, from `wanted`; those that it has if left out.
        crew: whether other processes are to work on its shards.

    Raises:
        RunError: if the folder holds a run with other settings, one of a newer nscore, or results of something else.
        JournalError: if another process works on it, or its journal is damaged.
    """

    def __init__(self, path: Path, wanted: Mapping[str, Any] | None = None, *, crew: bool = False) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise RunError(f"{path}: this is a file. Name a folder for the run.")
        if not (path / JOURNAL).is_dir():
            if wanted is None:
                journal_of(path)
            if found := [name for name in (SIMULATED, REQUESTS) if (path / name).exists()]:
                raise RunError(f"{path}: holds a {found[0]} that is no run's. Name another folder, or remove it.")
        self.journal = Journal(path / JOURNAL)
        self.leash: Leash | None = None
        try:
            if crew or (path / JOURNALS).is_dir():
                self.leash = Leash(path)
            self.look_again()
            self.settings = dict(wanted or {})
            self.can: Capabilities | None = None
            if wanted is None or self.history.settings is not None:
                there = opened(path, self.history)
                if wanted is not None:
                    self._compare(there, wanted)
                self.settings, self.can = there, msgspec.convert(there["capabilities"], Capabilities)
        except BaseException:
            self.close()
            raise
        self._inputs = self.history.inputs
        self._files = {name: sha for shard in self.history.written.values() for name, sha in shard.files.items()}
        self._marked = set(self._files)  # whose names the marker may hold
        self._marked_at = time.monotonic()
        self._marking = threading.Lock()  # shards are written in several threads

    def look_again(self) -> None:
        """Reads what happened so far, this session included."""
        self.journal.flush()
        self.history = History(self.journal, [JournalReader(folder) for folder in journals_of(self.path)])

    def settle(self, can: Capabilities) -> None:
        """Writes down what the server was found to do; from then on the run's requests are what they are."""
        self.can = can
        self.settings = {"format": FORMAT, "nscore": __version__} | self.settings
        self.settings["capabilities"] = dataclasses.asdict(can)
        self.journal.append(told.settings(self.settings)).result()
        self.write_settings()

    def check_plan(self, plan: Plan, requests: int) -> None:
        """Whether a plan's shards are those that the run worked on so far; notes what the plan came to.

        Args:
            plan: gone through once; with a limit there may be more shards behind it.
            requests: how many it asks.

        Raises:
            RunError: if a shard is another, or is gone.
        """
        digests = plan.digests
        for index, planned in sorted(self.history.planned.items()):
            if index < len(digests) and digests[index] == planned.digest:
                continue
            if index < len(digests) or plan.limit is None:
                raise RunError(
                    f"{self.path}: this run began with other records or explanations: {self._other(plan, index)}\n"
                    "Start a new run in another folder; requests that are the same need not be paid for twice: replay "
                    "them."
                )
        both = [[digest[:32] for digest in digests], [digest[32:] for digest in digests]]
        records, asked = (_sha256(" ".join(half)) for half in both)
        self._inputs = {
            "requests": requests,
            "limit": plan.limit,
            "shards": len(digests),
            "records_sha256": records,
            "requests_sha256": asked,
        }
        if self._inputs != self.history.inputs:
            self.journal.note(told.inputs(self._inputs))
        self.write_settings()

    def write_settings(self) -> None:
        """Writes what people want to know of the run."""
        write_whole(self.path / SETTINGS, readable(self.settings, self._inputs))

    def begin(self, shard: Shard) -> Future[Location] | None:
        """Notes what a shard holds, before anything of it is sent; gives where, unless that was done before."""
        requests = None if shard.whole else len(shard.requests)
        planned = self.history.planned.get(shard.index)
        if planned is None:
            buffer = io.BytesIO()
            shard.uncut.rechunk().write_parquet(buffer, compression="uncompressed")  # the journal compresses
            return self.journal.append(told.begun(shard.index, shard.digest, requests), buffer.getvalue())
        if planned.requests != requests:
            self.journal.note(told.begun(shard.index, shard.digest, requests))
        return None

    def is_done(self, index: int) -> bool:
        """Whether nothing of a shard is left to ask, and its files are as they were written."""
        there = self.history.written.get(index)
        return there is not None and there.final and all(sha256_of(self.path / n) == h for n, h in there.files.items())

    def write_shard(self, filling: Filling, keys: Sequence[str]) -> dict[str, object]:
        """Writes the tables of a shard, each file whole or not at all; gives what the journal is to say of it."""
        shard = filling.shard
        files = {}
        for name, frame in ((SIMULATED, filling.simulated(keys)), (REQUESTS, filling.requests(keys))):
            make_folder(self.path / name)
            file = part_name(name, shard.index)
            files[file] = write_table(self.path / file, frame)
        self._written(files)
        return told.shard_done(shard.index, shard.digest, files, final=shard.whole and not filling.failed_calls)

    def adopt(self, index: int, done: dict[str, Any]) -> None:
        """Takes over the tables of a shard from the bench of a worker, and notes that they are written."""
        files: dict[str, str] = done["files"]
        for table in (SIMULATED, REQUESTS):
            make_folder(self.path / table)
            move_whole(bench_folder(self.path, index) / table, self.path / part_name(table, index))
        self._written(files)
        self.journal.append(done).result()

    def _written(self, files: Mapping[str, str]) -> None:
        with self._marking:
            self._files |= files
            if not self._marked.isdisjoint(files) or time.monotonic() > self._marked_at + MARKED_S:
                self._mark()

    def mark(self) -> None:
        """Commits what was written."""
        with self._marking:
            self._mark()

    def _mark(self) -> None:
        commit(self.path, self._files)
        self._marked, self._marked_at = set(self._files), time.monotonic()

    def check_space(self, needed: int) -> None:
        """Raises a `RunError` if the disk has not so many bytes left, those counted that the journal has already."""
        free = shutil.disk_usage(self.path).free
        needed -= sum(file.stat().st_size for folder in self.history.folders for file in folder.glob("*.log"))
        if free < needed:
            raise RunError(
                f"{self.path}: the run needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. Free some "
                "space, name a folder on another disk, or keep less of each reply: keep='needed' (--keep needed)."
            )

    def close(self) -> None:
        """Makes what is queued durable and gives up the locks."""
        if self.leash is not None:
            self.leash.release()
        self.journal.close()

    def _compare(self, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        differences = []
        for name, value in wanted.items():
            plain = json.loads(json.dumps(value))
            if there.get(name) != plain:
                differences += settings_differ(name, there.get(name), plain)
        if differences:
            raise RunError(
                f"{self.path}: holds a run with other settings:\n  "
                + "\n  ".join(differences)
                + "\nName another folder, or use the settings of this run to go on with it."
            )

    def _other(self, plan: Plan, index: int) -> str:
        """What is another in a shard than it was, in words."""
        now = next((shard for shard in plan.shards() if shard.index == index), None)
        there = pl.read_parquet(self.history.rows(index))
        return rows_differ(there, None if now is None else now.uncut, plan.meeting.keys)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
