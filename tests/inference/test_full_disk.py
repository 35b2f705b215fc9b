"""``python -m inference`` started on a disk that is full or read-only: a real one, of a megabyte, in memory."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import requests

from exchange.server import SimulatedExchange
from tests.disk import Disk, disk
from tests.fakes.clock import eventually
from tests.inference.stand import moment_ms
from tests.inference.test_main import environment, exchange, running

__all__ = ["disk", "exchange"]
ASKED = "/inference/ETH?topic=1&height={}"


def stored(ledger: Path) -> dict[int, str]:
    if not ledger.exists():
        return {}
    with closing(sqlite3.connect(ledger)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchone():
            return {}
        return dict(connection.execute("SELECT height, value FROM answers"))


def lines(log: Path, event: str) -> list[dict[str, object]]:
    parsed = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in parsed if line["event"] == event]


def identity(answer: requests.Response) -> tuple[str, float]:
    """The number, and the moment of the price behind it: no two answers have both in common."""
    return answer.text, moment_ms(answer.headers["X-Asked"]) - int(answer.headers["X-Anchor-Age-Ms"])


HOW = [
    pytest.param("full", "No space left on device", id="full"),
    pytest.param("read-only", "Read-only file system", id="read-only"),
]


@pytest.mark.parametrize(("how", "reason"), HOW)
@pytest.mark.parametrize("data", [pytest.param(".", id="folder"), pytest.param("made/later", id="folder to be made")])
def test_it_answers_says_what_is_full_and_writes_when_there_is_room(
    tmp_path: Path, disk: Disk, exchange: SimulatedExchange, how: str, reason: str, data: str
) -> None:
    disk.refuse(how)
    folder, log = disk.folder / data, tmp_path / "log"
    with running(environment(tmp_path, exchange.url, DATA_DIR=str(folder)), log) as process:
        eventually(lambda: process.answers("/readyz"), 30, "/readyz")
        first = requests.get(process.url + ASKED.format(7), timeout=5)
        assert first.status_code == 200
        again = requests.get(process.url + ASKED.format(7), timeout=5)
        assert identity(again) == identity(first)
        line = lines(log, "ledger_not_written")[0]
        assert line["reason"] == reason
        assert line["folder"] == str(folder)
        assert str(line["remedy"]).startswith(f"make room in {folder}, or mount it writable")
        counts = requests.get(f"{process.url}/metrics", timeout=5).text
        assert "birnn_ledger_unwritten 1.0" in counts
        assert "birnn_ledger_unjournalled_total 1.0" in counts
        assert lines(log, "answer_not_journalled")[0]["folder"] == str(folder)
        disk.give_way()
        eventually(lambda: stored(folder / "ledger.sqlite3") == {7: first.text}, 60, "the answer on the disk")


@pytest.mark.parametrize(("how", "reason"), HOW)
@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_what_was_answered_before_is_answered_the_same(
    tmp_path: Path, disk: Disk, exchange: SimulatedExchange, how: str, reason: str, end: str
) -> None:
    given = environment(tmp_path, exchange.url, DATA_DIR=str(disk.folder))
    with running(given, tmp_path / "before") as process:
        eventually(lambda: process.answers("/readyz"), 30, "/readyz")
        first = requests.get(process.url + ASKED.format(7), timeout=5)
        eventually(lambda: stored(disk.folder / "ledger.sqlite3") == {7: first.text}, 10, "the answer on the disk")
        getattr(process.popen, end)()
        process.popen.wait()
    disk.refuse(how)
    with running(given, tmp_path / "log") as process:
        eventually(lambda: process.answers("/readyz"), 30, "/readyz")
        assert lines(tmp_path / "log", "ledger_not_written")[0]["reason"] == reason
        again = requests.get(process.url + ASKED.format(7), timeout=5)
        assert identity(again) == identity(first)
        other = requests.get(process.url + ASKED.format(8), timeout=5).text
        disk.give_way()
        eventually(lambda: stored(disk.folder / "ledger.sqlite3") == {7: first.text, 8: other}, 60, "both on the disk")
