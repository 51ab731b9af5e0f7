"""The rows of a stranger's table on their way into nscore's: in its dtypes, whole records together, positions counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl

from nscore.importers._casts import Misfit, as_kind
from nscore.importers._places import SourceFile
from nscore.importers._protocol import Parsed
from nscore.importers._tabular import ROW, is_untyped, place_of, together
from nscore.records import (
    ACTIVATION,
    EXPLANATION,
    EXPLANATION_ID,
    LAYER,
    NEURON,
    POSITION,
    PREDICTED,
    SEQUENCE,
    SIMULATOR,
    STATUS,
    TABLES,
    TOKEN,
    Kind,
)

__all__ = ["Piece", "Reading", "TableKind", "rows_are_records"]

TableKind = Literal["records", "explanations", "simulated", "judgements"]
KEYS: dict[TableKind, tuple[str, ...]] = {
    "records": (LAYER, NEURON, SEQUENCE),
    "simulated": (LAYER, NEURON, SIMULATOR, EXPLANATION_ID, SEQUENCE),
    "explanations": (LAYER, NEURON, EXPLANATION_ID),
    "judgements": (LAYER, NEURON, SIMULATOR, EXPLANATION_ID),
}
MUST: dict[TableKind, tuple[str, ...]] = {
    "records": (SEQUENCE, TOKEN, ACTIVATION),
    "simulated": (SEQUENCE, ACTIVATION, PREDICTED),
    "explanations": (EXPLANATION,),
    "judgements": tuple(TABLES["judgements"].required),
}
# Texts, though all of them may be numbers.
NAMES = (EXPLANATION_ID, SIMULATOR)
NOT_FINITE = "numbers that are not finite (now null)"
_MEND = "Mend the table, or leave the file out (--on-error skip)."


def rows_are_records(rows: pl.DataFrame) -> bool:
    """Whether each row holds lists of the tokens of a record."""
    return any(rows.schema.get(name) in (pl.List, pl.Array) for name in (TOKEN, ACTIVATION))


@dataclass(slots=True)
class Piece:
    """Some rows, done: of records whole ones."""

    file: SourceFile
    kind: TableKind
    rows: pl.DataFrame


@dataclass(slots=True)
class Reading:
    """Takes the rows of one file, some at a time.

    Args:
        file: which.
        kind: what its rows are.
        lists: whether a row is a record.
    """

    file: SourceFile
    kind: TableKind
    lists: bool
    _rest: pl.DataFrame | None = None
    _seen: set[int] = field(default_factory=set)
    _others: set[str] = field(default_factory=set)
    _counted: Counter[tuple[object, ...]] = field(default_factory=Counter)
    _left_out: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.lists = self.lists and self.kind in {"records", "simulated"}

    def check(self, rows: pl.DataFrame) -> None:
        """Raises if a column is missing."""
        made = {SEQUENCE} if self.lists else set()
        for name in (LAYER, NEURON, *MUST[self.kind]):
            if name not in rows.columns and name not in made:
                more = " A row a record, with lists of its tokens, needs none." if name == SEQUENCE else ""
                raise self.file.fault(
                    f"no column {name!r}; the columns are {', '.join(c for c in rows.columns if c != ROW) or 'none'}",
                    mend=f"Say which it is, columns={name}=THEIRS, or what it is in all rows, constants={name}=VALUE.{more}",
                )

    def take(self, rows: pl.DataFrame) -> Iterator[Parsed[Piece]]:
        """Takes some rows; gives what can be done."""
        self.check(rows)
        typed = self._typed(self._exploded(rows) if self.lists else rows)
        if self.kind in {"records", "simulated"}:
            whole = typed if self._rest is None else together(self.file, [self._rest, typed])
            starts = self._starts(whole)
            last = 0 if self.lists or not len(starts) else int(starts[-1])
            self._rest = None if self.lists else whole[last:]
            yield from self._given(self._records(whole if self.lists else whole[:last]))
        elif self.kind == "explanations":
            yield from self._given(self._explanations(typed))
        else:
            yield from self._given(typed)

    def rest(self) -> Iterator[Parsed[Piece]]:
        """What is left at the end."""
        if self._rest is not None:
            yield from self._given(self._records(self._rest))

    def _given(self, rows: pl.DataFrame) -> Iterator[Parsed[Piece]]:
        first = [name for name in (*KEYS[self.kind], POSITION, TOKEN, ACTIVATION, PREDICTED) if name in rows.columns]
        rows = rows.select(*first, pl.exclude(*first, ROW))
        yield Parsed(rows.height, Piece(self.file, self.kind, rows) if rows.height else None, +self._left_out)
        self._left_out = Counter()

    def _keys(self, rows: pl.DataFrame) -> list[str]:
        return [name for name in KEYS[self.kind] if name in rows.columns]

    def _typed(self, rows: pl.DataFrame) -> pl.DataFrame:
        table = TABLES[self.kind]
        kinds: dict[str, Kind] = dict.fromkeys(KEYS[self.kind], "any")
        kinds |= table.required | table.optional | dict.fromkeys(NAMES, "text")
        columns = []
        for name, kind in kinds.items():
            if name not in rows.columns:
                continue
            try:
                columns.append(as_kind(rows[name], kind, untyped=is_untyped(self.file)))
            except Misfit as misfit:
                raise self._fault(rows, misfit.row, name, f"found {misfit.found}, expected {misfit.expected}") from None
        typed = rows.with_columns(columns)
        for name in [*self._keys(typed), *(n for n in (TOKEN, POSITION) if n in typed.columns and n in kinds)]:
            null = typed[name].is_null().arg_true()
            if len(null):
                raise self._fault(rows, int(null[0]), name, "found null, expected a value")
        lost = {c.name: c.is_null() & rows[c.name].is_not_null() for c in columns if c.dtype == pl.Float64}
        self._left_out[NOT_FINITE] += sum(int(mask.sum()) for mask in lost.values())
        if STATUS in typed.columns and PREDICTED in lost:
            failed = pl.when(lost[PREDICTED]).then(pl.lit("parse_error")).otherwise(STATUS).alias(STATUS)
            return typed.with_columns(failed)
        return typed

    def _fault(self, rows: pl.DataFrame, at: int, column: str, found: str) -> Exception:
        return self.file.fault(found, place=place_of(self.file, rows[ROW][at], column), mend=_MEND)

    def _exploded(self, rows: pl.DataFrame) -> pl.DataFrame:
        """A row a token of rows that are records."""
        arrays = [pl.col(name).arr.to_list() for name, dtype in rows.schema.items() if isinstance(dtype, pl.Array)]
        rows = rows.with_columns(arrays)
        table = TABLES[self.kind]
        lists = [name for name, dtype in rows.schema.items() if dtype == pl.List]
        tokens = [name for name in lists if name in table.required | table.optional]
        for name in (TOKEN, ACTIVATION, PREDICTED):
            if name in rows.columns and name in table.required | table.optional and name not in tokens:
                raise self._fault(
                    rows, 0, name, f"found {rows.schema[name]}, expected lists, as in the columns beside it"
                )
        lengths = rows.select(ROW, *(pl.col(name).list.len().fill_null(0) for name in tokens))
        uneven = lengths.filter(pl.any_horizontal(pl.col(name) != pl.col(tokens[0]) for name in tokens))
        if uneven.height:
            row = uneven.row(0, named=True)
            found = ", ".join(f"{n} in {name!r}" for name, n in row.items() if name != ROW)
            raise self.file.fault(f"lists of other lengths: {found}", place=place_of(self.file, row[ROW]), mend=_MEND)
        others = set(lists) - {*tokens, *KEYS[self.kind]}
        self._left_out["columns of lists that are not of tokens"] += len(others - self._others)
        self._others |= others
        self._left_out["records without tokens"] += lengths.filter(pl.col(tokens[0]) == 0).height
        if SEQUENCE not in rows.columns:
            rows = rows.with_columns(pl.col(ROW).alias(SEQUENCE))
        full = rows.filter(pl.col(tokens[0]).list.len() > 0)
        return full.drop(others).explode(tokens)

    def _starts(self, rows: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        keys = [*self._keys(rows), ROW] if self.lists else self._keys(rows)
        new = rows.select(pl.any_horizontal(pl.col(k).ne_missing(pl.col(k).shift()) for k in keys)).to_series()
        starts = np.flatnonzero(new.to_numpy())
        return starts if not rows.height or (len(starts) and starts[0] == 0) else np.concatenate([[0], starts])

    def _records(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Whole records, with positions."""
        starts = self._starts(rows)
        keys = self._keys(rows)
        for at, key in zip(
            starts, rows[starts].select(pl.col(keys).cast(pl.String)).hash_rows().to_list(), strict=True
        ):
            if key in self._seen:
                same = ", ".join(f"{name} {rows[name][int(at)]!r}" for name in keys)
                raise self.file.fault(
                    f"{same} begins a second time: its rows do not stand together",
                    place=place_of(self.file, rows[ROW][int(at)]),
                    mend=f"Sort the table by {', '.join(keys)} and position, or name what else tells records apart.",
                )
            self._seen.add(key)
        lengths = np.diff([*starts, rows.height])
        position = np.arange(rows.height) - np.repeat(starts, lengths)
        if POSITION in rows.columns and not np.array_equal(rows[POSITION].to_numpy(), position):
            rows = rows.with_columns(pl.Series("__of", np.repeat(starts, lengths))).sort("__of", POSITION).drop("__of")
            wrong = np.flatnonzero(rows[POSITION].to_numpy() != position)
            if len(wrong):
                first = int(wrong[0])
                found = f"found {rows[POSITION][first]} where {position[first]} is due: expected 0, 1, 2, ... in each record"
                raise self._fault(rows, first, POSITION, found)
        return rows.with_columns(pl.Series(POSITION, position.astype(np.int32)))

    def _explanations(self, rows: pl.DataFrame) -> pl.DataFrame:
        blank = (pl.col(EXPLANATION).str.strip_chars() == "").fill_null(value=True)
        kept = rows.filter(~blank)
        self._left_out["explanations without a text"] += rows.height - kept.height
        if EXPLANATION_ID in kept.columns:
            return kept
        ids = []
        for key in kept.select(LAYER, NEURON).rows():
            ids.append(str(self._counted[key]))
            self._counted[key] += 1
        return kept.with_columns(pl.Series(EXPLANATION_ID, ids, dtype=pl.String))
