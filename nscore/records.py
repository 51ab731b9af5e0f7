"""The words of nscore: the columns of its tables, their kinds, the keys, the splits that are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import polars as pl

from nscore.errors import TableError

__all__ = [
    "EXPLANATIONS",
    "JUDGEMENTS",
    "RECORDS",
    "SCORED_SPLITS",
    "SCORES",
    "SEQUENCE_SCORES",
    "SIMULATED",
    "TABLES",
    "Split",
    "Status",
    "Table",
    "default_by",
    "judgement_keys",
]

# What identifies a neuron, an explanation of it, and a prediction for it.
LAYER, NEURON = "layer", "neuron"
EXPLANATION_ID, SIMULATOR = "explanation_id", "simulator"
# A record and its tokens.
SEQUENCE, POSITION, TOKEN = "sequence", "position", "token"
ACTIVATION, PREDICTED, PREDICTED_RAW, STATUS = "activation", "predicted", "predicted_raw", "status"
# What a simulator that asks a model adds: the probability on valid activations and that of each, the spread between
# replicates and how many there were, which prompts they answered.
DIGIT_MASS, DISTRIBUTION, SPREAD, N_REPLICATES = "digit_mass", "distribution", "spread", "n_replicates"
PROMPT_VERSION = "prompt_version"
# What is the same on every token of a record.
SPLIT, STRATUM, SHOWN = "split", "stratum", "shown"
# Explanations.
EXPLANATION, SHOWN_SEQUENCES = "explanation", "shown_sequences"
# Judgements: which scorer asked, about what; what is true, what was answered, and how likely "active" was.
SCORER, ITEM, LABEL, PREDICTED_LABEL, PROBABILITY = "scorer", "item", "label", "predicted_label", "probability"
N_JUDGEMENTS, N_JUDGED = "n_judgements", "n_judged"
# Scores.
N_SEQUENCES, N_TOKENS, N_PREDICTED, N_SCORED = "n_sequences", "n_tokens", "n_predicted", "n_scored"
COVERAGE, LOW_COVERAGE, ON_FAILURE, FAILURES = "coverage", "low_coverage", "on_failure", "failures"

LEAST_COVERAGE = 0.95
"""Scores of an explanation of whose tokens a smaller share was predicted are flagged: they tell of the rest alone."""

Split = Literal["train", "calibration", "valid", "test"]
SCORED_SPLITS: tuple[Split, ...] = ("valid", "test")

Status = Literal[
    "ok",
    "length_mismatch",  # an answer about another number of tokens, or about other tokens
    "parse_error",  # an answer that cannot be read
    "no_answer",  # no activation among the likeliest tokens where one was to stand
    "truncated",  # the answer ended at its limit
    "refused",  # the model would not, or a filter stepped in
    "http_error",  # the server did not answer, or answered with an error
    "too_long",  # the record is longer than what is sent
    "not_run",
    "not_calibrated",
]
OK: Status = "ok"
NOT_RUN: Status = "not_run"
NOT_CALIBRATED: Status = "not_calibrated"
FAILING: tuple[Status, ...] = tuple(status for status in get_args(Status) if status != OK)
"""The classes of failure, in the order in which `failures` counts them."""

OnFailure = Literal["drop", "zero"]

Kind = Literal["any", "text", "integer", "number", "flag", "list", "counts"]


@dataclass(frozen=True, slots=True)
class Table:
    """What a table must hold besides its keys, and what it may hold; any other column travels along."""

    name: str
    required: dict[str, Kind]
    optional: dict[str, Kind] = field(default_factory=dict)

    def check(self, schema: pl.Schema, where: str, by: Sequence[str] = ()) -> None:
        """Raises a `TableError` for the first missing column or wrong dtype; of keys, too, which must be in order."""
        for column in [*by, *self.required]:
            if column not in schema:
                raise TableError(
                    "missing column",
                    where,
                    column=column,
                    found=f"the columns are {', '.join(schema) or 'none'}",
                    mend=f"A table of {self.name} needs {', '.join(dict.fromkeys([*by, *self.required]))}: rename a column"
                    + (f", or name your keys with by=[...] instead of {column!r}." if column in by else "."),
                )
        keys: dict[str, Kind] = dict.fromkeys(by, "any")
        for column, kind in (keys | self.required | self.optional).items():
            if column in schema and not _is(schema[column], kind):
                raise TableError(
                    "wrong dtype",
                    where,
                    column=column,
                    found=f"found {schema[column]}, expected {_WANTED[kind]}",
                    mend=_mend_dtype(column, schema[column], kind),
                )


_MARKS: dict[str, Kind] = {SPLIT: "text", STRATUM: "text"}
RECORDS = Table("records", {SEQUENCE: "any", POSITION: "integer", TOKEN: "text", ACTIVATION: "number"}, _MARKS)
EXPLANATIONS = Table("explanations", {EXPLANATION_ID: "any", EXPLANATION: "text"}, {SHOWN_SEQUENCES: "list"})
SIMULATED = Table(
    "simulated",
    {SEQUENCE: "any", ACTIVATION: "number", PREDICTED: "number"},
    _MARKS
    | {
        POSITION: "integer",
        TOKEN: "text",
        STATUS: "text",
        PREDICTED_RAW: "number",
        DIGIT_MASS: "number",
        SPREAD: "number",
        N_REPLICATES: "integer",
        SHOWN: "flag",
    },
)
SEQUENCE_SCORES = Table(
    "sequence_scores",
    {SEQUENCE: "any", N_TOKENS: "integer", N_PREDICTED: "integer", ON_FAILURE: "text"},
    _MARKS | {FAILURES: "counts", N_SCORED: "number", COVERAGE: "number"},
)
SCORES = Table(
    "scores",
    {N_SEQUENCES: "integer", N_TOKENS: "integer", COVERAGE: "number"},
    {N_PREDICTED: "integer", FAILURES: "counts", LOW_COVERAGE: "flag"},
)
JUDGEMENTS = Table(
    "judgements",
    {ITEM: "any", LABEL: "flag", PREDICTED_LABEL: "flag"},
    {SCORER: "any", PROBABILITY: "number", STATUS: "text", STRATUM: "text"},
)
TABLES = {table.name: table for table in (RECORDS, EXPLANATIONS, SIMULATED, SEQUENCE_SCORES, SCORES, JUDGEMENTS)}


def default_by(columns: Iterable[str]) -> list[str]:
    """The keys where `by` is left out: `layer`, `neuron` and, where they exist, `simulator`, `explanation_id`.

    >>> default_by(["layer", "neuron", "explanation_id", "sequence"])
    ['layer', 'neuron', 'explanation_id']
    """
    present = set(columns)
    return [LAYER, NEURON, *(k for k in (SIMULATOR, EXPLANATION_ID) if k in present)]


def judgement_keys(columns: Iterable[str]) -> list[str]:
    """The keys of judgements where `by` is left out: those of an explanation and, where it exists, `scorer`.

    >>> judgement_keys(["layer", "neuron", "scorer", "item", "label"])
    ['layer', 'neuron', 'scorer']
    """
    present = list(columns)
    return [*default_by(present), *([SCORER] if SCORER in present else [])]


def scored_splits(columns: Iterable[str], asked: Sequence[str] | None) -> tuple[str, ...] | None:
    """The splits whose records are scored; None where the table has no `split`, so that all are.

    Raises:
        TableError: if splits were asked for by name and the table has none, or a name is no split's.
    """
    known = get_args(Split)
    for split in asked or ():
        if split not in known:
            raise TableError(
                "unknown split",
                "splits=",
                found=f"found {split!r}, expected some of {', '.join(known)}",
                mend="Correct the name.",
            )
    if SPLIT in set(columns):
        return SCORED_SPLITS if asked is None else tuple(asked)
    if asked is not None:
        raise TableError(
            "missing column",
            "splits=",
            column=SPLIT,
            found=f"splits {', '.join(asked)} were asked for and the table has no such column",
            mend="Add it (see nscore.assign_splits), or leave splits= out to score every record.",
        )
    return None


_WANTED: dict[Kind, str] = {
    "any": "single values",
    "text": "text (String, Categorical or Enum)",
    "integer": "an integer dtype",
    "number": "a float or integer dtype",
    "flag": "Boolean",
    "list": "a list of sequences",
    "counts": "a struct of integers, one for each failing status",
}


def _is(dtype: pl.DataType, kind: Kind) -> bool:
    match kind:
        case "any":
            return not (dtype.is_nested() or dtype == pl.Object)
        case "text":
            return is_text(dtype)
        case "integer":
            return dtype.is_integer()
        case "number":
            # a column in which nothing is known yet has the dtype Null
            return dtype.is_float() or dtype.is_integer() or dtype == pl.Null
        case "flag" | "list":
            return dtype == (pl.Boolean if kind == "flag" else pl.List)
        case "counts":
            fields = dtype.fields if isinstance(dtype, pl.Struct) else []
            return bool(fields) and all(field.dtype.is_integer() for field in fields)


def is_text(dtype: pl.DataType) -> bool:
    """Whether a column holds texts, in whichever form."""
    return dtype in (pl.String, pl.Categorical, pl.Enum)


def _mend_dtype(column: str, dtype: pl.DataType, kind: Kind) -> str:
    if kind == "any":
        return f"Keys are compared and sorted: make one value of it, such as a text or a number, in {column!r}."
    if dtype == pl.List and kind not in {"list", "counts"}:
        return "One row is one token: explode the lists first, frame.explode('token', 'activation', ...)."
    if kind == "counts":
        return "Score the tokens again (nscore.score_sequences), or drop the column: what failed is then not known."
    cast = {"text": "pl.String", "integer": "pl.Int32", "number": "pl.Float32", "flag": "pl.Boolean"}
    return f"Cast it: frame.with_columns(pl.col({column!r}).cast({cast.get(kind, 'pl.List(pl.Int64)')}))."
