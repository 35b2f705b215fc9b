"""The metrics that Prometheus scrapes at /metrics."""

import shutil
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from core.files import existing
from core.topic import Topic
from inference.answering import InferenceService
from inference.http.holds import Holds, Reason
from inference.question import NODE
from ledger.answers import Answer
from market.failover.failover import Failover
from market.live.live_market import LiveMarket

TOPIC_LABELS = ("network", "topic")  # chain id, empty when the config does not say; and topic id
LATENCY_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
ANCHOR_AGE_S = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
FORECAST_AGE_S = (1.0, 5.0, 15.0, 30.0, 60.0, 90.0, 120.0, 180.0, 600.0, 1800.0, 3600.0, 3720.0)
HELD_S = (0.1, 0.25, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 90.0, 120.0)

_Key = tuple[str, str | None, int, str, int]  # asker, network, topic id (0: no topic), version, status


class _Buckets(Collector):
    """A histogram for one thread. The library's histogram takes a lock for each number, and four times as long."""

    def __init__(self, name: str, what: str, bounds: Sequence[float]) -> None:
        self._name, self._what, self._bounds = name, what, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[Metric]:
        upper = [*map(floatToGoString, self._bounds), "+Inf"]
        family = HistogramMetricFamily(self._name, self._what)
        family.add_metric([], list(zip(upper, accumulate(self._counts), strict=True)), self._sum)
        return [family]


class Metrics:
    """Counts questions and answers, and reads gauges from the service at each scrape. For the event loop alone."""

    def __init__(
        self,
        service: InferenceService,
        live: LiveMarket,
        venues: Failover | None = None,
        data_dir: Path | None = None,
        holds: Holds | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        self._service = service
        self._answers: Tally[_Key] = Tally()
        self._latency = _Buckets("birnn_answer_seconds", "Time from question to answer inside the process", LATENCY_S)
        self._anchor_age = _Buckets(
            "birnn_answer_anchor_age_seconds",
            "Age of the price that an answer to the node starts from when it is made",
            ANCHOR_AGE_S,
        )
        self._forecast_age = _Buckets(
            "birnn_answer_forecast_age_seconds",
            "Time since the last candle closed that the forecast of an answer to the node has read, when it is made",
            FORECAST_AGE_S,
        )
        self._held = Histogram(
            "birnn_answer_held_seconds",
            "How long questions were held: not_yet until they could be answered, worth until the answer was worth most",
            ("reason",),
            buckets=HELD_S,
            registry=self._registry,
        )
        self._gone = Counter(
            "birnn_held_clients_gone", "Held questions whose client did not wait", registry=self._registry
        )
        self._unlogged = Counter(
            "birnn_log_lines_dropped", "Answer lines that could not be logged", registry=self._registry
        )
        market = Info("birnn_market", "Where prices come from: BINANCE or SIMULATED", registry=self._registry)
        market.info({"market": service.market_name})
        ProcessCollector(registry=self._registry)
        for collector in (self._latency, self._anchor_age, self._forecast_age):
            self._registry.register(collector)
        self._registry.register(_State(service, live, venues, data_dir, holds, self._answers))

    def answered(
        self, topic: Topic | None, answer: Answer | None, status: int, took_s: float, asked_ms: int, asker: str
    ) -> None:
        """Count one question.

        Before a new series is added, series of versions that answer no more are dropped: they would pile up for months.

        Args:
            topic: None if the question named no configured topic.
            answer: None if the question was refused. Ages are counted only for answers that were made for this question
                of the node, and not for recalled answers.
            asker: NODE or HAND.
        """
        version = answer.version if answer else ""
        network, topic_id = (topic.network, topic.topic_id) if topic else (None, 0)
        key = (asker, network, topic_id, version, status)
        if key not in self._answers:
            self._forget_the_replaced()
        self._answers[key] += 1
        self._latency.observe(took_s)
        if answer and asker == NODE and answer.answered_ms >= asked_ms:
            self._anchor_age.observe(answer.anchor_age_ms(answer.answered_ms) / 1000)
            self._forecast_age.observe(answer.forecast_age_ms(answer.answered_ms) / 1000)

    def held(self, reason: str, seconds: float) -> None:
        """Count one held question, when it is answered or refused."""
        self._held.labels(reason).observe(seconds)

    def client_gone(self) -> None:
        """Count one held question whose client has gone."""
        self._gone.inc()

    def line_dropped(self) -> None:
        """Count an answer that could not be logged."""
        self._unlogged.inc()

    def text(self) -> bytes:
        """Return the metrics as text."""
        self._forget_the_replaced()
        return generate_latest(self._registry)

    def _forget_the_replaced(self) -> None:
        current = {"", *self._service.versions()}
        for key in [key for key in self._answers if key[3] not in current]:
            del self._answers[key]


class _State(Collector):
    """Ages and faults at the moment of the scrape."""

    def __init__(
        self,
        service: InferenceService,
        live: LiveMarket,
        venues: Failover | None,
        data_dir: Path | None,
        holds: Holds | None,
        answers: Tally[_Key],
    ) -> None:
        self._answers = answers
        self._holds = holds
        self._service = service
        self._live = live
        self._venues = venues
        self._data_dir = data_dir

    def _held(self) -> Metric:
        held = GaugeMetricFamily("birnn_questions_held", "Questions that are held now, by reason", labels=["reason"])
        for reason in Reason:
            held.add_metric([reason.value], self._holds.held[reason] if self._holds else 0)
        return held

    def _answered(self) -> Metric:
        answered = CounterMetricFamily(
            "birnn_answers",
            "Questions by who asked (node, or hand) and what was answered",
            labels=("asker", "network", "topic", "version", "status"),
        )
        for (asker, network, topic_id, version, status), count in self._answers.items():
            answered.add_metric([asker, network or "", str(topic_id or ""), version, str(status)], count)
        return answered

    def collect(self) -> Iterable[Metric]:
        service, now_ms = self._service, self._service.now_ms()
        ready = GaugeMetricFamily("birnn_topic_ready", "1 when the topic can be answered", labels=TOPIC_LABELS)
        persistence = GaugeMetricFamily(
            "birnn_topic_persistence", "1 when the naive forecast answers in a champion's place", labels=TOPIC_LABELS
        )
        naive = GaugeMetricFamily(
            "birnn_topic_naive",
            "1 when the forecast is the naive one: no champion answers, or the network adds nothing",
            labels=TOPIC_LABELS,
        )
        anchor = GaugeMetricFamily("birnn_anchor_age_seconds", "Age of the newest trade price", labels=["symbol"])
        klines = GaugeMetricFamily(
            "birnn_kline_age_seconds", "Since the newest closed kline ended", labels=["symbol", "panel"]
        )
        model = GaugeMetricFamily("birnn_model_age_seconds", "Since the version in use was trained", labels=["version"])
        not_ready = service.not_ready()
        symbols, panels, versions = set(), set(), set()
        for topic in service.topics:
            ready.add_metric(_labels(topic), float(topic.key not in not_ready))
            persistence.add_metric(_labels(topic), float(bool(service.instead_of_champion(topic))))
            if (why := service.why_naive(topic)) is not None:
                naive.add_metric(_labels(topic), float(bool(why)))
            price, state = service.anchor(topic), service.state(topic)
            if price and topic.symbol not in symbols:
                symbols.add(topic.symbol)
                anchor.add_metric([topic.symbol], (now_ms - price.asof_ms) / 1000)
            if state and (topic.symbol, state.panel.name) not in panels:
                panels.add((topic.symbol, state.panel.name))
                klines.add_metric([topic.symbol, state.panel.name], (now_ms - state.klines_end_ms) / 1000)
            if state and state.champion and state.champion not in versions:
                versions.add(state.champion)
                model.add_metric([state.champion], (now_ms - state.created_ms) / 1000)
        feed = CounterMetricFamily("birnn_feed_errors", "Requests to the venue that failed", labels=["kind"])
        for kind, count in self._live.errors.items():
            feed.add_metric([kind], count)
        incidents = CounterMetricFamily("birnn_feed_incidents", "What the feed dealt with by itself", labels=["kind"])
        for kind, count in self._live.incidents.items():
            incidents.add_metric([kind], count)
        stream = GaugeMetricFamily(
            "birnn_stream_up",
            "1 while the stream sends prices, 0 while they are polled",
            value=not self._live.stream_fault,
        )
        ahead = GaugeMetricFamily(
            "birnn_venue_clock_ahead_seconds",
            "The venue's clock less this machine's",
            value=self._live.clock_ahead_ms / 1000,
        )
        venue = GaugeMetricFamily(
            "birnn_venue_in_use", "1 for the venue of a symbol's newest price", labels=["symbol", "venue"]
        )
        truth = GaugeMetricFamily(
            "birnn_truth_ratio", "What the anchor of a symbol's price topics is multiplied by", labels=["symbol"]
        )
        truth_age = GaugeMetricFamily(
            "birnn_truth_ratio_age_seconds", "Since the newest minute that it was measured on", labels=["symbol"]
        )
        ratios = {topic.symbol: ratio for topic in service.topics if (ratio := service.truth_ratio(topic, now_ms))}
        for symbol, ratio in ratios.items():
            truth.add_metric([symbol], ratio.value)
            truth_age.add_metric([symbol], (now_ms - ratio.newest_ms) / 1000)
        for symbol in sorted(symbols):
            if (price := self._live.anchor(symbol)) and price.venue:
                venue.add_metric([symbol, price.venue], 1)
        of_venues = (venue, truth, truth_age, *(_of_venues(self._venues) if self._venues else ()))
        ledger = service.ledger
        failures = CounterMetricFamily("birnn_ledger_failures", "Reads and writes that failed", value=ledger.failures)
        dropped = CounterMetricFamily("birnn_ledger_dropped", "Answers never written", value=ledger.dropped)
        unjournalled = CounterMetricFamily(
            "birnn_ledger_unjournalled",
            "Answers sent before the disk had them: it took no line",
            value=ledger.unjournalled,
        )
        unwritten = GaugeMetricFamily("birnn_ledger_unwritten", "Answers queued for writing", value=ledger.unwritten)
        free = GaugeMetricFamily("birnn_data_free_bytes", "Free on the disk of DATA_DIR")
        if self._data_dir:
            free.add_metric([], shutil.disk_usage(existing(self._data_dir)).free)
        of_feed = (self._answered(), feed, incidents, stream, ahead, *of_venues, free, self._held())
        return ready, persistence, naive, anchor, klines, model, *of_feed, failures, dropped, unjournalled, unwritten


def _of_venues(venues: Failover) -> Iterable[Metric]:
    """State of each venue, its requests, and its candles that were rejected or marked."""
    left = GaugeMetricFamily(
        "birnn_venue_left", "Kinds of question and symbols for which it is left alone", labels=["venue", "state"]
    )
    for (name, state), count in Tally((key[0], fault.state) for key, fault in venues.faults.items()).items():
        left.add_metric([name, state], count)
    asked = GaugeMetricFamily("birnn_venue_asked", "Requests within the last minute", labels=["venue"])
    most = GaugeMetricFamily("birnn_venue_budget", "Requests that it is asked in a minute at most", labels=["venue"])
    for venue in venues.venues:
        asked.add_metric([venue.info.name], venue.hosts.limits.asked_last_minute)
        most.add_metric([venue.info.name], venue.info.requests_a_minute)
    refused = CounterMetricFamily("birnn_rows_rejected", "Candles not believed", labels=["venue", "symbol", "reason"])
    for labels, count in sorted(venues.quarantine.counts.items()):
        refused.add_metric(labels, count)
    marked = CounterMetricFamily("birnn_rows_marked", "Odd candles that are used", labels=["venue", "symbol", "reason"])
    for labels, count in sorted(venues.quarantine.marks.items()):
        marked.add_metric(labels, count)
    return left, asked, most, refused, marked


def _labels(topic: Topic) -> tuple[str, str]:
    return topic.network or "", str(topic.topic_id)
