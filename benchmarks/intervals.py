"""What confidence intervals cost beside the scoring itself, and how often they hold the truth.

python benchmarks/intervals.py                     20,000 neurons of 10 records: time of each method beside scoring
python benchmarks/intervals.py --neurons 307200    all of GPT-2 XL
python benchmarks/intervals.py covers              how often 90% and 95% intervals of ten records hold the truth

The first two use the table that `scoring.py` makes (about 2.5 GB on the disk for all of GPT-2 XL).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import rows

import nscore as ns

SCORE = "ev_correlation_score"
SCORES = [SCORE, "rsquared_score", "absolute_dev_explained_score"]
METHODS = ["jackknife", "percentile", "bca"]
TOKENS = 64
TRUTH_RECORDS = 100_000

Values = npt.NDArray[np.float64]


def dense(rng: np.random.Generator, records: int) -> tuple[Values, Values, Values]:
    """Every token is active, records differ in their level; a decent prediction."""
    t = rng.normal(size=(records, TOKENS)) + rng.normal(size=(records, 1))
    return t, t + rng.normal(size=t.shape), np.zeros(records)


def sparse(rng: np.random.Generator, records: int) -> tuple[Values, Values, Values]:
    """A token in twenty is active, in every record; most are foreseen, and some that are none."""
    active = rng.random((records, TOKENS)) < 0.05
    return *told(rng, active), np.zeros(records)


def rare(rng: np.random.Generator, records: int) -> tuple[Values, Values, Values]:
    """Three records in ten are active at all, a tenth of their tokens: the others are silent."""
    active = (rng.random((records, TOKENS)) < 0.1) & (rng.random((records, 1)) < 0.3)
    return *told(rng, active), np.zeros(records)


def top_and_random(rng: np.random.Generator, records: int) -> tuple[Values, Values, Values]:
    """Half the records are top ones, a seventh of whose tokens is active; of the others one in five, now and then."""
    top = np.arange(records) % 2 == 0
    some = top | (rng.random(records) < 0.2)
    active = (rng.random((records, TOKENS)) < np.where(top, 0.15, 0.05)[:, None]) & some[:, None]
    return *told(rng, active), top.astype(np.float64)


def told(rng: np.random.Generator, active: npt.NDArray[np.bool_]) -> tuple[Values, Values]:
    """Sizes of activations, which differ between records, and a calibrated prediction of 11 values that misses some."""
    t = active * rng.exponential(size=active.shape) * rng.lognormal(sigma=0.5, size=(len(active), 1))
    seen = (active & (rng.random(active.shape) < 0.7)) | (rng.random(active.shape) < 0.02)
    return t, seen * np.clip(np.round(4 * t + rng.normal(3, 1, t.shape)), 1, 10) / 6


POPULATIONS = [dense, sparse, top_and_random, rare]


def table_of(values: tuple[Values, Values, Values], records: int) -> pl.DataFrame:
    """The sequence scores of neurons with so many records each."""
    t, p, top = values
    record = np.arange(len(t)).repeat(TOKENS)
    frame = pl.DataFrame(
        {
            "layer": 0,
            "neuron": record // records,
            "sequence": record % records,
            "activation": t.reshape(-1),
            "predicted": p.reshape(-1),
        }
    )
    stratum = pl.Series(top.repeat(TOKENS) > 0)
    if top.any():
        frame = frame.with_columns(stratum=pl.when(stratum).then(pl.lit("top")).otherwise(pl.lit("random")))
    return ns.score_sequences(frame, metrics=SCORES)


def covers(
    population: Callable[[np.random.Generator, int], tuple[Values, Values, Values]],
    *,
    neurons: int,
    records: int = 10,
    resamples: int = 1000,
    seed: int = 0,
    levels: tuple[float, ...] = (0.9, 0.95),
) -> Iterator[dict[str, object]]:
    """How often the intervals of each method hold the score of very many records, and how many neurons have none."""
    rng = np.random.default_rng(seed)
    truth = ns.pool(table_of(population(rng, TRUTH_RECORDS), TRUTH_RECORDS), metrics=SCORES).row(0, named=True)
    table = table_of(population(rng, neurons * records), records)
    for method in METHODS:
        found = [
            ns.intervals(table, metrics=SCORES, method=method, level=level, resamples=resamples)  # type: ignore[arg-type]
            for level in levels
        ]
        for score in SCORES:
            row: dict[str, object] = {"population": population.__name__, "score": score, "method": method}
            for level, ends in zip(levels, found, strict=True):
                low, high = ends[f"{score}_low"], ends[f"{score}_high"]
                row[f"{level:.0%}"] = ((low <= truth[score]) & (truth[score] <= high)).mean()
                row[f"width {level:.0%}"] = (high - low).median()
            row["none"] = found[0][f"{score}_low"].null_count() / neurons
            row["truth"] = truth[score]
            yield row


def print_covers(neurons: int, records: int) -> None:
    """The table of all populations."""
    print(f"{neurons:,} neurons of {records} records of {TOKENS} tokens; 1,000 resamples\n")
    print("| population | score | method | 90% covers | 95% covers | median width of 95% | no interval |")
    print("|---|---|---|---|---|---|---|")
    for population in POPULATIONS:
        for row in covers(population, neurons=neurons, records=records):
            print(
                f"| {row['population']} | {row['score']} ({row['truth']:.2f}) | {row['method']} | {row['90%']:.1%} | "
                f"{row['95%']:.1%} | {row['width 95%']:.2f} | {row['none']:.1%} |",
                flush=True,
            )


def timed(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def silenced(sequences: pl.DataFrame) -> pl.DataFrame:
    """The same table with every second record silent, as of sparse neurons: constants in activation and prediction."""
    silent = pl.col("sequence") % 2 == 0
    columns = [c for c in sequences.columns if c.endswith(("_mean", "_m2", "_sum", "comoment"))]
    return sequences.with_columns(pl.when(silent).then(0.0).otherwise(c).alias(c) for c in columns)


def side_by_side(file: Path, rounds: int) -> None:
    """Scoring and each method in turn, round after round; medians, and medians of each round's ratios."""
    sequences = ns.score_sequences(file)
    quiet = silenced(sequences)
    shifted = sequences.with_columns(pl.col("predicted_mean") + 0.1)
    works: dict[str, Callable[[], object]] = {
        "`score_sequences` and `pool`": lambda: ns.pool(ns.score_sequences(file)),
        "jackknife, one score": lambda: ns.intervals(sequences, metrics=SCORE, method="jackknife"),
        "percentile, one score": lambda: ns.intervals(sequences, metrics=SCORE, method="percentile"),
        "bca, one score": lambda: ns.intervals(sequences, metrics=SCORE, method="bca"),
        "bca, one score, half the records silent": lambda: ns.intervals(quiet, metrics=SCORE, method="bca"),
        "bca, the original's three scores": lambda: ns.intervals(sequences, metrics=SCORES, method="bca"),
        "`compare`, one score": lambda: ns.compare(sequences, shifted, metrics=SCORE),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(timed(work))
    base = next(iter(taken.values()))
    print("| what | median | x scoring |\n|---|---|---|")
    for name, times in taken.items():
        ratio = statistics.median(t / b for t, b in zip(times, base, strict=True))
        print(f"| {name} | {statistics.median(times):.2f} s | {ratio:.2f} |")


def main() -> None:
    """Makes the rows if they are not there, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["time", "covers"], default="time")
    parser.add_argument("--neurons", type=int, help="(default: 20,000; for covers 5,000)")
    parser.add_argument("--records", type=int, default=10, help="of each neuron, for covers (default: 10)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nscore-benchmarks")
    arguments = parser.parse_args()
    if arguments.what == "covers":
        print_covers(arguments.neurons or 5_000, arguments.records)
        return
    neurons = arguments.neurons or 20_000
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / f"simulated-{neurons}.parquet"
    if not file.exists():
        part = file.with_suffix(".part")
        rows.write(part, neurons)
        part.replace(file)
    print(f"{neurons:,} neurons, {rows.RECORDS} records each; 1,000 resamples")
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, Polars {pl.__version__}, numpy {np.__version__}\n"
    )
    side_by_side(file, arguments.rounds)


if __name__ == "__main__":
    main()
