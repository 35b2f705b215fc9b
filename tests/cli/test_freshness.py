"""``birnn run`` tells how old the prices are: on a line of the terminal, or in the log where there is none."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli.freshness import freshness
from tests.cli.test_ready import topic_entry, write
from tests.fakes.clock import eventually
from tests.terminal import on_terminal

STATE: dict[str, Any] = {
    "symbol": "ETHUSDT",
    "anchor_age_ms": 412,
    "forecast_age_ms": 12_345,
    "ready": True,
    "market": "SIMULATED",
    "stream": "",
}
SIX = [{**STATE, "symbol": f"{token}USDT"} for token in ("ETH", "BTC", "ETH", "BTC", "SOL", "BTC")]
WATCHING = """
import os, subprocess, sys, time
from pathlib import Path
from cli.freshness import Watch, status_line
from core.logs import configure_logging
form = sys.argv[2] if len(sys.argv) > 2 else "auto"
with status_line(form) as show:
    configure_logging("info", service="birnn", simulated=True, form="json" if show else form)
    with Watch(sys.argv[1], show, Path(os.environ.get("DATA_DIR", "nowhere"))):
        subprocess.run([sys.executable, "-c", "print('a line of a child')"], check=True)
        child = "import structlog; from core.logs import configure_logging as begin; "
        child += "begin('info', service='child', simulated=True); structlog.get_logger().info('told', by='it')"
        subprocess.run([sys.executable, "-c", child], check=True)
        print("a line of our own", flush=True)
        sys.stdin.readline()
print("over", flush=True)
"""


@contextmanager
def endpoint(status: int = 200, topics: Sequence[dict[str, Any]] = (STATE,)) -> Iterator[str]:
    """Answers ``/topics`` with these topics' states."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(topics).encode()
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


def watched(url: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", WATCHING, url, *arguments]


@pytest.mark.parametrize(("status", "shown"), [(200, "price age: ETHUSDT 0.4 s"), (503, "no answer yet (HTTPError)")])
def test_on_a_terminal_it_stays_below_the_log(status: int, shown: str) -> None:
    with endpoint(status) as url, on_terminal(watched(url), 0, {"COLUMNS": "200"}) as (terminal, process):
        eventually(lambda: shown in terminal.written, what="the line")
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0
    for text in ("a line of a child", "a line of our own", "over"):
        assert text in terminal.lines, "what is written is a line of its own"


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_the_line_fits_the_terminal_with_six_topics_ready_and_all(columns: int) -> None:
    with endpoint(topics=SIX) as url, on_terminal(watched(url), columns, {"COLUMNS": "33"}) as (terminal, process):
        eventually(lambda: "topics ready" in terminal.lines[-1], what="the line")
        line = terminal.lines[-1]
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0
    assert line.endswith("6 of 6 topics ready")
    assert line.startswith("SIMULATED | price age: ETH")
    assert ("stream up" in line) == (columns > 80)
    assert ("forecasts 12 s old" in line) == (columns > 120)
    assert len(line) < columns


def test_the_line_follows_the_terminals_width() -> None:
    with endpoint(topics=SIX) as url, on_terminal(watched(url), 200) as (terminal, process):
        eventually(lambda: "forecasts" in terminal.lines[-1], what="the long line")
        long = len(terminal.lines[-1])
        terminal.resize(60)
        eventually(lambda: 0 < len(terminal.lines[-1]) < 60, what="the short line")
        assert f"\x1b[{(long - 1) // 60}A" in terminal.written, (
            "the rows that the narrow terminal made of it are erased"
        )
        terminal.resize(120)
        eventually(lambda: "stream up" in terminal.lines[-1], what="the longer line")
        process.kill()


@pytest.mark.parametrize(
    ("form", "shown"), [("auto", "SIMULATED info child     told by=it"), ("json", '"service":"child"')]
)
def test_the_log_of_a_child_is_readable_unless_json_is_wanted(form: str, shown: str) -> None:
    with endpoint() as url, on_terminal(watched(url, form), 120, {"NO_COLOR": "1"}) as (terminal, process):
        eventually(lambda: any(shown in line for line in terminal.lines), what="the child's line")
        process.kill()


@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("fault", ["", "connection refused by wss://stream.example:9443 after 3 attempts"])
def test_the_line_is_never_longer_than_it_may_be(count: int, fault: str) -> None:
    topics = [{**STATE, "symbol": f"TOKEN{number}USDT", "stream": fault} for number in range(count)]
    for width in range(1, 250):
        line = freshness(topics, width)
        assert len(line) <= width
        assert width < 80 or f"{count} of {count} topics ready" in line


def test_without_a_terminal_it_is_a_line_of_the_log() -> None:
    with endpoint() as url:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHING, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin
        assert process.stdout
        try:
            logged = (json.loads(line) for line in process.stdout if line.startswith("{"))
            said = next(line for line in logged if line["service"] == "birnn")
        finally:
            process.communicate(timeout=10)
    assert (said["event"], said["market"]) == ("freshness", "SIMULATED")
    assert "price age: ETHUSDT 0.4 s" in said["said"]


def test_admission_is_one_row_of_the_log_for_each_topic(tmp_path: Path) -> None:
    write(tmp_path, [topic_entry(79, 3), topic_entry(82, 1)])
    with endpoint() as url, on_terminal(watched(url), 80, {"DATA_DIR": str(tmp_path)}) as (terminal, process):
        eventually(lambda: "topic 79: admitted after 3 days (median)" in "\n".join(terminal.lines), what="a row")
        eventually(lambda: "topic 82: admitted after 1 day (median)" in "\n".join(terminal.lines), what="the other")
        process.kill()
    assert max(map(len, terminal.lines)) <= 80


@pytest.mark.parametrize("columns", [80, 120])
def test_a_line_of_log_is_broken_between_words(columns: int) -> None:
    topics = [f"allora-testnet-1/{number}" for number in range(101, 107)]
    code = WATCHING.replace("by='it'", f"topics={topics}")
    assert code != WATCHING
    with endpoint() as url, on_terminal([sys.executable, "-c", code, url, "auto"], columns) as (terminal, process):
        eventually(lambda: topics[-1] in terminal.written, what="the child's line")
        process.kill()
    assert max(map(len, terminal.lines)) <= columns
    words = " ".join(terminal.lines).split()
    assert {f"{topic}," for topic in topics[1:-1]} <= set(words)
