"""A real browser without a window: Chromium, driven over its DevTools protocol through a pipe, with nothing in between."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-extensions"),
    *("--remote-debugging-pipe", "--hide-scrollbars", "--mute-audio"),
]
PATIENCE_S = 60


def found():
    """The browser's path. Without one the test is skipped on a user's machine, and fails where everything must hold."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        said = "no Chromium is installed (Debian: apt-get install chromium), so that no page can be opened"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return path


class Browser:
    """A browser and what it told: console messages, exceptions, violations of the policy, and requests."""

    def __init__(self):
        self._home = tempfile.mkdtemp(prefix="nscore-browser-")
        self._ids = itertools.count(1)
        self._events, self._buffer = [], b""
        # the browser reads commands from 3 and writes to 4
        read, self._out = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in os.pipe())
        self._in, write = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in os.pipe())
        command = [found(), *FLAGS, f"--user-data-dir={self._home}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "browser", *command],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read)
        os.close(write)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, RuntimeError):
            self.ask("Browser.close", session=None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._home, ignore_errors=True)

    def open(self, url, *, width=1400, height=900, dark=False, before=None, scripts=True):
        """Opens a page and waits until it is loaded; `before` is a script that runs ahead of its own."""
        target = self.ask("Target.createTarget", session=None, url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", session=None, targetId=target, flatten=True)
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        if before:
            page.ask("Page.addScriptToEvaluateOnNewDocument", source=before)
        page.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        page.look(width=width, height=height, dark=dark)
        page.ask("Page.navigate", url=url)
        page.wait_for("Page.loadEventFired")
        return page

    def ask(self, method, *, session, **parameters):
        """Sends a command, and gives its answer."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE_S
        while True:
            message = self._next(end)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._events.append(message)

    def wait(self, method, session):
        """The next event of this name, or one that came before."""
        end = time.monotonic() + PATIENCE_S
        while True:
            for event in self._events:
                if event.get("method") == method and event.get("sessionId") == session:
                    return event
            self._events.append(self._next(end))

    def events(self, session):
        """What a page told so far."""
        return [event for event in self._events if event.get("sessionId") == session]

    def _next(self, end):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(end - time.monotonic(), 0))
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError("the browser says no more")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


class Page:
    """One page of the browser."""

    def __init__(self, browser, session):
        self._browser, self._session = browser, session

    def ask(self, method, **parameters):
        """Sends a command to the page."""
        return self._browser.ask(method, session=self._session, **parameters)

    def wait_for(self, method):
        """Waits for an event of the page."""
        return self._browser.wait(method, self._session)

    def look(self, *, width, height, dark=False, media="screen"):
        """Sets the size of the window and what the reader prefers."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def run(self, expression):
        """The value of an expression in the page; of a promise, what it comes to."""
        how = {"returnByValue": True, "awaitPromise": True, "allowUnsafeEvalBlockedByCSP": False}
        given = self.ask("Runtime.evaluate", expression=expression, **how)
        if "exceptionDetails" in given:
            raise RuntimeError(given["exceptionDetails"]["exception"].get("description", given["exceptionDetails"]))
        return given["result"].get("value")

    def settle(self):
        """Waits until what was asked is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, *keys):
        """Presses keys one after the other, as a reader does."""
        for key in keys:
            text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
            code = {"Tab": 9, "Enter": 13, " ": 32, "End": 35, "Home": 36, "PageUp": 33, "PageDown": 34}
            code |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
            more = {"windowsVirtualKeyCode": code[key]} if key in code else {}
            self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, **more)
            self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, **more)
        self.settle()

    def type(self, text):
        """Types a text where the focus is."""
        self.ask("Input.insertText", text=text)
        self.settle()

    def click(self, selector):
        """Clicks with the mouse on the middle of an element."""
        x, y = self.run(
            f"(() => {{const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block:'nearest'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def picture(self, path, *, whole=False):
        """Writes what is seen, or the whole page, as PNG."""
        more = {}
        if whole:
            size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12000), "scale": 1}
            more = {"captureBeyondViewport": True, "clip": clip}
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png", **more)["data"]))

    def printed(self):
        """The page as PDF."""
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=True)["data"])

    def complaints(self):
        """Console messages, exceptions and violations of the policy."""
        self.settle()
        said = []
        for event in self._browser.events(self._session):
            given = event["params"]
            match event["method"]:
                case "Runtime.consoleAPICalled":
                    said.append([argument.get("value") for argument in given["args"]])
                case "Runtime.exceptionThrown":
                    said.append(given["exceptionDetails"])
                case "Log.entryAdded":
                    said.append(given["entry"]["text"])
                case "Page.javascriptDialogOpening" | "Page.windowOpen":
                    said.append(given)
        return said

    def requests(self):
        """The addresses that were asked for, the page's own first."""
        sent = [e["params"] for e in self._browser.events(self._session) if e["method"] == "Network.requestWillBeSent"]
        return [event["request"]["url"] for event in sent]
