"""What there is to look at: the scores, with the texts of their explanations, and the tables that they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import polars as pl

from nscore._files.folders import tables_in, texts_of_run
from nscore._tables.stores import StorePath, is_address, is_in_store, place, shown
from nscore.chance import CONTROL
from nscore.errors import TableError, UnknownNameError
from nscore.frames import Frame, Source, aligned, source
from nscore.intervals import high, intervals, low
from nscore.metrics import CATALOGUE, DEFAULT, MetricLike
from nscore.records import (
    COVERAGE,
    EXPLANATION,
    EXPLANATION_ID,
    EXPLANATIONS,
    FAILURES,
    LOW_COVERAGE,
    N_PREDICTED,
    N_SEQUENCES,
    N_TOKENS,
    SCORES,
    SIMULATED,
    SIMULATOR,
)
from nscore.run import Run
from nscore.score import score

__all__ = ["Gathered", "Given", "better_when_higher", "defined", "gather", "quantile"]

Given: TypeAlias = "Frame | Run"

FOLDER = ("simulated", "sequence_scores", "scores", "explanations", "requests")
_BESIDE = {N_SEQUENCES, N_TOKENS, N_PREDICTED, FAILURES, COVERAGE, LOW_COVERAGE, EXPLANATION}


@dataclass(frozen=True, slots=True)
class Gathered:
    """The tables of one scoring.

    Attributes:
        name: what to call it.
        scores: one row an explanation, with its text as `explanation` where that is known: not of a control, which
            was given another neuron's.
        keys: the columns that identify an explanation.
        metric: the score by which explanations are ranked.
        simulated: the tokens; None where there is no such table.
        requests: the calls to the model; None where there is no such table.
    """

    name: str
    scores: pl.DataFrame
    keys: list[str]
    metric: str
    simulated: Source | None = None
    requests: pl.LazyFrame | None = None

    @property
    def neuron(self) -> list[str]:
        """The keys that identify a neuron."""
        return [k for k in self.keys if k not in {SIMULATOR, EXPLANATION_ID}]

    @property
    def higher_is_better(self) -> bool:
        """Whether the best have the highest score."""
        return better_when_higher(self.metric)

    def score_names(self) -> list[str]:
        """The scores, in the order of the table."""
        return _score_names(self.scores, self.keys)

    def main_scores(self) -> list[str]:
        """Those that are not of one stratum alone; all where there are no others."""
        names = self.score_names()
        return [name for name in names if "_only_" not in name] or names

    def simulators(self) -> list[tuple[str | None, pl.DataFrame]]:
        """The scores of each simulator under its name, best median first; all of them where there are no names."""
        if SIMULATOR not in self.keys:
            return [(None, self.scores)]
        parts = [(str(name), part) for (name,), part in self.scores.group_by(SIMULATOR, maintain_order=True)]
        sign = -1 if self.higher_is_better else 1

        def rank(entry: tuple[str | None, pl.DataFrame]) -> tuple[bool, float]:
            median = quantile(entry[1][self.metric], 0.5)
            return (median is None, sign * (median or 0.0))

        return [*sorted(parts, key=rank)]


def better_when_higher(name: str) -> bool:
    """Whether a score of this name is better when it is higher; a stratum's as the score itself."""
    own = name.rpartition("_only_")[2]
    return own not in CATALOGUE or CATALOGUE[own].higher_is_better


def defined(scores: pl.Series) -> pl.Series:
    """The scores that are numbers."""
    return scores.cast(pl.Float64).fill_nan(None).drop_nulls()


def quantile(scores: pl.Series, share: float) -> float | None:
    """A quantile of the scores that are numbers; None where there are none."""
    return defined(scores).quantile(share, "linear")


def gather(
    given: Given,
    *,
    scores: Frame | None = None,
    explanations: Frame | None = None,
    requests: Frame | None = None,
    by: Sequence[str] | None = None,
    metrics: Sequence[MetricLike] | str | None = None,
    splits: Sequence[str] | None = None,
    metric: str | None = None,
) -> Gathered:
    """Finds the tables, and scores the simulated one if that is not done yet.

    Args:
        given: a run, a folder that holds tables under their names, a `simulated` table, or one of `scores`.
        scores: in place of the folder's.
        explanations: in place of the folder's.
        requests: in place of the folder's.
        by: the keys of an explanation, as `score` takes them.
        metrics: as `score` takes them; of a table of scores all that it holds.
        splits: as `score` takes them.
        metric: the score by which explanations are ranked; the first of the original's that is there, if left out.

    Raises:
        TableError: if there is neither `scores` nor `simulated`, or a table is not what it should be.
        UnknownNameError: if there is no such score.
    """
    found, texts, name = _in_folder(given) if isinstance(given, Run) or _is_folder(given) else ({}, None, "")
    if not found and not isinstance(given, Run):
        alone = source(given)
        found = {"scores" if N_SEQUENCES in alone.schema() else "simulated": alone}
        name = _folder_of(alone.files[0]) if alone.files else "a frame"
    told = explanations if explanations is not None else found.get("explanations", texts)
    simulated = found.get("simulated")
    there = scores if scores is not None else found.get("scores")
    if there is not None and metrics is None:
        table = source(there)
        SCORES.check(table.schema(), table.name)
        rows = table.frame.collect()
        if "sequence_scores" in found:
            rows = _with_intervals(rows, found["sequence_scores"])
    elif "sequence_scores" in found and metrics is None and splits is None:
        rows = intervals(found["sequence_scores"], by=by)
    elif simulated is not None:
        rows = score(simulated, by=by, metrics=metrics, splits=splits, explanations=told, intervals="jackknife")
    else:
        raise TableError(
            "no scores",
            name,
            found="neither scores nor a simulated table is there",
            mend="Name a folder that holds scores.parquet or simulated.parquet, or a simulated table.",
        )
    if simulated is not None:
        keys = rows.columns[: rows.columns.index(N_SEQUENCES)]
        SIMULATED.check(simulated.schema(), simulated.name, keys)
    calls = source(requests) if requests is not None else found.get("requests")
    return _gathered_of(
        rows,
        explanations=told,
        metric=metric,
        name=name,
        simulated=simulated,
        requests=None if calls is None else calls.frame,
    )


def _gathered_of(
    scores: pl.DataFrame,
    *,
    explanations: Frame | None = None,
    metric: str | None = None,
    name: str = "",
    simulated: Source | None = None,
    requests: pl.LazyFrame | None = None,
) -> Gathered:
    """A table of scores alone, with the texts of its explanations.

    Raises:
        TableError: if it is none.
        UnknownNameError: if there is no such score.
    """
    SCORES.check(scores.schema, "scores")
    keys = scores.columns[: scores.columns.index(N_SEQUENCES)]
    names = _score_names(scores, keys)
    chosen = metric or next((m for m in (*DEFAULT, *names) if m in names), None)
    if chosen not in names:
        raise UnknownNameError("score", str(metric), names)
    return Gathered(name, _with_texts(scores, keys, explanations), keys, chosen, simulated, requests)


def _with_intervals(scores: pl.DataFrame, sequence_scores: Source) -> pl.DataFrame:
    """The scores with the intervals that cost next to nothing, where there are none and they are those of these records."""
    keys = scores.columns[: scores.columns.index(N_SEQUENCES)]
    names = [c for c in scores.columns if c in CATALOGUE and CATALOGUE[c].decomposes and c != COVERAGE]
    there = {low(name) for name in names} & set(scores.columns)
    if there or not names or not set(keys) <= set(sequence_scores.schema()):
        return scores
    found = intervals(sequence_scores, metrics=names, by=keys)
    same = [*keys, N_SEQUENCES, *names]
    if not found.select(same).equals(scores.select(same)):  # others were scored, or with weights
        return scores
    return scores.hstack(found.select(end(name) for name in names for end in (low, high)))


def _score_names(scores: pl.DataFrame, keys: Sequence[str]) -> list[str]:
    numbers = [c for c, dtype in scores.schema.items() if dtype.is_numeric() and c not in {*keys, *_BESIDE}]
    ends = {end(name) for name in numbers for end in (low, high)}
    return [name for name in numbers if name not in ends]


def _with_texts(scores: pl.DataFrame, keys: Sequence[str], explanations: Frame | None) -> pl.DataFrame:
    if explanations is None or EXPLANATION in scores.columns:
        return scores
    given = source(explanations)
    schema = given.schema()
    on = [k for k in keys if k in schema]
    EXPLANATIONS.check(schema, given.name, on)
    texts = aligned(given.frame.select(*on, pl.col(EXPLANATION).cast(pl.String)), scores.schema, on)
    unique = given.collect(texts.unique(on, keep="first", maintain_order=True))
    told = scores.join(unique, on=on, how="left", nulls_equal=True, maintain_order="left")
    if SIMULATOR in on or SIMULATOR not in keys:
        return told
    # a control was given another neuron's explanation
    name = pl.col(SIMULATOR).cast(pl.String)
    control = (name == CONTROL) | name.str.starts_with(f"{CONTROL}_")
    return told.with_columns(pl.when(~control).then(EXPLANATION).alias(EXPLANATION))


def _is_folder(given: Given) -> bool:
    if not isinstance(given, str | Path | StorePath) or (is_address(given) and not is_in_store(given)):
        return False
    path = place(given)
    return path.is_dir() and any((path / f"{name}.parquet").exists() for name in FOLDER)


def _folder_of(file: str) -> str:
    path = shown(file)
    return path.split("/")[-2] if is_address(path) else Path(path).resolve().parent.name


def _in_folder(given: Given) -> tuple[dict[str, Source], pl.DataFrame | None, str]:
    path = given.path if isinstance(given, Run) else place(str(given))
    found = tables_in(path, FOLDER)
    texts = None if "explanations" in found else texts_of_run(path)
    return found, texts, path.name if isinstance(path, StorePath) else path.resolve().name
