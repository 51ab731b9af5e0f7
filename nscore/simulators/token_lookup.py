"""`token_lookup`: the mean activation of the token over the train split, the paper's baseline without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from nscore.errors import TableError
from nscore.records import ACTIVATION, NOT_RUN, OK, PREDICTED, SPLIT, STATUS, TOKEN
from nscore.simulators._protocol import simulator

__all__ = ["TokenLookup"]


@simulator("token_lookup")
@dataclass(frozen=True, slots=True)
class TokenLookup:
    """Predicts for a token its mean activation over the neuron's train records; it reads no explanation.

    A token that the train records lack gets the neuron's mean over them. Predictions are in the neuron's units. A
    neuron without train records is `not_run`, null.

    Source: the token lookup table baseline of Bills et al. 2023, "Language models can explain neurons in language
    models".
    """

    @property
    def name(self) -> str:
        """`token_lookup`."""
        return "token_lookup"

    def simulate(self, pairs: pl.LazyFrame, *, keys: Sequence[str], train: pl.LazyFrame | None) -> pl.LazyFrame:
        """See `Simulator.simulate`.

        Raises:
            TableError: if the records have no train split to look the tokens up in.
        """
        if train is None:
            raise TableError(
                "missing column",
                "records",
                column=SPLIT,
                found="token_lookup learns from the train split, and the records have no splits",
                mend="Assign splits first: nscore.assign_splits.",
            )
        mean = pl.col(ACTIVATION).cast(pl.Float64).mean()
        by_token = train.group_by([*keys, TOKEN]).agg(mean.alias("__token_mean"))
        by_neuron = train.group_by(keys).agg(mean.alias("__neuron_mean"))
        return (
            pairs.join(by_token, on=[*keys, TOKEN], how="left", nulls_equal=True, maintain_order="left")
            .join(by_neuron, on=keys, how="left", nulls_equal=True, maintain_order="left")
            .with_columns(pl.coalesce("__token_mean", "__neuron_mean").alias(PREDICTED))
            .with_columns(
                pl.when(pl.col(PREDICTED).is_null()).then(pl.lit(NOT_RUN)).otherwise(pl.lit(OK)).alias(STATUS)
            )
            .drop("__token_mean", "__neuron_mean")
        )
