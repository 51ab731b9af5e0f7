"""Small tables that the tests of simulators, of simulate and of the command line share, and how they run a command."""

from __future__ import annotations

import json
import os

import polars as pl
from hypothesis import settings

import nscore as ns
from nscore.cli import main

# Polars' first call may take as long as all the others: examples have no deadline.
PROPERTY = settings(deadline=None, max_examples=40)


def record(tokens, activation=0.0, **columns):
    """The rows of one record; `activation` is one number, or one for each token."""
    given = {"layer": 0, "neuron": 7, "sequence": 1} | columns
    rows = pl.DataFrame({"token": pl.Series(tokens, dtype=pl.String)})
    values = activation if isinstance(activation, list) else [activation] * len(tokens)
    return rows.select(
        *(pl.lit(value).alias(name) for name, value in given.items()),
        pl.int_range(pl.len()).alias("position"),
        "token",
        pl.Series("activation", values, dtype=pl.Float64),
    )


def explained(*texts, **columns):
    """One explanation of the neuron for each text, called a, b, c, ..."""
    given = {"layer": 0, "neuron": 7} | columns
    told = pl.DataFrame({"explanation_id": list("abcdefgh"[: len(texts)]), "explanation": list(texts)})
    return told.select(*(pl.lit(value).alias(name) for name, value in given.items()), pl.all())


def predictions(explanation, tokens, simulator="lexical"):
    """What a simulator predicts for the tokens of one record."""
    return predictions_of([(explanation, tokens)], simulator)[0]


def predictions_of(cases, simulator="lexical"):
    """The same for many pairs of an explanation and tokens, each a neuron of its own, in one call."""
    records = pl.concat(record(tokens, neuron=n) for n, (_, tokens) in enumerate(cases))
    explanations = pl.concat(explained(text, neuron=n) for n, (text, _) in enumerate(cases))
    result = ns.simulate(records, explanations, simulator=simulator)
    return result.group_by("neuron", maintain_order=True).agg("predicted")["predicted"].to_list()


WORDS = {7: "red", 8: "blue", 9: "green"}  # neurons, and the word at which each fires
SPLITS = ("train", "calibration", "valid", "test")


def small_records():
    """Three neurons with eight records each: a top and a random one in every split."""
    rows = []
    for neuron, word in WORDS.items():
        for i, split in enumerate(SPLITS):
            top = ["the", word, "fox", "sees", "a", list(WORDS.values())[i % 3]]
            other = ["no", "colour", "stands", "here", word] if i % 2 else ["a", "plain", "text"]
            for stratum, tokens in enumerate([top, other]):
                fires = [round(3.0 + 0.1 * i, 1) if t == word else 0.1 * k for k, t in enumerate(tokens)]
                marks = {"split": split, "stratum": ("top", "random")[stratum]}
                rows.append(record(tokens, fires, neuron=neuron, sequence=2 * i + stratum, **marks))
    return pl.concat(rows)


def small_explanations():
    """One explanation for each neuron; its author was shown the train records."""
    told = [explained(f'the colour "{word}"', neuron=neuron) for neuron, word in WORDS.items()]
    return pl.concat(told).with_columns(pl.concat_list(pl.lit(0), pl.lit(1)).alias("shown_sequences"))


def write_small_tables(folder):
    """Writes both as `records.parquet` and `explanations.parquet`."""
    small_records().write_parquet(folder / "records.parquet")
    small_explanations().write_parquet(folder / "explanations.parquet")


def enter(folder, monkeypatch):
    """Makes a folder the working one, with small tables in it, and no setting from outside; gives it."""
    for name in [name for name in os.environ if name.startswith(("NSCORE_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    write_small_tables(folder)
    return folder


def command(capsys, *arguments):
    """Runs the command line in this process: its exit code, stdout and stderr."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as end:
        code = end.code
    written = capsys.readouterr()
    return code, written.out, written.err


def read_json(text):
    """JSON as the standard has it: no NaN, no infinities."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)
