"""The dry-run node against a real server on loopback."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.clock import Clock, SystemClock
from core.topic import Target, Topic
from node.dry_run_heights import block_height, epoch_blocks, epoch_start
from tests.fakes.clock import START_MS, FakeClock, eventually
from tests.fakes.net import free_port
from worker.dry_run import BODY_LIMIT, DryRunNode, ask

ROOT = Path(__file__).parents[2]


@dataclass
class Endpoint:
    """An inference server that answers as told, in order; the last answer stays."""

    answers: list[tuple[int, bytes]] = field(default_factory=lambda: [(200, b"2650.25")])
    headers: dict[str, str] = field(default_factory=dict)  # of every answer, beside X-Model-Version
    hang_on: str = "nothing hangs"  # paths with this in them get no answer while the test runs
    asked: list[str] = field(default_factory=list)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            if state.hang_on in self.path:
                state.over.wait(60)
                return
            status, body = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            self.send_response(status)
            self.send_header("X-Model-Version", "v7")
            for name, text in state.headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield state
    state.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def topic(topic_id: int = 1, token: str = "ETH", *, epoch: int | None = 120) -> Topic:
    return Topic(
        topic_id=topic_id,
        token=token,
        symbol=f"{token}USDT",
        target=Target.PRICE,
        horizon_min=10,
        epoch_length_blocks=epoch,
        endpoint="http://inference:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}",
        parameters=(("Token", token),),
    )


def node(endpoint: Endpoint, clock: Clock, *topics: Topic, timeout_s: float = 5.0) -> DryRunNode:
    return DryRunNode(topics, clock, threading.Event(), base_url=endpoint.url, timeout_s=timeout_s)


class StoppingClock(FakeClock):
    """Stops the node after so many sleeps."""

    def __init__(self, stopped: threading.Event, sleeps: int, now_ms: int = START_MS) -> None:
        super().__init__(now_ms)
        self.stopped, self.left = stopped, sleeps

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.left -= 1
        if self.left <= 0:
            self.stopped.set()


def follow(endpoint: Endpoint, asked: Topic, *, now_ms: int, sleeps: int) -> StoppingClock:
    """Run a node for one topic; its first sleep is the spread over the first second, here 0."""
    stopped = threading.Event()
    clock = StoppingClock(stopped, sleeps, now_ms)
    DryRunNode([asked], clock, stopped, base_url=endpoint.url, timeout_s=5.0).follow(asked)
    return clock


def heights(endpoint: Endpoint) -> list[int]:
    return [int(path.rpartition("=")[2]) for path in endpoint.asked]


def test_an_answer_is_logged_as_it_would_be_submitted(endpoint: Endpoint) -> None:
    endpoint.headers = {"X-Anchor-Age-Ms": "320", "X-Forecast-Age-Ms": "12400", "X-Forecast": "naive"}
    with capture_logs() as lines:
        value = node(endpoint, FakeClock()).answer(topic(), 340_000_080, opened_ms=START_MS - 700, closes_ms=START_MS)
    assert value == Decimal("2650.25")
    (line,) = lines
    took_ms = line.pop("took_ms")
    assert took_ms >= 0
    assert line == {
        "event": "would submit",
        "log_level": "info",
        "topic_id": 1,
        "network": None,
        "token": "ETH",
        "target": "price",
        "height": 340_000_080,
        "url": f"{endpoint.url}/inference/ETH?topic=1&height=340000080",
        "status": 200,
        "body": "2650.25",
        "value": "2650.25",
        "model_version": "v7",
        "forecast": "naive",
        "anchor_age_ms": 320,
        "forecast_age_ms": 12_400,
        "window_ms": 700,
    }


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        pytest.param(200, b"2650.25\n", "newline", id="newline"),
        pytest.param(200, b"", "empty", id="empty body"),
        pytest.param(200, b"NaN", "NaN", id="NaN"),
        pytest.param(200, b"1" * (BODY_LIMIT + 1), "longer than", id="endless body"),
        pytest.param(503, b"market is 200 s old", "status 503", id="503"),
        pytest.param(204, b"", "status 204", id="204"),
    ],
)
def test_what_cannot_be_submitted_says_why(endpoint: Endpoint, status: int, body: bytes, reason: str) -> None:
    endpoint.answers = [(status, body)]
    with capture_logs() as lines:
        assert node(endpoint, FakeClock()).answer(topic(), 120, opened_ms=START_MS, closes_ms=START_MS) is None
    (line,) = lines
    assert line["event"] == "nothing to submit"
    assert reason in line["reason"]
    assert line["value"] is None


def test_no_server_is_a_reason_too() -> None:
    reply = ask(f"http://127.0.0.1:{free_port()}/inference/ETH", 1.0)
    assert reply.status is None
    assert "ConnectionError" in reply.failure


@pytest.mark.parametrize("url", ["http://", "nonsense", "http://[::1", "http://a" + "b" * 300 + ".invalid/"])
def test_an_impossible_url_is_a_reason_too(url: str) -> None:
    assert ask(url, 1.0).failure


def test_a_failure_is_asked_again_inside_the_window(endpoint: Endpoint) -> None:
    endpoint.answers = [(503, b"warming up"), (503, b"warming up"), (200, b"1.5")]
    clock = FakeClock()
    value = node(endpoint, clock).answer(topic(), 120, opened_ms=START_MS, closes_ms=START_MS + 60_000)
    assert value == Decimal("1.5")
    assert clock.slept_s == [5.0, 5.0]
    assert heights(endpoint) == [120, 120, 120]


def test_the_window_s_time_goes_on_while_a_value_is_waited_for(endpoint: Endpoint) -> None:
    endpoint.answers = [(503, b"warming up"), (200, b"1.5")]
    with capture_logs() as lines:
        follow(endpoint, topic(), now_ms=START_MS + 301_000, sleeps=3)
        node(endpoint, FakeClock()).answer(topic(), 120, opened_ms=START_MS - 700, closes_ms=START_MS + 60_000)
    assert [line["window_ms"] for line in lines] == [0, 5_000, 700]


@pytest.mark.parametrize("text", ["", "-1", "soon", "1.5", "9" * 5000, "\u00b2"])
def test_an_age_that_is_no_number_is_none(endpoint: Endpoint, text: str) -> None:
    endpoint.headers = {"X-Anchor-Age-Ms": text}
    reply = ask(f"{endpoint.url}/inference/ETH", 5.0)
    assert (reply.status, reply.anchor_age_ms, reply.forecast_age_ms) == (200, None, None)


def test_a_window_closes(endpoint: Endpoint) -> None:
    endpoint.answers = [(503, b"down")]
    clock = FakeClock()
    assert node(endpoint, clock).answer(topic(), 120, opened_ms=START_MS, closes_ms=START_MS + 20_000) is None
    assert clock.now_ms() < START_MS + 20_000
    assert len(endpoint.asked) == 4


def test_each_epoch_is_asked_once(endpoint: Endpoint) -> None:
    """At once, in the middle of an epoch of 600 s, then at the start of each."""
    follow(endpoint, topic(), now_ms=START_MS + 301_000, sleeps=1 + 5 + 10 + 10)
    first = block_height(START_MS)
    assert first % 120 == 0
    assert heights(endpoint) == [first, first + 120, first + 240]


def test_a_question_comes_at_the_start_of_its_epoch(endpoint: Endpoint) -> None:
    clock = follow(endpoint, topic(), now_ms=START_MS + 301_000, sleeps=1 + 5)
    assert clock.now_ms() == START_MS + 600_000


def test_an_epoch_of_a_day_is_asked_at_once_and_for_a_whole_window(endpoint: Endpoint) -> None:
    endpoint.answers = [(503, b"training")] * 3 + [(200, b"1")]
    follow(endpoint, topic(2, epoch=17_280), now_ms=START_MS + 7 * 3_600_000, sleeps=10)
    assert heights(endpoint) == [epoch_start(topic(2, epoch=17_280), block_height(START_MS + 7 * 3_600_000))] * 4


def test_a_restart_within_an_epoch_asks_the_same_height(endpoint: Endpoint) -> None:
    for later_s in (1, 200, 590):
        follow(endpoint, topic(), now_ms=START_MS + later_s * 1000, sleeps=2)
    assert heights(endpoint) == [block_height(START_MS)] * 3


def test_an_unknown_topics_epoch_is_its_horizon() -> None:
    assert epoch_blocks(topic(9999, epoch=None)) == 120


def test_a_topic_that_hangs_holds_up_no_other(endpoint: Endpoint) -> None:
    endpoint.hang_on = "topic=1&"
    stopped = threading.Event()
    clock = _Waking(stopped)
    topics = [topic(1), topic(3, "BTC"), topic(37, "SOL", epoch=35)]
    with capture_logs() as lines:
        threads = DryRunNode(topics, clock, stopped, base_url=endpoint.url, timeout_s=0.5).start()
        eventually(lambda: {line["topic_id"] for line in lines} == {1, 3, 37}, what="a line for each topic")
        stopped.set()
        for thread in threads:
            thread.join(10)
    by_topic = {line["topic_id"]: line for line in lines}
    assert by_topic[3]["event"] == by_topic[37]["event"] == "would submit"
    assert by_topic[1]["event"] == "nothing to submit"
    assert "Timeout" in by_topic[1]["reason"]


class _Waking(SystemClock):
    def __init__(self, stopped: threading.Event) -> None:
        self.stopped = stopped

    def sleep(self, seconds: float) -> None:
        self.stopped.wait(seconds)


@contextmanager
def process(config: Path | str, *arguments: str, market: str = "binance") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "worker", *arguments]
    environment = os.environ | {"CONFIG_FILE": str(config), "MARKET": market, "LOG_LEVEL": "info"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()


def read_lines(running: subprocess.Popen[str], wanted: Sequence[str]) -> list[dict[str, object]]:
    """Lines up to the one that completes ``wanted`` events."""
    assert running.stdout is not None
    missing, lines = list(wanted), []
    for text in running.stdout:
        line = json.loads(text)
        lines.append(line)
        if line["event"] in missing:
            missing.remove(line["event"])
        if not missing:
            break
    return lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_answers_the_example_and_ends_on_a_signal(endpoint: Endpoint, number: signal.Signals) -> None:
    endpoint.hang_on = "topic=64&"  # one question is out while the signal comes
    with process(ROOT / "config.example.json", "--base-url", endpoint.url, market="simulated") as running:
        lines = read_lines(running, ["would submit"] * 5)
        eventually(lambda: any("topic=64&" in path for path in endpoint.asked))
        running.send_signal(number)
        assert running.wait(5) == 0
        assert running.stderr is not None
        assert running.stderr.read() == ""
    assert {line["market"] for line in lines} == {"SIMULATED"}
    assert {line["service"] for line in lines} == {"node"}
    assert {line["topic_id"] for line in lines if line["event"] == "would submit"} == {1, 14, 2, 82, 79}


def test_the_process_asks_for_the_topics_of_every_file(endpoint: Endpoint, tmp_path: Path) -> None:
    paths = [tmp_path / f"{network}.json" for network in ("allora-testnet-1", "allora-mainnet-1")]
    for path, token in zip(paths, ("ETH", "BTC"), strict=True):
        url = f"http://inference:8000/inference/{{Token}}?topic={{TopicId}}&network={path.stem}"
        parameters = {"Token": token, "InferenceEndpoint": url}
        asked = {"topicId": 1, "inferenceEntrypointName": "apiAdapter", "parameters": parameters}
        path.write_text(json.dumps({"wallet": {"chainId": path.stem}, "worker": [asked]}))
    with process(",".join(map(str, paths)), "--base-url", endpoint.url) as running:
        lines = read_lines(running, ["would submit"] * 2)
    assert {(line["network"], line["topic_id"], line["token"]) for line in lines if "value" in line} == {
        ("allora-testnet-1", 1, "ETH"),
        ("allora-mainnet-1", 1, "BTC"),
    }


@pytest.mark.parametrize(
    ("config", "arguments", "error"),
    [
        pytest.param("absent.json", [], "absent.json: no such file", id="no config"),
        pytest.param("config.example.json", ["--base-url", "127.0.0.1:8000"], "--base-url was", id="base URL"),
        pytest.param("config.example.json", ["--base-url", "http://h/x"], "--base-url was", id="base URL with a path"),
    ],
)
def test_a_wrong_configuration_ends_with_2_and_one_line(config: str, arguments: list[str], error: str) -> None:
    with process(ROOT / config, *arguments) as running:
        out, err = running.communicate(timeout=20)
    assert running.returncode == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert error in err
