"""``python -m updater`` as a process against an exchange on loopback: starts, ends, and being killed at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core.data_folder import only_updater
from core.topic import Topic
from exchange.server import SimulatedExchange
from model.registry.versions import Registry
from tests.fakes.clock import eventually
from tests.updater.folder import BTC, DAYS, ETH, ETH_8H, TINY, write_config
from updater.state import UpdaterState, read_state

SOL_8H = replace(ETH_8H, token="SOL", symbol="SOLUSDT")

Start = Callable[..., "Node"]


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=1, symbols=["BTCUSDT", "ETHUSDT"]) as running:
        yield running


def lives(process: psutil.Process) -> bool:
    """Running, and not only waiting for somebody to ask how it ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Node:
    """A running updater."""

    def __init__(self, folder: Path, url: str, topics: tuple[Topic, ...], **training: object) -> None:
        self.data_dir, self.output = folder / "data", folder / "output"
        write_config(folder / "config.json", *topics)
        (folder / "training.json").write_text(json.dumps(TINY | training))
        environment = os.environ | {
            "MARKET": "simulated",
            "BINANCE_REST_URLS": url,
            "BINANCE_ARCHIVE_URL": url,
            "TRAINING_DAYS": str(DAYS),
            "CONFIG_FILE": str(folder / "config.json"),
            "DATA_DIR": str(self.data_dir),
        }
        with self.output.open("wb") as output:
            self.process = psutil.Popen(
                [sys.executable, "-m", "updater", "--config-json", str(folder / "training.json")],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def log(self, event: str) -> list[dict[str, object]]:
        """The lines of one event so far."""
        lines = self.output.read_text().splitlines()
        parsed = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in parsed if line["event"] == event]

    def state(self) -> UpdaterState:
        return read_state(self.data_dir) or UpdaterState()

    def after(self, rounds: int) -> list[dict[str, object]]:
        eventually(lambda: len(self.log("round")) >= rounds or self.process.poll() is not None, 90, "the round")
        return self.log("round")

    def child(self) -> psutil.Process:
        eventually(lambda: bool(self.process.children()), 20, "the training's process")
        return self.process.children()[0]

    def end(self) -> None:
        """As an operator does; the limit is the product's."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(5) == 0


@pytest.fixture
def start(tmp_path: Path, exchange: SimulatedExchange) -> Iterator[Start]:
    nodes: list[Node] = []

    def begin(*topics: Topic, url: str = exchange.url, **training: object) -> Node:
        nodes.append(Node(tmp_path, url, topics, **training))
        return nodes[-1]

    yield begin
    for node in nodes:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()


def test_the_first_start_trains_and_the_second_only_what_failed(start: Start) -> None:
    first = start(ETH, BTC, SOL_8H)
    minute, hour = first.after(rounds=2)
    assert (minute["panel"], minute["ok"]) == ("minute", True)
    assert (hour["panel"], hour["ok"]) == ("hour", False), "the exchange does not list its symbol"
    assert "SOLUSDT: no klines" in str(hour["reason"])
    assert {line.get("market") for line in (minute, hour)} == {"SIMULATED"}
    assert Registry(first.data_dir).champions().keys() >= {ETH.key}
    state = first.state()
    assert state.panels["minute"].next_run_ms
    assert (state.panels["minute"].failures, state.panels["minute"].next_try_ms) == (0, None)
    assert (state.panels["hour"].failures, state.panels["hour"].next_run_ms is not None) == (1, True)
    assert state.panels["hour"].next_try_ms is not None
    minutes = {"BTCUSDT-1m", "ETHUSDT-1m", "SOLUSDT-1m"}  # the replay of an hour topic reads its minutes
    assert state.series.keys() == {*minutes, "BTCUSDT-1h", "SOLUSDT-1h"}
    first.end()

    second = start(ETH, BTC, SOL_8H)
    eventually(lambda: bool(second.log("training_due")), 20, "the start")
    second.end()
    assert [line["panel"] for line in second.log("training_due")] == ["hour"]


def test_sigterm_ends_it_within_five_seconds_while_it_trains(start: Start) -> None:
    node = start(ETH, epochs=100_000, patience=100_000)
    eventually(lambda: "epoch" in node.state().panels["minute"].progress if node.state().panels else False, 40)
    eventually(lambda: node.state().panels["minute"].left_s is not None, 40, "a time that is left")
    panel = node.state().panels["minute"]
    assert panel.per_cent is not None
    assert panel.left_s is not None
    assert 0 < panel.per_cent < 1, "of 100,000 epochs"
    assert panel.left_s > 60
    child = node.child()
    node.end()
    assert not lives(child)
    ended = node.state().panels["minute"]
    assert (ended.running_since_ms, ended.per_cent, ended.left_s) == (None, None, None)
    assert node.state().pid == 0, "it says that it has ended"
    assert not node.log("round"), "it is no failure to be told to end"


def test_sigterm_ends_it_within_five_seconds_while_it_waits_for_the_venue(
    start: Start, exchange: SimulatedExchange
) -> None:
    exchange.fail_next("/", count=1_000, delay_s=8.0)
    before = len(exchange.requests)
    try:
        node = start(ETH)
        eventually(lambda: len(exchange.requests) > before, 20, "a request")
        node.end()
    finally:
        exchange.clear_faults()


def test_kills_at_any_moment_leave_what_the_next_start_can_use(start: Start) -> None:
    moments = random.Random(0)
    for victim in ("parent", "child", "parent"):
        node = start(ETH)
        child = node.child()
        time.sleep(moments.uniform(0, 4))  # the moment is the test: importing, training, publishing
        with suppress(psutil.NoSuchProcess):  # a training may be over by then: that is a moment as well
            (node.process if victim == "parent" else child).kill()
        eventually(lambda child=child: not lives(child), what="the child's end")  # type: ignore[misc]
        node.process.kill()
        node.process.wait()
        (node.data_dir / "champions.json").unlink(missing_ok=True)  # it may have got that far: it is to train again
    node = start(ETH)
    eventually(lambda: ETH.key in Registry(node.data_dir).champions(), 60, "a champion")
    node.end()
    Registry(node.data_dir).open(Registry(node.data_dir).champions()[ETH.key].version)
    assert not [path for path in node.data_dir.rglob(".tmp-*") if path.is_dir()]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param("RETRAIN_CRON", "every day", id="cron line"),
        pytest.param("MARKET", "auto", id="market for birnn run alone"),
        pytest.param("CONFIG_FILE", "nowhere.json", id="no config"),
        pytest.param("TRAINING_DAYS", "1", id="out of range"),
        pytest.param("DATA_DIR", "taken", id="another updater"),
    ],
)
def test_a_wrong_setting_ends_it_with_one_line(tmp_path: Path, variable: str, value: str) -> None:
    write_config(tmp_path / "config.json", ETH)
    with only_updater(tmp_path / "taken"):
        done = subprocess.run(
            [sys.executable, "-m", "updater"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], variable: value},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2
    assert variable in done.stderr or value in done.stderr
    assert done.stderr.count("\n") == 1
