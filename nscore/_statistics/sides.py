"""Two sides of a comparison: sequence scores of the same records of the same neurons, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nscore._tables.stores import StorePath, is_address, is_in_store, place
from nscore.errors import TableError
from nscore.frames import Frame, aligned, source
from nscore.metrics import MOMENTS
from nscore.pool import rows_of_records
from nscore.records import EXPLANATION_ID, N_SCORED, N_TOKENS, SEQUENCE, SIMULATOR, STRATUM

__all__ = ["Side", "Sides", "met", "sequence_scores_of"]

FILE = "sequence_scores.parquet"
OTHER = "__b"


@dataclass(frozen=True, slots=True)
class Side:
    """One side: a table of sequence scores, and which of its simulators or explanations is meant."""

    table: Frame
    simulator: str | None
    explanation: str | None


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides' sequence scores, row after row of the same record.

    Attributes:
        a: the records of the first side.
        b: those of the second.
        keys: what a neuron (or an explanation of one) is matched by.
        only_a: how many of them the second side lacks.
        only_b: how many the first lacks.
        unmatched: records of what both have, of which only one side has a scored token.
    """

    a: pl.DataFrame
    b: pl.DataFrame
    keys: list[str]
    only_a: int
    only_b: int
    unmatched: int


def sequence_scores_of(table: Frame) -> Frame:
    """The table; of a folder that `nscore score` wrote, its `sequence_scores.parquet`."""
    if isinstance(table, str | Path | StorePath) and (not is_address(table) or is_in_store(table)):
        file = place(table) / FILE
        return file if file.is_file() else table
    return table


def met(a: Side, b: Side, by: Sequence[str] | None, extra: Sequence[str]) -> Sides:
    """The records that have a scored token on both sides.

    Raises:
        TableError: if nothing is on both sides, a side has several explanations of what is compared, or a record's
            numbers of tokens differ.
    """
    tables, names, all_keys = [], [], []
    # strata are those of the first side
    for side, needed in ((a, extra), (b, [c for c in extra if c != STRATUM])):
        given = source(sequence_scores_of(side.table))
        table, keys = rows_of_records(given, None, [*(by or ()), *needed])
        tables.append(_chosen(table, side, given.name))
        names.append(given.name)
        all_keys.append(keys)
    named = {SIMULATOR: a.simulator, EXPLANATION_ID: a.explanation}
    common = [k for k in all_keys[0] if k in all_keys[1] and named.get(k) is None]
    keys = list(by) if by is not None else _keys(common, tables)
    for table, name in zip(tables, names, strict=True):
        _check_one(table, keys, name)

    left, right = (
        t.filter(pl.col(N_SCORED) > 0).select(c for c in dict.fromkeys([*keys, SEQUENCE, *extra, *MOMENTS]) if c in t)
        for t in tables
    )
    record = [*keys, SEQUENCE]
    other = aligned(right.lazy(), left.schema, record).collect()
    both = left.join(other, on=record, how="inner", nulls_equal=True, suffix=OTHER).sort(record)
    if both.is_empty():
        _raise_apart(left, right, keys, names)
    _check_tokens(both, record, names)
    there = [t.select(keys).unique() for t in (left, other)]
    alone = [x.join(y, on=keys, how="anti", nulls_equal=True) for x, y in (there, there[::-1])]
    shared = sum(
        t.join(both.select(keys).unique(), on=keys, how="semi", nulls_equal=True).height for t in (left, other)
    )
    values = [c for c in left.columns if c not in record]
    second = [pl.col(c if c == STRATUM else f"{c}{OTHER}").alias(c) for c in values]
    return Sides(
        both.select(left.columns),
        both.select(*record, *second),
        keys,
        alone[0].height,
        alone[1].height,
        shared - 2 * both.height,
    )


def _chosen(table: pl.DataFrame, side: Side, name: str) -> pl.DataFrame:
    for column, wanted in ((SIMULATOR, side.simulator), (EXPLANATION_ID, side.explanation)):
        if wanted is None:
            continue
        if column not in table.columns:
            raise TableError(
                "missing column",
                name,
                column=column,
                found=f"{wanted!r} was asked for and the table has no such column",
                mend="Name what to compare by a column that is there.",
            )
        there = table[column].cast(pl.String)
        table = table.filter(there == wanted)
        if table.is_empty():
            raise TableError(
                f"no such {column}",
                name,
                column=column,
                found=f"found {', '.join(map(repr, there.unique().drop_nulls().sort().head(10)))}, expected {wanted!r}",
                mend="Correct the name.",
            )
    return table


def _keys(common: list[str], tables: Sequence[pl.DataFrame]) -> list[str]:
    """What to match by: the neuron, if each side has one explanation of each; else all keys that both sides have."""
    neuron = [k for k in common if k not in {SIMULATOR, EXPLANATION_ID}]
    alone = all(not t.select(*neuron, SEQUENCE).is_duplicated().any() for t in tables)
    return neuron if alone else common


def _check_one(table: pl.DataFrame, keys: list[str], name: str) -> None:
    twice = table.filter(table.select(*keys, SEQUENCE).is_duplicated())
    if twice.height:
        row = ", ".join(f"{k}={v!r}" for k, v in twice.select(*keys, SEQUENCE).row(0, named=True).items())
        raise TableError(
            "several explanations of one neuron",
            name,
            found=f"the record {row} stands in {_rows_like(twice, keys)} rows",
            mend="Name which are compared (simulators=, explanation_ids=; on the command line --simulators, --explanation-ids), "
            "or all keys with by=.",
        )


def _rows_like(twice: pl.DataFrame, keys: list[str]) -> int:
    return int(twice.join(twice.head(1), on=[*keys, SEQUENCE], how="semi", nulls_equal=True).height)


def _check_tokens(both: pl.DataFrame, record: list[str], names: list[str]) -> None:
    differ = both.filter(pl.col(N_TOKENS) != pl.col(f"{N_TOKENS}{OTHER}"))
    if differ.height:
        row = differ.row(0, named=True)
        raise TableError(
            "other records",
            f"{names[0]} and {names[1]}",
            column=N_TOKENS,
            found=f"the record {', '.join(f'{k}={row[k]!r}' for k in record)} has {row[N_TOKENS]} tokens in the one and "
            f"{row[f'{N_TOKENS}{OTHER}']} in the other",
            mend="Compare scores of the same records.",
        )


def _raise_apart(left: pl.DataFrame, right: pl.DataFrame, keys: list[str], names: list[str]) -> None:
    def first(table: pl.DataFrame) -> str:
        if table.is_empty():
            return "no scored record"
        return ", ".join(f"{k}={v!r}" for k, v in table.select(*keys, SEQUENCE).row(0, named=True).items())

    raise TableError(
        "nothing to compare",
        f"{names[0]} and {names[1]}",
        found=f"no record is in both by {', '.join([*keys, SEQUENCE])}: the first has {first(left)}, ..., the second "
        f"{first(right)}, ...",
        mend="Name the keys that both have with by=[...], or which simulators or explanations are compared.",
    )
