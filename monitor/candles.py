"""The stored candles that scores are made from: each series is read once for many scores."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Floats, Klines
from klines.returns import candle_returns, rolling_sum
from market.store.absence import read_absent
from market.store.home_store import HomeStore
from model.features import FLAT
from model.heads import head_of
from model.panels import panel_of

PAST_DAYS = 30  # of the minute panel; returns of these days tell what a large one is. The hour panel takes 8 times.
GONE_MS = DAY_MS  # a candle that is missing beside newer candles of a day does not come any more
ABSENT_MS = HOUR_MS  # and one that the venue said it does not have, beside newer candles of an hour
KEPT = 1_000  # deviations

Key = tuple[str, int, int]  # symbol, horizon_min, day since 1970


class Series(NamedTuple):
    """One venue's candles of one symbol and interval."""

    venue: str
    symbol: str
    interval_ms: int


def past_days(topic: Topic) -> int:
    """Return of how many days before a day the returns tell what a large return is."""
    return PAST_DAYS * panel_of(topic.horizon_min).days_per_training_day


class Candles:
    """Reads the kline store for the monitor; what was read is kept until ``forget``.

    Args:
        homes: the store; the truth of a symbol is read from its home venue.
        truth_venue: TRUTH_VENUE: prices are answered at its level, so a price's truth is read there if it is stored.
    """

    def __init__(self, homes: HomeStore, truth_venue: str = "") -> None:
        self._homes = homes
        self._truth_venue = truth_venue
        self._read: dict[Series, tuple[int, int, Klines]] = {}
        self._returns: tuple[tuple[Series, int], Floats] | None = None  # of the days before a day; the last alone
        self._venues: dict[tuple[str, bool], str] = {}
        self._ends: dict[Series, tuple[int, int]] = {}
        self._deviations: dict[tuple[str, Key], float] = {}

    def forget(self) -> None:
        """Read the store anew from now on."""
        self._read.clear()
        self._returns = None
        self._venues.clear()
        self._ends.clear()

    def forget_deviations(self) -> None:
        """Measure the deviations of past returns anew: candles were repaired."""
        self._deviations.clear()

    def venue_of(self, topic: Topic) -> str:
        """Return the venue whose candles tell a topic's truth."""
        is_price = topic.target is Target.PRICE
        found = self._venues.get((topic.symbol, is_price))
        if found is None:
            found = self._homes.home(topic.symbol)
            if is_price and self._truth_venue and self.span(Series(self._truth_venue, topic.symbol, MINUTE_MS))[1]:
                found = self._truth_venue
            self._venues[topic.symbol, is_price] = found
        return found

    def series_of(self, topic: Topic) -> list[Series]:
        """Return the series that can tell a topic's truth, the best first: minutes, and the panel's candles."""
        venue = self.venue_of(topic)
        intervals = dict.fromkeys((MINUTE_MS, panel_of(topic.horizon_min).interval_ms))
        return [Series(venue, topic.symbol, interval_ms) for interval_ms in intervals]

    def span(self, series: Series) -> tuple[int, int]:
        """Return when the first candle of a series opens and the last one closes; 0 and 0 without candles."""
        found = self._ends.get(series)
        if found is None:
            store = self._homes.of(series.venue)
            end_ms = store.end_ms(series.symbol, series.interval_ms)
            found = (store.first(series.symbol, series.interval_ms) or 0, end_ms) if end_ms else (0, 0)
            self._ends[series] = found
        return found

    def told_ms(self, topic: Topic) -> int:
        """Return the time up to which intervals of a topic can be over for the store; 0 without candles.

        The candle after an interval is waited for too: it tells how sure the truth is, and a score made before it came
        would differ from the same score made later.
        """
        ends = [(self.span(series)[1], series.interval_ms) for series in self.series_of(topic)]
        return max((end_ms - interval_ms for end_ms, interval_ms in ends if end_ms), default=0)

    def read(self, series: Series, start_ms: int, end_ms: int) -> Klines:
        """Return a series' candles of whole days that hold ``[start_ms, end_ms)``, as far as they are stored."""
        first_ms, last_ms, klines = self._read.get(series, (0, 0, Klines.empty(series.interval_ms)))
        if not first_ms <= start_ms < end_ms <= last_ms:
            first_ms, last_ms = start_ms // DAY_MS * DAY_MS, -(-end_ms // DAY_MS) * DAY_MS
            klines = self._stored(series, first_ms, last_ms)
            self._read[series] = first_ms, last_ms, klines
        return klines

    def _stored(self, series: Series, start_ms: int, end_ms: int) -> Klines:
        return self._homes.of(series.venue).read(series.symbol, series.interval_ms, start_ms, end_ms)

    def comes(self, series: Sequence[Series], missing: int) -> bool:
        """Return whether a missing candle of the first of some series may still come.

        Args:
            series: of one symbol; the newest candle of all of them tells how long it is overdue.
            missing: when it opens.
        """
        newest_ms = max(self.span(one)[1] for one in series)
        overdue_ms = newest_ms - missing
        if overdue_ms <= ABSENT_MS:
            return True
        folder = self._homes.of(series[0].venue).folder(series[0].symbol, series[0].interval_ms)
        is_absent = any(gap.start_ms <= missing < gap.end_ms for gap in read_absent(folder))
        return overdue_ms <= GONE_MS and not is_absent

    def deviation(self, topic: Topic, start_ms: int) -> float:
        """Return the standard deviation of a symbol's returns over a horizon, as known when a UTC day began.

        From the panel's candles of the days before, at each candle, as the judge of networks has it.

        Args:
            start_ms: any moment of the day.
        """
        day, panel = start_ms // DAY_MS, panel_of(topic.horizon_min)
        key = self.venue_of(topic), (topic.symbol, topic.horizon_min, day)
        if key not in self._deviations:
            if len(self._deviations) >= KEPT:
                self._deviations.clear()
            series = Series(key[0], topic.symbol, panel.interval_ms)
            steps = panel.steps(head_of(topic))
            past = rolling_sum(self._past_returns(series, day, past_days(topic)), steps)
            past = past[np.isfinite(past)]
            least = FLAT * steps**0.5
            self._deviations[key] = max(float(past.std()), least) if len(past) else least
        return self._deviations[key]

    def _past_returns(self, series: Series, day: int, days: int) -> Floats:
        """Return the returns of the days before a day; those of the last call are kept for other horizons."""
        if self._returns is None or self._returns[0] != (series, day):
            klines = self._stored(series, (day - days) * DAY_MS, day * DAY_MS)
            self._returns = (series, day), candle_returns(klines)
        return self._returns[1]
