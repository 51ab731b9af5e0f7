"""The engine of a simulation: a bounded crew takes requests from the plan, and nothing that was paid for is lost.

A request passes the limits, is noted as sent, and posted. Its reply is durable in the journal before anybody parses it;
parsing runs in a thread beside the network; what it says fills its shard; a shard that is full is written out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeVar

from nscore._filling import Fared, Filling
from nscore._history import Past, ended, reply, sent, shard_done
from nscore._limits import Breaker, Clock, Concurrency, Pace, RealClock, Spending
from nscore._options import Options
from nscore._plan import Plan, Request
from nscore._reading import Beside, Settled, cut_down, parsed
from nscore._retry import Outcome, verdict
from nscore._transport import Answer, Transport
from nscore.backends import Backend, Replay
from nscore.errors import BackendError, NscoreError
from nscore.records import EXPLANATION_ID, NOT_RUN, OK, SIMULATOR, Status
from nscore.run import Workplace

__all__ = ["Engine", "Tally"]

Keep = Literal["raw", "needed"]
T = TypeVar("T")

# Requests that wait between the plan and the crew, and shards that may be open at once.
QUEUED, OPEN_SHARDS = 256, 24
# Servers that say so refuse for load.
BUSY = {429, 503, 529}
BYTES_PER_TOKEN = 3.0


@dataclass(slots=True)
class Tally:
    """How a run stands.

    Attributes:
        done: requests that are settled, one way or another.
        failed: those of them without an answer for every token.
        statuses: how many requests ended in each status.
        sent: calls that were made.
        prompt_tokens: tokens in.
        completion_tokens: tokens out.
        spent: dollars, of earlier sessions too; None where no price is known.
        in_doubt: requests of sessions that were killed, which the server may have billed without anybody having a reply.
        broke: whether the spending limit ended the run.
    """

    done: int = 0
    failed: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spent: float | None = None
    in_doubt: int = 0
    broke: bool = False


class Engine:
    """Carries out a plan.

    Args:
        plan: what to ask.
        place: the run directory.
        backend: whom to ask.
        duplicated: first bytes of the keys that come more than once in the plan.
        options: how.
        shown: is told of every request that is settled.
    """

    def __init__(
        self,
        plan: Plan,
        place: Workplace,
        backend: Backend,
        *,
        duplicated: frozenset[int],
        options: Options,
        shown: Callable[[Tally], object] = lambda _: None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._plan, self._place, self._backend, self._options, self._shown = plan, place, backend, options, shown
        self._duplicated = duplicated
        self._shared: dict[bytes, asyncio.Future[Settled]] = {}
        self._logged: set[bytes] = set()  # whose row stands in a shard that an earlier session wrote
        clock = clock or RealClock()
        self._clock, self._rng = clock, rng or random.Random()  # noqa: S311  (jitter, no secret)
        self._gate = Concurrency(options.concurrency)
        self._breaker = Breaker(clock=clock)
        rpm, tpm = options.requests_per_minute, options.tokens_per_minute
        self._requests_pace = Pace(rpm, clock=clock) if rpm else None
        self._tokens_pace = Pace(tpm, clock=clock, what="tokens") if tpm else None
        self._spending = Spending(options.max_cost, place.history.spent)
        self._money = asyncio.Event()
        self._transport = Transport(
            backend.address, backend.headers(), timeout_s=options.timeout_s, secrets=backend.secrets()
        )
        self._parser = Beside()
        self._queue: asyncio.Queue[tuple[Filling, int, Request] | None] = asyncio.Queue(QUEUED)
        self._open = asyncio.Semaphore(OPEN_SHARDS)
        self._replicates = plan.replicates
        # Beyond those in flight, some wait for the disk, for the parser or to try again.
        self._crew = 2 * options.concurrency + 64
        self.tally = Tally(spent=self._spent(), in_doubt=place.history.in_doubt)

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
            await self._transport.aclose()
        return self.tally

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        shards = self._plan.shards()
        while (shard := await asyncio.to_thread(next, shards, None)) is not None:
            if await asyncio.to_thread(self._place.is_done, shard.index):
                known = {request.key for request in shard.requests} - self._logged
                self._logged |= {key for key in known if _short(key) in self._duplicated}
                self._count(OK, len(known))
                continue
            self._place.begin(shard.index, shard.digest)
            await self._open.acquire()
            filling = Filling(shard, replicates=self._replicates, distribution=self._options.distribution)
            requests, shard.requests = shard.requests, []
            if not requests:
                group.create_task(self._write(filling))
            for place, request in enumerate(requests):
                await self._queue.put((filling, place, request))
        for _ in range(self._crew):
            await self._queue.put(None)

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while (item := await self._queue.get()) is not None:
            filling, place, request = item
            settled, first = await self._settled(request)
            if settled.predictions is None:
                filling.fail(request, settled.fared.status, again=settled.again)
            else:
                filling.take(request, settled.predictions)
            if first:
                filling.log(place, request, settled.fared)
                self._add(settled.fared)
                self._count(settled.fared.status)
            filling.open -= 1
            if not filling.open:
                group.create_task(self._write(filling))

    async def _settled(self, request: Request) -> tuple[Settled, bool]:
        """What became of a request, and whether it is the first of its key."""
        if _short(request.key) not in self._duplicated:
            return await self._settle(request), True
        if request.key in self._shared:
            there = await asyncio.shield(self._shared[request.key])
            return there, False
        mine = self._shared[request.key] = asyncio.get_running_loop().create_future()
        settled = await self._settle(request)
        mine.set_result(settled)
        return settled, request.key not in self._logged

    async def _settle(self, request: Request) -> Settled:
        history = self._place.history
        past = await asyncio.to_thread(history.past, request.key) if history.knows(request.key) else None
        spent, tried = 0.0, 0
        if past is not None:
            settled = await self._read(request, past)
            if not settled.again:
                return settled
            tried = past.attempts
        replay = self._backend if isinstance(self._backend, Replay) else None
        if replay is not None:
            return await self._replayed(request, replay)
        price = self._options.price
        room = self._room(request)
        most = 0.0 if price is None else price.most(request.prompt, room - request.prompt.max_tokens)
        tokens = len(request.body) / BYTES_PER_TOKEN + room
        outcome = Outcome("connection")
        for attempt in range(self._options.retries.attempts):
            if not await self._afford(most):
                return Settled(Fared(NOT_RUN, attempts=tried, error="the spending limit was reached", price=spent))
            answer = await self._attempt(request, tried, most, tokens)
            tried += 1
            outcome = answer.outcome
            said = verdict(outcome.http_status, answer.body) if outcome.http_status is not None else "again"
            if said == "ok":
                settled = await self._take(request, answer, tried)
                self._count_tokens(settled, tokens, room)
                cost = settled.cost if settled.cost is not None else most
                spent += self._pay(request.key, tried - 1, most, cost, status=settled.fared.status)
                settled = settled.with_price(spent if price is not None else None)
                if not settled.again:
                    return settled
                outcome = Outcome("reply", outcome.http_status, None, settled.fared.error or "")
            else:
                # a connection that broke or hung may have been billed for; a refusal was not
                doubtful = outcome.http_status is None and not answer.unsent
                spent += self._pay(
                    request.key,
                    tried - 1,
                    most,
                    most if doubtful else 0.0,
                    http=outcome.http_status,
                    error=outcome.detail,
                )
            if said == "stop":
                raise BackendError(
                    f"{self._backend.model} at {self._backend.url}: status {outcome.http_status}: {outcome.detail} "
                    "What was answered is stored; when this is mended, the same command goes on."
                )
            wait_s = self._options.retries.wait(attempt, outcome.retry_after_s, self._rng)
            if said == "final" or wait_s is None:
                break
            await self._clock.sleep(wait_s)
        status: Status = settled.fared.status if said == "ok" else "http_error"
        return Settled(
            Fared(
                status,
                outcome.http_status,
                outcome.detail or outcome.kind,
                tried,
                price=spent if price is not None else None,
            ),
            again=said == "ok",
        )

    def _room(self, request: Request) -> int:
        """The most tokens that an answer may have, thinking and what the user sets included."""
        settings = self._backend.settings()
        thinking = settings.get("thinking_tokens") if self._plan.can.thinks else None
        extra = settings.get("extra")
        named = [extra.get(name) for name in ("max_tokens", "max_completion_tokens")] if isinstance(extra, dict) else []
        given = max((n for n in named if isinstance(n, int)), default=0)
        return max(given, request.prompt.max_tokens + (thinking if isinstance(thinking, int) else 0))

    async def _attempt(self, request: Request, attempt: int, most: float, tokens: float) -> Answer:
        slot = await self._gate.enter()
        entry, lives, load = None, None, "other"
        try:
            entry = await self._breaker.enter()
            if self._requests_pace is not None:
                await self._requests_pace.take()
            if self._tokens_pace is not None:
                await self._tokens_pace.take(tokens)
            note = sent(request.key, attempt, most)
            if self._options.max_cost is None:
                self._place.journal.note(note)
            else:  # what may be spent is known on the disk before it is
                await self._place.journal.store(note, at_once=True)
            self.tally.sent += 1
            answer = await self._transport.post(request.path, request.body)
            status = answer.outcome.http_status
            lives = status is not None and status < 500
            late = answer.outcome.kind == "timeout" and not answer.unsent
            load = "busy" if status in BUSY or late else "ok" if lives else "other"
            return answer
        finally:
            if entry is not None:
                self._breaker.record(entry, ok=lives)
            self._gate.leave(load, slot)  # type: ignore[arg-type]

    async def _take(self, request: Request, answer: Answer, tried: int) -> Settled:
        """Stores a reply, then reads it."""
        raw = answer.body
        if self._options.keep == "needed":
            raw = await self._parser.do(lambda: cut_down(self._backend, request, raw))
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        latency_s = round(answer.latency_s, 6)  # as it is read again
        await self._place.journal.store(reply(request.key, tried - 1, latency_s, at), raw)
        return await self._read(request, Past(raw, tried, latency_s, at))

    async def _read(self, request: Request, past: Past) -> Settled:
        return await self._parser.do(lambda: parsed(self._backend, self._plan, request, past, self._options.price))

    async def _replayed(self, request: Request, replay: Replay) -> Settled:
        past = await asyncio.to_thread(replay.past, request.key)
        if past is None:
            return Settled(Fared(NOT_RUN, error="the replayed run never asked this"))
        await self._place.journal.store(reply(request.key, 0, past.latency_s or 0.0, past.at or ""), past.raw)
        return await self._read(request, past)

    async def _afford(self, most: float) -> bool:
        """Holds back what a request may cost at most; False where the limit is reached for good."""
        if self._options.price is None:
            return True
        while not self._spending.reserve(most):
            if self._spending.exhausted:
                self.tally.broke = True
                return False
            self._money.clear()
            await self._money.wait()
        return True

    def _pay(self, key: bytes, attempt: int, most: float, cost: float, **what: object) -> float:
        known = self._options.price is not None
        self._place.journal.note(ended(key, attempt, cost if known else None, **what))
        if not known:
            return 0.0
        self._spending.settle(most, cost)
        self._money.set()
        self.tally.spent = self._spent()
        return cost

    def _spent(self) -> float | None:
        return None if self._options.price is None else self._spending.spent

    def _count_tokens(self, settled: Settled, taken: float, room: int) -> None:
        """Counts towards the pace what the prompt had more tokens than it was taken for."""
        if self._tokens_pace is not None:
            self._tokens_pace.correct(taken, (settled.fared.usage.prompt_tokens or 0) + room)

    def _add(self, fared: Fared) -> None:
        self.tally.prompt_tokens += fared.usage.prompt_tokens or 0
        self.tally.completion_tokens += fared.usage.completion_tokens or 0

    def _count(self, status: Status, requests: int = 1) -> None:
        self.tally.done += requests
        self.tally.failed += requests if status != OK else 0
        self.tally.statuses[status] = self.tally.statuses.get(status, 0) + requests
        self._shown(self.tally)

    async def _write(self, filling: Filling) -> None:
        meeting = self._plan.meeting

        def write() -> dict[str, str]:
            simulated = filling.simulated()
            simulated = simulated.select(meeting.columns(simulated.columns))
            requests = filling.requests([*meeting.keys, SIMULATOR, EXPLANATION_ID])
            return self._place.write_shard(filling.shard.index, simulated, requests)

        files = await asyncio.to_thread(write)
        if filling.shard.whole and not filling.failed_calls:
            await self._place.journal.store(shard_done(filling.shard.index, filling.shard.digest, files))
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
