"""A file that is legal and unwise, with a symbol that nobody lists: a node says so once, and starts."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner

from cli.main import app
from exchange.server import SimulatedExchange
from tests.fakes.clock import eventually
from tests.fakes.net import free_port
from tests.fakes.node import simulated_environment
from tests.fakes.venue_server import entry_of

ROOT = Path(__file__).parents[2]
ENDPOINT = "http://inference:8000/inference/{Token}?topic={TopicId}"
QUESTION = {"Target": "price", "Horizon": "10m"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    content = json.loads((ROOT / "config.example.json").read_text())
    parameters = {"InferenceEndpoint": ENDPOINT, "Token": "DOGE", **QUESTION}
    content["worker"] = [{"topicId": 9999, "inferenceEntrypointName": "apiAdapter", "parameters": parameters}]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange() as exchange:
        yield exchange


def events(log: Path, event: str) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


@contextmanager
def service(module: str, tmp_path: Path, config: Path, exchange: SimulatedExchange) -> Iterator[Path]:
    """A service on its own while the block runs, as in a container; yields its log."""
    more = {"CONFIG_FILE": str(config), "NODE_VERSION": "nonsense", "MARKET_VENUES": "binance", "TRANING_DAYS": "9"}
    given = simulated_environment(exchange, tmp_path / "data", free_port(), **more)
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module], env=given, stdout=output, stderr=output, cwd=tmp_path
        )
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def test_inference_says_it_once_in_its_log(tmp_path: Path, config: Path, exchange: SimulatedExchange) -> None:
    with service("inference", tmp_path, config, exchange) as log:
        eventually(lambda: bool(events(log, "symbol_doubted")), 60, "the word of the venue")
    reasons = [line["reason"] for line in events(log, "config_unwise")]
    assert len(reasons) == 3
    assert sum("NODE_VERSION was 'nonsense'" in reason for reason in reasons) == 1
    assert sum("TRANING_DAYS is no setting" in reason for reason in reasons) == 1
    assert sum("height={BlockHeight}" in reason for reason in reasons) == 1
    (line,) = events(log, "symbol_doubted")
    assert (line["symbol"], line["reason"], line["level"]) == ("DOGEUSDT", "binance does not list it", "warning")
    assert "config.json" in line["remedy"]


def test_the_updater_beside_it_does_not(tmp_path: Path, config: Path, exchange: SimulatedExchange) -> None:
    with service("updater", tmp_path, config, exchange) as log:
        eventually(lambda: bool(events(log, "synced")), 60, "its first work")
    assert events(log, "config_unwise") == events(log, "symbol_doubted") == []


def test_birnn_topics_says_it_below_the_table(tmp_path: Path, config: Path, exchange: SimulatedExchange) -> None:
    given = simulated_environment(exchange, tmp_path / "data", free_port(), MARKET_VENUES="binance")
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "topics", "--config", str(config)],
        env=given,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert "height={BlockHeight}" in warnings[0]
    assert "DOGEUSDT: binance does not list it; correct Token or Symbol" in warnings[1]
    assert "DOGEUSDT" in done.stdout.partition("warning")[0]


def test_a_pair_in_another_currency_is_refused_by_each_in_the_same_words(tmp_path: Path, config: Path) -> None:
    content = json.loads(config.read_text())
    content["worker"][0]["parameters"]["Token"] = "ETH"
    config.write_text(json.dumps(content))
    says = "cannot answer for ETH: binance lists it as ETH in BTC, not ETH in dollars; correct Token or Symbol"
    port, log = free_port(), tmp_path / "log"
    with SimulatedExchange() as exchange:
        exchange.fail_next("/api/v3/exchangeInfo", 9, status=200, body=entry_of("ETHUSDT", "ETH", "BTC"))
        more = {"CONFIG_FILE": str(config), "MARKET_VENUES": "binance"}
        given = simulated_environment(exchange, tmp_path / "data", port, **more)
        shown = CliRunner().invoke(app, ["topics"], env=given).output
        with log.open("wb") as output:
            process = subprocess.Popen([sys.executable, "-m", "inference"], env=given, stdout=output, stderr=output)
        try:
            eventually(lambda: bool(events(log, "symbol_contradicted")), 60, "the word of the venue")
            answer = requests.get(f"http://127.0.0.1:{port}/inference/ETH?topic=9999", timeout=5)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    assert f"refused: ETHUSDT {says}" in shown
    assert "ETHUSDT" in shown.partition("refused")[0]
    assert (answer.status_code, f"9999: ETHUSDT {says}" in answer.text) == (503, True), answer.text
    (line,) = events(log, "symbol_contradicted")
    assert (line["level"], line["symbol"], line["token"]) == ("error", "ETHUSDT", "ETH")


def test_birnn_run_prints_it_once_and_starts(tmp_path: Path, config: Path) -> None:
    arguments = ["run", "--config", str(config), "--market", "simulated", "--port", str(free_port())]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments, "--data-dir", str(tmp_path / "data")],
            env={**os.environ, "MARKET_VENUES": "binance"},
            stdout=output,
            stderr=output,
            cwd=ROOT,
        )
    try:
        eventually(lambda: b"symbol_doubted" in log.read_bytes(), 90, "the word of the venue")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert sum(line.startswith("warning: ") for line in log.read_text().splitlines()) == 1
    assert log.read_text().count("config_unwise") == 0, "its children do not say it again"
    assert log.read_text().count("symbol_doubted") == 1
