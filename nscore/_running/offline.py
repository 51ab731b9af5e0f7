"""What simulators predict that ask nobody: in this process, or by an executor's workers, block by block of neurons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import polars as pl

from nscore._progress import bar, counted
from nscore._running.plan import blocks
from nscore._tables.meeting import Meeting, result_columns
from nscore.executors import Executor, Local
from nscore.frames import source
from nscore.records import EXPLANATION_ID, POSITION, SEQUENCE, SIMULATOR
from nscore.simulators import Constant, Lexical, PromptSimulator, Shuffled, Simulator

__all__ = ["predicted"]

BLOCK_ROWS = 1 << 18


def predicted(met: Meeting, given: Sequence[Simulator | PromptSimulator], executor: Executor) -> pl.LazyFrame:
    """The `simulated` table, sorted.

    `local` computes it when it is asked for; the workers of others at once, and the table is in memory.

    Args:
        met: the records and explanations.
        given: simulators that ask nobody.
        executor: who computes it.
    """
    simulators = [simulator for simulator in given if isinstance(simulator, Simulator)]
    if isinstance(executor, Local):
        return _simulated(met, simulators, {})
    parts = []
    with bar("simulate", "rows") as step, closing(executor.each(_work, _jobs(met, simulators))) as results:
        for part in results:
            step(part.height)
            parts.append(part)
    return pl.concat(parts).lazy()


def _simulated(met: Meeting, simulators: Iterable[Simulator], drawn: dict[str, pl.DataFrame]) -> pl.LazyFrame:
    pairs = met.pairs(met.asked, met.texts).sort([*met.keys, EXPLANATION_ID, SEQUENCE, POSITION])
    parts = []
    for simulator in simulators:
        if isinstance(simulator, Shuffled) and simulator.name in drawn:
            part = simulator.simulate_drawn(pairs, drawn[simulator.name], keys=met.keys, train=met.train)
        else:
            part = simulator.simulate(pairs, keys=met.keys, train=met.train)
        part = part.with_columns(pl.lit(simulator.name).alias(SIMULATOR))
        parts.append(counted(part.select(result_columns(met.keys, part.collect_schema().names()))))
    return pl.concat(parts).sort(met.order)


@dataclass(frozen=True, slots=True)
class _Job:
    """Whole neurons with all that is needed to simulate them.

    Attributes:
        keys: of a neuron.
        asked: their records.
        texts: their explanations.
        seen: the records that authors of those were shown; None where nobody says.
        train: the train split of these neurons, and of those whose explanations controls give them.
        drawn: for each control by its name, the explanations that it gives them.
        simulators: who simulates.
    """

    keys: list[str]
    asked: pl.DataFrame
    texts: pl.DataFrame
    seen: pl.DataFrame | None
    train: pl.DataFrame | None
    drawn: dict[str, pl.DataFrame]
    simulators: Sequence[Simulator]


def _work(job: _Job) -> pl.DataFrame:
    met = Meeting(
        given=source(job.asked),
        keys=job.keys,
        splits=None,
        train=None if job.train is None else job.train.lazy(),
        texts=job.texts.lazy(),
        seen=None if job.seen is None else job.seen.lazy(),
    )
    return _simulated(met, job.simulators, job.drawn).collect()


def _jobs(met: Meeting, simulators: Sequence[Simulator]) -> Iterator[_Job]:
    keys = met.keys
    # a control draws among the explanations of neurons that have records, and among all of them
    texts = met.given.collect(met.texts.join(met.asked, on=keys, how="semi", nulls_equal=True))
    drawn = {s.name: s.drawn(texts, keys) for s in simulators if isinstance(s, Shuffled)}
    seen = None if met.seen is None else met.seen.collect()
    train = None if met.train is None else _Train(met, simulators)
    each = texts.height / max(1, texts.select(pl.struct(keys).n_unique()).item())
    for block in blocks(met, max(1, int(BLOCK_ROWS / (each * len(simulators))))):
        neurons = block.select(keys).unique()
        mine = {name: _of(all_of_it, neurons) for name, all_of_it in drawn.items()}
        others = [told.select(pl.col(f"__other_{k}").alias(k) for k in keys) for told in mine.values()]
        told = _of(texts, neurons)
        if told.height:
            yield _Job(
                keys=keys,
                asked=block,
                texts=told,
                seen=None if seen is None else _of(seen, neurons),
                train=None if train is None else train.of(pl.concat([neurons, *others], how="vertical_relaxed")),
                drawn=mine,
                simulators=simulators,
            )


def _of(rows: pl.DataFrame, neurons: pl.DataFrame) -> pl.DataFrame:
    return rows.join(neurons, on=neurons.columns, how="semi", nulls_equal=True, maintain_order="left")


class _Train:
    """The train split by neuron; read only if a simulator learns from it, since it is held in memory."""

    def __init__(self, met: Meeting, simulators: Iterable[Simulator]) -> None:
        assert met.train is not None  # noqa: S101  (there are splits)
        inner = [s.inner if isinstance(s, Shuffled) else s for s in simulators]
        learns = any(not isinstance(s, Lexical | Constant) for s in inner)
        self._keys = met.keys
        self._nothing = met.train.clear().collect()
        self._by_neuron = {}
        if learns:
            wanted = met.train.join(met.texts, on=met.keys, how="semi", nulls_equal=True)
            self._by_neuron = met.given.collect(wanted).partition_by(met.keys, as_dict=True, maintain_order=True)

    def of(self, neurons: pl.DataFrame) -> pl.DataFrame:
        """That of some neurons."""
        found = [self._by_neuron.get(key) for key in neurons.unique(maintain_order=True).iter_rows()]
        return pl.concat([self._nothing, *(rows for rows in found if rows is not None)])
