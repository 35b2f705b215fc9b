"""The metrics that Prometheus scrapes from the monitor: skill, participation, trainings, alarms.

docs/operating.md names and describes each of them, and a test compares. Labels are topics of config.json, panels, and
the fixed names below, so that no text from outside makes a series.
"""

from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from core.clock import DAY_MS
from core.settings import Settings
from core.topic import Topic
from model.judging.skill import Skill
from model.registry.artefact import made_ms
from monitor.chain.metrics import TOPIC_LABELS, OfChecks
from monitor.chain.results import SPAN_DAYS, OnChain
from monitor.watched import PARTS, ChainRead, Participation, Watched

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of the page; Prometheus 3 reads none without it
WINDOWS: Mapping[str, int] = {"1d": 1, "7d": 7, "30d": 30}  # days
ALARMS = tuple(
    name.removeprefix("alarm_") for name in Settings.model_fields if name.startswith("alarm_") and name != "alarm_urls"
)


class AnswerCounts(NamedTuple):
    """How many kept answers of a topic are scored, cannot be scored, and wait for their truth."""

    scored: int
    unscorable: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """What the monitor itself failed at since its start."""

    notifications: int = 0  # alarms and recoveries that could not be sent
    database: int = 0  # reads and writes


class MonitorMetrics:
    """The monitor's metrics, read from the snapshot functions at each scrape.

    The functions return what is in memory: they neither wait for a disk or a host nor raise. May be used from any
    thread.
    """

    def __init__(
        self,
        topics: Collection[Topic],
        now_ms: Callable[[], int],
        *,
        watched: Callable[[], Watched | None],
        skill: Callable[[str, int], Skill],
        answers: Callable[[], Mapping[str, AnswerCounts]],
        participation: Callable[[], Mapping[str, Participation]],
        alarms: Callable[[], Iterable[str]],
        failures: Callable[[], Failures],
        chains: Callable[[], Mapping[str, ChainRead]] = dict,
        won: Callable[[], Mapping[str, OnChain | None]] = dict,
    ) -> None:
        """Take the functions.

        Args:
            watched: the newest look; None before the first.
            skill: of a topic (``Topic.key``) in the last so many days.
            answers, participation: by ``Topic.key``; a topic of which nothing is known has no entry.
            alarms: the names of the active alarms, one for each subject.
            failures: totals since the start.
            chains: how each network's chain is read; empty if none is.
            won: where topics stand on their chains, by ``Topic.key``; None: no epoch was seen.
        """
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_OfTopics(tuple(topics), now_ms, watched, skill, answers, participation))
        self._registry.register(_OfMonitor(now_ms, watched, alarms, failures))
        self._registry.register(OfChecks(tuple(topics), now_ms, watched))
        self._registry.register(_OfChain(tuple(topics), now_ms, chains, won))

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format, of CONTENT_TYPE."""
        return generate_latest(self._registry)


class _OfTopics(Collector):
    """What is known of each topic of config.json."""

    def __init__(
        self,
        topics: Collection[Topic],
        now_ms: Callable[[], int],
        watched: Callable[[], Watched | None],
        skill: Callable[[str, int], Skill],
        answers: Callable[[], Mapping[str, AnswerCounts]],
        participation: Callable[[], Mapping[str, Participation]],
    ) -> None:
        self._topics, self._now_ms, self._watched = topics, now_ms, watched
        self._skill, self._answers, self._participation = skill, answers, participation

    def collect(self) -> Iterable[Metric]:
        yield self._info()
        yield from self._skills()
        yield self._kept()
        yield from self._participations()
        yield from self._champions()

    def _info(self) -> Metric:
        info = GaugeMetricFamily(
            "birnn_topic_info", "1; what the topic asks", labels=(*TOPIC_LABELS, "token", "target", "horizon")
        )
        for topic in self._topics:
            info.add_metric([*_labels(topic), topic.token, topic.target.value, topic.horizon], 1)
        return info

    def _skills(self) -> Iterable[Metric]:
        labels = (*TOPIC_LABELS, "window")
        skill = GaugeMetricFamily(
            "birnn_topic_skill", "1 - mean loss / mean loss of the knowing naive forecast, in the window", labels=labels
        )
        low = GaugeMetricFamily("birnn_topic_skill_low", "Lower end of the 95 % interval of the skill", labels=labels)
        high = GaugeMetricFamily("birnn_topic_skill_high", "Upper end of the 95 % interval of the skill", labels=labels)
        rows = GaugeMetricFamily("birnn_topic_skill_rows", "Scored answers that the skill rests on", labels=labels)
        for topic in self._topics:
            for window, days in WINDOWS.items():
                found, at = self._skill(topic.key, days), [*_labels(topic), window]
                rows.add_metric(at, found.n)
                for family, value in ((skill, found.skill), (low, found.low), (high, found.high)):
                    if value is not None:
                        family.add_metric(at, value)
        return skill, low, high, rows

    def _kept(self) -> Metric:
        kept = GaugeMetricFamily(
            "birnn_topic_answers",
            "Answers that are kept, by state: scored, unscorable, or waiting for their truth",
            labels=(*TOPIC_LABELS, "state"),
        )
        counts = self._answers()
        for topic in self._topics:
            if found := counts.get(topic.key):
                for state, count in found._asdict().items():
                    kept.add_metric([*_labels(topic), state], count)
        return kept

    def _participations(self) -> Iterable[Metric]:
        share = GaugeMetricFamily(
            "birnn_topic_participation", "Answered over expected epochs, 0 to 1", labels=TOPIC_LABELS
        )
        left = GaugeMetricFamily(
            "birnn_topic_missed_epochs_left",
            "Epochs that may still be missed before participation falls to 90 %",
            labels=TOPIC_LABELS,
        )
        all_found = self._participation()
        for topic in self._topics:
            if found := all_found.get(topic.key):
                share.add_metric(_labels(topic), found.share)
                left.add_metric(_labels(topic), found.missed_left)
        return share, left

    def _champions(self) -> Iterable[Metric]:
        age = GaugeMetricFamily(
            "birnn_topic_champion_age_seconds", "Since the topic's champion was trained", labels=TOPIC_LABELS
        )
        demotions = GaugeMetricFamily(
            "birnn_topic_demotions_last_day", "Champions of the topic demoted in the last 24 hours", labels=TOPIC_LABELS
        )
        if watched := self._watched():
            now_ms = self._now_ms()
            for topic in self._topics:
                if champion := watched.champions.get(topic.key):
                    age.add_metric(_labels(topic), _age_s(now_ms, made_ms(champion.version)))
                newest = watched.demotions.get(topic.key, ())
                demotions.add_metric(_labels(topic), sum(now_ms - each.demoted_ms < DAY_MS for each in newest))
        return age, demotions


class _OfMonitor(Collector):
    """What the monitor knows of the updater, of the data folder and of itself."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        watched: Callable[[], Watched | None],
        alarms: Callable[[], Iterable[str]],
        failures: Callable[[], Failures],
    ) -> None:
        self._now_ms, self._watched, self._alarms, self._failures = now_ms, watched, alarms, failures

    def collect(self) -> Iterable[Metric]:
        active, failures = Tally(self._alarms()), self._failures()
        alarms = GaugeMetricFamily("birnn_monitor_alarms", "Active alarms, by name", labels=["name"])
        for name in ALARMS:
            alarms.add_metric([name], active[name])
        yield alarms
        yield CounterMetricFamily(
            "birnn_monitor_notification_failures",
            "Alarms and recoveries that could not be sent",
            value=failures.notifications,
        )
        yield CounterMetricFamily(
            "birnn_monitor_database_failures", "Reads and writes of the ledger that failed", value=failures.database
        )
        yield from self._looks()
        yield from self._trainings()

    def _looks(self) -> Iterable[Metric]:
        look = GaugeMetricFamily("birnn_monitor_look_age_seconds", "Since the last look at the other processes")
        free = GaugeMetricFamily("birnn_monitor_free_bytes", "Free on the disk of DATA_DIR")
        fault = GaugeMetricFamily("birnn_monitor_fault", "1 while the part cannot be read", labels=["part"])
        if watched := self._watched():
            look.add_metric([], _age_s(self._now_ms(), watched.now_ms))
            if watched.free_bytes is not None:
                free.add_metric([], watched.free_bytes)
            for part in PARTS:
                fault.add_metric([part], bool(watched.faults.get(part)))
        return look, free, fault

    def _trainings(self) -> Iterable[Metric]:
        beat = GaugeMetricFamily("birnn_monitor_updater_heartbeat_age_seconds", "Since the updater's last heartbeat")
        failed = GaugeMetricFamily(
            "birnn_monitor_training_failures", "Trainings of the panel in a row that failed", labels=["panel"]
        )
        running = GaugeMetricFamily("birnn_monitor_training_running", "1 while the panel is trained", labels=["panel"])
        age = GaugeMetricFamily(
            "birnn_monitor_training_age_seconds", "Since the panel's last training ended", labels=["panel"]
        )
        watched = self._watched()
        if watched and (updater := watched.updater):
            now_ms = self._now_ms()
            beat.add_metric([], _age_s(now_ms, updater.heartbeat_ms))
            for name, panel in updater.panels.items():
                failed.add_metric([name], panel.failures)
                running.add_metric([name], panel.running_since_ms is not None)
                if panel.outcome:
                    age.add_metric([name], _age_s(now_ms, panel.outcome.finished_ms))
        return beat, failed, running, age


class _OfChain(Collector):
    """What the network made of the answers."""

    def __init__(
        self,
        topics: Collection[Topic],
        now_ms: Callable[[], int],
        chains: Callable[[], Mapping[str, ChainRead]],
        won: Callable[[], Mapping[str, OnChain | None]],
    ) -> None:
        self._topics, self._now_ms, self._chains, self._won = topics, now_ms, chains, won

    def collect(self) -> Iterable[Metric]:
        days = f"Epochs of the last {SPAN_DAYS} days"
        won = GaugeMetricFamily("birnn_chain_epochs_won", f"{days} that were won", labels=TOPIC_LABELS)
        lost = GaugeMetricFamily("birnn_chain_epochs_lost", f"{days} that were lost", labels=TOPIC_LABELS)
        unknown = GaugeMetricFamily(
            "birnn_chain_epochs_unknown", f"{days} whose end the monitor did not see", labels=TOPIC_LABELS
        )
        counts = self._won()
        for topic in self._topics:
            if found := counts.get(topic.key):
                won.add_metric(_labels(topic), found.won)
                lost.add_metric(_labels(topic), found.lost)
                unknown.add_metric(_labels(topic), found.unknown)
        requests = CounterMetricFamily(
            "birnn_chain_requests", "Requests of the monitor to the chain's hosts", labels=["network"]
        )
        age = GaugeMetricFamily("birnn_chain_seen_age_seconds", "Since the chain was last read", labels=["network"])
        for network, seen in self._chains().items():
            requests.add_metric([network], seen.requests)
            if seen.seen_ms is not None:
                age.add_metric([network], _age_s(self._now_ms(), seen.seen_ms))
        return won, lost, unknown, requests, age


def _labels(topic: Topic) -> tuple[str, str]:
    return topic.network or "", str(topic.topic_id)


def _age_s(now_ms: int, then_ms: int) -> float:
    return max(0, now_ms - then_ms) / 1000
