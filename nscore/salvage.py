"""What is whole of a damaged run, in a folder of its own: the run goes on there, and asks what was lost once more."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from nscore._progress import bar
from nscore._running.leash import Leash
from nscore._sending import history as told
from nscore._sending.history import JOURNALS, journals_of
from nscore._sending.journal import Journal, JournalReader, locked
from nscore._sending.segments import Gap, pieces_of
from nscore._tables import disk as _disk
from nscore._tables.commits import commit, sha256_of
from nscore._tables.disk import make_folder, sync_folder, write_whole
from nscore.errors import RunError
from nscore.run import SETTINGS, Run, history_of, journal_of, readable

__all__ = ["Salvaged", "salvage"]

FLUSHED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was kept of a damaged run.

    Attributes:
        run: where it is; the command that started the run goes on with that folder.
        frames: of the journal that were whole.
        lost: the parts of the journal that were not, in words.
        shards: files of the tables that are as they were written.
    """

    run: Run
    frames: int
    lost: list[str]
    shards: int


def salvage(path: str | Path, out: str | Path | None = None) -> Salvaged:
    """Keeps what is whole of a run whose journal is damaged; the damaged run is left as it is.

    Args:
        path: the folder of the run.
        out: the folder to make; that of the run with `-salvaged` behind its name if left out.

    Raises:
        RunError: if no run was started there, the new folder is not empty, or nobody knows any more what the run asked.
        JournalError: if another process works on the run, or it is of a newer nscore.
        StorageError: if the disk does not take the new folder.

    Examples:
        >>> salvage("nowhere")
        Traceback (most recent call last):
        nscore.errors.RunError: nowhere: no run was started here. Name the folder of a run.
    """
    path = Path(path)
    new = Path(out) if out is not None else path.with_name(f"{path.name}-salvaged")
    journal = journal_of(path)
    if new.exists() and any(new.iterdir()):
        raise RunError(f"{new}: there is something in it already. Name another folder: -o DIR.")
    frames, lost = 0, list[str]()
    with ExitStack() as held:
        held.callback(os.close, locked(journal, _disk.DISK))
        if (path / JOURNALS).is_dir():
            held.callback(Leash(path).release)
        with bar("salvage", "frames") as step:
            for each in (journal, *journals_of(path)):
                settings = partial(_readable, path / SETTINGS) if each == journal else None
                kept, gone = _copied(each, new / each.relative_to(path), settings, step)
                frames, lost = frames + kept, lost + gone
    shards = _derived(path, new)
    return Salvaged(Run(new), frames, lost, shards)


def _copied(
    old: Path, new: Path, settings: Callable[[], dict[str, Any]] | None, step: Callable[[int], object]
) -> tuple[int, list[str]]:
    """Copies what is whole of a journal; `settings` are asked for where it is a run's own, and has lost them."""
    reader = JournalReader(old)
    frames, lost = 0, []
    with Journal(new) as journal:
        for piece in pieces_of(old):
            if isinstance(piece, Gap):
                lost += [] if piece.torn else [str(piece)]
                continue
            if not piece.head:  # the seal of a session
                continue
            head = msgspec.json.decode(piece.head, type=dict[str, Any])
            settings = None if "settings" in head else settings
            frames += 1
            step(1)
            journal.append(head, reader.read(piece.location))
            if journal.queued_bytes > FLUSHED_BYTES:
                journal.flush()
        if settings is not None:
            journal.append(told.settings(settings()))
    return frames, lost


def _readable(file: Path) -> dict[str, Any]:
    """The settings in the file for people, where the journal has lost them."""
    try:
        content = dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(
            f"{file}: cannot be read ({error}), and the journal has lost the settings of the run too. Put a copy of "
            "this file back."
        ) from error
    content.pop("inputs", None)
    return content


def _derived(path: Path, new: Path) -> int:
    """Writes the readable settings, and copies the files of the tables that are as they were written; how many."""
    history = history_of(new)
    write_whole(new / SETTINGS, readable(history.settings or {}, history.inputs))
    files = {name: sha for shard in history.written.values() for name, sha in shard.files.items()}
    kept = {name: sha for name, sha in files.items() if sha256_of(path / name) == sha}
    for name in kept:
        make_folder((new / name).parent)
        shutil.copyfile(path / name, new / name)
    for folder in {(new / name).parent for name in kept}:
        sync_folder(folder)
    commit(new, kept)
    return len(kept)
