"""`constant`: the same prediction everywhere, the least that any other simulator must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from nscore.records import OK, PREDICTED, STATUS
from nscore.simulators._protocol import simulator

__all__ = ["Constant"]


@simulator("constant")
@dataclass(frozen=True, slots=True)
class Constant:
    """Predicts one value for every token.

    After a linear calibration that is the neuron's mean on the calibration split: the best constant. Its
    `ev_correlation_score` is 0 by definition; what it scores on the others is what knowing nothing is worth.

    Args:
        value: the prediction, on the scale 0 to 10.
    """

    value: float = 1.0

    @property
    def name(self) -> str:
        """`constant`."""
        return "constant"

    def simulate(self, pairs: pl.LazyFrame, *, keys: Sequence[str], train: pl.LazyFrame | None) -> pl.LazyFrame:
        """See `Simulator.simulate`."""
        del keys, train
        return pairs.with_columns(pl.lit(float(self.value)).alias(PREDICTED), pl.lit(OK).alias(STATUS))
