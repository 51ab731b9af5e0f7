"""Simulation: records and explanations go in, the long table with `predicted` filled comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import polars as pl

from nscore._progress import counted
from nscore.errors import SimulatorError, TableError
from nscore.frames import Eager, Frame, Lazy, Source, aligned, like, source
from nscore.leaks import check_leaks, shown
from nscore.records import (
    ACTIVATION,
    EXPLANATION,
    EXPLANATION_ID,
    LAYER,
    NEURON,
    POSITION,
    PREDICTED,
    PREDICTED_RAW,
    SCORED_SPLITS,
    SEQUENCE,
    SHOWN,
    SIMULATOR,
    SPLIT,
    STATUS,
    STRATUM,
    TOKEN,
    scored_splits,
)
from nscore.simulators import Simulator, resolve_simulator
from nscore.validate import validate

__all__ = ["simulate"]

SIMULATED_SPLITS = ("calibration", *SCORED_SPLITS)
RESULTS = [EXPLANATION_ID, EXPLANATION, SIMULATOR, PREDICTED, PREDICTED_RAW, STATUS, SHOWN]


@overload
def simulate(
    records: Eager,
    explanations: Frame,
    *,
    simulator: str | Simulator | Sequence[str | Simulator] = ...,
    by: Sequence[str] | None = ...,
    splits: Sequence[str] | None = ...,
    leaks: Literal["refuse", "allow"] = ...,
) -> pl.DataFrame: ...
@overload
def simulate(
    records: Lazy,
    explanations: Frame,
    *,
    simulator: str | Simulator | Sequence[str | Simulator] = ...,
    by: Sequence[str] | None = ...,
    splits: Sequence[str] | None = ...,
    leaks: Literal["refuse", "allow"] = ...,
) -> pl.LazyFrame: ...
def simulate(
    records: Frame,
    explanations: Frame,
    *,
    simulator: str | Simulator | Sequence[str | Simulator] = "lexical",
    by: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    leaks: Literal["refuse", "allow"] = "refuse",
) -> pl.DataFrame | pl.LazyFrame:
    """Predicts the activation of each token of each record from each explanation of its neuron.

    Every record of a neuron meets every explanation of it; neurons that have only one of the two are left out.

    Args:
        records: a `records` table: the neuron's keys, `sequence`, `position`, `token`, `activation`, and what else
            there is, which travels along.
        explanations: an `explanations` table: the keys, `explanation_id`, `explanation`; further columns are not
            taken over.
        simulator: a simulator or the name of one (`token_lookup`, `lexical`, `constant`, `shuffled`, or `shuffled_`
            and a name for the control of another); of several, the results are rows of one table.
        by: the keys of a neuron; `layer` and `neuron` if left out.
        splits: the splits that are simulated, where the records have a `split`; `calibration`, `valid` and `test` if
            left out.
        leaks: whether records that are scored may be records that the explanation's author was shown
            (`shown_sequences`).

    Returns:
        A `simulated` table sorted by its keys, `sequence` and `position`; eager for eager records, lazy for lazy ones
        or a path.

    Raises:
        TableError: if a table is not valid, or no explanation is of a neuron that has records.
        LeakError: if a record that its author was shown would be scored.
        SimulatorError: if no simulator is named, or one is twice.
        UnknownNameError: if there is no such simulator.

    Examples:
        >>> records = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": 1, "position": [0, 1, 2],
        ...                         "token": ["a", "red", "fox"], "activation": [0.0, 2.0, 0.0]})
        >>> explanations = pl.DataFrame({"layer": 0, "neuron": 7, "explanation_id": "a",
        ...                              "explanation": ['colours such as "red" and "blue"']})
        >>> simulate(records, explanations)["predicted"].to_list()
        [0.0, 10.0, 0.0]
    """
    keys = [LAYER, NEURON] if by is None else list(by)
    given, told = source(records), source(explanations)
    validate(given, "records", by=keys)
    validate(told, "explanations", by=keys)
    chosen = [resolve_simulator(s) for s in ([simulator] if isinstance(simulator, str | Simulator) else simulator)]
    known = [s.name for s in chosen]
    if not chosen or len(set(known)) < len(known):
        raise SimulatorError(f"simulator={known}: name at least one simulator, and each once")

    columns = given.schema().names()
    wanted = scored_splits(columns, splits or (SIMULATED_SPLITS if SPLIT in columns else None))
    split = pl.col(SPLIT).cast(pl.String)
    train = None if wanted is None else given.frame.filter(split == "train")
    # what an earlier simulation left in the records is replaced
    fresh = given.frame.drop(RESULTS, strict=False)
    asked = fresh if wanted is None else fresh.filter(split.is_in(wanted))
    own = [*keys, EXPLANATION_ID]
    texts = aligned(told.frame, given.schema(), keys).select(*own, pl.col(EXPLANATION).cast(pl.String))
    pairs = asked.join(texts, on=keys, how="inner", nulls_equal=True)
    pairs = _marked(pairs, told, own, leaks)
    meeting = asked.join(texts, on=keys, how="semi", nulls_equal=True)
    if not given.collect(meeting.select(pl.len())).item():
        raise TableError(
            "nothing to simulate",
            told.name,
            found=f"no explanation is of a neuron that has records in {given.name} "
            f"(splits {', '.join(wanted or ['all'])})",
            mend=f"Compare the keys {', '.join(keys)} of both tables.",
        )
    order = [*keys, EXPLANATION_ID, SEQUENCE, POSITION]
    pairs = pairs.sort(order)
    parts = [s.simulate(pairs, keys=keys, train=train).with_columns(pl.lit(s.name).alias(SIMULATOR)) for s in chosen]
    first = [*keys, SIMULATOR, EXPLANATION_ID, SEQUENCE, POSITION, TOKEN, ACTIVATION, PREDICTED, STATUS]
    marks = [c for c in (SPLIT, STRATUM) if c in columns]
    rest = [c for c in columns if c not in {*first, *marks, *RESULTS}]
    kept = [*first, *marks, *rest, *([SHOWN] if SHOWN in pairs.collect_schema() else [])]
    result = pl.concat([counted(part.select(kept)) for part in parts]).sort(
        [*keys, SIMULATOR, EXPLANATION_ID, SEQUENCE, POSITION]
    )
    return like(given, result)


def _marked(
    pairs: pl.LazyFrame, explanations: Source, own: list[str], leaks: Literal["refuse", "allow"]
) -> pl.LazyFrame:
    """Marks the records that an author was shown; raises if one of them would be scored."""
    seen = shown(explanations, own, pairs.collect_schema())
    if seen is None:
        return pairs
    seen = seen.with_columns(pl.lit(value=True).alias(SHOWN))
    pairs = pairs.join(seen, on=[*own, SEQUENCE], how="left", nulls_equal=True).with_columns(
        pl.col(SHOWN).fill_null(value=False)
    )
    columns = pairs.collect_schema()
    scored = pairs if SPLIT not in columns else pairs.filter(pl.col(SPLIT).cast(pl.String).is_in(SCORED_SPLITS))
    if leaks == "refuse":
        check_leaks(scored.select(*own, SEQUENCE, SHOWN).unique().sort(*own, SEQUENCE).collect(), own, None, leaks)
    return pairs
