"""Whether a table is one of judgements: a row an answer, labels and probabilities that can be such, each item judged once."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from nscore._tables.texts import check_table
from nscore.errors import TableError
from nscore.failures import check_statuses, contradicted, has_statuses
from nscore.frames import Source
from nscore.records import FAILING, ITEM, JUDGEMENTS, OK, PREDICTED_LABEL, PROBABILITY, STATUS, judgement_keys

__all__ = ["check_judgements"]


def check_judgements(given: Source, by: Sequence[str] | None = None) -> None:
    """Raises if the table is none; `by` are keys other than those of judgements.

    An item is judged once under all keys that the table has, also where it is scored by fewer of them.

    Raises:
        TableError: for a missing column, a wrong dtype, an unknown status, a failure that has a label, a probability that
            is not within 0 and 1, an item that is judged twice.
    """
    columns = given.schema()
    keys = judgement_keys(columns)
    check_table(given, JUDGEMENTS, keys if by is None else by)
    if has_statuses(given):
        unknown = ~pl.col(STATUS).cast(pl.String).is_in([OK, *FAILING])
        check_statuses(given, unknown | contradicted(PREDICTED_LABEL), PREDICTED_LABEL)
    if PROBABILITY in columns:
        outside = ~pl.col(PROBABILITY).cast(pl.Float64).is_between(0, 1)
        where = given.row_of(outside.fill_null(value=False))
        if where:
            raise TableError(
                "value out of range",
                where,
                column=PROBABILITY,
                found="expected 0 to 1, or null where it is not known",
                mend="It is how likely the judge holds the item to be active: correct it, or make it null.",
            )
    every = [c for c in dict.fromkeys([*keys, *(by or ()), ITEM]) if c in columns]
    where = given.row_of(pl.struct(every).is_duplicated())
    if where:
        raise TableError(
            "repeated row",
            where,
            column=ITEM,
            found=f"another row has the same {', '.join(every)}",
            mend="Expected one judgement of an item: drop one, or number the items.",
        )
