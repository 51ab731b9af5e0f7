"""Which records meet which explanations: the rows of a simulation before anything is predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from nscore._tables.texts import check_table
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

__all__ = ["Leaks", "Meeting", "meet", "result_columns"]

Leaks = Literal["refuse", "allow"]
SIMULATED_SPLITS = ("calibration", *SCORED_SPLITS)
PREDICTIONS = [PREDICTED, STATUS, DIGIT_MASS, SPREAD, N_REPLICATES, DISTRIBUTION, PROMPT_VERSION]
# A few of a file's groups of rows.
STRETCH_ROWS = 1 << 18
RESULTS = [EXPLANATION_ID, EXPLANATION, SIMULATOR, *PREDICTIONS, PREDICTED_RAW, SHOWN]


@dataclass(frozen=True, slots=True)
class Meeting:
    """Records and explanations that were validated and fit together.

    Attributes:
        given: the records as they came in.
        keys: the keys of a neuron.
        splits: which of the records are simulated; None for all.
        train: those of the train split; None where there are no splits.
        texts: the keys of each explanation, and it.
        seen: the keys and sequences of the records that an author was shown; None where nobody says.
    """

    given: Source
    keys: list[str]
    splits: tuple[str, ...] | None
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

    @property
    def asked(self) -> pl.LazyFrame:
        """The records that are simulated, without what an earlier simulation left in them."""
        return _asked(self.given.frame, self.splits)

    def stretches(self) -> Iterator[pl.LazyFrame]:
        """The same, one after the other; of files so many rows at a time, since Polars decodes far ahead of who reads."""
        if not self.given.files or None in self.given.contents:
            yield self.asked
            return
        for start in range(0, self.given.height() or 0, STRETCH_ROWS):
            yield _asked(self.given.frame.slice(start, STRETCH_ROWS), self.splits)

    def pairs(self, asked: pl.LazyFrame, texts: pl.LazyFrame) -> pl.LazyFrame:
        """Every record beside every explanation of its neuron."""
        pairs = asked.join(texts, on=self.keys, how="inner", nulls_equal=True)
        if self.seen is None:
            return pairs
        marked = self.seen.with_columns(pl.lit(value=True).alias(SHOWN))
        return pairs.join(marked, on=[*self.own, SEQUENCE], how="left", nulls_equal=True).with_columns(
            pl.col(SHOWN).fill_null(value=False)
        )

    def check_leaks(self, leaks: Leaks) -> None:
        """Raises a `LeakError` if a record that its author was shown would be scored."""
        if self.seen is None or leaks != "refuse":
            return
        pairs = self.pairs(self.asked, self.texts)
        if SPLIT in pairs.collect_schema():
            pairs = pairs.filter(pl.col(SPLIT).cast(pl.String).is_in(SCORED_SPLITS))
        rows = self.given.collect(pairs.select(*self.own, SEQUENCE, SHOWN).unique().sort(*self.own, SEQUENCE))
        check_leaks(rows, self.own, None, leaks)


def _asked(records: pl.LazyFrame, splits: Sequence[str] | None) -> pl.LazyFrame:
    fresh = records.drop(RESULTS, strict=False)
    return fresh if splits is None else fresh.filter(pl.col(SPLIT).cast(pl.String).is_in(splits))


def result_columns(keys: Sequence[str], present: Sequence[str]) -> list[str]:
    """The columns of a result in their order, of those that are present; what a user added stays in its own."""
    first = [*keys, SIMULATOR, EXPLANATION_ID, SEQUENCE, POSITION, TOKEN, ACTIVATION, *PREDICTIONS]
    marks = [SPLIT, STRATUM]
    rest = [c for c in present if c not in {*first, *marks, SHOWN, EXPLANATION}]
    return [c for c in [*first, *marks, *rest, SHOWN] if c in present]


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
        check_table(given, RECORDS, keys, [TOKEN])
    validate(told, "explanations", by=keys)
    columns = given.schema().names()
    wanted = scored_splits(columns, splits or (SIMULATED_SPLITS if SPLIT in columns else None))
    asked = _asked(given.frame, wanted)
    own = [*keys, EXPLANATION_ID]
    # explanations are few: read once, here, what is wrong with their files is found here
    texts = told.collect(aligned(told.frame, given.schema(), keys).select(*own, pl.col(EXPLANATION).cast(pl.String)))
    meeting = asked.join(texts.lazy(), on=keys, how="semi", nulls_equal=True)
    if not given.collect(meeting.select(keys).head(1)).height:
        raise TableError(
            "nothing to simulate",
            told.name,
            found=f"no explanation is of a neuron that has records in {given.name} "
            f"(splits {', '.join(wanted or ['all'])})",
            mend=f"Compare the keys {', '.join(keys)} of both tables.",
        )
    seen = shown(told, own, pl.Schema(asked.collect_schema() | texts.schema))
    met = Meeting(
        given=given,
        keys=keys,
        splits=wanted,
        train=None if wanted is None else given.frame.filter(pl.col(SPLIT).cast(pl.String) == "train"),
        texts=texts.lazy(),
        seen=None if seen is None else told.collect(seen).lazy(),
    )
    met.check_leaks(leaks)
    return met
