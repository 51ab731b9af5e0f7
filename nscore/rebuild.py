"""Tables made again from a run's journal: every stored reply is parsed once more, and nobody is asked."""

from __future__ import annotations

from pathlib import Path

import msgspec
import polars as pl

from nscore._progress import bar
from nscore._running.filling import Filling
from nscore._running.reading import recalled
from nscore._running.shards import Questions, Shard, cut
from nscore._running.workplace import Workplace
from nscore.backends import remade as backend_of
from nscore.errors import RunError
from nscore.exchange import Capabilities
from nscore.run import Run
from nscore.simulators import remade as simulator_of

__all__ = ["rebuild"]


def rebuild(path: str | Path) -> Run:
    """Makes the tables of a run again from its journal alone: no network, no money.

    What was deleted or damaged is there again, byte for byte, and replies that an older parser could not read are read
    by this one. Tables that are whole, though some of their replies are lost, are left as they are. Of a run that was broken off, what was not asked yet is `not_run`; the command that started it goes on.

    Args:
        path: the folder of the run.

    Raises:
        RunError: if no run was started there, or this nscore would ask other questions than the run asked.
        JournalError: if another process works on it, or its journal is damaged.
        SimulatorError: if its simulators are not those of this nscore.
        StorageError: if the disk does not take the tables.

    Examples:
        >>> rebuild("nowhere")
        Traceback (most recent call last):
        nscore.errors.RunError: nowhere: no run was started here. Name the folder of a run.
    """
    place = Workplace(Path(path))
    try:
        told = place.settings
        backend = backend_of(told["backend"])
        simulators = [simulator_of(each) for each in told["simulators"]]
        questions = Questions(told["keys"], simulators, backend, msgspec.convert(told["capabilities"], Capabilities))
        history = place.history
        seen: set[bytes] = set()
        with bar("rebuild", "requests", lambda: history.replies) as step:
            for index, planned in sorted(history.planned.items()):
                shard = questions.shard(index, pl.read_parquet(history.rows(index)))
                if shard.digest != planned.digest:
                    raise RunError(
                        f"{path}: of shard {index} this nscore asks otherwise than the run did, which was made with "
                        f"nscore {told['nscore']}. Use that one."
                    )
                if planned.requests is not None:
                    shard = cut(shard, planned.requests)
                filling = _filled(shard, questions, place, seen)
                step(len(shard.requests))
                if filling.failed_calls and place.is_done(index):
                    continue  # its replies were lost with a part of the journal; its tables were not
                done = place.write_shard(filling, questions.keys)
                there = history.written.get(index)
                if there is None or (there.files, there.final) != (done["files"], done["final"]):
                    place.journal.append(done).result()
        place.mark()
        place.write_settings()
    finally:
        place.close()
    return Run(Path(path))


def _filled(shard: Shard, questions: Questions, place: Workplace, seen: set[bytes]) -> Filling:
    filling = Filling(shard, replicates=questions.replicates, distribution=bool(place.settings["distribution"]))
    for number, request in enumerate(shard.requests):
        settled = recalled(questions.backend, questions, request, place.history.past(request.key))
        filling.settle(None if request.key in seen else number, request, settled)
        seen.add(request.key)
    return filling
