"""`neuronpedia`: scores of explanations, a line an explanation and score, under the names of Neuronpedia's tables."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from nscore.errors import SettingError
from nscore.exporters._paths import safe_name
from nscore.exporters._protocol import OutFile, Part, exporter
from nscore.records import (
    COVERAGE,
    EXPLANATION,
    EXPLANATION_ID,
    LAYER,
    LOW_COVERAGE,
    N_PREDICTED,
    N_SEQUENCES,
    N_TOKENS,
    NEURON,
)

__all__ = ["Neuronpedia"]

DETAILS = (N_SEQUENCES, N_TOKENS, N_PREDICTED, COVERAGE, LOW_COVERAGE)
# What an explanations table may say beside the text: as Neuronpedia's importer and nscore's own users name it.
MODEL, AUTHOR, TYPE = (
    ("modelId", "model_id", "model"),
    ("explanationModelName", "explanation_model"),
    ("typeName", "explanation_type"),
)


@exporter("neuronpedia")
@dataclass(frozen=True, slots=True, kw_only=True)
class Neuronpedia:
    """Writes `{modelId}/{layer}/explanation_scores/batch-N.jsonl.gz`, each line a score with its explanation.

    The fields are those of Neuronpedia's Explanation (`modelId`, `layer`, `index`, `description`, `typeName`,
    `explanationModelName`) and ExplanationScore (`value`, `explanationScoreTypeName`, `explanationScoreModelName`,
    `jsonDetails`, which holds the counts and the coverage). `index` is a string there. Neuronpedia has no file format for scores of its own: its dumps hold
    explanations alone, and its interface gives the scores inside of these.

    A score that is no finite number has no place there (`value` is a number), and is left out.

    Args:
        model_id: Neuronpedia's name of the model, where the explanations do not say `modelId`.
        metrics: the scores to write; the preferred one if left out.
        score_model: what simulated, for `explanationScoreModelName`.
        explanation_model: who wrote the explanations, where they do not say `explanationModelName`.

    Source: the tables Explanation and ExplanationScore of Neuronpedia's schema.
    """

    takes: ClassVar[tuple[str, ...]] = ("scores",)
    needs: ClassVar[tuple[str, ...]] = ()
    needs_texts: ClassVar[bool] = True
    several: ClassVar[bool] = True

    model_id: str | None = None
    metrics: Sequence[str] = ("ev_correlation_score",)
    score_model: str | None = None
    explanation_model: str | None = None
    _batches: dict[tuple[str, ...], int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """`neuronpedia`."""
        return "neuronpedia"

    def files(self, part: Part) -> Iterator[OutFile]:
        """A file a layer of the part; see `Exporter.files`."""
        known = part.rows.columns
        for metric in self.metrics:
            if metric not in known:
                raise SettingError(f"metrics: the scores have no {metric!r}; they have {', '.join(known)}")
        assert part.explanations is not None  # noqa: S101  (this format needs the texts)
        rows = part.rows.join(
            part.explanations, on=part.keys, how="left", nulls_equal=True, maintain_order="left", suffix="__told"
        )
        lines: dict[tuple[str, ...], list[bytes]] = {}
        for row in rows.iter_rows(named=True):
            told = self._explanation(row, part.keys)
            folder: tuple[str, ...] = (safe_name(told["modelId"]), safe_name(told["layer"]), "explanation_scores")
            for metric in self.metrics:
                if row[metric] is None or not math.isfinite(row[metric]):
                    part.left_out[f"{metric} that is no finite number"] += 1
                    continue
                lines.setdefault(folder, []).append(msgspec.json.encode(told | self._score(row, metric)))
        for to, content in lines.items():
            number = self._batches[to] = self._batches.get(to, -1) + 1
            # the same scores give the same bytes, whenever they are written
            packed = gzip.compress(b"".join(line + b"\n" for line in content), 6, mtime=0)
            yield OutFile((*to, f"batch-{number}.jsonl.gz"), packed)

    def _explanation(self, row: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
        model = self.model_id or _first(row, MODEL)
        if model is None:
            raise SettingError(
                "model_id: the explanations do not say of which model they are (modelId): name it (--model-id)"
            )
        told = {"modelId": model, "layer": str(row[LAYER]), "index": str(row[NEURON]), "description": row[EXPLANATION]}
        told |= {"typeName": _first(row, TYPE), "explanationModelName": self.explanation_model or _first(row, AUTHOR)}
        return told | ({"explanationId": str(row[EXPLANATION_ID])} if EXPLANATION_ID in keys else {})

    def _score(self, row: dict[str, Any], metric: str) -> dict[str, Any]:
        details = {name: row[name] for name in DETAILS if name in row}
        return {
            "explanationScoreTypeName": metric,
            "explanationScoreModelName": self.score_model,
            "value": row[metric],
            "jsonDetails": msgspec.json.encode(details).decode(),
        }


def _first(row: dict[str, Any], names: Sequence[str]) -> str | None:
    return next((str(row[name]) for name in names if row.get(name) is not None), None)
