"""A run that workers carry out: shards are given out, their tables taken over, and the run's limits shared.

The session that gives them out holds the run's own journal; each shard has another, which its worker holds. The rates and
the number of requests in flight are shared out evenly, by the worker. Money is lent by the shard: what may come to stand
in its journal as spent is fixed when it is given out, so that it is no more whoever does it, and however often. What was
lent and not spent comes back when the shard is done.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction

from nscore._running.bench import bench_folder, tally_of
from nscore._running.engine import Engine
from nscore._running.filling import Filling
from nscore._running.options import Options
from nscore._running.plan import Plan
from nscore._running.shards import Part, Shard
from nscore._running.shares import check_tokens, most_of, room_of, shared, tokens_of
from nscore._running.tally import Tally, total
from nscore._running.worker import Done, Job, work
from nscore._running.workplace import Workplace
from nscore._sending.limits import Money
from nscore._sending.threads import in_thread
from nscore.backends import Backend
from nscore.errors import JournalError
from nscore.executors import Executor
from nscore.records import OK

__all__ = ["Crew"]

LOOKED_S = 0.5


@dataclasses.dataclass(slots=True)
class _Loan:
    """A shard that waits to be given out, and what it may cost: at most, and the cheapest of its requests."""

    job: Job
    most: Fraction
    least: Fraction
    lent: Fraction = Fraction(0)
    spent: float = 0.0  # what stands in its journal


class Crew:
    """Carries out a plan with an executor's workers.

    Args:
        plan: what to ask.
        place: the run directory, with a leash.
        backend: whom to ask.
        executor: where the workers are.
        duplicated: first bytes of the keys that come more than once in the plan.
        crossing: those of them that come in several shards.
        options: how; the limits are those of all workers together.
        shown: is told how the run stands.
    """

    def __init__(
        self,
        plan: Plan,
        place: Workplace,
        backend: Backend,
        *,
        executor: Executor,
        duplicated: frozenset[int],
        crossing: frozenset[int],
        options: Options,
        shown: Callable[[Tally], object] = lambda _: None,
    ) -> None:
        self._plan, self._place, self._backend, self._executor = plan, place, backend, executor
        self._duplicated, self._crossing, self._options, self._shown = duplicated, crossing, options, shown
        self._share = shared(options, executor.workers)
        self._shards: Iterator[Shard] = iter(())
        self._all_planned = self._stopped = False
        self._fed: set[int] = set()
        self._turn = threading.Lock()  # shards are given out in one thread, and shown in another
        self._largest = 0.0  # tokens of a request
        self._waiting: deque[_Loan] = deque()
        self._out: dict[int, _Loan] = {}
        self._tallies: dict[int, Tally] = {}
        self._seen: dict[int, Tally] = {}  # of those that are out
        self._done_before = Tally()
        self._spent = self._lent = Fraction(0)  # of all that there may be

    async def carry_out(self) -> Tally:
        """Settles every request of the plan and writes every shard. Raises as `Engine.carry_out`, and `ExecutorError`."""
        if self._crossing:
            await self._settle_crossing()
        self._spent = _exact(self._place.history.spent)
        self._shards = self._plan.shards()
        showing = asyncio.ensure_future(self._show())
        try:
            await in_thread(self._give_out_all, stop=self._stop)
        finally:
            showing.cancel()
        tally = self._total()
        self._shown(tally)
        return tally

    async def _settle_crossing(self) -> None:
        """Asks what several shards ask, here, so that no two workers pay for it."""
        seen: set[int] = set()

        def parts() -> Iterator[Shard]:
            for shard in self._plan.shards():
                mine = []
                for request in shard.requests:
                    short = _short(request.key)
                    if short in self._crossing and short not in seen:
                        seen.add(short)
                        mine.append(request)
                if mine:
                    yield dataclasses.replace(shard, requests=mine, too_long=[])

        part = Part(self._plan.questions, parts(), self._plan.stop)
        aside = _Aside(self._place)
        await Engine(part, aside, self._backend, duplicated=frozenset(), options=self._options).carry_out()
        await in_thread(self._place.look_again)

    def _give_out_all(self) -> None:
        while not self._stopped and (self._waiting or not self._all_planned):
            results = self._executor.each(work, self._jobs())
            try:
                for done in results:
                    self._take(done)
            except BaseException:
                self._stop()  # first, so that nobody waits for whole shards
                raise
            finally:
                results.close()

    def _stop(self) -> None:
        self._stopped = True
        self._plan.stop()
        if self._place.leash is not None:
            self._place.leash.release()

    def _jobs(self) -> Iterator[Job]:
        """Shards as they are to be given out, until there are none, or money must come back first."""
        given = 0
        while not self._stopped and (loan := self._next()) is not None:
            if not self._lend(loan, alone=not given):
                self._waiting.appendleft(loan)
                return
            given += 1
            job = loan.job
            cap = None if self._options.max_cost is None else _exact(loan.spent) + loan.lent
            with self._turn:
                self._out[job.index] = loan
            yield dataclasses.replace(job, options=dataclasses.replace(job.options, max_cost=cap))

    def _next(self) -> _Loan | None:
        if self._waiting:
            return self._waiting.popleft()
        for shard in self._shards:
            if (loan := self._begun(shard)) is not None:
                return loan
        self._all_planned = True
        return None

    def _begun(self, shard: Shard) -> _Loan | None:
        """A shard that is to be given out; None where nothing of it is left to ask."""
        shorts = [_short(request.key) for request in shard.requests]
        repeated = self._duplicated.intersection(shorts)
        fed = repeated & self._fed
        self._fed |= repeated
        if self._place.is_done(shard.index):
            once = sum(short not in repeated for short in shorts)
            self._done_before.count(OK, once + len(repeated - fed))
            return None
        future = self._place.begin(shard)
        history, can, price = self._place.history, self._plan.questions.can, self._options.price
        rows = history.planned[shard.index].rows if future is None else future.result()
        rooms = [room_of(self._backend, can, request) for request in shard.requests]
        both = list(zip(shard.requests, rooms, strict=True))
        self._largest = max([self._largest, *(tokens_of(request, room) for request, room in both)])
        check_tokens(self._options, self._largest, self._executor.workers)
        folder = bench_folder(self._place.path, shard.index)
        prices = []
        if self._options.max_cost is not None:
            # also of those that are answered: which those are, only the shard's worker finds out
            prices = [_exact(most_of(request, room, price)) for request, room in both]
        job = Job(
            path=self._place.path.absolute(),  # a worker may have another working directory
            word=self._place.leash.word if self._place.leash is not None else "",
            backend=self._backend,
            simulators=tuple(self._plan.simulators),
            keys=tuple(self._plan.questions.keys),
            can=can,
            options=self._share,
            index=shard.index,
            digest=shard.digest,
            rows=rows,
            requests=None if shard.whole else len(shard.requests),
            excerpts=history.excerpts_of((request.key for request in shard.requests), without=folder),
            duplicated=repeated,
            fed=fed,
            settled=repeated & self._crossing,
            after=(2.0, 2 * self._largest),
        )
        spent = history.spent_in(folder)
        return _Loan(job, sum(prices, Fraction(0)), min(prices, default=Fraction(0)), spent=spent)

    def _lend(self, loan: _Loan, *, alone: bool) -> bool:
        """Holds back the money for a shard; False where there would be more of it after others are done."""
        if self._options.max_cost is None:
            return True
        there = _exact(self._options.max_cost) - self._spent
        left = max(Fraction(0), there - self._lent)
        if loan.most <= left:
            loan.lent = loan.most
        elif there < loan.least:
            loan.lent = Fraction(0)  # there never will be enough for any of its requests
        elif alone:
            loan.lent = left
        else:
            return False
        self._lent += loan.lent
        return True

    def _take(self, done: Done) -> None:
        if done.error is not None:
            raise done.error
        if done.told is None or done.tally is None:
            if not self._stopped:
                raise JournalError(f"{self._place.path}: the lock of its workers was lost. Run the same command again.")
            return
        with self._turn:
            loan = self._out.pop(done.index)
            self._tallies[done.index] = done.tally
            self._lent, loan.lent = self._lent - loan.lent, Fraction(0)
            self._spent += _exact(done.spent) - _exact(loan.spent)
            loan.spent = done.spent
        self._place.adopt(done.index, done.told)
        whole = self._options.max_cost
        if done.refused is not None and whole is not None and _exact(whole) - self._spent >= _exact(done.refused):
            self._waiting.append(loan)

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(LOOKED_S)
            with self._turn:
                out = list(self._out)
            for index in out:
                tally = tally_of(bench_folder(self._place.path, index))
                if tally is not None:
                    self._seen[index] = tally
            self._shown(self._total())

    def _total(self) -> Tally:
        with self._turn:
            out = [(loan, self._seen.get(index)) for index, loan in self._out.items() if index not in self._tallies]
            done, spent = list(self._tallies.values()), float(self._spent)
        seen = [(loan, tally) for loan, tally in out if tally is not None]
        spent += sum(max(0.0, (tally.spent or 0.0) - loan.spent) for loan, tally in seen)
        return total(
            [self._done_before, *done, *(tally for _, tally in seen)],
            spent=None if self._options.price is None else spent,
            in_doubt=self._place.history.in_doubt,
        )


class _Aside:
    """The place of requests that are asked before the shards that they are in: their answers are kept, and no more."""

    def __init__(self, place: Workplace) -> None:
        self.journal, self.history = place.journal, place.history

    def begin(self, shard: Shard) -> None:
        """The shard is begun when it is given out."""

    def is_done(self, _index: int) -> bool:
        """An answer may be missing all the same."""
        return False

    def write_shard(self, _filling: Filling, _keys: object) -> None:
        """The worker does that."""


def _short(key: bytes) -> int:
    return int.from_bytes(key[:8])


def _exact(money: Money) -> Fraction:
    return Fraction(str(money))
