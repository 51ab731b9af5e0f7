"""Failures, counted: how many tokens have no prediction, and of which class they are.

In every table n_tokens = n_predicted + the sum of `failures`: a struct with a count for each failing status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import polars as pl

from nscore._progress import bar, counted
from nscore._tables.fused import Indices
from nscore._tables.scan import scan
from nscore.errors import TableError
from nscore.frames import Source, reading
from nscore.records import FAILING, FAILURES, N_PREDICTED, N_TOKENS, NOT_RUN, OK, PREDICTED, STATUS, Status

__all__ = [
    "check_statuses",
    "contradicted",
    "has_statuses",
    "misfit",
    "n_failed",
    "rows_with_failures",
    "summed",
    "with_failures",
]

KNOWN: tuple[Status, ...] = get_args(Status)


def with_failures(
    records: pl.DataFrame, record: list[str], given: Source, tokens: pl.LazyFrame, *, statuses: bool
) -> pl.DataFrame:
    """Adds `failures` to a table of records: of each class, the tokens that were to be predicted and were not.

    The class of a token without prediction is its `status`; it is `not_run` where that is null or `ok`, or the table
    has none. The statuses are read only if some token has no prediction, and of such tokens alone.

    Args:
        records: one row a record, with `n_tokens` and `n_predicted`.
        record: the columns that identify a record.
        given: the table that the records come from.
        tokens: the rows of it that they come from.
        statuses: whether they have a `status`.

    Raises:
        TableError: if a status is a word that nobody knows.
    """
    missing = records[N_TOKENS] - records[N_PREDICTED]
    if not missing.max():
        return records.with_columns(_struct({}, records.height))
    if not statuses:
        return records.with_columns(_struct({NOT_RUN: missing}, records.height))
    status = pl.col(STATUS).cast(pl.String)
    lost = tokens.filter(pl.col(PREDICTED).is_null()).select(*record, status.alias("__status"))
    with bar("counting failures", "tokens"):
        found = given.collect(counted(lost).group_by(*record, "__status").agg(pl.len().cast(pl.Int64).alias("__n")))
    for word in found["__status"].drop_nulls().unique().sort():
        if word not in KNOWN:
            _raise_unknown(given, word, pl.col(PREDICTED).is_null() & (status == word))
    kind = pl.col("__status").fill_null(OK).replace(OK, NOT_RUN)
    classes = [c for c in FAILING if c in set(found.select(kind.unique()).to_series())]
    sums = found.group_by(record).agg(((kind == c) * pl.col("__n")).sum().alias(f"__{c}") for c in classes)
    counts = records.select(record).join(sums, on=record, how="left", nulls_equal=True, maintain_order="left")
    table = records.with_columns(_struct({c: counts[f"__{c}"].fill_null(0) for c in classes}, records.height))
    if not table.select(n_failed()).to_series().equals(missing):
        raise TableError(
            "changing rows",
            given.name,
            column=PREDICTED,
            found="the table has other rows when it is read a second time",
            mend="Write it to a file, or collect it, and score that.",
        )
    return table


def summed(failures: pl.Series, starts: Indices) -> pl.Series:
    """The counts of each stretch of rows, class by class; null where those of one of its rows are not known."""
    counts = failures.struct.unnest()
    if not len(starts):
        return failures.clear()
    some = [c.fill_null(0) for c in counts.iter_columns() if c.max()]
    sums = {c.name: pl.Series(np.add.reduceat(c.to_numpy(), starts, dtype=np.int64)) for c in some}
    result = _struct(sums, len(starts), counts.columns)
    unknown = counts.select(pl.any_horizontal(pl.all().is_null())).to_series()
    if not unknown.any():
        return result
    known = pl.Series(~np.logical_or.reduceat(unknown.to_numpy(), starts))
    return result.to_frame().select(pl.when(known).then(FAILURES)).to_series()


def n_failed() -> pl.Expr:
    """How many tokens failed in each row of scores; null where that is not known."""
    return pl.sum_horizontal(pl.col(FAILURES).struct.field("*"), ignore_nulls=False)


def rows_with_failures(given: Source, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of sequence scores and their `failures`: null in files that have none, left out where no file has."""
    having = _files_with(given, FAILURES)
    lacking = [file for file in given.files if file not in having]
    if having and lacking:
        parts = [scan(having).select(*columns, FAILURES), scan(lacking).select(columns)]
        return given.collect(pl.concat(parts, how="diagonal"))
    return given.collect(given.frame.select(*columns, *([FAILURES] if FAILURES in given.schema() else [])))


def has_statuses(given: Source) -> bool:
    """Whether a simulated table has a `status`; one that only some of its files have is an error."""
    having = _files_with(given, STATUS)
    if having and len(having) < len(given.files):
        raise TableError(
            "missing column",
            next(file for file in given.files if file not in having),
            column=STATUS,
            found=f"{having[0]} has it and this file has not",
            mend="Expected files with the same columns: add it, null where it is not known.",
        )
    return STATUS in given.schema()


def misfit(predicted: str = PREDICTED) -> pl.Expr:
    """Whether a token's status is an unknown word, `ok` without a prediction, or a failure with one."""
    status, known = pl.col(STATUS).cast(pl.String), pl.col(predicted).is_not_null()
    return ~status.is_in(list(KNOWN)) | ((status == OK) != known)


def contradicted(predicted: str = PREDICTED) -> pl.Expr:
    """Whether a token has a prediction though its status is a failure."""
    return (pl.col(STATUS) != OK) & pl.col(predicted).is_not_null()


def check_statuses(given: Source, at_fault: pl.Expr, predicted: str = PREDICTED) -> None:
    """Raises for the first token whose status and prediction do not go together: `misfit` or `contradicted`."""
    found = given.first(at_fault, STATUS, predicted)
    if found is None:
        return
    where, (word, value) = found
    if word not in KNOWN:
        _raise_unknown(given, word, pl.col(STATUS).cast(pl.String) == word)
    if value is None:
        raise TableError(
            "status without its prediction",
            where,
            column=STATUS,
            found=f"found {word!r} where {predicted!r} is null",
            mend=f"Say why there is none: one of {', '.join(FAILING)}.",
        )
    raise TableError(
        "prediction of a failure",
        where,
        column=predicted,
        found=f"found {value} where the status is {word!r}",
        mend=f"A failure is never a {'number' if predicted == PREDICTED else 'label'}: make it null, or the status {OK!r} if the prediction holds.",
    )


def _struct(counts: Mapping[str, pl.Series], height: int, classes: Sequence[str] = FAILING) -> pl.Series:
    """The column of counts; the classes that are not given have none."""
    # one column of zeros for all of them: of millions of records each would take its place in memory
    none = pl.Series(np.zeros(height, dtype=np.int64))
    return pl.DataFrame([counts.get(c, none).alias(c) for c in classes]).to_struct(FAILURES)


def _files_with(given: Source, column: str) -> list[str]:
    """The files that have a column: the schema of a table is that of its first file."""
    if len(given.files) < 2:
        return list(given.files) if column in given.schema() else []
    with reading(given):
        return [file for file in given.files if column in scan(file).collect_schema()]


def _raise_unknown(given: Source, word: str, rows: pl.Expr) -> None:
    raise TableError(
        "unknown status",
        given.row_of(rows) or given.name,
        column=STATUS,
        found=f"found {word!r}, expected one of {', '.join(KNOWN)}",
        mend="Correct the word; where the reason is not known, it is null.",
    )
