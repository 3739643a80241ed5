"""A real browser for tests: headless Chromium over the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path


class Browser:
    """Headless Chromium over the DevTools protocol's pipe (JSON messages that end with a zero byte).

    ``problems`` gathers what a page must not do: errors and warnings of its scripts, requests to anywhere.
    """

    def __init__(self, binary: str, profile: Path, width: int, height: int) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        flags += [f"--user-data-dir={profile}", f"--window-size={width},{height}", "--disable-dev-shm-usage"]
        flags += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}', binary, *flags, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._count, self._session = b"", 0, None
        self.problems: list[str] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(info["targetId"] for info in targets if info["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def _receive(self) -> dict:
        while b"\0" not in self._buffer:
            block = os.read(self._in, 1 << 20)
            if not block:
                raise RuntimeError("the browser has gone")
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        event = json.loads(message)
        kind, inside = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(inside["exceptionDetails"])[:500])
        elif kind == "Runtime.consoleAPICalled" and inside["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(inside["args"])[:500])
        elif kind == "Log.entryAdded" and inside["entry"]["level"] in ("error", "warning"):
            self.problems.append(inside["entry"]["text"])
        elif kind == "Network.requestWillBeSent" and not inside["request"]["url"].startswith(("file:", "data:")):
            self.problems.append(f"request to {inside['request']['url']}")
        return event

    def send(self, method: str, **parameters) -> dict:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._receive()
            if reply.get("id") == self._count:
                assert "error" not in reply, reply
                return reply["result"]

    def open(self, page: Path) -> None:
        self.send("Page.navigate", url=page.as_uri())
        while self._receive().get("method") != "Page.loadEventFired":
            pass

    def run(self, expression: str):
        """The value of a JavaScript expression; promises are waited for."""
        reply = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a JavaScript condition holds (the test's own time limit ends it otherwise)."""
        for _ in range(250):
            if self.run(f"new Promise(done => setTimeout(() => done({condition}), 20))"):
                return
        raise AssertionError(f"never true: {condition}")

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def close(self) -> None:
        os.close(self._out)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._in)
