"""Several venues as one: each symbol from the first that can serve it, all at one level, and no row that is doubted.

The first venue that told a symbol's candles sets its level. What another one tells is multiplied by the ratio of the
two on candles that both have, so that a difference between venues (dollars against USDT) never becomes a return; where
no ratio can be measured the other venue is not used.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import structlog

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, Clock, iso
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from market.health import KLINES, PRICES, Failures, Health, NoLevel, VenueFault
from market.hosts import Refused
from market.klines import COLUMNS, PRICE_COLUMNS, Klines, Span, interval_name, without
from market.level import LEAST_COMMON, Scale, level_ratio
from market.provider import MarketData, Price, Venue
from market.quality import Aside, RefusedRow, doubts_of, extent_of, has_left, longest_quiet, quiet_rows

OVERLAP_ROWS = 60  # asked of a venue before what is wanted, to measure its level by
REMEMBERED_ROWS = 300
# Candles that are missing at the end, or without a trade, before another venue is asked whether it has them.
SILENT_ROWS = 3
MOST_HOLES, HOLE_AGAIN_MS, REMEMBERED_HOLES = 20, 10 * MINUTE_MS, 10_000  # of one answer; asked for elsewhere
SCALE_GOOD_MS = HOUR_MS  # then it is measured anew before a price counts by it
STILL_SEEN_MS = 5 * SECOND_MS  # a price that was not asked for in between may have been another one
PRICE_SHARE = 0.5  # of what a venue may be asked: the other half is for candles and signs of life

log = structlog.get_logger()


@dataclass(slots=True)
class _Series:
    """What is known of one series; changed under the lock."""

    recent: Klines | None = None  # its newest candles, of the venue at whose level it is alone
    source: str = ""  # who told its newest candle
    borrowed: tuple[Span, ...] = ()  # candles that another venue told and the series' own was not asked for since
    lent: int = 0  # answers of other venues
    awaited_ms: int = 0  # open time of the last leap that was said to wait


@dataclass(slots=True)
class _Still:
    """A price that a venue told again and again."""

    price: float
    since_ms: int
    seen_ms: int
    frozen: bool = False  # the venue's candles have left it


@dataclass(slots=True)
class _Book:
    """All that changes."""

    levels: dict[str, str] = field(default_factory=dict)  # symbol: the venue at whose level all its series are
    series: dict[tuple[str, int], _Series] = field(default_factory=dict)
    scales: dict[tuple[str, str], Scale] = field(default_factory=dict)  # by (venue, symbol)
    tried: dict[tuple[str, str], int] = field(default_factory=dict)  # likewise: when the scale was last asked for
    stills: dict[tuple[str, str], _Still] = field(default_factory=dict)  # by (venue, symbol)
    holes: dict[tuple[str, int, int], int] = field(default_factory=dict)  # symbol, interval, start: asked for at


class Failover(MarketData):
    """See the module. Safe to use from several threads.

    Args:
        venues: best first.
        clock: for rests and ages.
        aside: takes the rows that are doubted.
        awaits_life: as ``Health`` has it.
    """

    def __init__(self, venues: Sequence[Venue], clock: Clock, aside: Aside, *, awaits_life: bool = True) -> None:
        self.venues = tuple(venues)
        self.aside = aside
        self.stream_venue = self.venues[0].offer.name
        self.switches = 0  # how often a series' candles came from another venue than before
        self.filled = 0  # candles that a venue lacked and another one had
        self.price_pause_s = 0.0  # how long to leave between two questions for prices, as those asked last want it
        self._clock = clock
        self._health = Health(self.venues, clock, awaits_life=awaits_life)
        self._lock = threading.RLock()
        self._book = _Book()

    # What the rest of the project asks.

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """See the protocol: from the first venue that can, at the level of the series.

        A venue that has nothing of the last candles, or no trade in them, is passed over where another one has them.
        """
        failures: Failures = []
        silent: list[tuple[Venue, Klines]] = []
        for venue in self._health.order(KLINES, symbol, failures):
            if not self._offers(venue, interval_ms, end_ms):
                continue
            try:
                klines = self._at_level(venue, symbol, interval_ms, start_ms, end_ms)
            except WorkerError as error:
                self._health.failed(venue, KLINES, symbol, error)
                failures.append((venue, error))
                continue
            self._health.well(venue, KLINES, symbol)
            if self._is_silent(symbol, interval_ms, klines, end_ms):
                silent.append((venue, klines))
                continue
            for other, _ in silent:
                self._health.silent(other, symbol)
            return self._filled(venue, symbol, self._taken(venue, symbol, klines, (start_ms, end_ms)))
        if silent:  # whoever has the newest; it is the market that is silent
            venue, klines = max(silent, key=lambda told: told[1].end_ms)
            return self._taken(venue, symbol, klines, (start_ms, end_ms))
        raise _failure(failures, f"{interval_name(interval_ms)} klines of {symbol}")

    def archive(self, symbol: str, interval_ms: int, day_ms: int, *, month: bool = False) -> Klines | None:
        """See the protocol: the series' own venue's archives, or where it has none yet of the first that has any."""
        for venue in self.venues:
            if venue.offer.archives and self.level(symbol) in {"", venue.offer.name}:
                klines = venue.archive(symbol, interval_ms, day_ms, month=month)
                if klines is None:
                    return None
                self._begun(symbol, venue.offer.name)
                return self._believed(venue, symbol, klines)  # the holes are asked for over REST
        return None

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """See the protocol. A symbol that no venue has a price of is left out, where there is one of another."""
        found: dict[str, Price] = {}
        failures: Failures = []
        left, pause_s = list(dict.fromkeys(symbols)), 0.0
        for venue in self.venues:
            whys = {symbol: self._health.why_left(venue, PRICES, symbol) for symbol in left}
            fit = [symbol for symbol, why in whys.items() if why is None]
            failures += [(venue, why) for why in whys.values() if why is not None][:1]
            if not fit:
                continue
            requests = 1 if venue.offer.prices_at_once else len(fit)
            pause_s = max(pause_s, 60 * requests / (PRICE_SHARE * venue.offer.requests_a_minute))
            for symbol, price in self._told(venue, fit, failures).items():
                if (since_ms := self._still_since(venue, symbol, price.price)) is not None:
                    failures.append((venue, self._health.frozen(venue, symbol, since_ms)))
                    continue
                try:
                    factor = self._factor(venue, symbol)
                    if factor is None:
                        raise _no_level(venue, symbol, self.level(symbol))
                except WorkerError as error:
                    self._health.failed(venue, PRICES, symbol, error)
                    failures.append((venue, error))
                else:
                    found[symbol] = replace(price, price=price.price * factor, venue=venue.offer.name)
            left = [symbol for symbol in left if symbol not in found]
            if not left:
                break
        self.price_pause_s = pause_s
        if not found:
            raise _failure(failures, f"prices of {', '.join(symbols)}")
        return found

    def clock_ahead_ms(self) -> int:
        """See the protocol: of the first venue that is well and tells a time."""
        failures: Failures = []
        for venue in self._health.order(PRICES, "", failures):
            if not venue.offer.tells_time:
                continue
            try:
                ahead_ms = venue.clock_ahead_ms()
            except WorkerError as error:
                failures.append((venue, error))
                continue
            self._health.proven(venue)  # by the very question that is a sign of life
            return ahead_ms
        if not any(venue.offer.tells_time for venue in self.venues):
            return 0
        raise _failure(failures, "the time")

    def remember(self, symbol: str, klines: Klines) -> None:
        """See the protocol. Where nobody has told a candle yet, they are taken to be at the first venue's level."""
        if not len(klines):
            return
        with self._lock:
            self._begun(symbol, self.venues[0].offer.name)
            series = self._series(symbol, klines.interval_ms)
            known = series.recent
            series.recent = klines.tail(REMEMBERED_ROWS) if known is None else klines.merge(known).tail(REMEMBERED_ROWS)

    def borrowed(self, symbol: str, interval_ms: int) -> Sequence[Span]:
        """See the protocol; empty while it is not the series' own venue that is asked first."""
        series = self._series(symbol, interval_ms)
        level = self.level(symbol)
        asked = next(self._health.order(KLINES, symbol, []), None)
        return series.borrowed if asked is not None and asked.offer.name == level else ()

    def stream_factor(self, symbol: str) -> float | None:
        """See the protocol; the stream is the first venue's."""
        return self._factor(self.venues[0], symbol, may_ask=False)

    def lent(self, symbol: str, interval_ms: int) -> int:
        """See the protocol."""
        return self._series(symbol, interval_ms).lent

    def source(self, symbol: str, interval_ms: int) -> str:
        """See the protocol; empty before the first candle."""
        return self._series(symbol, interval_ms).source

    def level(self, symbol: str) -> str:
        """The venue at whose level a symbol's series are; empty before the first candle."""
        return self._book.levels.get(symbol, "")

    @property
    def standing(self) -> dict[str, dict[str, str | list[list[int]]]]:
        """What another process, or this one after its end, must know of each series: see ``market.venues``."""
        with self._lock:
            return {
                f"{symbol}-{interval_name(interval_ms)}": {
                    "level": self._book.levels[symbol],
                    "borrowed": [list(span) for span in self._book.series[symbol, interval_ms].borrowed],
                }
                for symbol, interval_ms in sorted(self._book.series)
                if symbol in self._book.levels
            }

    def stand(self, symbol: str, interval_ms: int, level: str, borrowed: Iterable[Span]) -> None:
        """Begin a series where an earlier process left it."""
        with self._lock:
            self._begun(symbol, level)
            self._book.series[symbol, interval_ms] = _Series(borrowed=tuple(borrowed))

    # What a person asks.

    @property
    def faults(self) -> dict[tuple[str, str, str], VenueFault]:
        """See ``Health``."""
        return self._health.faults

    def stop(self) -> None:
        """End the threads that wait for signs of life."""
        self._health.stop()

    # Who is asked.

    def _offers(self, venue: Venue, interval_ms: int, end_ms: int) -> bool:
        rows = venue.offer.history_rows
        reaches = rows is None or end_ms > self._clock.now_ms() - rows * interval_ms
        return interval_ms in venue.offer.intervals_ms and reaches

    # At what level.

    def _series(self, symbol: str, interval_ms: int) -> _Series:
        with self._lock:
            return self._book.series.setdefault((symbol, interval_ms), _Series())

    def _begun(self, symbol: str, venue: str) -> None:
        """A venue tells a symbol's first candles: all that come after are at its level."""
        with self._lock:
            self._book.levels.setdefault(symbol, venue)

    def _at_level(self, venue: Venue, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """What a venue has, at the level of the series."""
        series, name, level = self._series(symbol, interval_ms), venue.offer.name, self.level(symbol)
        if series.recent is None and level not in {v.offer.name for v in self.venues}:
            level = ""  # of a venue that is not in use any more, and nothing is there to be at its level
            with self._lock:
                self._book.levels.pop(symbol, None)
        if level == name:
            return venue.klines(symbol, interval_ms, start_ms, end_ms)
        if not level:
            told = venue.klines(symbol, interval_ms, start_ms, end_ms)
            if not len(told):
                return told
            self._begun(symbol, name)
            if self.level(symbol) == name:
                return told
            return self._at_level(venue, symbol, interval_ms, start_ms, end_ms)  # another one was told meanwhile
        told, recent = venue.klines(symbol, interval_ms, start_ms - OVERLAP_ROWS * interval_ms, end_ms), series.recent
        scale = self._measured(venue, symbol, recent, told) or self._book.scales.get((name, symbol))
        if scale is None and recent is not None:
            scale = self._measured_anew(venue, symbol, recent)
        if scale is None:
            raise _no_level(venue, symbol, level)
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
        if recent is not None:  # what the series' own venue told stays
            whole = whole.merge(recent.between(start_ms, end_ms))
        return whole.between(start_ms, end_ms)

    def _measured(self, venue: Venue, symbol: str, recent: Klines | None, told: Klines) -> Scale | None:
        """The scale by candles that the series and a venue share, remembered; None where they do not tell."""
        found = level_ratio(recent, told) if recent is not None else None
        if found is None:
            # Where they share enough and do not agree, what was measured before is refuted.
            if recent is not None and np.isin(told.open_time_ms, recent.open_time_ms).sum() >= LEAST_COMMON:
                with self._lock:
                    self._book.scales.pop((venue.offer.name, symbol), None)
            return None
        found = replace(found, measured_ms=self._clock.now_ms())
        with self._lock:
            self._book.scales[venue.offer.name, symbol] = found
        return found

    def _measured_anew(self, venue: Venue, symbol: str, recent: Klines) -> Scale | None:
        """The scale by the newest candles of a series, which a venue is asked for: once a minute at the most."""
        key, interval_ms, now_ms = (venue.offer.name, symbol), recent.interval_ms, self._clock.now_ms()
        tried_ms = self._book.tried.get(key)
        if tried_ms is not None and 0 <= now_ms - tried_ms < MINUTE_MS:
            return None
        told = venue.klines(symbol, interval_ms, recent.end_ms - OVERLAP_ROWS * interval_ms, recent.end_ms)
        with self._lock:
            self._book.tried[key] = now_ms
        return self._measured(venue, symbol, recent, told)

    def _factor(self, venue: Venue, symbol: str, *, may_ask: bool = True) -> float | None:
        """What a price of a venue is multiplied by; None when that cannot be told.

        Raises:
            WorkerError: the venue was asked for candles to tell it, and failed.
        """
        name, now_ms = venue.offer.name, self._clock.now_ms()
        if self.level(symbol) in {"", name}:
            return 1.0
        known = self._book.scales.get((name, symbol))
        fresh = known is not None and 0 <= now_ms - known.measured_ms < SCALE_GOOD_MS
        if may_ask and not fresh:
            with self._lock:
                recents = [series.recent for (other, _), series in self._book.series.items() if other == symbol]
            usable = [one for one in recents if one is not None and one.interval_ms in venue.offer.intervals_ms]
            if usable:
                known = self._measured_anew(venue, symbol, min(usable, key=lambda one: one.interval_ms)) or known
        return known.price if known else None

    # What is believed.

    def _is_silent(self, symbol: str, interval_ms: int, klines: Klines, end_ms: int) -> bool:
        """Whether a venue that was asked for the newest candles has none of them, or no trade in them."""
        newest_ms = self._clock.now_ms() // interval_ms * interval_ms
        if end_ms < newest_ms or len(self.venues) == 1:
            return False
        if klines.end_ms < newest_ms - SILENT_ROWS * interval_ms:
            return True
        recent = self._series(symbol, interval_ms).recent
        run = klines if recent is None else recent.merge(klines)
        quiet = quiet_rows(run)
        return quiet >= max(SILENT_ROWS, 2 * longest_quiet(run.between(0, run.end_ms - quiet * interval_ms)) + 1)

    def _still_since(self, venue: Venue, symbol: str, price: float) -> int | None:
        """Since when a venue tells a price that its own candles have left meanwhile; None where they have not."""
        name, now_ms = venue.offer.name, self._clock.now_ms()
        with self._lock:
            still = self._book.stills.get((name, symbol))
            soon_ms = max(STILL_SEEN_MS, 2 * SECOND_MS * self.price_pause_s)
            again = still is not None and (still.frozen or 0 <= now_ms - still.seen_ms < soon_ms)
            if still is None or still.price != price or not again:
                self._book.stills[name, symbol] = _Still(price=price, since_ms=now_ms, seen_ms=now_ms)
                return None
            still.seen_ms = now_ms
            if self._book.levels.get(symbol) == name:  # of the others' own candles none are kept
                recents = [series.recent for (other, _), series in self._book.series.items() if other == symbol]
                still.frozen = any(has_left(price, recent, still.since_ms) for recent in recents)
            return still.since_ms if still.frozen else None

    def _taken(self, venue: Venue, symbol: str, klines: Klines, asked: Span) -> Klines:
        """Candles that a venue told, less those that are not believed; and what is known of the series after them.

        Args:
            asked: the range that it was asked for.
        """
        klines = self._believed(venue, symbol, klines)
        name = venue.offer.name
        series = self._series(symbol, klines.interval_ms)
        with self._lock:
            if not len(klines):
                return klines
            before, series.source = series.source, name
            self._begun(symbol, name)
            if name == self.level(symbol):
                known = series.recent
                series.recent = (known.merge(klines) if known is not None else klines).tail(REMEMBERED_ROWS)
                series.borrowed = tuple(without(series.borrowed, [asked]))  # what it lacks now it will not have
            else:
                series.lent += 1
                own = series.recent.open_time_ms if series.recent is not None else ()
                foreign = np.setdiff1d(klines.open_time_ms, own, assume_unique=True)
                if len(foreign):
                    span = (int(foreign[0]), int(foreign[-1]) + klines.interval_ms)
                    series.borrowed = _joined([*series.borrowed, span])
        if before and before != name:
            self.switches += 1
            log.warning("market_venue_changed", symbol=symbol, venue=name, before=before)
        return klines

    def _filled(self, venue: Venue, symbol: str, klines: Klines) -> Klines:
        """Candles with the holes between them from another venue, where one has them; what stays missing is a gap."""
        interval_ms, now_ms = klines.interval_ms, self._clock.now_ms()
        for start_ms, end_ms in [*klines.gaps()][-MOST_HOLES:]:
            hole = (symbol, interval_ms, start_ms)
            with self._lock:
                asked_ms = self._book.holes.get(hole)
                if asked_ms is not None and 0 <= now_ms - asked_ms < HOLE_AGAIN_MS:
                    continue
                if len(self._book.holes) > REMEMBERED_HOLES:
                    self._book.holes.clear()
                self._book.holes[hole] = now_ms
            for other in self._health.order(KLINES, symbol, []):
                if other is venue or not self._offers(other, interval_ms, end_ms):
                    continue
                try:
                    told = self._at_level(other, symbol, interval_ms, start_ms, end_ms)
                except WorkerError as error:
                    self._health.failed(other, KLINES, symbol, error)
                    continue
                if len(told):
                    log.info("hole_filled", symbol=symbol, venue=other.offer.name, start=iso(start_ms), rows=len(told))
                    klines = klines.merge(told)
                    self.filled += len(told)
                    break
        return klines

    def _believed(self, venue: Venue, symbol: str, klines: Klines) -> Klines:
        """Candles less those far from all others, unless a second venue has the like."""
        series = self._series(symbol, klines.interval_ms)
        doubts = doubts_of(klines, series.recent)
        if not doubts:
            return klines
        refused = [
            _row(klines, at_ms, "far from its neighbours, and no second venue has the like")
            for at_ms in doubts.spikes
            if not self._has_second(venue, symbol, klines, at_ms)
        ]
        keep = ~np.isin(klines.open_time_ms, [row.open_time_ms for row in refused])
        leap_ms = doubts.leap_ms
        if leap_ms is not None and not self._has_second(venue, symbol, klines, leap_ms):
            # It comes again with the next question, and is believed when it has stayed.
            keep &= klines.open_time_ms < leap_ms
            if series.awaited_ms != leap_ms:
                series.awaited_ms = leap_ms
                log.warning("leap_awaits_confirmation", venue=venue.offer.name, symbol=symbol, open=iso(leap_ms))
        self.aside.put(venue.offer.name, symbol, klines.interval_ms, refused, self._clock.now_ms())
        columns = {name: getattr(klines, name)[keep] for name in COLUMNS}
        return Klines(interval_ms=klines.interval_ms, open_time_ms=klines.open_time_ms[keep], **columns)

    def _has_second(self, first: Venue, symbol: str, klines: Klines, at_ms: int) -> bool:
        """Whether another venue has as large a move in the same candle."""
        interval_ms = klines.interval_ms
        move = extent_of(klines, at_ms)
        for venue in self._health.order(KLINES, symbol, []):
            if venue is first or not self._offers(venue, interval_ms, at_ms + interval_ms):
                continue
            try:
                told = venue.klines(symbol, interval_ms, at_ms - interval_ms, at_ms + interval_ms)
            except WorkerError as error:
                self._health.failed(venue, KLINES, symbol, error)
                continue
            if len(told.between(at_ms, at_ms + interval_ms)):
                return extent_of(told, at_ms) >= move / 2
        return False

    def _told(self, venue: Venue, symbols: list[str], failures: Failures) -> dict[str, Price]:
        """Prices of one venue; one symbol that it cannot tell does not spoil the others."""
        try:
            told = venue.prices(symbols)
        except WorkerError as error:
            if len(symbols) > 1 and isinstance(error, ConfigError | MalformedKlines | Refused):
                singles: dict[str, Price] = {}
                for symbol in symbols:
                    singles |= self._told(venue, [symbol], failures)
                return singles
            self._health.failed(venue, PRICES, symbols[0], error)
            failures.append((venue, error))
            return {}
        for symbol in told:
            self._health.well(venue, PRICES, symbol)
        return told


def _no_level(venue: Venue, symbol: str, level: str) -> NoLevel:
    return NoLevel(
        f"{venue.offer.name}: its candles of {symbol} share fewer than {LEAST_COMMON} with those of {level}, or do not "
        "move with them: its level is not known"
    )


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in order, with those that touch made one.

    >>> _joined([(20, 30), (0, 10), (10, 15)])
    ((0, 15), (20, 30))
    """
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            first, last = joined.pop()
            joined.append((first, max(last, end)))
        else:
            joined.append((start, end))
    return tuple(joined)


def _row(klines: Klines, at_ms: int, reason: str) -> RefusedRow:
    row = int(np.searchsorted(klines.open_time_ms, at_ms))
    cells = tuple(float(getattr(klines, name)[row]) for name in COLUMNS)
    return RefusedRow(open_time_ms=at_ms, reason=reason, row=cells)


def _failure(failures: Failures, what: str) -> WorkerError:
    """One error for all venues: of the kind that says what to do next."""
    if len(failures) == 1:
        return failures[0][1]
    told = "; ".join(f"{venue.offer.name}: {error}" for venue, error in failures)
    errors = [error for _, error in failures]
    message = f"no venue has {what}: {told}" if failures else f"no venue of MARKET_VENUES has {what}"
    if all(isinstance(error, ConfigError) for error in errors):
        return ConfigError(message)
    waits = [error.retry_after_s if isinstance(error, MarketUnavailable) else None for error in errors]
    known = [wait_s for wait_s in waits if wait_s is not None]
    return MarketUnavailable(message, min(known) if len(known) == len(waits) else None)
