"""Delphi's cache of latents: where each fires, how strongly, in which text; read a few million activations at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nscore.importers._delphi_windows import Drawing, Drawn, Fired, draw, firsts
from nscore.importers._long import long
from nscore.importers._places import SourceFile
from nscore.importers._protocol import Parsed
from nscore.importers._safetensors import tensors
from nscore.importers._vocabulary import digits, vocabulary
from nscore.records import ACTIVATION, LAYER, NEURON, SEQUENCE, STRATUM, TOKEN
from nscore.splits import assign_splits

__all__ = ["SHARD", "Latents", "latent_tables", "parse_latents"]

SHARD = re.compile(r"([0-9]{1,18})_([0-9]{1,18})\.safetensors")
# How many activations are sorted at a time, how many are looked at, how many tokens of records go into a table at a time.
SORTED, LOOKED, TOKENS = 1 << 22, 1 << 22, 1 << 19
WIDEST = 1 << 24
RANK, LENGTH = "rank", "__length"

_MEND = "Cache the latents again, or leave the file out (--on-error skip)."

Loaded = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Latents:
    """What was read of some latents.

    Attributes:
        path: the file.
        layer: their hook point.
        drawn: the windows that become records; the numbers of the latents are those of the whole hook point.
        ids: the tokens of all these windows, one after another.
        strata: the names of the strata.
        stats: a row a latent: `neuron`, `n_active`, `n_tokens`, `max_activation`.
    """

    path: str
    layer: str
    drawn: Drawn
    ids: Loaded
    strata: list[str]
    stats: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Shard:
    """The tensors of a file, checked."""

    locations: Loaded
    activations: Loaded
    is_bf16: bool
    tokens: Loaded
    first: int


def parse_latents(
    file: SourceFile, layer: str, drawing: Drawing, *, latents: int | None, tokenizer: str | None
) -> Iterator[Parsed[Any]]:
    """The records of a file's latents, some latents at a time.

    Args:
        file: `{start}_{end}.safetensors`.
        layer: the hook point.
        drawing: how windows are drawn.
        latents: only those whose number is smaller are read; all if None.
        tokenizer: whose ids the tokens must be, if one is known.

    Raises:
        SourceError: if the file is broken, or its tensors do not fit one another.
    """
    name = SHARD.fullmatch(file.path.split("?", 1)[0].rpartition("/")[2])
    if name is None:
        raise file.fault("its name is not START_END.safetensors", mend="Name it by its first and last latent.")
    start, end = int(name[1]), int(name[2])
    shard = _opened(file, start)
    counts, in_order = _counted(file, shard, end)
    _check_ids(file, shard.tokens, tokenizer)
    wanted = np.flatnonzero(counts)
    if latents is not None:
        wanted = wanted[wanted + start < latents]
    groups = list(_groups(wanted, counts[wanted], SORTED))
    if not in_order:
        # places in another order than Delphi's may be there twice: before anything of the file goes into a table, all are looked at
        for group in groups:
            _sorted(file, shard, int(group[0]), int(group[-1]))
    for group in groups:
        fired = _sorted(file, shard, int(group[0]), int(group[-1]))
        bounds = np.searchsorted(fired.latents, np.append(group + start, fired.latents[-1] + 1))
        each = max(1, TOKENS // max(1, drawing.most))
        for i in range(0, len(group), each):
            a, b = bounds[i], bounds[min(i + each, len(group))]
            own = Fired(fired.latents[a:b], fired.at[a:b], fired.values[a:b], fired.shape)
            yield _parsed(file, layer, shard, drawing, own, texts=tokenizer is not None)


def latent_tables(parsed: Sequence[Latents], tokenizer: str | None) -> dict[str, pl.DataFrame]:
    """`records` and `neurons`."""
    pieces = [_index(piece) for piece in parsed]
    index = pl.concat([piece.select(pl.exclude(LENGTH)) for piece in pieces])
    placed = assign_splits(index, rank=RANK).drop(RANK)
    lengths = pl.concat([piece[LENGTH] for piece in pieces])
    ids = np.concatenate([piece.ids for piece in parsed])
    texts = digits(ids) if tokenizer is None else vocabulary(tokenizer).texts(ids)
    values = pl.Series(np.concatenate([piece.drawn.activations for piece in parsed]))
    records = long(placed, lengths.to_list(), {TOKEN: texts, ACTIVATION: _finite(values)})
    return {"records": records, "neurons": pl.concat([_stats(piece) for piece in parsed])}


def _opened(file: SourceFile, start: int) -> _Shard:
    found = tensors(file)
    for name in ("locations", "activations", "tokens"):
        if name not in found:
            lacks = "; it was cached without its text (save_tokens)" if name == "tokens" else ""
            raise file.fault(f"no tensor {name!r}, found {', '.join(map(repr, found)) or 'none'}{lacks}", mend=_MEND)
    (_, locations), (dtype, activations), (_, tokens) = (found[n] for n in ("locations", "activations", "tokens"))
    for name, tensor in (("locations", locations), ("tokens", tokens)):
        if tensor.dtype.kind not in "ui" or tensor.ndim != 2:
            raise file.fault(
                f"{name}: {tensor.dtype} of shape {tensor.shape}: expected integers, two-dimensional", mend=_MEND
            )
    if dtype not in {"F16", "BF16", "F32"} or activations.ndim != 1:
        found_ = f"activations: {dtype} of shape {activations.shape}: expected F16, BF16 or F32, one-dimensional"
        raise file.fault(found_, mend=_MEND)
    if locations.shape != (len(activations), 3):
        found_ = f"locations of shape {locations.shape} and {len(activations):,} activations"
        raise file.fault(f"{found_}: expected a row, a position and a latent for each", mend=_MEND)
    return _Shard(locations, activations, dtype == "BF16", tokens, start)


def _counted(file: SourceFile, shard: _Shard, end: int) -> tuple[npt.NDArray[np.int64], bool]:
    """How often each latent of the file fires, and whether the places are in order, so that none is twice; they are checked."""
    rows, width = shard.tokens.shape
    n_latents = min(end - shard.first + 1, WIDEST)
    counts = np.zeros(0, dtype=np.int64)
    before, in_order = -1, True
    for a in range(0, len(shard.locations), LOOKED):
        piece = shard.locations[a : a + LOOKED]
        for column, (what, limit) in enumerate((("row", rows), ("position", width), ("latent", n_latents))):
            bad = (piece[:, column] < 0) | (piece[:, column] >= limit)
            if bad.any():
                i = int(np.argmax(bad))
                raise file.fault(
                    f"{what} {piece[i, column]}, and there are {max(0, limit)}", place=f"locations[{a + i}]", mend=_MEND
                )
        place = (piece[:, 0].astype(np.int64) * width + piece[:, 1]) * WIDEST + piece[:, 2]
        in_order = in_order and before < int(place[0]) and bool((place[1:] > place[:-1]).all())
        before = int(place[-1])
        new = np.bincount(piece[:, 2].astype(np.int64), minlength=len(counts))
        new[: len(counts)] += counts
        counts = new
    return counts, in_order


def _check_ids(file: SourceFile, tokens: Loaded, tokenizer: str | None) -> None:
    size = 1 << 31 if tokenizer is None else vocabulary(tokenizer).size
    rows = max(1, LOOKED // max(1, tokens.shape[1]))
    for a in range(0, len(tokens), rows):
        bad = (tokens[a : a + rows] < 0) | (tokens[a : a + rows] >= size)
        if bad.any():
            row, at = np.argwhere(bad)[0].tolist()
            raise file.fault(
                f"token {tokens[a + row, at]}: expected 0 to {size - 1}",
                place=f"tokens[{a + row}, {at}]",
                mend=_MEND
                if tokenizer is None
                else f"See whether {tokenizer} is that of the model with these latents.",
            )


def _groups(
    latents: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], most: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Latents, so many at a time that they fire no more than `most` times together; one that fires more comes alone."""
    a = 0
    total = np.cumsum(counts)
    while a < len(latents):
        before = total[a] - counts[a]
        b = max(a + 1, int(np.searchsorted(total, before + most, side="right")))
        yield latents[a:b]
        a = b


def _sorted(file: SourceFile, shard: _Shard, low: int, high: int) -> Fired:
    """All that the latents from `low` to `high` do, sorted."""
    rows, width = shard.tokens.shape
    parts = []
    for a in range(0, len(shard.locations), LOOKED):
        piece = shard.locations[a : a + LOOKED]
        own = np.flatnonzero((piece[:, 2] >= low) & (piece[:, 2] <= high))
        place = piece[own].astype(np.int64)
        parts.append((place[:, 2] + shard.first, place[:, 0] * width + place[:, 1], _values(shard, a + own)))
    latents, at, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    # Delphi writes them in the order of the text, so that sorting by latent, of a short dtype and stable, is enough
    number = latents - shard.first
    order = np.argsort(number.astype(np.uint16) if high < 1 << 16 else number, kind="stable")
    if ((latents[order][1:] == latents[order][:-1]) & (at[order][1:] < at[order][:-1])).any():
        order = np.lexsort((at, latents))
    latents, at, values = latents[order], at[order], values[order]
    twice = np.flatnonzero((latents[1:] == latents[:-1]) & (at[1:] == at[:-1]))
    if len(twice):
        row, position = divmod(int(at[twice[0]]), width)
        found = f"two activations of latent {latents[twice[0]]} in row {row} at position {position}"
        raise file.fault(found, place="locations", mend=_MEND)
    return Fired(latents, at, values, (rows, width))


def _values(shard: _Shard, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    values = shard.activations[places]
    if shard.is_bf16:
        # its bits are the upper half of those of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _parsed(
    file: SourceFile, layer: str, shard: _Shard, drawing: Drawing, fired: Fired, *, texts: bool
) -> Parsed[Latents]:
    drawn = draw(fired, drawing)
    ids = shard.tokens.reshape(-1)[drawn.places()].astype(np.int32)
    first = firsts(fired.latents)
    finite_ = np.where(np.isfinite(fired.values), fired.values, -np.inf).astype(np.float32)
    stats = pl.DataFrame(
        {
            NEURON: fired.latents[first],
            "n_active": np.diff(first, append=len(fired.latents)),
            "n_tokens": np.full(len(first), shard.tokens.size, dtype=np.int64),
            "max_activation": np.maximum.reduceat(finite_, first),
        }
    ).with_columns(pl.when(pl.col("max_activation").is_finite()).then("max_activation"))
    left_out = Counter(
        {
            "token texts: tokens are ids (give --tokenizer tokenizer.json)": 0 if texts else len(ids),
            "windows in which a latent fires, beyond those drawn (--top, --quantiles)": drawn.not_drawn,
            "activations that are no finite numbers (now null)": int((~np.isfinite(drawn.activations)).sum()),
        }
    )
    return Parsed(len(ids), Latents(file.path, layer, drawn, ids, drawing.strata, stats), +left_out)


def _index(piece: Latents) -> pl.DataFrame:
    drawn = piece.drawn
    first, n = firsts(drawn.latents), len(drawn.latents)
    sequences = np.arange(n) - np.repeat(first, np.diff(first, append=n))
    return pl.DataFrame(
        {
            LAYER: pl.repeat(piece.layer, n, dtype=pl.String, eager=True),
            NEURON: drawn.latents,
            SEQUENCE: sequences.astype(np.int32),
            STRATUM: pl.Series(piece.strata, dtype=pl.String).gather(drawn.strata),
            RANK: drawn.ranks,
            LENGTH: drawn.lengths,
        }
    )


def _stats(piece: Latents) -> pl.DataFrame:
    return piece.stats.select(
        pl.lit(piece.layer).alias(LAYER),
        NEURON,
        "n_active",
        "n_tokens",
        (pl.col("n_active") / pl.col("n_tokens")).alias("firing_rate"),
        "max_activation",
        pl.lit(piece.path).alias("file"),
    )


def _finite(values: pl.Series) -> pl.Series:
    return pl.select(pl.when(values.is_finite()).then(values)).to_series()
