"""`delphi`: the score files of EleutherAI's Delphi, a file a latent and scorer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar

import msgspec
import polars as pl

from nscore.exporters._paths import safe_name
from nscore.exporters._protocol import OutFile, Part, exporter
from nscore.exporters._tokens import SCORES, Explained, Record, explained, number
from nscore.records import (
    ACTIVATION,
    EXPLANATION,
    ITEM,
    LABEL,
    LAYER,
    NEURON,
    POSITION,
    PREDICTED_LABEL,
    PROBABILITY,
    SCORER,
    SEQUENCE,
    STRATUM,
    TOKEN,
)

__all__ = ["Delphi"]

NORMALIZED, UNNORMALIZED = "simulated_normalized_activations", "simulated_unnormalized_activations"
ALL, NOT_ACTIVATING = 0, -1
DISTANCE = "distance"
QUANTILE = "quantile_"


@exporter("delphi")
@dataclass(frozen=True, slots=True, kw_only=True)
class Delphi:
    """Writes `scores/{scorer}/{module}_latent{i}.txt` and, where the texts are known, `explanations/{module}_latent{i}.txt`.

    `simulated` becomes `scores/simulation`: all records together under the distance 0, and those of each stratum
    `quantile_q` under q + 1. `judgements` become a folder a scorer, `detection`, `fuzz`, ...: `label` is `activating`, an answer
    that is not known is `null`; the tokens and activations of a judged item are those of the `sequence` of that number in `judged`
    (which the importer makes) or else in `records`. A `/` in the module's name is written as `--`, as Delphi does.

    Delphi names scores that are no numbers "nan", and has 0 for the two scores that it does not compute; here they are the
    true ones.

    Source: the result files of EleutherAI's Delphi.
    """

    takes: ClassVar[tuple[str, ...]] = ("simulated", "judgements")
    needs: ClassVar[tuple[str, ...]] = (POSITION, TOKEN)
    needs_texts: ClassVar[bool] = False
    several: ClassVar[bool] = False

    _told: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """`delphi`."""
        return "delphi"

    def files(self, part: Part) -> Iterator[OutFile]:
        """The files of a part of either table; see `Exporter.files`."""
        if part.table == "simulated":
            for (one,) in explained(part):
                yield _file("scores", "simulation", _latent(one.layer, one.neuron), _simulations(one))
        else:
            yield from _judgements(part)
        for name, text in _texts(part):
            if name not in self._told:  # both tables may be about the same latent
                self._told.add(name)
                yield _file("explanations", name, text)


def _latent(layer: object, neuron: object) -> str:
    return f"{safe_name(str(layer).replace('/', '--'))}_latent{safe_name(neuron)}.txt"


def _file(*path_and_content: Any) -> OutFile:  # noqa: ANN401  (whatever JSON has)
    *folders, name, content = path_and_content
    return OutFile((*folders, name), msgspec.json.encode(content))


def _texts(part: Part) -> Iterator[tuple[str, str]]:
    if part.explanations is None:
        return
    for row in part.explanations.unique([LAYER, NEURON], keep="first", maintain_order=True).iter_rows(named=True):
        if row[EXPLANATION] is not None:
            yield _latent(row[LAYER], row[NEURON]), row[EXPLANATION]


def _simulations(one: Explained) -> list[dict[str, Any]]:
    strata = {q: record.stratum for record in one.records if (q := _quantile(record.stratum)) is not None}
    groups = [_group(ALL, one.records, one.scores)]
    for quantile, stratum in sorted(strata.items()):
        scores = {name: one.scores[f"{stratum}_only_{name}"] for name in SCORES}
        groups.append(_group(quantile + 1, [r for r in one.records if r.stratum == stratum], scores))
    return groups


def _group(distance: int, records: list[Record], scores: dict[str, Any]) -> dict[str, Any]:
    told = {DISTANCE: distance, "scored_sequence_simulations": [_sequence(record) for record in records]}
    return told | {name: _said(scores[name]) for name in SCORES}


def _sequence(record: Record) -> dict[str, Any]:
    simulation = {
        "tokens": record.tokens,
        "expected_activations": record.predicted,
        "activation_scale": NORMALIZED if record.raw is None else UNNORMALIZED,
        "distribution_values": [],
        "distribution_probabilities": [],
        "uncalibrated_simulation": None,
    }
    if record.raw is not None:
        before = {"expected_activations": record.raw, "activation_scale": NORMALIZED}
        simulation["uncalibrated_simulation"] = simulation | before
    told = {DISTANCE: _distance(record.stratum), "simulation": simulation, "true_activations": record.activations}
    return told | {name: _said(value) for name, value in record.scores.items()}


def _quantile(stratum: str | None) -> int | None:
    digits = stratum.removeprefix(QUANTILE) if stratum is not None and stratum.startswith(QUANTILE) else ""
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _distance(stratum: str | None) -> int:
    quantile = _quantile(stratum)
    return NOT_ACTIVATING if quantile is None else quantile


def _said(score: float | None) -> float | str | None:
    return "nan" if score is not None and math.isnan(score) else number(score)


def _judgements(part: Part) -> Iterator[OutFile]:
    shown = _shown(part)
    for (layer, neuron, scorer), rows in groupby(
        part.rows.iter_rows(named=True), key=lambda row: (row[LAYER], row[NEURON], row.get(SCORER))
    ):
        told = []
        for row in rows:
            item = (layer, neuron, row[ITEM])
            tokens, activations = shown.get((*item, scorer)) or shown.get((*item, None)) or ([], [])
            if not tokens:
                part.left_out["tokens of judged items (they are in no table)"] += 1
            told.append(_judgement(row, tokens, activations))
        yield _file("scores", safe_name(scorer or "judgements"), _latent(layer, neuron), told)


def _judgement(row: dict[str, Any], tokens: list[str], activations: list[float]) -> dict[str, Any]:
    said, distance = row[PREDICTED_LABEL], row.get(DISTANCE)
    told = {
        "str_tokens": tokens,
        "activations": activations,
        DISTANCE: _distance(row.get(STRATUM)) if distance is None else _whole(distance),
        "activating": row[LABEL],
        "prediction": said,
        "probability": row.get(PROBABILITY),
        "correct": None if said is None or row[LABEL] is None else said == row[LABEL],
    }
    if not tokens and row.get("text") is not None:  # as older runs have it
        told |= {"text": row["text"], "highlighted": row.get("highlighted")}
    return told


def _whole(distance: float) -> float:
    return int(distance) if float(distance).is_integer() else distance


def _shown(part: Part) -> dict[tuple[object, ...], tuple[list[str], list[float]]]:
    """Tokens and activations by layer, neuron, item and, where each scorer has items of its own, scorer."""
    if part.records is None:
        return {}
    scorer = pl.col(SCORER) if SCORER in part.records.columns else pl.lit(None, pl.String).alias(SCORER)
    record = [LAYER, NEURON, SEQUENCE, SCORER]
    listed = (
        part.records.with_columns(scorer)
        .sort(*record, POSITION)
        .group_by(record, maintain_order=True)
        .agg(pl.col(TOKEN).cast(pl.String), pl.col(ACTIVATION).cast(pl.Float64))
    )
    lists = zip(listed[TOKEN].to_list(), listed[ACTIVATION].to_list(), strict=True)
    return dict(zip(listed.select(record).rows(), lists, strict=True))
