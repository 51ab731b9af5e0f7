"""The schedule of a run in virtual time: nscore's own gate, fleet, breakers, paces and retries before servers that are made up.

A made-up server prefills one prompt after another and writes answers side by side. All between the plan and the network is the
code of a real run, in the order of `nscore._running.engine`: the gate, the fleet (which server an explanation belongs to, and
what is passed over), the paces, the reply, the retries. Left out are disk and processor: a client here is infinitely quick.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from unittest import mock

import nscore as ns
from nscore._running.engine import BUSY
from nscore._running.fleet import Fleet, Turns, Visit
from nscore._running.options import Options
from nscore._running.shares import shared
from nscore._sending.limits import Concurrency, Pace, RealClock
from nscore._sending.retry import Outcome, Retries, verdict
from nscore._sending.transport import Answer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

__all__ = ["SHARD", "Faults", "Found", "Hosted", "Server", "Sizes", "simulated"]

REFUSED_S = 0.05
SHARD = 51  # neurons: 2^15 rows, in a run of 640 a neuron
KNOWN = 256  # explanations whose prompts a server's cache holds


@dataclass(frozen=True)
class Sizes:
    """Of one request: the tokens of its prompt, those of them that no cache holds, and of its answer.

    Attributes:
        taken: of a limit on tokens, as nscore reckons it before it is answered.
        cold: those that are not in the cache of a server that was asked nothing yet about the explanation.
    """

    prompt: int
    new: int
    answer: int
    taken: float = 0.0
    cold: int = 0

    def new_at(self, before: int | None) -> int:
        """Those that a server's cache lacks: the prompt of its last request about the explanation, if any, had `before`."""
        missed = self.cold if before is None else self.new + max(0, self.prompt - before - 1)
        return min(max(self.new, missed), max(self.new, self.cold))


@dataclass(frozen=True)
class Server:
    """How fast a server is.

    Attributes:
        prefill: tokens of prompts a second that are not in its cache.
        decode: tokens a second of each answer.
        slots: answers at a time; further requests wait at the server.
        spread: of the lengths of answers: uniform, so much more or less. With none, all would end in step.
    """

    prefill: float = 20_000.0
    decode: float = 40.0
    slots: int = 64
    spread: float = 0.2

    def seconds(self, new: float, answer: float) -> tuple[float, float]:
        """What a request takes of the one prefill, and of one of the slots."""
        return new / self.prefill, answer / self.decode

    def rate(self, new: float, answer: float) -> float:
        """Requests a second: either the prefill is busy all the time, or the slots are."""
        prefill_s, decode_s = self.seconds(new, answer)
        return min(1 / prefill_s, self.slots / (prefill_s + decode_s))


@dataclass(frozen=True)
class Faults:
    """What goes wrong: a share of replies has a status; the first server is slower; the second is out for a while."""

    share: float = 0.0
    status: int = 500
    slow: float = 1.0
    out_s: float = 0.0


@dataclass(frozen=True)
class Hosted:
    """Limits of a provider that a run keeps to."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass
class Found:
    """What a simulated run came to.

    Attributes:
        steady: requests a second, from 40 to 80% of the replies.
        seconds: of the whole.
        calls: for each request.
    """

    done: list[float] = field(default_factory=list)
    calls: int = 0
    answered: list[int] = field(default_factory=list)
    failed: int = 0

    @property
    def seconds(self) -> float:
        """Until the last reply."""
        return self.done[-1]

    @property
    def steady(self) -> float:
        """Requests a second in the middle."""
        first, last = int(0.4 * len(self.done)), int(0.8 * len(self.done))
        return (last - first) / (self.done[last] - self.done[first])

    @property
    def beside(self) -> float:
        """Seconds that beginning and end take, beyond the requests at the steady rate."""
        return self.seconds - len(self.done) / self.steady


class _Machine:
    """A made-up server, in the place of `Transport`."""

    def __init__(self, server: Server, found: Found, at: int, faults: Faults, rng: random.Random) -> None:
        self.server, self.found, self.at, self.faults, self.rng = server, found, at, faults, rng
        self.speed = faults.slow if at == 0 else 1.0
        self.back = asyncio.get_running_loop().time() + (faults.out_s if at == 1 else 0.0)
        self.prefill, self.slots = asyncio.Lock(), asyncio.Semaphore(server.slots)
        self.known: dict[str, int] = {}

    async def post(self, path: str, body: bytes) -> Answer:
        """Takes as long as the request's sizes say; the path is the explanation."""
        sizes = Sizes(*json.loads(body))
        self.found.calls += 1
        loop = asyncio.get_running_loop()
        start = loop.time()
        if start < self.back:
            await asyncio.sleep(REFUSED_S)
            return Answer(Outcome("connection"), b"", REFUSED_S, unsent=True)
        if self.rng.random() < self.faults.share:
            await asyncio.sleep(REFUSED_S)
            return Answer(Outcome("reply", self.faults.status), b"", REFUSED_S)
        prefill_s, decode_s = self.server.seconds(sizes.new_at(self.known.pop(path, None)), sizes.answer)
        self.known[path] = sizes.prompt
        if len(self.known) > KNOWN:
            del self.known[next(iter(self.known))]
        decode_s *= self.rng.uniform(1 - self.server.spread, 1 + self.server.spread)
        async with self.slots:
            async with self.prefill:
                await asyncio.sleep(prefill_s / self.speed)
            await asyncio.sleep(decode_s / self.speed)
        self.found.answered[self.at] += 1
        return Answer(Outcome("reply", 200), b"{}", loop.time() - start)

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass
class _Client:
    """One process of nscore: what an `Engine` has of limits."""

    gate: Concurrency
    fleet: Fleet
    paces: Sequence[Pace | None]
    retries: Retries
    rng: random.Random
    clock: RealClock
    found: Found
    start: float

    async def settle(self, about: str, sizes: Sizes) -> None:
        """As `Engine._settle`: attempts until one is answered."""
        last: Visit | None = None
        body = json.dumps(astuple(sizes)).encode()
        for attempt in range(self.retries.attempts):
            answer, last = await self.attempt(about, body, sizes.taken, last)
            status = answer.outcome.http_status
            if status is not None and verdict(status, answer.body) == "ok":
                self.found.done.append(self.clock.now() - self.start)
                return
            wait_s = self.retries.wait(attempt, None, self.rng)
            if wait_s is None:
                break
            await self.clock.sleep(wait_s)
        self.found.failed += 1

    async def attempt(self, about: str, body: bytes, tokens: float, last: Visit | None) -> tuple[Answer, Visit | None]:
        """As `Engine._attempt`."""
        slot = await self.gate.enter()
        visit = await self.fleet.enter(about, last)
        for pace, amount in zip(self.paces, (1.0, tokens), strict=True):
            if pace is not None:
                await pace.take(amount)
        answer = await visit.post(about, body)
        status = answer.outcome.http_status
        lives = status is not None and status < 500
        self.fleet.leave(visit, ok=lives)
        self.gate.leave("busy" if status in BUSY else "ok" if lives else "other", slot)
        return answer, None if lives else visit


def simulated(
    neurons: Sequence[tuple[str, Sequence[Sizes]]],
    server: Server,
    number: int,
    *,
    concurrency: int,
    workers: int = 1,
    shard: int = SHARD,
    faults: Faults | None = None,
    hosted: Hosted | None = None,
    attempts: int = 8,
) -> Found:
    """A run in virtual time.

    Args:
        neurons: explanations, and the requests of each.
        server: how fast each of the servers is.
        number: how many there are.
        concurrency: the most requests in flight, of all workers together.
        workers: processes of nscore; several take a shard each, one after another.
        shard: how many neurons are in one.
        faults: what goes wrong.
        hosted: limits that are kept.
        attempts: tries of a request.
    """
    from virtual_clock import run_virtual

    kept = hosted or Hosted()
    options = Options(
        concurrency=concurrency,
        requests_per_minute=kept.requests_per_minute,
        tokens_per_minute=kept.tokens_per_minute,
        retries=Retries(attempts=attempts),
    )
    return run_virtual(_run(neurons, server, number, options, workers, shard, faults or Faults()))


async def _run(  # noqa: PLR0917  (what `simulated` was told)
    neurons: Sequence[tuple[str, Sequence[Sizes]]],
    server: Server,
    number: int,
    options: Options,
    workers: int,
    shard: int,
    faults: Faults,
) -> Found:
    clock, found, rng = RealClock(), Found(answered=[0] * number), random.Random(1)  # noqa: S311
    members = [ns.OpenAI("m", f"http://node{at}:8000/v1", api_key="none") for at in range(number)]
    machines = {m.address: _Machine(server, found, at, faults, rng) for at, m in enumerate(members)}
    backend = ns.Servers(members) if number > 1 else members[0]
    share = shared(options, workers)
    paces = (share.requests_per_minute, share.tokens_per_minute)
    parts = [neurons] if workers == 1 else [neurons[i : i + shard] for i in range(0, len(neurons), shard)]
    shards = iter(enumerate(parts))
    start = clock.now()

    async def carry_out() -> None:
        borne = None
        for index, part in shards:
            with mock.patch("nscore._running.fleet.Transport", lambda address, *_, **__: machines[address]):
                fleet = Fleet(backend, timeout_s=share.timeout_s, clock=clock)
            fleet.go_on_after(index * len(part))
            client = _Client(
                Concurrency(share.concurrency, start=fleet.first if borne is None else borne),
                fleet,
                [Pace(limit, clock=clock) if limit else None for limit in paces],
                share.retries,
                rng,
                clock,
                found,
                start,
            )
            requests = _in_turn(part, fleet.at_once)
            await asyncio.gather(*(_work(client, requests) for _ in range(2 * share.concurrency + 64)))
            borne = client.gate.limit

    await asyncio.gather(*(carry_out() for _ in range(workers)))
    return found


def _in_turn(part: Sequence[tuple[str, Sequence[Sizes]]], at_once: int) -> Iterator[tuple[str, Sizes]]:
    """The requests as `Engine._feed` takes them."""
    turns: Turns[tuple[str, Sizes]] = Turns(at_once)
    for about, each in part:
        yield from turns.add([(about, sizes) for sizes in each])
    yield from turns.rest()


async def _work(client: _Client, requests: Iterator[tuple[str, Sizes]]) -> None:
    for about, sizes in requests:
        await client.settle(about, sizes)
