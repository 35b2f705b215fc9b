"""``python -m inference`` and its probe, as processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from inference.probe import main as probe
from market.simulated import SimulatedExchange
from model.registry import Registry
from tests.fakes import eventually, free_port
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
        return self.popen.wait(timeout=3)


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
    given, log = environment(tmp_path, exchange.url), tmp_path / "log"
    registry = Registry(tmp_path / "data")
    version = publish(registry, 0.5, exchange.tape and 1_900_000_000_000)
    registry.promote([ETH_10M], version, 1)
    with running(given, log) as process:
        assert probe(["healthz", "--wait", "20", "--url", process.url]) == 0
        assert probe(["readyz", "--wait", "20", "--url", process.url]) == 0
        assert capsys.readouterr().out == "healthz: ok\nreadyz: ready\n"
        answer = requests.get(f"{process.url}/inference/ETH?topic=1&height=5", timeout=5)
        assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, version)
        assert process.end(ending) == 0
    assert probe(["healthz", "--url", process.url]) == 1
    assert "no answer from" in capsys.readouterr().err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["listening", "champion_in_use", "answer", "ended"]
    assert {line["market"] for line in lines} == {"SIMULATED"}


def test_a_kill_leaves_what_the_next_start_answers_from(tmp_path: Path, exchange: SimulatedExchange) -> None:
    given, question = environment(tmp_path, exchange.url), "/inference/ETH?topic=1&height="
    with running(given, tmp_path / "log") as process:
        eventually(lambda: process.answers("/readyz"), 20, "/readyz")
        values = [requests.get(f"{process.url}{question}{height}", timeout=5).text for height in range(200)]
        eventually(lambda: "birnn_ledger_unwritten 0.0" in requests.get(process.url + "/metrics", timeout=5).text)
        process.popen.kill()
        process.popen.wait()
    with running(given, tmp_path / "log") as process:
        eventually(lambda: process.answers("/healthz"), 20, "/healthz")
        assert [requests.get(f"{process.url}{question}{h}", timeout=5).text for h in range(200)] == values


def test_without_a_venue_it_is_alive_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with running(environment(tmp_path, nobody), tmp_path / "log") as process:
        eventually(lambda: process.answers("/healthz"), 20, "/healthz")
        assert probe(["readyz", "--wait", "0.1", "--url", process.url]) == 1
        assert "topic 1" in capsys.readouterr().err
        assert process.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"MARKET": "auto"}, "MARKET=auto", id="auto"),
        pytest.param({"MARKET": "kraken"}, "MARKET", id="unknown market"),
        pytest.param(
            {"BINANCE_REST_URLS": "https://api.binance.com"}, "BINANCE_REST_URLS", id="a real venue, simulated"
        ),
        pytest.param({"CONFIG_FILE": "/no/such/config.json"}, "/no/such/config.json", id="no config"),
        pytest.param({"DATABASE_URL": "mysql://127.0.0.1/a"}, "DATABASE_URL", id="database"),
        pytest.param({"DATA_DIR": "/proc/nothing"}, "DATA_DIR", id="data folder that cannot be made"),
        pytest.param({"HOST": "203.0.113.7"}, "HOST=203.0.113.7", id="an address that is not ours"),
        pytest.param({"PORT": "taken"}, "PORT=", id="port in use"),
    ],
)
def test_what_is_configured_wrongly_stops_the_start_in_one_line(
    tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if changes.get("PORT") == "taken":
            changes = {"PORT": str(taken.getsockname()[1])}
        given = environment(tmp_path, "http://127.0.0.1:9", **changes)
        ended = subprocess.run(
            [sys.executable, "-m", "inference"], env=given, capture_output=True, text=True, timeout=30, check=False
        )
    assert ended.returncode == 2
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""


def test_serving_loads_neither_torch_nor_polars() -> None:
    code = "import sys, inference.__main__; print(sorted({'torch', 'polars', 'pandas', 'onnx'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "[]\n"


def test_the_probe_needs_the_standard_library_alone() -> None:
    code = "import sys; sys.modules.update(dict.fromkeys(('requests', 'fastapi', 'numpy', 'structlog'))); import inference.probe"
    subprocess.run([sys.executable, "-c", code], timeout=30, check=True)
