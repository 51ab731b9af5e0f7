"""The place of a worker: the journal of one shard, and beside it its tables until the run takes them over."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from nscore._running.filling import Filling
from nscore._running.leash import LOOK_S, PATIENCE_S
from nscore._running.shards import Shard
from nscore._running.tally import Tally
from nscore._sending import history as told
from nscore._sending.history import JOURNALS, Excerpt, History
from nscore._sending.journal import Journal
from nscore._tables.commits import sha256_of
from nscore._tables.disk import write_table
from nscore.errors import JournalError
from nscore.run import REQUESTS, SIMULATED

__all__ = ["Bench", "bench_folder", "part_name", "tally_of"]

SHOWN_S = 0.5
TALLY = "tally.json"


def bench_folder(path: Path, index: int) -> Path:
    """Where the journal of a shard lies below the folder of its run."""
    return path / JOURNALS / f"{index:06d}"


def part_name(table: str, index: int) -> str:
    """The name of a shard's file of a table, below the folder of its run."""
    return f"{table}/part-{index:06d}.parquet"


class Bench:
    """The place of a worker.

    Args:
        path: the folder of the run.
        index: the shard's place in the plan.
        digest: of its plan.
        excerpts: where other journals of the run tell of its requests.

    Attributes:
        journal: what is sent and answered is written here.
        history: what happened to the shard before.
        done: what the run's journal is to say of the shard; None until its tables are written.

    Raises:
        JournalError: if another worker holds the shard and does not let go, or its journal is damaged.
    """

    def __init__(self, path: Path, index: int, digest: str, excerpts: Sequence[Excerpt]) -> None:
        self.folder = bench_folder(path, index)
        self.done: dict[str, object] | None = None
        self._digest = digest
        self._shown_at = 0.0
        self.journal = _opened(self.folder)
        try:
            self.history = History(self.journal, excerpts=excerpts)
        except BaseException:
            self.journal.close()
            raise

    def begin(self, shard: Shard) -> None:
        """What the shard holds stands in the run's journal."""

    def is_done(self, index: int) -> bool:
        """Whether nothing is left to ask, and its tables still lie here."""
        there = self.history.written.get(index)
        if there is None or not there.final:
            return False
        tables = {part_name(name, index): self.folder / name for name in (SIMULATED, REQUESTS)}
        if any(sha256_of(file) != there.files[name] for name, file in tables.items()):
            return False
        self.done = told.shard_done(index, self._digest, there.files, final=True)
        return True

    def write_shard(self, filling: Filling, keys: Sequence[str]) -> dict[str, object]:
        """Writes the tables of the shard, each file whole or not at all; gives what is to be said of it."""
        shard = filling.shard
        files = {
            part_name(name, shard.index): write_table(self.folder / name, frame)
            for name, frame in ((SIMULATED, filling.simulated(keys)), (REQUESTS, filling.requests(keys)))
        }
        self.done = told.shard_done(shard.index, self._digest, files, final=shard.whole and not filling.failed_calls)
        return self.done

    def show(self, tally: Tally) -> None:
        """Leaves how it stands for the one who shows it, now and then."""
        if time.monotonic() < self._shown_at + SHOWN_S:
            return
        self._shown_at = time.monotonic()
        part = self.folder / f".{TALLY}.part"
        with contextlib.suppress(OSError):  # only a bar stands still
            part.write_bytes(msgspec.json.encode(dataclasses.asdict(tally)))
            part.replace(self.folder / TALLY)

    def spent(self) -> float:
        """Dollars that stand in the journal now."""
        self.journal.flush()
        return History(self.journal).spent

    def close(self) -> None:
        """Makes what is queued durable and gives up the lock."""
        (self.folder / TALLY).unlink(missing_ok=True)
        self.journal.close()


def tally_of(folder: Path) -> Tally | None:
    """How the shard of a bench stands; None where nobody says."""
    try:
        return msgspec.json.decode((folder / TALLY).read_bytes(), type=Tally)
    except (OSError, msgspec.MsgspecError):
        return None


def _opened(folder: Path) -> Journal:
    """The journal of a shard, when the worker that had it before has let go."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return Journal(folder)
        except JournalError as error:
            if not isinstance(error.__cause__, BlockingIOError) or time.monotonic() > end:
                raise
            time.sleep(LOOK_S / 2)
