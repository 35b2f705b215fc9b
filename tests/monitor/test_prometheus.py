"""A real Prometheus reads real processes; what is broken in earnest makes the rules fire. No rule waits here."""

import re
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from core.clock import DAY_MS, SystemClock
from exchange.server import SimulatedExchange
from inference.probe import main as probe
from model.judging.skill import Skill
from monitor.metrics import CONTENT_TYPE, Failures, MonitorMetrics
from monitor.watched import Participation
from tests.fakes.clock import eventually
from tests.fakes.net import free_port
from tests.inference.stand import ETH_10M
from tests.inference.test_main import Process, environment, running
from tests.monitor.figures import EVERYTHING, metrics
from tests.promql import FOLDER, RULES, drawn, tool

WELL = replace(
    EVERYTHING,
    demotions={},
    faults={},
    updater=EVERYTHING.updater and EVERYTHING.updater.model_copy(update={"panels": {}}),
)
ASKED = b'allora_worker_inference_request_count{address="allo1a",topic="1"} %d\n'


class Page:
    """A server of ``/metrics``, as the monitor's and the node's; the text is asked for at each scrape."""

    def __init__(self, text: Callable[[], bytes]) -> None:
        page = self
        self.text = text

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.end_headers()
                self.wfile.write(page.text())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class names it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Prometheus:
    """What it says of targets, rules and alerts."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=query, timeout=5).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def health(self) -> list[str]:
        """Of inference, monitor and node: up, down or unknown."""
        return [target["health"] for target in self.get("targets")["activeTargets"]]

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"}


@contextmanager
def prometheus(folder: Path, inference: str, monitor: str, node: str) -> Iterator[Prometheus]:
    """Prometheus with the shipped files, but for the hosts; scrapes are frequent, and no rule waits."""
    hosts = {"inference:8000": inference.removeprefix("http://"), "monitor:8080": monitor, "node:2112": node}
    config = (FOLDER / "prometheus.yml").read_text()
    for host, here in hosts.items():
        config = config.replace(host, here)
    (folder / "prometheus.yml").write_text(re.sub(r"(_interval|_timeout): \d+s", r"\1: 500ms", config))
    shutil.copytree(FOLDER / "nodes", folder / "nodes")
    rules = re.sub(r"^ +for: .*\n", "", (FOLDER / "rules.yml").read_text(), flags=re.MULTILINE)
    (folder / "rules.yml").write_text(rules.replace("birnn_anchor_age_seconds > 60", "birnn_anchor_age_seconds > 3"))
    url = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={url}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        running = Prometheus(f"http://{url}")
        eventually(running.answers, timeout_s=30, what="Prometheus")
        yield running
    finally:
        process.terminate()
        process.wait(timeout=20)


class Ahead(SystemClock):
    """Five seconds ahead of this machine's clock."""

    def now_ms(self) -> int:
        return super().now_ms() + 5000


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    tool("prometheus")
    with SimulatedExchange(clock=Ahead()) as exchange:
        yield exchange


@pytest.fixture
def inference(tmp_path: Path, exchange: SimulatedExchange) -> Iterator[Process]:
    """Inference with the naive forecast, which answers with no price older than three seconds."""
    given = environment(tmp_path, exchange.url, MAX_ANCHOR_AGE_S="3")
    with running(given, tmp_path / "log") as process:
        assert probe(["readyz", "--wait", "60", "--url", process.url]) == 0
        yield process


@pytest.fixture
def monitor() -> Iterator[Page]:
    page = Page(well().text)
    yield page
    page.close()


@pytest.fixture
def node(payloads: Path) -> Iterator[Page]:
    text = (payloads / "node" / "metrics.txt").read_bytes()
    page = Page(lambda: text)
    yield page
    page.close()


def well() -> MonitorMetrics:
    return metrics(WELL, alarms=())


def test_the_rules_fire_for_what_is_broken_in_earnest(
    tmp_path: Path, exchange: SimulatedExchange, inference: Process, monitor: Page, node: Page
) -> None:
    with prometheus(tmp_path, inference.url, monitor.address, node.address) as watched:
        seen: set[str] = set()

        def fire(*names: str) -> None:
            seen.update(names)
            eventually(lambda: set(names) <= watched.firing(), timeout_s=30, what=" and ".join(names))

        eventually(lambda: watched.health() == ["up"] * 3, what="the targets")
        # Well, but for what is true of every run like this one.
        usual = {"BirnnMarketSimulated", "BirnnChampionOld", "BirnnClockOff"}
        seen.update(usual)
        eventually(lambda: watched.firing() == usual, timeout_s=30, what=" and ".join(usual))
        assert len(watched.get("rules")["groups"][0]["rules"]) == len(RULES)
        for query in drawn():
            watched.get("query", query=query)

        # The node asks, is answered, and makes nothing of it.
        heights = count(1)

        def ask_until(*names: str) -> None:
            seen.update(names)
            agent = {"User-Agent": "Go-http-client/1.1"}

            def asked() -> bool:
                question = f"{inference.url}/inference/ETH?topic=1&height={next(heights)}"
                assert requests.get(question, headers=agent, timeout=5).status_code == 200
                return set(names) <= watched.firing()

            eventually(asked, timeout_s=30, what=" and ".join(names))

        asks = count(1)
        node.text = lambda: ASKED % next(asks)
        ask_until("BirnnSubmissionsMissing", "BirnnAnswersUnused")

        # Another program holds the database, and answers go on.
        with closing(sqlite3.connect(tmp_path / "data" / "ledger.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            ask_until("BirnnLedgerFailing")

        # What the monitor sees is bad.
        monitor.text = bad().text
        fire(
            "BirnnChampionDemoted",
            "BirnnDataUnreadable",
            "BirnnDiskNearlyFull",
            "BirnnMonitorStands",
            "BirnnNotificationsFailing",
            "BirnnParticipationLow",
            "BirnnSkillNegative",
            "BirnnTrainingFailing",
            "BirnnUpdaterSilent",
        )

        # The exchange is gone.
        exchange.outage(600)
        fire("BirnnAnchorStale", "BirnnTopicNotAnswerable")

        # Processes end, or hang.
        inference.popen.send_signal(signal.SIGSTOP)
        node.text = broken
        fire("BirnnInferenceDown", "BirnnNodeDown")
        monitor.text = broken
        fire("BirnnMonitorDown")
        inference.popen.send_signal(signal.SIGCONT)
        assert seen == {rule["alert"] for rule in RULES}


def broken() -> bytes:
    """What a page of a process that fails has."""
    return b"<html>502 Bad Gateway</html>"


def bad() -> MonitorMetrics:
    """A monitor that has seen everything go wrong."""
    assert EVERYTHING.updater
    panel = EVERYTHING.updater.panels["minute"].model_copy(update={"failures": 3})
    late = EVERYTHING.updater.model_copy(update={"heartbeat_ms": 0, "panels": {"minute": panel}})
    return metrics(
        replace(EVERYTHING, now_ms=EVERYTHING.now_ms - DAY_MS, updater=late, free_bytes=500_000_000),
        skill=Skill(n=2016, skill=-0.2, low=-0.3, high=-0.1),
        participation={ETH_10M.key: Participation(share=0.905, missed_left=3)},
        failures=Failures(notifications=5, database=9),
    )
