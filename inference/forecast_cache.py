"""The newest forecasts of all topics, made in the background when candles close or champions change."""

import threading
from collections.abc import Iterable, Mapping
from typing import Protocol

import structlog

from core.clock import HOUR_MS, MINUTE_MS, Clock
from core.errors import WorkerError
from core.heap import give_back_heap
from core.seldom import Seldom
from core.sources import PERSISTENCE
from core.topic import Target, Topic
from inference.champions import NOTHING as NONE_CHOSEN
from inference.champions import Champions, Chosen
from inference.stretches import starts
from inference.topic_state import TopicState
from klines.klines import Klines
from model.answer import Start
from model.features import rows_needed
from model.forecaster import BiRNNForecaster, Forecasts, HeadForecast, Naive, Reasons
from model.heads import Head, head_of
from model.panels import LONGEST_LOOKBACK, panel_of, panels_for
from model.registry.versions import Registry
from node.dry_run_heights import BLOCK_MS, epoch_blocks

OPENING_ROWS = 180  # minutes kept of a symbol that is forecast from longer candles
# Kept beyond what a forecast reads: with a hole of some hours, enough candles are left.
SPARE_MS = 25 * HOUR_MS

log = structlog.get_logger()


class Candles(Protocol):
    """The candles that the live market holds."""

    def snapshot(self, interval_ms: int) -> Mapping[str, Klines]: ...


def rows_to_keep(topics: Iterable[Topic]) -> dict[tuple[str, int], int]:
    """Return how many klines of each (symbol, interval_ms) to keep, enough for champions of any lookback.

    Minutes are kept of every topic's symbol: they say how an interval began, also where hours make the forecast.
    """
    rows: dict[tuple[str, int], int] = {}
    for panel, plan in panels_for(topics).items():
        longest = max(panel.steps(head) for head in plan.heads) + 1
        needed = max(rows_needed(panel.reading(LONGEST_LOOKBACK)), longest)
        for symbol in plan.symbols:
            rows[symbol, panel.interval_ms] = needed + SPARE_MS // panel.interval_ms
        for symbol in {topic.symbol for topic in plan.topics}:
            rows.setdefault((symbol, MINUTE_MS), OPENING_ROWS)
    return rows


class ForecastCache:
    """Makes and keeps a ``TopicState`` of each topic.

    Attributes:
        states: by Topic.key. Replaced as a whole and never changed, so the event loop reads it without a lock, and no
            answer is half of one champion and half of another.
    """

    def __init__(self, topics: Iterable[Topic], live: Candles, registry: Registry, clock: Clock) -> None:
        self.states: Mapping[str, TopicState] = {}
        self._topics = tuple(topics)
        self._live = live
        self._champions = Champions(registry, self._topics, clock)
        self._chosen = NONE_CHOSEN
        self._chosen_once = False
        self._naive = Naive()
        self._windows: dict[int, Mapping[str, Klines]] = {}  # by interval: the candles that closed together
        self._forecasts: dict[str, tuple[Forecasts, Reasons]] = {}  # by version
        self._fallbacks: dict[tuple[str, Head], tuple[HeadForecast | None, str]] = {}  # naive forecast, or the fault
        self._forecasting = threading.Lock()  # between the threads of candles and champions; requests never take it
        self._seldom = Seldom()

    @property
    def versions(self) -> Iterable[str]:
        """The versions of the champions in use."""
        return self._chosen.versions

    def candles_closed(self, interval_ms: int) -> None:
        """Forecast from the newest candles of an interval: one pass per network, for all symbols and heads."""
        with self._forecasting:
            self._windows[interval_ms] = self._live.snapshot(interval_ms)
            for version, forecaster in self._chosen.versions.items():
                if forecaster.panel.interval_ms == interval_ms:
                    self._run(version, forecaster)
            self._fall_back(interval_ms)
            self._publish_states()
        give_back_heap()

    def choose(self) -> None:
        """Put new champions to use, if there are any, once they have forecasts."""
        chosen = self._champions.poll()
        if chosen is None and self._chosen_once:
            return
        with self._forecasting:
            self._chosen_once = True
            if chosen is not None:
                self._adopt(chosen)
            self._publish_states()

    def _adopt(self, chosen: Chosen) -> None:
        for version, forecaster in chosen.versions.items():
            if version not in self._forecasts:
                self._run(version, forecaster)
        before, self._chosen = self._chosen, chosen
        self._forecasts = {version: self._forecasts[version] for version in chosen.versions}
        for key, forecaster in chosen.forecasters.items():
            old = before.forecasters.get(key)
            if old is None or old.version != forecaster.version:
                log.info(
                    "champion_in_use",
                    topic=key,
                    version=forecaster.version,
                    before=old.version if old else PERSISTENCE,
                )

    def _run(self, version: str, forecaster: BiRNNForecaster) -> None:
        """Make one pass of one network; a symbol that is left out keeps its forecast until that is too old."""
        before, _ = self._forecasts.get(version, ({}, {}))
        try:
            forecasts, reasons = forecaster.forecast(self._windows.get(forecaster.panel.interval_ms, {}))
        except Exception as error:
            if count := self._seldom.due("forecast_failed", version):
                log.exception("forecast_failed", version=version, count=count)
            forecasts, reasons = {}, dict.fromkeys((topic.symbol for topic in self._topics), f"{version}: {error!r}")
        self._forecasts[version] = ({**before, **forecasts}, reasons)

    def _publish_states(self) -> None:
        if not self._chosen_once:
            return  # or the naive forecast would answer for a champion that is still being read
        states: dict[str, TopicState] = {}
        for topic in self._topics:
            panel, head = panel_of(topic.horizon_min), head_of(topic)
            klines = self._windows.get(panel.interval_ms, {}).get(topic.symbol)
            if klines is None or not len(klines):
                continue
            forecaster = self._chosen.forecasters.get(topic.key)
            forecasts, reasons = self._forecasts[forecaster.version] if forecaster else ({}, {})
            fallback, fallback_fault = self._fallbacks[topic.symbol, head]
            forecast = forecasts.get((topic.symbol, head))
            asof_ms = forecast.asof_ms if forecast else 0
            last_read = klines.between(asof_ms - panel.interval_ms, asof_ms)
            states[topic.key] = TopicState(
                topic=topic,
                panel=panel,
                klines_end_ms=klines.end_ms,
                close=float(klines.close[-1]),
                champion=forecaster.version if forecaster else "",
                created_ms=forecaster.manifest.created_ms if forecaster else 0,
                forecast=forecast,
                window_close=float(last_read.close[0]) if len(last_read) else None,
                fault=self._chosen.faults.get(topic.key) or reasons.get(topic.symbol, ""),
                fallback=fallback,
                fallback_fault=fallback_fault,
                starts=self._starts(topic),
            )
        self.states = states

    def _starts(self, topic: Topic) -> Mapping[int, Start]:
        minutes = self._windows.get(MINUTE_MS, {}).get(topic.symbol)
        if topic.target is not Target.VOLATILITY or minutes is None:
            return {}
        epoch_min = max(1, round(epoch_blocks(topic) * BLOCK_MS / MINUTE_MS))
        return starts(minutes, head_of(topic), epoch_min)

    def _fall_back(self, interval_ms: int) -> None:
        windows = self._windows[interval_ms]
        for symbol, head in {(topic.symbol, head_of(topic)) for topic in self._topics}:
            if panel_of(head.horizon_min).interval_ms == interval_ms and len(windows.get(symbol, ())):
                try:
                    self._fallbacks[symbol, head] = self._naive.forecast(windows[symbol], symbol, head), ""
                except WorkerError as error:
                    self._fallbacks[symbol, head] = None, str(error)
