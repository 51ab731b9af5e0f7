"""An event loop whose time jumps to the next timer whenever nothing else is left to do: hours take milliseconds."""

from __future__ import annotations

import asyncio
import selectors

PATIENCE_S = 2.0  # real seconds that a socket or a thread may take when no timer is left


class DeadlockError(RuntimeError):
    """Nothing is scheduled and nothing arrives: what waits now would wait for ever."""


class _Jumping(selectors.DefaultSelector):
    loop = None

    def select(self, timeout=None):
        events = super().select(PATIENCE_S if timeout is None else 0)
        if not events:
            if timeout is None:
                raise DeadlockError
            self.loop.jump(max(0.0, timeout))
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """Real sockets and threads work too, but are no slower than any timer: keep to timers where order counts."""

    def __init__(self):
        selector = _Jumping()
        self._virtual_s = 1000.0
        super().__init__(selector)
        selector.loop = self
        self._clock_resolution = 1e-9

    def time(self):
        return self._virtual_s

    def jump(self, seconds):
        self._virtual_s += seconds


def run_virtual(main):
    """What the coroutine returns, run in virtual time; raises `DeadlockError` if it waits for what never comes."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
