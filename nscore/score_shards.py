"""Scoring in shards: stretches of whole explanations, each on its own, in whichever process; the tables are those of one pass."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.ipc  # type: ignore[import-untyped]

from nscore._progress import bar
from nscore._tables.disk import told
from nscore._tables.runs import strictly_sorted
from nscore._tables.scan import scan
from nscore._tables.stretches import stretches
from nscore.errors import SettingError, TableError
from nscore.executors import Executor, Processes, make_executor
from nscore.frames import Lazy, Source, source
from nscore.metrics import CATALOGUE, resolve
from nscore.pool import only, strata_of
from nscore.records import SEQUENCE, OnFailure, default_by
from nscore.score import pool_beside_tokens, score, score_sequences

__all__ = ["score_shards"]

# Rows of a shard at most and at least; a few for each worker, so that none is idle for long at the end.
MOST_ROWS, LEAST_ROWS, EACH = 1 << 22, 1 << 17, 4


def score_shards(
    files: Lazy,
    *,
    executor: str | Executor = "processes",
    workers: int | None = None,
    by: Sequence[str] | None = None,
    metrics: Sequence[str] | str | None = None,
    splits: Sequence[str] | None = None,
    on_failure: OnFailure = "drop",
    strata: bool = False,
    weights: str | None = None,
    explanations: str | Path | pl.DataFrame | None = None,
    leaks: Literal["refuse", "allow"] = "refuse",
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What `score` and `score_sequences` give, worked out in shards by several workers.

    The rows of an explanation must lie together, as nscore writes them; a shard holds whole explanations, so that its
    rows of scores are final, and the tables are the same, bit for bit, wherever and in however many shards they were made
    (of metrics that look at tokens, which are sums without an order, to the last digit or so).

    Args:
        files: a `simulated` table in Parquet, which the workers can read: paths, folders, globs, addresses.
        executor: `local`, `processes`, `ray`, or an executor.
        workers: how many work at a time; as many as there are processors, if left out.
        by: see `score_sequences`.
        metrics: names from the catalogue; see `score_sequences`.
        splits: see `score_sequences`.
        on_failure: see `score_sequences`.
        strata: see `score`.
        weights: see `score`.
        explanations: see `score_sequences`.
        leaks: see `score_sequences`.

    Returns:
        The scores, and the sequence scores.

    Raises:
        TableError: as `score_sequences` does, or if the rows of an explanation do not lie together.
        SettingError: if a metric is not the catalogue's, or the table is no Parquet file.
        LeakError: if a record that an author was shown would be scored.
        ExecutorError: if workers are lost again and again.

    Examples:
        >>> import tempfile
        >>> df = pl.DataFrame({"layer": 0, "neuron": [1, 1, 2, 2], "sequence": 0, "activation": [0.0, 1.0, 0.0, 4.0],
        ...                    "predicted": [0.0, 1.0, 2.0, 0.0]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     df.write_parquet(f"{folder}/simulated.parquet")
        ...     scores, sequences = score_shards(f"{folder}/simulated.parquet", executor="local")
        >>> scores.select("neuron", "rsquared_score").rows()
        [(1, 1.0), (2, -0.25)]
    """
    names = [m.name for m in resolve(metrics)]
    for name in names:
        if name not in CATALOGUE:
            raise SettingError(f"metrics: {name} is not in the catalogue, which is all that workers know")
    options: dict[str, Any] = {
        "by": by,
        "metrics": names,
        "splits": splits,
        "on_failure": on_failure,
        "explanations": explanations,
        "leaks": leaks,
    }
    crew = make_executor(executor, workers=workers)
    table = _Table(files, by)
    # mapped files go from one process of a machine to another without being copied
    near = tempfile.TemporaryDirectory(prefix="nscore-") if isinstance(crew, Processes) else nullcontext()
    try:
        with near as folder, bar("scoring", "tokens", lambda: table.height) as step:
            jobs = (
                _Job(table.given.files, start, length, options, strata=strata, weights=weights, folder=folder)
                for start, length in table.stretches(crew.workers)
            )
            parts = []
            with closing(crew.each(_scored, jobs)) as results:
                for part in results:
                    parts.append((_unpacked(part.scores), _unpacked(part.sequences)))
                    step(part.rows)
    except TableError:
        # a shard knows neither the file nor the row: the whole table tells them
        score(table.given, strata=strata, weights=weights, **options)
        raise
    return _together(parts, table.given, table.keys, names, strata=strata)


@dataclass
class _Table:
    """What is scored, not looked into before the first shard is asked for: the workers begin meanwhile."""

    files: Lazy
    by: Sequence[str] | None

    @cached_property
    def given(self) -> Source:
        given = source(self.files)
        if not given.files:
            raise SettingError(
                "files: workers read the table for themselves: write it to a Parquet file, and name that"
            )
        return given

    @cached_property
    def height(self) -> int:
        return self.given.height() or 0

    @cached_property
    def keys(self) -> list[str]:
        return list(self.by) if self.by is not None else default_by(self.given.schema())

    def stretches(self, workers: int) -> Iterator[tuple[int, int]]:
        rows = min(MOST_ROWS, max(LEAST_ROWS, -(-self.height // (EACH * workers))))
        yield from stretches(self.given, self.keys, self.height, rows)


@dataclass(frozen=True, slots=True)
class _Job:
    files: tuple[str, ...]
    start: int
    length: int
    options: dict[str, Any]
    strata: bool
    weights: str | None
    folder: str | None


@dataclass(frozen=True, slots=True)
class _Part:
    """What comes back from a worker: the tables as Arrow's files, or their bytes where no disk is shared."""

    rows: int
    scores: str | bytes
    sequences: str | bytes


def _scored(job: _Job) -> _Part:
    """Both tables of one shard."""
    frame = scan(job.files).slice(job.start, job.length)
    keep = [job.weights] if job.weights else []
    sequences = score_sequences(frame, keep=keep, **job.options)
    named = {name: job.options[name] for name in ("metrics", "splits", "on_failure")}
    scores = pool_beside_tokens(sequences, frame, strata=job.strata, weights=job.weights, **named)
    return _Part(job.length, _packed(job, "scores", scores), _packed(job, "sequences", sequences))


def _packed(job: _Job, name: str, table: pl.DataFrame) -> str | bytes:
    if job.folder is None:
        return table.write_ipc(None, compression="uncompressed").getvalue()
    file = Path(job.folder, f"{job.start}-{name}.arrow")
    with told(file, "write"):
        table.write_ipc(file, compression="uncompressed")
    return str(file)


def _unpacked(table: str | bytes) -> pl.DataFrame:
    """The table, where it lies; Polars' own reader would copy it. A file goes with the table."""
    content = pa.memory_map(table) if isinstance(table, str) else pa.BufferReader(table)
    if isinstance(table, str):
        Path(table).unlink()
    return cast("pl.DataFrame", pl.from_arrow(pyarrow.ipc.open_file(content).read_all()))


def _together(
    parts: Sequence[tuple[pl.DataFrame, pl.DataFrame]],
    given: Source,
    keys: list[str],
    names: list[str],
    *,
    strata: bool,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    each = [scores for scores, _ in parts]
    sequences = pl.concat([sequences for _, sequences in parts], how="vertical_relaxed")
    scores = pl.concat(each, how="diagonal_relaxed")
    if strata:
        scores = scores.select(
            *each[0].columns[: len(each[0].columns) - _strata_columns(each[0], names)],
            *(only(stratum, name) for stratum in strata_of(sequences) for name in names),
        )
    if not strictly_sorted(scores, keys):
        scores, sequences = scores.sort(keys), sequences.sort([*keys, SEQUENCE])
        again = scores.filter(pl.struct(keys).is_duplicated())
        if again.height:
            which = ", ".join(f"{key}={value!r}" for key, value in zip(keys, again.select(keys).row(0), strict=True))
            raise TableError(
                "scattered rows",
                given.name,
                found=f"the rows of {which} do not lie together",
                mend=f"Sort the table by {', '.join(keys)}, or score it without an executor.",
            )
    return scores, sequences


def _strata_columns(scores: pl.DataFrame, names: list[str]) -> int:
    """How many of the last columns are scores of single strata."""
    last = max((scores.columns.index(name) for name in names), default=-1)
    return len(scores.columns) - 1 - last
