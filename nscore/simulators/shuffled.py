"""`shuffled`: the control that gives each neuron another neuron's explanation; what remains of a score is chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from nscore.errors import SimulatorError, TableError
from nscore.records import EXPLANATION, EXPLANATION_ID
from nscore.simulators._prompted import PromptSimulator
from nscore.simulators._protocol import Simulator, simulator
from nscore.simulators.lexical import Lexical

__all__ = ["Shuffled"]


@simulator("shuffled")
@dataclass(frozen=True, slots=True)
class Shuffled:
    """Simulates each neuron's records from another neuron's explanation, with any simulator.

    To the inner simulator the records look as if they were the other neuron's: one that learns from the train
    split (`token_lookup`) learns from the other neuron's. No neuron gets its own; each explanation is given once.

    Args:
        inner: the simulator that is controlled; `lexical` if left out, and then the name is `shuffled`, else
            `shuffled_` and the name of the inner one.
        seed: draws the other neurons; the same seed and neurons draw the same.
    """

    inner: Simulator | PromptSimulator = field(default_factory=Lexical)
    seed: int = 0

    @property
    def name(self) -> str:
        """`shuffled`, or `shuffled_` and the name of the inner simulator."""
        return "shuffled" if self.inner == Lexical() else f"shuffled_{self.inner.name}"

    def simulate(self, pairs: pl.LazyFrame, *, keys: Sequence[str], train: pl.LazyFrame | None) -> pl.LazyFrame:
        """See `Simulator.simulate`.

        Raises:
            SimulatorError: if the inner simulator asks a model.
            TableError: if a neuron has more than half of all explanations, so that others do not suffice.
        """
        self._by_itself()
        own = [*keys, EXPLANATION_ID]
        drawn = self.drawn(pairs.select(*own, EXPLANATION).unique().collect(), keys)
        return self.simulate_drawn(pairs, drawn, keys=keys, train=train)

    def simulate_drawn(
        self, pairs: pl.LazyFrame, drawn: pl.DataFrame, *, keys: Sequence[str], train: pl.LazyFrame | None
    ) -> pl.LazyFrame:
        """As `simulate`, for some of the pairs, where `drawn` was drawn for all of them."""
        inner = self._by_itself()
        columns = pairs.collect_schema().names()
        own = [*keys, EXPLANATION_ID]
        swapped = (
            pairs.drop(EXPLANATION)
            .join(drawn.lazy(), on=own, how="left", nulls_equal=True, maintain_order="left")
            .rename({c: f"__own_{c}" for c in own})
            .rename({f"__other_{c}": c for c in [*own, EXPLANATION]})
        )
        result = inner.simulate(swapped, keys=keys, train=train)
        added = [c for c in result.collect_schema().names() if c not in swapped.collect_schema().names()]
        return result.drop(own).rename({f"__own_{c}": c for c in own}).select(*columns, *added)

    def _by_itself(self) -> Simulator:
        if not isinstance(self.inner, Simulator):
            raise SimulatorError(f"{self.name} asks a model: it needs a backend")
        return self.inner

    def swapped(self, explanations: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        """A table of explanations in which each neuron's texts are another's."""
        own = [*keys, EXPLANATION_ID]
        return self.drawn(explanations.select(*own, EXPLANATION), keys).select(
            *own, pl.col(f"__other_{EXPLANATION}").alias(EXPLANATION)
        )

    def drawn(self, explanations: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        """For each explanation's keys, another neuron's explanation: its keys and its text, as `__other_...`."""
        own = [*keys, EXPLANATION_ID]
        neurons = explanations.select(keys).unique().sort(keys).sample(fraction=1, shuffle=True, seed=self.seed)
        ordered = (
            neurons.with_row_index("__turn")
            .join(explanations, on=keys, nulls_equal=True)
            .sort("__turn", EXPLANATION_ID)
        )
        most = int(ordered["__turn"].unique_counts().max() or 0)  # type: ignore[arg-type]
        if 2 * most > ordered.height:
            raise TableError(
                "too few neurons",
                "explanations",
                found=f"one neuron has {most} of {ordered.height} explanations",
                mend="The control gives each neuron another's explanation: it needs at least two neurons.",
            )
        # A step of the largest group's size leaves every group, and wraps round short of it.
        order = [(i + most) % ordered.height for i in range(ordered.height)]
        other = ordered.select(*own, EXPLANATION)[order].select(pl.all().name.prefix("__other_"))
        return ordered.select(own).hstack(other)
