"""Whether all of a run is there and as it was written: every byte of its journal and of its tables is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nscore._progress import bar
from nscore._sending.history import History, journals_of
from nscore._sending.journal import JournalReader
from nscore._sending.segments import Gap, pieces_of
from nscore._tables.commits import MARKER, committed, sha256_of
from nscore.errors import JournalError, RunError
from nscore.run import REQUESTS, SETTINGS, SIMULATED, history_of, journal_of, opened, readable

__all__ = ["Verified", "verify"]


@dataclass(slots=True)
class Verified:
    """What was read of a run, and what is wrong with it.

    Attributes:
        frames: of the journal that are whole.
        replies: of those that hold a reply.
        shards: files of the tables that are as they were written.
        problems: what is not as it was written, and what to do, in words; empty where all is well.
    """

    frames: int = 0
    replies: int = 0
    shards: int = 0
    problems: list[str] = field(default_factory=list)


def verify(path: str | Path) -> Verified:
    """Reads all of a run and says what is damaged or missing; changes nothing.

    Its journals are checked frame by frame, payloads are decompressed; each file of the tables is compared with the
    SHA-256 that the journal and the marker hold. A run that is being worked on may have a torn end.

    Args:
        path: the folder of the run.

    Raises:
        RunError: if no run was started there.

    Examples:
        >>> verify("nowhere")
        Traceback (most recent call last):
        nscore.errors.RunError: nowhere: no run was started here. Name the folder of a run.
    """
    path = Path(path)
    found = Verified()
    for journal in (journal_of(path), *journals_of(path)):
        _verify_journal(journal, found)
    if found.problems:
        found.problems.append(f"Put a copy of the journal back, or keep what is whole: nscore runs salvage {path}")
        return found
    try:
        history = history_of(path)
        opened(path, history)
        marked = committed(path)
    except RunError as error:
        found.problems.append(str(error))
        return found
    _verify_tables(path, history, marked or {}, found)
    if found.problems:
        found.problems.append(
            f"The journal is whole: all is made again from it, at no cost: nscore runs rebuild {path}"
        )
    return found


def _verify_journal(journal: Path, found: Verified) -> None:
    reader = JournalReader(journal)
    try:
        with bar("verify", "frames") as step:
            for piece in pieces_of(journal):
                if isinstance(piece, Gap):
                    found.problems += [] if piece.torn else [f"{piece}."]
                elif piece.head:
                    reader.read(piece.location)
                    found.frames += 1
                    found.replies += b'"reply"' in piece.head[:10]
                    step(1)
    except JournalError as error:  # of a newer nscore, or a payload that cannot be decompressed
        found.problems.append(str(error))


def _verify_tables(path: Path, history: History, marked: dict[str, str], found: Verified) -> None:
    written = {name: sha for shard in history.written.values() for name, sha in shard.files.items()}
    for name, sha256 in sorted(written.items()):
        there = sha256_of(path / name)
        if there == sha256:
            found.shards += 1
        elif there is None:
            found.problems.append(f"{path / name}: this file is missing, or cannot be read.")
        else:
            found.problems.append(f"{path / name}: its bytes are not those that were written.")
    if marked != written:
        found.problems.append(f"{path / MARKER}: does not name the files that were written, and no others.")
    for name in (SIMULATED, REQUESTS):
        for file in sorted((path / name).glob("*.parquet")):
            if f"{name}/{file.name}" not in written:
                found.problems.append(f"{file}: is none of this run's files, and is not read.")
    if not _is(path / SETTINGS, readable(history.settings or {}, history.inputs)):
        found.problems.append(f"{path / SETTINGS}: is missing, or is not what the run was started with.")


def _is(file: Path, content: bytes) -> bool:
    try:
        return file.read_bytes() == content
    except OSError:
        return False
