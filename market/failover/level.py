"""At what level a symbol's series are, and what brings another venue's candles and prices to it.

The first venue that told a symbol's candles sets its level. What another one tells is multiplied by the ratio of the
two on candles that both have, so that a difference between venues (dollars against USDT) never becomes a return; where
no ratio can be measured the other venue is not used.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from core.clock import HOUR_MS, MINUTE_MS, Clock
from core.errors import WorkerError
from klines.activity import traded_in
from klines.klines import COLUMNS, PRICE_COLUMNS, Ints, Klines
from klines.spans import Span
from market.failover.breaker import KLINES, Health, NoLevel
from market.venue import Venue

OVERLAP_ROWS = 240  # asked of a venue before what is wanted, to measure its level by
REMEMBERED_ROWS = 300
LEAST_COMMON, MOST_COMMON = 10, 60  # candles with a trade at both venues: what must be there, and the newest count
MOST_SPREAD = 0.005  # of ln(ratio) over them: beyond it the two do not move together
MOST_APART = 0.05  # of ln(ratio): beyond it the two are not the same thing
GOOD_MS = HOUR_MS  # a ratio that could be measured by candles newer than its own by so much is measured anew
AGAIN_MS = MINUTE_MS  # between two tries to measure one


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What a venue's candles are multiplied by to be at the level of a series."""

    price: float
    flow: float  # its volumes; 1 where nobody traded
    by_ms: int  # end of the newest candle that it was measured by
    rows: int  # candles that it was measured by


def _shared(level: Klines, other: Klines) -> tuple[Ints, Ints]:
    """Rows of the newest candles that both have, with a trade in each: a candle without one has a price of before."""
    _, left, right = np.intersect1d(level.open_time_ms, other.open_time_ms, assume_unique=True, return_indices=True)
    both = traded_in(level)[left] & traded_in(other)[right]
    return left[both][-MOST_COMMON:], right[both][-MOST_COMMON:]


def level_ratio(level: Klines, other: Klines) -> Scale | None:
    """What another venue's candles are multiplied by to be at a series' level.

    Args:
        level: candles of the series; other: candles of the same interval.
    Returns:
        By the newest candles that both have a trade in; None where they share too few, do not move together, or are
        apart by more than two venues of one asset can be.
    """
    left, right = _shared(level, other)
    if len(left) < LEAST_COMMON:
        return None
    apart = np.log(level.close[left] / other.close[right])
    middle = float(np.median(apart))
    if abs(middle) > MOST_APART or float(np.median(np.abs(apart - middle))) > MOST_SPREAD:
        return None
    flow = float(level.volume[left].sum() / other.volume[right].sum())
    by_ms = int(level.open_time_ms[left[-1]]) + level.interval_ms
    return Scale(price=float(np.exp(middle)), flow=flow, by_ms=by_ms, rows=len(left))


class Levels:
    """The level of every symbol, and the newest candles of its series. Safe to use from several threads.

    Args:
        venues: all that are used.
        clock: for how often a venue is asked for candles to measure by.
        health: says who may be asked.
    """

    def __init__(self, venues: Sequence[Venue], clock: Clock, health: Health) -> None:
        self._names = {venue.offer.name for venue in venues}
        self._clock = clock
        self._health = health
        self._lock = threading.RLock()
        self._levels: dict[str, str] = {}  # symbol: the venue at whose level all its series are
        self._recents: dict[tuple[str, int], Klines] = {}  # by (symbol, interval): whoever told them, at that level
        self._own: dict[tuple[str, int], Klines] = {}  # of those the ones that the level's own venue told
        self._scales: dict[tuple[str, str, int], Scale] = {}  # by (venue, symbol, interval)
        self._tried: dict[tuple[str, str, int], int] = {}  # likewise: when a venue was asked for candles to measure by

    def of(self, symbol: str) -> str:
        """The venue at whose level a symbol's series are; empty before the first candle."""
        return self._levels.get(symbol, "")

    def begin(self, symbol: str, venue: str) -> None:
        """A venue tells a symbol's first candles: all that come after are at its level."""
        with self._lock:
            self._levels.setdefault(symbol, venue)

    def recent(self, symbol: str, interval_ms: int) -> Klines | None:
        """The newest candles of a series, at its level; None before the first."""
        return self._recents.get((symbol, interval_ms))

    def own(self, symbol: str, interval_ms: int) -> Klines:
        """Those of them that the level's own venue told."""
        return self._own.get((symbol, interval_ms), Klines.empty(interval_ms))

    def recents(self, symbol: str) -> list[Klines]:
        """Those of all series of a symbol, the shortest interval first."""
        with self._lock:
            return [recent for (other, _), recent in sorted(self._recents.items(), key=_by_key) if other == symbol]

    def learn(self, symbol: str, klines: Klines, *, own: bool, older: bool = False) -> None:
        """Take note of candles of a series.

        Args:
            own: the level's own venue told them.
            older: what is known already counts before them.
        """
        key = (symbol, klines.interval_ms)
        with self._lock:
            for kept in (self._recents, self._own) if own else (self._recents,):
                known = kept.get(key, Klines.empty(klines.interval_ms))
                kept[key] = (klines.merge(known) if older else known.merge(klines)).tail(REMEMBERED_ROWS)

    def end(self, symbol: str) -> None:
        """Know nothing of a symbol any more."""
        with self._lock:
            self._levels.pop(symbol, None)
            for kept in (self._recents, self._own):
                for key in [key for key in kept if key[0] == symbol]:
                    del kept[key]
            self._drop(lambda key: key[1] == symbol)

    def forget(self, symbol: str, interval_ms: int, span: Span) -> None:
        """Know no candles of a span any more."""
        key = (symbol, interval_ms)
        with self._lock:
            for kept in (self._recents, self._own):
                if (known := kept.get(key)) is not None:
                    kept[key] = known.between(0, span[0]).merge(known.between(span[1], known.end_ms))

    def klines(self, venue: Venue, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """What a venue has, at the level of the series; what the level's own venue told of it stays.

        Raises:
            NoLevel: that cannot be told. WorkerError: as the venue does.
        """
        name, level = venue.offer.name, self._in_use(symbol)
        if level == name:
            return venue.klines(symbol, interval_ms, start_ms, end_ms)
        if not level:
            told = venue.klines(symbol, interval_ms, start_ms, end_ms)
            if not len(told):
                return told
            self.begin(symbol, name)
            if self.of(symbol) == name:
                return told
            return self.klines(venue, symbol, interval_ms, start_ms, end_ms)  # another one was told meanwhile
        told = venue.klines(symbol, interval_ms, start_ms - OVERLAP_ROWS * interval_ms, end_ms)
        scale = self._measured(venue, symbol, told) or self._known(name, symbol, interval_ms)
        if scale is None:
            scale = self._measured_anew(venue, symbol, interval_ms)
        if scale is None:
            raise self.unknown(venue, symbol)
        # What else flowed is counted differently everywhere; without a number a feature is neutral.
        scaled = {column: getattr(told, column) * scale.price for column in PRICE_COLUMNS}
        empty = np.full(len(told), np.nan)
        others = dict.fromkeys((column for column in COLUMNS if column not in {*PRICE_COLUMNS, "volume"}), empty)
        whole = Klines(
            interval_ms=interval_ms,
            open_time_ms=told.open_time_ms,
            volume=told.volume * scale.flow,
            **scaled,
            **others,
        )
        return whole.merge(self.own(symbol, interval_ms)).between(start_ms, end_ms)

    def can_tell(self, venue: Venue, symbol: str) -> bool:
        """Whether a venue's prices can ever be brought to a symbol's level."""
        name = venue.offer.name
        if self.of(symbol) in {"", name} or self._known(name, symbol) is not None:
            return True
        return any(recent.interval_ms in venue.offer.intervals_ms for recent in self.recents(symbol))

    def factor(self, venue: Venue, symbol: str, *, may_ask: bool = True) -> float | None:
        """What a price of a venue is multiplied by; None when that cannot be told.

        Raises:
            WorkerError: the venue was asked for candles to tell it for the first time, and failed.
        """
        name = venue.offer.name
        if self.of(symbol) in {"", name}:
            return 1.0
        usable = [recent for recent in self.recents(symbol) if recent.interval_ms in venue.offer.intervals_ms]
        if may_ask and usable:
            own = self._scales.get((name, symbol, usable[0].interval_ms))
            if own is None or usable[0].end_ms - own.by_ms > GOOD_MS:
                try:
                    self._measured_anew(venue, symbol, usable[0].interval_ms)
                except WorkerError:
                    if self._known(name, symbol) is None:
                        raise
        known = self._known(name, symbol)
        return known.price if known else None

    def unknown(self, venue: Venue, symbol: str) -> NoLevel:
        """What is said of a venue whose level is not known."""
        return NoLevel(
            f"{venue.offer.name}: its candles of {symbol} share fewer than {LEAST_COMMON} that have a trade with those "
            f"at the level of {self.of(symbol)}, or do not move with them: its level is not known"
        )

    def _in_use(self, symbol: str) -> str:
        """The level; none where its venue is not used any more, and nothing is known to be at it."""
        with self._lock:
            level = self._levels.get(symbol, "")
            if level and level not in self._names and not self.recents(symbol):
                del self._levels[symbol]
                self._drop(lambda key: key[1] == symbol)
                return ""
            return level

    def _known(self, name: str, symbol: str, interval_ms: int | None = None) -> Scale | None:
        """A venue's scale by candles of that interval, or by the shortest."""
        own = self._scales.get((name, symbol, interval_ms or 0))
        if own is not None:
            return own
        with self._lock:
            keys = sorted(key for key in self._scales if key[:2] == (name, symbol))
            return self._scales[keys[0]] if keys else None

    def _measured(self, venue: Venue, symbol: str, told: Klines) -> Scale | None:
        """The scale by candles that the series and a venue share, remembered; None where they do not tell.

        Fewer or older candles than a scale was measured by do not change it.
        """
        key, recent = (venue.offer.name, symbol, told.interval_ms), self.recent(symbol, told.interval_ms)
        if recent is None:
            return None
        found = level_ratio(recent, told)
        with self._lock:
            if found is None:
                if len(_shared(recent, told)[0]) >= LEAST_COMMON:  # refuted: they share enough, and do not agree
                    self._drop(lambda other: other[:2] == key[:2])
                return None
            known = self._scales.get(key)
            if known is None or (found.by_ms, found.rows) >= (known.by_ms, known.rows):
                self._scales[key] = found
            return self._scales[key]

    def _measured_anew(self, venue: Venue, symbol: str, interval_ms: int) -> Scale | None:
        """The scale by the newest candles of a series, which a venue is asked for."""
        recent = self.recent(symbol, interval_ms)
        if recent is None or not self._may_try(venue, symbol, interval_ms):
            return None
        told = venue.klines(symbol, interval_ms, recent.end_ms - OVERLAP_ROWS * interval_ms, recent.end_ms)
        return self._measured(venue, symbol, told)

    def _may_try(self, venue: Venue, symbol: str, interval_ms: int) -> bool:
        """Whether to ask a venue for candles to measure by; once a minute at the most."""
        if self._health.why_left(venue, KLINES, symbol):
            return False
        key, now_ms = (venue.offer.name, symbol, interval_ms), self._clock.now_ms()
        with self._lock:
            tried_ms = self._tried.get(key)
            if tried_ms is not None and 0 <= now_ms - tried_ms < AGAIN_MS:
                return False
            self._tried[key] = now_ms
            return True

    def _drop(self, which: Callable[[tuple[str, str, int]], bool]) -> None:
        for key in [key for key in self._scales if which(key)]:
            del self._scales[key]


def _by_key(item: tuple[tuple[str, int], Klines]) -> tuple[str, int]:
    return item[0]
