"""How the records of dashboards were drawn: from which stratum, where they stand in it, which are there twice, their splits."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from math import isfinite, nan

import msgspec
import numpy as np
import polars as pl

from nscore.records import SEQUENCE, SPLIT, STRATUM
from nscore.splits import assign_splits

__all__ = ["AT", "BINS", "RANK", "Drawn"]

AT, RANK = "__at", "rank"
BINS = ["bin_min", "bin_max", "bin_contains"]
CODE, HIGHEST, SAME = "__neuron", "__highest", "__same"


class Drawn:
    """The records of some neurons, whose tokens need not be held: a few numbers each.

    SAEDashboard draws in groups: the highest activations of all (`bin_min` and `bin_contains` are -1), and a few of each of
    several intervals of equal width, with the share of tokens that have their activation in it.
    """

    def __init__(self) -> None:
        self._neurons: dict[object, int] = {}
        self._codes, self._places, self._sequences = array("q"), array("q"), array("q")
        self._numbers = array("d")
        self._same = bytearray()

    def __len__(self) -> int:
        return len(self._sequences)

    def add(
        self,
        neuron: object,
        at: int,
        sequence: int,
        *,
        tokens: Sequence[str],
        values: Sequence[float | None],
        bins: Sequence[float | None],
        origin: str | None = None,
    ) -> None:
        """Notes a record.

        Args:
            neuron: whose it is.
            at: where it stands in the file; records come in this order.
            sequence: its name.
            tokens: its tokens.
            values: their activations.
            bins: `bin_min`, `bin_max`, `bin_contains`.
            origin: what tells it apart from another record with the same tokens.
        """
        self._codes.append(self._neurons.setdefault(neuron, len(self._neurons)))
        self._places.append(at)
        self._sequences.append(sequence)
        known = [value for value in values if value is not None and isfinite(value)]
        self._numbers.append(max(known) if known else nan)
        self._numbers.extend(nan if value is None else value for value in bins)
        self._same += blake2b(_ENCODER.encode((origin, tokens)), digest_size=16).digest()

    def placed(self, per_split: int | None) -> tuple[pl.DataFrame, int]:
        """The records that are kept, in the order they came: their places, `sequence`, `stratum`, `rank`, `split`, bins; how many were twice.

        A record whose tokens its neuron has twice stays once, where it ranks highest. The strata: `random` of the interval that
        holds zero, in which nearly all tokens of a sparse neuron are, and of what is zero throughout; `top`; `bin_1`, `bin_2`, ...
        of the intervals above. Where a neuron has no group of the highest, its highest interval is `top`; where
        it has no intervals, all that is above zero.
        """
        numbers = np.array(self._numbers, dtype=np.float64).reshape(-1, 4)
        frame = pl.DataFrame(
            {
                CODE: pl.Series(np.array(self._codes, dtype=np.int64)),
                AT: pl.Series(np.array(self._places, dtype=np.int64)),
                SEQUENCE: pl.Series(np.array(self._sequences, dtype=np.int64)),
                **{name: numbers[:, i] for i, name in enumerate([HIGHEST, *BINS])},
                SAME: [bytes(self._same[i : i + 16]) for i in range(0, len(self._same), 16)],
            },
            schema_overrides={SAME: pl.Binary},
        ).with_columns(pl.col(HIGHEST, *BINS).fill_nan(None))
        kept = (
            frame.with_columns(_stratum())
            .sort(CODE, pl.col(STRATUM) != "top", -pl.col(HIGHEST), AT, nulls_last=True)
            .unique([CODE, SAME], keep="first", maintain_order=True)
            .with_columns(pl.int_range(pl.len()).over(CODE, STRATUM).alias(RANK))
            .sort(AT)
        )
        top = pl.col("bin_contains") < 0
        placed = assign_splits(kept, n_per_split=per_split, by=[CODE]).with_columns(
            pl.when(~top.fill_null(value=False)).then(pl.col(BINS))
        )
        return placed.select(AT, SEQUENCE, STRATUM, RANK, SPLIT, *BINS), len(self) - kept.height


_ENCODER = msgspec.msgpack.Encoder()


def _stratum() -> pl.Expr:
    low, high, contains = (pl.col(name) for name in BINS)
    top = (contains < 0).fill_null(value=False)
    width = high - low
    binned = ~top & (width > 0) & width.is_finite()
    number = (low / width).round().clip(1, 999).cast(pl.Int32, strict=False).cast(pl.String)
    highest = low == pl.when(binned).then(low).max().over(CODE)
    return (
        pl.when(pl.col(HIGHEST) == 0)
        .then(pl.lit("random"))
        .when(top)
        .then(pl.lit("top"))
        .when(binned & (low <= 0) & (high >= 0))
        .then(pl.lit("random"))
        .when(binned & highest & ~top.any().over(CODE))
        .then(pl.lit("top"))
        .when(binned)
        .then("bin_" + number)
        .when(pl.col(HIGHEST) > 0)
        .then(pl.lit("top"))
        .otherwise(pl.lit("random"))
        .alias(STRATUM)
    )
