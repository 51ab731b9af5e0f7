"""A real simulation that is killed: the commands of a user, a server that bills, and what must be the same afterwards."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from asking import answer, explanations_of, is_asked, records_of
from model_server import ModelServer, body_hash

from nscore._running.shards import request_key
from nscore._sending.history import History

CONCURRENCY = 4
TIMES = ["latency_s", "at", "attempts", "cached_tokens"]


class Zygote:
    """The process that forks; `start` begins a trial and `end` waits for it."""

    def __init__(self, folder: Path) -> None:
        environment = os.environ | {"OPENAI_API_KEY": "canary-key-1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        )
        self.log = folder / "child.log"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def start(self, commands, **order):
        """Forks a child that carries out commands; gives its process number."""
        self.log.unlink(missing_ok=True)
        order |= {"commands": commands, "log": str(self.log)}
        self._process.stdin.write(json.dumps(order) + "\n")
        return int(self._process.stdout.readline())

    def end(self, pid, timeout_s=60):
        """How the child ended: its exit code, or minus the signal that killed it."""
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"a child hangs: {self.log.read_text()}")
        return int(self._process.stdout.readline())

    def run(self, commands, **order):
        """Both; and the calls of its disk, where it came to its end."""
        code = self.end(self.start(commands, **order))
        calls = self.log.with_suffix(".calls")
        return code, json.loads(calls.read_text()) if not code else []


@dataclass
class Bench:
    """A server that bills, inputs, and the commands that simulate and score them."""

    server: ModelServer
    folder: Path

    @classmethod
    def of(cls, server, folder, *, neurons=5, records=3):
        """Inputs for so many neurons."""
        folder.mkdir(parents=True, exist_ok=True)
        records_of(neurons, records).write_parquet(folder / "records.parquet")
        explanations_of(neurons).write_parquet(folder / "told.parquet")
        return cls(server, folder)

    def commands(self, out, *flags):
        """What a user types."""
        inputs = [self.folder / "records.parquet", self.folder / "told.parquet"]
        asking = ["--simulator", "json_list", "--model", "tiny", "--base-url", self.server.base_url]
        limits = ["--concurrency", CONCURRENCY, "--price", "1,2", "--attempts", "2", *flags]
        return [
            [str(word) for word in ["simulate", *inputs, *asking, *limits, "-o", out]],
            [str(word) for word in ["score", out / "simulated.parquet", "-o", out]],
        ]

    def asked_keys(self):
        """Of what the server was asked since it last forgot."""
        return [key_of(self.server, received) for received in self.server.requests if is_asked(received)]

    def billed(self):
        """How many calls about records were billed."""
        asked = {body_hash(body_of(received)) for received in self.server.requests if is_asked(received)}
        return sum(self.server.billed[body] for body in asked)

    def settle(self):
        """Waits until the server has answered all that a killed process left behind."""
        quiet = 0
        while quiet < 3:
            time.sleep(0.004)
            quiet = 0 if self.server.in_flight else quiet + 1


def serve():
    """A server that takes its time, each answer another."""
    return ModelServer(answer=answer, ignore_logprobs=True, wait_s=0.01, jitter_s=0.05)


def body_of(received):
    return json.dumps(received.body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def key_of(server, received):
    return request_key(server.base_url, "/chat/completions", body_of(received), 0)


def stored(run):
    """The keys of the replies that a run's journal holds, as hex."""
    if not (run / "journal").is_dir():
        return set()
    return {str(e.head["reply"]) for e in History.of(run / "journal").reader.entries() if "reply" in e.head}


def tables_of(run):
    """The bytes of the tables that must be the same, and the requests without their times."""
    names = ["scores.parquet", "sequence_scores.parquet"]
    names += [str(f.relative_to(run)) for f in sorted((run / "simulated.parquet").glob("*.parquet"))]
    requests = pl.read_parquet(sorted((run / "requests.parquet").glob("*.parquet"))).drop(TIMES)
    return {name: (run / name).read_bytes() for name in names}, requests


def same(run, expected):
    """Whether a run's tables are those that are expected."""
    files, requests = tables_of(run)
    return files == expected[0] and requests.equals(expected[1])


def await_moment(rng: random.Random, bench: Bench, length_s: float, left: int) -> None:
    """Waits for a random instant of a run: any, or, more often, one at which requests are on their way."""
    if rng.random() < 0.3:
        time.sleep(rng.uniform(0, 1.1 * length_s))
        return
    wanted, end = len(bench.server.requests) + rng.randrange(1, left + 1), time.monotonic() + 2 * length_s
    while len(bench.server.requests) < wanted and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05))
