"""Simulation: records and explanations go in, the long table with `predicted` filled comes out."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import polars as pl

from nscore._running.choice import Simulators, asking, asks, check_offline, chosen
from nscore._running.estimate import Estimate, measured
from nscore._running.offline import predicted
from nscore._running.options import Keep, Options, Prices, check_limit, price_of
from nscore._running.plan import Plan
from nscore._running.session import carried_out
from nscore._running.tally import Tally
from nscore._sending.loop import run_to_end
from nscore._sending.prices import Price
from nscore._sending.retry import Retries
from nscore._sending.threads import in_thread
from nscore._tables.meeting import Leaks, meet
from nscore._tables.stores import is_address, shown
from nscore.backends import Backend
from nscore.errors import RunError
from nscore.executors import Executor, make_executor
from nscore.frames import Eager, Frame, Lazy, like
from nscore.run import SETTINGS, Run

__all__ = ["Estimate", "Price", "Tally", "asimulate", "estimate", "simulate"]


@overload
def simulate(
    records: Frame,
    explanations: Frame,
    *,
    simulator: Simulators = ...,
    backend: Backend,
    out: str | Path,
    by: Sequence[str] | None = ...,
    splits: Sequence[str] | None = ...,
    leaks: Leaks = ...,
    limit: int | None = ...,
    concurrency: int = ...,
    requests_per_minute: float | None = ...,
    tokens_per_minute: float | None = ...,
    timeout_s: float = ...,
    attempts: int = ...,
    price: Prices | None = ...,
    max_cost: float | None = ...,
    keep: Keep = ...,
    distribution: bool = ...,
    executor: str | Executor = ...,
    workers: int | None = ...,
) -> Run: ...
@overload
def simulate(
    records: Eager,
    explanations: Frame,
    *,
    simulator: Simulators = ...,
    backend: Backend | None = ...,
    out: None = ...,
    by: Sequence[str] | None = ...,
    splits: Sequence[str] | None = ...,
    leaks: Leaks = ...,
    limit: int | None = ...,
    concurrency: int = ...,
    requests_per_minute: float | None = ...,
    tokens_per_minute: float | None = ...,
    timeout_s: float = ...,
    attempts: int = ...,
    price: Prices | None = ...,
    max_cost: float | None = ...,
    keep: Keep = ...,
    distribution: bool = ...,
    executor: str | Executor = ...,
    workers: int | None = ...,
) -> pl.DataFrame: ...
@overload
def simulate(
    records: Lazy,
    explanations: Frame,
    *,
    simulator: Simulators = ...,
    backend: Backend | None = ...,
    out: None = ...,
    by: Sequence[str] | None = ...,
    splits: Sequence[str] | None = ...,
    leaks: Leaks = ...,
    limit: int | None = ...,
    concurrency: int = ...,
    requests_per_minute: float | None = ...,
    tokens_per_minute: float | None = ...,
    timeout_s: float = ...,
    attempts: int = ...,
    price: Prices | None = ...,
    max_cost: float | None = ...,
    keep: Keep = ...,
    distribution: bool = ...,
    executor: str | Executor = ...,
    workers: int | None = ...,
) -> pl.LazyFrame: ...
def simulate(
    records: Frame,
    explanations: Frame,
    *,
    simulator: Simulators = "lexical",
    backend: Backend | None = None,
    out: str | Path | None = None,
    by: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    leaks: Leaks = "refuse",
    limit: int | None = None,
    concurrency: int = 64,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    timeout_s: float = 120.0,
    attempts: int = 8,
    price: Prices | None = None,
    max_cost: float | None = None,
    keep: Keep = "raw",
    distribution: bool = False,
    executor: str | Executor = "local",
    workers: int | None = None,
) -> pl.DataFrame | pl.LazyFrame | Run:
    """Predicts the activation of each token of each record from each explanation of its neuron.

    Every record of a neuron meets every explanation of it; neurons that have only one of the two are left out. Some
    simulators predict by themselves (`lexical`, `token_lookup`, `constant`, `shuffled`); others ask a language model
    (`all_at_once`, `token_by_token`, `json_list`, `tab_list`) and need a `backend`. Works inside a running event loop,
    too; there, `asimulate` can be awaited instead.

    Args:
        records: a `records` table: the neuron's keys, `sequence`, `position`, `token`, `activation`, and what else
            there is, which travels along.
        explanations: an `explanations` table: the keys, `explanation_id`, `explanation`; further columns are not
            taken over.
        simulator: a simulator or the name of one, or `shuffled_` and a name for the control of another; of several,
            the results are rows of one table.
        backend: the model server to ask: `nscore.OpenAI(model=..., base_url=...)` and the like.
        out: the folder of the run, for simulators that ask a model; the same call with the same folder goes on where
            it stopped. Left out, the run lives in a temporary folder, which stays, and is named, when it did not end
            well.
        by: the keys of a neuron; `layer` and `neuron` if left out.
        splits: the splits that are simulated, where the records have a `split`; `calibration`, `valid` and `test` if
            left out.
        leaks: whether records that are scored may be records that the explanation's author was shown
            (`shown_sequences`).
        limit: the most requests to make; the table holds the rows that they reach.
        concurrency: the most requests in flight; how many the server bears is found by trying.
        requests_per_minute: a limit to keep.
        tokens_per_minute: another, of prompts and answers together.
        timeout_s: the longest that one attempt may take.
        attempts: how often a request is sent at most.
        price: dollars for a million tokens of prompts, of answers, and of cached prompts; left out, what the table of
            prices says of the backend's model.
        max_cost: dollars that are never exceeded; what was not sent is then `not_run`.
        keep: whether the journal keeps all of a reply (`raw`) or what the simulators read of it (`needed`).
        distribution: whether the column `distribution` keeps the probability of each activation.
        executor: where shards of whole neurons are worked on: `local` in this process, `processes`, `ray`, or an
            executor. The result is the same, byte for byte, and the limits are those of all workers together. Other
            machines must reach the folder `out`.
        workers: how many shards at a time; what the executor takes to be right if left out.

    Returns:
        A `simulated` table sorted by its keys, `sequence` and `position`; eager for eager records, lazy for lazy ones
        or a path. With `out`, the `Run`, whose `simulated()` it is.

    Raises:
        TableError: if a table is not valid, or no explanation is of a neuron that has records.
        LeakError: if a record that its author was shown would be scored.
        SimulatorError: if no simulator is named, or one is twice, or one needs a backend and there is none.
        BackendError: if the server cannot do what a simulator needs, or refuses for good.
        ExecutorError: if workers are lost again and again.
        RunError: if `out` holds another run.
        UnknownNameError: if there is no such simulator.

    Examples:
        >>> records = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": 1, "position": [0, 1, 2],
        ...                         "token": ["a", "red", "fox"], "activation": [0.0, 2.0, 0.0]})
        >>> explanations = pl.DataFrame({"layer": 0, "neuron": 7, "explanation_id": "a",
        ...                              "explanation": ['colours such as "red" and "blue"']})
        >>> simulate(records, explanations)["predicted"].to_list()
        [0.0, 10.0, 0.0]
    """
    named, who = chosen(simulator), make_executor(executor, workers=workers)
    if not any(asks(s) for s in named):
        check_offline(named, backend, out, limit)
        met = meet(records, explanations, by=by, splits=splits, leaks=leaks)
        return like(met.given, predicted(met, named, who))
    return run_to_end(
        lambda: asimulate(
            records,
            explanations,
            simulator=named,
            backend=backend,
            out=out,
            by=by,
            splits=splits,
            leaks=leaks,
            limit=limit,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            timeout_s=timeout_s,
            attempts=attempts,
            price=price,
            max_cost=max_cost,
            keep=keep,
            distribution=distribution,
            executor=who,
        )
    )


async def asimulate(
    records: Frame,
    explanations: Frame,
    *,
    simulator: Simulators,
    backend: Backend | None = None,
    out: str | Path | None = None,
    by: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    leaks: Leaks = "refuse",
    limit: int | None = None,
    concurrency: int = 64,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    timeout_s: float = 120.0,
    attempts: int = 8,
    price: Prices | None = None,
    max_cost: float | None = None,
    keep: Keep = "raw",
    distribution: bool = False,
    executor: str | Executor = "local",
    workers: int | None = None,
) -> pl.DataFrame | pl.LazyFrame | Run:
    """The async twin of `simulate`, for simulators that ask a model; the others it runs in a thread.

    Examples:
        >>> records = pl.DataFrame({"layer": 0, "neuron": 7, "sequence": 1, "position": [0, 1],
        ...                         "token": ["red", "fox"], "activation": [2.0, 0.0]})
        >>> explanations = pl.DataFrame({"layer": 0, "neuron": 7, "explanation_id": "a", "explanation": ['"red"']})
        >>> import asyncio
        >>> asyncio.run(asimulate(records, explanations, simulator="lexical"))["predicted"].to_list()
        [10.0, 0.0]
    """
    named, who = chosen(simulator), make_executor(executor, workers=workers)
    if not any(asks(s) for s in named):
        check_offline(named, backend, out, limit)
        met = await in_thread(lambda: meet(records, explanations, by=by, splits=splits, leaks=leaks))
        return await in_thread(lambda: like(met.given, predicted(met, named, who)))
    those = asking(named, backend)
    assert backend is not None  # noqa: S101  (_asking has seen to it)
    met = await in_thread(lambda: meet(records, explanations, by=by, splits=splits, leaks=leaks, whole=False))
    options = Options(
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        timeout_s=timeout_s,
        retries=Retries(attempts=attempts),
        price=price_of(price, backend, max_cost=max_cost),
        max_cost=max_cost,
        keep=keep,
        distribution=distribution,
    )
    check_limit(limit)
    if out is not None and is_address(out):
        raise RunError(
            f"{shown(str(out))}: the journal of a run lies on a disk, where each answer is kept at once. Name a folder here, and "
            "copy the tables to the store when the run is done."
        )
    path = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="nscore-"))
    try:
        tally = await carried_out(met, those, backend, path, options=options, limit=limit, executor=who)
    except BaseException as error:
        if out is None and (path / SETTINGS).exists():
            error.add_note(f"What was answered is kept in {path}; out={str(path)!r} goes on with it.")
        elif out is None:  # nothing was asked yet
            shutil.rmtree(path)
        raise
    run = Run(path)
    if out is not None:
        return run
    result = await in_thread(lambda: run.simulated().sort(met.order).collect())
    if tally.failed:
        counts = ", ".join(f"{n} {status}" for status, n in sorted(tally.statuses.items()))
        warnings.warn(
            f"{tally.failed} of {tally.done} requests failed ({counts}); the run is kept in {path}", stacklevel=2
        )
    else:
        shutil.rmtree(path)
    return result if met.given.eager else result.lazy()


def estimate(
    records: Frame,
    explanations: Frame,
    *,
    simulator: Simulators,
    backend: Backend,
    by: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    leaks: Leaks = "refuse",
    limit: int | None = None,
    concurrency: int = 64,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    price: Prices | None = None,
    keep: Keep = "raw",
) -> Estimate:
    """What a simulation would ask and cost; nothing is sent. The arguments are those of `simulate`.

    A server is taken to do all that its kind can do at best.

    Examples:
        >>> from nscore import OpenAI, sample
        >>> server = OpenAI(model="gpt-4o-mini", base_url="https://api.openai.com/v1", api_key="none is needed")
        >>> told = estimate(sample.records(), sample.explanations(), simulator="json_list", backend=server, limit=10)
        >>> told.requests, told.price < 0.05
        (10, True)
    """
    those = asking(chosen(simulator), backend)
    met = meet(records, explanations, by=by, splits=splits, leaks=leaks, whole=False)
    return measured(
        Plan(met, those, backend, backend.assumed, limit),
        backend,
        price=price_of(price, backend),
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        keep=keep,
    )[0]
