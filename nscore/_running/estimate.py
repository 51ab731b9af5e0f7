"""What a simulation will ask and cost, before anything is sent."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nscore._progress import bar
from nscore._running.plan import Plan
from nscore._sending.prices import Price
from nscore.backends import Backend

__all__ = ["Estimate", "measured"]

Keys: TypeAlias = npt.NDArray[np.uint64]

# Typical of the tokenizers in use, for the prompts that nscore writes; a reply counts the real ones.
BYTES_PER_TOKEN = 3.5
# Of the room that an answer is given, what it takes.
ANSWER_SHARE = 1 / 2
# Bytes of JSON for each token of an echoed prompt and of a chat's answer with and without logprobs, and how far zstd
# shrinks them.
ECHO_BYTES, LOGPROB_BYTES, TEXT_BYTES, FRAME_BYTES, SHRUNK = 380, 900, 5, 900, 5
# A server that nobody knows: seconds to the first token, and tokens a second after that.
FIRST_TOKEN_S, TOKENS_PER_S = 0.5, 60


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run comes to. Requests and scored tokens are exact; the rest is about right.

    Attributes:
        requests: calls to the model.
        scored_tokens: tokens that get a prediction, once for each simulator and explanation.
        prompt_tokens: tokens in.
        completion_tokens: tokens out.
        price: dollars; None where no price is known.
        most: dollars that it can cost at most, without retries; None where no price is known.
        duration_s: how long it takes within the limits, with a server that answers at once for all in flight.
        stored_bytes: the size of the journal.
    """

    requests: int
    scored_tokens: int
    prompt_tokens: int
    completion_tokens: int
    price: float | None
    most: float | None
    duration_s: float
    stored_bytes: int


def measured(
    plan: Plan,
    backend: Backend,
    *,
    price: Price | None,
    concurrency: int,
    requests_per_minute: float | None,
    tokens_per_minute: float | None,
    keep: str,
) -> tuple[Estimate, frozenset[int], frozenset[int]]:
    """Goes through a plan once.

    Also gives the first bytes of the keys that come more than once, and of those of them that are in several shards.
    """
    firsts, each = array("Q"), array("I")
    scored = prompt_bytes = answer_tokens = stored = 0
    most = 0.0
    thinking = int(str(backend.settings().get("thinking_tokens", 0))) if plan.can.thinks else 0
    with bar("plan", "requests") as told:
        for shard in plan.shards():
            for request in shard.requests:
                prompt = request.prompt
                firsts.append(int.from_bytes(request.key[:8]))
                scored += sum(stop - start for start, stop in request.rows) if not request.replicate else 0
                size = sum(len(m.text.encode()) for m in prompt.messages)
                answer = max(1, round(prompt.max_tokens * ANSWER_SHARE))
                prompt_bytes += size
                answer_tokens += answer + thinking
                most += 0.0 if price is None else price.most(prompt, thinking)
                if keep == "raw" and prompt.prompt_logprobs:
                    stored += round(size / BYTES_PER_TOKEN) * ECHO_BYTES
                stored += answer * (LOGPROB_BYTES if prompt.logprobs and keep == "raw" else TEXT_BYTES) + FRAME_BYTES
            each.append(len(shard.requests))
            told(len(shard.requests))
    keys = np.frombuffer(firsts, dtype=np.uint64)
    again = _repeated(np.sort(keys))
    calls = len(keys) - len(again)
    distinct = calls / max(1, len(keys))
    prompts, answers = round(prompt_bytes * distinct / BYTES_PER_TOKEN), round(answer_tokens * distinct)
    each_s = FIRST_TOKEN_S + answers / max(1, calls) / TOKENS_PER_S
    durations = [calls * each_s / concurrency]
    if requests_per_minute:
        durations.append(calls * 60 / requests_per_minute)
    if tokens_per_minute:
        durations.append((prompts + answers) * 60 / tokens_per_minute)
    cost = None if price is None else (prompts * price.input + answers * price.output) / 1e6
    estimate = Estimate(
        requests=calls,
        scored_tokens=scored,
        prompt_tokens=prompts,
        completion_tokens=answers,
        price=cost,
        most=None if price is None else most * distinct,
        duration_s=max(durations),
        stored_bytes=round(stored * distinct / SHRUNK),
    )
    return estimate, frozenset(again.tolist()), frozenset(_crossing(keys, each, again).tolist())


def _repeated(keys: Keys) -> Keys:
    """Of sorted keys those that come more than once: of one that comes n times, n - 1."""
    repeated: Keys = keys[1:][keys[1:] == keys[:-1]]
    return repeated


def _crossing(keys: Keys, each: Sequence[int], again: Keys) -> Keys:
    """Of the keys that come again, those that are in several shards, each of which has so many."""
    at = np.flatnonzero(np.isin(keys, again, kind="sort")) if len(again) else np.empty(0, dtype=np.intp)
    shards = np.searchsorted(np.cumsum(each), at, side="right")
    order = np.argsort(keys[at], kind="stable")
    there, shards = keys[at][order], shards[order]
    crossing: Keys = there[1:][(there[1:] == there[:-1]) & (shards[1:] != shards[:-1])]
    return crossing
