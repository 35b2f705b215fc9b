"""``python -m monitor`` as a process, beside a real inference."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from core.settings import load_settings
from exchange.server import SimulatedExchange
from inference.probe import main as probe
from ledger.epochs import EpochBook
from tests.fakes.clock import eventually
from tests.fakes.net import free_port
from tests.inference.test_main import environment, exchange, running
from tests.monitor.receiver import receiving
from tests.monitor.test_alarm_book import rows
from tests.truth.test_adopted import ASKED, write

__all__ = ["exchange"]
OFF = {f"ALARM_{name}": "off" for name in ("MARKET", "TRAINING", "CHAMPION", "STORE", "TOPIC", "ANCHOR", "CLOCK")}


def surroundings(folder: Path, exchange_url: str, **changes: str) -> dict[str, str]:
    """What inference and monitor are started with."""
    more = {"MONITOR_PORT": str(free_port()), "NODE_METRICS_URLS": "none", "LOG_FORMAT": "json"}
    return environment(folder, exchange_url, **(more | OFF | changes))


class Monitor:
    """A running ``python -m monitor``."""

    def __init__(self, given: Mapping[str, str], log: Path) -> None:
        self.url = f"http://127.0.0.1:{given['MONITOR_PORT']}"
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "monitor"], env=dict(given), stdout=output, stderr=subprocess.STDOUT
            )

    def is_well(self) -> bool:
        try:
            return requests.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(timeout=5)


@contextmanager
def monitoring(given: Mapping[str, str], log: Path) -> Iterator[Monitor]:
    monitor = Monitor(given, log)
    try:
        yield monitor
    finally:
        monitor.popen.kill()
        monitor.popen.wait()


def command_lines() -> str:
    """Of every process of this machine."""
    return "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))


def test_a_stopped_inference_is_told_once_by_monitors_that_are_ended_and_killed(
    tmp_path: Path, exchange: SimulatedExchange
) -> None:
    quiet, log = tmp_path / "quiet.log", tmp_path / "monitor.log"
    with receiving() as receiver:
        given = surroundings(
            tmp_path, exchange.url, ALARM_URLS=receiver.alarm_url, ALARM_INFERENCE="0", LOG_LEVEL="debug"
        )
        with running(given, tmp_path / "log") as inference:
            eventually(lambda: inference.answers("/healthz"), 60, "/healthz")  # it has made the ledger
            receiver.status = 500
            with monitoring(given | {"LOG_LEVEL": "error"}, quiet) as monitor:
                eventually(monitor.is_well, 30, "the first look")
                inference.popen.send_signal(signal.SIGSTOP)
                eventually(lambda: receiver.attempts > 0, 60, "a notification")
                seen, began_s = command_lines(), time.monotonic()
                assert monitor.end() == 0
                assert time.monotonic() - began_s < 3.0
            assert quiet.read_text() == ""
            receiver.status = 200
            with monitoring(given, log) as monitor:
                eventually(lambda: receiver.told("ALARM inference") == 1, 60, "the alarm")
                page = requests.get(f"{monitor.url}/healthz", timeout=5).text
                eventually(lambda: rows(tmp_path / "data")[0].sent_ms is not None, what="the row")
                assert monitor.end(signal.SIGKILL) == -signal.SIGKILL
            with monitoring(given, log) as monitor:
                eventually(monitor.is_well, 30, "a look after the restart")
                no_second_one(given, monitor)
                assert monitor.end(signal.SIGINT) == 0
            assert receiver.told("ALARM inference") == 1
            for text in (log.read_text(), seen, command_lines(), page, receiver.text):
                assert "SECRET" not in text


def no_second_one(given: Mapping[str, str], first: Monitor) -> None:
    """There is one monitor for a data folder."""
    second = subprocess.run(
        [sys.executable, "-m", "monitor"],
        env=dict(given) | {"MONITOR_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert f"pid {first.popen.pid} (python -m monitor) works on this folder" in second.stderr


def test_it_ends_to_be_started_anew_with_what_was_adopted(tmp_path: Path) -> None:
    given, log = surroundings(tmp_path, "http://127.0.0.1:9", BASE_RULE="auto"), tmp_path / "log"
    settings = load_settings(data_dir=tmp_path / "data", database_url="")
    (tmp_path / "data").mkdir()
    write(settings)
    with monitoring(given, log) as monitor:
        eventually(monitor.is_well, 30, "the first look")
        book = EpochBook(settings.ledger_url)
        assert book.adopt(ASKED)
        book.close()
        assert monitor.popen.wait(60) == 0
    assert "ending_to_be_started_anew" in log.read_text()
    with monitoring(given, log) as monitor:
        eventually(monitor.is_well, 30, "the first look of the next")
        assert monitor.end() == 0
    assert log.read_text().count("ending_to_be_started_anew") == 1


def test_a_damaged_database_ends_nothing(tmp_path: Path) -> None:
    given = surroundings(tmp_path, "http://127.0.0.1:9", ALARM_STORE="0")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.sqlite3").write_bytes(b"this is no database" * 1000)
    with monitoring(given, tmp_path / "log") as monitor:
        assert probe(["healthz", "--wait", "30", "--url", monitor.url]) == 0
        eventually(lambda: "file is not a database" in (tmp_path / "log").read_text(), 30, "the line")
        assert monitor.end() == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"MARKET": "auto"}, "MARKET=auto is for `birnn run` alone", id="market"),
        pytest.param({"ALARM_CLOCK": "often"}, "ALARM_CLOCK='often': off, or a number of 0 or more", id="threshold"),
        pytest.param({"ALARM_SKILL": "5"}, "ALARM_SKILL='5': off, or a probability from 0 to 1", id="probability"),
        pytest.param({"NODE_METRICS_URLS": "ftp://x"}, "NODE_METRICS_URLS='ftp://x': each URL must be", id="url"),
        pytest.param({"MONITOR_HOST": "192.0.2.1"}, "MONITOR_HOST=192.0.2.1 MONITOR_PORT=", id="address"),
        pytest.param({"CONFIG_FILE": "nowhere.json"}, "nowhere.json", id="config"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    given = surroundings(tmp_path, "http://127.0.0.1:9", **changes)
    done = subprocess.run(
        [sys.executable, "-m", "monitor"], env=given, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert said in done.stderr
    assert os.environ.get("ALARM_URLS", "") == ""


def test_a_monitor_that_follows_no_chain_loads_neither_torch_nor_requests() -> None:
    code = "import sys, monitor.__main__; print(sorted({'torch', 'onnx', 'pandas', 'requests'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "[]\n"
