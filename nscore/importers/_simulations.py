"""Scored simulations as the field writes them to JSON: the `simulated` table, and the published scores beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec
import polars as pl

from nscore.importers._long import finite, keys_of, long
from nscore.importers._places import SourceFile
from nscore.records import (
    ACTIVATION,
    EXPLANATION,
    EXPLANATION_ID,
    OK,
    PREDICTED,
    PREDICTED_RAW,
    SEQUENCE,
    STATUS,
    TOKEN,
)

__all__ = [
    "MADE",
    "SCORES",
    "Results",
    "S",
    "Scored",
    "ScoredSequence",
    "Sequences",
    "Simulation",
    "WholeSimulation",
    "number",
    "simulation_tables",
]

SCORES = ["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"]
SCALE = "activation_scale"
MADE = ("simulated", "explanations", "published_scores", "published_sequence_scores")

# Some write "nan" in quotes.
Score = float | str | None


class Simulation(msgspec.Struct, gc=False):
    """What was predicted for one sequence, null where the original had NaN; older files call the scale `unit`."""

    tokens: list[str]
    expected_activations: list[float | None]
    activation_scale: str | None = None
    unit: str | None = None
    uncalibrated_simulation: Simulation | None = None


class WholeSimulation(msgspec.Struct, gc=False):
    """The same with the distribution of each token."""

    tokens: list[str]
    expected_activations: list[float | None]
    distribution_values: list[list[float]] = []
    distribution_probabilities: list[list[float]] = []
    activation_scale: str | None = None
    unit: str | None = None
    uncalibrated_simulation: Simulation | None = None


S = TypeVar("S", Simulation, WholeSimulation)


class ScoredSequence(msgspec.Struct, Generic[S], gc=False):
    """One sequence with its scores."""

    true_activations: list[float]
    sequence_simulation: S | None = None
    simulation: S | None = None
    ev_correlation_score: Score = None
    rsquared_score: Score = None
    absolute_dev_explained_score: Score = None


class Sequences(msgspec.Struct, Generic[S]):
    """All sequences of one explanation, with its scores."""

    scored_sequence_simulations: list[ScoredSequence[S]]
    ev_correlation_score: Score = None
    rsquared_score: Score = None
    absolute_dev_explained_score: Score = None


class Scored(msgspec.Struct, Generic[S]):
    """An explanation and how it fared."""

    explanation: str | None = None
    explanation_or_baseline: str | None = None
    scored_simulation: Sequences[S] | None = None


@dataclass(slots=True)
class Results(Generic[S]):
    """The scored explanations of one neuron, checked: every sequence has as many tokens as numbers.

    Args:
        file: where they stand.
        place: where in it.
        layer: the neuron's.
        neuron: which one it is.
        scored: the explanations; `explanation_id` is their place in this list.
        ids: other names for them.
    """

    file: SourceFile
    place: str
    layer: int | str
    neuron: int | str
    scored: Sequence[Scored[S]]
    ids: Sequence[str] = ()
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.ids = self.ids or [str(i) for i in range(len(self.scored))]
        self.rows = sum(self._checked(i, k, sequence) for i, k, sequence in self._sequences())

    def left_out(self, *, distribution: bool) -> Counter[str]:
        """What of it is not in the tables, by reason."""
        left_out: Counter[str] = Counter()
        left_out["explanations without a simulation"] = sum(s.scored_simulation is None for s in self.scored)
        left_out["sequences without tokens"] = sum(not s.true_activations for _, _, s in self._sequences())
        if not distribution:
            left_out["predicted distributions (kept with --distribution)"] = self.rows
        return +left_out

    def sequences(self) -> Iterator[tuple[int, int, S, ScoredSequence[S]]]:
        """The place of each explanation and sequence, what was predicted, and the scores; those that are not empty."""
        for i, k, sequence in self._sequences():
            simulation = sequence.sequence_simulation or sequence.simulation
            if simulation is not None and sequence.true_activations:
                yield i, k, simulation, sequence

    def _sequences(self) -> Iterator[tuple[int, int, ScoredSequence[S]]]:
        for i, each in enumerate(self.scored):
            for k, sequence in enumerate(
                each.scored_simulation.scored_sequence_simulations if each.scored_simulation else ()
            ):
                yield i, k, sequence

    def _checked(self, i: int, k: int, sequence: ScoredSequence[S]) -> int:
        at = f"explanation {i}, sequence {k}"
        place = f"{self.place}, {at}" if self.place else at
        simulation = sequence.sequence_simulation or sequence.simulation
        if simulation is None:
            raise self.file.fault("no sequence_simulation", place=place, mend=_MEND)
        raw = simulation.uncalibrated_simulation
        counts = {
            "tokens": len(simulation.tokens),
            "true_activations": len(sequence.true_activations),
            "expected_activations": len(simulation.expected_activations),
        }
        if raw is not None:
            counts["uncalibrated expected_activations"] = len(raw.expected_activations)
        # simulators that read no logprobs have none
        if isinstance(simulation, WholeSimulation) and simulation.distribution_values:
            counts["distribution_values"] = len(simulation.distribution_values)
            counts["distribution_probabilities"] = len(simulation.distribution_probabilities)
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{n} {what}" for what, n in counts.items())
            raise self.file.fault(f"{found}: expected as many of each", place=place, mend=_MEND)
        return counts["tokens"]


_MEND = "Mend the file, or leave it out (--on-error skip)."


def simulation_tables(results: Sequence[Results[S]], *, distribution: bool) -> dict[str, pl.DataFrame]:
    """`simulated`, `explanations`, `published_scores`, `published_sequence_scores`.

    A predicted number that is not finite is null with the status `parse_error`; a published score stays what it is, NaN too.
    """
    own = [(r, i) for r in results for i in range(len(r.scored))]
    explained = pl.DataFrame(
        keys_of([r.layer for r, _ in own], [r.neuron for r, _ in own])
        | {
            EXPLANATION_ID: pl.Series([r.ids[i] for r, i in own], dtype=pl.String),
            EXPLANATION: pl.Series([_text(r.scored[i]) for r, i in own], dtype=pl.String),
        }
    )
    pooled = [(r, i, whole) for r, i in own if (whole := r.scored[i].scored_simulation) is not None]
    published = pl.DataFrame(
        keys_of([r.layer for r, _, _ in pooled], [r.neuron for r, _, _ in pooled])
        | {EXPLANATION_ID: pl.Series([r.ids[i] for r, i, _ in pooled], dtype=pl.String)}
        | {n: pl.Series([number(getattr(w, n)) for _, _, w in pooled], dtype=pl.Float64) for n in SCORES}
    )
    each = [(r, i, k, simulation, s) for r in results for i, k, simulation, s in r.sequences()]
    index = pl.DataFrame(
        keys_of([r.layer for r, *_ in each], [r.neuron for r, *_ in each])
        | {
            EXPLANATION_ID: pl.Series([r.ids[i] for r, i, *_ in each], dtype=pl.String),
            SEQUENCE: pl.Series([k for _, _, k, _, _ in each], dtype=pl.Int32),
        }
    )
    scores = {n: pl.Series(n, [number(getattr(s, n)) for *_, s in each], dtype=pl.Float64) for n in SCORES}
    scales = pl.Series(SCALE, [m.activation_scale or m.unit for *_, m, _ in each], dtype=pl.String)
    return {
        "simulated": _simulated(index, [(m, s) for *_, m, s in each], distribution=distribution),
        "explanations": explained,
        "published_scores": published,
        "published_sequence_scores": index.with_columns(*scores.values(), scales),
    }


def _simulated(
    index: pl.DataFrame, pairs: Sequence[tuple[S, ScoredSequence[S]]], *, distribution: bool
) -> pl.DataFrame:
    raws = [m.uncalibrated_simulation or m for m, _ in pairs]
    columns = {
        TOKEN: pl.Series([t for m, _ in pairs for t in m.tokens], dtype=pl.String),
        ACTIVATION: finite([v for _, s in pairs for v in s.true_activations]),
        PREDICTED: finite([v for m, _ in pairs for v in m.expected_activations]),
        PREDICTED_RAW: finite([v for m in raws for v in m.expected_activations]),
    }
    if distribution:
        for name in ("distribution_values", "distribution_probabilities"):
            lists = [each for m, _ in pairs for each in getattr(m, name) or [None] * len(m.tokens)]
            columns[name] = pl.Series(lists, dtype=pl.List(pl.Float64))
    known = pl.when(pl.col(PREDICTED).is_not_null()).then(pl.lit(OK)).otherwise(pl.lit("parse_error"))
    return long(index, [len(m.tokens) for m, _ in pairs], columns).with_columns(known.alias(STATUS))


def _text(scored: Scored[S]) -> str:
    return scored.explanation if scored.explanation is not None else scored.explanation_or_baseline or ""


def number(score: Score) -> float | None:
    """A published score: NaN where "nan" stands in quotes, null for any other word."""
    if isinstance(score, str):
        return float("nan") if score.lower() == "nan" else None
    return score
