"""The engine of a simulation: a bounded crew takes requests from the plan, and nothing that was paid for is lost.

A request passes the limits, is noted as sent, and posted. Its reply is durable in the journal before anybody parses it;
parsing runs in a thread beside the network; what it says fills its shard; a shard that is full is written out.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import groupby, repeat
from typing import TypeAlias

from nscore._running.filling import Fared, Filling, Settled
from nscore._running.fleet import Fleet, Turns, Visit
from nscore._running.options import Options
from nscore._running.reading import Beside, cut_down, parsed, recalled
from nscore._running.shards import Request, Shards
from nscore._running.shares import most_of, room_of, tokens_of
from nscore._running.tally import Tally
from nscore._running.workplace import Place
from nscore._sending.history import Past, ended, reply, sent, unanswered, unsent
from nscore._sending.limits import Clock, Concurrency, Pace, RealClock, Spending
from nscore._sending.retry import Outcome, verdict
from nscore._sending.threads import in_thread
from nscore._sending.transport import Answer
from nscore.backends import Backend, Replay
from nscore.errors import BackendError, JournalError, NscoreError
from nscore.records import NOT_RUN, OK, Status

__all__ = ["Engine", "Tally"]

# A request on its way: what it fills, its place there, and whether it is the first of its key.
_Item: TypeAlias = tuple[Filling, int, Request, bool]
# Requests that wait between the plan and the crew, and shards that may be open at once.
QUEUED, OPEN_SHARDS = 256, 24
# Servers that say so refuse for load.
BUSY = {429, 503, 529}


class Engine:
    """Carries out a plan.

    Args:
        plan: what to ask.
        place: the run directory.
        backend: whom to ask.
        duplicated: first bytes of the keys that come more than once in the plan.
        fed: those of them that came before, in a part of the plan that another engine carries out.
        settled: those whose requests another engine has settled, so that what the journals say of them is all there is.
        after: the requests and tokens after which the paces go on (`Pace`).
        borne: how many requests at once the server was seen to bear just before.
        options: how.
        shown: is told of every request that is settled.

    Attributes:
        tally: how it stands.
        refused: the least price that the spending limit refused for good; None where it refused none.
    """

    def __init__(
        self,
        plan: Shards,
        place: Place,
        backend: Backend,
        *,
        duplicated: frozenset[int],
        fed: frozenset[int] = frozenset(),
        settled: frozenset[int] = frozenset(),
        after: tuple[float, float] = (0.0, 0.0),
        borne: int | None = None,
        options: Options,
        shown: Callable[[Tally], object] = lambda _: None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._plan, self._place, self._backend, self._options, self._shown = plan, place, backend, options, shown
        self._duplicated, self._elsewhere = duplicated, settled
        self._shared: dict[bytes, asyncio.Future[Settled]] = {}
        self._fed = set(fed)  # first bytes of the keys that come more than once, and came
        clock = clock or RealClock()
        self._clock, self._rng = clock, rng or random.Random()  # noqa: S311  (jitter, no secret)
        self._fleet = Fleet(backend, timeout_s=options.timeout_s, clock=clock)
        # The probe has shown that the server answers. Where it was another session's, the first request shows it, alone.
        first = 1 if place.history.sent else self._fleet.first
        self._gate = Concurrency(options.concurrency, start=first if borne is None else borne)
        rpm, tpm = options.requests_per_minute, options.tokens_per_minute
        self._requests_pace = Pace(rpm, clock=clock, after=after[0]) if rpm else None
        self._tokens_pace = Pace(tpm, clock=clock, what="tokens", after=after[1]) if tpm else None
        self._spending = Spending(options.max_cost, place.history.spent)
        self._money = asyncio.Event()
        self._parser = Beside()
        self._queue: asyncio.Queue[_Item | None] = asyncio.Queue(QUEUED)
        self._open = asyncio.Semaphore(OPEN_SHARDS)
        # Beyond those in flight, some wait for the disk, for the parser or to try again.
        self._crew = 2 * options.concurrency + 64
        self.refused: float | None = None
        self.tally = Tally(spent=self._spent(), in_doubt=place.history.in_doubt)

    @property
    def borne(self) -> int:
        """How many requests at once the server bears, as far as is known."""
        return self._gate.limit

    async def carry_out(self) -> Tally:
        """Settles every request of the plan and writes every shard.

        Raises:
            BackendError: if the server refuses for good.
            OutageError: if it has not answered for long.
            LimitError: if a request can never keep a limit.
            JournalError: if the journal cannot be written.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._parser.work())
                crew = [group.create_task(self._work(group)) for _ in range(self._crew)]
                await self._feed(group)
                await asyncio.gather(*crew)
                for _ in range(OPEN_SHARDS):
                    await self._open.acquire()
                self._parser.close()
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        finally:
            await self._fleet.aclose()
        return self.tally

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        shards = self._plan.shards()
        turns: Turns[_Item] = Turns(self._fleet.at_once)
        while (shard := await in_thread(lambda: next(shards, None), stop=self._plan.stop)) is not None:
            # the first of a key has its row of `requests`, whatever order the answers come in
            firsts = [self._is_first(request) for request in shard.requests]
            if await in_thread(partial(self._place.is_done, shard.index)):
                self._count(OK, sum(firsts))
                continue
            await in_thread(partial(self._place.begin, shard))
            if self._open.locked():  # some of them wait for their turn: none would be full
                await self._send(turns.rest())
            await self._open.acquire()
            filling = Filling(
                shard, replicates=self._plan.questions.replicates, distribution=self._options.distribution
            )
            requests, shard.requests = shard.requests, []
            if not requests:
                group.create_task(self._write(filling))
            items = zip(repeat(filling), range(len(requests)), requests, firsts)
            explanations = [list(each) for _, each in groupby(items, key=lambda item: item[2].group.explanation)]
            self._fleet.go_on_after(shard.index * len(explanations))  # shards have about equally many
            for each in explanations:
                await self._send(turns.add(each))
        await self._send(turns.rest())
        for _ in range(self._crew):
            await self._queue.put(None)

    async def _send(self, items: Iterator[_Item]) -> None:
        for item in items:
            await self._queue.put(item)

    def _is_first(self, request: Request) -> bool:
        short = _short(request.key)
        if short not in self._duplicated:
            return True
        first = short not in self._fed
        self._fed.add(short)
        return first

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while (item := await self._queue.get()) is not None:
            filling, place, request, first = item
            settled = await self._settled(request)
            filling.settle(place if first else None, request, settled)
            if first:
                self.tally.add_tokens(settled.fared.usage)
                self._count(settled.fared.status)
            filling.open -= 1
            if not filling.open:
                group.create_task(self._write(filling))

    async def _settled(self, request: Request) -> Settled:
        """What became of a request; of several with one key, one is asked."""
        if _short(request.key) in self._elsewhere:
            past, price = await self._past(request.key), self._options.price
            return await self._parser.do(lambda: recalled(self._backend, self._plan.questions, request, past, price))
        if _short(request.key) not in self._duplicated:
            return await self._settle(request)
        if request.key in self._shared:
            return await asyncio.shield(self._shared[request.key])
        mine = self._shared[request.key] = asyncio.get_running_loop().create_future()
        settled = await self._settle(request)
        mine.set_result(settled)
        return settled

    async def _settle(self, request: Request) -> Settled:  # noqa: C901  (one request from its past to its end)
        past = await self._past(request.key)
        price = self._options.price
        room = room_of(self._backend, self._plan.questions.can, request)
        most = most_of(request, room, price)
        if past.raw is not None:
            settled = await self._parser.do(lambda: recalled(self._backend, self._plan.questions, request, past, price))
            if not settled.again:
                return self._paid(request, past, settled, most)
        if isinstance(self._backend, Replay):
            return await self._replayed(request, self._backend)
        spent, tried = past.price or 0.0, past.attempts
        tokens = tokens_of(request, room)
        outcome, last = Outcome("connection"), None
        for attempt in range(self._options.retries.attempts):
            if not await self._afford(most):
                return self._given_up(request, NOT_RUN, tried, spent, error="the spending limit was reached")
            answer, last = await self._attempt(request, tried, most, tokens, last)
            tried += 1
            outcome = answer.outcome
            said = verdict(outcome.http_status, answer.body) if outcome.http_status is not None else "again"
            if said == "ok":
                settled = await self._take(request, answer, tried)
                self._count_tokens(settled, tokens, room)
                cost = settled.cost if settled.cost is not None else most
                spent = self._pay(request.key, tried - 1, most, cost, spent, status=settled.fared.status)
                settled = settled.with_price(spent if price is not None else None)
                if not settled.again:
                    return settled
                outcome = Outcome("reply", outcome.http_status, None, settled.fared.error or "")
            else:
                # a connection that broke or hung may have been billed for; a refusal was not
                doubtful = outcome.http_status is None and not answer.unsent
                cost = most if doubtful else 0.0
                what = {"http": outcome.http_status, "error": outcome.detail}
                spent = self._pay(request.key, tried - 1, most, cost, spent, **what)
            if said == "stop":
                raise BackendError(
                    f"{self._backend.model} at {self._backend.url}: status {outcome.http_status}: {outcome.detail} "
                    "What was answered is stored; when this is mended, the same command goes on."
                )
            wait_s = self._options.retries.wait(attempt, outcome.retry_after_s, self._rng)
            if said == "final" or wait_s is None:
                break
            await self._clock.sleep(wait_s)
        if said == "ok":
            return settled
        error = outcome.detail or outcome.kind
        return self._given_up(request, "http_error", tried, spent, error=error, http_status=outcome.http_status)

    async def _past(self, key: bytes) -> Past:
        history = self._place.history
        return (await in_thread(lambda: history.past(key)) if history.knows(key) else None) or Past()

    def _paid(self, request: Request, past: Past, settled: Settled, most: float) -> Settled:
        """A reply of an earlier session, which may have been killed before it noted what that cost."""
        if past.paid:
            return settled
        cost = price = None
        if self._options.price is not None:
            cost = settled.cost if settled.cost is not None else most
            price = (past.price or 0.0) + cost
        self._place.journal.note(ended(request.key, past.attempts - 1, cost, price, status=settled.fared.status))
        return settled.with_price(price)

    def _given_up(
        self, request: Request, status: Status, tried: int, spent: float, *, error: str, http_status: int | None = None
    ) -> Settled:
        price = None if self._options.price is None else spent
        fared = Fared(status, http_status, error, tried, price=price)
        self._place.journal.note(
            unanswered(request.key, status=status, http_status=http_status, error=error, attempts=tried, price=price)
        )
        return Settled(fared)

    async def _attempt(
        self, request: Request, attempt: int, most: float, tokens: float, last: Visit | None
    ) -> tuple[Answer, Visit | None]:
        """An answer; and the visit, where the server did not answer for itself."""
        slot = await self._gate.enter()
        visit, lives, load = None, None, "other"
        try:
            visit = await self._fleet.enter(request.group.explanation, last)
            if self._requests_pace is not None:
                await self._requests_pace.take()
            if self._tokens_pace is not None:
                await self._tokens_pace.take(tokens)
            await self._about_to_send(request.key, attempt, most)
            self.tally.sent += 1
            answer = await visit.post(request.path, request.body)
            status = answer.outcome.http_status
            lives = status is not None and status < 500
            late = answer.outcome.kind == "timeout" and not answer.unsent
            load = "busy" if status in BUSY or late else "ok" if lives else "other"
            return answer, None if lives else visit
        finally:
            if visit is not None:
                self._fleet.leave(visit, ok=lives)
            self._gate.leave(load, slot)  # type: ignore[arg-type]

    async def _about_to_send(self, key: bytes, attempt: int, most: float) -> None:
        """After the end of this process, or of the machine, it is known what may have been billed, or spent."""
        journal, note = self._place.journal, sent(key, attempt, most)
        try:
            if self._options.max_cost is None:
                await journal.write(note)
            else:
                await journal.store(note, at_once=True)
        except asyncio.CancelledError:
            with contextlib.suppress(JournalError):
                journal.note(unsent(key, attempt))
            raise

    async def _take(self, request: Request, answer: Answer, tried: int) -> Settled:
        """Stores a reply, then reads it."""
        raw, journal = answer.body, self._place.journal
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        latency_s = round(answer.latency_s, 6)  # as it is read again
        head = reply(request.key, tried - 1, latency_s, at)
        if self._options.keep == "needed":
            try:
                raw = await self._parser.do(lambda: cut_down(self._backend, request, raw))
            except asyncio.CancelledError:  # there is no time left to cut it down, and it is paid for
                journal.append(head, raw)
                raise
        await journal.store(head, raw)
        return await self._read(request, Past(tried, None, raw, latency_s, at))

    async def _read(self, request: Request, past: Past) -> Settled:
        price = self._options.price
        return await self._parser.do(lambda: parsed(self._backend, self._plan.questions, request, past, price))

    async def _replayed(self, request: Request, replay: Replay) -> Settled:
        past = await in_thread(lambda: replay.past(request.key)) or Past()
        if past.raw is None:
            end = past.unanswered or {"status": NOT_RUN, "error": "the replayed run never asked", "http_status": None}
            return self._given_up(request, end["status"], 0, 0.0, error=end["error"], http_status=end["http_status"])
        await self._place.journal.store(reply(request.key, 0, past.latency_s or 0.0, past.at or ""), past.raw)
        self._place.journal.note(ended(request.key, 0, None, None))
        return await self._read(request, Past(1, None, past.raw, past.latency_s or 0.0, past.at or ""))

    async def _afford(self, most: float) -> bool:
        """Holds back what a request may cost at most; False where the limit is reached for good."""
        if self._options.price is None:
            return True
        while not self._spending.reserve(most):
            if self._spending.exhausted:
                self.tally.broke = True
                self.refused = most if self.refused is None else min(self.refused, most)
                return False
            self._money.clear()
            await self._money.wait()
        return True

    def _pay(self, key: bytes, attempt: int, most: float, cost: float, spent: float, **what: object) -> float:
        """Notes that an attempt is over; gives what all attempts cost, with the `spent` before it."""
        if self._options.price is None:
            self._place.journal.note(ended(key, attempt, None, None, **what))
            return 0.0
        self._place.journal.note(ended(key, attempt, cost, spent + cost, **what))
        self._spending.settle(most, cost)
        self._money.set()
        self.tally.spent = self._spent()
        return spent + cost

    def _spent(self) -> float | None:
        return None if self._options.price is None else self._spending.spent

    def _count_tokens(self, settled: Settled, taken: float, room: int) -> None:
        """Counts towards the pace what the prompt had more tokens than it was taken for."""
        if self._tokens_pace is not None:
            self._tokens_pace.correct(taken, (settled.fared.usage.prompt_tokens or 0) + room)

    def _count(self, status: Status, requests: int = 1) -> None:
        self.tally.count(status, requests)
        self._shown(self.tally)

    async def _write(self, filling: Filling) -> None:
        done = await in_thread(lambda: self._place.write_shard(filling, self._plan.questions.keys))
        if done is not None:
            await self._place.journal.store(done)
        self._open.release()


def _short(key: bytes) -> int:
    return int.from_bytes(key[:8])


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of errors that came together, the one to tell: ours before others', which may follow from it."""
    leaves: list[BaseException] = []
    rest: list[BaseException] = [failures]
    while rest:
        error = rest.pop()
        if isinstance(error, BaseExceptionGroup):
            rest.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((e for e in leaves if isinstance(e, NscoreError)), leaves[0])
