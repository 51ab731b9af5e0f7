"""The original's interleaved splits, for records that have a stratum and a rank in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import polars as pl

from nscore._tables.texts import check_texts
from nscore.errors import TableError
from nscore.frames import Eager, Frame, Lazy, like, source
from nscore.records import LAYER, NEURON, SEQUENCE, SPLIT, STRATUM, Split

__all__ = ["assign_splits"]

TOP_SPLITS: tuple[Split, ...] = ("train", "calibration", "valid", "test")
OTHER_SPLITS: tuple[Split, ...] = ("calibration", "valid", "test")


@overload
def assign_splits(
    records: Eager,
    *,
    n_per_split: int | None = ...,
    rank: str = ...,
    by: Sequence[str] | None = ...,
) -> pl.DataFrame: ...
@overload
def assign_splits(
    records: Lazy, *, n_per_split: int | None = ..., rank: str = ..., by: Sequence[str] | None = ...
) -> pl.LazyFrame: ...
def assign_splits(
    records: Frame,
    *,
    n_per_split: int | None = None,
    rank: str = "rank",
    by: Sequence[str] | None = None,
) -> pl.DataFrame | pl.LazyFrame:
    """Adds the column `split`: slices of each stratum that interleave, so that no split gets the best records.

    Of the `top` records, in the order of their rank, split i of (train, calibration, valid, test) takes i, i + 4,
    i + 8, ...; of the records of any other stratum, split i of (calibration, valid, test) takes i, i + 3, ...

    Args:
        records: a `records` table with the columns `stratum` and `rank` (both constant over a record).
        n_per_split: how many records of a stratum a split takes at most; the rest belong to no split and are left
            out of the result. All are taken if left out.
        rank: the column that orders the records of a stratum; the numbers themselves do not matter.
        by: the keys of a neuron; `layer` and `neuron` if left out.

    Returns:
        The records with `split`, eager for an eager frame and lazy for a lazy one or a path.

    Raises:
        TableError: if a column is missing, or two records of a stratum have one rank.

    Source: `ActivationRecordSliceParams` and the slices of `NeuronRecord` in OpenAI's automated-interpretability.

    Examples:
        >>> records = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": range(8), "stratum": ["top"] * 5 + ["random"] * 3,
        ...                         "rank": [0, 1, 2, 3, 4, 0, 1, 2]})
        >>> assign_splits(records)["split"].to_list()
        ['train', 'calibration', 'valid', 'test', 'train', 'calibration', 'valid', 'test']
    """
    given = source(records)
    keys = [LAYER, NEURON] if by is None else list(by)
    schema = given.schema()
    for column in [*keys, SEQUENCE, STRATUM, rank]:
        if column not in schema:
            raise TableError(
                "missing column",
                given.name,
                column=column,
                found=f"the columns are {', '.join(schema)}",
                mend="Splits interleave the records of a stratum in the order of their rank: add the column, or "
                "name yours with rank=... .",
            )
    check_texts(given, [*keys, SEQUENCE, STRATUM])
    group = [*keys, STRATUM]
    drawn = given.collect(given.frame.select(*group, SEQUENCE, rank).unique()).sort(*group, rank, SEQUENCE)
    twice = drawn.filter(pl.struct(*keys, SEQUENCE).is_duplicated())
    if twice.height:
        row = twice.sort(*keys, SEQUENCE).row(0, named=True)
        same = twice.filter(pl.all_horizontal(pl.col(c).eq_missing(pl.lit(row[c])) for c in [*keys, SEQUENCE]))
        column = STRATUM if same[STRATUM].n_unique() > 1 else rank
        raise TableError(
            f"two values of {column} in one record",
            given.name,
            column=column,
            found=", ".join(f"{c}={row[c]!r}" for c in [*keys, SEQUENCE]) + " has more than one",
            mend="Expected one stratum and one rank for all tokens of a record.",
        )
    tied = drawn.filter(pl.struct(*group, rank).is_duplicated())
    if tied.height:
        row = tied.row(0, named=True)
        raise TableError(
            "repeated rank",
            given.name,
            column=rank,
            found=", ".join(f"{c}={row[c]!r}" for c in [*group, rank]) + " is the rank of two records",
            mend="Expected another rank for each record of a stratum.",
        )
    order = pl.int_range(pl.len()).over(group)
    top = pl.col(STRATUM).cast(pl.String) == "top"
    turns = pl.when(top).then(len(TOP_SPLITS)).otherwise(len(OTHER_SPLITS))
    # the other strata have no train split: their first turn is calibration, the second of the four
    turn = order % turns + pl.when(top).then(0).otherwise(1)
    drawn = drawn.with_columns(
        turn.replace_strict(dict(enumerate(TOP_SPLITS)), return_dtype=pl.String).alias(SPLIT),
        (order // turns).alias("__slot"),
    )
    if n_per_split is not None:
        drawn = drawn.filter(pl.col("__slot") < n_per_split)
    taken = drawn.lazy().select(*keys, SEQUENCE, SPLIT)
    placed = given.frame.drop(SPLIT, strict=False).join(
        taken, on=[*keys, SEQUENCE], how="inner", nulls_equal=True, maintain_order="left"
    )
    return like(given, placed)
