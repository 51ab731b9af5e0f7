"""Records of dashboards on their way into tables: pieces of files, each a few tens of thousands of tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from nscore.importers._long import finite, keys_of, long
from nscore.importers._protocol import Parsed
from nscore.importers._strata import AT, BINS, RANK
from nscore.records import ACTIVATION, SEQUENCE, SPLIT, STRATUM, TOKEN

__all__ = ["DRAWN", "HISTOGRAM", "TWICE", "Gathered", "Gathering", "records_of"]

PIECE_ROWS = 1 << 16
DRAWN = [STRATUM, RANK, SPLIT, *BINS]
HISTOGRAM = ["histogram_values", "histogram_heights"]
TWICE = "records whose tokens their neuron has twice"


@dataclass(slots=True)
class Gathered:
    """Some records: one row a record, how many tokens each has, and these one after another."""

    index: pl.DataFrame
    lengths: list[int]
    tokens: pl.Series
    activations: pl.Series


@dataclass(slots=True)
class Gathering:
    """Takes records one by one, in the order in which they were placed.

    Args:
        placed: what `Drawn.placed` says of them.
    """

    placed: pl.DataFrame
    _start: int = 0
    _layers: list[str | int] = field(default_factory=list)
    _neurons: list[int] = field(default_factory=list)
    _others: dict[str, list[str | None]] = field(default_factory=dict)
    _lengths: list[int] = field(default_factory=list)
    _tokens: list[str] = field(default_factory=list)
    _values: list[float | None] = field(default_factory=list)
    _wanted: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._wanted = self.placed[AT].to_list()

    def wants(self, at: int) -> bool:
        """Whether the record that stands there is the next of those that are kept."""
        taken = self._start + len(self._lengths)
        return taken < len(self._wanted) and self._wanted[taken] == at

    def add(
        self,
        layer: str | int,
        neuron: int,
        tokens: Sequence[str],
        values: Sequence[float | None],
        others: Mapping[str, str | None],
    ) -> Iterator[Parsed[Any]]:
        """Takes the next record; gives a piece when there is enough for one."""
        self._layers.append(layer)
        self._neurons.append(neuron)
        self._lengths.append(len(tokens))
        self._tokens += tokens
        self._values += values
        for name, value in others.items():
            self._others.setdefault(name, []).append(value)
        if len(self._tokens) >= PIECE_ROWS:
            yield from self.rest()

    def rest(self) -> Iterator[Parsed[Any]]:
        """What is left."""
        n = len(self._lengths)
        if not n:
            return
        drawn = self.placed[self._start : self._start + n]
        index = pl.DataFrame(keys_of(self._layers, self._neurons)).with_columns(
            drawn[SEQUENCE],
            *(drawn[name] for name in DRAWN),
            *(pl.Series(name, values, dtype=pl.String) for name, values in self._others.items()),
        )
        activations = finite(self._values)
        piece = Gathered(index, self._lengths, pl.Series(self._tokens, dtype=pl.String), activations)
        unknown = Counter({"activations that are no finite numbers (now null)": activations.null_count()})
        yield Parsed(len(self._tokens), piece, +unknown)
        self._start += n
        self._layers, self._neurons, self._others, self._lengths = [], [], {}, []
        self._tokens, self._values = [], []


def records_of(pieces: Sequence[Gathered]) -> pl.DataFrame:
    """The `records` table of some pieces."""
    mixed = len({piece.index.dtypes[0] for piece in pieces}) > 1
    layer = pl.col("layer").cast(pl.String) if mixed else pl.col("layer")
    index = pl.concat([piece.index.with_columns(layer) for piece in pieces])
    tokens = {
        TOKEN: pl.concat([piece.tokens for piece in pieces]),
        ACTIVATION: pl.concat([piece.activations for piece in pieces]),
    }
    return long(index, [length for piece in pieces for length in piece.lengths], tokens)
