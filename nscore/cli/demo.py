"""`nscore demo`: the whole chain on the bundled sample: records, simulate, calibrate, score."""

from __future__ import annotations

import argparse

import polars as pl

import nscore as ns
from nscore._drawing.table import plain_table
from nscore._progress import bar
from nscore._tables.stores import Place
from nscore.cli._common import add_executor, add_json, add_output, executor_of, print_json, summarise, write
from nscore.executors import make_executor
from nscore.metrics import DEFAULT
from nscore.records import EXPLANATION, LAYER, NEURON, SIMULATOR

__all__ = ["configure", "run"]

SIMULATORS = ["lexical", "token_lookup", "constant", "shuffled"]
PREFERRED = DEFAULT[0]


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    add_output(parser, default="nscore-demo")
    add_executor(parser, "local")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the chain, writes every table, and says what to look at."""
    out: Place = arguments.out
    records, explanations = ns.sample.records(), ns.sample.explanations()
    who = make_executor(executor_of(arguments) or "local", workers=arguments.workers)
    with bar("simulate", "tokens"):
        simulated = ns.simulate(records, explanations, simulator=SIMULATORS, executor=who)
    fitted = ns.fit_calibration(simulated)
    calibrated = ns.calibrate(simulated, fitted=fitted)
    before = {"records": records, "explanations": explanations, "simulated": calibrated, "calibration": fitted}
    files = [write(frame, out, name) for name, frame in before.items()]
    scores, sequences = ns.score_shards(out / "simulated.parquet", executor=who, strata=True)
    files += [write(sequences, out, "sequence_scores"), write(scores, out, "scores")]
    if arguments.json:
        print_json({"scores": summarise(scores, list(DEFAULT)), "files": files})
        return 0

    ranked = (
        scores.filter(pl.col(SIMULATOR) == "lexical")
        .join(
            scores.filter(pl.col(SIMULATOR) == "shuffled").select(LAYER, NEURON, chance=PREFERRED),
            on=[LAYER, NEURON],
        )
        .join(explanations.select(LAYER, NEURON, EXPLANATION), on=[LAYER, NEURON])
        .sort(PREFERRED, descending=True)
        .select(LAYER, NEURON, PREFERRED, "rsquared_score", f"random_only_{PREFERRED}", "chance", EXPLANATION)
        .rename({PREFERRED: "score", "rsquared_score": "r2", f"random_only_{PREFERRED}": "random only"})
    )
    neurons = records.select(LAYER, NEURON).n_unique()
    print(f"{neurons} MLP neurons of all-MiniLM-L6-v2, {records.height:,} tokens of real activations.")
    print("Each explanation was written from the train records alone and is scored on valid and test.\n")
    print(plain_table(summarise(scores, [PREFERRED]).drop("n")))
    print(f"\nThe best and the worst explanations ({PREFERRED}; chance: the same with another neuron's explanation):\n")
    print(plain_table(pl.concat([ranked.head(6), ranked.tail(3)]), width=70))
    print(f"\nThe tables lie in {out}/ as Parquet. Look at")
    print(f"  {out}/scores.parquet           one row an explanation and simulator")
    print(f"  {out}/sequence_scores.parquet  one row a record, with the moments that pooled scores merge")
    print(f"  {out}/simulated.parquet        one row a token: activation beside predicted")
    print("With your own tables: nscore simulate RECORDS EXPLANATIONS -o DIR, then calibrate, then score.")
    return 0
