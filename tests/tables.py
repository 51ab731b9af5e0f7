"""Small tables that tests start from, ways to hand them over, and what a refusal must say."""

from __future__ import annotations

import re
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from nscore.errors import TableError

QUICK = settings(max_examples=25, deadline=None)
LENGTHS = st.integers(1, 9)

# Each mend, word for word.
SPLITS = "train, calibration, valid, test"
EXPLODE = "One row is one token: explode the lists first, frame.explode('token', 'activation', ...)."
GAP = "Expected 0, 1, 2, ... in each record; a token whose prediction is not known keeps its row, with null."
LOST = "Drop the record, or see where its {} was lost."
NULL_KEY = "Fill it in, or drop the row."
REWRITE = "Expected whole Parquet files with the same columns; write the file again."


def cast_mend(column, dtype):
    return f"Cast it: frame.with_columns(pl.col({column!r}).cast({dtype}))."


def records(**columns):
    """Two records of three tokens each, of neuron 7 in layer 0."""
    usual = {
        "layer": [0] * 6,
        "neuron": [7] * 6,
        "sequence": [1, 1, 1, 2, 2, 2],
        "position": [0, 1, 2, 0, 1, 2],
        "token": ["a", " red", " fox", "the", " blue", " sky"],
        "activation": [0.0, 1.0, 0.5, 0.0, 2.0, 0.25],
    }
    return pl.DataFrame(usual | columns)


def explanations(**columns):
    """Two explanations of neuron 7 in layer 0."""
    usual = {
        "layer": [0, 0],
        "neuron": [7, 7],
        "explanation_id": ["a", "b"],
        "explanation": ['the colour "red"', "words for the sky"],
    }
    return pl.DataFrame(usual | columns)


def simulated(**columns):
    """Both explanations of both records: record 1 is for calibration, record 2 is scored."""
    once = records(split=["calibration"] * 3 + ["test"] * 3)
    twice = pl.concat([once.with_columns(explanation_id=pl.lit(name)) for name in "ab"])
    predicted = [1.0, 9.0, 4.0, 2.0, 8.0, 0.0, 7.0, 1.0, 3.0, 0.0, 5.0, 6.0]
    return twice.with_columns(
        **{"predicted": pl.Series(predicted)} | {name: pl.Series(values) for name, values in columns.items()}
    )


@contextmanager
def refused(problem, where="the frame", *, column=None, found, mend):
    """The block raises a `TableError` of exactly these words: problem, place, what was found, the mend."""
    with pytest.raises(TableError) as caught:
        yield caught
    error = caught.value
    assert (error.problem, error.where, error.column) == (problem, str(where), column)
    place = f"{where}, column {column!r}" if column else str(where)
    assert str(error) == f"{place}: {problem}: {found}. {mend}"


def row_of(error, name="the frame"):
    """The number of the row in an error's place."""
    match = re.fullmatch(re.escape(str(name)) + r", row (\d+)", error.where)
    assert match, error.where
    return int(match[1])


def as_files(folder, frame, *, n_files=3):
    """Writes the frame as so many files of as many rows each; their paths."""
    folder.mkdir(exist_ok=True)
    height = -(-frame.height // n_files)
    paths = [folder / f"part-{i}.parquet" for i in range(n_files)]
    for i, path in enumerate(paths):
        frame.slice(i * height, height).write_parquet(path)
    return paths


@st.composite
def shuffles(draw, frame):
    """The rows of a frame in any order."""
    return frame[draw(st.permutations(range(frame.height)))]


@st.composite
def scored(draw, lengths=LENGTHS, *, nulls=True):
    """A simulated table that lies record by record, with positions and a stratum."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    frames = []
    for neuron in range(draw(st.integers(1, 3))):
        for sequence in range(draw(st.integers(1, 4))):
            n = draw(lengths)
            t, p = (_values(rng, draw(st.sampled_from(["normal", "whole", "zero", "constant"])), n) for _ in "tp")
            keys = {"layer": 0, "neuron": neuron, "explanation_id": "a", "sequence": sequence}
            marks = {"position": range(n), "stratum": "top" if sequence % 2 else "random"}
            frames.append(pl.DataFrame(keys | marks | {"activation": t, "predicted": p}))
    table = pl.concat(frames)
    known = rng.random(table.height) < (draw(st.sampled_from([1.0, 0.7, 0.0])) if nulls else 1.0)
    return table.with_columns(predicted=pl.when(pl.Series(known)).then("predicted"))


def _values(rng, kind, n):
    match kind:
        case "normal":
            return rng.normal(size=n)
        case "whole":
            return rng.integers(0, 11, size=n).astype(np.float64)
        case "zero":
            return np.zeros(n)
        case _:
            return np.full(n, rng.normal())
