"""One session of a run: its folder is opened, its server probed, its plan checked, and then it is carried out."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from nscore._progress import tally_bar
from nscore._running.crew import Crew
from nscore._running.engine import Engine
from nscore._running.estimate import measured
from nscore._running.options import Options
from nscore._running.plan import Plan
from nscore._running.tally import Tally
from nscore._running.workplace import Workplace, wanted_settings
from nscore._sending.threads import in_thread
from nscore._tables.meeting import Meeting
from nscore.backends import Backend
from nscore.errors import NscoreError
from nscore.executors import Executor, Local
from nscore.probe import aprobe, check_needs
from nscore.simulators import PromptSimulator, Shuffled

__all__ = ["carried_out"]


async def carried_out(
    met: Meeting,
    simulators: Sequence[PromptSimulator | Shuffled],
    backend: Backend,
    path: Path,
    *,
    options: Options,
    limit: int | None,
    executor: Executor,
) -> Tally:
    """Begins a run in a folder, or goes on with it, to its end.

    Args:
        met: the records and explanations.
        simulators: that ask a model.
        backend: the model server.
        path: the folder.
        options: how.
        limit: how many requests at most; None for all.
        executor: who carries out the shards; `local` is this process.
    """
    wanted = wanted_settings(simulators, backend, met.keys, distribution=options.distribution)
    is_new = not await in_thread(path.exists)
    alone = isinstance(executor, Local)
    place = await in_thread(lambda: Workplace(path, wanted, crew=not alone), undo=Workplace.close)
    try:
        if place.can is None:
            can = backend.assumed if backend.name == "replay" else await aprobe(backend)
            plan = Plan(met, simulators, backend, can, limit)
            check_needs(plan.questions.prompted, can, backend)
            await in_thread(lambda: place.settle(can))
        else:
            plan = Plan(met, simulators, backend, place.can, limit)
        planned, duplicated, crossing = await in_thread(
            lambda: measured(
                plan,
                backend,
                price=options.price,
                concurrency=options.concurrency,
                requests_per_minute=options.requests_per_minute,
                tokens_per_minute=options.tokens_per_minute,
                keep=options.keep,
            ),
            stop=plan.stop,
        )
        await in_thread(lambda: place.check_plan(plan, planned.requests))
        place.check_space(planned.stored_bytes)
        with tally_bar(planned.requests) as shown:
            work: Engine | Crew
            if alone:
                work = Engine(plan, place, backend, duplicated=duplicated, options=options, shown=shown)
            else:
                work = Crew(
                    plan,
                    place,
                    backend,
                    executor=executor,
                    duplicated=duplicated,
                    crossing=crossing,
                    options=options,
                    shown=shown,
                )
            try:
                tally = await work.carry_out()
            except BaseException:
                with contextlib.suppress(NscoreError):  # the error on its way is worth more
                    await in_thread(place.mark)
                raise
        await in_thread(place.mark)
        return tally
    finally:
        await in_thread(place.close)
        if is_new and place.can is None:  # nothing was asked but what the server can do
            shutil.rmtree(path)
