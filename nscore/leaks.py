"""The leak check: a record that an explanation's author was shown says nothing about how good the explanation is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import polars as pl

from nscore._tables.texts import check_texts
from nscore.errors import LeakError
from nscore.frames import Frame, Source, aligned, source
from nscore.records import SEQUENCE, SHOWN, SHOWN_SEQUENCES

__all__ = ["check_leaks", "shown"]


def shown(explanations: Source, keys: Sequence[str], schema: pl.Schema) -> pl.LazyFrame | None:
    """One row for each explanation and record that its author was shown; None where the table does not say.

    The columns have the dtypes that `schema` (of the records) has them in.
    """
    columns = explanations.schema()
    if SHOWN_SEQUENCES not in columns:
        return None
    on = [k for k in keys if k in columns]
    check_texts(explanations, [*on, SHOWN_SEQUENCES])
    listed = explanations.frame.select(*on, pl.col(SHOWN_SEQUENCES).alias(SEQUENCE)).explode(
        SEQUENCE, empty_as_null=False
    )
    return aligned(listed, schema, [*on, SEQUENCE]).drop_nulls(SEQUENCE).unique()


def check_leaks(
    records: pl.DataFrame, by: Sequence[str], explanations: Frame | None, leaks: Literal["refuse", "allow"]
) -> None:
    """Raises a `LeakError` if a record to be scored was shown to the author of its explanation.

    Args:
        records: one row a record that is to be scored, marked by a column `shown` or told by `explanations`.
        by: the keys of an explanation.
        explanations: the table that has `shown_sequences`, if it is at hand.
        leaks: `"allow"` scores them all the same.
    """
    if leaks == "allow":
        return
    leaked = records.filter(pl.col(SHOWN)) if SHOWN in records.columns else records.clear()
    given = None if explanations is None else source(explanations)
    told = None if given is None else shown(given, by, records.schema)
    if given is not None and told is not None:
        seen = given.collect(told)
        hits = records.join(seen, on=seen.columns, how="semi", nulls_equal=True)
        leaked = pl.concat([leaked, hits]).unique([*by, SEQUENCE], maintain_order=True)
    if leaked.height:
        first = leaked.row(0, named=True)
        name = ", ".join(f"{c}={first[c]!r}" for c in [*by, SEQUENCE])
        raise LeakError(
            f"{leaked.height} of {records.height} records that would be scored were shown to the author of their "
            f"explanation, the first {name}. Score records of a split that was held out (splits=[...]), or ask for "
            "these by name: leaks='allow' (--leaks allow)."
        )
