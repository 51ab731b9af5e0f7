"""Neurons and their activation records: the original's dataclasses, its splits, and its files."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import overload

import polars as pl

from nscore.errors import TableError
from nscore.neuron_explainer._files import Where, aread, joined, made, plain, read, shown
from nscore.neuron_explainer.fast_dataclasses import FastDataclass, register_dataclass
from nscore.records import LAYER, NEURON, SEQUENCE, SPLIT, STRATUM
from nscore.splits import OTHER_SPLITS, TOP_SPLITS, assign_splits

__all__ = [
    "ActivationRecord",
    "ActivationRecordSliceParams",
    "NeuronId",
    "NeuronRecord",
    "load_neuron",
    "load_neuron_async",
    "neuron_exists",
    "read_neuron_file",
]

PUBLISHED = "https://openaipublic.blob.core.windows.net/neuron-explainer/data/collated-activations"


@register_dataclass
@dataclass
class ActivationRecord(FastDataclass):
    """One text and the neuron's activation on each of its tokens.

    The two forms of the original name the fields in either order; without names, the texts are the tokens.

    >>> ActivationRecord(["a", "b"], [0.0, 1.0]) == ActivationRecord([0.0, 1.0], ["a", "b"])
    True
    """

    tokens: list[str]
    activations: list[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.activations) and isinstance(self.activations[0], str):
            self.tokens, self.activations = self.activations, self.tokens


@register_dataclass
@dataclass(kw_only=True)
class NeuronId(FastDataclass):
    """Which neuron it is. Both are named: the original's two forms have them in opposite order."""

    layer_index: int | str
    neuron_index: int


@dataclass
class ActivationRecordSliceParams:
    """How many records of each kind a split takes; None for as many as there are in equal splits."""

    n_examples_per_split: int | None


@register_dataclass
@dataclass
class NeuronRecord(FastDataclass):
    """A neuron's activation records: its strongest, a random sample, and what is known of its activations.

    The splits are those of `nscore.assign_splits`: of the strongest records, train, calibration, valid and test take
    every fourth in turn; of the random ones, calibration, valid and test every third.
    """

    neuron_id: NeuronId
    random_sample: list[ActivationRecord] = field(default_factory=list)
    random_sample_by_quantile: list[list[ActivationRecord]] | None = None
    quantile_boundaries: list[float] | None = None
    mean: float | None = math.nan
    variance: float | None = math.nan
    skewness: float | None = math.nan
    kurtosis: float | None = math.nan
    most_positive_activation_records: list[ActivationRecord] = field(default_factory=list)

    @property
    def max_activation(self) -> float:
        """The largest activation in the strongest records."""
        return max(max(record.activations) for record in self.most_positive_activation_records)

    def train_activation_records(
        self, activation_record_slice_params: ActivationRecordSliceParams
    ) -> list[ActivationRecord]:
        """Records to explain the neuron from: of the strongest alone."""
        return self._top("train", activation_record_slice_params)

    def calibration_activation_records(
        self, activation_record_slice_params: ActivationRecordSliceParams
    ) -> list[ActivationRecord]:
        """Records to calibrate a simulator on: of the strongest, then as many random ones."""
        return self._both("calibration", activation_record_slice_params)

    def valid_activation_records(
        self, activation_record_slice_params: ActivationRecordSliceParams
    ) -> list[ActivationRecord]:
        """Records to score on: of the strongest, then as many random ones."""
        return self._both("valid", activation_record_slice_params)

    def test_activation_records(
        self, activation_record_slice_params: ActivationRecordSliceParams
    ) -> list[ActivationRecord]:
        """Further records to score on: of the strongest, then as many random ones."""
        return self._both("test", activation_record_slice_params)

    def _top(self, split: str, params: ActivationRecordSliceParams) -> list[ActivationRecord]:
        records = self.most_positive_activation_records
        return [records[i] for i in _slices(len(records), "top", params.n_examples_per_split)[split]]

    def _both(self, split: str, params: ActivationRecordSliceParams) -> list[ActivationRecord]:
        records = self.random_sample
        drawn = _slices(len(records), "random", params.n_examples_per_split)[split]
        return self._top(split, params) + [records[i] for i in drawn]


@lru_cache(256)
def _slices(records: int, stratum: str, n_per_split: int | None) -> dict[str, list[int]]:
    """The places of the records of each split."""
    splits = TOP_SPLITS if stratum == "top" else OTHER_SPLITS
    n = records // len(splits) if n_per_split is None else n_per_split
    if not 0 <= n * len(splits) <= records:
        raise TableError(
            "too few records",
            "the neuron record",
            found=f"{records} {stratum} records, and {n} for each of {', '.join(splits)} take {n * len(splits)}",
            mend=f"Ask for at most {records // len(splits)} a split.",
        )
    places = pl.int_range(records, eager=True)
    frame = pl.DataFrame({SEQUENCE: places, "rank": places}).with_columns(
        pl.lit(0).alias(LAYER), pl.lit(0).alias(NEURON), pl.lit(stratum).alias(STRATUM)
    )
    placed = assign_splits(frame, n_per_split=n)
    return {split: placed.filter(pl.col(SPLIT) == split)[SEQUENCE].to_list() for split in splits}


def neuron_exists(dataset_path: Where, layer_index: str | int, neuron_index: str | int) -> bool:
    """Whether there is a file of the neuron: `{dataset_path}/{layer}/{neuron}.json`."""
    return read(joined(dataset_path, layer_index, f"{neuron_index}.json")) is not None


@overload
def load_neuron(layer_index: str | int, neuron_index: str | int, dataset_path: Where = ...) -> NeuronRecord: ...
@overload
def load_neuron(dataset_path: Where, layer: str | int, neuron: str | int) -> NeuronRecord: ...
def load_neuron(*given: Where | int, **named: Where | int) -> NeuronRecord:
    """Reads the record of a neuron from `{dataset_path}/{layer}/{neuron}.json`.

    Takes the arguments in both of the original's orders, `(layer_index, neuron_index, dataset_path)` and
    `(dataset_path, layer, neuron)`: what comes first is a path unless it is a number, or the text of one.

    Args:
        given: as above.
        named: the same by their names. `dataset_path` is a folder or an http(s) address; left out, the dataset that
            OpenAI published.

    Raises:
        FileNotFoundError: if there is no such file.
        SourceError: if it cannot be fetched, or is no neuron record.
    """
    where = _where(given, named)
    return _neuron(read(where), where)


@overload
async def load_neuron_async(
    layer_index: str | int, neuron_index: str | int, dataset_path: Where = ...
) -> NeuronRecord: ...
@overload
async def load_neuron_async(dataset_path: Where, layer: str | int, neuron: str | int) -> NeuronRecord: ...
async def load_neuron_async(*given: Where | int, **named: Where | int) -> NeuronRecord:
    """The async twin of `load_neuron`."""
    return await read_neuron_file(_where(given, named))


async def read_neuron_file(neuron_filename: Where) -> NeuronRecord:
    """Reads the record of a neuron from a file, local or at an http(s) address; see `load_neuron`."""
    return _neuron(await aread(neuron_filename), neuron_filename)


def _neuron(raw: bytes | None, where: Where) -> NeuronRecord:
    if raw is None:
        raise FileNotFoundError(f"{shown(where)}: there is no such file")
    return made(plain(raw, where), NeuronRecord, where)


def _where(given: tuple[Where | int, ...], named: dict[str, Where | int]) -> Where:
    """The file that the arguments name, in whichever order they come."""
    if len(given) > 3:
        raise TypeError(f"load_neuron() takes 3 arguments, and {len(given)} were given")
    by_name = {name.removesuffix("_index"): value for name, value in named.items()}
    if len(given) == 3:
        path_first = _is_number(given[2])
    else:
        path_first = "dataset_path" not in by_name and bool(given) and not _is_number(given[0])
    order = ["dataset_path", "layer", "neuron"] if path_first else ["layer", "neuron", "dataset_path"]
    found = dict(zip(order, given, strict=False))
    if unknown := (set(by_name) - set(order)) or (set(by_name) & set(found)):
        raise TypeError(f"load_neuron() got {', '.join(sorted(unknown))} twice, or knows no such argument")
    found |= by_name
    if "layer" not in found or "neuron" not in found:
        raise TypeError("load_neuron() needs a layer and a neuron: (layer, neuron) or (dataset_path, layer, neuron)")
    folder = found.get("dataset_path", PUBLISHED)
    if isinstance(folder, int):
        raise TypeError(f"load_neuron() takes a path for dataset_path, not {folder!r}")
    return joined(folder, str(found["layer"]), f"{found['neuron']}.json")


def _is_number(value: Where | int) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and re.fullmatch("[0-9]+", value) is not None)
