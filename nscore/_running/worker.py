"""One shard, carried out by whoever is given it, in any process on any machine that reaches the run's folder.

A job that is done twice is the same as one that is done once: the second goes on with the shard's own journal.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nscore._running.bench import Bench
from nscore._running.engine import Engine
from nscore._running.leash import LOOK_S, is_held
from nscore._running.options import Options
from nscore._running.shards import Part, Questions, Shard, cut
from nscore._running.tally import Tally
from nscore._sending.history import JOURNAL, Excerpt
from nscore._sending.journal import JournalReader, Location
from nscore._sending.threads import in_thread
from nscore.backends import Backend
from nscore.errors import NscoreError, RunError
from nscore.exchange import Capabilities
from nscore.simulators import PromptSimulator, Shuffled

__all__ = ["Done", "Job", "work"]

# How many requests at once each server bore at the end of this process's last shard.
_BORNE: dict[str, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker needs to know.

    Attributes:
        path: the folder of the run.
        word: of the run's leash.
        backend: whom to ask.
        simulators: as which.
        keys: of a neuron.
        can: what the server can do.
        options: this worker's share; `max_cost` is what may stand in the shard's journal as spent, sooner or later.
        index: the shard's place in the plan.
        digest: of its plan.
        rows: where its rows lie in the run's journal.
        requests: how many of its requests are made, where a limit leaves some out.
        excerpts: where other journals tell of its requests.
        duplicated: first bytes of keys, as for the `Engine`.
        fed: the same.
        settled: the same.
        after: the same.
    """

    path: Path
    word: str
    backend: Backend
    simulators: Sequence[PromptSimulator | Shuffled]
    keys: Sequence[str]
    can: Capabilities
    options: Options
    index: int
    digest: str
    rows: Location
    requests: int | None
    excerpts: tuple[Excerpt, ...]
    duplicated: frozenset[int]
    fed: frozenset[int]
    settled: frozenset[int]
    after: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a job.

    Attributes:
        index: the shard's.
        told: what the run's journal is to say of it; None where it was not done.
        tally: how it stands.
        spent: dollars that stand in its journal as spent.
        refused: the least price that its share of the money refused; None where it refused none.
        error: what ended it, if it is the end of all.
    """

    index: int
    told: dict[str, object] | None = None
    tally: Tally | None = None
    spent: float = 0.0
    refused: float | None = None
    error: NscoreError | None = None


def work(job: Job) -> Done:
    """Carries out a shard; an error that the others would meet too is handed back, so that they can be ended first."""
    try:
        return asyncio.run(_work(job))
    except NscoreError as error:
        return Done(job.index, error=error)


async def _work(job: Job) -> Done:
    if not is_held(job.path, job.word):
        return Done(job.index)
    bench = await in_thread(lambda: Bench(job.path, job.index, job.digest, job.excerpts), undo=Bench.close)
    try:
        # Once more, now that nobody else can begin: a later session counts what stands in this journal.
        if not is_held(job.path, job.word):
            return Done(job.index)
        questions = Questions(job.keys, job.simulators, job.backend, job.can)
        shard = await in_thread(lambda: _made(job, questions))
        engine = Engine(
            Part(questions, [shard]),
            bench,
            job.backend,
            duplicated=job.duplicated,
            fed=job.fed,
            settled=job.settled,
            after=job.after,
            borne=_BORNE.get(job.backend.url),
            options=job.options,
            shown=bench.show,
        )
        tally = await _while_held(job, asyncio.ensure_future(engine.carry_out()))
        if tally is None:
            return Done(job.index)
        _BORNE[job.backend.url] = engine.borne
        # counted anew: what a worker before was answered, and could not note the price of, was held to cost its most
        spent = await in_thread(bench.spent)
        return Done(job.index, bench.done, tally, spent, engine.refused)
    finally:
        await in_thread(bench.close)


async def _while_held(job: Job, task: asyncio.Future[Tally]) -> Tally | None:
    """What comes of the work; None where the session ended before it, and the work was broken off."""
    try:
        while True:
            await asyncio.wait({task}, timeout=LOOK_S)
            if task.done():
                return task.result()
            if not is_held(job.path, job.word):
                return None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _made(job: Job, questions: Questions) -> Shard:
    rows = JournalReader(job.path / JOURNAL).read(job.rows)
    shard = questions.shard(job.index, pl.read_parquet(io.BytesIO(rows)))
    if shard.digest != job.digest:
        raise RunError(
            f"{job.path}: of shard {job.index} this worker asks otherwise than the run does. Use the same nscore, Polars "
            "and simulators on every machine."
        )
    return shard if job.requests is None else cut(shard, job.requests)
