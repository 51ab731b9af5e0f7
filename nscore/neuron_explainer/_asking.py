"""One text and one explanation, asked through an `ApiClient` as nscore's engine asks: prompts, replies, rows of a table."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

import polars as pl

from nscore._running.filling import Filling
from nscore._running.reading import parsed
from nscore._running.shards import Questions, Request
from nscore._sending.history import Past
from nscore._sending.threads import in_thread
from nscore.exchange import Capabilities
from nscore.neuron_explainer.api_client import ApiClient
from nscore.probe import aprobe, check_needs
from nscore.records import (
    ACTIVATION,
    EXPLANATION,
    EXPLANATION_ID,
    LAYER,
    NEURON,
    POSITION,
    SEQUENCE,
    SIMULATOR,
    TOKEN,
)
from nscore.simulators import PromptSimulator

__all__ = ["asked", "capabilities", "forget", "together"]

T = TypeVar("T")
KEYS = [LAYER, NEURON]

# What each server was found to do, by its address, model and key: simulators are many, and share it.
_FOUND: dict[tuple[str, str, str | None], Capabilities] = {}
_TURNS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


async def capabilities(client: ApiClient) -> Capabilities:
    """What the client's server can do, found out by a probe the first time that it is asked in this process.

    Raises:
        BackendError: as `nscore.probe`.
    """
    backend = client.backend
    key = (backend.address, backend.model, backend.api_key)
    if key not in _FOUND:
        async with _TURNS.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if key not in _FOUND:
                _FOUND[key] = await aprobe(backend)
    return _FOUND[key]


def forget() -> None:
    """Lets every server be probed anew."""
    _FOUND.clear()


async def asked(
    client: ApiClient, simulator: PromptSimulator, explanation: str, tokens: list[str], can: Capabilities
) -> pl.DataFrame:
    """What a simulator predicts for one text: a `simulated` table with its distribution.

    Raises:
        BackendError: if the server cannot do what the simulator needs, or refuses.
        OutageError: if it cannot be reached.
    """
    check_needs([simulator], can, client.backend)
    questions = Questions(KEYS, [simulator], client.backend, can)
    shard = questions.shard(0, _pairs(simulator.name, explanation, tokens))
    filling = Filling(shard, replicates=questions.replicates, distribution=True)

    async def settle(request: Request) -> None:
        raw = await client.send(request.path, request.body)
        settled = await in_thread(partial(parsed, client.backend, questions, request, Past(attempts=1, raw=raw)))
        filling.settle(None, request, settled)

    await together(settle(request) for request in shard.requests)
    return filling.simulated(KEYS)


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in their order; where one fails the others are ended, so that nothing more is asked."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _pairs(simulator: str, explanation: str, tokens: list[str]) -> pl.DataFrame:
    own = {LAYER: 0, NEURON: 0, SIMULATOR: simulator, EXPLANATION_ID: "0", EXPLANATION: explanation, SEQUENCE: 0}
    return pl.DataFrame({TOKEN: pl.Series(tokens, dtype=pl.String)}).select(
        *(pl.lit(value).alias(name) for name, value in own.items()),
        pl.int_range(pl.len()).alias(POSITION),
        TOKEN,
        pl.lit(None, dtype=pl.Float64).alias(ACTIVATION),
    )
