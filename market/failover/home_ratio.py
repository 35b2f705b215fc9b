"""The price ratio of each venue to the home venue, which brings a stand-in's candles and prices to the home prices.

The home venue of a symbol is the first venue that gave its candles. A stand-in whose ratio cannot be measured is not
used.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.clock import HOUR_MS, Clock
from core.errors import WorkerError
from core.seldom import Seldom
from klines.klines import COLUMNS, PRICE_COLUMNS, Klines
from market.failover.breaker import KLINES, NoRatio, VenueBreaker
from market.price_ratio import LEAST_ROWS, WINDOW_ROWS, PriceRatio, price_ratio, shared_rows
from market.venue import Venue

REMEMBERED_ROWS = 300
GOOD_MS = HOUR_MS  # a ratio this much older than the newest candle is measured again; not measured


@dataclass(slots=True)
class _Symbol:
    """What is known of a symbol. Candles are the newest, by interval."""

    home: str = ""
    recents: dict[int, Klines] = field(default_factory=dict)  # from any venue, at home prices
    own: dict[int, Klines] = field(default_factory=dict)  # from the home venue only
    ratios: dict[tuple[str, int], PriceRatio] = field(default_factory=dict)  # by venue and interval


class HomeRatios:
    """The home venue of every symbol, the newest candles at its prices, and the ratios. Safe to use from threads."""

    def __init__(self, venues: Sequence[Venue], clock: Clock, breaker: VenueBreaker) -> None:
        self._names = {venue.info.name for venue in venues}
        self._breaker = breaker
        self._lock = threading.RLock()
        self._symbols: dict[str, _Symbol] = {}
        self._requests = Seldom(clock.elapsed_s)  # for candles to measure a ratio by: one a minute of each series

    def home(self, symbol: str) -> str:
        """The home venue of a symbol; empty before the first candle."""
        return self._of(symbol).home

    def begin(self, symbol: str, venue: str) -> str:
        """Make a venue the home of a symbol without a home; return the home."""
        with self._lock:
            known = self._of(symbol)
            known.home = known.home or venue
            return known.home

    def recent(self, symbol: str, interval_ms: int) -> Klines:
        """The newest candles of a series, at home prices."""
        return self._of(symbol).recents.get(interval_ms, Klines.empty(interval_ms))

    def own(self, symbol: str, interval_ms: int) -> Klines:
        """The newest candles that came from the home venue."""
        return self._of(symbol).own.get(interval_ms, Klines.empty(interval_ms))

    def recents(self, symbol: str) -> list[Klines]:
        """The newest candles of all series of a symbol, the shortest interval first."""
        with self._lock:
            return [recent for _, recent in sorted(self._of(symbol).recents.items())]

    def learn(self, symbol: str, klines: Klines, venue: str, *, older: bool = False) -> None:
        """Remember candles that a venue gave; a symbol without a home gets that venue as its home.

        Args:
            older: known candles of the same time stay.
        """
        with self._lock:
            is_own, known = self.begin(symbol, venue) == venue, self._of(symbol)
            for kept in (known.recents, known.own) if is_own else (known.recents,):
                before = kept.get(klines.interval_ms, Klines.empty(klines.interval_ms))
                whole = klines.merge(before) if older else before.merge(klines)
                kept[klines.interval_ms] = whole.tail(REMEMBERED_ROWS)

    def klines(self, venue: Venue, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Candles of a venue at home prices, or NoRatio; candles that the home venue gave stay as they are."""
        name = venue.info.name
        if self._home_in_use(symbol) in {"", name}:
            klines = venue.klines(symbol, interval_ms, start_ms, end_ms)
            if not len(klines) or self.begin(symbol, name) == name:
                return klines  # else another thread chose another home
        klines = venue.klines(symbol, interval_ms, start_ms - WINDOW_ROWS * interval_ms, end_ms)
        ratio = self._measured(venue, symbol, klines) or self._known(name, symbol, interval_ms)
        ratio = ratio or self._measured_anew(venue, symbol, interval_ms)
        if ratio is None:
            raise self.unknown(venue, symbol)
        return _times(klines, ratio).merge(self.own(symbol, interval_ms)).between(start_ms, end_ms)

    def is_measurable(self, venue: Venue, symbol: str) -> bool:
        """True if a venue's prices can ever be brought to the home prices."""
        return self.known_factor(venue, symbol) is not None or self._usable(venue, symbol) is not None

    def known_factor(self, venue: Venue, symbol: str) -> float | None:
        """The multiplier from a venue's prices to the home venue's, or None if it was not measured."""
        if self.home(symbol) in {"", venue.info.name}:
            return 1.0
        ratio = self._known(venue.info.name, symbol)
        return ratio.value if ratio else None

    def factor(self, venue: Venue, symbol: str) -> float:
        """The multiplier from a venue's prices to the home venue's, or NoRatio; an old one is measured anew."""
        name, recent = venue.info.name, self._usable(venue, symbol)
        if recent and self.home(symbol) not in {"", name}:
            ratio = self._of(symbol).ratios.get((name, recent.interval_ms))
            if ratio is None or recent.end_ms - ratio.newest_ms > GOOD_MS:
                try:
                    self._measured_anew(venue, symbol, recent.interval_ms)
                except WorkerError:
                    if self.known_factor(venue, symbol) is None:
                        raise
        factor = self.known_factor(venue, symbol)
        if factor is None:
            raise self.unknown(venue, symbol)
        return factor

    def unknown(self, venue: Venue, symbol: str) -> NoRatio:
        """The error that says that a venue's ratio is not known."""
        return NoRatio(
            f"{venue.info.name}: its candles of {symbol} share fewer than {LEAST_ROWS} that have a trade with those "
            f"at the prices of {self.home(symbol)}, or do not move with them: the price ratio is not known"
        )

    def _of(self, symbol: str) -> _Symbol:
        return self._symbols.setdefault(symbol, _Symbol())

    def _home_in_use(self, symbol: str) -> str:
        """The home venue; empty if it is not used any more and no candle at its prices is known."""
        with self._lock:
            known = self._of(symbol)
            if known.home not in self._names and not known.recents:
                known.home = ""
                known.ratios.clear()
            return known.home

    def _usable(self, venue: Venue, symbol: str) -> Klines | None:
        """The candles of the shortest interval by which a venue's ratio can be measured."""
        recents = self.recents(symbol)
        return next((recent for recent in recents if recent.interval_ms in venue.info.intervals_ms), None)

    def _known(self, name: str, symbol: str, interval_ms: int | None = None) -> PriceRatio | None:
        """A venue's ratio by candles of that interval, or by the shortest."""
        with self._lock:
            ratios = {interval: ratio for (venue, interval), ratio in self._of(symbol).ratios.items() if venue == name}
        return ratios.get(interval_ms or 0) or (ratios[min(ratios)] if ratios else None)

    def _measured(self, venue: Venue, symbol: str, klines: Klines) -> PriceRatio | None:
        """Measure and remember a ratio; a ratio of fewer or older candles does not replace the known ratio."""
        name, known, recent = venue.info.name, self._of(symbol), self.recent(symbol, klines.interval_ms)
        key, found = (name, klines.interval_ms), price_ratio(recent, klines)
        with self._lock:
            if found is None:
                if len(shared_rows(recent, klines)[0]) >= LEAST_ROWS:  # refuted: enough candles, and they disagree
                    known.ratios = {other: ratio for other, ratio in known.ratios.items() if other[0] != name}
                return None
            before = known.ratios.get(key)
            if before is None or (found.newest_ms, found.rows) >= (before.newest_ms, before.rows):
                known.ratios[key] = found
            return known.ratios[key]

    def _measured_anew(self, venue: Venue, symbol: str, interval_ms: int) -> PriceRatio | None:
        """Measure a ratio by newest candles, which the venue is asked for."""
        recent = self.recent(symbol, interval_ms)
        if not len(recent) or self._breaker.why_open(venue, KLINES, symbol):
            return None
        if not self._requests.due(venue.info.name, symbol, interval_ms):
            return None
        start_ms = recent.end_ms - WINDOW_ROWS * interval_ms
        return self._measured(venue, symbol, venue.klines(symbol, interval_ms, start_ms, recent.end_ms))


def _times(klines: Klines, ratio: PriceRatio) -> Klines:
    """Candles at other prices and volumes. Other flows are counted differently at each venue, so they become NaN."""
    unknown = dict.fromkeys(COLUMNS, float("nan"))
    factors = unknown | dict.fromkeys(PRICE_COLUMNS, ratio.value) | {"volume": ratio.flow}
    return Klines.from_table(klines.interval_ms, klines.open_time_ms, klines.table() * list(factors.values()))
