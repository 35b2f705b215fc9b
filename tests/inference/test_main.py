"""``python -m inference`` and its probe, as processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import structlog
from structlog.testing import capture_logs

from core.clock import SystemClock
from core.settings import load_settings
from exchange.server import SimulatedExchange
from inference.__main__ import _chains_from, _log_unheld, main
from inference.probe import main as probe
from model.registry.versions import Registry
from node.config_file import read_config
from tests.fakes.clock import eventually
from tests.fakes.net import free_port
from tests.inference.stand import ETH_10M, publish

CONFIG = {
    "wallet": {"chainId": "allora-testnet-1"},
    "worker": [
        {
            "topicId": 1,
            "inferenceEntrypointName": "apiAdapter",
            "parameters": {
                "InferenceEndpoint": "http://127.0.0.1:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}",
                "Token": "ETH",
            },
        }
    ],
}


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange() as exchange:
        yield exchange


def environment(folder: Path, exchange_url: str, **changes: str) -> dict[str, str]:
    config = folder / "config.json"
    if not config.exists():
        config.write_text(json.dumps(CONFIG))
    return {
        **os.environ,
        "CONFIG_FILE": str(config),
        "DATA_DIR": str(folder / "data"),
        "MARKET": "simulated",
        "BINANCE_REST_URLS": exchange_url,
        "BINANCE_ARCHIVE_URL": exchange_url,
        "PORT": str(free_port()),
        **changes,
    }


class Process:
    """A running ``python -m inference``."""

    def __init__(self, given: Mapping[str, str], log: Path) -> None:
        self.url = f"http://127.0.0.1:{given['PORT']}"
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "inference"], env=dict(given), stdout=output, stderr=subprocess.STDOUT
            )

    def answers(self, path: str, status: int = 200) -> bool:
        try:
            return requests.get(self.url + path, timeout=5).status_code == status
        except requests.ConnectionError:
            return False

    def end(self, number: signal.Signals) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(timeout=15)


@contextmanager
def running(given: Mapping[str, str], log: Path) -> Iterator[Process]:
    process = Process(given, log)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_answers_and_ends_cleanly(
    tmp_path: Path, exchange: SimulatedExchange, ending: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    given, log = environment(tmp_path, exchange.url, MONITOR_PORT="8099"), tmp_path / "log"
    registry = Registry(tmp_path / "data")
    version = publish(registry, 0.5, SystemClock().now_ms())
    registry.promote([ETH_10M], version, 1)
    with running(given, log) as process:
        assert probe(["healthz", "--wait", "60", "--url", process.url]) == 0
        assert probe(["readyz", "--wait", "60", "--url", process.url]) == 0
        assert capsys.readouterr().out == "healthz: ok\nreadyz: ready\n"
        answer = requests.get(f"{process.url}/inference/ETH?topic=1&height=5", timeout=5)
        assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, version)
        root = requests.get(process.url, timeout=5).text
        assert root.startswith("the status page is at http://127.0.0.1:8099/; here there are GET /inference/TOKEN")
        assert process.end(ending) == 0
    assert probe(["healthz", "--url", process.url]) == 1
    assert "no answer from" in capsys.readouterr().err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert (events[0], events[-1]) == ("listening", "ended")
    assert {"champion_in_use", "answer"} < set(events)
    assert {line["market"] for line in lines} == {"SIMULATED"}


def test_a_kill_at_once_leaves_what_the_next_start_answers_from(tmp_path: Path, exchange: SimulatedExchange) -> None:
    given, question = environment(tmp_path, exchange.url), "/inference/ETH?topic=1&height="
    with running(given, tmp_path / "log") as process:
        eventually(lambda: process.answers("/readyz"), 60, "/readyz")
        values = [requests.get(f"{process.url}{question}{height}", timeout=5).text for height in range(30)]
        process.popen.kill()
        process.popen.wait()
    with running(given, tmp_path / "log") as process:
        eventually(lambda: process.answers("/healthz"), 60, "/healthz")
        assert [requests.get(f"{process.url}{question}{h}", timeout=5).text for h in range(30)] == values


@pytest.mark.parametrize("silent", [False, True], ids=["refuses connections", "takes them and says nothing"])
def test_without_a_venue_it_is_alive_says_what_is_missing_and_ends_in_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], silent: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as venue:
        url = f"http://127.0.0.1:{venue.getsockname()[1] if silent else free_port()}"
        with running(environment(tmp_path, url, ANSWER_PATIENCE_S="0"), tmp_path / "log") as process:
            eventually(lambda: process.answers("/healthz"), 60, "/healthz")
            assert probe(["readyz", "--wait", "0.1", "--url", process.url]) == 1
            assert "topic allora-testnet-1/1" in capsys.readouterr().err
            assert process.answers("/inference/ETH?topic=1", 503)
            assert process.end(signal.SIGTERM) == 0


@pytest.fixture
def own_signals() -> Iterator[None]:
    """``main`` sets handlers and configures the log; put back what was there."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    structlog.reset_defaults()


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"MARKET": "auto"}, "MARKET=auto", id="auto"),
        pytest.param({"MARKET": "kraken"}, "MARKET", id="unknown market"),
        pytest.param({"BINANCE_REST_URLS": "https://a.example"}, "BINANCE_REST_URLS", id="another machine, simulated"),
        pytest.param({"CONFIG_FILE": "/no/such/config.json"}, "/no/such/config.json", id="no config"),
        pytest.param({"DATABASE_URL": "mysql://127.0.0.1/a"}, "DATABASE_URL", id="database"),
        pytest.param({"DATA_DIR": "/proc/nothing"}, "DATA_DIR", id="data folder that cannot be made"),
        pytest.param({"HOST": "203.0.113.7"}, "HOST=203.0.113.7", id="an address that is not ours"),
    ],
)
def test_what_is_configured_wrongly_stops_the_start_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    says: str,
) -> None:
    for name, value in environment(tmp_path, "http://127.0.0.1:9", **changes).items():
        monkeypatch.setenv(name, value)
    assert main() == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_a_port_in_use_is_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = environment(tmp_path, "http://127.0.0.1:9", PORT=str(port))
        ended = subprocess.run(
            [sys.executable, "-m", "inference"], env=given, capture_output=True, text=True, timeout=60, check=False
        )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"HOST=127.0.0.1 PORT={port}: cannot listen there")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("version", "rpc_urls", "pattern"),
    [
        pytest.param("v0.12.0", "http://127.0.0.1:1", "", id="v0.12"),
        pytest.param("0.9.1", "http://127.0.0.1:1", "", id="v0.9"),
        pytest.param("v0.11.0", "http://127.0.0.1:1", "v0.11.0 waits.*: try ANSWER_WAIT=45", id="v0.11"),
        pytest.param("", "http://127.0.0.1:1", "v0.9 and later waits.*NODE_VERSION", id="no version"),
        pytest.param("v0.12.0", "none", "the chain is not asked.*RPC_URLS", id="no chain"),
    ],
)
def test_why_answers_are_not_held_is_one_line(version: str, rpc_urls: str, pattern: str) -> None:
    settings = load_settings(node_version=version, rpc_urls=rpc_urls)
    config = read_config(Path(__file__).parents[2] / "config.example.json", node_version=version)
    with capture_logs() as lines:
        _log_unheld(settings, config, _chains_from(settings, config, SystemClock()))
    assert len(lines) == bool(pattern)
    assert all(re.search(pattern, f"{line['reason']}; {line['remedy']}") for line in lines)


def test_serving_loads_neither_torch_nor_polars() -> None:
    code = "import sys, inference.__main__; print(sorted({'torch', 'polars', 'pandas', 'onnx'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "[]\n"


def test_the_probe_needs_the_standard_library_alone() -> None:
    missing = ("requests", "fastapi", "numpy", "structlog", "pydantic")
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); import inference.probe"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
