"""The parts of the monitor, put together: scorer, skills, records of admission, the page and the metrics."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from fastapi import FastAPI, Response

from admission.live import RECORD_DAYS, LiveReadiness, live_readiness
from core.clock import DAY_MS, Clock
from core.errors import WorkerError
from core.settings import Settings
from core.topic import Topic
from ledger.database import FAULTS
from ledger.epochs import EpochBook
from ledger.scores import ScoreBook
from market.store.home_store import HomeStore
from model.judging.comparison import Comparison
from model.stretch import is_for_admission
from monitor.adopter import Adopter, Verdict, judge
from monitor.alarm_book import AlarmBook
from monitor.app import create_app
from monitor.candles import Candles
from monitor.chain.checks import Checks
from monitor.chain.results import MOST_EPOCHS, ChainSeen, OnChain, on_chain
from monitor.loops import Step
from monitor.metrics import CONTENT_TYPE, AnswerCounts, Failures, MonitorMetrics
from monitor.scorer import Scorer
from monitor.skills import SkillBook
from monitor.snapshot import LastSeen, Snapshot, last_seen
from monitor.view import View
from monitor.watched import Checked, InferenceSeen, Participation, Watched
from node.versions import NodeVersions
from updater.live_losses import compare_live, live_losses

if TYPE_CHECKING:
    from monitor.chain.watch import ChainWatch

SCORE_S = 5.0
TRIM_S = 5.0
TRIM_ROWS = 500  # of answers at a turn, in some 20 ms: eight million a day, and 55 topics add 16,000
DETAIL_DAYS = 40  # that the workers of an epoch are kept
EPOCHS_S = 2.0  # one topic's epochs are read at a turn, in some 0.1 s: of 55 topics each every two minutes
ADOPT_S = 60.0  # one topic is judged at a turn
RECORD_S = 5.0  # one topic's record is read at a turn: of 55 topics each every five minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the parts of the monitor are built on."""

    settings: Settings
    topics: Sequence[Topic]
    clock: Clock
    alarms: AlarmBook
    newest: Callable[[], Watched | None]  # the newest look; None before the first
    rpc_urls: Mapping[str | None, Sequence[str]] = field(default_factory=dict)  # of the chain, by network
    nodes: Mapping[str | None, NodeVersions] = field(default_factory=dict)  # the official nodes, by network
    waiting: Callable[[], frozenset[str]] = frozenset  # names of the settings for which nothing is adopted yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What ``monitor.__main__.serve`` runs beside the watch and the alarms."""

    app: FastAPI
    steps: Sequence[Step] = ()
    # By Topic.key, for the alarms; called with each look, so they answer from memory.
    skills: Callable[[Watched], Mapping[str, Comparison]] = lambda _: {}
    participation: Callable[[Watched], Mapping[str, Participation]] = lambda _: {}
    checked: Callable[[], Mapping[str, Checked]] = dict  # likewise, of the chain
    seen: Callable[[Watched], object] = lambda _: None  # called after each look
    end: Callable[[], object] = lambda: None  # called last


def build(ground: Ground) -> Parts:
    """Return the parts of the monitor."""
    rooms = _Rooms(ground)
    return Parts(
        app=rooms.app(),
        steps=(
            Step(name="score", run=rooms.score, every_s=SCORE_S),
            Step(name="record", run=rooms.read_record, every_s=RECORD_S),
            Step(name="epochs", run=rooms.read_epochs, every_s=EPOCHS_S),
            Step(name="trim", run=rooms.trim, every_s=TRIM_S),
            *(rooms.chain.steps if rooms.chain else ()),
            Step(name="adopt", run=rooms.adopt, every_s=ADOPT_S),
        ),
        skills=lambda _: rooms.compared,
        participation=lambda _: rooms.participation,
        checked=lambda: rooms.checks.seen,
        seen=rooms.show,
        end=rooms.close,
    )


class _Rooms:
    """The parts, and what they hand to each other."""

    def __init__(self, ground: Ground) -> None:
        settings, self._ground = ground.settings, ground
        self._market = settings.market.value.upper()
        self._topics = {topic.key: topic for topic in ground.topics}
        self._book = ScoreBook(settings.ledger_url)
        self._epochs = EpochBook(settings.ledger_url)
        self.chain = self._chain_watch() if settings.lcds else None
        self.checks = Checks(settings, self._book, ground.nodes)
        self._skills = SkillBook(self._book, ground.topics)
        homes = HomeStore(settings.klines_dir, settings.venues)
        self._scorer = Scorer(
            self._book, homes, ground.topics, self._market, self._skills, truth_venue=settings.truth_venue
        )
        self._adopter = Adopter(self._epochs, settings, ground.topics, self._verdict, ground.waiting, ground.clock)
        self._view = View(
            self._skills, {topic.key for topic in ground.topics if is_for_admission(topic, settings.objective)}
        )
        now_ms = ground.clock.now_ms()
        nothing = InferenceSeen(url=settings.inference_address)
        self._snapshot = Snapshot(watched=Watched(now_ms=now_ms, market=self._market, inference=nothing))
        self._turns = cycle(self._topics)
        self._epoch_turns = cycle(self._topics)
        self._on_chain: dict[str, OnChain | None] = {}  # by Topic.key
        self._chains_seen_ms: dict[str, int] = {}  # by network
        self._live: dict[str, LiveReadiness] = {}  # by Topic.key
        self._counts: dict[str, AnswerCounts] = {}  # likewise
        self._newest: dict[str, LastSeen] = {}  # likewise
        self.compared: dict[str, Comparison] = {}  # by Topic.key: the champion's answers and the naive forecast
        self._failures: Counter[str] = Counter()
        self._reading = Lock()  # held while a step reads thousands of rows: two at once take too much memory

    def _chain_watch(self) -> "ChainWatch":
        from monitor.chain.watch import ChainWatch  # noqa: PLC0415 -- with requests some 7 MB, where a chain is followed

        ground = self._ground
        return ChainWatch(ground.settings, ground.topics, ground.rpc_urls, self._epochs, ground.clock)

    def app(self) -> FastAPI:
        """The page, with the metrics."""
        ground = self._ground
        app = create_app(lambda: self._snapshot, self._book.answers_of, self._epochs.epochs_of, ground.clock)
        metrics = MonitorMetrics(
            ground.topics,
            ground.clock.now_ms,
            watched=ground.newest,
            skill=self._skills.skill,
            answers=lambda: self._counts,
            participation=lambda: self.participation,
            alarms=lambda: [kept.name for kept in ground.alarms.standing],
            failures=lambda: Failures(notifications=ground.alarms.failures, database=self._failures["database"]),
            chains=lambda: self.chain.seen if self.chain else {},
            won=lambda: self._on_chain,
        )

        @app.get("/metrics", include_in_schema=False)
        def scrape() -> Response:
            return Response(metrics.text(), media_type=CONTENT_TYPE)

        return app

    @property
    def participation(self) -> dict[str, Participation]:
        """By ``Topic.key``; without topics that were not answered yet."""
        return {
            key: Participation(share=live.submitted / live.expected, missed_left=live.missed_left)
            for key, live in self._live.items()
            if live.missed_left is not None and live.expected
        }

    def score(self) -> bool:
        """Score some answers; True if there may be more at once."""
        with self._reading:
            made = self._scorer.step(self._ground.clock.now_ms())
        if self._scorer.fault:
            self._failures["database"] += 1
            raise ScoringFailed(self._scorer.fault)
        return made > 0 or self._scorer.is_sweeping

    def read_record(self) -> None:
        """Judge the record of the topic whose turn it is: all at once would delay the page."""
        key, now_ms = next(self._turns), self._ground.clock.now_ms()
        topic, seen = self._topics[key], self._ground.newest()
        with self._counted(), self._reading:
            record = self._book.record(topic, self._market, now_ms - RECORD_DAYS * DAY_MS)
            for answer, _ in self._book.answers_of(topic, 1):
                if answer.answers(topic, self._market):
                    self._newest[key] = last_seen(answer)
        readiness = seen.admission.get(key) if seen else None
        self._live[key] = live_readiness(
            topic, record, now_ms=now_ms, block_ms=readiness.block_ms if readiness else None
        )
        scored, given = int(np.isfinite(record.truth).sum()), len(record.height)
        unscorable = self._book.unscorable(topic, now_ms - RECORD_DAYS * DAY_MS)
        self._counts[key] = AnswerCounts(
            scored=scored, unscorable=unscorable, waiting=max(0, given - scored - unscorable)
        )
        self._compare(topic, seen)

    def read_epochs(self) -> None:
        """Read what the chain made of the topic whose turn it is: where it stands, and how it passes the checks."""
        topic, now_ms = self._topics[next(self._epoch_turns)], self._ground.clock.now_ms()
        if not self._epochs.is_begun:
            return
        network = topic.network or ""
        with self._counted():
            rows, sightings = self._epochs.epochs_of(topic, MOST_EPOCHS), self._epochs.sightings(network)
            self.checks.check(topic, rows, sightings)
        checked = self.checks.seen.get(topic.key)
        is_log = checked.truth.is_log if checked and checked.truth else None
        self._on_chain[topic.key] = on_chain(rows, now_ms, is_log=is_log)
        if sightings:
            self._chains_seen_ms[network] = max(one.seen_ms for one in sightings.values())

    def _compare(self, topic: Topic, seen: Watched | None) -> None:
        champion = seen.champions.get(topic.key) if seen else None
        if champion is None:
            self.compared.pop(topic.key, None)
            return
        readiness = seen.admission.get(topic.key) if seen else None
        columns = self._book.columns(topic, champion.since_ms + topic.horizon_ms)
        objective, stretch = self._ground.settings.objective, readiness.stretch if readiness else None
        self.compared[topic.key] = compare_live(topic, live_losses(topic, champion, columns, objective, stretch))

    def trim(self) -> None:
        """Delete some of the answers and scores that are too old; never all at once, beside inference's writes."""
        settings, now_ms = self._ground.settings, self._ground.clock.now_ms()
        with self._counted():
            self._book.trim(now_ms, settings.ledger_days, TRIM_ROWS)
            known_ms = min(now_ms, self._epochs.newest_ms())  # a clock that runs ahead deletes nothing
            self._epochs.trim(known_ms - settings.ledger_days * DAY_MS, known_ms - DETAIL_DAYS * DAY_MS, TRIM_ROWS)

    def adopt(self) -> None:
        """Judge a topic's recovered truths, and adopt what they prove."""
        with self._counted():
            self._adopter.step()

    def _verdict(self, topic: Topic) -> Verdict:
        """Judge from a reading of the store of its own, whose memory is given back."""
        homes = HomeStore(self._ground.settings.klines_dir, self._ground.settings.venues)
        return judge(topic, self._epochs, homes, Candles(homes))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count what the ledger refuses."""
        try:
            yield
        except FAULTS:
            self._failures["database"] += 1
            raise

    def show(self, watched: Watched) -> None:
        """Make the page's next snapshot."""
        if fault := self._ground.alarms.fault:
            watched = replace(watched, faults={**watched.faults, "alarms": fault})
        seen = ChainSeen(bool(self._ground.settings.lcds), self._chains_seen_ms, self._on_chain)
        self._snapshot = self._view.build(watched, self._ground.alarms.standing, self._live, seen, self._newest)

    def close(self) -> None:
        if self.chain:
            self.chain.close()
        self._epochs.close()
        self._book.close()


class ScoringFailed(WorkerError):
    """The scorer could not do a step; it has logged why."""
