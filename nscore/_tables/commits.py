"""Which files of a run's tables are committed, and whether they are still as they were written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from nscore._tables.disk import write_whole
from nscore._tables.stores import Place, StorePath
from nscore.errors import RunError, TableError

__all__ = ["MARKER", "commit", "committed", "committed_files", "sha256_of"]

MARKER = "committed.json"
FORMAT = 1


def sha256_of(file: Path) -> str | None:
    """A file's SHA-256; None where it cannot be read."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return None


def commit(folder: Place, files: Mapping[str, str]) -> None:
    """Says which files of a run belong to its tables: their names below its folder, and the SHA-256 of each."""
    content = {"format": FORMAT, "files": dict(sorted(files.items()))}
    write_whole(folder / MARKER, json.dumps(content, indent=1).encode() + b"\n")


def committed(folder: Place) -> dict[str, str] | None:
    """The files of a run that are committed, and the SHA-256 of each; None where it has no marker.

    Raises:
        RunError: if the marker cannot be read, or is of a newer nscore.
    """
    file = folder / MARKER
    try:
        content = json.loads(file.read_bytes())
        if content["format"] > FORMAT:
            raise RunError(f"{file}: of format {content['format']}; this nscore reads up to {FORMAT}. Update nscore.")
        return {str(name): str(sha256) for name, sha256 in content["files"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{file}: cannot be read ({error}). {_mend(folder)}") from error


def committed_files(folder: Place, files: Sequence[Place] | None = None) -> Sequence[Place] | None:
    """The files of a table that are committed, each as it was written; None where the folder is no run's table.

    Of files in a store it is seen that they are there; their bytes would have to be fetched to be compared.

    Args:
        folder: the table's.
        files: those that are wanted; all that are committed if left out.

    Raises:
        TableError: if one is missing, or is not what was written.
        RunError: if the marker cannot be read.
    """
    run = folder.parent
    there = committed(run)
    wanted = {run / name: sha256 for name, sha256 in (there or {}).items() if Path(name).parent.name == folder.name}
    if not wanted:
        return None
    chosen = [file for file in wanted if files is None or file in files]
    if isinstance(folder, StorePath):
        return _there(folder, chosen)
    local = [Path(str(file)) for file in chosen]
    with ThreadPoolExecutor(4) as crew:
        for file, sha256 in zip(local, crew.map(sha256_of, local), strict=True):
            if sha256 == wanted[file]:
                continue
            broken = partial(TableError, mend=_mend(run))
            if sha256 is None:
                raise broken("missing shard", str(file), found="it is committed, and cannot be read")
            raise broken("damaged shard", str(file), found="its bytes are not those that were committed")
    return chosen


def _there(folder: StorePath, chosen: Sequence[Place]) -> Sequence[Place]:
    there = set(folder.glob("*"))
    for file in chosen:
        if file not in there:
            found = "it is committed, and is not there"
            raise TableError("missing shard", str(file), found=found, mend="Copy the run's folder there again.")
    return chosen


def _mend(run: Place) -> str:
    return f"It is made again from the journal, at no cost: nscore runs rebuild {run}"
