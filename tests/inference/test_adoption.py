"""A door and inference take up what is adopted while they answer."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import requests

from exchange.server import SimulatedExchange
from ledger.epochs import Adoption, EpochBook
from tests.fakes.clock import eventually
from tests.inference.test_main import environment, exchange

__all__ = ["exchange"]


class Asking:
    """Asks for a new height every 50 ms, each over a connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/inference/ETH?topic=1&height="
        self.answers: dict[int, requests.Response] = {}
        self.lost: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        height = 0
        while not self._over.wait(0.05):
            height += 1
            try:
                self.answers[height] = requests.get(f"{self.url}{height}", timeout=30)
            except requests.RequestException as error:
                self.lost.append(str(error))

    def sources(self) -> list[str]:
        """How the base of each answer was found, in the order of the questions."""
        return [answer.headers["X-Base-Source"] for _, answer in sorted(self.answers.items())]


def test_an_adoption_shows_in_the_answers_and_none_is_lost(tmp_path: Path, exchange: SimulatedExchange) -> None:
    autos = {"BASE_RULE": "auto", "TRUTH_VENUE": "auto", "VENUE_URLS": f"binanceus={exchange.url}"}
    given, log = environment(tmp_path, exchange.url, LOG_FORMAT="json", **autos), tmp_path / "log"
    url = f"http://127.0.0.1:{given['PORT']}"
    with log.open("wb") as output:
        door = psutil.Popen([sys.executable, "-m", "door"], env=given, stdout=output, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: log.read_text().count('"nothing_adopted_yet"') == 2, 60, "the defaults in the log")
        assert (
            requests.get(f"{url}/inference/ETH?topic=1", timeout=60).status_code == 200
        )  # held until there is a price
        inference = door.children()
        with Asking(url) as asking:
            eventually(lambda: len(asking.answers) > 20, what="answers by the default")
            assert set(asking.sources()) == {"guess"}
            before = asking.answers[1]
            book = EpochBook(f"sqlite:///{tmp_path / 'data' / 'ledger.sqlite3'}")
            now_ms = 1_700_000_000_000
            assert book.adopt(Adoption("BASE_RULE", "asked", "fits 38 of 40 epochs", now_ms))
            assert book.adopt(Adoption("TRUTH_VENUE", "binanceus", "fits 38 of 40 epochs", now_ms))
            book.close()
            eventually(lambda: asking.sources()[-1] == "asked", 60, "answers by what was adopted")
            eventually(lambda: topic_of(url)["truth_ratio"] is not None, 30, "the truth venue's ratio")
            again = requests.get(f"{asking.url}1", timeout=5)
        assert asking.lost == []
        assert {answer.status_code for answer in asking.answers.values()} == {200}
        sources = asking.sources()
        turn = sources.index("asked")
        assert set(sources[turn:]) == {"asked"}, "never back"
        assert door.children() == inference, "no process ended for it"
        last = asking.answers[max(asking.answers)]
        assert before.headers["X-Base"] < before.headers["X-Asked"], "the minute before"
        assert last.headers["X-Base"] >= last.headers["X-Asked"]
        assert (again.text, again.headers["X-Base"]) == (before.text, before.headers["X-Base"])
        lines = log.read_text()
        assert '"event":"adopted"' in lines.replace(" ", "")
        assert "fits 38 of 40 epochs" in lines
    finally:
        for process in (*door.children(recursive=True), door):
            process.kill()
        door.wait()


def topic_of(url: str) -> dict[str, object]:
    """The one topic, as /topics has it."""
    (topic,) = requests.get(f"{url}/topics", timeout=5).json()
    return dict(topic)


def test_a_start_without_a_readable_ledger_answers_by_the_default(tmp_path: Path, exchange: SimulatedExchange) -> None:
    given, log = environment(tmp_path, exchange.url, BASE_RULE="auto", LOG_FORMAT="json"), tmp_path / "log"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.sqlite3").write_bytes(b"no database at all" * 1000)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "inference"], env=os.environ | given, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{given['PORT']}"
        eventually(lambda: '"listening"' in log.read_text(), 60, "the start")
        answer = requests.get(f"{url}/inference/ETH?topic=1&height=5", timeout=60)
        assert (answer.status_code, answer.headers["X-Base-Source"]) == (200, "guess")
        assert "adoptions_not_read" in log.read_text()
    finally:
        process.kill()
        process.wait()
