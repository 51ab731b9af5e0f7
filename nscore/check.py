"""Checking: published scores are computed again from the tokens they are about; where they differ, it is looked for why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import polars as pl

from nscore._files.alternatives import means, of_some_records, of_tokens, pooled, scored, tokens_of
from nscore._files.comparing import (
    AGREES,
    CAUSE,
    CAUSES,
    DETAIL,
    DIFFERENCE,
    SCORE,
    Search,
    compared,
    finished,
    unexplained,
)
from nscore._files.folders import tables_in
from nscore._progress import bar
from nscore._tables.stores import Place
from nscore.errors import SettingError
from nscore.frames import Frame, Source, aligned, reading, source
from nscore.metrics import CATALOGUE
from nscore.records import COVERAGE, SEQUENCE, SIMULATED, default_by

__all__ = ["CAUSES", "Checked", "check"]

PUBLISHED, PUBLISHED_RECORDS = "published_scores", "published_sequence_scores"


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of published scores when they were computed again.

    Attributes:
        scores: one row an explanation and score: the keys, `score`, `published`, `recomputed`, `difference`, `agrees` (null where
            nothing was published), `cause` (null where it agrees), `detail`.
        sequence_scores: the same for each record, with `sequence`; None where no such scores were published.
    """

    scores: pl.DataFrame
    sequence_scores: pl.DataFrame | None

    @property
    def agrees(self) -> bool:
        """Whether every published number was found again."""
        return all(frame.select((~pl.col(AGREES)).any()).item() is not True for _, frame in self._frames())

    def causes(self) -> pl.DataFrame:
        """How many of which table and score differ for which cause: `of`, `score`, `cause`, `detail`, `n`, and the largest `difference`."""
        parts = []
        for of, frame in self._frames():
            groups = frame.filter(~pl.col(AGREES)).group_by(SCORE, CAUSE, DETAIL)
            counted = groups.agg(pl.len().cast(pl.Int64).alias("n"), pl.col(DIFFERENCE).abs().max())
            parts.append(counted.select(pl.lit(of).alias("of"), pl.all()))
        return pl.concat(parts).sort("of", "n", SCORE, CAUSE, DETAIL, descending=[False, True, False, False, False])

    def __str__(self) -> str:
        lines = []
        for of, frame in self._frames():
            n, same, other = frame.height, int(frame[AGREES].sum()), int((~frame[AGREES]).sum())
            lines.append(
                f"{of}: {n:,} scores: {same:,} agree, {other:,} differ, {n - same - other:,} were not published"
            )
        causes = (
            self.causes().group_by("of", CAUSE, maintain_order=True).agg(pl.col("n").sum(), pl.col(DIFFERENCE).max())
        )
        for of, cause, n, most in causes.iter_rows():
            by = "" if most is None else f" (by {most:.3g} at most)"
            lines.append(f"{of}: {n:,} differ{by}: {cause}: {CAUSES[cause]}")
        return "\n".join(lines)

    def _frames(self) -> Iterator[tuple[str, pl.DataFrame]]:
        yield "explanations", self.scores
        if self.sequence_scores is not None:
            yield "records", self.sequence_scores


def check(
    folder: str | Place | None = None,
    *,
    simulated: Frame | None = None,
    published_scores: Frame | None = None,
    published_sequence_scores: Frame | None = None,
    by: Sequence[str] | None = None,
) -> Checked:
    """Computes published scores again from the tokens beside them, and says where they differ and why.

    Two numbers agree where they are within `1e-12 * max(1, |score|)` (of a correlation more, where a column is nearly constant:
    there no arithmetic keeps so many digits), where both are NaN, and where `null` was published for what is no finite number,
    which JSON cannot write. All records are scored, of whichever split.

    Where they differ, the known other ways to compute the score are tried, and the first that gives the published number is the
    `cause`: see `CAUSES`. A number that none of them gives is `unknown`. With few digits published, more than one way may fit;
    then an exact fit goes before a rounded one.

    Args:
        folder: what `nscore import` made of published files: `simulated.parquet`, `published_scores.parquet`, and perhaps
            `published_sequence_scores.parquet`; None where the tables are given.
        simulated: the table instead of that in the folder; so are the others.
        published_scores: the keys of an explanation, and its scores by name.
        published_sequence_scores: the same with `sequence`.
        by: the keys of an explanation; see `nscore.score`.

    Returns:
        A row for each score, and counts by cause.

    Raises:
        SettingError: if a table is missing, or none of its columns is a score that is known.
        TableError: if a table is not valid.

    Examples:
        >>> tokens = pl.DataFrame({"layer": 5, "neuron": 7, "sequence": 0, "activation": [0.0, 0.0, 1.0, 3.0],
        ...                        "predicted": [0.0, 1.0, 2.0, 7.0]})
        >>> told = pl.DataFrame({"layer": 5, "neuron": 7, "ev_correlation_score": [0.9855], "rsquared_score": [-0.8]})
        >>> found = check(simulated=tokens, published_scores=told)
        >>> found.scores.select("score", "agrees", "cause", "detail").rows()
        [('ev_correlation_score', False, 'rounding', 'rounded to 4 decimals'), ('rsquared_score', True, None, None)]
    """
    there = {} if folder is None else tables_in(folder, [SIMULATED.name, PUBLISHED, PUBLISHED_RECORDS])
    given = {SIMULATED.name: simulated, PUBLISHED: published_scores, PUBLISHED_RECORDS: published_sequence_scores}
    there |= {name: source(frame) for name, frame in given.items() if frame is not None}
    for name in (SIMULATED.name, PUBLISHED):
        if name not in there:
            where = "what was given" if folder is None else folder
            raise SettingError(
                f"{where}: there is no {name}: name a folder that `nscore import` made of published simulations"
            )
    tokens = there[SIMULATED.name]
    keys = list(by) if by is not None else default_by(tokens.schema())
    SIMULATED.check(tokens.schema(), tokens.name, keys)
    with reading(tokens), bar("check", "tokens"):
        return _checked(tokens, keys, there[PUBLISHED], there.get(PUBLISHED_RECORDS))


def _checked(tokens: Source, keys: list[str], explanations: Source, records: Source | None) -> Checked:
    record = [*keys, SEQUENCE]
    schema = tokens.schema()
    told = _published(explanations, keys, schema)
    told_records = None if records is None else _published(records, record, schema)
    metrics = _metrics(told, explanations)
    by_record = [] if told_records is None else [m for m in _metrics(told_records, records) if m in metrics]
    sequences = scored(tokens_of(tokens.frame, keys), keys, metrics)
    rows = compared(told, pooled(sequences, keys, metrics), keys, metrics)
    record_rows = None if told_records is None else compared(told_records, sequences, record, by_record)

    search = Search(rows, keys)
    of_records = None if record_rows is None else Search(record_rows, record)
    left = [unexplained(each).select(keys) for each in (rows, record_rows) if each is not None]
    open_ = pl.concat(left).unique()
    if open_.height:
        some = sequences.join(open_, on=keys, how="semi", nulls_equal=True, maintain_order="left")
        for cause, detail, frame in (
            of_tokens(tokens_of(tokens.frame, keys, open_), keys, metrics) if some.height else ()
        ):
            search.take((cause, detail, pooled(frame, keys, metrics)))
            if of_records is not None:
                of_records.take((cause, detail, frame))
            if search.done and (of_records is None or of_records.done):
                break
        ways = [means(some, keys, metrics, "the scores of the records")]
        if told_records is not None:
            mine = told_records.join(open_, on=keys, how="semi", nulls_equal=True)
            ways.append(means(mine, keys, by_record, "the published scores of the records"))
        for way in chain(*ways, of_some_records(some, keys, metrics)):
            if search.done:
                break
            search.take(way)
    return Checked(
        finished(search.result(), keys), None if of_records is None else finished(of_records.result(), record)
    )


def _published(given: Source, names: list[str], schema: pl.Schema) -> pl.DataFrame:
    for name in names:
        if name not in given.schema():
            raise SettingError(f"{given.name}: has no column {name!r}, which tells whose scores they are")
    return given.collect(aligned(given.frame, schema, names))


def _metrics(told: pl.DataFrame, given: Source | None) -> list[str]:
    metrics = [m.name for m in CATALOGUE.values() if m.decomposes and m.name in told.columns and m.name != COVERAGE]
    if not metrics:
        where = "the frame" if given is None else given.name
        raise SettingError(
            f"{where}: none of its columns is a score that merges from moments: {', '.join(told.columns)}"
        )
    return metrics
