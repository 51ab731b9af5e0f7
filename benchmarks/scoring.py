"""Parquet to the two tables of scores, beside what a user would otherwise run, in one run.

python benchmarks/scoring.py                              20,000 neurons, 12.8 million rows, all contenders
python benchmarks/scoring.py --neurons 307200 --memory    all of GPT-2 XL: time and peak memory, each in a new process

Needs the extra `bench` (DuckDB) and, for the full table, about 2.5 GB on the disk.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import rows

import nscore as ns

KEYS = ["layer", "neuron"]
LOOP_NEURONS = 500  # the loop is timed on so many and reckoned up


def floor(file: Path) -> None:
    """What decoding the columns that must be read costs."""
    columns = [pl.col("activation", "predicted").sum(), pl.col(*KEYS, "sequence", "position").max()]
    pl.scan_parquet(file).select(columns).collect(engine="streaming")


def nscore(file: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The public functions with their defaults, validation included."""
    sequences = ns.score_sequences(file)
    return sequences, ns.pool(sequences)


def expressions(file: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The metrics' own expressions in two streaming group-bys."""
    metrics = [ns.ev_correlation_score(), ns.rsquared_score(), ns.absolute_dev_explained_score()]
    tokens = pl.scan_parquet(file)
    sequences = tokens.group_by(*KEYS, "sequence").agg(metrics).collect(engine="streaming")
    return sequences, tokens.group_by(KEYS).agg(metrics).collect(engine="streaming")


def duckdb(file: Path) -> tuple[object, object]:
    """The same two tables in SQL."""
    import duckdb

    scores = """
        coalesce(corr(activation, predicted), 0) AS ev_correlation_score,
        1 - sum(pow(activation::DOUBLE - predicted, 2)) / sum(pow(activation::DOUBLE, 2)) AS rsquared_score,
        1 - sum(abs(activation::DOUBLE - predicted)) / sum(abs(activation::DOUBLE)) AS absolute_dev_explained_score
    """
    connection = duckdb.connect()
    connection.execute(f"SET threads = {pl.thread_pool_size()}")
    return tuple(
        connection.sql(f"SELECT {keys}, {scores} FROM '{file}' GROUP BY {keys}").to_arrow_table()
        for keys in ("layer, neuron, sequence", "layer, neuron")
    )


def loop(file: Path) -> list[object]:
    """One neuron and one record at a time over Python lists, with numpy's formulas, as the original does."""
    tokens = pl.scan_parquet(file).head(LOOP_NEURONS * rows.RECORDS * rows.TOKENS)
    lists = tokens.group_by(*KEYS, "sequence", maintain_order=True).agg("activation", "predicted").collect()
    neurons = [
        list(zip(part["activation"].to_list(), part["predicted"].to_list(), strict=True))
        for part in lists.partition_by(KEYS, maintain_order=True)
    ]
    started = time.perf_counter()
    result = [[*(loop_scores(*record) for record in n), loop_scores(*map(flat, zip(*n, strict=True)))] for n in neurons]
    loop.seconds = (time.perf_counter() - started) / len(neurons)  # type: ignore[attr-defined]
    return result


def flat(lists: tuple[list[float], ...]) -> list[float]:
    """One list of several."""
    return [x for part in lists for x in part]


def loop_scores(true: list[float], predicted: list[float]) -> tuple[float, float, float]:
    """The three original scores of two lists."""
    with np.errstate(all="ignore"):
        correlation = np.nan_to_num(np.corrcoef(true, predicted)[0, 1])
        t, p = np.array(true), np.array(predicted)
        squares = 1 - np.mean(np.square(t - p)) / np.mean(np.square(t))
        return correlation, squares, 1 - np.mean(np.abs(t - p)) / np.mean(np.abs(t))


def seconds(contender: Callable[[Path], object], file: Path) -> float:
    """How long one run takes."""
    started = time.perf_counter()
    contender(file)
    return time.perf_counter() - started


def side_by_side(file: Path, neurons: int, rounds: int) -> None:
    """All contenders in turn, round after round; medians, and medians of each round's ratios."""
    contenders = [floor, nscore, duckdb, expressions]
    taken: dict[str, list[float]] = {c.__name__: [] for c in contenders}
    for _ in range(rounds + 1):
        for contender in contenders:
            taken[contender.__name__].append(seconds(contender, file))
    taken = {name: times[1:] for name, times in taken.items()}  # the first round warms up
    loop(file)
    taken["loop"] = [loop.seconds * neurons] * rounds  # type: ignore[attr-defined]
    print("| what | median | x the floor | x nscore |\n|---|---|---|---|")
    for name, times in taken.items():
        to_floor = statistics.median(t / f for t, f in zip(times, taken["floor"], strict=True))
        to_nscore = statistics.median(t / n for t, n in zip(times, taken["nscore"], strict=True))
        print(f"| {name} | {statistics.median(times) * 1e3:,.0f} ms | {to_floor:.2f} | {to_nscore:.2f} |")
    sequences = ns.score_sequences(file)
    pooling = [seconds(lambda _: ns.pool(sequences), file) for _ in range(rounds)]
    print(f"\n`pool` alone: {statistics.median(pooling) * 1e3:,.0f} ms of nscore's time")


def alone(name: str, file: Path) -> None:
    """One contender in this process: its time and this process's peak memory."""
    if name == "floor":
        parts = {"floor": seconds(floor, file)}
    elif name == "validate":
        parts = {"validate": seconds(lambda path: ns.validate(path, "simulated"), file)}
    else:
        started = time.perf_counter()
        sequences = ns.score_sequences(file)
        between = time.perf_counter()
        ns.pool(sequences)
        parts = {"score_sequences": between - started, "pool": time.perf_counter() - between}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for part, time_s in parts.items():
        print(f"| {part} | {time_s:.2f} s | {peak:.2f} GiB |")


def main() -> None:
    """Makes the rows if they are not there, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", action="store_true", help="time and peak memory, each in a new process")
    parser.add_argument("--alone", choices=["floor", "nscore", "validate"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nscore-benchmarks")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / f"simulated-{arguments.neurons}.parquet"
    if not file.exists():
        part = file.with_suffix(".part")
        rows.write(part, arguments.neurons)
        part.replace(file)
    if arguments.alone:
        alone(arguments.alone, file)
        return
    print(f"{arguments.neurons:,} neurons, {arguments.neurons * rows.RECORDS * rows.TOKENS:,} rows")
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, Polars {pl.__version__}, numpy {np.__version__}\n"
    )
    if arguments.memory:
        print("| what | time | peak memory of the process |\n|---|---|---|", flush=True)
        for name in ("floor", "nscore", "validate"):
            for _ in range(3):
                command = [sys.executable, __file__, "--neurons", str(arguments.neurons), "--alone", name]
                subprocess.run([*command, "--folder", str(arguments.folder)], check=True)
    else:
        side_by_side(file, arguments.neurons, arguments.rounds)


if __name__ == "__main__":
    main()
