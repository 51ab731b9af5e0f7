"""Which windows of a cache of latents become records: the highest of each latent, some of each quantile, some where it is silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Drawing", "Drawn", "Fired", "draw", "firsts"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

TOP, RANDOM = "top", "random"


@dataclass(frozen=True, slots=True)
class Drawing:
    """How windows are drawn: how long they are, how many of each kind, and the seed."""

    context: int
    top: int
    random: int
    quantiles: int
    per_quantile: int
    seed: int

    @property
    def strata(self) -> list[str]:
        """The names of the strata, by their codes."""
        return [TOP, RANDOM, *(f"quantile_{i}" for i in range(self.quantiles))]

    @property
    def most(self) -> int:
        """How many tokens a latent has at most."""
        return (self.top + self.random + self.quantiles * self.per_quantile) * self.context


@dataclass(frozen=True, slots=True)
class Fired:
    """The activations of some latents, sorted by latent, row and position.

    Args:
        latents: of which latent each is.
        at: at which token of the whole text, its rows one after another.
        values: how strong each is.
        shape: rows of the text, tokens of a row.
    """

    latents: Ints
    at: Ints
    values: Floats
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Windows that become records, those of a latent one after another.

    Attributes:
        latents: of which latent each is.
        strata: its stratum, as a place in `Drawing.strata`.
        ranks: its place in the stratum.
        begins: at which token of the whole text it begins.
        lengths: how many tokens it has.
        activations: of all their tokens, one after another.
        not_drawn: in how many windows a latent fires that were not drawn.
    """

    latents: Ints
    strata: npt.NDArray[np.int16]
    ranks: npt.NDArray[np.int32]
    begins: Ints
    lengths: Ints
    activations: Floats
    not_drawn: int

    def places(self) -> Ints:
        """Where each token of the windows stands in the whole text."""
        return np.repeat(self.begins, self.lengths) + _ramps(self.lengths)


def draw(fired: Fired, drawing: Drawing) -> Drawn:
    """Cuts each row into windows, the last one of it as short as it comes out, and draws for each latent."""
    rows, width = fired.shape
    per_row = -(-width // drawing.context)
    window = fired.at // width * per_row + fired.at % width // drawing.context
    starts = firsts(fired.latents, window)
    of, window = fired.latents[starts], window[starts]
    # what is no number ranks last
    highest = np.fmax.reduceat(fired.values, starts) if len(starts) else np.zeros(0, dtype=np.float32)
    highest = np.where(np.isnan(highest), -np.inf, highest)
    first = firsts(of)
    picked = [
        _picked(int(of[a]), a, highest[a:b], window[a:b], n_windows=rows * per_row, drawing=drawing)
        for a, b in zip(first.tolist(), [*first[1:].tolist(), len(of)], strict=False)
    ]
    if not picked:
        none = np.zeros(0, dtype=np.int64)
        strata, ranks = none.astype(np.int16), none.astype(np.int32)
        return Drawn(none, strata, ranks, none, none, np.zeros(0, dtype=np.float32), 0)
    sources, windows, strata, ranks = (np.concatenate(parts) for parts in zip(*picked, strict=True))
    begins = windows // per_row * width + windows % per_row * drawing.context
    lengths = np.minimum(drawing.context, width - begins % width)
    latents = np.repeat(of[first], [len(part[0]) for part in picked])
    activations = _activations(fired, sources, np.append(starts, len(fired.at)), begins, lengths)
    return Drawn(latents, strata, ranks, begins, lengths, activations, len(of) - int((sources >= 0).sum()))


def firsts(*columns: npt.NDArray[Any]) -> Ints:
    """Where each run of equal rows begins."""
    new = np.zeros(len(columns[0]), dtype=bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(new)


_Picked = tuple[Ints, Ints, npt.NDArray[np.int16], npt.NDArray[np.int32]]


def _picked(latent: int, start: int, highest: Floats, fires_in: Ints, *, n_windows: int, drawing: Drawing) -> _Picked:
    """Of one latent: the places of its windows in the list of those that fire (-1: it does not), windows, strata, ranks.

    Args:
        latent: which one; what is drawn for it depends on its number and the seed alone, not on what else is in the file.
        start: where the windows in which it fires begin in the list of all.
        highest: the highest activation in each of them.
        fires_in: which windows they are, in the order of the text.
        n_windows: how many there are in all.
        drawing: how they are drawn.
    """
    random = np.random.default_rng([drawing.seed, latent])
    # of windows that are equally high the first in the text comes first
    order = np.argsort(-highest, kind="stable")
    parts = [order[: drawing.top]]
    rest = order[drawing.top :]
    size = len(rest) // drawing.quantiles if drawing.quantiles else 0
    for i in range(drawing.quantiles):
        chosen = random.choice(size, min(drawing.per_quantile, size), replace=False)
        parts.append(rest[i * size : (i + 1) * size][chosen])
    n_free = n_windows - len(fires_in)
    free = random.choice(n_free, min(drawing.random, n_free), replace=False)
    # before the i-th window in which it fires there are fires_in[i] - i in which it does not
    silent = free + np.searchsorted(fires_in - np.arange(len(fires_in)), free, side="right")
    codes = [0, *range(2, 2 + drawing.quantiles), 1]
    counts = [*map(len, parts), len(silent)]
    return (
        np.concatenate([*(start + part for part in parts), np.full(len(silent), -1, dtype=np.int64)]),
        np.concatenate([*(fires_in[part] for part in parts), silent]),
        np.repeat(np.array(codes, dtype=np.int16), counts),
        _ramps(np.array(counts, dtype=np.int64)).astype(np.int32),
    )


def _activations(fired: Fired, sources: Ints, bounds: Ints, begins: Ints, lengths: Ints) -> Floats:
    """The activation of each token of the windows; 0 where the latent does not fire."""
    activations = np.zeros(int(lengths.sum()), dtype=np.float32)
    fires = sources >= 0
    first = (np.cumsum(lengths) - lengths)[fires]
    starts = bounds[sources[fires]]
    counts = bounds[sources[fires] + 1] - starts
    entries = np.repeat(starts, counts) + _ramps(counts)
    activations[np.repeat(first - begins[fires], counts) + fired.at[entries]] = fired.values[entries]
    return activations


def _ramps(counts: Ints) -> Ints:
    """0, 1, ... up to each count, one after another."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
