"""`openai`: folders of `NeuronRecord` and of `NeuronSimulationResults`, as OpenAI's tools write them, older forms included."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Generic

import msgspec
import numpy as np
import polars as pl

from nscore.importers._json import decoded
from nscore.importers._long import finite, keys_of, long
from nscore.importers._places import SourceFile
from nscore.importers._protocol import Parsed, importer
from nscore.importers._simulations import MADE, Results, S, Scored, Simulation, WholeSimulation, simulation_tables
from nscore.records import ACTIVATION, SEQUENCE, SPLIT, STRATUM, TOKEN
from nscore.splits import assign_splits

__all__ = ["OpenAI"]

RANK, LENGTH = "rank", "__length"


class _Activations(msgspec.Struct, gc=False):
    tokens: list[str]
    activations: list[float]


_Index = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Id(msgspec.Struct, gc=False):
    neuron_index: _Index | None = None
    layer_index: _Index | str | None = None
    idx: _Index | None = None
    layer: _Index | str | None = None
    attention_head_id: int | None = None
    attention_id: int | None = None


class _File(msgspec.Struct, Generic[S]):
    """Either kind of file."""

    neuron_id: _Id | None = None
    most_positive_activation_records: list[_Activations] | None = None
    random_sample: list[_Activations] | None = None
    random_sample_by_quantile: list[list[_Activations]] | None = None
    quantile_boundaries: list[float] | None = None
    mean: float | None = None
    variance: float | None = None
    skewness: float | None = None
    kurtosis: float | None = None
    scored_explanations: list[Scored[S]] | None = None
    scored_explanation_or_baseline_list: list[Scored[S]] | None = None


@dataclass(slots=True)
class _Neuron:
    """A neuron record, its tokens one after another."""

    path: str
    layer: int | str
    neuron: int
    strata: list[str]
    ranks: list[int]
    lengths: list[int]
    tokens: pl.Series
    activations: pl.Series
    said: _File[Any]


_Piece = _Neuron | Results[Any]


@importer("openai")
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAI:
    """Reads `{layer}/{neuron}.json` (activation records) and `{layer}/{neuron}.jsonl` (simulations with their scores).

    Records become `records`: the strata are `top`, `random`, and `quantile_0`, `quantile_1`, ... where there are such;
    within each they keep their order, and the original's interleaved splits are assigned by it. What a record says of its neuron
    (moments, boundaries of the quantiles) becomes `neurons`. Simulations become `simulated`, `explanations`, and the
    published scores beside them: `published_scores`, `published_sequence_scores`.

    Activations that are no finite numbers are null. Records of attention heads, whose activations belong to pairs of tokens, are
    left out.

    Args:
        per_split: how many records of a stratum a split takes at most; the rest are left out. All are kept if left out.
        distribution: whether the predicted distribution of each token is kept.

    Source: the dataclasses of OpenAI's automated-interpretability and transformer-debugger.
    """

    makes: ClassVar[tuple[str, ...]] = ("records", "neurons", *MADE)

    per_split: int | None = None
    distribution: bool = False

    @property
    def name(self) -> str:
        """`openai`."""
        return "openai"

    def wants(self, path: str) -> bool:
        """JSON and JSON lines."""
        return path.endswith((".json", ".jsonl"))

    def parse(self, file: SourceFile) -> Iterator[Parsed[_Piece]]:
        """One neuron a file or, in JSON lines, a line; see `Importer.parse`."""
        content = file.read()
        lines = content.split(b"\n") if file.path.endswith(".jsonl") else [content]
        several = len(lines) > 2
        read = 0
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield self._parsed(file, line, f"line {number}" if several else "")
                read += 1
        if not read:
            raise file.fault("empty: no neuron is in it", mend="Download it again, or leave it out (--on-error skip).")

    def _parsed(self, file: SourceFile, content: bytes, place: str) -> Parsed[_Piece]:
        decoder: msgspec.json.Decoder[_File[Any]] = _WHOLE if self.distribution else _PLAIN
        try:
            said = decoder.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = decoded(file, _without_nan(content), decoder, place=place)
        identity = said.neuron_id or _Id()
        if (identity.attention_head_id, identity.attention_id) != (None, None):
            return Parsed(0, None, Counter({"attention heads: their activations belong to pairs of tokens": 1}))
        layer, neuron = _identity(file, identity, place)
        scored = said.scored_explanations
        if scored is None:
            scored = said.scored_explanation_or_baseline_list
        if scored is not None:
            results = Results(file, place, layer, neuron, scored)
            return Parsed(results.rows, results, results.left_out(distribution=self.distribution))
        if said.most_positive_activation_records is None and said.random_sample is None:
            raise file.fault(
                "neither a NeuronRecord (most_positive_activation_records, random_sample) nor NeuronSimulationResults "
                "(scored_explanations)",
                place=place,
                mend="See whether the format is openai, or leave the file out (--on-error skip).",
            )
        return _flattened(file, said, layer, neuron, place)

    def tables(self, parsed: Sequence[_Piece]) -> dict[str, pl.DataFrame]:
        """See `Importer.tables`."""
        neurons = [each for each in parsed if isinstance(each, _Neuron)]
        results = [each for each in parsed if isinstance(each, Results)]
        made = {"records": self._records(neurons), "neurons": _stats(neurons)} if neurons else {}
        return made | (simulation_tables(results, distribution=self.distribution) if results else {})

    def _records(self, neurons: Sequence[_Neuron]) -> pl.DataFrame:
        each = [len(n.lengths) for n in neurons]
        lengths = list(chain.from_iterable(n.lengths for n in neurons))
        keys = keys_of([n.layer for n in neurons], [n.neuron for n in neurons])
        of = pl.Series([i for i, count in enumerate(each) for _ in range(count)], dtype=pl.UInt32)
        index = pl.DataFrame([series.gather(of) for series in keys.values()]).with_columns(
            pl.Series(SEQUENCE, [i for count in each for i in range(count)], dtype=pl.Int32),
            pl.Series(STRATUM, list(chain.from_iterable(n.strata for n in neurons)), dtype=pl.String),
            pl.Series(RANK, list(chain.from_iterable(n.ranks for n in neurons)), dtype=pl.Int32),
            pl.Series(LENGTH, lengths, dtype=pl.Int32),
        )
        placed = assign_splits(index, n_per_split=self.per_split, rank=RANK).drop(RANK)
        tokens = {
            TOKEN: pl.concat([n.tokens for n in neurons]),
            ACTIVATION: pl.concat([n.activations for n in neurons]),
        }
        if placed.height < index.height:
            # whole records are dropped, and their tokens with them
            kept = index.join(placed, on=[*keys, SEQUENCE], how="left", maintain_order="left")[SPLIT].is_not_null()
            mask = pl.Series(np.repeat(kept.to_numpy(), lengths))
            tokens = {name: series.filter(mask) for name, series in tokens.items()}
        return long(placed.drop(LENGTH), placed[LENGTH].to_list(), tokens)


_PLAIN = msgspec.json.Decoder(_File[Simulation])
_WHOLE = msgspec.json.Decoder(_File[WholeSimulation])
# Before the moments of a neuron that never fires: in no string stand two quotes that are not escaped.
_MOMENT = re.compile(rb'[{,]\s*"(?:mean|variance|skewness|kurtosis)"\s*:\s*')


def _without_nan(content: bytes) -> bytes:
    """With null for bare NaN among the moments, which strict JSON has no word for."""
    at = content.find(b"NaN")
    while at >= 0:
        begin = max(0, at - 32)
        before = [found.end() for found in _MOMENT.finditer(content, begin, at)]
        if before and before[-1] == at:
            content = content[:at] + b"null" + content[at + 3 :]
        at = content.find(b"NaN", at + 3)
    return content


def _identity(file: SourceFile, said: _Id, place: str) -> tuple[int | str, int]:
    """Layer and neuron; where the file does not say them, its path does: `{layer}/{neuron}.json`."""
    layer = said.layer_index if said.layer_index is not None else said.layer
    neuron = said.neuron_index if said.neuron_index is not None else said.idx
    if layer is None or neuron is None:
        path = PurePosixPath(file.path.split("?", 1)[0])
        layer = path.parent.name if layer is None else layer
        if neuron is None and re.fullmatch("[0-9]{1,18}", path.stem):
            neuron = int(path.stem)
    if neuron is None or layer == "":
        raise file.fault(
            "it does not say of which neuron it is (neuron_id), and its path is not LAYER/NEURON.json",
            place=place,
            mend="Put it into the folder of its layer, under the neuron's number.",
        )
    if isinstance(layer, str) and re.fullmatch("[0-9]{1,18}", layer):
        layer = int(layer)
    return layer, neuron


def _flattened(file: SourceFile, said: _File[Any], layer: int | str, neuron: int, place: str) -> Parsed[_Piece]:
    strata: list[str] = []
    ranks: list[int] = []
    lengths: list[int] = []
    records: list[_Activations] = []
    for stratum, where, group in _groups(said):
        sizes = [len(record.tokens) for record in group]
        if sizes != [len(record.activations) for record in group]:
            rank = next(i for i, record in enumerate(group) if sizes[i] != len(record.activations))
            raise file.fault(
                f"{sizes[rank]} tokens and {len(group[rank].activations)} activations",
                place=" ".join(filter(None, [place, f"$.{where}[{rank}]"])),
                mend="Expected one activation a token: mend the file, or leave it out (--on-error skip).",
            )
        full = [rank for rank, size in enumerate(sizes) if size]
        strata += [stratum] * len(full)
        ranks += full
        lengths += filter(None, sizes)
        records += [record for record in group if record.tokens]
    values = list(chain.from_iterable([record.activations for record in records]))
    activations = finite(values)
    tokens = pl.Series(list(chain.from_iterable([record.tokens for record in records])), dtype=pl.String)
    left_out = Counter(
        {
            "records without tokens": sum(len(group) for _, _, group in _groups(said)) - len(records),
            "activations that are no finite numbers (now null)": activations.null_count(),
        }
    )
    # what is held until there are enough for a table is small
    said.most_positive_activation_records = said.random_sample = said.random_sample_by_quantile = None
    found = _Neuron(file.path, layer, neuron, strata, ranks, lengths, tokens, activations, said)
    return Parsed(len(values), found, +left_out)


def _groups(said: _File[Any]) -> Iterator[tuple[str, str, list[_Activations]]]:
    """Each stratum, where it stands in the file, and its records."""
    yield "top", "most_positive_activation_records", said.most_positive_activation_records or []
    yield "random", "random_sample", said.random_sample or []
    for i, group in enumerate(said.random_sample_by_quantile or []):
        yield f"quantile_{i}", f"random_sample_by_quantile[{i}]", group


def _stats(neurons: Sequence[_Neuron]) -> pl.DataFrame:
    keys = keys_of([n.layer for n in neurons], [n.neuron for n in neurons])
    moments = {
        name: pl.Series([getattr(n.said, name) for n in neurons], dtype=pl.Float64)
        for name in ("mean", "variance", "skewness", "kurtosis")
    }
    boundaries = pl.Series([n.said.quantile_boundaries for n in neurons], dtype=pl.List(pl.Float64))
    files = pl.Series([n.path for n in neurons], dtype=pl.String)
    return pl.DataFrame(keys | moments | {"quantile_boundaries": boundaries, "file": files}).with_columns(
        pl.col(pl.Float64).fill_nan(None)
    )
