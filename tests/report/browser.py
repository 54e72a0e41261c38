"""Headless Chromium over its debugging pipe (DevTools protocol, messages that end in NUL): standard library only."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

EXECUTABLE = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
MISSING = "no Chromium: apt-get install chromium, or put chromium or google-chrome on the PATH"
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
)


def untested(reasons: Iterable[str]) -> str | None:
    """What to say at the end of the tests, some of which were skipped for these reasons."""
    count = sum(MISSING in reason for reason in reasons)
    return f"{count} tests of the report's page in a browser did not run, {MISSING}" if count else None


class Page:
    """One open tab, with everything that the console or the network complained about in `complaints`."""

    def __init__(self, write: int, read: int):
        self._write, self._read, self._buffer, self._serial = write, read, b"", 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self._events: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        self._serial += 1
        message = {"id": self._serial, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._serial:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, url: str, width: int, height: int = 844) -> None:
        """Load `url` in a window `width` CSS pixels wide and wait until everything has loaded."""
        self._events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._events:
            self._receive()
        self.evaluate("document.fonts.ready.then(() => 1)")

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        """Press and release a key, such as "Tab", "Enter" (text "\\r") or a letter (its own text)."""
        codes = {"Tab": 9, "Enter": 13}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=codes.get(key, 0))

    def screenshot(self, path: Path) -> None:
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self, path: Path) -> None:
        answer = self.call("Page.printToPDF", preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _receive(self, patience: float = 60.0) -> dict[str, Any]:
        deadline = time.monotonic() + patience
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._read, 1 << 20) if ready else b""
            if not chunk:
                raise RuntimeError("Chromium closed its pipe" if ready else f"Chromium was silent for {patience} s")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        self._events.append(method)
        loud = method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert")
        logged = method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning")
        if loud or logged or method in ("Runtime.exceptionThrown", "Network.loadingFailed"):
            self.complaints.append(f"{method}: {json.dumps(parameters)}")


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """A fresh browser with a profile of its own; it and its profile are gone afterwards."""
    child_read, write = os.pipe()
    read, child_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = f'exec "$0" {_FLAGS} --user-data-dir="$1" about:blank 3<&{child_read} 4>&{child_write}'
        process = subprocess.Popen(
            ["bash", "-c", command, str(EXECUTABLE), profile],
            pass_fds=(child_read, child_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_read)
        os.close(child_write)
        try:
            page = Page(write, read)
            yield page
            page._session = None
            with contextlib.suppress(RuntimeError, OSError):
                page.call("Browser.close")
        finally:
            os.close(write)
            os.close(read)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
