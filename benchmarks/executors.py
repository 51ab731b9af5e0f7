"""What an executor adds to the work of shards: a simulation in this process, in processes, on Ray, side by side.

python benchmarks/executors.py                    two workers, four shards of 30 s, which they mostly wait
python benchmarks/executors.py --shard-s 10       shorter ones
python benchmarks/executors.py --scoring          scoring with two processes against one

The server is in a process of its own and answers each request after a second. In this process one shard is done after
another, half as many as two workers do in the same time. The cluster of Ray is started before; the processes are not.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import rows
from workload import server, tables

import nscore as ns
import nscore._running.plan
from nscore.executors import Executor, Processes, Ray

IN_FLIGHT = 8  # of each worker
TOKENS = 8
ROUNDS = 3


class Here:
    """The same jobs, in this process, one after another."""

    name, workers = "here", 1

    def each(self, work: Callable[[Any], Any], jobs: Iterable[Any]) -> Generator[Any, None, None]:
        """See `Executor.each`."""
        for job in jobs:
            yield work(job)


def timed(executor: Executor, url: str, shards: int, requests: int) -> float:
    """Seconds that a simulation takes from the call to the end of its run."""
    model = ns.OpenAI(model="tiny", base_url=f"{url}/v1", api_key="none is needed")
    with tempfile.TemporaryDirectory() as folder:
        records, told = tables(shards, requests, TOKENS, Path(folder))
        asking = {"simulator": ns.JsonList(numbers_alone=True), "backend": model, "out": Path(folder) / "run"}
        ns.simulate(records, told, **asking, limit=1)  # the server is probed
        started = time.perf_counter()
        run = ns.simulate(
            records, told, **asking, executor=executor, concurrency=IN_FLIGHT * executor.workers, timeout_s=60
        )
        took_s = time.perf_counter() - started
        counts = ns.describe(run.path)
    if counts.shards_written != shards or counts.statuses != {"ok": shards * requests}:
        raise SystemExit(f"{executor.name}: {counts}")
    return took_s


def scoring(neurons: int, metrics: list[str]) -> None:
    """Prints what one process and two take to score a table, each with one thread of Polars.

    One process beside the one that waits for it decodes a stretch while it computes with another, and so takes more than a
    processor. So it is shown held to one, too.
    """
    every = os.sched_getaffinity(0)
    contenders = {
        "one process on one processor": (1, {min(every)}),
        "one process": (1, every),
        "two processes": (2, every),
    }
    took_s: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"POLARS_MAX_THREADS": "1"}):
        file = Path(folder, "simulated.parquet")
        rows.write(file, neurons)
        for name, (workers, processors) in ROUNDS * list(contenders.items()):
            os.sched_setaffinity(0, processors)  # the processes that begin have it, too
            started = time.perf_counter()
            scored = ns.score_shards(file, metrics=metrics, executor=Processes(workers), leaks="allow")
            took_s[name].append(time.perf_counter() - started)
            del scored  # whoever scores wants the tables: what it takes to give them back is not counted
        os.sched_setaffinity(0, every)
        worth = [2 * halves(file, metrics, neurons, 1) / halves(file, metrics, neurons, 2) for _ in range(ROUNDS)]
    print(f"{', '.join(metrics)}, {neurons:,} neurons; load {os.getloadavg()[0]:.1f}")
    two_s = statistics.median(took_s["two processes"])
    for name, each in took_s.items():
        said = ", ".join(f"{s:.2f}" for s in each)
        print(f"  {name:<30} {said} s, {statistics.median(each) / two_s:.2f} x two", flush=True)
    said = ", ".join(f"{w:.2f}" for w in worth)
    print(f"  two halves of the table at once, each on a processor, against one: two processors are worth {said}")


def halves(file: Path, metrics: list[str], neurons: int, count: int) -> float:
    """Seconds that processes which know nothing of each other take to score a half of the table each."""
    rows_ = neurons * 320
    started = time.perf_counter()
    crew = [
        get_context("spawn").Process(target=half, args=(file, metrics, i * rows_, rows_, processor))
        for i, processor in enumerate(sorted(os.sched_getaffinity(0))[:count])
    ]
    for each in crew:
        each.start()
    for each in crew:
        each.join()
    return time.perf_counter() - started


def half(file: Path, metrics: list[str], start: int, count: int, processor: int) -> None:
    """Scores some rows on one processor."""
    os.sched_setaffinity(0, {processor})
    ns.score(pl.scan_parquet(file).slice(start, count), metrics=metrics, leaks="allow")


def main() -> None:
    """Runs each once, and prints what it took beyond this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shard-s", type=float, default=30.0)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scoring", action="store_true")
    arguments = parser.parse_args()
    if arguments.scoring:
        scoring(307_200, ["ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"])
        scoring(60_000, ["ev_correlation_score", "spearman"])
        return
    requests = round(arguments.shard_s * IN_FLIGHT)
    nscore._running.plan.SHARD_ROWS = requests * TOKENS  # noqa: SLF001
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, nscore {ns.__version__}; "
          f"load before: {os.getloadavg()[0]:.1f}")  # fmt: skip
    with server("--wait-ms", "1000", "--set", "ignore_logprobs=true") as url:
        ideal_s = arguments.shards / arguments.workers * arguments.shard_s
        alone_s = timed(Here(), url, arguments.shards // arguments.workers, requests)
        print(f"in this process  {alone_s:6.1f} s for {ideal_s:g} s of waiting")
        started = time.perf_counter()
        ray = Ray(arguments.workers)
        cluster_s = time.perf_counter() - started
        for executor in (Processes(arguments.workers), ray):
            took_s = timed(executor, url, arguments.shards, requests)
            print(f"{executor.name:<15}  {took_s:6.1f} s, {took_s / alone_s - 1:+.1%}; load {os.getloadavg()[0]:.1f}")
        print(f"(the cluster of Ray was up after {cluster_s:.1f} s)")


if __name__ == "__main__":
    main()
