"""What holds a run back: how many requests at once, how many a minute, for how much money, and none at all in an outage.

Before each attempt a worker passes, in this order, a `Concurrency`, a `Breaker` and a `Pace`: the pace comes last, so
that nothing that it let through waits and then leaves in a heap. All belong to one event loop; none takes a thread.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from fractions import Fraction
from typing import Literal, NamedTuple, Protocol

from nscore.errors import LimitError, OutageError

__all__ = ["Breaker", "Clock", "Concurrency", "Money", "Pace", "RealClock", "Slot", "Spending"]

Money = float | Fraction  # dollars

MINUTE_S = 60.5  # requests that leave over 60.5 s may arrive over 60: a network delays one more than another
BURST_S = 0.05  # a loop that wakes a little late may catch up this much, or high rates would not be reached
PATIENCE = 100  # successes, at the least, before the level that was last refused is tried again
STEP = 16  # successes, at the most, for one more in flight
BORNE = 64  # successes that make up for one refusal
SAVED = 1 / 16  # refusals for each place in flight that may be made up for beforehand


class Clock(Protocol):
    """A clock that only goes forward, and a way to wait by it."""

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        ...

    async def sleep(self, wait_s: float, /) -> None:
        """Return after `wait_s` seconds of this clock."""
        ...


class RealClock:
    """The running event loop's own clock."""

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        return asyncio.get_running_loop().time()

    async def sleep(self, wait_s: float, /) -> None:
        """Return after `wait_s` seconds."""
        await asyncio.sleep(wait_s)


class Slot(NamedTuple):
    """A place among the requests in flight; `Concurrency.enter` gives it and `Concurrency.leave` takes it back."""

    epoch: int  # how often the limit had been lowered when it was given
    level: int  # how many requests were in flight then, this one included


class Concurrency:
    """As many requests at once as the server bears, found by trying: additive up, multiplicative down.

    The limit doubles each round trip until it is first lowered, then grows by 1 for each limit's worth of successes, or
    each 16; both only while the gate is full. A `busy` lowers it to 0.9 of the level at which the refused request entered
    (by 1 at the least, by half at the most), once a round trip: those that entered before say nothing new. Just under
    the level last refused it waits ten times as long before it tries that level again. It stays in [1, `most`]. Waiters
    pass in the order of their coming; entering and leaving take constant time.

    Each 64 successes make up for one `busy`, which then lowers nothing: servers say now and then that they are busy,
    however few ask, and who gave way to each of these would end at a few in flight.

    Attributes:
        limit: how many may be in flight; after a decrease more than that may still be.
        in_flight: how many are.
    """

    def __init__(self, most: int, *, start: int = 8) -> None:
        self._most = max(1, most)
        self.limit = min(max(1, start), self._most)
        self.in_flight = 0
        self._epoch = 0
        self._refused: int | None = None  # the level of the last refusal that counted
        self._successes = 0
        self._credit = 0.0  # how many refusals are made up for
        self._waiting: deque[asyncio.Future[Slot]] = deque()

    async def enter(self) -> Slot:
        """Wait for a place; whoever gets one must `leave`, whatever happens."""
        if self.in_flight < self.limit:  # then nobody waits: _admit has seen to it
            return self._slot()
        turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # given a place and cancelled in one breath: the place goes on to the next
                self.in_flight -= 1
                self._admit()
            raise

    def leave(self, outcome: Literal["ok", "busy", "other"], slot: Slot) -> None:
        """Give the place back; `busy` is a server that refused for load, `other` teaches nothing about load."""
        full = self.in_flight >= self.limit
        self.in_flight -= 1
        if outcome == "ok":
            self._credit = min(self._credit + 1 / BORNE, max(2.0, SAVED * self.limit))
        if outcome == "busy" and slot.epoch == self._epoch and self._credit >= 1:
            self._credit -= 1
        elif outcome == "busy" and slot.epoch == self._epoch:
            lower = min(self.limit - 1, int(0.9 * slot.level))
            # a request that came alone after a quiet time and met a limit per minute must not bring all down to 1
            self.limit = max(1, self.limit // 2, lower)
            self._epoch, self._refused, self._successes = self._epoch + 1, slot.level, 0
        elif outcome == "ok" and full and self.limit < self._most:
            self._successes += 1
            if self._successes >= self._needed():
                self.limit, self._successes = self.limit + 1, 0
        self._admit()

    def _needed(self) -> int:
        if self._refused is None:
            return 1
        return max(PATIENCE, 10 * self.limit) if self.limit + 1 == self._refused else min(self.limit, STEP)

    def _slot(self) -> Slot:
        self.in_flight += 1
        return Slot(self._epoch, self.in_flight)

    def _admit(self) -> None:
        while self._waiting and self.in_flight < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(self._slot())


class Pace:
    """At most `per_minute` in any window of 60 s, evenly spread; waiters pass in the order of their coming.

    What was let through in the last 60.5 s is remembered, so the limit holds exactly for amounts of any size, and still
    at a server whose clock sees requests up to 0.5 s closer together. In between GCRA spaces them, with 50 ms of burst.
    """

    def __init__(self, per_minute: float, *, clock: Clock, what: str = "requests", after: float = 0.0) -> None:
        if not 0 < per_minute < math.inf:
            raise LimitError(f"a limit of {per_minute} {what} a minute lets nothing through. Give a number above 0.")
        self.per_minute, self._what, self._clock = per_minute, what, clock
        self._turn = asyncio.Lock()
        self._log: deque[tuple[float, float]] = deque()  # when, how much
        self._sum = 0.0
        # what another let through just before, in the same share of a limit, of which nothing else is known
        self._next = self._clock.now() + after * MINUTE_S / per_minute + BURST_S if after else -math.inf

    async def take(self, amount: float = 1) -> None:
        """Wait until `amount` may go; a cancelled wait takes nothing.

        Raises:
            LimitError: the amount is larger than a whole minute's: no waiting would help.
        """
        if not 0 <= amount <= self.per_minute:
            raise LimitError(
                f"a request of {amount:g} {self._what} never fits a limit of {self.per_minute:g} {self._what} a minute."
                " Raise the limit, or make the request smaller."
            )
        async with self._turn:
            while (wait_s := self._wait_s(amount)) > 0:
                await self._clock.sleep(wait_s)
            self._count(amount)

    def correct(self, taken: float, actual: float) -> None:
        """Count what a reply says was used beyond what was taken; an excess taken stays counted, as servers do too."""
        if actual > taken:
            self._count(actual - taken)

    def _wait_s(self, amount: float) -> float:
        now = self._clock.now()
        while self._log and self._log[0][0] + MINUTE_S <= now:
            self._sum -= self._log.popleft()[1]
        if not self._log:
            self._sum = 0.0  # rounding does not pile up
        elif self._sum + amount > self.per_minute:
            return max(self._next, self._log[0][0] + MINUTE_S) - now
        return self._next - now

    def _count(self, amount: float) -> None:
        now = self._clock.now()
        self._log.append((now, amount))
        self._sum += amount
        self._next = max(self._next, now - BURST_S) + amount * MINUTE_S / self.per_minute


class Breaker:
    """No sending into an outage: after `after` failures in a row one request at a time probes, the others wait.

    A failure is a server that did not answer: refused, reset, timed out, 5xx. The pause before a probe doubles from
    `pause_s` to `longest_pause_s`. Any success closes the breaker.
    """

    def __init__(
        self,
        *,
        after: int = 50,
        pause_s: float = 1.0,
        longest_pause_s: float = 60.0,
        give_up_s: float = 600.0,
        clock: Clock,
    ) -> None:
        self._after, self._first_pause_s, self._longest_pause_s = after, pause_s, longest_pause_s
        self._give_up_s, self._clock = give_up_s, clock
        self._failures = 0
        self._opened: float | None = None
        self._pause_s = self._probe_at = 0.0
        self._probe = self._probes = 0  # the number of the probe on its way, 0 for none; how many there were
        self._turn = asyncio.Lock()
        self._change: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing but probes may go."""
        return self._opened is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing has succeeded for `give_up_s` since it opened."""
        return self._opened is not None and self._clock.now() >= self._opened + self._give_up_s

    def ask(self) -> int | None:
        """As `enter`, but None where one would have to wait."""
        if self._opened is None:
            return 0
        if self._probe or self._clock.now() < self._probe_at:
            return None
        self._probe = self._probes = self._probes + 1
        return self._probe

    async def enter(self) -> int:
        """Wait until a request may go; what comes back is for `record`, which must be called whatever happens.

        Raises:
            OutageError: nothing has succeeded for `give_up_s` since the breaker opened.
        """
        if self._opened is None:
            return 0
        async with self._turn:
            while self._opened is not None:
                now = self._clock.now()
                left_s = self._opened + self._give_up_s - now
                if left_s <= 0:
                    raise OutageError(
                        f"the server has not answered for {self._give_up_s:g} s: {self._failures} failures in a row."
                        " What was stored stays; start the run again when the server is back."
                    )
                if (entry := self.ask()) is not None:
                    return entry
                if not self._probe:
                    left_s = min(left_s, self._probe_at - now)
                await self._wait(left_s)
        return 0

    def record(self, entry: int, *, ok: bool | None) -> None:
        """Tell how a request that entered went: `None` if it was cancelled, and nobody knows."""
        if ok:
            self._failures, self._opened, self._probe = 0, None, 0
        elif ok is False:
            self._failures += 1
        if entry and entry == self._probe:
            self._probe = 0
            if ok is False:
                self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
                self._probe_at = self._clock.now() + self._pause_s
        elif self._opened is None and self._failures >= self._after:
            self._opened, self._pause_s = self._clock.now(), self._first_pause_s
            self._probe_at = self._opened + self._pause_s
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def _wait(self, longest_s: float) -> None:
        self._change = asyncio.get_running_loop().create_future()
        nap = asyncio.ensure_future(self._clock.sleep(longest_s))
        try:
            await asyncio.wait({nap, self._change}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()


class Spending:
    """A purse: what is in flight is held back at its maximum price, so that `most` is never exceeded.

    Sums are exact in decimals: three times 0.1 fit in 0.3. `most` of `None` is no limit.
    """

    def __init__(self, most: Money | None, spent: Money = 0.0) -> None:
        self._most = None if most is None else _exact(most)
        self._spent, self._reserved = _exact(spent), Fraction(0)
        self._refused: Fraction | None = None  # the largest price that was refused

    @property
    def spent(self) -> float:
        """What was paid."""
        return float(self._spent)

    @property
    def reserved(self) -> float:
        """What those in flight may cost at most."""
        return float(self._reserved)

    @property
    def exhausted(self) -> bool:
        """Whether a price that was refused would be so even if all that is in flight cost nothing; once true, it stays.

        A refusal without this is for now: something is in flight, and when it is settled the price may fit.
        """
        if self._most is None:
            return False
        return self._spent >= self._most or (self._refused is not None and self._spent + self._refused > self._most)

    @property
    def left(self) -> Fraction | None:
        """What is neither spent nor held back; None where there is no limit."""
        return None if self._most is None else max(Fraction(0), self._most - self._spent - self._reserved)

    def reserve(self, price: Money) -> bool:
        """Hold back `price`, or answer `False` if it does not fit."""
        exact = _exact(price)
        if self._most is not None and self._spent + self._reserved + exact > self._most:
            self._refused = exact if self._refused is None else max(exact, self._refused)
            return False
        self._reserved += exact
        return True

    def settle(self, reserved: Money, actual: Money) -> None:
        """Turn what was reserved into what it cost, though it be more; 0 if it was never sent."""
        held, paid = _exact(reserved), _exact(actual)
        if held > self._reserved:
            raise ValueError(f"{reserved} cannot be settled: only {self.reserved} is reserved.")
        self._reserved -= held
        self._spent += paid


def _exact(money: Money) -> Fraction:
    if not 0 <= money < math.inf:
        raise ValueError(f"{money} is no sum of money: expected a number from 0 up.")
    return Fraction(str(money))
