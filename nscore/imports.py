"""Importing: files of other systems go in, by the ten thousand, and Parquet tables come out."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from nscore._files.assembly import PART_ROWS, assembled, counts
from nscore._progress import bar
from nscore._tables.disk import DISK, make_folder, sync_files, sync_folder, write_table
from nscore._tables.stores import Place, StorePath, place
from nscore.errors import SettingError, SourceError
from nscore.executors import Executor, make_executor
from nscore.frames import source
from nscore.importers import Importer, SourceFile, listed, make_importer

__all__ = ["Imported", "import_files"]

OnError = Literal["stop", "skip"]

# What a worker takes at a time; below how many bytes one process is quicker.
CHUNK_BYTES, CHUNK_FILES = 24 << 20, 2000
SMALL_BYTES = 64 << 20
SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import read, and where it is now.

    Attributes:
        out: the folder.
        files: how many files were read.
        tables: each table that was written, by name, with its rows.
        neurons: how many neurons the tables are about.
        records: how many records, or sequences of simulations where there are no records.
        tokens: their tokens.
        explanations: how many explanations.
        left_out: how often something was left out of the tables, by reason.
        skipped: the broken files, and why each could not be read.
    """

    out: Place
    files: int
    tables: dict[str, int]
    neurons: int
    records: int
    tokens: int
    explanations: int
    left_out: dict[str, int]
    skipped: list[tuple[str, str]]

    def __str__(self) -> str:
        about = f"{self.neurons:,} neurons, {self.records:,} records, {self.tokens:,} tokens"
        lines = [f"{self.files:,} files: {about}, {self.explanations:,} explanations"]
        lines += [f"left out: {count:,} {reason}" for reason, count in self.left_out.items()]
        if self.skipped:
            lines.append(f"skipped: {len(self.skipped):,} broken files (all of them in {self.out / SKIPPED}.parquet):")
            lines += [f"  {why}" for _, why in self.skipped[:5]]
        lines += [f"wrote {self.out / name}.parquet: {rows:,} rows" for name, rows in self.tables.items()]
        return "\n".join(lines)


def import_files(
    source_format: str,
    paths: str | Path | Sequence[str | Path],
    out: str | Place,
    *,
    on_error: OnError = "stop",
    executor: str | Executor | None = None,
    workers: int | None = None,
    **options: object,
) -> Imported:
    """Reads files of another system into the tables of nscore.

    The files are read by several processes, a few at a time, so that tens of thousands of them take no more memory than
    a hundred. Nothing is there before all of it is.

    Args:
        source_format: the name of an importer: `openai`, `delphi`, `neuronpedia`, `saedashboard`, `table`.
        paths: files, folders, globs, `https://` addresses, or places in object stores (`s3://`, `gs://`, `az://`).
        out: the folder that the tables are written to. A table of more than a million rows is a folder of Parquet files;
            in a store (`s3://`, `gs://`, `az://`) each is one object, which is there when it is whole.
        on_error: whether a broken file ends the import, or is left out, counted and named.
        executor: where the files are read: `local`, `processes`, `ray`; left out, here for a few megabytes, else in
            processes.
        workers: how many read at a time, where it is not here; as many as there are processors, if left out.
        options: what the importer takes; see its class in `nscore.importers`.

    Returns:
        What was read, in numbers, and what was left out and why.

    Raises:
        SourceError: if a file is broken, or no file is there.
        SettingError: if an option is none of the importer's, or `out` holds such tables.
        UnknownNameError: if there is no such importer.

    Examples:
        >>> import json, tempfile
        >>> record = {"tokens": ["a", " red"], "activations": [0.0, 2.5]}
        >>> neuron = {"neuron_id": {"layer_index": 5, "neuron_index": 7}, "most_positive_activation_records": [record]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "7.json").write_text(json.dumps(neuron))
        ...     read = import_files("openai", folder, Path(folder) / "tables")
        ...     pl.read_parquet(Path(folder) / "tables/records.parquet").rows()
        [(5, 7, 0, 0, 'a', 0.0, 'top', 'train'), (5, 7, 0, 1, ' red', 2.5, 'top', 'train')]
        >>> read.neurons, read.tokens
        (1, 2)
    """
    importer = make_importer(source_format, **options)
    if on_error not in {"stop", "skip"}:
        raise SettingError(f"on_error: found {on_error!r}, expected 'stop' or 'skip'")
    out = place(out)
    taken = [name for name in (*importer.makes, SKIPPED) if (out / f"{name}.parquet").exists()]
    if taken:
        raise SettingError(f"{out}: holds {taken[0]}.parquet already: name another folder, or remove it")
    is_new = not out.exists()
    files = listed([paths] if isinstance(paths, str | Path) else list(paths), importer.wants)
    make_folder(out)
    work = Path(tempfile.mkdtemp(prefix=".import-", dir=None if isinstance(out, StorePath) else out))
    try:
        told = _all_read(importer, files, work, on_error, _executor(executor, workers, files))
        rows = assembled(work, PART_ROWS)
        about = counts(work)
        if told.skipped:
            named = pl.DataFrame(told.skipped, schema={"file": pl.String, "why": pl.String}, orient="row")
            write_table(work / f"{SKIPPED}.parquet", named)
            rows[SKIPPED] = named.height
        _publish(work, out, rows)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if isinstance(out, Path) and is_new and not any(out.iterdir()):  # nothing came of it
            out.rmdir()
    return Imported(
        out, len(files) - len(told.skipped), rows, *about, dict(sorted(told.left_out.items())), told.skipped
    )


def _publish(work: Path, out: Place, names: Iterable[str]) -> None:
    """Brings the tables to where they belong, each whole or not at all."""
    if isinstance(out, StorePath):
        for name in names:
            write_table(out / f"{name}.parquet", source(work / f"{name}.parquet").frame)
        return
    sync_files(path for path in sorted(work.rglob("*.parquet")) if path.is_file())
    for name in names:
        DISK.replace(work / f"{name}.parquet", out / f"{name}.parquet")
    sync_folder(out)


@dataclass(slots=True)
class _Told:
    """What a worker says of its files."""

    left_out: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    read: int = 0


def _executor(given: str | Executor | None, workers: int | None, files: Sequence[SourceFile]) -> Executor:
    if given is None:
        small = sum(file.size for file in files) < SMALL_BYTES and all(file.is_local for file in files)
        given = "local" if small and workers is None else "processes"
    return make_executor(given, workers=workers)


@dataclass(frozen=True, slots=True)
class _Job:
    """Some of the files; how the rest of the import goes is the same for all."""

    importer: Importer
    files: list[SourceFile]
    work: Path
    number: int
    on_error: OnError


def _all_read(
    importer: Importer, files: Sequence[SourceFile], work: Path, on_error: OnError, executor: Executor
) -> _Told:
    told = _Told()
    jobs = (_Job(importer, chunk, work, number, on_error) for number, chunk in enumerate(_chunks(files)))
    with bar("import", "files", lambda: len(files)) as done, closing(executor.each(_read, jobs)) as parts:
        for part in parts:
            told.left_out += part.left_out
            told.skipped += part.skipped
            done(part.read)
            sync_files(part.written)  # nobody waits for it: the workers read on
    return told


def _chunks(files: Sequence[SourceFile]) -> Iterator[list[SourceFile]]:
    chunk: list[SourceFile] = []
    size = 0
    for file in files:
        chunk.append(file)
        size += file.size
        if size >= CHUNK_BYTES or len(chunk) >= CHUNK_FILES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _read(job: _Job) -> _Told:
    """Reads some files and writes their tables, under the same names whoever does it and however often."""
    told = _Told()
    parts = _Parts(job.importer, job.work, job.number)
    held: list[object] = []
    height = 0
    for file in job.files:
        # what of a file is written before its end is seen stands in parts of its own, to be taken back
        own: list[object] = []
        rows = 0
        written: list[Path] = []
        left_out: Counter[str] = Counter()
        try:
            for parsed in job.importer.parse(file):
                left_out += parsed.left_out
                if parsed.content is not None:
                    own.append(parsed.content)
                    rows += parsed.rows
                if rows >= PART_ROWS:
                    told.written += parts.write(held)
                    written += parts.write(own)
                    height = rows = 0
        except SourceError as error:
            if job.on_error == "stop":
                raise
            told.skipped.append((file.path, str(error)))
            for part in written:
                part.unlink()
        else:
            told.left_out += left_out
            told.written += written
            held += own
            height += rows
        told.read += 1
        if height >= PART_ROWS:
            told.written += parts.write(held)
            height = 0
    told.written += parts.write(held)
    return told


@dataclass(slots=True)
class _Parts:
    """Where the tables of one worker's files go, a part at a time."""

    importer: Importer
    work: Path
    number: int
    count: int = 0

    def write(self, parsed: list[object]) -> list[Path]:
        """Writes the tables of what was parsed, and lets go of it."""
        written = []
        for name, frame in self.importer.tables(parsed).items() if parsed else ():
            (self.work / name).mkdir(exist_ok=True)
            written.append(self.work / name / f"part-{self.number:06d}-{self.count:04d}.parquet")
            # the session makes it durable; with lz4 it is a quarter larger, and written a tenth, read a third sooner
            write_table(written[-1], frame, durable=False, compression="lz4")
        self.count += 1
        parsed.clear()
        return written
