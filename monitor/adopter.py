"""Adopts what ``TRUTH_VENUE=auto`` and ``BASE_RULE=auto`` stand for, once the recovered truths leave no doubt.

The rule: a value is adopted when every topic that shares the setting was judged since the start, at least one of them
proves the value (``truth.ranking.beyond_doubt``, by epochs that span a day), and none tells another. TRUTH_VENUE is
shared by the price topics, BASE_RULE by the topics without a ``Base`` of their own. While topics tell different values
nothing is adopted: the setting is one for the whole deployment. An adoption is never taken back.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog

from core.clock import DAY_MS, HOUR_MS, Clock
from core.seldom import Seldom
from core.settings import Settings
from core.topic import Target, Topic
from ledger.epochs import Adoption, EpochBook, Stage
from market.store.home_store import HomeStore
from monitor.candles import Candles
from truth.adopted import DEFAULTS, TRUTH_VENUE, fault_of
from truth.ranking import beyond_doubt
from truth.study import study

JUDGED_EVERY_MS = HOUR_MS  # each topic
NEWEST, EPOCHS = 600, 60  # of the newest epochs, two days of five-minute ones, so many are judged by
LEAST_SPAN_MS = DAY_MS  # of those: for some hours reputers may score against a stand-in of their usual source
NAMED = 3  # topics, in the evidence that is kept
SELDOM_S = 6 * 3600.0

log = structlog.get_logger()


class Told(NamedTuple):
    """The value that a topic's recovered truths tell for a setting."""

    value: str
    is_proven: bool  # beyond doubt
    evidence: str = ""  # a clause


Verdict = Mapping[str, Told]  # by the setting's name; without settings of which nothing is told


def judge(topic: Topic, book: EpochBook, homes: HomeStore, candles: Candles) -> Verdict:
    """Return what a topic's settled epochs tell; slow.

    Raises:
        WorkerError, or one of ``ledger.database.FAULTS``: store or ledger cannot be used now.
    """
    rows = [row for row in book.epochs_of(topic, NEWEST) if row[0].stage == Stage.SETTLED and row[0].detail]
    rows = rows[:: -(-len(rows) // EPOCHS) or 1]
    times_ms = [epoch.block_ms for epoch, _ in rows if epoch.block_ms is not None]
    is_long = bool(times_ms) and max(times_ms) - min(times_ms) >= LEAST_SPAN_MS
    ranking = study(topic, rows, homes, candles.deviation).ranking
    found = {name: finding for name in DEFAULTS if (finding := ranking.finding(name))}
    return {
        name: Told(finding.value, is_long and beyond_doubt(ranking, name), finding.evidence)
        for name, finding in found.items()
        if finding.is_told
    }


def sharing(setting: str, topics: Iterable[Topic]) -> list[Topic]:
    """Return the topics that share a setting."""
    if setting == TRUTH_VENUE:
        return [topic for topic in topics if topic.target is Target.PRICE]
    return [topic for topic in topics if topic.base is None]


class Adopter:
    """Judges a topic at a time, and writes what is proven into the ledger. For one thread.

    Args:
        book: where adoptions are written.
        settings: say which venues can be used here.
        topics: the configured ones.
        verdict_of: says what a topic's epochs tell.
        waiting: names the settings for which nothing is adopted yet; nothing is judged while there are none.
    """

    def __init__(
        self,
        book: EpochBook,
        settings: Settings,
        topics: Sequence[Topic],
        verdict_of: Callable[[Topic], Verdict],
        waiting: Callable[[], Collection[str]],
        clock: Clock,
    ) -> None:
        self._book = book
        self._settings = settings
        self._topics = topics
        self._verdict_of = verdict_of
        self._waiting = waiting
        self._clock = clock
        self._begun_ms: dict[str, int] = {}  # by Topic.key: the last look
        self._verdicts: dict[str, Verdict] = {}  # by Topic.key
        self._seldom = Seldom(every_s=SELDOM_S)

    def step(self) -> None:
        """Judge one topic whose last look is an hour ago, if a setting waits for it, and adopt what is proven.

        Raises:
            WorkerError, or one of ``ledger.database.FAULTS``: store or ledger cannot be used now.
        """
        waiting, now_ms = sorted(self._waiting()), self._clock.now_ms()
        wanted = {topic.key: topic for setting in waiting for topic in sharing(setting, self._topics)}
        for key, topic in wanted.items():
            if not 0 <= now_ms - self._begun_ms.get(key, -JUDGED_EVERY_MS) < JUDGED_EVERY_MS:
                self._begun_ms[key] = now_ms  # also if it fails: the other topics have their turn
                self._verdicts[key] = self._verdict_of(topic)
                break
        for setting in waiting:
            self._adopt(setting, now_ms)

    def _adopt(self, setting: str, now_ms: int) -> None:
        keys = [topic.key for topic in sharing(setting, self._topics)]
        told = {key: found for key in keys if (found := self._verdicts.get(key, {}).get(setting))}
        proven = {key: found for key, found in told.items() if found.is_proven}
        if not proven or not self._verdicts.keys() >= set(keys):
            return
        value = next(iter(proven.values())).value
        first = "; ".join(f"{key} {found.evidence}" for key, found in list(proven.items())[:NAMED])
        evidence = f"proven by {len(proven)} of {len(keys)} topics, contradicted by none: {first}"
        adoption = Adoption(setting=setting, value=value, evidence=evidence, adopted_ms=now_ms)
        by_topic = {key: found.value for key, found in told.items()}
        if len(set(by_topic.values())) > 1:
            reason = "the truths of the topics tell different values, and the setting is one for all of them"
            self._refuse(setting, reason, by_topic, f"set {setting} to the value of the topics that earn most")
        elif fault := fault_of(adoption, self._settings):
            self._refuse(setting, fault, by_topic, f"mend that and start again, or set {setting}")
        elif self._book.adopt(adoption):
            log.info("adoption_written", setting=setting, value=value, evidence=evidence, overrule=f"set {setting}")

    def _refuse(self, setting: str, reason: str, by_topic: Mapping[str, str], remedy: str) -> None:
        if count := self._seldom.due(setting, reason):
            log.warning(
                "adoption_not_possible", setting=setting, reason=reason, by_topic=by_topic, remedy=remedy, count=count
            )
