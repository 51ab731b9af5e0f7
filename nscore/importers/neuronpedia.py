"""`neuronpedia`: exports of Neuronpedia, `v1/{model}/{source}/{features,activations,explanations}/batch-N.jsonl.gz`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

import msgspec
import polars as pl

from nscore.importers._dashboards import HISTOGRAM, TWICE, Gathered, Gathering, records_of
from nscore.importers._json import decoded
from nscore.importers._lines import lines
from nscore.importers._long import keys_of
from nscore.importers._places import SourceFile
from nscore.importers._protocol import Parsed, importer
from nscore.importers._strata import Drawn
from nscore.records import EXPLANATION, EXPLANATION_ID

__all__ = ["Neuronpedia"]

FOLDERS = ("features", "activations", "explanations")
LINES_A_FILE = 10**9


class _Score(msgspec.Struct, gc=False):
    value: float | None = None
    explanationScoreTypeName: str | None = None  # noqa: N815  (theirs, as are all names here)
    explanationScoreModelName: str | None = None  # noqa: N815


class _Line(msgspec.Struct, gc=False):
    """A line of any of the three kinds."""

    modelId: str | None = None  # noqa: N815
    layer: str | int | None = None
    index: str | int | None = None
    # an activation
    tokens: list[str] | None = None
    values: list[float | None] | None = None
    dataIndex: str | int | None = None  # noqa: N815
    binMin: float | None = None  # noqa: N815
    binMax: float | None = None  # noqa: N815
    binContains: float | None = None  # noqa: N815
    # an explanation
    id: str | None = None
    description: str | None = None
    typeName: str | None = None  # noqa: N815
    explanationModelName: str | None = None  # noqa: N815
    explanationId: str | None = None  # noqa: N815
    scores: list[_Score] | None = None
    value: float | None = None
    explanationScoreTypeName: str | None = None  # noqa: N815
    explanationScoreModelName: str | None = None  # noqa: N815
    scoreV1: float | None = None  # noqa: N815
    scoreV2: float | None = None  # noqa: N815
    # a feature
    maxActApprox: float | None = None  # noqa: N815
    frac_nonzero: float | None = None
    freq_hist_data_bar_values: list[float | None] | None = None
    freq_hist_data_bar_heights: list[float | None] | None = None
    # what is left out, of each kind
    dfaValues: Any = None  # noqa: N815
    embedding: Any = None
    pos_str: Any = None
    neg_str: Any = None
    vector: Any = None


@dataclass(slots=True)
class _Said:
    """A line about a neuron: an explanation, another score of one, or what is known of the neuron as a whole."""

    file: str
    layer: str
    neuron: int
    id: str
    line: _Line
    again: bool = False


@importer("neuronpedia")
@dataclass(frozen=True, slots=True, kw_only=True)
class Neuronpedia:
    """Reads exports of Neuronpedia, packed or not; the kind of a line is known by what is in it.

    `layer` is the id of the source (`6-res-jb`), `neuron` the index in it, and `model` stands beside them.

    Activations become `records`. `sequence` is the line (from 0) in a file plus 10^9 times the number of the file, so that a neuron may
    be spread over several. The strata: `top`, the highest activations; `random`, of the lowest interval, in which nearly
    all tokens are; `bin_1`, `bin_2`, ... the intervals between; `bin_contains` is the share of tokens in an interval. `rank`
    is the place in a stratum of the file, the highest first, and the original's interleaved splits are assigned by it. A
    record that a neuron has twice, as one of the highest and one of its interval, stays once: else one split would know another.

    Explanations become `explanations`, with the scores that their lines hold in `published_scores`; features become
    `neurons`. Which records the author of an explanation was shown is not told: as a rule some of the highest.

    Args:
        per_split: how many records of a stratum a split takes at most; the rest are left out. All are kept if left out.

    Source: Neuronpedia's export script and the schema of its database.
    """

    makes: ClassVar[tuple[str, ...]] = ("records", "explanations", "neurons", "published_scores")

    per_split: int | None = None

    @property
    def name(self) -> str:
        """`neuronpedia`."""
        return "neuronpedia"

    def wants(self, path: str) -> bool:
        """`batch-N.jsonl` and `batch-N.jsonl.gz`."""
        return re.search(r"(^|/)batch-[0-9]+\.jsonl(\.gz)?$", path) is not None

    def parse(self, file: SourceFile) -> Iterator[Parsed[Gathered | _Said]]:
        """What is said of neurons at once; activations when all of the file's are known, in a second reading."""
        drawn = Drawn()
        ids: dict[tuple[str, int, str], str] = {}
        first = _number(file) * LINES_A_FILE - 1
        read = 0
        for number, content in lines(file):
            read += 1
            line, layer, neuron = _read(file, number, content)
            if line.tokens is None or line.values is None:
                yield _said(file, line, layer, neuron, number=number, ids=ids)
            elif line.tokens:
                origin = None if line.dataIndex is None else str(line.dataIndex)
                bins = (line.binMin, line.binMax, line.binContains)
                key = (line.modelId, layer, neuron)
                drawn.add(key, number, first + number, tokens=line.tokens, values=line.values, bins=bins, origin=origin)
            left_out = Counter(
                {
                    "records without tokens": line.tokens == [],
                    "attributions of activations (dfaValues)": bool(line.dfaValues),
                }
            )
            if left_out := +left_out:
                yield Parsed(0, None, left_out)
        if not read:
            yield Parsed(0, None, Counter({"empty files": 1}))
        if drawn:
            yield from self._records(file, drawn)

    def _records(self, file: SourceFile, drawn: Drawn) -> Iterator[Parsed[Any]]:
        placed, twice = drawn.placed(self.per_split)
        yield Parsed(0, None, +Counter({TWICE: twice}))
        gathering = Gathering(placed)
        for number, content in lines(file):
            if gathering.wants(number):
                line, layer, neuron = _read(file, number, content)
                tokens, values = line.tokens or [], line.values or []
                yield from gathering.add(layer, neuron, tokens, values, {"model": line.modelId})
        yield from gathering.rest()

    def tables(self, parsed: Sequence[Gathered | _Said]) -> dict[str, pl.DataFrame]:
        """See `Importer.tables`."""
        pieces = [each for each in parsed if isinstance(each, Gathered)]
        said = [each for each in parsed if isinstance(each, _Said)]
        explained = [each for each in said if each.line.description is not None]
        neurons = [each for each in said if each.line.description is None]
        made = {"records": records_of(pieces)} if pieces else {}
        if first := [each for each in explained if not each.again]:
            made["explanations"] = _explanations(first)
        if explained and (scores := _scores(explained)).height:
            made["published_scores"] = scores
        return made | ({"neurons": _neurons(neurons)} if neurons else {})


_DECODER = msgspec.json.Decoder(_Line)
_MEND = "Mend the line, or leave the file out (--on-error skip)."


def _number(file: SourceFile) -> int:
    """Of a batch; of a file that is called otherwise the last number in its name."""
    name = PurePosixPath(file.path.split("?", 1)[0]).name
    found = re.findall(r"batch-([0-9]+)", name) or re.findall("[0-9]+", name) or ["0"]
    return int(found[-1][-9:])


def _read(file: SourceFile, number: int, content: bytes) -> tuple[_Line, str, int]:
    place = f"line {number}"
    line = decoded(file, content, _DECODER, place=place)
    path = PurePosixPath(file.path.split("?", 1)[0])
    known = path.parent.name in FOLDERS
    layer = path.parent.parent.name if line.layer is None and known else line.layer
    if line.modelId is None and known:
        line.modelId = path.parent.parent.parent.name or None
    if layer is None or layer == "" or line.index is None:
        missing = "index" if line.index is None else "layer"
        raise file.fault(f"no {missing}: it does not say of which neuron it is", place=place, mend=_MEND)
    if not re.fullmatch("[0-9]{1,18}", str(line.index)):
        raise file.fault(f"found the index {line.index!r}, expected a whole number", place=place, mend=_MEND)
    if (line.tokens is None) != (line.values is None):
        has, lacks = ("values", "tokens") if line.tokens is None else ("tokens", "values")
        raise file.fault(f"{has} without {lacks}", place=place, mend=_MEND)
    if line.tokens is not None and line.values is not None and len(line.tokens) != len(line.values):
        raise file.fault(
            f"{len(line.tokens)} tokens and {len(line.values)} values: expected one value a token",
            place=place,
            mend=_MEND,
        )
    return line, str(layer), int(line.index)


def _said(
    file: SourceFile, line: _Line, layer: str, neuron: int, *, number: int, ids: dict[tuple[str, int, str], str]
) -> Parsed[Any]:
    """An explanation or a feature."""
    if line.description is None and line.typeName is None:
        if line.maxActApprox is None and line.frac_nonzero is None and line.pos_str is None:
            raise file.fault(
                "neither an activation (tokens, values), nor an explanation (description), nor a feature "
                "(maxActApprox, frac_nonzero)",
                place=f"line {number}",
                mend="See whether the format is neuronpedia, or leave the file out (--on-error skip).",
            )
        others = bool(line.pos_str or line.neg_str or line.vector)
        left_out = Counter({"logits, neighbours and vectors of neurons": others})
        return Parsed(1, _Said(file.path, layer, neuron, "", line), +left_out)
    left_out = +Counter({"embeddings of explanations": bool(line.embedding)})
    if not (line.description or "").strip():
        return Parsed(0, None, left_out + Counter({"explanations without a text": 1}))
    named = line.id or line.explanationId
    name = named or f"{line.typeName or 'unknown'}_{line.explanationModelName or 'unknown'}"
    key, n = (layer, neuron, name), 1
    while not named and ids.get(key, line.description) != line.description:
        n += 1
        key = (layer, neuron, f"{name}_{n}")
    again = key in ids
    ids[key] = line.description or ""
    if again and not _scores_of(line):
        return Parsed(0, None, left_out + Counter({"explanations that stand there twice": 1}))
    return Parsed(1, _Said(file.path, layer, neuron, key[2], line, again), left_out)


def _keys(said: Sequence[_Said]) -> pl.DataFrame:
    keys = keys_of([each.layer for each in said], [each.neuron for each in said])
    return pl.DataFrame(keys | {"model": pl.Series([each.line.modelId for each in said], dtype=pl.String)})


def _explanations(said: Sequence[_Said]) -> pl.DataFrame:
    texts = {
        EXPLANATION_ID: [each.id for each in said],
        EXPLANATION: [each.line.description for each in said],
        "explanation_type": [each.line.typeName for each in said],
        "explanation_model": [each.line.explanationModelName for each in said],
    }
    columns = pl.DataFrame(texts, schema=dict.fromkeys(texts, pl.String))
    return _keys(said).hstack(columns).select("layer", "neuron", *texts, "model")


def _scores(said: Sequence[_Said]) -> pl.DataFrame:
    """One row a score: which scorer, with which model."""
    rows = [
        (i, score.explanationScoreTypeName, score.explanationScoreModelName, score.value)
        for i, each in enumerate(said)
        for score in _scores_of(each.line)
    ]
    schema = {"__of": pl.UInt32, "scorer": pl.String, "scorer_model": pl.String, "score": pl.Float64}
    scores = pl.DataFrame(rows, schema=schema, orient="row")
    of = scores.drop_in_place("__of")
    ids = pl.Series(EXPLANATION_ID, [each.id for each in said], dtype=pl.String)
    return (
        _keys(said)[of]
        .with_columns(ids.gather(of), *scores.get_columns())
        .select("layer", "neuron", EXPLANATION_ID, *scores.columns, "model")
    )


def _scores_of(line: _Line) -> list[_Score]:
    own = _Score(line.value, line.explanationScoreTypeName, line.explanationScoreModelName)
    # the database has 0 in scoreV1 where there is none
    older = [_Score(line.scoreV1 or None, "scoreV1"), _Score(line.scoreV2, "scoreV2")]
    return [score for score in [own, *(line.scores or []), *older] if score.value is not None]


def _neurons(said: Sequence[_Said]) -> pl.DataFrame:
    lists = [(each.line.freq_hist_data_bar_values, each.line.freq_hist_data_bar_heights) for each in said]
    columns = {
        "max_activation": pl.Series([each.line.maxActApprox for each in said], dtype=pl.Float64),
        "frac_nonzero": pl.Series([each.line.frac_nonzero for each in said], dtype=pl.Float64),
        **{
            name: pl.Series([each[i] or None for each in lists], dtype=pl.List(pl.Float64))
            for i, name in enumerate(HISTOGRAM)
        },
        "file": pl.Series([each.file for each in said], dtype=pl.String),
    }
    finite = pl.when(pl.col(pl.Float64).is_finite()).then(pl.col(pl.Float64))
    return _keys(said).with_columns(**columns).with_columns(finite)
