"""A model server that says back the secrets that it is sent, in every way and at every place that there is."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from urllib.parse import quote, unquote

from asking import is_asked
from model_server import ModelServer, Received, http_reply


def everything(path, headers):
    """What a request holds of secrets, in every way that servers may write it."""
    basic = [b64decode(v[6:]).decode() for v in headers.values() if v.startswith("Basic ")]
    plain = " ".join([path, unquote(path), *headers.values(), *basic])
    escaped = "".join(f"\\u{ord(c):04x}" for c in plain)
    lower = re.sub("%..", lambda found: found[0].lower(), quote(plain))
    return " ".join([plain, quote(plain, safe=""), lower, json.dumps(plain)[1:-1], escaped])


def raw(head, body):
    return b"HTTP/1.1 " + head + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def error(status, said, **headers):
    content = {"error": {"message": f"No: {said}", "type": "error", "code": said}}
    return http_reply(status, json.dumps(content).encode(), headers=headers.items())


def good(said, path):
    content = {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}
    if path.endswith("messages"):
        content = {"type": "message", "content": [{"type": "text", "text": said}], "stop_reason": "end_turn"}
    return json.dumps(content).encode()


def chunked(body, size=5):
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"\r\ntransfer-encoding: chunked\r\n\r\n" + sent + b"0\r\n\r\n"


HEADERS = ["retry-after", "www-authenticate", "location", "set-cookie", "content-type", "x-request-id"]
WAYS = {
    "400": lambda said, _: error(400, said),
    "401": lambda said, _: error(401, said),
    "429": lambda said, _: error(429, said),
    "500": lambda said, _: error(500, said),
    "error 200": lambda said, _: error(200, said),
    "headers": lambda said, _: error(500, "no", **dict.fromkeys(HEADERS, said)),
    "headers of an answer": lambda said, path: raw(b"200 OK\r\nset-cookie: " + said.encode(), good("no", path)),
    "reason": lambda said, _: raw(b"503 " + said.encode(), b"{}"),
    "reason of an answer": lambda said, path: raw(b"200 " + said.encode(), good("no", path)),
    "answer": lambda said, path: raw(b"200 OK", good(said, path)),
    "html": lambda said, _: http_reply(502, f"<html><p>{said}</p></html>".encode(), kind=b"text/html"),
    "broken JSON": lambda said, path: raw(b"200 OK", good(said, path)[:-9]),
    "no JSON": lambda said, _: raw(b"200 OK", said.encode()),
    "chunks": lambda said, path: b"HTTP/1.1 200 OK" + chunked(good(said, path)),
    "chunks of an error": lambda said, _: b"HTTP/1.1 400 No" + chunked(said.encode()),
    "no header": lambda said, _: b"HTTP/1.1 200 OK\r\n" + said.encode() + b"\r\n\r\n",
    "no HTTP": lambda said, _: said.encode() + b"\r\n\r\n",
    "no chunk": lambda said, _: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + said.encode() + b"\r\n",
    "no length": lambda said, _: b"HTTP/1.1 200 OK\r\ncontent-length: " + said.encode() + b"\r\n\r\n",
    "no gzip": lambda said, _: raw(b"200 OK\r\ncontent-encoding: gzip", said.encode()),
    "no coding": lambda said, _: raw(b"500 No\r\ncontent-encoding: " + said.encode(), said.encode()),
    "no latin": lambda said, _: raw("503 Nö ".encode("latin-1") + said.encode(), b"{}"),
}


class Echo(ModelServer):
    """Once it is told a `way`, it says back what it is sent; `late`: only where it is asked about records."""

    way, late, echoed = None, True, ""

    def _serve(self, connection, path, headers, raw):
        route = "/" + path.partition("?")[0].split("/", 3)[-1] if "://" in path else path.partition("?")[0]
        about = is_asked(Received(route, json.loads(raw), headers))
        if self.way is None or (self.late and not about):
            super()._serve(connection, route, headers, raw)
            return
        self.echoed = everything(path, headers)
        connection.send(WAYS[self.way](self.echoed, route), close=True)
