"""The parts of an export: whole neurons with all that is told of them, without what no format has a place for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from nscore._files.wholes import whole_groups
from nscore._tables.runs import boundaries
from nscore.errors import SettingError, TableError
from nscore.exporters import Exporter, Part
from nscore.frames import Source, aligned
from nscore.pool import pool
from nscore.records import (
    ACTIVATION,
    EXPLANATION,
    EXPLANATION_ID,
    EXPLANATIONS,
    JUDGEMENTS,
    LAYER,
    NEURON,
    POSITION,
    PREDICTED,
    PREDICTED_RAW,
    RECORDS,
    SCORER,
    SCORES,
    SEQUENCE,
    SIMULATED,
    SIMULATOR,
    SPLIT,
    STRATUM,
    TABLES,
    TOKEN,
    OnFailure,
    scored_splits,
)
from nscore.score import score_sequences
from nscore.validate import validate

__all__ = ["Chosen", "parts_of"]

# Rows of a block, about; the lists of a distribution take the room of as many numbers.
BLOCK_ROWS, WIDE_ROWS = 1 << 18, 1 << 15
NEURON_KEYS = [LAYER, NEURON]
PUBLISHED, JUDGED, SCALE = "published_sequence_scores", "judged", "activation_scale"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is exported: the tables by name, and what of them."""

    tables: Mapping[str, Source]
    simulator: str | None
    splits: Sequence[str] | None
    on_failure: OnFailure
    leaks: Literal["refuse", "allow"]


def parts_of(table: str, exporter: Exporter, chosen: Chosen) -> Iterator[tuple[Part, Counter[str]]]:
    """The parts of a table, and for each how many neurons, explanations, records, tokens, judgements it has."""
    given = chosen.tables[table]
    schema = given.schema()
    keys = [*NEURON_KEYS, *([EXPLANATION_ID] if EXPLANATION_ID in schema else [])]
    by = [*keys, *([SCORER] if table == JUDGEMENTS.name and SCORER in schema else [])]
    TABLES[table].check(schema, given.name, by)
    if table == SIMULATED.name:
        _check_columns(given, exporter.needs)
    frame = _of_simulator(given, chosen.simulator)
    texts = _texts(chosen, keys, schema)
    if texts is None and exporter.needs_texts:
        raise SettingError(
            f"{exporter.name} has the texts of the explanations, and there are none: name a table of them "
            "(explanations=, --explanations FILE)."
        )
    wide = any(dtype == pl.List for dtype in schema.dtypes())
    seen = []
    for block in whole_groups(given, frame, NEURON_KEYS, WIDE_ROWS if wide else BLOCK_ROWS):
        left_out = Counter[str]()
        rows = _explained(block.sort(by, maintain_order=True), keys, texts, exporter, left_out)
        seen.append(block.select(keys).unique())
        mine = None if texts is None else texts.join(rows.select(keys).unique(), on=keys, how="semi", nulls_equal=True)
        if table == SIMULATED.name:
            part, filled = _simulated(rows, keys, mine, chosen, left_out)
        else:
            judged = _records(chosen, rows) if table == JUDGEMENTS.name else None
            part, filled = Part(table, rows, keys, mine, records=judged, left_out=left_out), 0
        yield part, _counted(part, filled)
    if texts is not None and seen:
        missing = texts.join(pl.concat(seen), on=keys, how="anti", nulls_equal=True).height
        nothing = Counter({f"explanations that are not in {table}": missing})
        yield Part(table, pl.DataFrame(schema=schema), keys, None, left_out=nothing), Counter()


def _check_columns(given: Source, needs: Sequence[str]) -> None:
    for column in needs:
        if column not in given.schema():
            raise TableError(
                "missing column",
                given.name,
                column=column,
                found=f"the columns are {', '.join(given.schema())}",
                mend="The format writes it beside each prediction: add it.",
            )


def _of_simulator(given: Source, simulator: str | None) -> pl.LazyFrame:
    """The rows of one simulator; which one must be said where there are several."""
    frame = given.frame
    if SIMULATOR not in given.schema():
        if simulator is not None:
            raise SettingError(f"simulator: {given.name} does not say who predicted: leave it out")
        return frame
    name = pl.col(SIMULATOR).cast(pl.String)
    names = given.collect(frame.select(name.unique().sort())).to_series().to_list()
    if simulator is None and len(names) > 1:
        raise SettingError(
            f"{given.name} holds the predictions of several simulators, and the format does not name them: choose one "
            f"with simulator= (--simulator): {', '.join(map(str, names))}"
        )
    if simulator is not None and simulator not in names:
        raise SettingError(
            f"simulator: {given.name} has none called {simulator!r}; it has {', '.join(map(str, names))}"
        )
    return (frame if simulator is None else frame.filter(name == simulator)).drop(SIMULATOR)


def _texts(chosen: Chosen, keys: Sequence[str], schema: pl.Schema) -> pl.DataFrame | None:
    """The texts, one row an explanation, with its keys in the dtypes of the table; None where there are none."""
    given = chosen.tables.get(EXPLANATIONS.name)
    if given is None:
        return None
    here = given.schema()
    # without ids in the table, each neuron must have one explanation
    EXPLANATIONS.check(here, given.name, [k for k in NEURON_KEYS if k in keys])
    frame = given.frame
    if SIMULATOR in here:  # what a run asked; a control was asked about other explanations than its own
        if SIMULATOR in schema:
            frame = frame.filter(pl.col(SIMULATOR).cast(pl.String) == (chosen.simulator or _only_simulator(chosen)))
        frame = frame.drop(SIMULATOR)
    texts = given.collect(aligned(frame, schema, keys))
    twice = texts.filter(pl.struct(keys).is_duplicated())
    if twice.height:
        name = ", ".join(f"{k}={v!r}" for k, v in twice.select(keys).row(0, named=True).items())
        raise TableError(
            "repeated row",
            given.name,
            found=f"{name} has several explanations",
            mend="Expected one row for each explanation that was simulated: see whether an explanation_id is missing.",
        )
    return texts


def _only_simulator(chosen: Chosen) -> str | None:
    given = next(chosen.tables[t] for t in (SIMULATED.name, SCORES.name, JUDGEMENTS.name) if t in chosen.tables)
    names = given.collect(given.frame.select(pl.col(SIMULATOR).cast(pl.String).head(1))).to_series()
    return names[0] if names.len() else None


def _explained(
    rows: pl.DataFrame, keys: list[str], texts: pl.DataFrame | None, exporter: Exporter, left_out: Counter[str]
) -> pl.DataFrame:
    """The rows of explanations that the format has a place for."""
    if texts is not None and exporter.needs_texts:
        known = texts.drop_nulls(EXPLANATION).select(keys)
        there = rows.join(known, on=keys, how="semi", nulls_equal=True, maintain_order="left")
        lost = rows.select(keys).n_unique() - there.select(keys).n_unique()
        left_out["explanations whose text is not known"] += lost
        rows = there
    if EXPLANATION_ID in keys and not exporter.several:
        first = rows.select(keys).unique(NEURON_KEYS, keep="first", maintain_order=True)
        there = rows.join(first, on=keys, how="semi", nulls_equal=True, maintain_order="left")
        further = rows.select(keys).n_unique() - first.height
        left_out[f"further explanations of a neuron ({exporter.name} has one)"] += further
        rows = there
    return rows


def _simulated(
    rows: pl.DataFrame,
    keys: list[str],
    texts: pl.DataFrame | None,
    chosen: Chosen,
    left_out: Counter[str],
) -> tuple[Part, int]:
    """The records of some neurons that are known on every token, with their scores; how many tokens were filled."""
    record = [*keys, SEQUENCE]
    kept, filled = _known(rows.sort(*record, POSITION, nulls_last=True), record, chosen, left_out)
    wanted = scored_splits(kept.columns, chosen.splits)
    try:
        sequences = score_sequences(
            kept,
            by=keys,
            splits=wanted,
            on_failure=chosen.on_failure,
            keep=[STRATUM] if STRATUM in kept.columns else [],
            leaks=chosen.leaks,
        )
    except TableError:
        # it is said again with the row of the file, if the file is at fault
        validate(chosen.tables[SIMULATED.name], SIMULATED.name)
        raise
    lost = rows.select(keys).n_unique() - sequences.select(keys).n_unique()
    left_out["explanations of which no record is left"] += lost
    scores = pool(sequences, strata=STRATUM in sequences.columns)
    raw = [pl.col(PREDICTED_RAW).fill_null(0.0)] if filled and PREDICTED_RAW in kept.columns else []
    whole = kept.with_columns(pl.col(PREDICTED).fill_null(0.0), *raw)
    if PUBLISHED in chosen.tables and SCALE in chosen.tables[PUBLISHED].schema():
        sequences = _with_scale(sequences, record, chosen.tables[PUBLISHED])
    return Part(SIMULATED.name, whole, keys, texts, sequences, scores, left_out=left_out), filled


def _known(rows: pl.DataFrame, record: list[str], chosen: Chosen, left_out: Counter[str]) -> tuple[pl.DataFrame, int]:
    starts = np.flatnonzero(boundaries(rows, record))
    if not len(starts):
        return rows, 0

    def any_of(at_fault: pl.Expr) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.logical_or.reduceat(rows.select(at_fault.alias("at")).to_series().to_numpy(), starts)

    bad = np.zeros(len(starts), dtype=np.bool_)
    wanted = scored_splits(rows.columns, chosen.splits)
    reasons = {
        f"records of splits other than {' and '.join(wanted or ())}": None
        if wanted is None
        else ~pl.col(SPLIT).cast(pl.String).is_in(wanted).fill_null(value=False),
        "records with an activation that is not known": pl.col(ACTIVATION).is_null(),
        "records with a token that is not known": pl.col(TOKEN).is_null(),
        "records with a token without a prediction": None
        if chosen.on_failure == "zero"
        else pl.col(PREDICTED).is_null(),
    }
    for reason, at_fault in reasons.items():
        if at_fault is not None:
            here = any_of(at_fault) & ~bad
            left_out[reason] += int(here.sum())
            bad |= here
    kept = rows if not bad.any() else rows.filter(np.repeat(~bad, np.diff(starts, append=rows.height)))
    return kept, kept[PREDICTED].null_count()


def _with_scale(sequences: pl.DataFrame, record: list[str], published: Source) -> pl.DataFrame:
    """The scores with the unit in which each record was published."""
    if not set(record) <= set(published.schema()):
        return sequences
    told = aligned(published.frame.select(*record, SCALE), sequences.schema, record).unique(record)
    return sequences.lazy().join(told, on=record, how="left", nulls_equal=True, maintain_order="left").collect()


def _records(chosen: Chosen, rows: pl.DataFrame) -> pl.DataFrame | None:
    """The tokens of what was judged: as they were shown, where that is known, else those of the neurons' records."""
    given = chosen.tables.get(JUDGED) or chosen.tables.get(RECORDS.name)
    if given is None:
        return None
    RECORDS.check(given.schema(), given.name, NEURON_KEYS)
    mine = aligned(given.frame, rows.schema, NEURON_KEYS).join(
        rows.lazy().select(NEURON_KEYS).unique(), on=NEURON_KEYS, how="semi"
    )
    return given.collect(mine)


def _counted(part: Part, filled: int) -> Counter[str]:
    counts = Counter({"neurons": part.rows.select(NEURON_KEYS).n_unique(), "filled": filled})
    counts["explanations"] = part.rows.select(part.keys).n_unique()
    if part.sequence_scores is not None:
        counts |= Counter({"records": part.sequence_scores.height, "tokens": part.rows.height})
    if part.table == JUDGEMENTS.name:
        counts["judgements"] = part.rows.height
    return counts
