"""A real Chromium without a window, driven over its own debugging protocol."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.fakes.clock import eventually

NAMES = ("chromium", "chromium-browser", "google-chrome")
ANSWERS_WITHIN_S = 60


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A page after it has loaded."""

    requests: list[str] = field(default_factory=list)  # URLs
    complaints: list[str] = field(default_factory=list)  # of the console, of scripts and of the network
    bytes: int = 0  # over the wire, of all requests
    scripts: int = 0
    wider_by: int = 0  # CSS pixels that the page is wider than the window
    title: str = ""
    text: str = ""


class Browser:
    """A running Chromium with one tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._events: list[dict[str, Any]] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; events that come before the answer are kept."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(ANSWERS_WITHIN_S))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message}"
                result: dict[str, Any] = message["result"]
                return result
            self._events.append(message)

    def load(
        self,
        url: str,
        *,
        width: int,
        dark: bool,
        picture: Path | None = None,
        height: int | None = None,
        scale: float = 1,
    ) -> Loaded:
        """Load a page at a width of the window, by day or by night, and wait until nothing is requested any more.

        Args:
            picture: where a picture of the page is written.
            height: of the page in the picture, in CSS pixels from the top; None is all of the page.
            scale: pixels of the picture to a CSS pixel, where a height is given.
        """
        self._emulate(width, dark)
        self._events.clear()
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        loader = self.call("Page.navigate", url=url)["loaderId"]
        while not any(_is_idle(event, loader) for event in self._events):
            self._events.append(json.loads(self._socket.recv(ANSWERS_WITHIN_S)))
        area = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}} if height else {}
        return self._seen(picture, area)

    def change(self, *, width: int, dark: bool, picture: Path) -> Loaded:
        """Show the loaded page at another width or by another light; what was requested since it began to load counts.

        Args:
            picture: where a picture of the page is written.
        """
        self._emulate(width, dark)
        return self._seen(picture, {})

    def _emulate(self, width: int, dark: bool) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def _seen(self, picture: Path | None, area: dict[str, Any]) -> Loaded:
        seen = self._value(
            "({scripts: document.scripts.length, title: document.title, text: document.body.innerText,"
            " wider_by: document.documentElement.scrollWidth - document.documentElement.clientWidth})"
        )
        if picture:
            shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png", **area)
            picture.write_bytes(base64.b64decode(shot["data"]))
        by_method = [(event.get("method"), event.get("params", {})) for event in self._events]
        return Loaded(
            requests=[
                params["request"]["url"] for method, params in by_method if method == "Network.requestWillBeSent"
            ],
            complaints=[
                json.dumps(params)
                for method, params in by_method
                if method
                in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed"}
            ],
            bytes=sum(
                int(params["encodedDataLength"]) for method, params in by_method if method == "Network.loadingFinished"
            ),
            **seen,
        )

    def _value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]


def _is_idle(event: dict[str, Any], loader: str) -> bool:
    params = event.get("params", {})
    return (
        event.get("method") == "Page.lifecycleEvent"
        and params["name"] == "networkIdle"
        and params["loaderId"] == loader
    )


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; where there is none the test is skipped, and fails in CI, where it must be there."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "needs Chromium: apt-get install chromium; in CI it must be there"
        )
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        port_file = Path(folder) / "DevToolsActivePort"
        process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",  # root may not have one; the pages are ours
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: port_file.exists() and "\n" in port_file.read_text(), 60, "Chromium's start")
            port, path = port_file.read_text().split()
            with connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as socket:
                socket.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
                target = json.loads(socket.recv(ANSWERS_WITHIN_S))["result"]["targetId"]
            with connect(f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None) as socket:
                yield Browser(socket)
        finally:
            process.terminate()
            process.wait(30)
