"""What the tests of the engine ask: small tables, a model that answers by rule, and clocks that run faster."""

from __future__ import annotations

import asyncio
import json
import zlib
from contextlib import contextmanager

import polars as pl
from model_server import ModelServer
from simulation_tables import explained, record

import nscore as ns

TOKENS = ("the", "red", "fox", "sees", "a", "blue", "sky", "and", "tea", "10")


def value(token):
    """The activation that the model answers for a token."""
    return zlib.crc32(token.encode()) % 11


def answer(messages):
    """What the model writes: for each token its `value`, in the form of the simulator that asks."""
    last = messages[-1]["content"]
    text = last if isinstance(last, str) else "".join(block["text"] for block in last)
    if '"records"' in text:
        asked = json.loads(text[text.index("{") :])["records"]
        rows = [
            {"record": r["record"], "activations": [{"token": t, "activation": value(t)} for t in r["tokens"]]}
            for r in asked
        ]
        return json.dumps({"records": rows}, ensure_ascii=False)
    if "# Record" in text:
        lines = [line for line in text.split("\n")[1:] if line != "# End"]
        return "\n".join(line if line.startswith("# Record") else f"{line}\t{value(line)}" for line in lines)
    if "number 10" in text:
        return "10"
    if "Last token: " in text:
        return str(value(text.rpartition("Last token: ")[2]))
    return "hello"


def serve(**switches):
    """A model server that answers by rule, without logprobs unless asked to."""
    return ModelServer(**{"answer": answer, "ignore_logprobs": True} | switches)


def backend(server, **given):
    """That server, as nscore is told of it."""
    return ns.OpenAI(**{"model": "tiny", "base_url": server.base_url, "api_key": "canary-key-1"} | given)


def records_of(neurons=2, records=3, tokens=4, **columns):
    """Records of `tokens` tokens each, no two of them with the same text."""
    return pl.concat(
        record(
            [*(TOKENS[(n + s + i) % len(TOKENS)] for i in range(tokens - 1)), f"n{n}s{s}"],
            [float(i) for i in range(tokens)],
            neuron=n,
            sequence=s,
            **columns,
        )
        for n in range(neurons)
        for s in range(records)
    )


def explanations_of(neurons=2, each=1, **columns):
    """`each` explanations of every neuron."""
    return pl.concat(explained(*(f"words {n} {e}" for e in range(each)), neuron=n, **columns) for n in range(neurons))


def is_asked(received):
    """Whether a request is of a simulation, and not of the probe before it."""
    return "fires on: " in str(received.body)


def asked(server):
    """How often something was asked about a record."""
    return sum(map(is_asked, server.requests))


def correct(simulated):
    """Whether every row is ok and holds what the model answers for its token."""
    expected = [float(value(token)) for token in simulated["token"].cast(pl.String)]
    return simulated["status"].unique().to_list() == ["ok"] and simulated["predicted"].to_list() == expected


class Fast:
    """A clock that goes `times` as fast, with waits as much shorter."""

    times = 100.0

    def now(self):
        return asyncio.get_running_loop().time() * self.times

    async def sleep(self, wait_s):
        await asyncio.sleep(wait_s / self.times)


@contextmanager
def shards_of(monkeypatch, rows):
    """Shards of about so many rows."""
    with monkeypatch.context() as patch:
        patch.setattr("nscore._running.plan.SHARD_ROWS", rows)
        yield


class Hanging(ModelServer):
    """It answers its first questions about records, and leaves all others open."""

    answers = 10**9
    n_asked = 0

    def forget(self):
        super().forget()
        self.n_asked = 0

    def _fault(self, key):
        del key
        self.n_asked += is_asked(self.requests[-1])
        return "hang" if self.n_asked > self.answers else None


def hanging(answers):
    """A server that hangs after so many answers."""
    server = Hanging(answer=answer, ignore_logprobs=True)
    server.answers = answers
    return server


def files_of(path, table="simulated.parquet"):
    """The bytes of each file of a table of a run."""
    return {file.name: file.read_bytes() for file in sorted((path / table).iterdir())}
