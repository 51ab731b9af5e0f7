"""Exporting: nscore's tables go in, files of other systems come out, a few neurons at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from nscore._files.exported import Chosen, parts_of
from nscore._files.folders import tables_in, texts_of_run
from nscore._progress import bar
from nscore._tables.commits import commit
from nscore._tables.disk import DISK, make_folder, sync_folder, told, write_whole
from nscore._tables.stores import Place, StorePath, place
from nscore.errors import SettingError, TableError
from nscore.exporters import Exporter, OutFile, make_exporter
from nscore.frames import Frame, source
from nscore.records import EXPLANATIONS, JUDGEMENTS, RECORDS, SCORES, SIMULATED, OnFailure
from nscore.score import score

__all__ = ["Exported", "export_files"]

# Threads that wait for the disk, and how many files may wait for them.
WRITERS, WAITING = 16, 512
PUBLISHED, JUDGED = "published_sequence_scores", "judged"
TABLES = [SIMULATED.name, EXPLANATIONS.name, SCORES.name, JUDGEMENTS.name, RECORDS.name, PUBLISHED, JUDGED]


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        out: the folder.
        files: how many files.
        size: their bytes.
        neurons: how many neurons they are about.
        explanations: how many explanations.
        records: how many records of simulations; 0 where the format has scores alone.
        tokens: their tokens.
        judgements: how many judgements.
        left_out: how often something of the tables is not in the files, by reason.
        filled: how many tokens without a prediction were written as 0.0, because it was asked for.
    """

    out: Place
    files: int
    size: int
    neurons: int
    explanations: int
    records: int
    tokens: int
    judgements: int
    left_out: dict[str, int]
    filled: int

    @property
    def incomplete(self) -> bool:
        """Whether something is missing that was to be there: a prediction, an activation, a text, a score."""
        return any("not known" in why or "without a" in why or "no finite" in why for why in self.left_out)

    def __str__(self) -> str:
        about = [f"{self.neurons:,} neurons, {self.explanations:,} explanations"]
        if self.records:
            about.append(f"{self.records:,} records, {self.tokens:,} tokens")
        if self.judgements:
            about.append(f"{self.judgements:,} judgements")
        lines = [f"wrote {self.out}: {self.files:,} files, {self.size:,} bytes: {', '.join(about)}"]
        lines += [f"left out: {count:,} {reason}" for reason, count in self.left_out.items()]
        if self.filled:
            lines.append(f"filled: {self.filled:,} tokens without a prediction were written as 0.0")
        return "\n".join(lines)


def export_files(
    target_format: str,
    folder: str | Place | None,
    out: str | Place,
    *,
    simulated: Frame | None = None,
    explanations: Frame | None = None,
    scores: Frame | None = None,
    judgements: Frame | None = None,
    records: Frame | None = None,
    simulator: str | None = None,
    splits: Sequence[str] | None = None,
    on_failure: OnFailure = "drop",
    leaks: Literal["refuse", "allow"] = "refuse",
    **options: object,
) -> Exported:
    """Writes the tables of a run, or of a folder, as files of another system.

    Scores are computed by `nscore.score_sequences` and `nscore.pool` from what is written, and from nothing else. The table
    is read block by block, so that ten thousand neurons take no more memory than a hundred. Either all files are there or none.

    Formats know no null. A record in which a prediction, an activation or a token is not known is left out, and counted.

    Args:
        target_format: the name of an exporter: `openai`, `delphi`, `neuronpedia`.
        folder: a run, or a folder that holds `simulated.parquet` and `explanations.parquet`, and perhaps `scores.parquet`,
            `judgements.parquet`, `judged.parquet` or `records.parquet`, `published_sequence_scores.parquet`; None where the tables are given.
        out: the folder that the files are written to; it must be empty or not there. In a store (`s3://`, `gs://`, `az://`)
            `committed.json` is written last, and names the files with the SHA-256 of each: without it, some may be missing.
        simulated: the table instead of that in the folder; so are `explanations`, `scores`, `judgements`, `records`.
        explanations: the texts. Of a run whose folder holds no such table, those that it asked about, as its journal holds them.
        scores: what is exported where the format has scores alone; computed from `simulated` where there is none.
        judgements: the answers of judges.
        records: the tokens of what was judged.
        simulator: whose predictions are exported, where there are several.
        splits: the splits whose records are exported, where the table has a `split`; `valid` and `test` if left out.
        on_failure: what a token without a prediction does: `"drop"` leaves its record out, `"zero"` writes it as 0.0, as the
            original does.
        leaks: whether records that the author of an explanation was shown may be exported with their scores.
        options: what the exporter takes; see its class in `nscore.exporters`.

    Returns:
        What was written, in numbers, and what was left out and why.

    Raises:
        SettingError: if an option is none of the exporter's, `out` is not empty, or a table or a choice is missing.
        TableError: if a table is not valid, or two neurons would have one file.
        LeakError: if a record that an author was shown would be scored.
        UnknownNameError: if there is no such exporter.

    Examples:
        >>> import polars as pl
        >>> tokens = pl.DataFrame({"layer": 5, "neuron": 7, "explanation_id": "a", "sequence": 0, "position": [0, 1],
        ...                        "token": ["a", " red"], "activation": [0.0, 2.5], "predicted": [0.0, 9.0]})
        >>> texts = pl.DataFrame({"layer": 5, "neuron": 7, "explanation_id": "a", "explanation": "the colour red"})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = export_files("openai", None, Path(folder) / "out", simulated=tokens, explanations=texts)
        ...     [str(path.relative_to(folder)) for path in Path(folder).rglob("*.jsonl")]
        ['out/5/7.jsonl']
        >>> done.records, done.left_out
        (1, {})
    """
    exporter = make_exporter(target_format, **options)
    if on_failure not in {"drop", "zero"}:
        raise SettingError(f"on_failure: found {on_failure!r}, expected 'drop' or 'zero'")
    out = place(out)
    _check_free(out)
    there = {} if folder is None else tables_in(folder, TABLES)
    given = {
        SIMULATED.name: simulated,
        EXPLANATIONS.name: explanations,
        SCORES.name: scores,
        JUDGEMENTS.name: judgements,
        RECORDS.name: records,
    }
    there |= {name: source(frame) for name, frame in given.items() if frame is not None}
    if SIMULATED.name in there and SCORES.name in exporter.takes and SCORES.name not in there:
        pooled = score(there[SIMULATED.name], splits=splits, on_failure=on_failure, leaks=leaks)
        there[SCORES.name] = source(pooled)
    if not set(exporter.takes) & set(there):
        where = "what was given" if folder is None else folder
        raise SettingError(
            f"{where}: {exporter.name} is made from {' or '.join(exporter.takes)}, and there is none. Name the folder of a "
            "run, or one that holds such a table as Parquet."
        )
    if EXPLANATIONS.name not in there and folder is not None:
        texts = texts_of_run(folder)
        if texts is not None:
            there[EXPLANATIONS.name] = source(texts)
    chosen = Chosen(there, simulator, splits, on_failure, leaks)
    with _Writing(out) as writing, bar("export", "neurons") as done:
        counts = Counter[str]()
        left_out = Counter[str]()
        for part, files in _made(exporter, chosen, left_out, counts):
            writing.add(files)
            done(part)
    return Exported(
        out=out,
        files=writing.files,
        size=writing.size,
        neurons=counts["neurons"],
        explanations=counts["explanations"],
        records=counts["records"],
        tokens=counts["tokens"],
        judgements=counts["judgements"],
        left_out=dict(sorted((+left_out).items())),
        filled=counts["filled"],
    )


def _made(
    exporter: Exporter, chosen: Chosen, left_out: Counter[str], counts: Counter[str]
) -> Iterator[tuple[int, list[OutFile]]]:
    """The files of each part, and of how many neurons it is."""
    for table in exporter.takes:
        if table not in chosen.tables:
            continue
        here = Counter[str]()
        for part, counted in parts_of(table, exporter, chosen):
            files = list(exporter.files(part)) if part.rows.height else []
            here += counted
            left_out.update(part.left_out)
            yield counted["neurons"], files
        # two tables of the same neurons tell of no more of them
        counts |= here


def _check_free(out: Place) -> None:
    if isinstance(out, StorePath):
        # a folder without objects is none
        taken = out.is_file() or bool(out.glob("**/*"))
    else:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if taken:
        raise SettingError(f"{out}: is there already and not empty: name another folder, or remove it")


@dataclass(slots=True)
class _Writing:
    """Writes files into a folder beside the one that is wanted, which takes its place when all of them are there."""

    out: Place
    files: int = 0
    size: int = 0
    _work: Path = field(init=False)
    _pool: ThreadPoolExecutor = field(init=False)
    _folders: set[tuple[str, ...]] = field(init=False, default_factory=set)
    _taken: set[tuple[str, ...]] = field(init=False, default_factory=set)
    _written: dict[str, str] = field(init=False, default_factory=dict)
    _waiting: dict[str, Future[str]] = field(init=False, default_factory=dict)

    def __enter__(self) -> Self:
        if isinstance(self.out, StorePath):
            self._work = Path(tempfile.mkdtemp(prefix="nscore-"))
        else:
            make_folder(self.out.parent)
            with told(self.out, "write"):
                self._work = Path(tempfile.mkdtemp(prefix=f".{self.out.name[:100]}.", dir=self.out.parent))
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="nscore-export")
        return self

    def add(self, files: Iterable[OutFile]) -> None:
        """Writes some files; not many more wait than there are threads."""
        for path, content in files:
            if path in self._taken:
                raise TableError(
                    "repeated row",
                    "the tables",
                    found=f"two neurons would be written to {'/'.join(path)}",
                    mend="Give their layers names that differ in more than a slash.",
                )
            self._taken.add(path)
            folder = path[:-1]
            if folder not in self._folders:
                make_folder(self._work.joinpath(*folder))
                self._folders.add(folder)
            self._waiting["/".join(path)] = self._pool.submit(write_whole, self._work.joinpath(*path), content)
            self.files += 1
            self.size += len(content)
            if len(self._waiting) >= WAITING:
                self._wait()

    def _wait(self) -> None:
        self._written |= {path: writing.result() for path, writing in self._waiting.items()}
        self._waiting.clear()

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._wait()
            if kind is None and isinstance(self.out, StorePath):
                self._upload(self.out)
            self._pool.shutdown(cancel_futures=True)
            if kind is None and isinstance(self.out, Path):
                with told(self.out, "write"):
                    self._work.chmod(0o777 & ~_umask())
                    DISK.replace(self._work, self.out)
                sync_folder(self.out.parent)
        finally:
            self._pool.shutdown(cancel_futures=True)
            shutil.rmtree(self._work, ignore_errors=True)

    def _upload(self, out: StorePath) -> None:
        """All files first, then the marker that names them; if one fails, none stays."""
        there = {path: out / path for path in self._written}
        uploads = [self._pool.submit(target.upload, self._work / path) for path, target in there.items()]
        try:
            for upload in uploads:
                upload.result()
            commit(out, self._written)
        except BaseException:
            self._pool.shutdown(cancel_futures=True)
            for target, upload in zip(there.values(), uploads, strict=True):
                if not upload.cancelled() and upload.exception() is None:
                    target.remove()
            raise


def _umask() -> int:
    # there is no way to look at it but to set it
    mask = os.umask(0)
    os.umask(mask)
    return mask
