"""Whether a table is what its stage needs; if not, an error that names the file, the row, the column and the mend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import polars as pl

from nscore._tables.fused import Indices
from nscore._tables.judged import check_judgements
from nscore._tables.runs import FIRST, LENGTH, Columns, Layout, boundaries, runs, strictly_sorted
from nscore._tables.texts import check_table
from nscore.errors import TableError, UnknownNameError
from nscore.failures import check_statuses, has_statuses, misfit, n_failed
from nscore.frames import Frame, Source, source
from nscore.records import (
    ACTIVATION,
    COVERAGE,
    EXPLANATION,
    EXPLANATION_ID,
    FAILURES,
    ITEM,
    JUDGEMENTS,
    N_PREDICTED,
    N_TOKENS,
    POSITION,
    PREDICTED,
    SEQUENCE,
    SIMULATOR,
    SPLIT,
    STATUS,
    STRATUM,
    TABLES,
    TOKEN,
    Split,
    Table,
    default_by,
    judgement_keys,
)

__all__ = ["validate"]


def validate(frame: Frame, table: str, *, by: Sequence[str] | None = None) -> None:
    """Raises if a frame is not a valid table of its kind; says nothing if it is.

    The rows are read once, in batches: of 10^8 of them only the records are held.

    Args:
        frame: Polars (eager or lazy), Arrow, pandas, or a path, folder or glob of Parquet.
        table: `"records"`, `"explanations"`, `"simulated"`, `"sequence_scores"`, `"scores"` or `"judgements"`.
        by: the keys; `layer`, `neuron` and, where the columns exist, `simulator` and `explanation_id` (of judgements
            also `scorer`) if left out.

    Raises:
        TableError: for a missing column, a wrong dtype, a null or non-finite activation, a repeated or missing
            position, an empty record, an unknown split, mixed lengths, a repeated row of keys, an unknown status, a
            status that disagrees with its prediction, counts that do not add up.
        UnknownNameError: if there is no such kind of table.

    Examples:
        >>> import polars as pl
        >>> records = pl.DataFrame(
        ...     {"layer": 0, "neuron": 7, "sequence": 3, "position": [0, 1, 3], "token": ["a", "b", "c"],
        ...      "activation": [0.0, 0.5, 0.1]}
        ... )
        >>> validate(records, "records")
        Traceback (most recent call last):
        nscore.errors.TableError: the frame, row 2, column 'position': gap in positions: found 3 after 1 in layer=0,
        neuron=7, sequence=3. ...
    """
    if table not in TABLES:
        raise UnknownNameError("table", table, TABLES)
    given = source(frame)
    schema = given.schema()
    keys = list(by) if by is not None else default_by(schema)
    if table == JUDGEMENTS.name:
        check_judgements(given, by)
        _check_all_known(given, [*(judgement_keys(schema) if by is None else by), ITEM])
        return
    check_table(given, TABLES[table], keys, [TOKEN])
    if table in {"records", "simulated"}:
        _validate_tokens(given, schema, keys, TABLES[table])
    else:
        extra = {"explanations": EXPLANATION_ID, "sequence_scores": SEQUENCE}.get(table)
        _validate_rows(given, schema, list(dict.fromkeys([*keys, *([extra] if extra else [])])))


def layout_of(schema: pl.Schema, by: Sequence[str], values: Sequence[str], keep: Sequence[str] = ()) -> Layout:
    """How a table of tokens is read: what is constant over a record is carried, an unnamed key among it."""
    constant = [c for c in (SPLIT, STRATUM, SIMULATOR, EXPLANATION_ID, *keep) if c in schema and c not in by]
    return Layout(tuple(by), tuple(dict.fromkeys(constant)), tuple(values), positions=POSITION in schema)


def whole_records(table: pl.DataFrame, layout: Layout, given: Source) -> tuple[pl.DataFrame, Indices]:
    """The runs sorted by record, and where each record starts among them; raises if they do not make up records."""
    if not strictly_sorted(table, layout.record):
        table = table.sort([*layout.record, FIRST], maintain_order=True)
    new = boundaries(table, layout.record)
    if layout.positions:
        _check_positions(table, new, layout, given)
    for column in layout.carried:
        changed = boundaries(table, [*layout.record, column]) & ~new
        if changed.any():
            _raise_two_values(table, int(np.argmax(changed)), column, layout, given)
    starts = np.flatnonzero(new)
    _check_splits(table, layout, given)
    _check_lengths(table, starts, layout, given)
    return table, starts


def check_finite(given: Source, column: str, *, nulls: bool) -> None:
    """Raises for the first value of a column that is not finite (or null, where nulls are not allowed)."""
    value = pl.col(column)
    bad = ~value.cast(pl.Float64).is_finite()
    found = given.first(bad.fill_null(value=not nulls), column)
    if found is None:
        return
    where, (wrong,) = found
    known = "a finite number or null" if nulls else "a finite number"
    raise TableError(
        "non-finite value" if nulls else "null or non-finite value",
        where,
        column=column,
        found=f"found {wrong}, expected {known}",
        mend=f"Drop the record, or see where its {column} was lost"
        + (f"; what is not known is null: pl.col({column!r}).fill_nan(None)." if nulls else "."),
    )


def _validate_tokens(given: Source, schema: pl.Schema, keys: list[str], table: Table) -> None:
    values = [c for c in (ACTIVATION, PREDICTED, TOKEN) if c in table.required or c in schema]
    statuses = [STATUS] if table.name == "simulated" and has_statuses(given) else []
    layout = layout_of(schema, keys, [*values, *statuses])
    suspects: set[str] = set()

    def look(rows: pl.DataFrame, _starts: Indices) -> Columns:
        suspects.update(column.name for column in rows.select(values).iter_columns() if _doubtful(column))
        if statuses and rows.select(misfit().any()).item():
            suspects.add(STATUS)
        return {}

    must = [*keys, SEQUENCE, *([POSITION] if layout.positions else [])]
    nulls = given.collect(given.frame.select(pl.col(must).null_count()))
    for column in must:
        if nulls[column].item():
            _check_known(given, column)
    found = runs(given, layout, look)
    if TOKEN in suspects:
        _check_known(given, TOKEN)
    for column in sorted(suspects - {TOKEN, STATUS}):
        check_finite(given, column, nulls=table.name == "simulated")
    if STATUS in suspects:
        check_statuses(given, misfit())
    if table.name == "records" and not found.height:
        raise TableError("empty table", given.name, found="no rows", mend="Expected one row a token.")
    whole_records(found, layout, given)


def _doubtful(column: pl.Series) -> bool:
    """Whether some value is null or not finite."""
    return column.null_count() > 0 or (column.dtype.is_float() and not column.is_finite().all())


def _check_all_known(given: Source, columns: Sequence[str]) -> None:
    for column in columns:
        _check_known(given, column)


def _validate_rows(given: Source, schema: pl.Schema, keys: list[str]) -> None:
    _check_all_known(given, keys)
    rows = given.frame.with_row_index("__row").filter(pl.struct(keys).is_duplicated()).sort(*keys, "__row")
    repeated = given.collect(rows.head(2))
    if repeated.height:
        raise TableError(
            "repeated row",
            given.where(repeated["__row"][1]),
            found=f"{_named(repeated.row(1, named=True), keys)} stands in an earlier row too",
            mend="Expected one row for each; drop one, or name every key in by=[...].",
        )
    if EXPLANATION in schema:
        blank = given.row_of(~pl.col(EXPLANATION).cast(pl.String).str.contains(r"\S").fill_null(value=False))
        if blank:
            raise TableError(
                "empty explanation", blank, column=EXPLANATION, found="found no text", mend="Drop the row."
            )
    if COVERAGE in schema:
        beyond = given.row_of(~pl.col(COVERAGE).is_between(0, 1).fill_null(value=True))
        if beyond:
            raise TableError(
                "value out of range", beyond, column=COVERAGE, found="expected 0 to 1", mend="Score again."
            )
    if {N_TOKENS, N_PREDICTED, FAILURES} <= set(schema):
        lost = given.row_of((pl.col(N_PREDICTED) + n_failed() != pl.col(N_TOKENS)).fill_null(value=False))
        if lost:
            raise TableError(
                "counts that do not add up",
                lost,
                column=FAILURES,
                found=f"expected {N_TOKENS} = {N_PREDICTED} + the sum of the failures",
                mend="Score again.",
            )


def _check_known(given: Source, column: str) -> None:
    where = given.row_of(pl.col(column).is_null())
    if where is None:
        return
    if column in {TOKEN, POSITION}:
        raise TableError(
            "empty record",
            where,
            column=column,
            found=f"the {column} is null, as it is after exploding a record without tokens",
            mend=f"Drop records without tokens: frame.filter(pl.col({column!r}).is_not_null()).",
        )
    raise TableError("null key", where, column=column, found="the key is null", mend="Fill it in, or drop the row.")


def _check_positions(
    table: pl.DataFrame, new: np.ndarray[Any, np.dtype[np.bool_]], layout: Layout, given: Source
) -> None:
    if table[FIRST].null_count():
        _check_known(given, POSITION)
    first = table[FIRST].to_numpy().astype(np.int64)
    after = np.zeros_like(first)
    after[1:] = (first + table[LENGTH].to_numpy())[:-1]
    expected = np.where(new, 0, after)
    wrong = first != expected
    if not wrong.any():
        return
    at = int(np.argmax(wrong))
    found, wanted = int(first[at]), int(expected[at])
    row = table.row(at, named=True)
    this = _same(row, layout.record) & (pl.col(POSITION) == found)
    name = _named(row, layout.record)
    if found < wanted and not new[at]:
        rows = given.frame.with_row_index("__row").filter(this).select("__row").head(2)
        twice = given.collect(rows)["__row"][-1]
        keys = [c for c in (SIMULATOR, EXPLANATION_ID) if c in layout.carried]
        raise TableError(
            "duplicate position",
            given.where(twice),
            column=POSITION,
            found=f"found {found} a second time in {name}",
            mend=f"Name every key in by=[...] (now {', '.join(layout.by)}"
            + (f"; the table has {' and '.join(keys)} too" if keys else "")
            + "), or drop the repeated rows.",
        )
    since = "as the first" if new[at] else f"after {wanted - 1}"
    raise TableError(
        "gap in positions",
        given.row_of(this) or given.name,
        column=POSITION,
        found=f"found {found} {since} in {name}",
        mend="Expected 0, 1, 2, ... in each record; a token whose prediction is not known keeps its row, with null.",
    )


def _raise_two_values(table: pl.DataFrame, at: int, column: str, layout: Layout, given: Source) -> None:
    here, before = table.row(at, named=True), table.row(at - 1, named=True)
    key = column in {SIMULATOR, EXPLANATION_ID}
    raise TableError(
        f"two {column}s in one record",
        given.row_of(_same(here, [*layout.record, column])) or given.name,
        column=column,
        found=f"found {before[column]!r} and {here[column]!r} in {_named(here, layout.record)}",
        mend=f"Name {column!r} in by=[...]: two are never pooled by silence."
        if key
        else f"Expected one {column} for all tokens of a record.",
    )


def _check_splits(table: pl.DataFrame, layout: Layout, given: Source) -> None:
    if SPLIT not in layout.carried or SPLIT not in table.columns:
        return
    known = get_args(Split)
    values = table[SPLIT].unique().cast(pl.String).to_list()
    for value in values:
        if value not in known:
            raise TableError(
                "unknown split",
                given.row_of(pl.col(SPLIT).cast(pl.String).eq_missing(pl.lit(value, pl.String))) or given.name,
                column=SPLIT,
                found=f"found {value!r}, expected one of {', '.join(known)}",
                mend="Rename it, or drop the rows that belong to no split.",
            )


def _check_lengths(table: pl.DataFrame, starts: Indices, layout: Layout, given: Source) -> None:
    """The same record is as long under one explanation or simulator as under another."""
    variants = [c for c in (SIMULATOR, EXPLANATION_ID) if c in layout.by]
    same = [c for c in layout.record if c not in variants]
    if not variants or not table.height:
        return
    lengths = np.add.reduceat(table[LENGTH].to_numpy(), starts)
    records = table.select(layout.record)[starts].with_columns(pl.Series(LENGTH, lengths))
    ends = records.group_by(same).agg(pl.col(LENGTH).min().alias("shortest"), pl.col(LENGTH).max().alias("longest"))
    mixed = ends.filter(pl.col("shortest") < pl.col("longest")).sort(same)
    if mixed.height:
        row = mixed.row(0, named=True)
        short = records.filter(_same(row, same) & (pl.col(LENGTH) == row["shortest"])).row(0, named=True)
        raise TableError(
            "mixed lengths",
            given.row_of(_same(short, layout.record)) or given.name,
            column=POSITION if layout.positions else SEQUENCE,
            found=f"the record {_named(row, same)} has {row['shortest']} tokens under {_named(short, variants)} "
            f"and {row['longest']} elsewhere",
            mend="Expected every token of a record under each; what was not predicted keeps its row, with null.",
        )


def _same(row: dict[str, Any], columns: Sequence[str]) -> pl.Expr:
    return pl.all_horizontal(pl.col(c).eq_missing(pl.lit(row[c])) for c in columns)


def _named(row: dict[str, Any], columns: Sequence[str]) -> str:
    return ", ".join(f"{c}={row[c]!r}" for c in columns)
