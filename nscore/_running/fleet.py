"""The servers behind a backend: in which order requests come to them, which goes where, and who is set aside for a while."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from nscore._sending.limits import Breaker, Clock
from nscore._sending.transport import Answer, Transport
from nscore.backends import Backend, members_of

__all__ = ["Fleet", "Turns", "Visit"]

T = TypeVar("T")

# Where another can answer, a server need not fail often to be set aside.
AFTER = 5
LOOKED_S = 0.2
# What a server may have in flight, of its share, when an explanation is given to it, and when what is about its own goes to
# others; so few at once are no burden to any server.
LIGHT, CROWDED, FEW = 1.25, 1.5, 16
FIRST = 8  # requests at once for each server
MOST_TURNS = 4  # of explanations for each server, whose requests are held
HOMES = 1 << 12  # explanations of which it is known where they belong


class Turns(Generic[T]):
    """In which order requests are to be sent, so that each server has some that are its own.

    Some explanations take turns. One after another, each of many requests would be more than its home can bear, and nothing
    to do for all other servers but to help it, though they do not know its prompt.

    Args:
        at_once: how many take turns; see `Fleet.at_once`.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._turns: deque[Iterator[T]] = deque()

    def add(self, requests: Iterable[T]) -> Iterator[T]:
        """Takes the requests of one more explanation; gives those whose turn it is before the next one is needed."""
        self._turns.append(iter(requests))
        while len(self._turns) == self._at_once:
            yield from self._turn()

    def rest(self) -> Iterator[T]:
        """Those that are left, where no further explanation comes for now."""
        while self._turns:
            yield from self._turn()

    def _turn(self) -> Iterator[T]:
        requests = self._turns.popleft()
        for request in islice(requests, 1):
            self._turns.append(requests)
            yield request


@dataclass(slots=True, eq=False)
class _Server:
    url: str
    weight: float
    transport: Transport
    breaker: Breaker
    in_flight: int = 0
    due: float = 0.0  # explanations that it ought to have been given, times all weights: no fraction is rounded

    @property
    def burden(self) -> float:
        """What is in flight, for its weight."""
        return self.in_flight / self.weight


@dataclass(frozen=True, slots=True)
class Visit:
    """A request's way to a server; `Fleet.leave` ends it."""

    server: _Server
    entry: int

    async def post(self, path: str, body: bytes) -> Answer:
        """See `Transport.post`."""
        return await self.server.transport.post(path, body)


class Fleet:
    """The servers behind a backend; one alone is a fleet too.

    Each has connections and a breaker of its own. Requests of one explanation go to one server, its home, for the sake of
    its prefix cache: of those that are well and have at most 1.25 times their share of what is in flight, the one whose
    turn it is by the weights. So each gets its share of the explanations, and a slow one less. While a server has
    more than 1.5 times its share in flight, the others take some of what is its own. One whose breaker opens loses the
    explanations that it was home to, and one request at a time probes it. Where all are sick, requests wait for the first
    that comes back.

    Args:
        backend: one server or several.
        timeout_s: the longest that one attempt may take.
        clock: what pauses are measured by.
    """

    def __init__(self, backend: Backend, *, timeout_s: float, clock: Clock) -> None:
        members, secrets = members_of(backend), backend.secrets()
        self._servers = [
            _Server(
                member.url,
                weight,
                Transport(member.address, member.headers(), timeout_s=timeout_s, secrets=secrets),
                Breaker(clock=clock) if len(members) == 1 else Breaker(clock=clock, after=AFTER),
            )
            for member, weight in members
        ]
        self._weights = sum(weight for _, weight in members)
        self._homes: dict[str, _Server] = {}
        self._clock = clock
        self._turn = asyncio.Lock()

    @property
    def first(self) -> int:
        """How many requests at once they are begun with."""
        return FIRST * len(self._servers)

    @property
    def at_once(self) -> int:
        """How many explanations give each server its share: by equal weights as many as there are servers."""
        least = min(server.weight for server in self._servers)
        return round(min(self._weights / least, MOST_TURNS * len(self._servers)))

    def go_on_after(self, explanations: int) -> None:
        """Begins, if it has not begun, where another fleet would go on that had given so many explanations to the servers.

        Else what workers have of explanations beyond a multiple of the servers would all go to the first of these.
        """
        if not self._homes:
            for _ in range(explanations % self.at_once):
                self._next(self._servers, self._servers)

    async def enter(self, about: str, last: Visit | None = None) -> Visit:
        """Waits until a request may go, and says where.

        Args:
            about: the explanation that it asks about.
            last: a visit of the same request that brought no answer: another server is tried first.

        Raises:
            OutageError: if no server has answered for long.
        """
        if len(self._servers) == 1:
            return _visit(self._servers[0], await self._servers[0].breaker.enter())
        order = self._order(about, None if last is None else last.server)
        if (visit := _first_well(order)) is not None:
            return visit
        async with self._turn:  # one looks, the others wait behind it
            while (visit := _first_well(order)) is None:
                if all(server.breaker.is_over for server in order):
                    await order[0].breaker.enter()  # raises
                await self._clock.sleep(LOOKED_S)
        return visit

    def _order(self, about: str, failed: _Server | None) -> list[_Server]:
        """Which server is asked first: one that is sick, and lets through nothing but the probe that is due; then the home."""
        even = sum(server.in_flight for server in self._servers) / self._weights
        home = self._home(about, even)
        crowded = home.in_flight > FEW and home.burden > CROWDED * even
        return sorted(
            self._servers,
            key=lambda s: (s is failed, not s.breaker.is_open, crowded or s is not home, s.burden),
        )

    def _home(self, about: str, even: float) -> _Server:
        """Where an explanation belongs; `even` is the burden that all would have if they had the same."""
        home = self._homes.get(about)
        well = [server for server in self._servers if not server.breaker.is_open]
        if home is None or (home.breaker.is_open and well):
            least = min(server.burden for server in well or self._servers)
            light = [server for server in well or self._servers if server.burden <= max(least, LIGHT * even)]
            home = self._homes[about] = self._next(light, well or self._servers)
            if len(self._homes) > HOMES:
                del self._homes[next(iter(self._homes))]
        return home

    def _next(self, light: Sequence[_Server], among: Sequence[_Server]) -> _Server:
        """Whose turn it is."""
        for server in among:
            # one that was passed over is not owed all of it
            server.due = min(server.due + server.weight, self._weights)
        chosen = max(light, key=lambda server: (server.due, -server.burden))
        chosen.due -= self._weights
        return chosen

    def leave(self, visit: Visit, *, ok: bool | None) -> None:
        """Tells how a request went that entered: None if it was cancelled, and nobody knows."""
        visit.server.in_flight -= 1
        visit.server.breaker.record(visit.entry, ok=ok)

    async def aclose(self) -> None:
        """Closes every connection."""
        await asyncio.gather(*(server.transport.aclose() for server in self._servers))


def _first_well(order: Sequence[_Server]) -> Visit | None:
    for server in order:
        if (entry := server.breaker.ask()) is not None:
            return _visit(server, entry)
    return None


def _visit(server: _Server, entry: int) -> Visit:
    server.in_flight += 1
    return Visit(server, entry)
