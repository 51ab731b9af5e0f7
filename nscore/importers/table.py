"""`table`: Parquet, CSV and JSON lines of one's own, a row a token or a row a record, whatever their columns are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, get_args

import polars as pl

from nscore.errors import SettingError
from nscore.importers._mapping import Said, constants_of, pairs_of
from nscore.importers._places import SourceFile
from nscore.importers._protocol import Parsed, importer
from nscore.importers._reading import Piece, Reading, TableKind, rows_are_records
from nscore.importers._tabular import ROW, SUFFIXES, batches, together
from nscore.records import ACTIVATION, EXPLANATION, LABEL, PREDICTED, PREDICTED_LABEL, TOKEN

__all__ = ["Table"]

# What others call lists of tokens and of their activations.
OTHER_NAMES = {TOKEN: ("tokens",), ACTIVATION: ("activations", "values")}
# By which columns a kind is known: the first that fits.
SIGNS: dict[TableKind, tuple[str, ...]] = {
    "judgements": (LABEL, PREDICTED_LABEL),
    "simulated": (ACTIVATION, PREDICTED),
    "records": (TOKEN, ACTIVATION),
    "explanations": (EXPLANATION,),
}


@importer("table")
@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Reads `.parquet`, `.csv`, `.tsv` and `.jsonl` files with a row a token, or a row a record with lists of its tokens.

    A column is found under nscore's name for it, lists of tokens and activations under `tokens`, `activations` and `values`
    too, and under any other where `columns` says so. Any further column travels along. Positions are made where
    there are none: the rows of a record are then its tokens, in their order. Where a row is a record, `sequence` is made
    too: the number of the row. Texts are read as numbers where a column holds numbers, and the other way round; what
    is no finite number is null.

    The rows of a record must stand together: a file may be larger than memory, and is read some records at a time.

    Args:
        columns: what a column is called in the files, by nscore's name for it: `{"neuron": "feature", "activation": "act"}`, or
            `"neuron=feature,activation=act"`.
        kind: which table it is: `records`, `explanations`, `simulated` or `judgements`; told by its columns if left out.
        constants: what is the same in every row, for columns that the files lack: `{"layer": 5}`, or `"layer=5"`.

    Raises:
        SettingError: if an option is not of this form.
    """

    makes: ClassVar[tuple[str, ...]] = get_args(TableKind)

    columns: Said = field(default_factory=dict)
    kind: TableKind | None = None
    constants: Said = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in SIGNS:
            raise SettingError(f"kind: found {self.kind!r}, expected one of {', '.join(SIGNS)}")
        both = pairs_of("columns", self.columns).keys() & constants_of("constants", self.constants).keys()
        if both:
            raise SettingError(f"constants: {min(both)!r} is among the columns too")

    @property
    def name(self) -> str:
        """`table`."""
        return "table"

    def wants(self, path: str) -> bool:
        """Parquet, CSV and JSON lines."""
        return path.lower().endswith(SUFFIXES)

    def parse(self, file: SourceFile) -> Iterator[Parsed[Piece]]:
        """Some thousands of rows at a time, of records whole ones."""
        reading: Reading | None = None
        for rows in batches(file):
            renamed = self._renamed(file, rows)
            if reading is None:
                reading = Reading(file, self._kind(file, renamed), rows_are_records(renamed))
            yield from reading.take(renamed)
        if reading is None:
            yield Parsed(0, None, Counter({"tables without rows": 1}))
        else:
            yield from reading.rest()

    def _renamed(self, file: SourceFile, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with nscore's names and the constants."""
        theirs = pairs_of("columns", self.columns)
        for name, their in theirs.items():
            if their not in rows.columns or their == ROW:
                raise file.fault(
                    f"no column {their!r}, which columns= names for {name!r}; the columns are {_names(rows)}",
                    mend="Correct columns= (--columns).",
                )
        for name, others in OTHER_NAMES.items():
            other = next((o for o in others if o in rows.columns and o not in theirs.values()), None)
            if other is not None and name not in theirs and name not in rows.columns:
                theirs[name] = other
        constants = constants_of("constants", self.constants)
        for name in constants:
            if name in rows.columns:
                raise file.fault(
                    f"has a column {name!r}, and constants= says what it is", mend="Leave it out of constants=."
                )
        kept = [name for name in rows.columns if name not in theirs and name not in theirs.values()]
        return rows.select(
            *kept,
            *(pl.col(their).alias(name) for name, their in theirs.items()),
            *(pl.lit(value).alias(name) for name, value in constants.items()),
        )

    def _kind(self, file: SourceFile, rows: pl.DataFrame) -> TableKind:
        kind = self.kind or next((kind for kind, signs in SIGNS.items() if set(signs) <= set(rows.columns)), None)
        if kind is None:
            signs = "; ".join(f"{kind} by {' and '.join(signs)}" for kind, signs in SIGNS.items())
            raise file.fault(
                f"no table of nscore's has the columns {_names(rows)}",
                mend=f"Say which is which with columns= (--columns), or kind= (--kind). A table is known by these: {signs}.",
            )
        return kind

    def tables(self, parsed: Sequence[Piece]) -> dict[str, pl.DataFrame]:
        """See `Importer.tables`."""
        kinds = dict.fromkeys(piece.kind for piece in parsed)
        return {
            kind: together(parsed[-1].file, [piece.rows for piece in parsed if piece.kind == kind]) for kind in kinds
        }


def _names(rows: pl.DataFrame) -> str:
    return ", ".join(name for name in rows.columns if name != ROW) or "none"
