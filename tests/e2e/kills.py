"""Kill each process of a ``birnn run`` at random moments while it answers, and while it scores; then compare.

Between the two a quarter of an hour passes at once, on the clocks of all processes: so every interval is over. Every
answer that was sent must be in the ledger as it was sent. Every due answer must get its score once: no score may change
after it was written, and all must equal those of a scorer that goes over a copy of the folder in peace.
"""

import json
import random
import signal
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import requests
import sqlalchemy as sa

from core.clock import HOUR_MS, MINUTE_MS
from core.settings import load_settings
from ledger.schema import candle_days, scores
from ledger.scores import Score, ScoreBook
from market.store.home_store import HomeStore
from monitor.scorer import Scorer
from node.config_file import topics_from_config
from tests.e2e.test_run import ROOT, Node, child_of, running, train_with
from tests.fakes.clock import eventually
from tests.updater.folder import TINY

AHEAD = ROOT / "benchmarks" / "tools" / "ahead"
AHEAD_MS = 15 * MINUTE_MS
VICTIMS = ("exchange", "inference", "door.holder", "updater", "monitor")
QUESTIONS = (("ETH", "price", "mse"), ("SOL", "log_return", "czar"), ("BTC", "volatility", "mse"))
PAUSE_S = 0.05  # between two questions of one topic
Key = tuple[int, int]  # topic id, height


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run."""

    sent: dict[Key, str]
    told: Counter[str]  # how questions ended
    kills: Counter[str]
    scored: int
    changed: list[str]  # values that were sent, and then another
    lost: list[str]  # sent, and not in the ledger, or otherwise
    rewritten: list[str]  # scores that changed after they were written
    unscored: list[str]  # answers without a score, or with one that says why it is none
    different: list[str]  # scores that the scorer on the copy makes otherwise

    @property
    def faults(self) -> list[str]:
        """Everything that should not be; empty if all is well."""
        return [*self.changed, *self.lost, *self.rewritten, *self.unscored, *self.different]


@dataclass(kw_only=True)
class Askers:
    """A thread for each topic that asks every height twice at least, and one that reads the scores; until stopped."""

    url: str
    ledger: Path
    sent: dict[Key, str] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    changed: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    _seen: dict[Key, Score] = field(default_factory=dict)
    _asking: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Askers":
        for topic_id, (token, *_) in numbered():
            self._threads.append(threading.Thread(target=self._ask, args=(topic_id, token), daemon=True))
        self._threads.append(threading.Thread(target=self._read, daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_asking()
        self._over.set()
        self._threads[-1].join()

    def stop_asking(self) -> None:
        self._asking.set()
        for thread in self._threads[:-1]:
            thread.join()

    def _ask(self, topic_id: int, token: str) -> None:
        for turn in count():
            if self._asking.wait(PAUSE_S):
                break
            height = 1_000 + turn // 2 - turn % 2  # the one before it once more
            question = f"{self.url}/inference/{token}?topic={topic_id}&height={height}&wait=0"
            try:
                response = requests.get(question, timeout=30)
            except requests.RequestException as error:
                self.told[type(error).__name__] += 1
                continue
            self.told[str(response.status_code)] += 1
            if response.ok and self.sent.setdefault((topic_id, height), response.text) != response.text:
                self.changed.append(
                    f"topic {topic_id} height {height}: {self.sent[topic_id, height]}, then {response.text}"
                )

    def _read(self) -> None:
        while not self._over.wait(0.2):
            for key, score in scores_in(self.ledger).items():
                if self._seen.setdefault(key, score) != score:
                    self.rewritten.append(f"score of {key}: {self._seen[key]}, then {score}")
                    self._seen[key] = score


def numbered() -> list[tuple[int, tuple[str, str, str]]]:
    """The topics' ids and questions."""
    return list(enumerate(QUESTIONS, 9_001))


def write_config(path: Path) -> Path:
    """The node's file with the topics."""
    url = "http://127.0.0.1:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}"
    workers = [
        {
            "topicId": topic_id,
            "inferenceEntrypointName": "apiAdapter",
            "parameters": {
                "InferenceEndpoint": url,
                **dict(zip(("Token", "Target", "Loss"), question, strict=True)),
                "Horizon": "5m",
            },
        }
        for topic_id, question in numbered()
    ]
    path.write_text(json.dumps({"wallet": {"chainId": "allora-testnet-1"}, "worker": workers}))
    return path


def scores_in(path: Path) -> dict[Key, Score]:
    """All scores of a ledger; none while there is no ledger."""
    if not path.exists():
        return {}
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        return {(row.topic_id, row.height): Score(*row) for row in connection.execute(sa.select(scores))}


def values_in(path: Path) -> dict[Key, str]:
    """All answers of a ledger."""
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT topic_id, height, value FROM answers")).all()
    return {(topic_id, height): value for topic_id, height, value in rows}


def run(folder: Path, *, least_answers: int, rounds: int, seed: int) -> Outcome:
    """Ask, kill and compare.

    Args:
        least_answers: different ones, that were sent.
        rounds: of kills: each process once in a round while it answers; and once those that score, sync and keep.
    """
    rng, kills = random.Random(seed), Counter[str]()
    data = train_with(folder, TINY)
    config, ledger, ahead = write_config(folder / "config.json"), data / "ledger.sqlite3", folder / "ahead"
    ahead.write_bytes(struct.pack("<q", 0))
    settings = {
        "PYTHONPATH": f"{AHEAD}:{ROOT}",
        "AHEAD_FILE": str(ahead),
        "CONFIG_FILE": str(config),
        "TRAINING_DAYS": "6",
        "ALARM_URLS": "",
        "MONITOR_PORT": "0",
    }

    def kill_each(victims: Sequence[str]) -> None:
        for victim in rng.sample(victims, len(victims)):
            time.sleep(rng.uniform(0.1, 1.0))  # the random moment itself
            kills[victim] += kill(node, victim)

    with running(folder, None, **settings) as node:
        eventually(node.ready, 60, "/readyz")
        with Askers(url=node.url, ledger=ledger) as askers:
            for _ in range(rounds):
                kill_each(VICTIMS)
            eventually(lambda: len(askers.sent) >= least_answers, 600, f"{least_answers} answers")
            askers.stop_asking()
            with ahead.open("r+b") as file:
                file.write(struct.pack("<q", AHEAD_MS))
            for _ in range(rounds):  # the updater syncs as it starts, and else every five minutes
                kill_each(("updater", "monitor", "inference"))
            eventually(lambda: values_in(ledger).keys() >= askers.sent.keys(), 60, "every answer in the ledger")
            eventually(lambda: scores_in(ledger).keys() >= askers.sent.keys(), 90, "a score of every answer")
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(timeout=10) == 0
    kept, found = values_in(ledger), scores_in(ledger)
    again = scored_again(data, config, time.time_ns() // 1_000_000 + HOUR_MS)
    return Outcome(
        sent=askers.sent,
        told=askers.told,
        kills=kills,
        changed=askers.changed,
        lost=[
            f"{key}: sent {value}, kept {kept.get(key)}" for key, value in askers.sent.items() if kept.get(key) != value
        ],
        rewritten=askers.rewritten,
        unscored=[f"{key}: {found.get(key)}" for key in askers.sent if key not in found or found[key].reason],
        scored=len(found),
        different=[
            f"{found[key]}, again {score}"
            for key, score in again.items()
            if key in found and found[key] != score._replace(scored_ms=found[key].scored_ms)
        ],
    )


def kill(node: Node, module: str) -> int:
    """Kill a process of the node as soon as it is there; returns 1, and 0 if it does not come in time."""
    killed = child_of(node, module)
    deadline_s = time.monotonic() + 20
    while killed is None and time.monotonic() < deadline_s:
        time.sleep(0.02)
        killed = child_of(node, module)
    if killed is None:
        return 0
    killed.kill()
    return 1


def scored_again(data: Path, config: Path, now_ms: int) -> dict[Key, Score]:
    """Score everything anew in this process, after all others have ended, in a copy of the ledger."""
    copy = data / "copy.sqlite3"
    with sa.create_engine(f"sqlite:///{data / 'ledger.sqlite3'}", poolclass=sa.pool.NullPool).connect() as connection:
        connection.exec_driver_sql(f"VACUUM INTO '{copy}'")
    engine = sa.create_engine(f"sqlite:///{copy}", poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.execute(scores.delete())
        connection.execute(candle_days.delete())
    settings, book = load_settings(data_dir=data), ScoreBook(f"sqlite:///{copy}")
    homes = HomeStore(settings.klines_dir, settings.venues)
    scorer = Scorer(book, homes, topics_from_config(config), "SIMULATED")
    while scorer.step(now_ms) or scorer.is_sweeping:
        assert not scorer.fault
    assert not scorer.fault
    book.close()
    return scores_in(copy)
