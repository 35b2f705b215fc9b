"""``birnn run`` tells how old the prices are: on a line of the terminal, or in the log where there is none."""

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cli.freshness import freshness
from tests.fakes import eventually

STATE: dict[str, Any] = {
    "symbol": "ETHUSDT",
    "anchor_age_ms": 412,
    "forecast_age_ms": 12_345,
    "ready": True,
    "market": "SIMULATED",
    "stream": "",
}
WATCHING = """
import subprocess, sys, time
from cli.freshness import Watch, status_line
from core.logs import configure_logging
with status_line() as show:
    configure_logging("info", service="birnn", simulated=True)
    with Watch(sys.argv[1], show):
        subprocess.run([sys.executable, "-c", "print('a line of a child')"], check=True)
        print("a line of our own", flush=True)
        sys.stdin.readline()
print("over", flush=True)
"""


@contextmanager
def endpoint(status: int = 200) -> Iterator[str]:
    """Answers ``/topics`` with one topic's state."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps([STATE]).encode()
            self.send_response(status if self.path == "/topics" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        pytest.param([], "no topics", id="none"),
        pytest.param(
            [{**STATE, "anchor_age_ms": None, "forecast_age_ms": None, "ready": False, "stream": "HTTP 451"}],
            "SIMULATED | price age: ETHUSDT none yet | no forecasts yet | polling (HTTP 451) | 0 of 1 topics ready",
            id="at the start",
        ),
        pytest.param(
            [STATE, STATE, {**STATE, "symbol": "BTCUSDT", "anchor_age_ms": 60, "forecast_age_ms": 3_000}],
            "SIMULATED | price age: ETHUSDT 0.4 s  BTCUSDT 0.1 s | forecasts 3 s old | stream up | 3 of 3 topics ready",
            id="two symbols",
        ),
    ],
)
def test_the_line_says_what_is_fresh(topics: list[dict[str, Any]], said: str) -> None:
    assert freshness(topics) == said


@pytest.mark.parametrize(("status", "shown"), [(200, b"price age: ETHUSDT 0.4 s"), (503, b"no answer yet (HTTPError)")])
def test_on_a_terminal_it_stays_below_the_log(status: int, shown: bytes) -> None:
    ours, theirs = pty.openpty()
    with endpoint(status) as url:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHING, url],
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "COLUMNS": "200"},
        )
        os.close(theirs)
        screen = bytearray()

        def read() -> None:
            try:
                while part := os.read(ours, 4096):
                    screen.extend(part)
            except OSError:
                pass  # the other end is closed

        reader = threading.Thread(target=read)
        reader.start()
        try:
            eventually(lambda: shown in bytes(screen), what="the line")
            assert process.stdin
            process.stdin.close()
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
            reader.join(10)
            os.close(ours)
    lines = [line.rpartition(b"\x1b[K")[2].strip() for line in bytes(screen).split(b"\n")]
    for text in (b"a line of a child", b"a line of our own", b"over"):
        assert text in lines, "what is written is a line of its own"


def test_without_a_terminal_it_is_a_line_of_the_log() -> None:
    with endpoint() as url:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHING, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin
        assert process.stdout
        try:
            said = next(json.loads(line) for line in process.stdout if line.startswith("{"))
        finally:
            process.communicate(timeout=10)
    assert (said["event"], said["market"]) == ("freshness", "SIMULATED")
    assert "price age: ETHUSDT 0.4 s" in said["said"]
