"""Parts of tables that several workers wrote become the tables: in one schema, each row once, counted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from nscore._tables.disk import write_table
from nscore.errors import SourceError
from nscore.records import (
    EXPLANATION_ID,
    EXPLANATIONS,
    LAYER,
    NEURON,
    POSITION,
    RECORDS,
    SEQUENCE,
    SIMULATED,
    SIMULATOR,
)

__all__ = ["PART_ROWS", "assembled", "counts"]

# How many rows a file of a table has, about; a table of no more is one file.
PART_ROWS = 1 << 20
NEURONS = "neurons"
# By which columns a row is one of a kind; of records and sequences the first row.
ONCE = {
    RECORDS.name: (LAYER, NEURON, SEQUENCE),
    SIMULATED.name: (LAYER, NEURON, SIMULATOR, EXPLANATION_ID, SEQUENCE),
    EXPLANATIONS.name: (LAYER, NEURON, EXPLANATION_ID),
}


def assembled(work: Path, part_rows: int) -> dict[str, int]:
    """Brings the parts of each table together, into one file where they are small; gives the rows of each.

    Args:
        work: holds a folder of parts for each table; in its stead there is a Parquet file afterwards, or a folder of them.
        part_rows: the most rows of a table that becomes one file. None of the files is durable yet.

    Raises:
        SourceError: if a neuron, a record or an explanation stands in two files.
    """
    rows = {}
    for folder in sorted(path for path in work.iterdir() if path.is_dir()):
        parts = sorted(folder.iterdir())
        if not parts:
            continue
        _in_one_schema(parts)
        table = pl.scan_parquet(parts, glob=False)
        rows[folder.name] = height = int(table.select(pl.len()).collect().item())
        if folder.name == NEURONS:
            _check_unique(table)
        elif folder.name in ONCE:
            _check_once(table, folder.name)
        target = work / f"{folder.name}.parquet"
        if len(parts) == 1:
            parts[0].rename(target)
            folder.rmdir()
            continue
        if height <= part_rows:
            write_table(target, table, durable=False)
            shutil.rmtree(folder)
            continue
        for number, part in enumerate(parts):
            part.rename(folder / f"part-{number:06d}.parquet")
        folder.rename(target)
    order = [RECORDS.name, EXPLANATIONS.name, SIMULATED.name]
    return dict(sorted(rows.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 9, item[0])))


def counts(work: Path) -> tuple[int, int, int, int]:
    """Neurons, records, tokens and explanations of the tables in a folder."""
    there = {path.stem: _scanned(path) for path in work.glob("*.parquet")}
    keys = []
    for name, frame in there.items():
        if {LAYER, NEURON} <= set(frame.collect_schema()):
            # of tokens, the first of each record tells of its neuron
            firsts = frame.filter(pl.col(POSITION) == 0) if name in (RECORDS.name, SIMULATED.name) else frame
            keys.append(firsts.select(LAYER, NEURON).unique().cast(pl.String))
    neurons = pl.concat(keys).unique().select(pl.len()).collect(engine="streaming").item() if keys else 0
    tokens = there.get(RECORDS.name, there.get(SIMULATED.name))
    explanations = there.get(EXPLANATIONS.name)
    records, rows = (
        (0, 0) if tokens is None else tokens.select((pl.col(POSITION) == 0).sum(), pl.len()).collect().row(0)
    )
    told = 0 if explanations is None else explanations.select(pl.len()).collect().item()
    return int(neurons), int(records), int(rows), int(told)


def _in_one_schema(parts: Sequence[Path]) -> None:
    """All parts get the columns of all, null where they have none, in dtypes in which all fit: layers may be names."""
    schemas = [pl.read_parquet_schema(part) for part in parts]
    if all(schema == schemas[0] for schema in schemas):
        return
    try:
        wanted = pl.concat([pl.Schema(schema).to_frame() for schema in schemas], how="diagonal_relaxed")
        for part, schema in zip(parts, schemas, strict=True):
            if pl.Schema(schema) != wanted.schema:
                write_table(part, pl.concat([wanted, pl.read_parquet(part)], how="diagonal_relaxed"), durable=False)
    except pl.exceptions.PolarsError as error:
        found = str(error).split("\n", maxsplit=1)[0]
        raise SourceError(
            parts[0].parent.name,
            f"a column is of one dtype in some files and of another in others: {found}",
            mend="Import them apart.",
        ) from error


def _check_unique(neurons: pl.LazyFrame) -> None:
    keys = [LAYER, NEURON]
    twice = (
        neurons.filter(pl.struct(keys).is_duplicated())
        .select(*keys, "file")
        .sort(*keys, maintain_order=True)
        .head(2)
        .collect()
    )
    if twice.height:
        layer, neuron, file = twice.row(0)
        raise SourceError(
            twice.row(1)[2],
            f"holds layer {layer}, neuron {neuron}, as {file} does",
            mend="Import one of them.",
        )


def _check_once(table: pl.LazyFrame, name: str) -> None:
    """Raises if two files hold a record, or an explanation, under the same keys."""
    columns = table.collect_schema()
    keys = [key for key in ONCE[name] if key in columns]
    first = table.filter(pl.col(POSITION) == 0) if SEQUENCE in keys else table
    twice = first.group_by(keys).len().filter(pl.col("len") > 1).drop("len").sort(keys).head(1)
    found = twice.collect(engine="streaming")
    if found.height:
        same = ", ".join(f"{key} {value!r}" for key, value in found.row(0, named=True).items())
        raise SourceError(
            name,
            f"{same} stands in the files more than once",
            mend="Import one of the files that hold it: those of another model or source go into another folder.",
        )


def _scanned(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(sorted(path.iterdir()) if path.is_dir() else path, glob=False)
