"""Whatever happens on the wire is told as an outcome, in time, without secrets, and leaves nothing open."""

# ruff: noqa: ASYNC110 -- the server's thread cannot set an event of this loop

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import importlib.util
import json
import logging
import socket
import threading
import time
import warnings
from urllib.parse import urlsplit

import pytest
from model_server import ModelServer

from nscore._sending import transport as _transport
from nscore._sending.retry import verdict
from nscore._sending.transport import Transport
from nscore.errors import BackendError

BODY = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
PATH = "/chat/completions"
CANARY = "canary-key-1234"
CARRIERS = ["httpx"] + ["aiohttp"] * (importlib.util.find_spec("httpx_aiohttp") is not None)
PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]


@pytest.fixture(autouse=True, scope="module")
def _quick_collector():
    gc.collect()
    gc.freeze()  # each test here looks for what it left, not for what was there before


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(params=CARRIERS)
def by(request):
    return request.param


def run(act, base_url, by, headers=(), **options):
    """The result of `act(transport)`; what is left open when all is over is an error."""

    async def main():
        transport = Transport(base_url, dict(headers), by=by, **{"timeout_s": 5.0} | options)
        try:
            return await act(transport)
        finally:
            await transport.aclose()

    result = asyncio.run(main())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        gc.collect()
    return result


def post(base_url, by, **options):
    return run(lambda t: t.post(PATH, BODY), base_url, by, **options)


def served(by, switches=None, **options):
    with ModelServer(**switches or {}) as server:
        answer = post(server.base_url, by, **options)
    assert server.in_flight == 0
    return answer


@contextlib.contextmanager
def saying(reply, *, hold=False):
    """A server that reads a little of each connection and says these bytes; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended, kept = threading.Event(), []

    def serve():
        with contextlib.suppress(OSError):
            while not ended.is_set():
                connection, _ = listener.accept()
                connection.settimeout(2)
                with contextlib.suppress(OSError):
                    sent = b""
                    while not sent.endswith(BODY) and (part := connection.recv(65536)):
                        sent += part
                    connection.sendall(reply)
                if hold:
                    kept.append(connection)
                else:
                    connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), timeout=1).close()
        thread.join(3)
        listener.close()
        for connection in kept:
            connection.close()


def http(head, body=b""):
    return b"HTTP/1.1 " + head + b"\r\n\r\n" + body


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


# Replies.


def test_a_reply_comes_whole_with_its_status_and_latency(by):
    answer = served(by, {"wait_s": 0.05})
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "ok"
    assert (answer.outcome.kind, answer.outcome.http_status, answer.outcome.detail) == ("reply", 200, "")
    assert 0.05 <= answer.latency_s < 2
    assert not answer.unsent


def test_a_large_reply_comes_whole(by):
    answer = served(by, {"canned_bytes": 3_000_000})
    assert len(answer.body) == 3_000_000


@pytest.mark.parametrize(
    ("fault", "status", "told"),
    [
        ("500", 500, "again"),
        ("502", 502, "again"),
        ("503", 503, "again"),
        ("529", 529, "again"),
        ("html", 502, "again"),
    ],
)
def test_a_status_of_failure_is_told_with_its_words(by, fault, status, told):
    answer = served(by, {"faults": {fault: 1.0}})
    assert (answer.outcome.http_status, verdict(status, answer.body)) == (status, told)
    assert ("Bad Gateway" if fault == "html" else "overloaded") in answer.outcome.detail


@pytest.mark.parametrize(
    ("style", "low", "high"),
    [("seconds", 2, 2), ("date", 0, 1), ("ms", 2, 2), ("absent", None, None), ("nan", None, None), ("huge", 1e9, 1e9)],
)
def test_retry_after_is_understood(by, style, low, high):
    said = served(by, {"faults": {"429": 1.0}, "retry_after": (style,), "retry_after_s": 2.0}).outcome
    assert said.http_status == 429
    assert said.retry_after_s is None if low is None else low <= said.retry_after_s <= high


@pytest.mark.parametrize("status", [b"201 Created", b"204 No Content", b"307 Temporary Redirect", b"418 Teapot"])
def test_other_statuses_are_told_and_redirections_are_not_followed(by, status):
    head = status + b"\r\nlocation: http://127.0.0.1:1/elsewhere\r\ncontent-length: 0"
    with saying(http(head)) as url:
        answer = post(url, by)
    assert (answer.outcome.kind, answer.outcome.http_status) == ("reply", int(status[:3]))


def test_a_compressed_reply_is_unpacked(by):
    packed = gzip.compress(b'{"a": 1}')
    with saying(http(b"200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d" % len(packed), packed)) as url:
        assert post(url, by).body == b'{"a": 1}'


def test_a_broken_compression_is_told(by):
    with saying(http(b"200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5", b"\x1f\x8bxyz")) as url:
        answer = post(url, by)
    assert answer.outcome.kind in {"protocol", "connection"}
    assert answer.body == b""


def test_a_reply_in_chunks_or_until_the_end_comes_whole(by):
    with saying(http(b"200 OK\r\ntransfer-encoding: chunked", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")) as url:
        assert post(url, by).body == b"abcde"
    with saying(http(b"200 OK\r\nconnection: close", b"abc")) as url:
        assert post(url, by).body == b"abc"


# What is sent.


def test_headers_path_and_query_are_sent(by):
    head = http(b"200 OK\r\ncontent-length: 2", b"{}")
    with ModelServer() as server:
        run(lambda t: t.post(PATH, BODY), server.url + "/v1/", by, headers={"authorization": "Bearer k"})
        sent = server.requests[0]
    assert (sent.path, sent.headers["authorization"]) == ("/v1/chat/completions", "Bearer k")
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["content-length"] == str(len(BODY))
    with saying(head) as url:
        assert post(url + "?key=1", by).outcome.http_status == 200


def test_user_password_and_query_of_the_address_are_sent_and_logged_nowhere(by, caplog):
    caplog.set_level(logging.DEBUG)
    with ModelServer() as server:
        address = server.url.replace("//", "//me:s3cret%2Fword@") + "/v1?key=hunter22"
        answer = post(address, by, secrets=["hunter22"])
        sent = server.requests[0]
    assert sent.path == "/v1/chat/completions?key=hunter22"
    assert sent.headers["authorization"] == "Basic bWU6czNjcmV0L3dvcmQ="
    assert "hunter22" not in answer.outcome.detail  # the server echoes the path of a 404
    assert not [s for s in ("s3cret", "bWU6czNj", "hunter22") if s in caplog.text]


# Secrets.


def test_an_echoed_key_is_not_in_the_outcome(by):
    switches = {"api_key": "right"}
    answer = served(by, switches, headers={"authorization": f"Bearer {CANARY}"}, secrets=[CANARY])
    assert answer.outcome.http_status == 401
    assert "canary" not in repr(answer.outcome)
    assert "***" in answer.outcome.detail


@pytest.mark.parametrize("before", range(480, 502))
def test_a_key_at_the_edge_of_what_is_shown_is_not_cut_in_half(before):
    said = b"x" * before + CANARY.encode() + b"y" * 600
    with saying(http(b"400 Bad\r\ncontent-length: %d" % len(said), said)) as url:
        detail = post(url, "httpx", secrets=[CANARY]).outcome.detail
    assert "can" not in detail
    assert len(detail) <= 500


# Failures on the wire.


def test_a_refused_connection_was_not_sent(by):
    answer = post(f"http://127.0.0.1:{closed_port()}/v1", by)
    assert (answer.outcome.kind, answer.outcome.http_status, answer.unsent) == ("connection", None, True)
    assert answer.outcome.detail
    assert answer.body == b""


def test_an_unknown_host_was_not_sent(by):
    answer = post("http://nowhere.invalid/v1", by)
    assert (answer.outcome.kind, answer.unsent) == ("connection", True)


@pytest.mark.parametrize("fault", ["reset", "cut"])
def test_a_broken_connection_may_have_been_sent(by, fault):
    answer = served(by, {"faults": {fault: 1.0}})
    assert (answer.outcome.kind, answer.unsent, answer.body) == ("connection", False, b"")


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", b"\x00\x01\x02 no http\r\n\r\n", b"HTTP/9 abc\r\n\r\n"])
def test_what_is_no_http_is_told(by, sent):
    with saying(sent) as url:
        answer = post(url, by)
    assert answer.outcome.kind in {"connection", "protocol"}
    assert (answer.outcome.http_status, answer.unsent, answer.body) == (None, False, b"")


@pytest.mark.parametrize("head", [b"content-length: x", b"transfer-encoding: odd", b"a" * 200_000 + b": b"])
def test_hostile_headers_are_told(by, head):
    with saying(http(b"200 OK\r\n" + head, b"{}")) as url:
        answer = post(url, by, timeout_s=0.5)
    assert answer.outcome.kind in {"connection", "protocol", "timeout", "reply"}


def test_a_hanging_server_is_left_in_time(by):
    answer = served(by, {"faults": {"hang": 1.0}}, timeout_s=0.2)
    assert (answer.outcome.kind, answer.unsent) == ("timeout", False)
    assert 0.2 <= answer.latency_s < 1
    assert answer.outcome.detail


def test_a_drip_ends_at_the_same_deadline(by):
    answer = served(by, {"faults": {"drip": 1.0}, "drip_s": 0.05}, timeout_s=0.3)
    assert answer.outcome.kind == "timeout"
    assert 0.3 <= answer.latency_s < 1


def test_a_reply_that_is_too_large_is_not_read_to_its_end(by, monkeypatch):
    monkeypatch.setattr(_transport, "LARGEST_REPLY", 100_000)
    assert len(served(by, {"canned_bytes": 99_000}).body) == 99_000
    answer = served(by, {"canned_bytes": 2_000_000})
    assert (answer.outcome.kind, answer.body) == ("protocol", b"")
    assert "a reply of more than 100,000 bytes" in answer.outcome.detail


def test_after_every_failure_the_next_request_is_answered(by):
    async def act(transport, server):
        outcomes = []
        for fault in ("reset", "hang", "cut", "drip", "500", "cut_json") * 2:
            server.faults = {fault: 1.0}
            await transport.post(PATH, BODY)
            server.faults = None
            outcomes.append((await transport.post(PATH, BODY)).outcome.http_status)
        return outcomes

    with ModelServer() as server:
        assert run(lambda t: act(t, server), server.base_url, by, timeout_s=0.15) == [200] * 12


# Connections.


def test_connections_are_used_again(by):
    async def act(transport, server):
        for _ in range(20):
            assert (await transport.post(PATH, BODY)).outcome.http_status == 200
        return len(server.connections)

    with ModelServer() as server:
        assert run(lambda t: act(t, server), server.base_url, by) == 1


def test_64_at_once_have_64_connections_and_use_them_again(by):
    async def act(transport, server):
        for _ in range(3):
            answers = await asyncio.gather(*(transport.post(PATH, BODY) for _ in range(64)))
            assert {a.outcome.http_status for a in answers} == {200}
        return len(server.connections)

    with ModelServer(wait_s=0.1) as server:
        assert run(lambda t: act(t, server), server.base_url, by) <= 64
        assert server.max_in_flight == 64


def test_what_is_cancelled_leaves_nothing_open(by):
    async def act(transport, server):
        tasks = [asyncio.create_task(transport.post(PATH, BODY)) for _ in range(16)]
        while server.in_flight < 16:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(e) for e in ended} == {asyncio.CancelledError}
        while server.connections:
            await asyncio.sleep(0.01)
        server.wait_s = 0
        return (await transport.post(PATH, BODY)).outcome.http_status

    with ModelServer(wait_s=60) as server:
        assert run(lambda t: asyncio.wait_for(act(t, server), 5), server.base_url, by, timeout_s=60) == 200


def test_closing_is_quick_while_requests_hang(by):
    async def act(transport, server):
        tasks = [asyncio.create_task(transport.post(PATH, BODY)) for _ in range(8)]
        while server.in_flight < 8:
            await asyncio.sleep(0.01)
        start = time.monotonic()
        await transport.aclose()
        took_s = time.monotonic() - start
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return took_s

    with ModelServer(wait_s=60) as server:
        assert run(lambda t: act(t, server), server.base_url, by, timeout_s=60) < 1.5


def test_a_transport_that_is_being_closed_when_its_task_is_cancelled_is_closed(by):
    async def main():
        transport = Transport(server.base_url, {}, by=by)
        assert (await transport.post(PATH, BODY)).outcome.http_status == 200
        closing = asyncio.ensure_future(transport.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

    with ModelServer() as server:
        asyncio.run(main())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        gc.collect()


def test_closing_twice_or_unused_is_nothing(by):
    async def act(transport):
        await transport.aclose()
        await transport.aclose()

    run(act, "http://127.0.0.1:1/v1", by)


# Proxies.


def test_a_proxy_from_the_environment_is_used_and_no_proxy_leaves_it_out(by, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    with ModelServer() as server:
        answer = post(server.base_url, by)
        assert (answer.outcome.kind, answer.unsent) == ("connection", True)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert post(server.base_url, by).outcome.http_status == 200
        monkeypatch.setenv("NO_PROXY", "elsewhere.example")
        assert post(server.base_url, by).outcome.kind == "connection"


def test_the_proxy_is_asked_for_the_whole_address(by, monkeypatch):
    with ModelServer() as proxy:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{urlsplit(proxy.url).port}")
        post("http://model.invalid:81/v1", by)
        assert proxy.requests[0].path == "http://model.invalid:81/v1/chat/completions"


@pytest.mark.parametrize("proxy", ["odd://127.0.0.1:1", "http://127.0.0.1:port", "http://me:s3cret@[::1"])
def test_a_proxy_that_cannot_be_used_is_refused_in_words(by, proxy, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(BackendError, match="proxy") as caught:
        post("http://model.invalid/v1", by)
    assert "s3cret" not in str(caught.value)
