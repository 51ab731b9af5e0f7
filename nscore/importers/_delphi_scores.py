"""Delphi's score files: what judges said of each item (detection, fuzzing), and scored simulations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import polars as pl

from nscore.importers._json import decoded
from nscore.importers._long import finite, keys_of, long
from nscore.importers._places import SourceFile
from nscore.importers._protocol import Parsed
from nscore.importers._simulations import (
    SCORES,
    Results,
    Score,
    Scored,
    ScoredSequence,
    Simulation,
    number,
    simulation_tables,
)
from nscore.importers._simulations import Sequences as Simulated
from nscore.records import (
    ACTIVATION,
    EXPLANATION_ID,
    ITEM,
    LABEL,
    N_SEQUENCES,
    OK,
    PREDICTED_LABEL,
    PROBABILITY,
    SCORER,
    SEQUENCE,
    STATUS,
    STRATUM,
    TOKEN,
)

__all__ = ["SCORES_MADE", "Judged", "SimulatedLatent", "judgement_tables", "parse_scores", "simulation_tables_of"]

SCORES_MADE = (
    "judgements",
    "judged",
    "simulated",
    "published_scores",
    "published_sequence_scores",
    "published_stratum_scores",
)
NOT_ACTIVE = "not_active"
ALL = 0
FAILED = "parse_error"

_MEND = "Mend the file, or leave it out (--on-error skip)."


class _Sequence(ScoredSequence[Simulation], gc=False):
    """A sequence, and of which quantile it is (-1: the latent does not fire in it)."""

    distance: float | None = None


class _Entry(msgspec.Struct, gc=False):
    """An item that was judged, or a group of sequences that were simulated; older runs say `ground_truth` and `text`."""

    distance: float | None = None
    activating: bool | float | None = None
    ground_truth: bool | float | None = None
    prediction: bool | float | None = None
    probability: float | None = None
    str_tokens: list[str] | None = None
    activations: list[float | None] | None = None
    text: str | None = None
    highlighted: bool | None = None
    scored_sequence_simulations: list[_Sequence] | None = None
    ev_correlation_score: Score = None
    rsquared_score: Score = None
    absolute_dev_explained_score: Score = None


_ENTRIES = msgspec.json.Decoder(list[_Entry])


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgements of one file; `labels` are the true ones."""

    layer: str
    neuron: int
    scorer: str
    entries: list[_Entry]
    labels: list[bool]


@dataclass(frozen=True, slots=True)
class SimulatedLatent:
    """The simulations of one file: all sequences, and the scores of each stratum: its name, how many sequences, the three."""

    results: Results[Simulation]
    strata: list[tuple[str | None, int, list[float | None]]]


def parse_scores(
    file: SourceFile, content: bytes, latent: tuple[str, int], *, scorer: str, explanation_id: str
) -> Parsed[Any]:
    """What a score file holds.

    Raises:
        SourceError: if it is broken.
    """
    entries = decoded(file, content, _ENTRIES)
    if any(entry.scored_sequence_simulations is not None for entry in entries):
        return _simulations(file, entries, latent, explanation_id)
    if all(entry.activating is None and entry.ground_truth is None for entry in entries):
        what = f"score files of a kind that is not read ({scorer})" if entries else "score files without an entry"
        return Parsed(0, None, Counter({what: 1}))
    labels = [_label(file, i, entry) for i, entry in enumerate(entries)]
    tokens = sum(len(entry.str_tokens or ()) for entry in entries)
    values = chain.from_iterable(entry.activations or () for entry in entries if entry.str_tokens)
    left_out = Counter(
        {
            "answers of judges that Delphi could not get or read (now null)": sum(
                _said(e.prediction) is None for e in entries
            ),
            "judged items without activations (older runs have texts alone)": sum(not e.str_tokens for e in entries),
            "activations that are no finite numbers (now null)": finite(list(values)).null_count(),
        }
    )
    return Parsed(max(tokens, len(entries)), Judged(*latent, scorer, entries, labels), +left_out)


def judgement_tables(judged: Sequence[Judged], explanation_id: str) -> dict[str, pl.DataFrame]:
    """`judgements`, and `judged`: the tokens of the items, their `sequence` the `item`; the latter where a file has tokens."""
    each = [(of, i, entry) for of in judged for i, entry in enumerate(of.entries)]
    said = [_said(entry.prediction) for *_, entry in each]
    table = pl.DataFrame(
        _keys([of for of, *_ in each])
        | {
            EXPLANATION_ID: pl.Series([explanation_id] * len(each), dtype=pl.String),
            SCORER: pl.Series([of.scorer for of, *_ in each], dtype=pl.String),
            ITEM: pl.Series([i for _, i, _ in each], dtype=pl.Int32),
            LABEL: pl.Series(list(chain.from_iterable(of.labels for of in judged)), dtype=pl.Boolean),
            PREDICTED_LABEL: pl.Series(said, dtype=pl.Boolean),
            PROBABILITY: pl.Series([_probability(entry) for *_, entry in each], dtype=pl.Float64),
            STATUS: pl.Series([FAILED if s is None else OK for s in said], dtype=pl.String),
            STRATUM: pl.Series([_stratum(of.labels[i], entry) for of, i, entry in each], dtype=pl.String),
            "distance": pl.Series([entry.distance for *_, entry in each], dtype=pl.Float64).fill_nan(None),
            "highlighted": pl.Series([entry.highlighted for *_, entry in each], dtype=pl.Boolean),
            "text": pl.Series([_text(entry) for *_, entry in each], dtype=pl.String),
        }
    )
    shown = [(of, i, entry) for of, i, entry in each if entry.str_tokens]
    if not shown:
        return {"judgements": table}
    index = pl.DataFrame(
        _keys([of for of, *_ in shown])
        | {
            SCORER: pl.Series([of.scorer for of, *_ in shown], dtype=pl.String),
            SEQUENCE: pl.Series([i for _, i, _ in shown], dtype=pl.Int32),
            STRATUM: pl.Series([_stratum(of.labels[i], entry) for of, i, entry in shown], dtype=pl.String),
        }
    )
    tokens = [entry.str_tokens or [] for *_, entry in shown]
    columns = {
        TOKEN: pl.Series(list(chain.from_iterable(tokens)), dtype=pl.String),
        ACTIVATION: finite(list(chain.from_iterable(entry.activations or () for *_, entry in shown))),
    }
    return {"judgements": table, "judged": long(index, [len(t) for t in tokens], columns)}


def simulation_tables_of(simulated: Sequence[SimulatedLatent]) -> dict[str, pl.DataFrame]:
    """`simulated` with its strata, and the published scores: of all sequences, of each, and of each stratum."""
    results = [latent.results for latent in simulated]
    made = simulation_tables(results, distribution=False)
    made.pop("explanations")  # these files do not say them
    sequences = [s for r in results for *_, s in r.sequences() if isinstance(s, _Sequence)]
    strata = pl.Series(STRATUM, [_quantile(s.distance) for s in sequences], dtype=pl.String)
    of_tokens = strata.gather([i for i, s in enumerate(sequences) for _ in s.true_activations])
    rows = [(latent.results, *row) for latent in simulated for row in latent.strata]
    by_stratum = pl.DataFrame(
        keys_of([r.layer for r, *_ in rows], [r.neuron for r, *_ in rows])
        | {
            EXPLANATION_ID: pl.Series([r.ids[0] for r, *_ in rows], dtype=pl.String),
            STRATUM: pl.Series([name for _, name, *_ in rows], dtype=pl.String),
            N_SEQUENCES: pl.Series([n for _, _, n, _ in rows], dtype=pl.Int32),
        }
        | {name: pl.Series([s[i] for *_, s in rows], dtype=pl.Float64) for i, name in enumerate(SCORES)}
    )
    return made | {
        "simulated": made["simulated"].with_columns(of_tokens),
        "published_sequence_scores": made["published_sequence_scores"].with_columns(strata),
        "published_stratum_scores": by_stratum,
    }


def _simulations(file: SourceFile, groups: list[_Entry], latent: tuple[str, int], explanation_id: str) -> Parsed[Any]:
    for i, group in enumerate(groups):
        if group.scored_sequence_simulations is None:
            raise file.fault("no scored_sequence_simulations", place=f"$[{i}]", mend=_MEND)
    left_out: Counter[str] = Counter()
    scored: list[_Entry | _Sequence] = [
        *groups,
        *chain.from_iterable(group.scored_sequence_simulations or () for group in groups),
    ]
    if all(not each.rsquared_score and not each.absolute_dev_explained_score for each in scored):
        left_out["rsquared_score and absolute_dev_explained_score (Delphi has 0 for them, whatever they are)"] = 1
        for each in scored:
            each.rsquared_score = each.absolute_dev_explained_score = None
    whole = [group for group in groups if group.distance == ALL]
    if len(whole) > 1:
        raise file.fault(f"{len(whole)} groups of distance 0: expected one", mend=_MEND)
    others = [group for group in groups if group.distance != ALL]
    # where no sequence was taken in which the latent is silent, there is no group of all of them
    every = whole[0] if whole else _Entry()
    sequences: list[ScoredSequence[Simulation]] = [
        sequence for group in whole or others for sequence in group.scored_sequence_simulations or ()
    ]
    said = Simulated(sequences, every.ev_correlation_score, every.rsquared_score, every.absolute_dev_explained_score)
    results = Results(file, "", *latent, [Scored(scored_simulation=said)], [explanation_id])
    strata = [
        (
            _quantile(None if group.distance is None else group.distance - 1),
            len(group.scored_sequence_simulations or ()),
            [number(getattr(group, name)) for name in SCORES],
        )
        for group in others
    ]
    found = SimulatedLatent(results, strata)
    return Parsed(results.rows, found, left_out + results.left_out(distribution=True))


def _keys(of: Sequence[Judged]) -> dict[str, pl.Series]:
    return keys_of([each.layer for each in of], [each.neuron for each in of])


def _label(file: SourceFile, i: int, entry: _Entry) -> bool:
    said = entry.ground_truth if entry.activating is None else entry.activating
    if said not in {0, 1}:
        raise file.fault(f"found {said}, expected true or false", place=f"$[{i}].activating", mend=_MEND)
    n, m = len(entry.str_tokens or ()), len(entry.activations or ())
    if n != m and entry.str_tokens is not None:
        raise file.fault(f"{n} str_tokens and {m} activations: expected as many of each", place=f"$[{i}]", mend=_MEND)
    return bool(said)


def _said(prediction: bool | float | None) -> bool | None:  # noqa: FBT001  (as it stands in the file)
    """What the judge said; older runs have -1 where it said nothing, and some numbers for yes and no."""
    return None if prediction is None or not 0 <= prediction <= 1 else prediction >= 0.5


def _probability(entry: _Entry) -> float | None:
    known = entry.probability is not None and 0 <= entry.probability <= 1
    return entry.probability if known and _said(entry.prediction) is not None else None


def _stratum(label: bool, entry: _Entry) -> str | None:  # noqa: FBT001
    return _quantile(entry.distance) if label else NOT_ACTIVE


def _quantile(distance: float | None) -> str | None:
    if distance is None:
        return None
    return f"quantile_{int(distance)}" if 0 <= distance < 1 << 31 else NOT_ACTIVE


def _text(entry: _Entry) -> str | None:
    return "".join(entry.str_tokens) if entry.text is None and entry.str_tokens else entry.text
