"""A headless Chromium driven over its DevTools protocol, through the pipes of `--remote-debugging-pipe`."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
MISSING = "Chromium is not on PATH: as root, apt-get update && apt-get install -y --no-install-recommends chromium"


class Chromium:
    """One browser process; `page` opens one page in it."""

    def __init__(self, folder: Path, timeout: float = 60.0) -> None:
        program = shutil.which("chromium")
        assert program is not None, MISSING
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        # The browser reads commands from descriptor 3 and writes answers to 4.
        script = f'exec "$0" "$@" 3<&{read_there} 4>&{write_there}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *FLAGS, f"--user-data-dir={folder}"],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._read, self._write, self._timeout = read_here, write_here, timeout
        self._buffer, self._count = b"", 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._write)  # it ends when its commands end
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)

    @contextmanager
    def page(self, path: Path, width: int, height: int = 900, scheme: str = "light") -> Iterator[Page]:
        """Open a file in a window of this size, wait until it has loaded, and close it afterwards."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        page.call("Emulation.setDeviceMetricsOverride", size)
        page.call("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        self.events.clear()
        page.call("Page.navigate", {"url": path.as_uri()})
        self._until(lambda message: message.get("method") == "Page.loadEventFired")
        yield page
        self.call("Target.closeTarget", {"targetId": target})

    def call(self, method: str, parameters: Mapping[str, object] | None = None, session: str = "") -> dict[str, Any]:
        """Send a command and return its result."""
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": dict(parameters or {})}
        text = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        while text:
            text = text[os.write(self._write, text) :]
        answer = self._until(lambda found: found.get("id") == number)
        assert "error" not in answer, answer
        result = answer["result"]
        assert isinstance(result, dict)
        return result

    def _until(self, wanted: Any) -> dict[str, Any]:
        end = time.monotonic() + self._timeout
        while True:
            message = self._next(end)
            if "method" in message:
                self.events.append(message)
            if wanted(message):
                return message

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(end - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            chunk = os.read(self._read, 1 << 20)
            assert chunk, f"Chromium has ended with status {self._process.poll()}"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        assert isinstance(message, dict)
        return message


class Page:
    """One open page."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, parameters: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Send a command to this page."""
        return self.browser.call(method, parameters, self.session)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, as JSON holds it; a promise is awaited."""
        wanted = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", wanted)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, selector: str, index: int = 0) -> None:
        """Scroll to an element and press the mouse on its middle."""
        element = f"document.querySelectorAll({json.dumps(selector)})[{index}]"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}})")
        box = self.evaluate(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({element}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, "x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", event)

    def complaints(self) -> list[str]:
        """What the page wrote to the console or log, and what it threw."""
        methods = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self._events() if event["method"] in methods]

    def requests(self) -> list[str]:
        """Every address that the page asked for."""
        sent = (event for event in self._events() if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write what the window shows (or the whole page) as PNG."""
        data = self.call("Page.captureScreenshot", {"captureBeyondViewport": whole, **self._clip(whole)})["data"]
        path.write_bytes(base64.b64decode(data))

    def _clip(self, whole: bool) -> dict[str, object]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _events(self) -> list[dict[str, Any]]:
        self.evaluate("0")  # what was sent before its answer has arrived
        return [event for event in self.browser.events if event.get("sessionId") == self.session]
