"""A model server for tests: HTTP over real sockets, one small model behind all its routes, and switches to misbehave.

    with ModelServer(bos=False, faults={"429": 0.3}) as server:
        httpx.post(server.base_url + "/completions", json={"prompt": "a", "echo": True, "logprobs": 15})

In a process of its own: `python tests/model_server.py --port 0 --set 'faults={"429": 0.3}'` prints its URL first.
What is refused, is refused at once; every other reply waits `wait_s`.
"""

import argparse
import asyncio
import functools
import importlib
import inspect
import itertools
import json
import re
import signal
import socket
import struct
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import blake2b
from typing import Literal, NamedTuple

import numpy as np
from tiny_model import Model, chat_text, fits, instance

OPENAI_MAX_TOKENS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
)
HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
RETRY_AFTER = ("seconds", "date", "ms", "absent", "nan", "huge")
UNLIMITED = 256
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_NEGATIVE_FLOAT = re.compile(rb"-\d+\.\d+(?:e[+-]?\d+)?")
_REASONS = {200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 404: b"Not Found", 429: b"Too Many Requests"}
_ANTHROPIC_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Received(NamedTuple):
    path: str
    body: dict
    headers: dict[str, str]


class Arrival(NamedTuple):
    """A request by the server's clock; its tokens are those of its prompt and the most that it asks for."""

    at_s: float
    tokens: int
    accepted: bool


class RefusalError(Exception):
    """A reply with a status that is not 200, in the words of the provider whose route was called."""

    def __init__(self, status, message, *, param=None, code=None, headers=()):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, tuple(headers)

    def reply(self, path):
        kind = "invalid_request_error" if self.status < 429 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        content = {"error": error}
        if path == "/v1/messages":
            error = {"type": _ANTHROPIC_KINDS.get(self.status, "api_error"), "message": self.message}
            content = {"type": "error", "error": error}
        return http_reply(self.status, json.dumps(content).encode(), headers=self.headers)


@dataclass(kw_only=True, eq=False)
class ModelServer:
    """A server on 127.0.0.1 in a thread of its own. Every keyword is an attribute that may be changed while it runs.

    What it kept for tests: `requests`, `arrivals`, `billed` (Counter by `body_hash` of the requests that got a whole
    reply with status 200, also where the client did not wait for it), `counts` (Counter by status and by name of
    fault), `n_requests`, `in_flight`, `max_in_flight` (of POST requests), `crashes`.
    """

    port: int = 0
    model_name: str = "tiny"

    # The model.
    bos: bool = True
    ten_is_one_token: bool = True
    merge_tab_unknown: bool = False

    # Chat answers: answer(messages) or answer(messages, sample), where sample is 0 at temperature 0.
    answer: Callable[..., str] = lambda _messages: "ok"
    structured: bool | Literal["reject"] = True
    thinking: Literal["field", "inline"] | None = None
    thought: str = "Let me think about it."
    refusal: str | None = None
    content_filter: bool = False

    # How replies are spelled.
    token_style: Literal["replace", "bytes", "spm", "stripped"] = "replace"  # noqa: S105  # no password
    offsets: Literal["vllm", "exact"] | None = "vllm"
    list_bos: bool = True
    chat_bytes: bool = True
    off_by_one: bool = False

    # What is silently ignored, or refused.
    api_key: str | None = None
    ignore_echo: bool = False
    ignore_logprobs: bool = False
    ignore_prompt_logprobs: bool = False
    max_logprobs: int | None = None
    reject_logprobs: bool = False
    zero_max_tokens: Literal["one", "zero", "unlimited", "reject"] = "one"
    no_chat: bool = False
    no_completions: bool = False
    reject_max_tokens: bool = False
    reject_temperature: bool = False
    reject_chat_logprobs: bool = False
    context: int | None = None

    # Time, size and limits. An answer waits wait_s and a part of jitter_s that its body fixes.
    wait_s: float = 0.0
    jitter_s: float = 0.0
    canned: bool = False
    canned_bytes: int = 0
    hidden_concurrency: int | None = None
    hidden_rpm: int | None = None
    hidden_tpm: int | None = None
    window_s: float = 60.0
    clock: Callable[[], float] = time.monotonic

    # Faults: name -> probability, drawn from (fault_seed, body, how many times this body came before).
    faults: Mapping[str, float] | None = None
    fault_seed: int = 0
    retry_after: tuple[str, ...] = RETRY_AFTER
    retry_after_s: float = 0.01
    drip_s: float = 0.05

    # Bookkeeping.
    record: bool = True
    bill: bool = True

    def __post_init__(self):
        self.loop = None
        self.connections = set()
        self.crashes = []
        self.in_flight = 0
        self.previous_prompt = ()
        self._canned = {}
        self._window = deque()
        self._retry_afters = 0
        self.forget()

    def forget(self):
        """Begin the bookkeeping anew."""
        self.requests, self.arrivals = [], []
        self.billed, self.counts, self.seen = Counter(), Counter(), Counter()
        self.n_requests = self.max_in_flight = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self):
        return self.url + "/v1"

    @property
    def model(self):
        return shared_model(self.bos, self.ten_is_one_token, self.merge_tab_unknown)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        started = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="model server", daemon=True)
        self._thread.start()
        started.result()

    def stop(self):
        """Break off every connection, whatever it waits for, and end the thread.

        Raises:
            RuntimeError: where a route or the test's own `answer` failed; all such errors are in `crashes`.
        """
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        if self.crashes:
            raise RuntimeError(f"The model server itself failed: {self.crashes[0]!r}")

    def _run(self, started):
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, what: self.crashes.append(what.get("exception", what["message"])))
        try:
            listen = self.loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, backlog=4096)
            listener = self.loop.run_until_complete(listen)
        except OSError as error:
            self.loop.close()
            started.set_exception(error)
            return
        self.port = listener.sockets[0].getsockname()[1]
        started.set_result(None)
        self.loop.run_forever()
        listener.close()
        for connection in list(self.connections):
            connection.transport.abort()
        while self.connections:
            self.loop.run_until_complete(asyncio.sleep(0.001))
        self.loop.run_until_complete(listener.wait_closed())
        self.loop.close()

    def take(self, connection, head, raw):
        """Answer one request, now or later, or never where a fault says so."""
        self.in_flight += 1
        method, path = head.split(b" ", 2)[:2]
        if method != b"POST":
            connection.send(self._look_up(path.decode(), read_headers(head)))
            return
        self.n_requests += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        if self.canned and path in self._canned and self._is_plain():
            self._deliver(connection, self._canned[path], raw)
            return
        try:
            self._serve(connection, path.decode(), read_headers(head), raw)
        except RefusalError as refusal:
            self.counts[refusal.status] += 1
            connection.send(refusal.reply(path.decode()))
        except Exception as error:  # noqa: BLE001  # raised again where the test stops the server
            self.crashes.append(error)
            connection.send(RefusalError(500, repr(error)).reply(path.decode()))

    def _is_plain(self):
        limits = (self.hidden_concurrency, self.hidden_rpm, self.hidden_tpm, self.api_key)
        return not (self.record or self.faults) and limits == (None,) * 4

    def _look_up(self, path, headers):
        try:
            self._check_key(path, headers)
        except RefusalError as refusal:
            return refusal.reply(path)
        if path == "/v1/models":
            found = {"object": "list", "data": [{"id": self.model_name, "object": "model"}]}
        elif path == "/stats":
            names = ("billed", "counts", "n_requests", "in_flight", "max_in_flight")
            found = {name: getattr(self, name) for name in names}
        else:
            return RefusalError(404, f"No such route: {path}").reply(path)
        return http_reply(200, json.dumps(found).encode())

    def _serve(self, connection, path, headers, raw):
        key = body_hash(raw)
        self.seen[key] += 1
        body = read_json(raw)
        if self.record:
            self.requests.append(Received(path, body, headers))
        route = self._route(path, headers)
        try:
            ask = route.read(self, body)
        except (KeyError, TypeError, AttributeError, UnicodeEncodeError) as error:
            raise RefusalError(400, f"The request cannot be read: {error!r}") from None
        self._check_context(ask)
        self._check_limits(ask)
        fault = self._fault(key)
        if fault:
            self.counts[fault] += 1
        if fault == "hang":
            return
        if fault == "reset":
            connection.reset()
            return
        self._refuse_by_fault(fault)
        if fault == "html":
            self.counts[502] += 1
            connection.send(http_reply(502, HTML, kind=b"text/html"))
            return
        reply = self._canned.get(path.encode()) if self.canned and not fault else None
        if reply is None:
            content = {"error": {"message": "Upstream failed.", "type": "server_error", "code": 502}}
            if fault != "error200":
                content = route.reply(self, body, ask, fault)
            reply = http_reply(200, self._payload(content, fault))
        if self.canned and not fault:
            self._canned[path.encode()] = reply
        self._deliver(connection, reply, raw, fault)

    def _payload(self, content, fault):
        payload = json.dumps(content, separators=(",", ":")).encode()
        if len(payload) < self.canned_bytes and isinstance(content, dict):
            content["padding"] = "x" * (self.canned_bytes - len(payload) - len(',"padding":""'))
            payload = json.dumps(content, separators=(",", ":")).encode()
        if fault == "nan":
            wrong = itertools.cycle([b"NaN", b"Infinity", b"-Infinity"])
            payload = _NEGATIVE_FLOAT.sub(lambda _: next(wrong), payload)
        return payload[: len(payload) // 2] if fault == "cut_json" else payload

    def _deliver(self, connection, reply, raw, fault=None):
        wait_s = self.wait_s
        if self.jitter_s:
            wait_s += self.jitter_s * fraction(body_hash(raw))
        if wait_s > 0:
            self.loop.call_later(wait_s, self._send, connection, reply, raw, fault)
        else:
            self._send(connection, reply, raw, fault)

    def _send(self, connection, reply, raw, fault):
        self.counts[200] += 1
        if self.bill and fault not in ("error200", "cut"):
            self.billed[body_hash(raw)] += 1
        if fault == "cut":
            connection.send(reply[: len(reply) - (len(reply) - reply.index(b"\r\n\r\n")) // 2], close=True)
        elif fault == "drip":
            connection.drip(reply, self.drip_s)
        else:
            connection.send(reply)

    def _route(self, path, headers):
        self._check_key(path, headers)
        off = (self.no_chat and path == "/v1/chat/completions") or (self.no_completions and path == "/v1/completions")
        if off or path not in ROUTES:
            raise RefusalError(404, f"Invalid URL (POST {path})")
        return ROUTES[path]

    def _check_key(self, path, headers):
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if path == "/v1/messages":
            if "x-api-key" not in headers:
                raise RefusalError(401, "x-api-key header is required")
            if "anthropic-version" not in headers:
                raise RefusalError(400, "anthropic-version: header is required")
        if self.api_key is not None and given != self.api_key:
            # The whole key, as careless proxies echo it: a client must not let it through to logs.
            raise RefusalError(401, f"Incorrect API key provided: {given}.", code="invalid_api_key")

    def _check_context(self, ask):
        wanted = max(map(len, ask.prompts), default=0) + (ask.room or 0)
        if self.context is not None and wanted > self.context:
            message = f"This model's maximum context length is {self.context} tokens. However, you requested {wanted}."
            raise RefusalError(400, message, code="context_length_exceeded")

    def _check_limits(self, ask):
        now = self.clock()
        while self._window and self._window[0].at_s <= now - self.window_s:
            self._window.popleft()
        tokens = sum(map(len, ask.prompts)) + (ask.room or 0)
        over = None
        if self.hidden_concurrency is not None and self.in_flight > self.hidden_concurrency:
            over = self.retry_after_s
        elif self.hidden_rpm is not None and len(self._window) >= self.hidden_rpm:
            over = self._window[0].at_s + self.window_s - now
        elif self.hidden_tpm is not None and tokens + sum(a.tokens for a in self._window) > self.hidden_tpm:
            over = self.window_s if not self._window else self._window[0].at_s + self.window_s - now
        arrival = Arrival(now, tokens, over is None)
        if self.record:
            self.arrivals.append(arrival)
        if over is not None:
            headers = [("retry-after", f"{over:.3f}")]
            raise RefusalError(429, "Rate limit reached.", code="rate_limit_exceeded", headers=headers)
        if self.hidden_rpm is not None or self.hidden_tpm is not None:
            self._window.append(arrival)

    def _fault(self, key):
        if not self.faults:
            return None
        drawn = fraction(f"{self.fault_seed}/{key}/{self.seen[key]}")
        for name, probability in self.faults.items():
            if drawn < probability:
                return name
            drawn -= probability
        return None

    def _refuse_by_fault(self, fault):
        if fault == "429":
            style = self.retry_after[self._retry_afters % len(self.retry_after)]
            self._retry_afters += 1
            headers = {
                "seconds": [("retry-after", f"{self.retry_after_s:g}")],
                "date": [("retry-after", formatdate(usegmt=True))],
                "ms": [("retry-after-ms", f"{1000 * self.retry_after_s:g}")],
                "absent": [],
                "nan": [("retry-after", "nan")],
                "huge": [("retry-after", "1000000000")],
            }
            raise RefusalError(429, "Rate limit reached.", code="rate_limit_exceeded", headers=headers[style])
        if fault in ("500", "502", "503", "529"):
            raise RefusalError(int(fault), "The server is overloaded or failed.")


class Connection(asyncio.Protocol):
    """One kept connection: a request is read whole and answered before the next is looked at."""

    __slots__ = ("buffer", "busy", "last", "server", "transport")

    def __init__(self, server):
        self.server = server
        self.buffer = b""
        self.busy = self.last = False

    def connection_made(self, transport):
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, _):
        self.server.connections.discard(self)
        self._done()

    def data_received(self, data):
        self.buffer = self.buffer + data if self.buffer else data
        if not self.busy:
            self.advance()

    def advance(self):
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end]
        length = _CONTENT_LENGTH.search(head)
        stop = end + 4 + (int(length[1]) if length else 0)
        if len(self.buffer) < stop:
            return
        raw = self.buffer[end + 4 : stop]
        self.buffer = self.buffer[stop:]
        self.busy = True
        self.last = b"connection: close" in head.lower()
        self.server.take(self, head, raw)

    def send(self, reply, *, close=False):
        if not self.busy:  # the client has gone
            return
        self._done()
        self.transport.write(reply)
        if close or self.last:
            self.transport.close()
        elif self.buffer:
            self.server.loop.call_soon(self.advance)

    def drip(self, reply, pause_s):
        if len(reply) == 1:
            self.send(reply)
        elif self.busy:
            self.transport.write(reply[:1])
            self.server.loop.call_later(pause_s, self.drip, reply[1:], pause_s)

    def reset(self):
        """Close with a RST: no linger, so what the client sent last goes unread."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _done(self):
        self.server.in_flight -= self.busy
        self.busy = False


class Ask(NamedTuple):
    """What a request asks for, whatever its route: token ids of each prompt, and the most tokens to make of each."""

    prompts: list[tuple[int, ...]]
    room: int | None
    messages: tuple[dict, ...] = ()
    batch: bool = False


class Route(NamedTuple):
    read: Callable[[ModelServer, dict], Ask]
    reply: Callable[[ModelServer, dict, Ask, str | None], dict]


def read_completions(server, body):
    room = 16 if body.get("max_tokens") is None else body["max_tokens"]
    if room == 0:
        if server.zero_max_tokens == "reject":
            raise RefusalError(400, "max_tokens must be at least 1, got 0.", param="max_tokens")
        room = {"one": 1, "zero": 0, "unlimited": UNLIMITED}[server.zero_max_tokens]
    return ask_of_prompts(server, body["prompt"], room)


def ask_of_prompts(server, given, room):
    """Of a text, token ids, or a list of either."""
    batch = not isinstance(given, str) and not isinstance(given[0], int)
    prompts = given if batch else [given]
    return Ask([server.model.prompt_ids(p) if isinstance(p, str) else tuple(p) for p in prompts], room, batch=batch)


def completions(server, body, ask, fault):
    k = logprobs_wanted(server, body.get("logprobs"), "logprobs")
    k_prompt = prompt_logprobs_wanted(server, body)
    echo = body.get("echo") and not server.ignore_echo
    choices = []
    for index, prompt in enumerate(ask.prompts):
        sampling = {"temperature": body.get("temperature", 1.0), "seed": body.get("seed") or 0}
        made = server.model.generate(prompt, ask.room, **sampling)
        choice = {
            "index": index,
            "text": server.model.decode((*prompt, *made) if echo else made),
            "finish_reason": "length",
            "logprobs": None if k is None else completion_logprobs(server, prompt, made, k, echo=echo, fault=fault),
        }
        if k_prompt is not None:
            choice["prompt_logprobs"] = prompt_logprobs(server, prompt, k_prompt, fault)
        choices.append(choice)
    usage = usage_of(server, ask.prompts, ask.room * len(ask.prompts))
    kind = {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": server.model_name}
    return kind | {"choices": choices, "usage": usage}


def completion_logprobs(server, prompt, made, k, *, echo, fault):
    ids = [*prompt, *made]
    model = server.model
    if echo and server.off_by_one:
        # llama-cpp-python pairs each token with what follows it, and the last one was never evaluated.
        rows, ids, first = model.rows(ids, 1), ids[:-1], 0
    else:
        first = 0 if echo else len(prompt)
        rows, ids = model.rows(ids, first), ids[first:]
    if echo and server.bos and not server.list_bos:
        rows, ids, first = rows[1:], ids[1:], 1
    texts = [spelled(model.vocab[i], server.token_style) for i in ids]
    listed = [row.listed(k, i) for row, i in zip(rows, ids, strict=True)]
    found = {
        "token_logprobs": [pairs[0][1] for pairs in listed],
        "tokens": texts,
        "top_logprobs": [
            {spelled(model.vocab[i], server.token_style): value for i, value in pairs} for pairs in listed
        ],
    }
    if echo and ids:
        found["token_logprobs"][0] = found["top_logprobs"][0] = None
    if server.offsets == "vllm":
        found["text_offset"] = [0, *itertools.accumulate(map(len, texts))][: len(texts)]
    elif server.offsets == "exact":
        whole = [b"" if i == 0 else model.vocab[i] for i in (*prompt, *made)]
        found["text_offset"] = character_offsets(whole)[first : first + len(ids)]
    return {name: shortened(rows, fault if echo else None) for name, rows in found.items()}


def prompt_logprobs(server, prompt, k, fault):
    entries = [None]
    for row, actual in zip(server.model.rows(prompt, 1), prompt[1:], strict=True):
        listed = row.listed(k, actual)
        ranks = {i: rank for rank, (i, _) in enumerate(row.top(k), 1)}
        entries.append(
            {
                str(i): {
                    "logprob": value,
                    "rank": ranks.get(i) or row.rank(i),
                    "decoded_token": spelled(server.model.vocab[i], server.token_style),
                }
                for i, value in listed
            }
        )
    return shortened(entries, fault)


def read_chat(server, body):
    messages = body["messages"]
    room = body.get("max_completion_tokens", body.get("max_tokens"))
    return Ask([server.model.prompt_ids(chat_text(messages))], room, tuple(messages))


def chat(server, body, ask, fault):
    if server.reject_max_tokens and "max_tokens" in body:
        raise RefusalError(400, OPENAI_MAX_TOKENS, param="max_tokens", code="unsupported_parameter")
    if server.reject_temperature and body.get("temperature", 1) != 1:
        message = f"Unsupported value: 'temperature' does not support {body['temperature']} with this model."
        raise RefusalError(400, message, param="temperature", code="unsupported_value")
    if server.reject_chat_logprobs and body.get("logprobs"):
        raise RefusalError(400, "logprobs are not supported with this model.", param="logprobs")
    if server.structured == "reject" and "response_format" in body:
        message = "Invalid parameter: 'response_format' is not supported with this model."
        raise RefusalError(400, message, param="response_format")
    k = logprobs_wanted(server, body.get("top_logprobs", 0) if body.get("logprobs") else None, "top_logprobs")
    spoil = None if fault == "nan" and k is not None else fault
    made = [compose(server, body, ask, spoil, index) for index in range(body.get("n") or 1)]
    reply = {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": server.model_name,
        "choices": [chat_choice(server, ask, one, k, index) for index, one in enumerate(made)],
        "usage": usage_of(server, ask.prompts, sum(len(one.thought) + len(one.answer) for one in made)),
    }
    k_prompt = prompt_logprobs_wanted(server, body)
    if k_prompt is not None:
        reply["prompt_logprobs"] = prompt_logprobs(server, ask.prompts[0], k_prompt, fault)
    return reply


def chat_choice(server, ask, made, k, index):
    model = server.model
    message = {"role": "assistant", "content": model.decode(made.answer), "refusal": None}
    if server.thinking == "field":
        message["reasoning_content"] = model.decode(made.thought)
    finish = "length" if made.cut else "stop"
    if server.refusal is not None:
        message |= {"content": None, "refusal": server.refusal}
    elif server.content_filter:
        message["content"], finish = "", "content_filter"
    logprobs = None
    if k is not None:
        before = (*ask.prompts[0], *made.thought)
        rows = model.rows((*before, *made.answer), len(before))
        logprobs = {"content": [chat_token(server, row, i, k) for row, i in zip(rows, made.answer, strict=True)]}
    return {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs}


def chat_token(server, row, chosen, k):
    def entry(i, value):
        token = server.model.vocab[i]
        exact = list(token) if server.chat_bytes else None
        return {"token": spelled(token, server.token_style), "logprob": value, "bytes": exact}

    best = sorted(row.listed(k, chosen), key=lambda pair: -pair[1]) if k else []
    return entry(chosen, row.logprob(chosen)) | {"top_logprobs": [entry(*pair) for pair in best]}


def read_messages(server, body):
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    messages = [*system, *body["messages"]]
    return Ask([server.model.prompt_ids(chat_text(messages))], int(body["max_tokens"]), tuple(messages))


def anthropic(server, body, ask, fault):
    made = compose(server, body, ask, fault)
    content = [{"type": "text", "text": server.model.decode(made.answer)}]
    stop = "max_tokens" if made.cut else "end_turn"
    if server.refusal is not None:
        content, stop = [], "refusal"
    if server.thinking == "field":
        content.insert(0, {"type": "thinking", "thinking": server.model.decode(made.thought), "signature": "c2ln"})
    usage = usage_of(server, ask.prompts, len(made.thought) + len(made.answer))
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "id": "msg_0",
        "type": "message",
        "role": "assistant",
        "model": server.model_name,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage["prompt_tokens"] - cached,
            "output_tokens": usage["completion_tokens"],
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0,
        },
    }


def read_generate(server, body):
    room = (body.get("sampling_params") or {}).get("max_new_tokens", 128)
    return ask_of_prompts(server, body["text"] if "text" in body else body["input_ids"], room)


def generate(server, body, ask, fault):
    replies = [generate_one(server, body, ask, prompt, fault) for prompt in ask.prompts]
    return replies if ask.batch else replies[0]


def generate_one(server, body, ask, prompt, fault):
    model = server.model
    sampling = body.get("sampling_params") or {}
    made = model.generate(prompt, ask.room, temperature=sampling.get("temperature", 1.0), seed=body.get("seed") or 0)
    usage = usage_of(server, [prompt], len(made))
    meta = {
        "id": "0",
        "finish_reason": {"type": "length", "length": len(made)},
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
    }
    if body.get("return_logprob") and not server.ignore_logprobs:
        k = logprobs_wanted(server, body.get("top_logprobs_num", 0), "top_logprobs_num")
        with_text = body.get("return_text_in_logprobs")
        start = body.get("logprob_start_len", -1)
        start = len(prompt) if start < 0 or server.ignore_prompt_logprobs else start

        def entry(i, value):
            return [value, i, spelled(model.vocab[i], server.token_style) if with_text else None]

        ids = (*prompt, *made)
        for side, first, stop in (("input", start, len(prompt)), ("output", len(prompt), len(ids))):
            rows = model.rows(ids, first, stop)
            values = [entry(i, row.logprob(i)) for i, row in zip(ids[first:stop], rows, strict=True)]
            top = [[entry(*pair) for pair in row.top(k)] for row in rows]
            if side == "input" and values:
                values[0][0] = top[0] = None
            spoilt = fault if side == "input" else None
            meta[f"{side}_token_logprobs"] = shortened(values, spoilt)
            if k:
                meta[f"{side}_top_logprobs"] = shortened(top, spoilt)
    return {"text": model.decode(made), "meta_info": meta}


ROUTES = {
    "/v1/completions": Route(read_completions, completions),
    "/v1/chat/completions": Route(read_chat, chat),
    "/v1/messages": Route(read_messages, anthropic),
    "/generate": Route(read_generate, generate),
}


class Made(NamedTuple):
    """The token ids of a chat answer; `cut` where it had no room for all of them."""

    thought: tuple[int, ...]
    answer: tuple[int, ...]
    cut: bool


def compose(server, body, ask, fault, index=0):
    sample = zlib.crc32(f"{body.get('seed')}/{index}".encode()) if body.get("temperature", 1) else 0
    messages = list(ask.messages)
    takes_two = len(inspect.signature(server.answer).parameters) > 1
    text = server.answer(messages, sample) if takes_two else server.answer(messages)
    schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
    if schema is not None and server.structured and not answers(text, schema):
        seed = zlib.crc32(chat_text(messages).encode())
        text = json.dumps(instance(schema, np.random.default_rng([seed, sample])))
    if fault in ("count", "nan"):
        text = spoilt_answer(text, fault, many=fraction(text) < 0.5)
    thought = ()
    if server.thinking == "inline":
        text = f"<think>{server.thought}</think>{text}"
    elif server.thinking == "field":
        thought = server.model.encode(server.thought)
    answer = server.model.encode(text)
    if ask.room is None:
        return Made(thought, answer, cut=False)
    left = max(ask.room - len(thought), 0)
    return Made(thought[: ask.room], answer[:left], cut=len(thought) + len(answer) > ask.room)


def answers(text, schema):
    try:
        return fits(json.loads(text), schema)
    except ValueError:
        return False


def spoilt_answer(text, fault, *, many):
    """The same answer with one number too few or too many, or with NaN for its last number."""
    if fault == "nan":
        last = next(reversed(list(re.finditer(r"-?\d+(\.\d+)?", text))), None)
        return text[: last.start()] + "NaN" + text[last.end() :] if last else text
    try:
        value = json.loads(text)
    except ValueError:
        lines = text.splitlines(keepends=True)
        return text + "\n" + lines[-1] if many else "".join(lines[:-1])
    numbers = value
    while isinstance(numbers, dict) and numbers:
        numbers = next((v for v in numbers.values() if isinstance(v, list)), next(iter(numbers.values())))
    if isinstance(numbers, list) and numbers:
        numbers.extend(numbers[-1:]) if many else numbers.pop()
    return json.dumps(value)


def logprobs_wanted(server, k, param):
    if k is None or k is False or server.ignore_logprobs:
        return None
    return capped(server, int(k), param)


def prompt_logprobs_wanted(server, body):
    k = body.get("prompt_logprobs")
    return None if k is None or server.ignore_prompt_logprobs else capped(server, int(k), "prompt_logprobs")


def capped(server, k, param):
    if server.max_logprobs is None or k <= server.max_logprobs:
        return k
    if server.reject_logprobs:
        raise RefusalError(400, f"{param}: at most {server.max_logprobs} are given, got {k}.", param=param)
    return server.max_logprobs


def shortened(rows, fault):
    return rows[: len(rows) - max(2, len(rows) // 4)] if fault == "count" else rows


def spelled(token, style):
    """A token's text as servers of a kind write it."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        if style == "bytes":
            return "bytes:" + "".join(f"\\x{b:02x}" for b in token)
        return "".join(f"<0x{b:02X}>" for b in token) if style == "spm" else token.decode("utf-8", "replace")
    if style == "spm":
        return f"<0x{token[0]:02X}>" if text in ("\t", "\n", "\r") else text.replace(" ", "▁")
    return text.removeprefix(" ") if style == "stripped" else text


def character_offsets(tokens):
    """Where each token begins, in characters; a token within a character begins where the character does."""
    offsets, at = [], 0
    for token in tokens:
        starts = sum(byte & 0xC0 != 0x80 for byte in token)
        inside = bool(token) and token[0] & 0xC0 == 0x80
        offsets.append(at - inside)
        at += starts
    return offsets


def usage_of(server, prompts, completion_tokens):
    cached = 0
    for prompt in prompts:
        cached += common_prefix(prompt, server.previous_prompt)
        server.previous_prompt = prompt
    total = sum(map(len, prompts))
    return {
        "prompt_tokens": total,
        "completion_tokens": completion_tokens,
        "total_tokens": total + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def common_prefix(a, b):
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


@functools.cache
def shared_model(bos, ten_is_one_token, merge_tab_unknown):
    return Model(bos=bos, ten_is_one_token=ten_is_one_token, merge_tab_unknown=merge_tab_unknown)


def body_hash(raw):
    """The key of `billed`: of the bytes of a request's body."""
    return blake2b(raw, digest_size=16).hexdigest()


def fraction(text):
    """A number in [0, 1) that the text fixes."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2**64


def read_headers(head):
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in lines}


def read_json(raw):
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise RefusalError(400, f"We could not parse the JSON body of your request: {error}") from None
    if not isinstance(body, dict):
        raise RefusalError(400, "The body must be a JSON object.")
    return body


def http_reply(status, payload, *, kind=b"application/json", headers=()):
    lines = [b"HTTP/1.1 %d %s" % (status, _REASONS.get(status, b"Error")), b"content-type: " + kind]
    lines += [f"{name}: {value}".encode() for name, value in headers]
    lines += [b"content-length: %d" % len(payload), b"", payload]
    return b"\r\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Serves the tests' small model until SIGINT or SIGTERM.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--wait-ms", type=float, default=0.0)
    parser.add_argument("--canned-bytes", type=int, help="the same reply for each POST, of at least this size")
    parser.add_argument("--answer", metavar="MODULE:FUNCTION", help="what makes the text of chat answers")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="any keyword of ModelServer")
    given = parser.parse_args()
    switches = {"record": False} | {name: json.loads(value) for name, _, value in (s.partition("=") for s in given.set)}
    if given.canned_bytes is not None:
        switches |= {"canned": True, "canned_bytes": given.canned_bytes}
    if given.answer:
        module, _, name = given.answer.partition(":")
        switches["answer"] = getattr(importlib.import_module(module), name)
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with ModelServer(port=given.port, wait_s=given.wait_ms / 1000, **switches) as server:
        print(server.url, flush=True)  # noqa: T201  # whoever started it reads it from there
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
