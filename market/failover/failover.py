"""Several venues as one, for serving: each symbol from the first venue that can, all at one price level.

Price ratios are in ``home_ratio``, who may be asked in ``breaker``, which candles are believed in ``second_opinion``,
and prices in ``spot_prices``, all of this folder.
"""

from collections.abc import Sequence
from typing import Any

import structlog

from core.clock import SECOND_MS, Clock, iso
from core.errors import MalformedKlines, WorkerError
from core.seldom import Seldom
from klines.activity import longest_quiet, quiet_rows
from klines.klines import Klines
from klines.spans import interval_name
from market.failover.breaker import KLINES, PRICES, Failures, VenueBreaker, VenueFault, failure_of
from market.failover.endings import Endings
from market.failover.home_ratio import HomeRatios
from market.failover.second_opinion import SecondOpinion
from market.failover.spot_prices import SpotPrices
from market.quarantine import Quarantine
from market.venue import UNKNOWN, MarketData, Price, Venue, Verdict

# Candles that are missing at the end, or without a trade, before another venue is asked whether it has them.
SILENT_ROWS = 2
PUBLISHED_MS = 20 * SECOND_MS  # by then a venue has published a closed candle
PART_ROWS = 1_000  # a page of most venues
MOST_HOLES, HOLE_AGAIN_S = 20, 600.0  # of holes; other venues fill them
ODD_AHEAD_MS = 2 * SECOND_MS  # a venue's time so far from ours wants a second opinion

log = structlog.get_logger()


class Failover(MarketData):
    """Several venues as one, kept in memory alone. Safe to use from several threads.

    Args:
        venues: best first.
        clock: for rests and ages.
        quarantine: takes the rows that are doubted.
    """

    def __init__(self, venues: Sequence[Venue], clock: Clock, quarantine: Quarantine) -> None:
        self.venues = tuple(venues)
        self.quarantine = quarantine
        self.stream_venue = self.venues[0].info.name
        self._clock = clock
        self._breaker = VenueBreaker(self.venues, clock)
        self._ratios = HomeRatios(self.venues, clock, self._breaker)
        self._opinion = SecondOpinion(self._ratios, self._breaker, quarantine, clock)
        self._endings = Endings(clock)
        self._prices = SpotPrices(self.venues, self._ratios, self._breaker, clock)
        self._seldom = Seldom()
        self._holes = Seldom(clock.elapsed_s, HOLE_AGAIN_S)  # that other venues were asked about
        self._sources: dict[tuple[str, int], str] = {}  # by (symbol, interval): the venue of the newest answer

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Klines of the first venue that has them, at the prices of the home venue.

        A venue without the last candles, or without a trade in them, is passed over if another venue has them.
        """
        failures: Failures = []
        silent: list[tuple[Venue, Klines]] = []
        for venue in self._breaker.order(KLINES, symbol, failures, self._breaker.having(interval_ms, end_ms)):
            if (why := self._prices.why_reserved(venue)) is not None:
                failures.append((venue, why))
                continue
            try:
                klines, is_silent = self._confirmed(venue, symbol, interval_ms, start_ms, end_ms)
            except WorkerError as error:
                self._breaker.record_failure(venue, KLINES, symbol, error)
                failures.append((venue, error))
                continue
            self._breaker.record_success(venue, KLINES, symbol)
            if is_silent:
                silent.append((venue, klines))
                continue
            self._endings.went_on(symbol, klines.end_ms)
            for other, _ in silent:
                for kind in (KLINES, PRICES):  # a venue's last price is no newer than its last trade
                    self._breaker.record_unusable(other, kind, symbol, "silent")
            return self._filled(venue, symbol, self._learnt(venue, symbol, klines))
        if not silent:
            raise failure_of(failures, f"{interval_name(interval_ms)} klines of {symbol}")
        # The market itself is silent: take the venue with the newest candle.
        venue, klines = max(silent, key=lambda one: one[1].end_ms)
        known_ms = max(klines.end_ms, *(recent.end_ms for recent in self._ratios.recents(symbol)), 0)
        self._endings.look(symbol, interval_ms, [one for one, _ in silent], known_ms)
        return self._learnt(venue, symbol, klines)

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        return self._prices.prices(symbols)

    def judge_price(self, symbol: str, venue: str, verdict: Verdict) -> None:
        self._prices.judge(symbol, venue, verdict)

    def clock_ahead_ms(self) -> int:
        # The clock of the first venue that is well and has a clock.
        failures: Failures = []
        ahead_ms: list[int] = []
        for venue in self._breaker.order(PRICES, "", failures, lambda venue: venue.info.tells_time):
            try:
                ahead_ms.append(venue.clock_ahead_ms())
            except WorkerError as error:
                failures.append((venue, error))
                continue
            if len(ahead_ms) == 2:  # the first venue's time is odd: take the median of both and our own
                return sorted([*ahead_ms, 0])[1]
            if abs(ahead_ms[0]) < ODD_AHEAD_MS:
                break
        if failures and not ahead_ms:
            raise failure_of(failures, "the time")
        return ahead_ms[0] if ahead_ms else 0

    def remember(self, symbol: str, klines: Klines) -> None:
        # A symbol without a home gets the first venue as its home.
        if len(klines):
            home = self._ratios.begin(symbol, self.venues[0].info.name)
            self._ratios.learn(symbol, klines, home, older=True)

    def home(self, symbol: str) -> str:
        return self._ratios.home(symbol)

    def begin(self, symbol: str, venue: str) -> None:
        """Make a venue the home of a symbol without a home."""
        self._ratios.begin(symbol, venue)

    def source(self, symbol: str, interval_ms: int) -> str:
        return self._sources.get((symbol, interval_ms), "")

    def teller(self, symbol: str, interval_ms: int, open_ms: int) -> str:
        home, source = self.home(symbol), self.source(symbol, interval_ms)
        if len(self._ratios.own(symbol, interval_ms).between(open_ms, open_ms + 1)):
            return home
        return source if source != home else UNKNOWN  # another venue filled a hole

    def remark(self, symbol: str, interval_ms: int) -> str:
        return self._opinion.why_held(symbol, interval_ms) or self._endings.remark(symbol)

    def stream_factor(self, symbol: str) -> float | None:
        return self._ratios.known_factor(self.venues[0], symbol)

    @property
    def faults(self) -> dict[tuple[str, str, str], VenueFault]:
        """Faults by venue, kind of question and symbol."""
        return self._breaker.faults

    def _confirmed(
        self, venue: Venue, symbol: str, interval_ms: int, start_ms: int, end_ms: int
    ) -> tuple[Klines, bool]:
        """A venue's believed klines of a range, and True if the venue is silent.

        If the whole is malformed, each part of ``PART_ROWS`` is asked for by itself, the newest first: odd hours must
        not cost the others. A part that is malformed is missing.

        Raises:
            WorkerError: as the venue does; MalformedKlines if the newest part is malformed as well.
        """

        def ask(start_ms: int, end_ms: int) -> tuple[Klines, bool]:
            given = self._ratios.klines(venue, symbol, interval_ms, start_ms, end_ms)
            is_silent = self._is_silent(symbol, given, start_ms, end_ms)
            if is_silent and venue.hosts.demote("has no new candle"):
                given = self._ratios.klines(venue, symbol, interval_ms, start_ms, end_ms)
                is_silent = self._is_silent(symbol, given, start_ms, end_ms)
            return self._opinion.confirmed(venue, symbol, given), is_silent

        part_ms = PART_ROWS * interval_ms
        try:
            return ask(start_ms, end_ms)
        except MalformedKlines:
            if end_ms - start_ms <= part_ms:
                raise
        klines, is_silent = ask(end_ms - part_ms, end_ms)
        for part_end_ms in range(end_ms - part_ms, start_ms, -part_ms):
            try:
                older, _ = ask(max(start_ms, part_end_ms - part_ms), part_end_ms)
            except MalformedKlines as error:
                if count := self._seldom.due("part_refused", symbol, interval_ms):
                    log.warning("part_refused", symbol=symbol, interval_ms=interval_ms, reason=str(error), parts=count)
            else:
                klines = older.merge(klines)
        return klines, is_silent

    def _is_silent(self, symbol: str, klines: Klines, start_ms: int, end_ms: int) -> bool:
        """True if a venue that was asked for the newest candles lacks them, or has no trade in them."""
        interval_ms, now_ms = klines.interval_ms, self._clock.now_ms()
        newest_ms = now_ms // interval_ms * interval_ms
        if end_ms < newest_ms:
            return False
        run = self._ratios.recent(symbol, interval_ms).between(0, start_ms).merge(klines)
        awaited = now_ms - newest_ms < PUBLISHED_MS
        quiet = quiet_rows(run, max(klines.end_ms, newest_ms - interval_ms) if awaited else newest_ms)
        return quiet >= max(SILENT_ROWS, 2 * longest_quiet(run) + 1)

    def _learnt(self, venue: Venue, symbol: str, klines: Klines) -> Klines:
        """A venue's candles, once the level and the source of the series are learnt from them."""
        if not len(klines):
            return klines
        name, before = venue.info.name, self.source(symbol, klines.interval_ms)
        self._ratios.learn(symbol, klines, name)
        self._sources[symbol, klines.interval_ms] = name
        if before not in {"", name}:
            self.switches += 1
            if count := self._seldom.due("market_venue_changed", symbol):
                log.warning("market_venue_changed", symbol=symbol, venue=name, before=before, times=count)
        return klines

    def _filled(self, venue: Venue, symbol: str, klines: Klines) -> Klines:
        """Candles with their holes filled from other venues, as far as those have them."""
        interval_ms = klines.interval_ms

        def ask(other: Venue, *candles: Any) -> Klines:
            return self._opinion.confirmed(other, symbol, self._ratios.klines(other, *candles), among=klines)

        for hole in [*klines.gaps()][-MOST_HOLES:]:
            if not self._holes.due(symbol, interval_ms, hole[0]):
                continue
            for other, found in self._breaker.others(venue, symbol, interval_ms, hole, ask):
                if len(found):
                    klines = klines.merge(found)
                    self.filled += len(found)
                    if count := self._seldom.due("hole_filled", symbol, other.info.name, count=len(found)):
                        start = iso(hole[0])
                        log.info("hole_filled", symbol=symbol, venue=other.info.name, start=start, rows=count)
                    break
        return klines
