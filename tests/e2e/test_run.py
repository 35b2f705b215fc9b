"""``birnn run`` as an operator uses it: six topics answered, submitted dry, ended and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from model.registry.versions import Registry
from node.config_file import topics_from_config
from node.decimals import parse_decimal
from tests.disk import Disk, disk
from tests.fakes.clock import eventually
from tests.fakes.net import free_port
from tests.ledger.earlier import make_earlier, rows_of, upgraded
from tests.updater.folder import SMALL, TINY
from updater.state import read_state

__all__ = ["disk"]
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.json"
SIX = {1: "ETH", 14: "BTC", 2: "ETH", 64: "BTC", 82: "SOL", 79: "BTC"}


class Node:
    """A running ``birnn run`` and what it printed; ``more`` are further settings of its environment."""

    def __init__(self, data_dir: Path, port: int | None = None, **more: str) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            **os.environ,
            "MARKET": "simulated",
            "DATA_DIR": str(data_dir),
            "CONFIG_FILE": str(EXAMPLE),
            "PORT": str(self.port),
            "TRAINING_DAYS": "25",  # 12 gave p 0.054 on one day's tape; 20 gave at most 0.0016 on seven
            **more,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "run"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line)

    def events(self, service: str) -> list[dict[str, Any]]:
        """The JSON log lines of one process so far."""
        parsed = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [event for event in parsed if event.get("service") == service]

    def family(self) -> list[psutil.Process]:
        """The process and all below it."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def ask(self, token: str, topic_id: int) -> requests.Response:
        return requests.get(f"{self.url}/inference/{token}?topic={topic_id}", timeout=5)

    def ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def versions(self) -> set[str]:
        """Which versions answer the six topics now."""
        return {self.ask(token, topic_id).headers.get("X-Model-Version", "") for topic_id, token in SIX.items()}


def alive(process: psutil.Process) -> bool:
    """Still doing something: what is dead and only not yet collected by its parent is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def scheduled(data_dir: Path) -> bool:
    """The updater has nothing to train before the schedule says so."""
    state = read_state(data_dir)
    panels = state.panels.values() if state else ()
    return bool(panels) and all(panel.next_run_ms and panel.running_since_ms is None for panel in panels)


@contextmanager
def running(data_dir: Path, port: int | None = None, **more: str) -> Iterator[Node]:
    node = Node(data_dir, port, **more)
    try:
        yield node
    except AssertionError:
        if node.process.poll() is None:
            print(requests.get(f"{node.url}/topics", timeout=5).text)
        print("".join(node.lines))
        raise
    finally:
        if node.process.poll() is None:
            node.process.kill()
        node.process.wait()
        node.reader.join(timeout=10)


def child_of(node: Node, module: str) -> psutil.Process | None:
    """The child of ``birnn run`` that runs this module, or the training below its updater; None while there is none."""
    for process in node.family()[1:]:
        try:
            if module in process.cmdline() and alive(process):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def price(node: Node) -> float:
    """What the exchange of this node says ETH costs now."""
    asker = child_of(node, "inference")
    assert asker
    url = asker.environ()["BINANCE_REST_URLS"]
    return float(requests.get(f"{url}/api/v3/ticker/price?symbol=ETHUSDT", timeout=2).json()["price"])


def train_with(data_dir: Path, knobs: dict[str, Any]) -> Path:
    """Have the node train with these settings; the folder of its simulated market."""
    folder = data_dir / "simulated" / "seed-0"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(knobs))
    return folder


@pytest.mark.timeout(600)
def test_kill_9_of_any_child_is_survived(tmp_path: Path) -> None:
    folder = train_with(tmp_path, TINY)
    with running(tmp_path) as node:
        eventually(node.ready, 60, "/readyz")
        eventually(lambda: child_of(node, "updater.training_child") is not None, 60, "a training")
        before = price(node)
        for module in (
            "updater.training_child",
            "exchange",
            "inference",
            "door.holder",
            "worker",
            "updater",
            "monitor",
        ):
            eventually(lambda module=module: child_of(node, module) is not None, 90, module)  # type: ignore[misc]
            killed = child_of(node, module)
            assert killed
            killed.kill()

            def is_back(module: str = module, killed: psutil.Process = killed) -> bool:
                again = child_of(node, module)
                return again is not None and again.pid != killed.pid

            eventually(is_back, 120, f"the return of {module}")
            eventually(node.ready, 60, f"/readyz after the end of {module}")
            assert node.process.poll() is None
        assert price(node) == pytest.approx(before, rel=0.05), "the same tape goes on, at the same place"
        eventually(lambda: bool(Registry(folder).versions()), 300, "a published network all the same")
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(timeout=10) == 0


@pytest.mark.timeout(600)
def test_an_operators_first_evening(tmp_path: Path) -> None:
    folder = train_with(tmp_path, SMALL)
    with running(tmp_path) as node:
        eventually(node.ready, 60, "/readyz")
        assert "SIMULATED" in node.lines[0]
        page = requests.get(node.url, timeout=5).text.removeprefix("the status page is at ").partition(";")[0]
        assert f"status page: {page}\n" in node.lines
        eventually(lambda: requests.get(f"{page}healthz", timeout=5).text == "ok", 30, "the monitor")
        for topic_id, token in SIX.items():
            answer = node.ask(token, topic_id)
            assert answer.status_code == 200, answer.text
            parse_decimal(answer.content)
            assert answer.headers["X-Market"] == "SIMULATED"
        eventually(
            lambda: {e.get("topic_id") for e in node.events("node") if "value" in e} >= set(SIX),
            30,
            "a dry submission each",
        )
        eventually(lambda: "persistence" not in node.versions(), 300, "a published BiRNN behind each topic")
        family = node.family()
        began = time.monotonic()
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(timeout=10) == 0
        eventually(lambda: not any(alive(p) for p in family), 5 - (time.monotonic() - began), "every process's end")
    registry = Registry(folder)
    published = registry.versions()
    assert {topic.key for topic in topics_from_config(EXAMPLE)} == set(registry.champions())

    with running(tmp_path) as node:
        eventually(node.ready, 60, "/readyz of the second start")
        assert node.versions() <= set(published), "the second start answers from what the first published"
        eventually(lambda: any(e["event"] == "synced" for e in node.events("updater")), 30, "the second start's sync")
        eventually(lambda: scheduled(folder), 30, "a next run of each panel")
        assert not [e for e in node.events("updater") if e["event"] == "training_due"]
        assert registry.versions() == published, "nothing was trained anew"


@pytest.mark.timeout(600)
def test_kill_9_at_any_moment_leaves_a_node_that_starts(tmp_path: Path) -> None:
    train_with(tmp_path, SMALL)
    rng = random.Random(7)
    for _ in range(5):
        with running(tmp_path) as node:
            until_s = time.monotonic() + rng.uniform(0.5, 14.0)
            eventually(lambda until_s=until_s: time.monotonic() > until_s, 30)  # type: ignore[misc]
            family = node.family()
            rng.choice(family).kill()
            if rng.random() < 0.5:
                node.process.kill()
                eventually(lambda family=family: not any(alive(p) for p in family), 15, "no orphan")  # type: ignore[misc]
    with running(tmp_path) as node:
        eventually(node.ready, 60, "/readyz after the kills")
        eventually(lambda: "persistence" not in node.versions(), 300, "a published BiRNN after the kills")


def test_a_second_run_names_the_first_and_a_question_outlives_a_killed_inference(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        eventually(node.ready, 60, "/readyz")
        eventually(lambda: bool(node.events("updater")), 60, "the updater, which holds the folder")
        for port in (node.port, free_port()):  # the same port; or another one on the same folder
            environment = {**os.environ, "MARKET": "simulated", "DATA_DIR": str(tmp_path), "PORT": str(port)}
            second = subprocess.run(
                [sys.executable, "-m", "cli.main", "run", "--config", str(EXAMPLE)],
                env=environment, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert (second.returncode, second.stdout) == (2, "")
            (line,) = second.stderr.splitlines()
            assert f"pid {node.process.pid} (" in line
        (inference,) = [p for p in node.family() if "inference" in p.cmdline()]
        inference.kill()
        inference.wait(5)
        asked = requests.get(f"{node.url}/healthz", timeout=60)
        assert (asked.status_code, asked.text.strip()) == (200, "ok")
        node.process.send_signal(signal.SIGTERM)  # and at once the next one, which waits for the port and the folder
        with running(tmp_path, node.port) as following:
            eventually(following.ready, 60, "/readyz of the one that follows")
            assert node.process.wait(10) == 0


@pytest.mark.parametrize(
    ("how", "reason"), [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_a_full_or_read_only_disk_keeps_nobody_from_answering(disk: Disk, how: str, reason: str) -> None:
    disk.refuse(how)
    with running(disk.folder) as node:
        eventually(node.ready, 90, "/readyz")
        assert node.ask("ETH", 1).status_code == 200
        told = [line for line in node.lines if reason in line and str(disk.folder) in line and "make room" in line]
        assert any('"service":"inference"' in line for line in told)
        eventually(
            lambda: any(line.startswith("DATA_DIR=") or '"event":"disk_refuses"' in line for line in node.lines),
            60,
            "the updater's word",
        )
        assert node.process.poll() is None


def test_the_ledger_of_an_earlier_release_is_upgraded_before_it_is_opened(tmp_path: Path) -> None:
    folder = train_with(tmp_path, TINY)
    make_earlier(folder / "ledger.sqlite3", 1)
    before = rows_of(folder / "ledger.sqlite3")
    with running(tmp_path) as node:
        eventually(node.ready, 60, "an answer to every topic")
        assert set(upgraded(before, 1)) <= set(rows_of(folder / "ledger.sqlite3"))
        steps = [event["schema"] for event in node.events("ledger") if event["event"] == "ledger_upgrade_done"]
        assert steps == ["0002", "0003", "0004", "0005"]


def test_the_ledger_of_a_newer_release_stops_the_start_in_one_line(tmp_path: Path) -> None:
    folder = train_with(tmp_path, TINY)
    make_earlier(folder / "ledger.sqlite3", 99)
    with running(tmp_path) as node:
        assert node.process.wait(60) == 2
        node.reader.join(timeout=10)
    assert "has schema 99, this release reads 5" in node.lines[-1]
    assert not node.events("inference")
