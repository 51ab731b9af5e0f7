"""What a stored reply says, found out beside the event loop: it ends as predictions or as a status, whatever it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeVar

from nscore._filling import Fared
from nscore._history import Past
from nscore._keep import needed, restored
from nscore._plan import Plan, Request
from nscore._prices import Price
from nscore._retry import redact
from nscore.backends import Backend
from nscore.errors import ReplyError
from nscore.exchange import Reply, Usage
from nscore.records import OK
from nscore.simulators import Predictions

__all__ = ["Beside", "Settled", "cut_down", "parsed"]

T = TypeVar("T")


class Settled(NamedTuple):
    """What became of a request."""

    fared: Fared
    predictions: list[Predictions] | None = None
    cost: float | None = None
    again: bool = False

    def with_price(self, price: float | None) -> Settled:
        """The same, having cost so much in all."""
        return self if self.fared.price == price else self._replace(fared=replace(self.fared, price=price))


class Beside:
    """A thread beside the event loop that does what it is given, as much at a time as there is."""

    def __init__(self) -> None:
        self._jobs: asyncio.Queue[tuple[Callable[[], object], asyncio.Future[object]] | None] = asyncio.Queue()

    async def do(self, job: Callable[[], T]) -> T:
        """Does a job and gives its result."""
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait((job, done))
        return await done  # type: ignore[return-value]

    def close(self) -> None:
        """Ends the work when all jobs are done."""
        self._jobs.put_nowait(None)

    async def work(self) -> None:
        """Does jobs until it is closed."""
        closed = False
        while not closed:
            batch = [await self._jobs.get()]
            while not self._jobs.empty():
                batch.append(self._jobs.get_nowait())
            closed = None in batch
            jobs = [item for item in batch if item is not None]
            for (_, done), (result, error) in zip(jobs, await asyncio.to_thread(_do_all, jobs), strict=True):
                if done.cancelled():
                    continue
                if error is None:
                    done.set_result(result)
                else:
                    done.set_exception(error)


def _do_all(
    jobs: list[tuple[Callable[[], object], asyncio.Future[object]]],
) -> list[tuple[object, Exception | None]]:
    results: list[tuple[object, Exception | None]] = []
    for job, _ in jobs:
        try:
            results.append((job(), None))
        except Exception as error:  # noqa: BLE001  (it is raised where the job was given)
            results.append((None, error))
    return results


def parsed(backend: Backend, plan: Plan, request: Request, past: Past, price: Price | None) -> Settled:
    """What a stored reply says; whatever it holds ends as a status."""
    usage = Usage()
    try:
        said = _reply(backend, past.raw)
        usage = said.usage
        predictions = request.group.simulator.read(request.ask, request.group.records, said, plan.can)
    except ReplyError as error:
        fared = Fared(
            error.status,  # type: ignore[arg-type]
            200,
            redact(str(error)[:500], backend.secrets()),
            past.attempts,
            past.latency_s,
            past.at,
            usage,
        )
        return Settled(fared, None, None if price is None else price.of(usage), error.again)
    failed = next((s for p in predictions for s in p.status if s != OK), OK)
    cost = None if price is None else price.of(usage)
    fared = Fared(failed, 200, None, past.attempts, past.latency_s, past.at, usage, cost)
    return Settled(fared, predictions, cost)


def _reply(backend: Backend, raw: bytes) -> Reply:
    return restored(raw) or backend.read(raw)


def cut_down(backend: Backend, request: Request, raw: bytes) -> bytes:
    try:
        return needed(backend.read(raw), request.prompt)
    except Exception:  # noqa: BLE001  (what cannot be read is kept whole, whatever ails the parser)
        return raw
