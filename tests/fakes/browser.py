"""A real browser: headless Chromium, driven over its DevTools protocol with what is installed anyway."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

# Generous: it bounds a hang and measures nothing; test machines may be very busy.
PATIENCE_S = 120.0


@dataclass
class Browser:
    """One tab."""

    socket: ClientConnection
    events: list[dict[str, Any]] = field(default_factory=list)
    """What the browser told unasked: requests, exceptions, console messages."""
    _last_id: int = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result."""
        self._last_id += 1
        self.socket.send(json.dumps({"id": self._last_id, "method": method, "params": parameters}))
        while True:
            answer: dict[str, Any] = json.loads(self.socket.recv(timeout=PATIENCE_S))
            if answer.get("id") == self._last_id:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, url: str) -> None:
        """Go there."""
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """The first truthy value of an expression. Raises: AssertionError when there is none in time."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if value := self.evaluate(expression):
                return value
            time.sleep(0.2)
        where = self.evaluate("location.href")
        asked = [one["params"] for one in self.events if one["method"] == "Network.requestWillBeSent"]
        pages = [one["request"] for one in asked if one["type"] == "Document"]
        visited = [f"{page['method']} {page['url']}" for page in pages]
        raise AssertionError(f"waited in vain for {expression}; {where} after {visited} says: {self.text()[:2000]}")

    def text(self) -> str:
        """What a person can read."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def screenshot(self, path: Path, *, width: int, height: int, dark: bool = False, full: bool = False) -> None:
        """A picture of the page at this size."""
        self.resize(width, height, dark=dark)
        options: dict[str, Any] = {"captureBeyondViewport": full}
        if full:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": width, "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **options)["data"]))

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Pretend to be a screen of this size, light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        # Two frames, so that the layout has settled.
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def requested(self) -> list[str]:
        """Addresses of everything the page has asked for."""
        self.evaluate("1")
        return [one["params"]["request"]["url"] for one in self.events if one["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Errors in the page's own console: exceptions, and what the content policy blocked."""
        self.evaluate("1")
        thrown = [str(one["params"]) for one in self.events if one["method"] == "Runtime.exceptionThrown"]
        entries = [one["params"]["entry"] for one in self.events if one["method"] == "Log.entryAdded"]
        return thrown + [entry["text"] for entry in entries if entry["level"] == "error"]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own; nothing of it runs afterwards."""
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    quiet = ("--disable-background-networking", "--disable-component-update", "--no-default-browser-check")
    command = ["chromium", *options, *quiet, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        with connect(_page_address(process, profile), max_size=None, open_timeout=PATIENCE_S) as socket:
            browser = Browser(socket)
            for domain in ("Page", "Runtime", "Network", "Log"):
                browser.call(f"{domain}.enable")
            yield browser
    finally:
        # Its own session: the browser's many processes and nobody else.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)


def _page_address(process: subprocess.Popen[bytes], profile: Path) -> str:
    port_file = profile / "DevToolsActivePort"
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert process.poll() is None, f"chromium ended with {process.returncode}"
        try:
            port = int(port_file.read_text().splitlines()[0])
            pages = httpx.get(f"http://127.0.0.1:{port}/json", timeout=10.0, trust_env=False).json()
            return str(next(one for one in pages if one["type"] == "page")["webSocketDebuggerUrl"])
        except (OSError, IndexError, ValueError, StopIteration, httpx.HTTPError):
            time.sleep(0.1)
    raise AssertionError("chromium did not open its DevTools port")
