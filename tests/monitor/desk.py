"""The watch, the conditions and the book of alarms, as ``python -m monitor`` puts them together, by a test's clock."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from core.clock import SECOND_MS
from core.settings import Settings, load_settings
from core.topic import Topic
from ledger.database import FAULTS, Database
from ledger.epochs import EpochBook
from ledger.scores import ScoreBook
from model.judging.comparison import Comparison
from monitor.alarm_book import AlarmBook
from monitor.alarms import can_be_over, conditions
from monitor.chain.checks import NEWEST, Checks
from monitor.send import addresses_of
from monitor.watch import Watch
from monitor.watched import Participation, Watched
from node.versions import named_version
from tests.fakes.clock import RunningClock
from tests.inference.stand import ETH_10M
from updater.state import StateFile

QUIET = ("topic", "anchor", "champion", "training", "demotion", "skill", "participation", "store", "clock")
CHAIN = ("arrival", "contract", "unit", "truth", "upgrade")
ALL = ("inference", *QUIET, "submissions", "market", *CHAIN)


class Desk:
    """A monitor whose looks a test makes."""

    def __init__(
        self, settings: Settings, topics: Sequence[Topic], clock: RunningClock, skills: Mapping[str, Comparison]
    ) -> None:
        self.settings, self.topics, self.clock = settings, topics, clock
        self.skills, self.participation = dict(skills), dict[str, Participation]()
        self.book = AlarmBook(settings.ledger_url, addresses_of(settings.alarm_urls), clock, "BINANCE")
        self.epochs, self.scores = EpochBook(settings.ledger_url), ScoreBook(settings.ledger_url)
        nodes = {topic.network: node for topic in topics if (node := named_version(settings.node_version))}
        self.checks = Checks(settings, self.scores, nodes, solve_s=inf, share=1)
        self.watch = Watch(
            settings, topics, clock, lambda: {"ledger": self.book.database_fault}, lambda: self.checks.seen
        )
        self.book.start()

    def look(self) -> Watched:
        with contextlib.suppress(*FAULTS):  # as the monitor's loops do
            for topic in self.topics:
                sightings = self.epochs.sightings(topic.network or "")
                self.checks.check(topic, self.epochs.epochs_of(topic, NEWEST), sightings)
        watched = self.watch.look()
        found = conditions(watched, self.skills, self.participation, self.settings.alarms)
        self.book.step(
            found,
            lambda name, subject: can_be_over(name, subject, watched, self.skills, self.participation),
            watched.now_ms,
        )
        return watched

    def standing(self) -> set[tuple[str, str]]:
        """Names and subjects of the alarms that hold after a look."""
        self.look()
        return {(kept.name, kept.subject) for kept in self.book.standing}

    def pass_s(self, seconds: float) -> None:
        """Let time pass and look."""
        self.clock.jump(round(seconds * SECOND_MS))
        self.look()

    def calm(self) -> None:
        """Let pass the time after which an alarm that is no longer seen counts as over."""
        self.look()
        self.pass_s(31)

    def end(self) -> None:
        self.book.stop()
        self.watch.close()
        self.epochs.close()
        self.scores.close()


def settings_for(folder: Path, only: Sequence[str] = ALL, **more: Any) -> Settings:
    """Settings of a monitor on a folder with a ledger; alarms other than ``only`` are off."""
    off = {f"alarm_{name}": "off" for name in ALL if name not in only}
    given: dict[str, Any] = {
        "data_dir": folder,
        "market": "binance",
        "inference_url": "http://127.0.0.1:9",
        "node_metrics_urls": "none",
        "alarm_urls": "",
        "database_url": "",
    }
    return load_settings(**(given | off | more))


def make_ledger(folder: Path, clock: RunningClock) -> None:
    """Make the database, as inference does."""
    settings = load_settings(data_dir=folder, database_url="")
    database = Database(settings.ledger_url, clock)
    database.make_ready()
    database.disconnect()


@contextmanager
def desk(
    folder: Path,
    clock: RunningClock,
    only: Sequence[str] = ALL,
    *,
    alarm_urls: str = "",
    topics: Sequence[Topic] = (ETH_10M,),
    **more: Any,
) -> Iterator[Desk]:
    """A monitor while the block runs."""
    if not (folder / "ledger.sqlite3").exists():
        make_ledger(folder, clock)
    running = Desk(settings_for(folder, only, alarm_urls=SecretStr(alarm_urls), **more), topics, clock, {})
    try:
        yield running
    finally:
        running.end()


def live_updater(folder: Path, clock: RunningClock) -> StateFile:
    """An updater's own file, with a fresh heartbeat."""
    return StateFile(folder, clock, ["minute", "hour"])
