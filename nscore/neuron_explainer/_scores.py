"""The three scores of two lists of numbers, by nscore's expressions."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nscore.errors import TableError
from nscore.metrics import absolute_dev_explained_score, ev_correlation_score, rsquared_score
from nscore.neuron_explainer.explanations.explanations import (
    ScoredSequenceSimulation,
    ScoredSimulation,
    SequenceSimulation,
)
from nscore.records import ACTIVATION, NOT_RUN, PREDICTED

__all__ = ["Numbers", "aggregated", "scored", "scores"]

Numbers = Sequence[float] | npt.NDArray[Any]
Scores = tuple[float | None, float | None, float | None]


def scores(real: Numbers, predicted: Numbers, *, predicted_only: bool = False) -> Scores:
    """Correlation, R^2 about zero and absolute deviation explained; None over no token.

    Args:
        real: the true activations.
        predicted: as many predictions.
        predicted_only: whether tokens whose prediction is NaN take no part; else one makes NaN, and 0.0 for the
            correlation, as in numpy.

    Raises:
        TableError: if there are more of one than of the other.
    """
    t, p = (pl.Series(name, _floats(x)) for name, x in ((ACTIVATION, real), (PREDICTED, predicted)))
    if len(t) != len(p):
        raise TableError(
            "lengths differ",
            "the activations",
            found=f"{len(t)} true and {len(p)} predicted",
            mend="Expected one prediction for each token.",
        )
    frame = pl.DataFrame([t, p.fill_nan(None) if predicted_only else p])
    made = frame.select(ev_correlation_score(), rsquared_score(), absolute_dev_explained_score())
    return made.row(0)


def scored(simulation: SequenceSimulation, true_activations: list[float]) -> ScoredSequenceSimulation:
    """A simulation with the scores of its tokens; NaN where none was predicted."""
    correlation, *others = scores(true_activations, simulation.expected_activations, predicted_only=True)
    if correlation is None:  # of no tokens at all numpy's correlation is NaN, which is 0; of some, nobody knows
        correlation = math.nan if len(true_activations) else 0.0
    rsquared, absolute = (math.nan if s is None else s for s in others)
    return ScoredSequenceSimulation(simulation, true_activations, correlation, rsquared, absolute)


def aggregated(scored_sequence_simulations: list[ScoredSequenceSimulation]) -> ScoredSimulation:
    """The scores over all tokens of all simulations; warns where some have no prediction."""
    real: list[float] = []
    predicted: list[float] = []
    failures: Counter[str] = Counter()
    for each in scored_sequence_simulations:
        simulation = each.sequence_simulation
        real.extend(() if each.true_activations is None else each.true_activations)
        predicted.extend(simulation.expected_activations)
        status = simulation.status or [NOT_RUN] * len(simulation.expected_activations)
        failures.update(s for s, x in zip(status, simulation.expected_activations, strict=True) if math.isnan(x))
    if failures:
        counts = ", ".join(f"{n} {status}" for status, n in sorted(failures.items()))
        warnings.warn(
            f"{failures.total()} of {len(predicted)} tokens have no prediction ({counts}); the scores tell of the others",
            stacklevel=3,
        )
    correlation, rsquared, absolute = scores(real, predicted, predicted_only=True)
    return ScoredSimulation(
        scored_sequence_simulations,
        correlation,
        math.nan if rsquared is None else rsquared,
        math.nan if absolute is None else absolute,
    )


def _floats(values: Numbers) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise TableError(
            "not one number a token",
            "the activations",
            found=f"an array of the shape {array.shape}",
            mend="Flatten it.",
        )
    return array
