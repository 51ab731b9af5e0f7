"""A server of Google's storage on loopback, and how it misbehaves: a process that is told so on its standard input.

It is no thread of the tests' own process, since pyarrow holds Python's lock while it waits for this store.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from datetime import datetime
from email.utils import format_datetime
from functools import partial
from http.server import ThreadingHTTPServer
from unittest import mock
from urllib.parse import unquote, urlsplit

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage


@contextlib.contextmanager
def serving():
    """Runs a server; gives what tells it to misbehave."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        told = Told(running)
        with mock.patch.dict(os.environ, {"STORAGE_EMULATOR_HOST": told.read()}):
            yield told


class Told:
    def __init__(self, running):
        self._running = running

    def read(self):
        return self._running.stdout.readline().strip()

    def fault(self, at="nowhere", does=None, times=1):
        """At the next requests that `at` is found in: a status to answer, a "cut" in the body, or a "stall" in it."""
        self._tell({"at": at, "does": does, "times": times})

    def met(self):
        """Waits until a request has met the fault."""
        self._tell("met")

    def _tell(self, order):
        print(json.dumps(order), file=self._running.stdin, flush=True)
        assert self.read() == "done", order


class Fault:
    def __init__(self, at, does, times):
        self.at, self.does, self.times = at, does, times
        self.met, self.over = threading.Event(), threading.Event()


class Handler(RequestHandler):
    """The emulator's, with what Polars asks for and it leaves out: HEAD, the ends of objects, when they were written."""

    protocol_version = "HTTP/1.1"
    about = None

    def parse_request(self):
        if not super().parse_request():
            return False
        bucket, _, name = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        with contextlib.suppress(NotFound):
            self.about = self.storage.get_file_obj(bucket, name)
        last = re.fullmatch(r"bytes=-(\d+)", self.headers.get("Range", ""))
        if last and self.about:
            self.headers.replace_header("Range", f"bytes={max(0, int(self.about['size']) - int(last[1]))}-")
        return self._goes_on(self.server.fault)

    def handle_expect_100(self):  # a client waits a second for it
        self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _goes_on(self, fault):
        line = f"{self.command} {self.path} {self.headers.get('Content-Range', '')}"
        if not fault.times or not re.search(fault.at, line):
            return True
        fault.times -= 1
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length // 2)
        fault.met.set()
        if fault.does == "stall":
            fault.over.wait(30)
        if fault.does == "cut":
            self.wfile = io.BytesIO()
        else:
            with contextlib.suppress(ConnectionError):
                body += self.rfile.read(length - len(body))
        self.rfile = io.BytesIO(body)
        if not isinstance(fault.does, int):
            return True
        self.send_response(fault.does)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def send_response(self, code, message=None):
        super().send_response(code, message)
        self.send_header("Connection", "close")

    def send_header(self, keyword, value):
        if (keyword, value) != ("Range", "bytes=0-0"):  # so the emulator says that nothing has arrived yet
            super().send_header(keyword, value)

    def do_HEAD(self):  # noqa: N802  (so its base names them)
        self.do_GET()

    def end_headers(self):
        if self.about:
            self.send_header("ETag", f'"{self.about["etag"]}"')
            self.send_header(
                "Last-Modified", format_datetime(datetime.fromisoformat(self.about["updated"]), usegmt=True)
            )
        super().end_headers()
        if self.command == "HEAD":
            self.wfile = io.BytesIO()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    fault = Fault("nowhere", None, 0)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # who is killed hangs up
            super().handle_error(request, client_address)


def main():
    server = Server(("127.0.0.1", 0), partial(Handler, Storage(use_memory_fs=True)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("http://{}:{}".format(*server.server_address), flush=True)
    for line in sys.stdin:  # ends with the tests, however they end
        order = json.loads(line)
        done = True
        if order == "met":
            done = server.fault.met.wait(60)
        else:
            server.fault, before = Fault(**order), server.fault
            before.over.set()
        print("done" if done else "never", flush=True)


if __name__ == "__main__":
    main()
