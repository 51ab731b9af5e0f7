"""The tokens of whole explanations as the lists that JSON wants, record by record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import polars as pl

from nscore.exporters._protocol import Part
from nscore.records import (
    ACTIVATION,
    DISTRIBUTION,
    EXPLANATION,
    EXPLANATION_ID,
    LAYER,
    N_TOKENS,
    NEURON,
    PREDICTED,
    PREDICTED_RAW,
    STRATUM,
    TOKEN,
)

__all__ = ["SCALE", "SCORES", "Explained", "Record", "explained", "in_order", "number", "whole_number"]

SCORES = ("ev_correlation_score", "rsquared_score", "absolute_dev_explained_score")
SCALE = "activation_scale"
VALUES, PROBABILITIES = "distribution_values", "distribution_probabilities"


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was simulated; each list has a place for each token.

    Attributes:
        tokens: their texts.
        activations: what is true.
        predicted: what was predicted.
        raw: what was predicted before calibration; None where it was not calibrated.
        values, probabilities: the distribution that `predicted` is the mean of, where it is known.
        raw_probabilities: that of `raw`, over 0, 1, 2, ..., where it is known.
        scores: by name.
        scale: the unit of `predicted`, where somebody said it.
        stratum: how it was drawn.
    """

    tokens: list[str]
    activations: list[float]
    predicted: list[float]
    raw: list[float] | None
    values: list[list[float] | None] | None
    probabilities: list[list[float] | None] | None
    raw_probabilities: list[list[float] | None] | None
    scores: dict[str, float | None]
    scale: str | None
    stratum: str | None


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation, its records, and its scores by name: over all records and, as `{stratum}_only_{score}`, over some."""

    layer: int | str
    neuron: int | str
    explanation_id: object
    explanation: str | None
    records: list[Record]
    scores: dict[str, Any]


def explained(part: Part) -> Iterator[list[Explained]]:
    """The explanations of each neuron of a part of `simulated`, in their order."""
    assert part.sequence_scores is not None  # noqa: S101  (a part of `simulated` has both)
    assert part.scores is not None  # noqa: S101
    texts = _texts(part)
    columns = _Columns.of(part.rows)
    counts = part.sequence_scores[N_TOKENS].to_list()
    rows = part.sequence_scores.iter_rows(named=True)
    begin = 0
    found = []
    each = groupby(zip(rows, counts, strict=True), key=lambda pair: tuple(pair[0][k] for k in part.keys))
    for (key, sequences), pooled in zip(each, part.scores.iter_rows(named=True), strict=True):
        stops = [(row, begin := begin + n, n) for row, n in sequences]
        first, last = stops[0][1] - stops[0][2], stops[-1][1]
        calibrated = columns.raw is not None and columns.raw[first:last] != columns.predicted[first:last]
        records = [columns.record(row, stop - n, stop, calibrated=calibrated) for row, stop, n in stops]
        named = dict(zip(part.keys, key, strict=True))
        one = Explained(named[LAYER], named[NEURON], named.get(EXPLANATION_ID), texts.get(key), records, pooled)
        found.append(one)
    for _, group in groupby(found, key=lambda one: (one.layer, one.neuron)):
        yield in_order(list(group))


def in_order(found: list[Explained]) -> list[Explained]:
    """Explanations by their ids, numbers among these as numbers: 2 comes before 10."""
    ids = [str(one.explanation_id) for one in found]
    if all(i.isascii() and i.isdigit() for i in ids):
        return [one for _, one in sorted(zip(map(int, ids), found, strict=True), key=lambda pair: pair[0])]
    return found


def whole_number(key: int | str) -> int | str:
    """A key that is spelled as a whole number, as that number; another as it is."""
    if isinstance(key, str) and key.isascii() and key.isdigit() and str(int(key[:30])) == key:
        return int(key)
    return key


def number(score: float | None) -> float | None:
    """A score as JSON has it: what is no finite number is null."""
    return score if score is None or math.isfinite(score) else None


@dataclass(frozen=True, slots=True)
class _Columns:
    tokens: list[str]
    activations: list[float]
    predicted: list[float]
    raw: list[float | None] | None
    values: list[list[float] | None] | None
    probabilities: list[list[float] | None] | None
    raw_probabilities: list[list[float] | None] | None

    @classmethod
    def of(cls, rows: pl.DataFrame) -> _Columns:
        def numbers(name: str) -> list[Any]:
            return rows[name].cast(pl.Float64).to_list()

        def lists(name: str) -> list[Any] | None:
            return rows[name].to_list() if name in rows.columns and rows[name].dtype == pl.List else None

        return cls(
            rows[TOKEN].cast(pl.String).to_list(),
            numbers(ACTIVATION),
            numbers(PREDICTED),
            numbers(PREDICTED_RAW) if PREDICTED_RAW in rows.columns else None,
            lists(VALUES),
            lists(PROBABILITIES),
            lists(DISTRIBUTION),
        )

    def record(self, row: dict[str, Any], start: int, stop: int, *, calibrated: bool) -> Record:
        def part(values: Sequence[Any] | None) -> list[Any] | None:
            return None if values is None else list(values[start:stop])

        raw = part(self.raw) if calibrated else None
        return Record(
            self.tokens[start:stop],
            self.activations[start:stop],
            self.predicted[start:stop],
            None if raw is None or None in raw else raw,
            part(self.values),
            part(self.probabilities),
            part(self.raw_probabilities),
            {name: row[name] for name in SCORES},
            row.get(SCALE),
            row.get(STRATUM),
        )


def _texts(part: Part) -> dict[tuple[object, ...], str | None]:
    if part.explanations is None:
        return {}
    keys = part.explanations.select(part.keys).rows()
    return dict(zip(keys, part.explanations[EXPLANATION].to_list(), strict=True))
