"""What a stored reply says, found out beside the event loop: it ends as predictions or as a status, whatever it holds."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar, get_args

import numpy as np

from nscore._running.filling import Fared, Settled
from nscore._running.shards import Questions, Request
from nscore._sending.history import Past
from nscore._sending.keep import needed, restored
from nscore._sending.prices import Price
from nscore._sending.retry import redact
from nscore._sending.threads import in_thread
from nscore.backends import Backend
from nscore.errors import ReplyError
from nscore.exchange import Reply, Usage
from nscore.records import NOT_RUN, OK, Status
from nscore.simulators import Predictions

__all__ = ["Beside", "cut_down", "parsed", "recalled", "sound"]

STATUSES: tuple[Status, ...] = get_args(Status)
UNREAD: Status = "parse_error"
T = TypeVar("T")


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
            for (_, done), (result, error) in zip(jobs, await in_thread(partial(_do_all, jobs)), strict=True):
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


def parsed(backend: Backend, questions: Questions, request: Request, past: Past, price: Price | None = None) -> Settled:
    """What a stored reply says; whatever it holds ends as a status. `price` is what it cost, where that is asked."""
    assert past.raw is not None  # noqa: S101  (a reply was stored)
    usage, error, again, predictions = Usage(), None, False, None
    try:
        said = _reply(backend, past.raw)
        usage = said.usage
        found = request.group.simulator.read(request.ask, request.group.records, said, questions.can)
        predictions, wrong = sound(request, list(found))
        error = None if wrong is None else redact(wrong, backend.secrets())
        status = next((s for p in predictions for s in p.status if s != OK), OK)
    except ReplyError as failure:
        status, again = failure.status, failure.again  # type: ignore[assignment]
        error = redact(str(failure), backend.secrets())[:500]
    fared = Fared(status, 200, error, past.attempts, past.latency_s, past.at, usage, past.price)
    return Settled(fared, predictions, None if price is None else price.of(usage), again)


def recalled(
    backend: Backend, questions: Questions, request: Request, past: Past | None, price: Price | None = None
) -> Settled:
    """How a request fared, as the journal tells: its last reply counts, unless that holds no answer and it was given up.

    `again` says that it is worth asking once more.
    """
    if past is None:
        return Settled(Fared(NOT_RUN), again=True)
    settled = parsed(backend, questions, request, past, price) if past.raw is not None else None
    if settled is not None and (not settled.again or past.unanswered is None):
        return settled
    if past.unanswered is None:  # it was sent, and nobody knows how it ended
        return Settled(Fared(NOT_RUN, attempts=past.attempts, price=past.price), again=True)
    return Settled(Fared(**past.unanswered), again=True)


def sound(request: Request, found: list[Predictions]) -> tuple[list[Predictions], str | None]:
    """What a simulator of anybody's read, as the tables take it; and what was wrong with it, in words.

    An unknown status, `ok` without a finite number, another number of tokens than was asked about: all are
    `parse_error`, and null. A failure that has a number is null.
    """
    lengths = [stop - start for start, stop in request.rows]
    if not [len(p.status) for p in found] == [len(p.predicted) for p in found] == lengths:
        name = request.group.simulator.name
        return [Predictions.none(UNREAD, n) for n in lengths], f"{name} read other tokens than it asked about"
    wrong: list[str] = []
    return [_sound(p, wrong) for p in found], wrong[0] if wrong else None


def _sound(found: Predictions, wrong: list[str]) -> Predictions:
    values: list[float | None] = []
    statuses: list[Status] = []
    for status, predicted in zip(found.status, found.predicted, strict=True):
        value, told = None, status
        if status not in STATUSES:
            wrong.append(f"found the status {str(status)[:50]!r}, expected one of {', '.join(STATUSES)}")
            told = UNREAD
        elif status == OK and (value := _finite(predicted)) is None:
            wrong.append(f"found the prediction {str(predicted)[:50]!r}, expected a finite number")
            told = UNREAD
        values.append(value)
        statuses.append(told)
    n = len(values)
    masses = [_finite(mass) for mass in found.digit_mass] if len(found.digit_mass) == n else []
    chances = [_distribution(each) for each in found.distribution] if len(found.distribution) == n else []
    return Predictions(statuses, values, masses, chances)


def _finite(value: float | None) -> float | None:
    # what third parties give may be of any type
    if not isinstance(value, int | float | np.number) or not math.isfinite(value):
        return None
    return float(value)


def _distribution(chances: list[float] | None) -> list[float] | None:
    return chances if chances is None or all(_finite(chance) is not None for chance in chances) else None


def _reply(backend: Backend, raw: bytes) -> Reply:
    return restored(raw) or backend.read(raw)


def cut_down(backend: Backend, request: Request, raw: bytes) -> bytes:
    try:
        return needed(backend.read(raw), request.prompt)
    except Exception:  # noqa: BLE001  (what cannot be read is kept whole, whatever ails the parser)
        return raw
