"""`saedashboard`: the batches of features that SAEDashboard writes for Neuronpedia, `batch-N.json`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, ClassVar

import msgspec
import polars as pl

from nscore.importers._dashboards import HISTOGRAM, TWICE, Gathered, Gathering, records_of
from nscore.importers._json import decoded
from nscore.importers._long import keys_of
from nscore.importers._places import SourceFile
from nscore.importers._protocol import Parsed, importer
from nscore.importers._strata import Drawn

__all__ = ["SAEDashboard"]

Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Activation(msgspec.Struct, gc=False):
    tokens: list[str]
    values: list[float | None]
    bin_min: float | None = None
    bin_max: float | None = None
    bin_contains: float | None = None
    dfa_values: Any = None


class _Feature(msgspec.Struct):
    feature_index: Whole
    frac_nonzero: float | None = None
    freq_hist_data_bar_values: list[float | None] | None = None
    freq_hist_data_bar_heights: list[float | None] | None = None
    n_prompts_total: Whole | None = None
    n_tokens_in_prompt: Whole | None = None
    dataset: str | None = None
    activations: list[_Activation] | None = None
    # what is left out
    pos_str: Any = None
    neg_str: Any = None
    logits_hist_data_bar_values: Any = None
    neuron_alignment_indices: Any = None
    correlated_neurons_indices: Any = None
    correlated_features_indices: Any = None
    decoder_weights_dist: Any = None


class _Batch(msgspec.Struct):
    features: list[_Feature]
    model_id: str | None = None
    layer: Whole | str | None = None
    sae_set: str | None = None


class _Packed(msgspec.Struct):
    """The same, its features not read yet: of a large file one is in hand at a time."""

    features: list[msgspec.Raw]
    model_id: str | None = None
    layer: Whole | str | None = None
    sae_set: str | None = None


@dataclass(slots=True)
class _Neuron:
    """A feature without its activations."""

    file: str
    layer: int | str
    said: _Feature
    others: dict[str, str | None]
    highest: float | None


@importer("saedashboard")
@dataclass(frozen=True, slots=True, kw_only=True)
class SAEDashboard:
    """Reads `batch-N.json`: `layer` is the batch's, `neuron` the index of the feature; `model` and `sae_set` stand beside them.

    Activations become `records`; `sequence` is the place in the feature's list. The strata: `top`, the highest
    activations; `random`, of the lowest interval, in which nearly all tokens are; `bin_1`, `bin_2`, ... the intervals
    between; `bin_contains` is the share of tokens in an interval. `rank` is the place in a stratum, the highest first, and
    the original's interleaved splits are assigned by it. A record that a feature has twice, as one of the highest and one of its
    interval, stays once: else one split would know another.

    What a feature says of itself becomes `neurons`: `frac_nonzero`, the histogram of its activations, the highest of them.
    Logits, correlated features and attributions are left out.

    Args:
        per_split: how many records of a stratum a split takes at most; the rest are left out. All are kept if left out.

    Source: the classes of SAEDashboard's `neuronpedia` module, and files it wrote.
    """

    makes: ClassVar[tuple[str, ...]] = ("records", "neurons")

    per_split: int | None = None

    @property
    def name(self) -> str:
        """`saedashboard`."""
        return "saedashboard"

    def wants(self, path: str) -> bool:
        """`batch-N.json`."""
        return re.search(r"(^|/)batch-[0-9]+\.json$", path) is not None

    def parse(self, file: SourceFile) -> Iterator[Parsed[Gathered | _Neuron]]:
        """The features first, then their activations: how these rank is known when all were seen."""
        batch = _opened(file)
        if batch.layer is None or batch.layer == "":
            raise file.fault("no layer", mend=_MEND)
        others = {"model": batch.model_id, "sae_set": batch.sae_set}
        drawn = Drawn()
        at = 0
        for i in range(len(batch.features)):
            feature = _feature(file, batch, i)
            activations = feature.activations or []
            for k, each in enumerate(activations):
                if each.tokens:
                    bins = (each.bin_min, each.bin_max, each.bin_contains)
                    drawn.add(i, at + k, k, tokens=each.tokens, values=each.values, bins=bins)
            at += len(activations)
            known = [value for each in activations for value in each.values if value is not None and isfinite(value)]
            said = msgspec.structs.replace(feature, activations=None)
            highest = max(known, default=None)
            yield Parsed(1, _Neuron(file.path, batch.layer, said, others, highest), _left_out(feature))
        placed, twice = drawn.placed(self.per_split)
        yield Parsed(0, None, +Counter({TWICE: twice}))
        gathering = Gathering(placed)
        at = 0
        for i in range(len(batch.features)):
            feature = _feature(file, batch, i)
            for each in feature.activations or ():
                if gathering.wants(at):
                    yield from gathering.add(batch.layer, feature.feature_index, each.tokens, each.values, others)
                at += 1
        yield from gathering.rest()

    def tables(self, parsed: Sequence[Gathered | _Neuron]) -> dict[str, pl.DataFrame]:
        """See `Importer.tables`."""
        pieces = [each for each in parsed if isinstance(each, Gathered)]
        neurons = [each for each in parsed if isinstance(each, _Neuron)]
        return ({"records": records_of(pieces)} if pieces else {}) | ({"neurons": _table(neurons)} if neurons else {})


_PACKED = msgspec.json.Decoder(_Packed)
_BATCH = msgspec.json.Decoder(_Batch)
_FEATURE = msgspec.json.Decoder(_Feature)
_MEND = "Mend the file, or leave it out (--on-error skip)."


def _opened(file: SourceFile) -> _Packed | _Batch:
    content = file.read()
    try:
        return _PACKED.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        # with NaN in it, or broken
        return decoded(file, content, _BATCH)


def _feature(file: SourceFile, batch: _Packed | _Batch, i: int) -> _Feature:
    place = f"$.features[{i}]"
    said = batch.features[i]
    feature = decoded(file, bytes(said), _FEATURE, place=place) if isinstance(said, msgspec.Raw) else said
    for k, each in enumerate(feature.activations or ()):
        if len(each.tokens) != len(each.values):
            raise file.fault(
                f"{len(each.tokens)} tokens and {len(each.values)} values: expected one value a token",
                place=f"{place}.activations[{k}]",
                mend=_MEND,
            )
    return feature


def _left_out(feature: _Feature) -> Counter[str]:
    activations = feature.activations or []
    others = (feature.neuron_alignment_indices, feature.correlated_neurons_indices, feature.correlated_features_indices)
    return +Counter(
        {
            "records without tokens": sum(not each.tokens for each in activations),
            "attributions of activations (dfa_values)": sum(bool(each.dfa_values) for each in activations),
            "logits of neurons": bool(feature.pos_str or feature.neg_str or feature.logits_hist_data_bar_values),
            "correlations and alignments of neurons": any(others) or bool(feature.decoder_weights_dist),
        }
    )


def _table(neurons: Sequence[_Neuron]) -> pl.DataFrame:
    said = [each.said for each in neurons]
    texts = {name: [each.others[name] for each in neurons] for name in ("model", "sae_set")}
    lists = [
        [each.freq_hist_data_bar_values or None for each in said],
        [each.freq_hist_data_bar_heights or None for each in said],
    ]
    columns = {
        "max_activation": pl.Series([each.highest for each in neurons], dtype=pl.Float64),
        "frac_nonzero": pl.Series([each.frac_nonzero for each in said], dtype=pl.Float64),
        **{name: pl.Series(values, dtype=pl.List(pl.Float64)) for name, values in zip(HISTOGRAM, lists, strict=True)},
        "n_prompts": pl.Series([each.n_prompts_total for each in said], dtype=pl.Int64),
        "n_tokens_in_prompt": pl.Series([each.n_tokens_in_prompt for each in said], dtype=pl.Int64),
        "dataset": pl.Series([each.dataset for each in said], dtype=pl.String),
        **{name: pl.Series(values, dtype=pl.String) for name, values in texts.items()},
        "file": pl.Series([each.file for each in neurons], dtype=pl.String),
    }
    keys = keys_of([each.layer for each in neurons], [each.said.feature_index for each in neurons])
    known = pl.when(pl.col(pl.Float64).is_finite()).then(pl.col(pl.Float64))
    return pl.DataFrame(keys | columns).with_columns(known)
