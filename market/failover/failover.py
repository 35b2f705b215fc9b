"""Several venues as one: each symbol from the first that can serve it, all at one level, and no row that is doubted.

Levels are in ``level``, who may be asked in ``breaker``, which candles are believed in ``second_opinion``, and prices
in ``spot_prices``, all of this folder.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog

from core.clock import DAY_MS, MINUTE_MS, SECOND_MS, Clock, iso
from core.errors import MalformedKlines, WorkerError
from core.seldom import Seldom
from klines.activity import longest_quiet, quiet_rows
from klines.klines import Klines
from klines.spans import Span, interval_name, joined, without
from market.failover.breaker import KLINES, PRICES, Failures, Health, VenueFault, failure_of
from market.failover.endings import Endings
from market.failover.level import Levels
from market.failover.second_opinion import Belief
from market.failover.spot_prices import Quotes
from market.quarantine import Quarantine
from market.venue import UNKNOWN, MarketData, Price, Venue

# Candles that are missing at the end, or without a trade, before another venue is asked whether it has them.
SILENT_ROWS = 2
PUBLISHED_MS = 20 * SECOND_MS  # by then a venue has told a candle that it has
PART_ROWS = 1_000  # a page of most venues
MOST_HOLES, HOLE_AGAIN_MS, REMEMBERED_HOLES = 20, 10 * MINUTE_MS, 10_000  # of one answer; asked for elsewhere
LONGEST_VAIN_MS = 60 * MINUTE_MS  # between two offers of what may be asked for again
NEWEST_ROWS, ARCHIVED_MS = 5, 3 * DAY_MS  # what a venue must have to be asked for a series from its beginning
ODD_AHEAD_MS = 2 * SECOND_MS  # a venue's time so far from ours wants a second opinion

Standing = dict[str, dict[str, Any]]  # series, as "ETHUSDT-1m": {"level": venue, "borrowed": [[start_ms, end_ms], ...]}

log = structlog.get_logger()


@dataclass(slots=True)
class _Series:
    """What is known of one series; changed under the lock."""

    source: str = ""  # who told its newest candle
    borrowed: tuple[Span, ...] = ()  # candles that another venue told and the series' own was not asked for since
    lent: int = 0  # answers of other venues
    offered: bool = False  # whoever asks was told of those
    refused: dict[int, str] = field(default_factory=dict)  # rows of parts that were refused as a whole
    in_vain: int = 0  # how often in a row the own venue then had nothing
    again_ms: int = 0  # not offered before


class Failover(MarketData):
    """See the module. Safe to use from several threads.

    Args:
        venues: best first.
        clock: for rests and ages.
        aside: takes the rows that are doubted.
        awaits_life: as ``Health`` has it.
    Attributes:
        on_standing: called in the thread that asks when ``standing`` may have changed, before candles by which it has
            are handed on; what it raises is raised.
    """

    def __init__(self, venues: Sequence[Venue], clock: Clock, aside: Quarantine, *, awaits_life: bool = True) -> None:
        self.venues = tuple(venues)
        self.aside = aside
        self.stream_venue = self.venues[0].offer.name
        self.switches = 0  # how often a series' candles came from another venue than before
        self.filled = 0  # candles that a venue lacked and another one had
        self.on_standing: Callable[[], None] = _ignored
        self._clock = clock
        self._health = Health(self.venues, clock, awaits_life=awaits_life)
        self._levels = Levels(self.venues, clock, self._health)
        self._lock = threading.RLock()
        self._belief = Belief(self._levels, self._health, aside, clock)
        self._endings = Endings(clock)
        self._seldom = Seldom()
        self._quotes = Quotes(self.venues, self._levels, self._health, clock)
        self._series: dict[tuple[str, int], _Series] = {}  # by (symbol, interval)
        self._holes: dict[tuple[str, int, int], int] = {}  # by symbol, interval, start: when another venue was asked
        self._rank = {venue.offer.name: number for number, venue in enumerate(self.venues)}

    # What the rest of the project asks.

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """See the protocol: from the first venue that can, at the level of the series.

        A venue that has nothing of the last candles, or no trade in them, is passed over where another one has them.
        """
        failures: Failures = []
        silent: list[tuple[Venue, Klines]] = []
        series = self._series_of(symbol, interval_ms)
        for venue in self._health.order(KLINES, symbol, failures, self._health.having(interval_ms, end_ms)):
            if (why := self._quotes.needs(venue)) is not None:
                failures.append((venue, why))
                continue
            try:
                told, klines = self._told(venue, symbol, interval_ms, (start_ms, end_ms))
            except WorkerError as error:
                self._health.failed(venue, KLINES, symbol, error)
                failures.append((venue, error))
                self._was_in_vain(venue, symbol, series)
                continue
            self._health.well(venue, KLINES, symbol)
            if self._is_silent(symbol, told, (start_ms, end_ms)):
                silent.append((venue, klines))
                self._was_in_vain(venue, symbol, series)
                continue
            self._endings.went_on(symbol, klines.end_ms)
            for other, _ in silent:
                self._health.silent(other, symbol)
            return self._filled(venue, symbol, self._taken(venue, symbol, klines, (start_ms, end_ms)))
        if silent:  # whoever has the newest; it is the market that is silent
            venue, klines = max(silent, key=lambda one: one[1].end_ms)
            self._endings.look(
                symbol, interval_ms, [one for one, _ in silent], max(klines.end_ms, self._known_end_ms(symbol))
            )
            return self._taken(venue, symbol, klines, (start_ms, end_ms))
        raise failure_of(failures, f"{interval_name(interval_ms)} klines of {symbol}")

    def _told(self, venue: Venue, symbol: str, interval_ms: int, asked: Span) -> tuple[Klines, Klines]:
        """What a venue has of a range, and what is believed of it.

        Where the whole is not to be used, each part of ``PART_ROWS`` is asked for by itself, the newest first: some odd
        hours must not cost the others their place. What stays out is missing.

        Raises:
            WorkerError: as the venue does; MalformedKlines where the newest part is not to be used either.
        """

        def ask(start_ms: int, end_ms: int) -> tuple[Klines, Klines]:
            told = self._levels.klines(venue, symbol, interval_ms, start_ms, end_ms)
            if self._is_silent(symbol, told, (start_ms, end_ms)) and venue.hosts.doubt("tells no new candle"):
                told = self._levels.klines(venue, symbol, interval_ms, start_ms, end_ms)
            return told, self._belief.believed(venue, symbol, told)

        start_ms, end_ms = asked
        part_ms = PART_ROWS * interval_ms
        try:
            return ask(start_ms, end_ms)
        except MalformedKlines:
            if end_ms - start_ms <= part_ms:
                raise
        told, klines = ask(end_ms - part_ms, end_ms)
        for part_end_ms in range(end_ms - part_ms, start_ms, -part_ms):
            part_start_ms = max(start_ms, part_end_ms - part_ms)
            try:
                older = ask(part_start_ms, part_end_ms)
            except MalformedKlines as error:
                rows = range(part_start_ms, part_end_ms, interval_ms)
                self._series_of(symbol, interval_ms).refused |= dict.fromkeys(rows, str(error))
                if count := self._seldom.due("part_refused", symbol, interval_ms):
                    log.warning("part_refused", symbol=symbol, interval_ms=interval_ms, reason=str(error), parts=count)
                continue
            told, klines = older[0].merge(told), older[1].merge(klines)
        return told, klines

    def remark(self, symbol: str, interval_ms: int) -> str:
        """See the protocol."""
        return self._belief.why_held(symbol, interval_ms) or self._endings.of(symbol)

    def refused(self, symbol: str, interval_ms: int) -> Mapping[int, str]:
        """See the protocol."""
        return self.aside.refused(symbol, interval_ms) | self._series_of(symbol, interval_ms).refused

    def _known_end_ms(self, symbol: str) -> int:
        return max((recent.end_ms for recent in self._levels.recents(symbol)), default=0)

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        """See the protocol: the series' own venue's archives, or where it has none yet of the first that has any."""
        for venue in self.venues:
            if venue.offer.archives and self.level(symbol) in {"", venue.offer.name}:
                klines = venue.archive(symbol, interval_ms, day_ms, month=month)
                if klines is None:
                    return None
                # Files come in any order: beside each other ``market.store.units`` looks at them, and then the
                # caller lets them be remembered. Holes are asked for over REST.
                klines = self._belief.believed(venue, symbol, klines, alone=True)
                self._series_of(symbol, interval_ms)
                self._levels.begin(symbol, venue.offer.name)
                self.on_standing()
                return klines
        return None

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """See the protocol, and ``Quotes``."""
        return self._quotes.prices(symbols)

    def clock_ahead_ms(self) -> int:
        """See the protocol: of the first venue that is well and tells a time."""
        failures: Failures = []
        told: list[int] = []
        for venue in self._health.order(PRICES, "", failures):
            if not venue.offer.tells_time:
                continue
            try:
                told.append(venue.clock_ahead_ms())
            except WorkerError as error:
                failures.append((venue, error))
                continue
            self._health.proven(venue)  # by the very question that is a sign of life
            if len(told) == 2 or abs(told[0]) < ODD_AHEAD_MS:
                break
        if len(told) == 2:  # the first one's time is odd: of both and our own the one in the middle
            return sorted([*told, 0])[1]
        if told:
            return told[0]
        if not any(venue.offer.tells_time for venue in self.venues):
            return 0
        raise failure_of(failures, "the time")

    def remember(self, symbol: str, klines: Klines) -> None:
        """See the protocol. Where nobody has told a candle yet, they are taken to be at the first venue's level."""
        if len(klines):
            self._levels.begin(symbol, self.venues[0].offer.name)
            self._levels.learn(symbol, klines, own=True, older=True)

    def retold(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """See the protocol; where the own venue cannot be asked, the first other one whose level is known."""
        level, failures = self.level(symbol), Failures()
        for venue in sorted(self.venues, key=lambda venue: venue.offer.name != level):
            if interval_ms in venue.offer.intervals_ms and self._health.why_left(venue, KLINES, symbol) is None:
                try:
                    return self._levels.klines(venue, symbol, interval_ms, start_ms, end_ms)
                except WorkerError as error:
                    failures.append((venue, error))
        raise failure_of(failures, f"{interval_name(interval_ms)} klines of {symbol}")

    def forget(self, symbol: str, interval_ms: int, span: Span) -> None:
        """See the protocol: nothing is measured by them any more."""
        self._levels.forget(symbol, interval_ms, span)

    def borrowed(self, symbol: str, interval_ms: int) -> Sequence[Span]:
        """See the protocol; empty while it is not the series' own venue that is asked first.

        One that is back and fails again makes another venue tell all of them once more: so less and less often.
        """
        series, level, now_ms = self._series_of(symbol, interval_ms), self.level(symbol), self._clock.now_ms()
        if 0 < series.again_ms - now_ms <= LONGEST_VAIN_MS:  # more: the clock was set back
            return ()
        asked = next(self._health.order(KLINES, symbol, [], self._health.having(interval_ms, now_ms)), None)
        if asked is None or asked.offer.name != level:
            return ()
        series.offered = bool(series.borrowed)
        return series.borrowed

    def stream_factor(self, symbol: str) -> float | None:
        """See the protocol; the stream is the first venue's."""
        return self._levels.factor(self.venues[0], symbol, may_ask=False)

    def lent(self, symbol: str, interval_ms: int) -> int:
        """See the protocol."""
        return self._series_of(symbol, interval_ms).lent

    def source(self, symbol: str, interval_ms: int) -> str:
        """See the protocol; empty before the first candle."""
        return self._series_of(symbol, interval_ms).source

    def teller(self, symbol: str, interval_ms: int, open_ms: int) -> str:
        """See the protocol."""
        level, own = self.level(symbol), self._levels.own(symbol, interval_ms).open_time_ms
        row = int(np.searchsorted(own, open_ms))
        if row < len(own) and own[row] == open_ms:
            return level
        source = self.source(symbol, interval_ms)
        return source if source != level else UNKNOWN  # another venue filled a hole

    def level(self, symbol: str) -> str:
        """The venue at whose level a symbol's series are; empty before the first candle."""
        return self._levels.of(symbol)

    @property
    def standing(self) -> Standing:
        """What another process, or this one after its end, must know of each series: see ``market.build``."""
        with self._lock:
            return {
                f"{symbol}-{interval_name(interval_ms)}": {
                    "level": self.level(symbol),
                    "borrowed": [list(span) for span in self._series[symbol, interval_ms].borrowed],
                }
                for symbol, interval_ms in sorted(self._series)
                if self.level(symbol)
            }

    def stand(self, symbol: str, interval_ms: int, level: str, borrowed: Iterable[Span]) -> None:
        """Begin a series where an earlier process left it."""
        with self._lock:
            self._levels.begin(symbol, level)
            self._series[symbol, interval_ms] = _Series(borrowed=tuple(borrowed))

    def is_stood_in_for(self, symbol: str, interval_ms: int) -> bool:
        """Whether a series was begun by another venue and the first one could tell all of it now, which is asked."""
        first, end_ms = self.venues[0], self._clock.now_ms() // interval_ms * interval_ms
        if self.level(symbol) in {"", first.offer.name} or not first.offer.archives:
            return False
        if self._health.why_left(first, KLINES, symbol):
            return False
        try:
            newest = first.klines(symbol, interval_ms, end_ms - NEWEST_ROWS * interval_ms, end_ms)
            return bool(len(newest)) and first.archive(symbol, interval_ms, end_ms - ARCHIVED_MS) is not None
        except WorkerError:
            return False

    def begin_anew(self, symbol: str) -> None:
        """Whoever tells a symbol's next candles tells them at its own level; the caller has none any more."""
        with self._lock:
            self._levels.end(symbol)
            for key in [key for key in self._series if key[0] == symbol]:
                self._series[key] = _Series()
            for hole in [hole for hole in self._holes if hole[0] == symbol]:
                del self._holes[hole]

    def owe(self, symbol: str, interval_ms: int, borrowed: Iterable[Span]) -> None:
        """Candles of another venue's were to be replaced and could not be kept: they are to be asked for once more."""
        series = self._series_of(symbol, interval_ms)
        with self._lock:
            series.borrowed = tuple(joined([*series.borrowed, *borrowed]))

    # What a person asks.

    @property
    def faults(self) -> dict[tuple[str, str, str], VenueFault]:
        """See ``Health``."""
        return self._health.faults

    def stop(self) -> None:
        """End the threads that wait for signs of life."""
        self._health.stop()

    # Who is asked.

    def _series_of(self, symbol: str, interval_ms: int) -> _Series:
        with self._lock:
            return self._series.setdefault((symbol, interval_ms), _Series())

    def _was_in_vain(self, venue: Venue, symbol: str, series: _Series) -> None:
        """A venue had nothing; where that is the series' own, it is left alone with what it may be asked again for."""
        with self._lock:
            if series.offered and venue.offer.name == self.level(symbol):
                pause_ms = min(MINUTE_MS * 2 ** min(series.in_vain, 10), LONGEST_VAIN_MS)
                series.offered, series.in_vain = False, series.in_vain + 1
                series.again_ms = self._clock.now_ms() + pause_ms

    # What is believed.

    def _is_silent(self, symbol: str, klines: Klines, asked: Span) -> bool:
        """Whether a venue that was asked for the newest candles has none of them, or no trade in them."""
        interval_ms, (start_ms, end_ms) = klines.interval_ms, asked
        newest_ms = self._clock.now_ms() // interval_ms * interval_ms
        if end_ms < newest_ms:
            return False
        recent = self._levels.recent(symbol, interval_ms)
        run = klines if recent is None else recent.between(0, start_ms).merge(klines)
        awaited = self._clock.now_ms() - newest_ms < PUBLISHED_MS
        quiet = quiet_rows(run, max(klines.end_ms, newest_ms - interval_ms) if awaited else newest_ms)
        return quiet >= max(SILENT_ROWS, 2 * longest_quiet(run) + 1)

    def _taken(self, venue: Venue, symbol: str, klines: Klines, asked: Span) -> Klines:
        """Candles that a venue told; what is known of the series after them is noted.

        Args:
            asked: the range that it was asked for.
        """
        name = venue.offer.name
        series = self._series_of(symbol, klines.interval_ms)
        if not len(klines):
            return klines
        self._levels.begin(symbol, name)
        own = self._levels.own(symbol, klines.interval_ms)
        with self._lock:
            before, series.source = series.source, name
            level = self.level(symbol)
            self._levels.learn(symbol, klines, own=name == level)
            if name == level:
                series.borrowed = tuple(without(series.borrowed, [asked]))  # what it lacks now it will not have
                series.offered, series.in_vain, series.again_ms = False, 0, 0
            else:
                series.lent += 1
                foreign = np.setdiff1d(klines.open_time_ms, own.open_time_ms, assume_unique=True)
                # What a better venue told stays, as does all where the own one is not in use any more.
                if len(foreign) and self._rank[name] > self._rank.get(level, len(self._rank)):
                    span = (int(foreign[0]), int(foreign[-1]) + klines.interval_ms)
                    series.borrowed = joined([*series.borrowed, span])
        self.on_standing()
        if before and before != name:
            self.switches += 1
            if count := self._seldom.due("market_venue_changed", symbol):
                log.warning("market_venue_changed", symbol=symbol, venue=name, before=before, times=count)
        return klines

    def _filled(self, venue: Venue, symbol: str, klines: Klines) -> Klines:
        """Candles with the holes between them from another venue, where one has them; what stays missing is a gap."""
        interval_ms, now_ms = klines.interval_ms, self._clock.now_ms()

        def fitting(other: Venue, *asked: Any) -> Klines:
            return self._belief.believed(other, symbol, self._levels.klines(other, *asked), among=klines)

        for start_ms, end_ms in [*klines.gaps()][-MOST_HOLES:]:
            hole = (symbol, interval_ms, start_ms)
            with self._lock:
                asked_ms = self._holes.get(hole)
                if asked_ms is not None and 0 <= now_ms - asked_ms < HOLE_AGAIN_MS:
                    continue
                if len(self._holes) > REMEMBERED_HOLES:
                    self._holes.clear()
                self._holes[hole] = now_ms
            for other, told in self._health.others(venue, symbol, interval_ms, (start_ms, end_ms), fitting):
                if len(told):
                    if count := self._seldom.due("hole_filled", symbol, other.offer.name, count=len(told)):
                        said = {"symbol": symbol, "venue": other.offer.name, "start": iso(start_ms), "rows": count}
                        log.info("hole_filled", **said)
                    klines = klines.merge(told)
                    self.filled += len(told)
                    break
        return klines


def _ignored() -> None:
    """What is done about a changed standing where nobody keeps it."""
