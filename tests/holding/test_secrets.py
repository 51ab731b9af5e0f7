"""No secret that a user entrusts to nscore is in a file, log, traceback or `repr`, whatever a server says back."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import pprint
import random
import re
import signal
import subprocess
import sys
import time
import traceback
import warnings
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import polars as pl
import pytest
from asking import answer, explanations_of, is_asked, records_of
from holding.echo import WAYS, Echo
from simulation_tables import write_small_tables

import nscore as ns
from nscore._sending.journal import JournalReader
from nscore._sending.retry import Retries
from nscore._sending.secrets import QUIET
from nscore._sending.transport import Transport
from nscore.cli import main

KEY, PROXY = "canary-key-31337", "canary-proxy-1"
PASSWORD, QUERY = 'canary pw/"7&', "canary+query/9="
BASIC = b64encode(f"me:{PASSWORD}".encode()).decode()
CARRIERS = ["httpx"] + ["aiohttp"] * (importlib.util.find_spec("httpx_aiohttp") is not None)
# Each secret has this word in it, and every way to write one writes it in one of these ways.
FORMS = ["canary", *("".join(form.format(ord(c)) for c in "canary") for form in ("%{:x}", "\\u{:04x}")), BASIC[:12]]


def found_in(text):
    """Where a secret stands in a text, with what is around it."""
    text = text if isinstance(text, str) else text.decode(errors="replace")
    ways = "|".join(map(re.escape, FORMS))
    return [text[max(0, m.start() - 60) : m.end() + 20] for m in re.finditer(ways, text, re.IGNORECASE)]


@pytest.fixture
def server():
    with Echo(answer=answer, ignore_logprobs=True) as server:
        yield server


def openai(server, monkeypatch):
    """The key of the environment, and a query."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return ns.OpenAI("tiny", f"{server.base_url}?key={quote(QUERY, safe='')}")


def anthropic(server, monkeypatch):
    """All at once: a key, user and password, a query."""
    del monkeypatch
    address = server.url.replace("//", f"//me:{quote(PASSWORD, safe='')}@")
    return ns.Anthropic("tiny", f"{address}/v1?a=b&key={quote(QUERY, safe='')}", KEY)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Nothing of the environment, and no long waits."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "NSCORE_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys.modules[ns.aprobe.__module__], "RETRIES", Retries(attempts=2, base_s=0.001))
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")


@pytest.fixture(params=CARRIERS)
def by(request, monkeypatch):
    if request.param == "httpx":
        monkeypatch.setattr("nscore._sending.transport._aiohttp", lambda *_, **__: None)
    return request.param


def chain(error):
    """An error and all that it came from, shown or not."""
    rest, seen = [error], {}
    while rest:
        one = rest.pop()
        if one is not None and id(one) not in seen:
            seen[id(one)] = one
            rest += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return list(seen.values())


def told(error):
    """All that a report of a crash could hold, with the values of variables in all frames but the tests' own."""
    texts = list(traceback.format_exception(error))
    for one in chain(error):
        texts += [repr(one), str(one), repr(one.args), repr(getattr(one, "__notes__", ())), repr(vars(one))]
        whole = traceback.TracebackException(type(one), one, one.__traceback__, capture_locals=True)
        theirs = [frame for frame in whole.stack if not Path(frame.filename).is_relative_to(Path(__file__).parents[1])]
        texts += [f"{frame.filename}:{frame.lineno} {frame.locals}" for frame in theirs]
    return "\n".join(texts)


def written(folder):
    """All that the files of a folder hold, packed or not, and their names."""
    for path in sorted(folder.rglob("*")):
        yield str(path.relative_to(folder)), path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        if path.suffix == ".parquet" and path.is_file():
            yield f"rows of {path.name}", repr(pl.read_parquet(path).rows(named=True)).encode()
        if path.name == "journal":
            reader = JournalReader(path)
            for entry in reader.entries():
                yield "journal", repr(entry.head).encode() + reader.read(entry.location)


class Watch:
    """All the places where something may be written while a test runs: a folder, logs, the terminal."""

    def __init__(self, folder, capfd, caplog):
        self.folder, self.capfd, self.caplog = folder, capfd, caplog
        self.printed = ""

    def check(self, *texts):
        """Nothing anywhere."""
        assert (self.folder / "all.log").stat().st_size > 0
        assert {name: places for name, blob in written(self.folder) if (places := found_in(blob))} == {}
        records = [f"{r.getMessage()} {r.msg!r} {r.args!r} {r.exc_text} {r.exc_info!r}" for r in self.caplog.records]
        everywhere = [*texts, *records, self.caplog.text, *self.capfd.readouterr(), self.printed]
        assert [places for text in everywhere if (places := found_in(text))] == []

    def command(self, *arguments):
        """Runs the command line: its exit code, and what it printed."""
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as end:
            code = end.code
        said = "".join(self.capfd.readouterr())
        self.printed += said
        return code, said


@pytest.fixture
def watch(tmp_path, capfd, caplog):
    """All is logged, and into a file too."""
    handler = logging.FileHandler(tmp_path / "all.log")
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    for name in (None, "asyncio", "httpcore", "httpx", "aiohttp", "nscore"):
        caplog.set_level(logging.DEBUG, logger=name)
    logging.getLogger().addHandler(handler)
    yield Watch(tmp_path, capfd, caplog)
    logging.getLogger().removeHandler(handler)
    handler.close()


def caught(act):
    """The error that ended a call, as a report of a crash tells of it; the result as repr where there was none."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            text = repr(act())
        except Exception as error:  # noqa: BLE001  (whatever it is)
            text = told(error)
    return text + "".join(str(w.message) for w in said)


def simulated(backend, folder, **given):
    asking = {"simulator": "json_list", "out": folder, "attempts": 1, "concurrency": 2} | given
    return ns.simulate(records_of(1, 1), explanations_of(1), backend=backend, **asking)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_server_says_back_stands_nowhere(way, by, server, monkeypatch, watch):
    made = [openai, anthropic][(list(WAYS).index(way) + CARRIERS.index(by)) % 2]
    backend = made(server, monkeypatch)
    server.way = way
    ended = caught(lambda: simulated(backend, watch.folder / "run"))
    assert all(
        secret in server.echoed for secret in ([KEY, QUERY] if made is openai else [KEY, PASSWORD, BASIC, QUERY])
    )
    server.late, server.echoed = False, ""
    probed = caught(lambda: ns.probe(backend))
    assert server.echoed
    watch.check(ended, probed, repr(backend))


def test_requests_that_failed_for_good_are_kept_and_told_without_secrets(server, monkeypatch, tmp_path, watch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server.way = "500"
    ended = caught(lambda: simulated(anthropic(server, monkeypatch), None, attempts=2))
    assert "1 of 1 requests failed" in ended
    watch.check(ended)


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize("way", ["401", "reason", "no HTTP", "answer"])
def test_the_password_of_a_proxy_stands_nowhere(way, server, monkeypatch, watch):
    monkeypatch.setenv("http_proxy", server.url.replace("//", f"//me:{PROXY}@"))
    backend = ns.OpenAI("tiny", "http://model.invalid/v1", KEY)
    server.way = way
    ended = caught(lambda: simulated(backend, watch.folder / "run"))
    assert all(secret in server.echoed for secret in (KEY, f"me:{PROXY}"))
    monkeypatch.setenv("http_proxy", "http://me:canary-2@127.0.0.1:9")
    refused = caught(lambda: ns.probe(backend))
    assert "connection" in refused
    watch.check(ended, refused)


@pytest.mark.usefixtures("by")
@pytest.mark.parametrize(
    "address", ["odd://me:canary-1@h:1", "http://me:canary-1@h:port", "http://me:canary/1@[::1", "socks9://canary@h"]
)
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(address, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", address)
    ended = caught(lambda: ns.probe(ns.OpenAI("tiny", "http://model.invalid/v1", KEY)))
    assert "BackendError: the proxy that the environment names cannot be used" in ended
    assert not found_in(ended)


@pytest.mark.parametrize(
    "address",
    [
        *("me:canary-1@127.0.0.1:8000/v1", "ftp://me:canary-1@host/v1?key=canary-2", "ftp://host/v1?key=a@canary-2"),
        *("http://me:canary?1@host:x/v1", "http://me:canary#1@host:x/v1", "http://me:canary-1@host:99999/v1"),
        *("http://me:canary-1@[host/v1", "canary-key-in-the-wrong-place"),
        "http://me:canary-1@" + "x" * 70 + ".exa..mple\u200d/v1?canary",
    ],
)
def test_a_url_that_is_none_is_told_without_its_secrets(address, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ended = caught(lambda: ns.probe(ns.OpenAI("tiny")))
    assert "BackendError: " in ended
    assert not found_in(ended)


@pytest.mark.parametrize("key", ["canary\n1", " canary", "canary\u00e9"])
def test_a_key_that_cannot_be_sent_is_told_without_showing_it(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    ended = caught(lambda: ns.OpenAI("tiny"))
    assert "BackendError: the API key holds characters" in ended
    assert not found_in(ended)


@pytest.mark.parametrize("kind", [ns.OpenAI, ns.Anthropic, ns.VLLM, ns.SGLang])
@pytest.mark.parametrize(
    "given", [("", f"http://me:{PROXY}@h", KEY), ("t", f"me:{PROXY}@h", KEY), ("t", KEY), ("t", "http://h", 1)]
)
def test_a_backend_that_cannot_be_made_does_not_show_what_it_was_given(kind, given):
    ended = caught(lambda: kind(*given))
    assert "Error: " in ended
    assert not found_in(ended)


@pytest.mark.usefixtures("by")
def test_what_is_cancelled_in_flight_shows_no_headers(server, monkeypatch):
    backend = anthropic(server, monkeypatch)
    server.faults = {"hang": 1.0}

    async def cancelled():
        transport = Transport(backend.address, backend.headers(), secrets=backend.secrets())
        task = asyncio.create_task(transport.post("/v1/messages", b'{"messages": [], "max_tokens": 1}'))
        while not server.in_flight:  # noqa: ASYNC110  (the server's thread cannot set an event of this loop)
            await asyncio.sleep(0.005)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            return told(error)
        finally:
            await transport.aclose()

    ended = asyncio.run(cancelled())
    assert "transport.py" in ended
    assert not found_in(ended)


def test_no_public_object_shows_a_secret(server, monkeypatch, tmp_path):
    made = [openai(server, monkeypatch), anthropic(server, monkeypatch)]
    made += [kind("tiny", made[0].base_url, KEY) for kind in (ns.VLLM, ns.SGLang)]
    run = simulated(made[0], tmp_path / "run")
    told = ns.estimate(records_of(1, 1), explanations_of(1), simulator="json_list", backend=made[0], price=(1, 1))
    transport = Transport(made[1].address, made[1].headers(), secrets=made[1].secrets())
    things = [*made, run, run.settings(), told, ns.Replay(run.path), ns.Price(1, 1), transport]
    things += [backend.settings() for backend in made] + [backend.url for backend in made]
    for thing in things:
        for text in (repr(thing), str(thing), f"{thing}", pprint.pformat(thing, width=1)):
            assert not found_in(text), type(thing)
    asyncio.run(transport.aclose())


def test_logs_are_quiet_as_long_as_any_of_several_transports_is_open(caplog):
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger("httpcore.http11")

    def log():
        caplog.clear()
        logger.debug("return_value=%r", [(b"set-cookie", b"canary-1 canary-2")])
        try:
            raise ValueError("canary-1")  # noqa: TRY301
        except ValueError:
            logger.exception("canary-2")
        return caplog.text

    async def main():
        one, two, three = (
            Transport("http://127.0.0.1:9", {}, secrets=["canary-1", *more]) for more in ([], [], ["canary-2"])
        )
        assert not found_in(log())
        await one.aclose()
        await one.aclose()
        await three.aclose()
        assert "canary-1" not in log()
        assert "ValueError: ***" in caplog.text
        del two  # never closed

    asyncio.run(main())
    assert "canary-1" in log()
    assert QUIET not in logger.filters


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_small_tables(tmp_path)
    return tmp_path


def line(server, *flags):
    tables = ["records.parquet", "explanations.parquet", "--simulator", "json_list", "-o", "run"]
    return ["simulate", *tables, "--limit", "2", "--attempts", "1", *at(server), *flags]


def at(server):
    return ["--model", "tiny", "--base-url", server.base_url]


@pytest.mark.usefixtures("folder")
def test_the_command_line_prints_no_secret(server, monkeypatch, watch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{PROXY}@127.0.0.1:9")
    wrong = random.Random(0).sample(sorted(WAYS), 5)
    for way, flags, codes in [
        (None, line(server, "--dry-run"), {0}),
        (None, line(server, "--json"), {0}),
        (None, ["probe", *at(server), "--json"], {0}),
        ("401", line(server, "-o", "other"), {1}),
        *((way, line(server, "-o", way), {0, 1, 3}) for way in wrong),
        ("401", ["probe", *at(server)], {1}),
        ("401", ["probe", *at(server), "--extra", f'{{"api_key": "{KEY}'], {1}),
        *((None, [*given, "--api-key", KEY], {2}) for given in (line(server), ["probe", *at(server)])),
        (None, [*line(server), f"--api-key={KEY}"], {2}),
    ]:
        server.way, server.late = way, flags[0] == "simulate"
        code, said = watch.command(*flags)
        assert code in codes, (flags, said)
        assert not found_in(said), flags
        assert "Traceback" not in said
    watch.check()


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupted_command_shows_no_secret_and_has_none_among_its_arguments(times, folder, server, monkeypatch):
    server.wait_s = 0.3
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url.replace("//", f"//me:{quote(PASSWORD, safe='')}@"))
    tables = ["records.parquet", "explanations.parquet", "--simulator", "json_list", "-o", "run", "--model", "tiny"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nscore", "simulate", *tables], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        until = time.monotonic() + 20
        while not any(map(is_asked, server.requests)) and time.monotonic() < until:
            time.sleep(0.02)
        assert not found_in(Path(f"/proc/{process.pid}/cmdline").read_bytes())
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        out, err = process.communicate(timeout=20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode in {130, -signal.SIGINT}
    assert {name: places for name, blob in written(folder) if (places := found_in(blob))} == {}
    assert not found_in(out + err)
