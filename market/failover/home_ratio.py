"""The price ratio of each venue to the home venue, which brings a stand-in's candles and prices to the home prices.

The home venue of a symbol is the first venue that gave its candles. A stand-in whose ratio cannot be measured is not
used.
"""

import threading
from collections.abc import Sequence

import numpy as np

from core.clock import HOUR_MS, Clock
from core.errors import WorkerError
from klines.klines import COLUMNS, PRICE_COLUMNS, Klines
from market.failover.breaker import KLINES, NoRatio, VenueBreaker
from market.price_ratio import LEAST_ROWS, WINDOW_ROWS, PriceRatio, price_ratio, shared_rows
from market.venue import Venue

REMEMBERED_ROWS = 300
GOOD_MS = HOUR_MS  # a ratio this much older than the newest candle is measured again; not measured
AGAIN_S = 60.0  # between two requests for candles to measure a ratio by


class HomeRatios:
    """The home venue of every symbol, the newest candles at its prices, and the ratios. Safe to use from threads.

    Args:
        venues: all that are used.
        clock: for pauses between requests.
        breaker: knows which venues may be asked.
    """

    def __init__(self, venues: Sequence[Venue], clock: Clock, breaker: VenueBreaker) -> None:
        self._names = {venue.offer.name for venue in venues}
        self._clock = clock
        self._breaker = breaker
        self._lock = threading.RLock()
        self._homes: dict[str, str] = {}  # by symbol
        self._recents: dict[tuple[str, int], Klines] = {}  # by (symbol, interval): from any venue, at home prices
        self._own: dict[tuple[str, int], Klines] = {}  # as ``_recents``, from the home venue only
        self._ratios: dict[tuple[str, str, int], PriceRatio] = {}  # by (venue, symbol, interval)
        self._tried_s: dict[tuple[str, str, int], float] = {}  # likewise: when candles were last requested for a ratio

    def home(self, symbol: str) -> str:
        """The home venue of a symbol; empty before the first candle."""
        return self._homes.get(symbol, "")

    def begin(self, symbol: str, venue: str) -> None:
        """Make a venue the home of a symbol without a home."""
        with self._lock:
            self._homes.setdefault(symbol, venue)

    def recent(self, symbol: str, interval_ms: int) -> Klines | None:
        """The newest candles of a series, at home prices; None before the first."""
        return self._recents.get((symbol, interval_ms))

    def own(self, symbol: str, interval_ms: int) -> Klines:
        """The newest candles that came from the home venue."""
        return self._own.get((symbol, interval_ms), Klines.empty(interval_ms))

    def recents(self, symbol: str) -> list[Klines]:
        """The newest candles of all series of a symbol, the shortest interval first."""
        with self._lock:
            found = [recent for (other, _), recent in self._recents.items() if other == symbol]
        return sorted(found, key=lambda recent: recent.interval_ms)

    def learn(self, symbol: str, klines: Klines, *, own: bool, older: bool = False) -> None:
        """Remember candles of a series.

        Args:
            own: the home venue gave them.
            older: known candles of the same time stay.
        """
        key = (symbol, klines.interval_ms)
        with self._lock:
            for kept in (self._recents, self._own) if own else (self._recents,):
                known = kept.get(key, Klines.empty(klines.interval_ms))
                kept[key] = (klines.merge(known) if older else known.merge(klines)).tail(REMEMBERED_ROWS)

    def klines(self, venue: Venue, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Candles of a venue at home prices; candles that the home venue gave stay as they are.

        Raises:
            NoRatio: the venue's ratio is not known. WorkerError: as the venue does.
        """
        name = venue.offer.name
        if self._home_in_use(symbol) in {"", name}:
            klines = venue.klines(symbol, interval_ms, start_ms, end_ms)
            if len(klines):
                self.begin(symbol, name)
            if not len(klines) or self.home(symbol) == name:
                return klines
            return self.klines(venue, symbol, interval_ms, start_ms, end_ms)  # another thread chose another home
        klines = venue.klines(symbol, interval_ms, start_ms - WINDOW_ROWS * interval_ms, end_ms)
        ratio = self._measured(venue, symbol, klines) or self._known(name, symbol, interval_ms)
        ratio = ratio or self._measured_anew(venue, symbol, interval_ms)
        if ratio is None:
            raise self.unknown(venue, symbol)
        return _times(klines, ratio).merge(self.own(symbol, interval_ms)).between(start_ms, end_ms)

    def is_measurable(self, venue: Venue, symbol: str) -> bool:
        """True if a venue's prices can ever be brought to the home prices."""
        name = venue.offer.name
        if self.home(symbol) in {"", name} or self._known(name, symbol) is not None:
            return True
        return any(recent.interval_ms in venue.offer.intervals_ms for recent in self.recents(symbol))

    def factor(self, venue: Venue, symbol: str, *, may_ask: bool = True) -> float | None:
        """Return the multiplier from a venue's prices to the home venue's, or None if it is not known.

        Raises:
            WorkerError: the venue was asked for candles to measure the first ratio by, and failed.
        """
        name = venue.offer.name
        if self.home(symbol) in {"", name}:
            return 1.0
        usable = [recent for recent in self.recents(symbol) if recent.interval_ms in venue.offer.intervals_ms]
        if may_ask and usable:
            ratio = self._ratios.get((name, symbol, usable[0].interval_ms))
            if ratio is None or usable[0].end_ms - ratio.newest_ms > GOOD_MS:
                try:
                    self._measured_anew(venue, symbol, usable[0].interval_ms)
                except WorkerError:
                    if self._known(name, symbol) is None:
                        raise
        known = self._known(name, symbol)
        return known.value if known else None

    def unknown(self, venue: Venue, symbol: str) -> NoRatio:
        """The error that says that a venue's ratio is not known."""
        return NoRatio(
            f"{venue.offer.name}: its candles of {symbol} share fewer than {LEAST_ROWS} that have a trade with those "
            f"at the prices of {self.home(symbol)}, or do not move with them: the price ratio is not known"
        )

    def _home_in_use(self, symbol: str) -> str:
        """The home venue; empty if it is not used any more and no candle at its prices is known."""
        with self._lock:
            home = self._homes.get(symbol, "")
            if home and home not in self._names and not self.recents(symbol):
                del self._homes[symbol]
                self._ratios = {key: ratio for key, ratio in self._ratios.items() if key[1] != symbol}
                return ""
            return home

    def _known(self, name: str, symbol: str, interval_ms: int | None = None) -> PriceRatio | None:
        """A venue's ratio by candles of that interval, or by the shortest."""
        if (ratio := self._ratios.get((name, symbol, interval_ms or 0))) is not None:
            return ratio
        with self._lock:
            shortest = min((key for key in self._ratios if key[:2] == (name, symbol)), default=None)
            return self._ratios[shortest] if shortest else None

    def _measured(self, venue: Venue, symbol: str, klines: Klines) -> PriceRatio | None:
        """Measure and remember a ratio; a ratio of fewer or older candles does not replace the known ratio."""
        key, recent = (venue.offer.name, symbol, klines.interval_ms), self.recent(symbol, klines.interval_ms)
        if recent is None:
            return None
        found = price_ratio(recent, klines)
        with self._lock:
            if found is None:
                if len(shared_rows(recent, klines)[0]) >= LEAST_ROWS:  # refuted: enough candles, and they disagree
                    self._ratios = {other: ratio for other, ratio in self._ratios.items() if other[:2] != key[:2]}
                return None
            known = self._ratios.get(key)
            if known is None or (found.newest_ms, found.rows) >= (known.newest_ms, known.rows):
                self._ratios[key] = found
            return self._ratios[key]

    def _measured_anew(self, venue: Venue, symbol: str, interval_ms: int) -> PriceRatio | None:
        """Measure a ratio by newest candles, which the venue is asked for."""
        recent = self.recent(symbol, interval_ms)
        if recent is None or not self._may_try(venue, symbol, interval_ms):
            return None
        start_ms = recent.end_ms - WINDOW_ROWS * interval_ms
        return self._measured(venue, symbol, venue.klines(symbol, interval_ms, start_ms, recent.end_ms))

    def _may_try(self, venue: Venue, symbol: str, interval_ms: int) -> bool:
        if self._breaker.why_open(venue, KLINES, symbol):
            return False
        key, now_s = (venue.offer.name, symbol, interval_ms), self._clock.elapsed_s()
        with self._lock:
            if now_s - self._tried_s.get(key, -AGAIN_S) < AGAIN_S:
                return False
            self._tried_s[key] = now_s
            return True


def _times(klines: Klines, ratio: PriceRatio) -> Klines:
    """Candles at other prices and volumes. Other flows are counted differently at each venue, so they become NaN."""
    scaled = {name: getattr(klines, name) * ratio.value for name in PRICE_COLUMNS}
    unknown = {name: np.full(len(klines), np.nan) for name in COLUMNS if name not in {*PRICE_COLUMNS, "volume"}}
    return Klines(
        interval_ms=klines.interval_ms,
        open_time_ms=klines.open_time_ms,
        volume=klines.volume * ratio.flow,
        **scaled,
        **unknown,
    )
