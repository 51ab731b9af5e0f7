"""A shard on its way from requests to tables: predictions come in one by one, and go out as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, get_args

import numpy as np
import polars as pl

from nscore._running.shards import Request, Shard
from nscore._tables.meeting import result_columns
from nscore.exchange import Usage
from nscore.records import (
    DIGIT_MASS,
    DISTRIBUTION,
    EXPLANATION_ID,
    N_REPLICATES,
    NOT_RUN,
    OK,
    PREDICTED,
    PROMPT_VERSION,
    SEQUENCE,
    SIMULATOR,
    SPREAD,
    STATUS,
    Status,
)
from nscore.simulators import Predictions

__all__ = ["Fared", "Filling", "Settled"]

STATUSES: tuple[Status, ...] = get_args(Status)
CODES: dict[str, int] = {status: code for code, status in enumerate(STATUSES)}


@dataclass(frozen=True, slots=True)
class Fared:
    """How a request fared: its row in the `requests` table, besides what it was for.

    Attributes:
        status: `ok` where every token was predicted, else the first failure.
        http_status: the server's last word; None where there was none.
        error: what went wrong, in words.
        attempts: how often it was sent.
        latency_s: of the attempt that was answered.
        at: when that answer was there (UTC).
        usage: tokens in and out.
        price: dollars, of all attempts.
    """

    status: Status
    http_status: int | None = None
    error: str | None = None
    attempts: int = 0
    latency_s: float | None = None
    at: str | None = None
    usage: Usage = field(default_factory=Usage)
    price: float | None = None


class Settled(NamedTuple):
    """What became of a request."""

    fared: Fared
    predictions: list[Predictions] | None = None
    cost: float | None = None
    again: bool = False

    def with_price(self, price: float | None) -> Settled:
        """The same, having cost so much in all."""
        return self if self.fared.price == price else self._replace(fared=replace(self.fared, price=price))


class Filling:
    """Arrays of a value for each row and replicate.

    Args:
        shard: the rows, and the requests that are to fill them.
        replicates: the most that any simulator asks for.
        distribution: whether the probability of each activation is kept.
    """

    def __init__(self, shard: Shard, *, replicates: int, distribution: bool) -> None:
        self.shard = shard
        self.open = len(shard.requests)
        self.failed_calls = False
        rows = shard.pairs.height
        self._predicted = np.full((replicates, rows), np.nan)
        self._mass = np.full((replicates, rows), np.nan)
        self._codes = np.full((replicates, rows), CODES[NOT_RUN], dtype=np.int8)
        self._distributions: list[dict[int, list[float]]] | None = [{} for _ in range(rows)] if distribution else None
        self._requests: dict[int, dict[str, object]] = {}
        self._versions = {r.group.identity[SIMULATOR]: r.group.simulator.version for r in shard.requests}
        for start, stop in shard.too_long:
            self._codes[:, start:stop] = CODES["too_long"]

    def settle(self, place: int | None, request: Request, settled: Settled) -> None:
        """Takes what became of a request; `place` is the one of its row, where it has one in this shard."""
        if settled.predictions is None:
            self.fail(request, settled.fared.status, again=settled.again)
        else:
            self.take(request, settled.predictions)
        if place is not None:
            self.log(place, request, settled.fared)

    def take(self, request: Request, predictions: Sequence[Predictions]) -> None:
        """Takes what a reply said."""
        for (start, stop), found in zip(request.rows, predictions, strict=True):
            self._codes[request.replicate, start:stop] = [CODES[s] for s in found.status]
            self._predicted[request.replicate, start:stop] = found.predicted
            if found.digit_mass:
                self._mass[request.replicate, start:stop] = found.digit_mass
            if self._distributions is not None and found.distribution:
                for row, chances in zip(range(start, stop), found.distribution, strict=True):
                    if chances is not None:
                        self._distributions[row][request.replicate] = chances

    def fail(self, request: Request, status: Status, *, again: bool = False) -> None:
        """Takes that a request has no answer; `again` says that the next run is to ask once more."""
        self.failed_calls = self.failed_calls or again or status in {"http_error", NOT_RUN}
        for start, stop in request.rows:
            self._codes[request.replicate, start:stop] = CODES[status]

    def log(self, place: int, request: Request, fared: Fared) -> None:
        """Takes a row of the `requests` table; `place` is the request's in the shard."""
        self._requests[place] = {
            "request": request.key.hex(),
            **request.group.identity,
            "sequences": [request.group.sequences[s.record] for s in request.ask.spans],
            "replicate": request.replicate,
            "n_tokens": sum(stop - start for start, stop in request.rows),
            STATUS: fared.status,
            "http_status": fared.http_status,
            "error": fared.error,
            "attempts": fared.attempts,
            "latency_s": fared.latency_s,
            "at": fared.at,
            "prompt_tokens": fared.usage.prompt_tokens,
            "completion_tokens": fared.usage.completion_tokens,
            "cached_tokens": fared.usage.cached_tokens,
            "price": fared.price,
            PROMPT_VERSION: request.group.simulator.version,
        }

    def simulated(self, keys: Sequence[str]) -> pl.DataFrame:
        """The rows with what was predicted: the mean over the replicates that were answered; `keys` are a neuron's."""
        ok = self._codes == CODES[OK]
        n = ok.sum(axis=0)
        total = np.where(ok, self._predicted, 0.0).sum(axis=0)
        known = n > 0
        mean = np.divide(total, n, out=np.full(len(n), np.nan), where=known)
        code = np.where(known, CODES[OK], self._codes[0])
        masses = np.where(ok & ~np.isnan(self._mass), self._mass, 0.0).sum(axis=0)
        n_masses = (ok & ~np.isnan(self._mass)).sum(axis=0)
        mass = np.divide(masses, n_masses, out=np.full(len(n), np.nan), where=n_masses > 0)
        added = [
            pl.Series(PREDICTED, mean, nan_to_null=True),
            pl.Series(STATUS, [STATUSES[c] for c in code.tolist()], dtype=pl.String),
            pl.Series(DIGIT_MASS, mass, nan_to_null=True),
        ]
        if len(ok) > 1:
            error = np.where(ok, self._predicted - mean, 0.0)
            spread = np.sqrt(np.divide((error**2).sum(axis=0), n - 1, out=np.full(len(n), np.nan), where=n > 1))
            added += [pl.Series(SPREAD, spread, nan_to_null=True), pl.Series(N_REPLICATES, n.astype(np.int32))]
        if self._distributions is not None:
            # in the order of the replicates: sums of floats depend on it, and replies come in any
            means = [np.mean([d[r] for r in sorted(d)], axis=0).tolist() if d else None for d in self._distributions]
            added.append(pl.Series(DISTRIBUTION, means, dtype=pl.List(pl.Float64)))
        versions = pl.col(SIMULATOR).replace_strict(self._versions, default=None, return_dtype=pl.String)
        filled = self.shard.pairs.with_columns(*added, versions.alias(PROMPT_VERSION))
        return filled.select(result_columns(keys, filled.columns))

    def requests(self, keys: Sequence[str]) -> pl.DataFrame:
        """The `requests` table of the shard, in the order of the plan; `keys` are a neuron's."""
        keys = [*keys, SIMULATOR, EXPLANATION_ID]
        of = self.shard.pairs.schema
        schema = {"request": pl.String(), **{k: of[k] for k in keys}, "sequences": pl.List(of[SEQUENCE])} | _REQUEST
        return pl.DataFrame([row for _, row in sorted(self._requests.items())], schema=schema)


_REQUEST = {
    "replicate": pl.Int32(),
    "n_tokens": pl.Int32(),
    STATUS: pl.String(),
    "http_status": pl.Int32(),
    "error": pl.String(),
    "attempts": pl.Int32(),
    "latency_s": pl.Float64(),
    "at": pl.String(),
    "prompt_tokens": pl.Int64(),
    "completion_tokens": pl.Int64(),
    "cached_tokens": pl.Int64(),
    "price": pl.Float64(),
    PROMPT_VERSION: pl.String(),
}
