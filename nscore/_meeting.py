"""Which records meet which explanations: the rows of a simulation before anything is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from nscore.errors import TableError
from nscore.frames import Frame, Source, aligned, source
from nscore.leaks import check_leaks, shown
from nscore.records import (
    ACTIVATION,
    DIGIT_MASS,
    DISTRIBUTION,
    EXPLANATION,
    EXPLANATION_ID,
    LAYER,
    N_REPLICATES,
    NEURON,
    POSITION,
    PREDICTED,
    PREDICTED_RAW,
    PROMPT_VERSION,
    RECORDS,
    SCORED_SPLITS,
    SEQUENCE,
    SHOWN,
    SIMULATOR,
    SPLIT,
    SPREAD,
    STATUS,
    STRATUM,
    TOKEN,
    scored_splits,
)
from nscore.validate import validate

__all__ = ["Leaks", "Meeting", "meet"]

Leaks = Literal["refuse", "allow"]
SIMULATED_SPLITS = ("calibration", *SCORED_SPLITS)
PREDICTIONS = [PREDICTED, STATUS, DIGIT_MASS, SPREAD, N_REPLICATES, DISTRIBUTION, PROMPT_VERSION]
RESULTS = [EXPLANATION_ID, EXPLANATION, SIMULATOR, *PREDICTIONS, PREDICTED_RAW, SHOWN]


@dataclass(frozen=True, slots=True)
class Meeting:
    """Records and explanations that were validated and fit together.

    Attributes:
        given: the records as they came in.
        keys: the keys of a neuron.
        asked: the records of the splits that are simulated, without what an earlier simulation left in them.
        train: those of the train split; None where there are no splits.
        texts: the keys of each explanation, and it.
        seen: the keys and sequences of the records that an author was shown; None where nobody says.
    """

    given: Source
    keys: list[str]
    asked: pl.LazyFrame
    train: pl.LazyFrame | None
    texts: pl.LazyFrame
    seen: pl.LazyFrame | None

    @property
    def own(self) -> list[str]:
        """The keys of an explanation."""
        return [*self.keys, EXPLANATION_ID]

    @property
    def order(self) -> list[str]:
        """What results are sorted by."""
        return [*self.keys, SIMULATOR, EXPLANATION_ID, SEQUENCE, POSITION]

    def pairs(self, asked: pl.LazyFrame, texts: pl.LazyFrame) -> pl.LazyFrame:
        """Every record beside every explanation of its neuron."""
        pairs = asked.join(texts, on=self.keys, how="inner", nulls_equal=True)
        if self.seen is None:
            return pairs
        marked = self.seen.with_columns(pl.lit(value=True).alias(SHOWN))
        return pairs.join(marked, on=[*self.own, SEQUENCE], how="left", nulls_equal=True).with_columns(
            pl.col(SHOWN).fill_null(value=False)
        )

    def columns(self, present: Sequence[str]) -> list[str]:
        """The columns of a result in their order, of those that are present."""
        first = [*self.keys, SIMULATOR, EXPLANATION_ID, SEQUENCE, POSITION, TOKEN, ACTIVATION, *PREDICTIONS]
        marks = [SPLIT, STRATUM]
        rest = [c for c in self.asked.collect_schema().names() if c not in {*first, *marks}]
        return [c for c in [*first, *marks, *rest, SHOWN] if c in present]

    def check_leaks(self, leaks: Leaks) -> None:
        """Raises a `LeakError` if a record that its author was shown would be scored."""
        if self.seen is None or leaks != "refuse":
            return
        pairs = self.pairs(self.asked, self.texts)
        if SPLIT in pairs.collect_schema():
            pairs = pairs.filter(pl.col(SPLIT).cast(pl.String).is_in(SCORED_SPLITS))
        rows = pairs.select(*self.own, SEQUENCE, SHOWN).unique().sort(*self.own, SEQUENCE).collect()
        check_leaks(rows, self.own, None, leaks)


def meet(
    records: Frame,
    explanations: Frame,
    *,
    by: Sequence[str] | None,
    splits: Sequence[str] | None,
    leaks: Leaks,
    whole: bool = True,
) -> Meeting:
    """Validates both tables and lets them meet.

    The records are validated as a `whole`, or else by whoever goes through them, block by block.

    Raises:
        TableError: if a table is not valid, or no explanation is of a neuron that has records.
        LeakError: if a record that its author was shown would be scored.
    """
    keys = [LAYER, NEURON] if by is None else list(by)
    given, told = source(records), source(explanations)
    if whole:
        validate(given, "records", by=keys)
    else:
        RECORDS.check(given.schema(), given.name, keys)
    validate(told, "explanations", by=keys)
    columns = given.schema().names()
    wanted = scored_splits(columns, splits or (SIMULATED_SPLITS if SPLIT in columns else None))
    split = pl.col(SPLIT).cast(pl.String)
    fresh = given.frame.drop(RESULTS, strict=False)
    asked = fresh if wanted is None else fresh.filter(split.is_in(wanted))
    own = [*keys, EXPLANATION_ID]
    texts = aligned(told.frame, given.schema(), keys).select(*own, pl.col(EXPLANATION).cast(pl.String))
    meeting = asked.join(texts, on=keys, how="semi", nulls_equal=True)
    if not given.collect(meeting.select(pl.len())).item():
        raise TableError(
            "nothing to simulate",
            told.name,
            found=f"no explanation is of a neuron that has records in {given.name} "
            f"(splits {', '.join(wanted or ['all'])})",
            mend=f"Compare the keys {', '.join(keys)} of both tables.",
        )
    met = Meeting(
        given=given,
        keys=keys,
        asked=asked,
        train=None if wanted is None else given.frame.filter(split == "train"),
        texts=texts,
        seen=shown(told, own, pl.Schema(asked.collect_schema() | texts.collect_schema())),
    )
    met.check_leaks(leaks)
    return met
