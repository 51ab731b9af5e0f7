"""The neurons that are shown in full: which they are, and what there is to draw of each, read in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from nscore._drawing.colours import Limit
from nscore._drawing.heat import Record, Scales
from nscore._drawing.numbers import short
from nscore._drawing.plots import Bin
from nscore._progress import bar
from nscore._showing.gathered import Gathered, defined
from nscore._tables.texts import check_texts
from nscore.errors import TableError
from nscore.intervals import high, low
from nscore.metrics import CATALOGUE
from nscore.records import (
    ACTIVATION,
    EXPLANATION,
    N_SEQUENCES,
    N_TOKENS,
    POSITION,
    PREDICTED,
    PREDICTED_RAW,
    SEQUENCE,
    SPLIT,
    STATUS,
    STRATUM,
    TOKEN,
    scored_splits,
)
from nscore.score import score_sequences

__all__ = ["Shown", "Why", "choose", "named", "shown"]

Why = Literal["named", "best", "worst", "random"]
BINS = 12
# Predictions so much larger than what is true are on a scale of their own, such as 0 to 10 before calibration.
BEYOND = 1.5
QUIET = 0.2


@dataclass(frozen=True, slots=True)
class Shown:
    """An explanation of a neuron, with the records that are drawn.

    Attributes:
        keys: what identifies it.
        why: why it was chosen; None where that is of no interest.
        explanation: its text; None where it is not known.
        scores: every score of it.
        intervals: the columns of their intervals' ends, where the table has them.
        counts: records and tokens that were scored.
        worst: records with the worst scores, the worst first. Quiet ones, in which neither what is true nor what was
            predicted comes up to a fifth of its strongest, are left aside where there are enough others.
        best: records with the best scores, the best first; none that is among the worst.
        scales: what the strongest colours mean.
        bins: predicted against true, over all its tokens.
    """

    keys: dict[str, Any]
    why: Why | None
    explanation: str | None
    scores: dict[str, float | None]
    intervals: dict[str, float | None]
    counts: dict[str, int]
    worst: tuple[Record, ...]
    best: tuple[Record, ...]
    scales: Scales
    bins: tuple[Bin, ...]

    @property
    def name(self) -> str:
        """Its keys in a line."""
        return "/".join(str(v) for v in self.keys.values())


def choose(gathered: Gathered, n: int, names: Sequence[str] = (), seed: int = 0) -> pl.DataFrame:
    """The keys of neurons to show and `why`: those named, then of n in all the best, the worst, some at random.

    A neuron is ranked by the leading simulator: the one whose median is best.
    """
    neuron = gathered.neuron
    parts = [named(gathered, names).with_columns(why=pl.lit("named"))] if names else []
    leading = gathered.simulators()[0][1]
    sign = 1 if gathered.higher_is_better else -1
    value = (pl.col(gathered.metric).cast(pl.Float64).fill_nan(None) * sign).max()
    ranked = leading.group_by(neuron, maintain_order=True).agg(value.alias("__score")).sort("__score", descending=True)
    known = ranked.drop_nulls("__score")
    third = -(-n // 3)
    parts.append(known.head(third).with_columns(why=pl.lit("best")))
    parts.append(known.tail(third).reverse().with_columns(why=pl.lit("worst")))
    every = gathered.scores.select(neuron).unique(maintain_order=True)
    parts.append(every.sample(min(n, every.height), seed=seed, shuffle=True).with_columns(why=pl.lit("random")))
    chosen = pl.concat([p.select(*neuron, "why") for p in parts]).unique(neuron, keep="first", maintain_order=True)
    return chosen.head(max(n, parts[0].height if names else 0))


def named(gathered: Gathered, names: Sequence[str]) -> pl.DataFrame:
    """The keys of neurons by name, their values with slashes between them, as `0/134`.

    Raises:
        TableError: if there is none of such a name.
    """
    neuron = gathered.neuron
    spelled = pl.concat_str([pl.col(k).cast(pl.String) for k in neuron], separator="/")
    known = gathered.scores.select(*neuron, spelled.alias("__name")).unique("__name", maintain_order=True)
    asked = pl.DataFrame({"__name": list(names)}, schema={"__name": pl.String})
    for name in asked.join(known, on="__name", how="anti")["__name"]:
        some = ", ".join(map(str, known["__name"].head(3)))
        raise TableError(
            "no such neuron",
            gathered.name,
            found=f"found no scores of {name!r}",
            mend=f"Name it by {'/'.join(neuron)}, as the table of scores has it, such as {some}.",
        )
    return asked.join(known, on="__name", how="left", maintain_order="left").select(neuron)


def shown(
    gathered: Gathered,
    chosen: pl.DataFrame,
    *,
    records: int,
    tokens: int,
    splits: Sequence[str] | None = None,
) -> Iterator[Shown]:
    """What there is to draw of each explanation of the chosen neurons, in their order; nothing without tokens."""
    if gathered.simulated is None:
        return
    rows = _tokens_of(gathered, chosen, splits)
    if not rows.height:
        return
    ranking = gathered.metric.rpartition("_only_")[2]
    ranking = ranking if ranking in CATALOGUE else next(iter(CATALOGUE))
    keys = gathered.keys
    scored = score_sequences(rows, by=keys, metrics=[ranking], splits=splits, leaks="allow")
    sign = 1 if CATALOGUE[ranking].higher_is_better else -1
    scored = scored.with_columns((pl.col(ranking).fill_nan(None) * sign).alias("__rank"))
    of_records = dict(scored.group_by(keys, maintain_order=True))
    of_tokens = dict(rows.group_by(keys, maintain_order=True))
    here = chosen.join(gathered.scores, on=gathered.neuron, how="inner", nulls_equal=True, maintain_order="left_right")
    for row in here.iter_rows(named=True):
        key = tuple(row[k] for k in keys)
        if key in of_tokens and key in of_records:
            yield _one(gathered, row, of_records[key], of_tokens[key], ranking, records, tokens)


def _tokens_of(gathered: Gathered, chosen: pl.DataFrame, splits: Sequence[str] | None) -> pl.DataFrame:
    given = gathered.simulated
    assert given is not None  # noqa: S101  (the caller has looked)
    schema, neuron = given.schema(), gathered.neuron
    wanted = [*gathered.keys, SEQUENCE, POSITION, TOKEN, ACTIVATION, PREDICTED, PREDICTED_RAW, STATUS, SPLIT, STRATUM]
    columns = [c for c in wanted if c in schema]
    check_texts(given, [c for c in columns if c != TOKEN])
    kept = scored_splits(schema, splits)
    frame = given.frame.select(columns)
    # a filter column by column reaches the reader, which then skips the texts of what is not wanted; a join does not
    for key in neuron:
        frame = frame.filter(pl.col(key).is_in(chosen[key].cast(schema[key]).unique().implode()))
    if kept is not None:
        frame = frame.filter(pl.col(SPLIT).cast(pl.String).is_in(kept))
    few = chosen.lazy().select(pl.col(k).cast(schema[k]) for k in neuron)
    with bar("reading records", "tokens"):
        rows = given.collect(frame.join(few, on=neuron, how="semi", nulls_equal=True))
    order = [*gathered.keys, SEQUENCE, *([POSITION] if POSITION in schema else [])]
    rows = rows.with_columns(pl.col(k).cast(gathered.scores.schema[k]) for k in gathered.keys)
    return rows.sort(order, maintain_order=True)


def _one(  # noqa: PLR0917  (in the order in which they are made)
    gathered: Gathered,
    row: dict[str, Any],
    of_records: pl.DataFrame,
    rows: pl.DataFrame,
    ranking: str,
    records: int,
    tokens: int,
) -> Shown:
    scales = _scales(rows, calibrated=PREDICTED_RAW in rows.columns)
    # an undefined score is neither among the best nor among the worst, unless there are no others
    ordered = of_records.join(_loud(rows, scales), on=SEQUENCE, how="left").sort("__rank", SEQUENCE, nulls_last=True)
    defined_ = ordered.drop_nulls("__rank")
    loud = defined_.filter("__loud")
    known = next((part for part in (loud, defined_) if part.height >= 2 * records), defined_)
    known = known if known.height else ordered
    n_worst = min(records, -(-known.height // 2))
    worst, best = known.head(n_worst), known.slice(max(n_worst, known.height - records)).reverse()
    wanted = pl.concat([worst, best])[SEQUENCE]
    parts = {s: part for (s,), part in rows.filter(pl.col(SEQUENCE).is_in(wanted.implode())).group_by(SEQUENCE)}
    return Shown(
        keys={k: row[k] for k in gathered.keys},
        why=row["why"],
        explanation=row.get(EXPLANATION),
        scores={name: row[name] for name in gathered.score_names()},
        intervals={end: row[end] for name in gathered.score_names() for end in (low(name), high(name)) if end in row},
        counts={N_SEQUENCES: row[N_SEQUENCES], N_TOKENS: row[N_TOKENS]},
        worst=tuple(_record(r, parts[r[SEQUENCE]], ranking, tokens) for r in worst.iter_rows(named=True)),
        best=tuple(_record(r, parts[r[SEQUENCE]], ranking, tokens) for r in best.iter_rows(named=True)),
        scales=scales,
        bins=tuple(_bins(rows)),
    )


def _scales(rows: pl.DataFrame, *, calibrated: bool) -> Scales:
    true, predicted = (float(defined(rows[c]).abs().max() or 0.0) for c in (ACTIVATION, PREDICTED))  # type: ignore[arg-type]
    if not calibrated and predicted > BEYOND * true:
        return Scales(Limit(true), Limit(predicted))
    return Scales(Limit(max(true, predicted)), Limit(max(true, predicted)))


def _loud(rows: pl.DataFrame, scales: Scales) -> pl.DataFrame:
    """Of each record whether anything happens in it."""
    ends = (ACTIVATION, scales.activation.value), (PREDICTED, scales.predicted.value)
    parts = [pl.col(c).cast(pl.Float64).abs().max().fill_null(0) >= end * QUIET for c, end in ends]
    return rows.group_by(SEQUENCE).agg(pl.any_horizontal(parts).alias("__loud"))


def _record(record: dict[str, Any], rows: pl.DataFrame, ranking: str, tokens: int) -> Record:
    first = 0
    if rows.height > tokens:
        peak = rows[ACTIVATION].arg_max() or 0
        first = max(0, min(peak - tokens // 2, rows.height - tokens))
    part = rows.slice(first, tokens)
    marks = [str(part[c][0]) for c in (SPLIT, STRATUM) if c in part.columns and part[c][0] is not None]
    name = ", ".join([f"record {record[SEQUENCE]}", *marks, f"{ranking} {short(record[ranking])}"])
    return Record(
        name=name,
        tokens=(part[TOKEN].cast(pl.String).fill_null("") if TOKEN in part.columns else _places(first, part)).to_list(),
        activation=part[ACTIVATION].cast(pl.Float64).to_list(),
        predicted=part[PREDICTED].cast(pl.Float64).to_list(),
        status=part[STATUS].cast(pl.String).to_list() if STATUS in part.columns else [None] * part.height,
        first=first,
        length=rows.height,
    )


def _places(first: int, part: pl.DataFrame) -> pl.Series:
    return pl.Series([f"{first + i} " for i in range(part.height)])


def _bins(rows: pl.DataFrame) -> Iterator[Bin]:
    """Tokens in bins of equal width, by what was predicted; an empty bin is none."""
    both = rows.select(pl.col(ACTIVATION, PREDICTED).cast(pl.Float64)).drop_nulls()
    if not both.height:
        return
    t, p = both.sort(PREDICTED).to_numpy().T
    edges = np.unique(np.linspace(p[0], p[-1], BINS + 1)[1:-1])
    place = np.searchsorted(edges, p, side="right")
    for k in np.unique(place):
        here = t[place == k]
        low, high = np.quantile(here, (0.25, 0.75)).tolist()
        yield Bin(len(here), float(p[place == k].mean()), float(here.mean()), low, high)
