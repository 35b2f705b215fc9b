"""Several venues as one: each symbol from the first that can serve it, all at one level, and no row that is doubted.

Levels are in ``market.level``, and who may be asked in ``market.health``.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import structlog

from core.clock import MINUTE_MS, SECOND_MS, Clock, iso
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from market.anchors import MOST_LIMIT
from market.health import KLINES, PRICES, Failures, Health, VenueFault
from market.hosts import Refused
from market.klines import COLUMNS, Klines, Span, interval_name, joined, without
from market.level import Levels
from market.provider import MarketData, Price, Venue
from market.quality import (
    MOST_LEAP,
    ROUNDING,
    STAYED_ROWS,
    Aside,
    RefusedRow,
    doubts_of,
    extent_of,
    has_left,
    longest_quiet,
    quiet_rows,
    step_of,
)

# Candles that are missing at the end, or without a trade, before another venue is asked whether it has them.
SILENT_ROWS = 2
PUBLISHED_MS = 20 * SECOND_MS  # by then a venue has told a candle that it has
MOST_HOLES, HOLE_AGAIN_MS, REMEMBERED_HOLES = 20, 10 * MINUTE_MS, 10_000  # of one answer; asked for elsewhere
LONGEST_VAIN_MS = 60 * MINUTE_MS  # between two offers of what may be asked for again
STILL_SEEN_MS = 5 * SECOND_MS  # a price that was not asked for in between may have been another one
OF_ONE_SYMBOL = (ConfigError, MalformedKlines, Refused)  # failures that may be about one symbol of several
FAR_WITHIN_MS = 10 * MINUTE_MS  # of the newest candle: after that a price may be anywhere
ODD_AHEAD_MS = 2 * SECOND_MS  # a venue's time so far from ours wants a second opinion
OLD_PRICE_MS = 10 * SECOND_MS  # of a trade: then the next venue is asked whether it has had one since
PRICE_SHARE = 0.5  # of what a venue may be asked: the other half is for candles and signs of life

Standing = dict[str, dict[str, Any]]  # series, as "ETHUSDT-1m": {"level": venue, "borrowed": [[start_ms, end_ms], ...]}

log = structlog.get_logger()


@dataclass(slots=True)
class _Series:
    """What is known of one series; changed under the lock."""

    source: str = ""  # who told its newest candle
    borrowed: tuple[Span, ...] = ()  # candles that another venue told and the series' own was not asked for since
    lent: int = 0  # answers of other venues
    offered: bool = False  # whoever asks was told of those
    in_vain: int = 0  # how often in a row the own venue then had nothing
    again_ms: int = 0  # not offered before
    awaited_ms: int = 0  # open time of the last leap that was said to wait


@dataclass(slots=True)
class _Still:
    """A price that a venue told again and again."""

    price: float
    since_ms: int
    seen_ms: int
    known_ms: int  # end of the newest candle that was known then
    frozen: bool = False  # the venue's candles have left it


@dataclass(frozen=True, slots=True)
class _Quote:
    """A price that a venue told when it was asked last."""

    at_ms: int
    price: Price


@dataclass(slots=True)
class _Book:
    """All that changes."""

    series: dict[tuple[str, int], _Series] = field(default_factory=dict)
    quotes: dict[str, dict[str, _Quote]] = field(default_factory=dict)  # by venue, symbol
    stills: dict[tuple[str, str], _Still] = field(default_factory=dict)  # by (venue, symbol)
    holes: dict[tuple[str, int, int], int] = field(default_factory=dict)  # symbol, interval, start: asked for at
    # By venue, symbol, interval, open time of a spike: when a second venue was asked, and whether it has the like.
    verdicts: dict[tuple[str, str, int, int], tuple[int, bool]] = field(default_factory=dict)
    # Likewise of a leap, and how many candles say so: when, who was found to have them, how far they go there.
    steps: dict[tuple[str, str, int, int, int], tuple[int, str, float]] = field(default_factory=dict)


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

    def __init__(self, venues: Sequence[Venue], clock: Clock, aside: Aside, *, awaits_life: bool = True) -> None:
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
        self._book = _Book()
        self._rank = {venue.offer.name: number for number, venue in enumerate(self.venues)}

    # What the rest of the project asks.

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """See the protocol: from the first venue that can, at the level of the series.

        A venue that has nothing of the last candles, or no trade in them, is passed over where another one has them.
        """
        failures: Failures = []
        silent: list[tuple[Venue, Klines]] = []
        series = self._series(symbol, interval_ms)
        for venue in self._health.order(KLINES, symbol, failures, self._having(interval_ms, end_ms)):
            try:
                klines = self._levels.klines(venue, symbol, interval_ms, start_ms, end_ms)
                self._check_leaps(venue, symbol, klines)
            except WorkerError as error:
                self._health.failed(venue, KLINES, symbol, error)
                failures.append((venue, error))
                self._was_in_vain(venue, symbol, series)
                continue
            self._health.well(venue, KLINES, symbol)
            if self._is_silent(symbol, klines, (start_ms, end_ms)):
                silent.append((venue, klines))
                self._was_in_vain(venue, symbol, series)
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
                self._check_leaps(venue, symbol, klines)
                self._series(symbol, interval_ms)
                self._levels.begin(symbol, venue.offer.name)
                self.on_standing()
                klines = self._believed(venue, symbol, klines)  # the holes are asked for over REST
                self._levels.learn(symbol, klines, own=True, older=True)
                return klines
        return None

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """See the protocol. A symbol that no venue has a price of is left out, where there is one of another.

        A symbol that has long not been traded at one venue is asked for at the next, and the newest price counts.
        """
        found: dict[str, Price] = {}
        failures: Failures = []
        far: dict[str, tuple[Venue, Price]] = {}  # prices that the candles say nothing of
        left = list(dict.fromkeys(symbols))
        for venue in self.venues:
            fit = []
            for symbol in left:
                why = self._why_no_price(venue, symbol)
                if why is None:
                    fit.append(symbol)
                elif not failures or failures[-1][0] is not venue:  # one for each venue says enough
                    failures.append((venue, why))
            for symbol, told in (self._told(venue, fit, failures) if fit else {}).items():
                price: Price | None
                try:
                    price = self._at_level(venue, symbol, told)
                except WorkerError as error:
                    failures.append((venue, error))
                    continue
                price = self._agreed(venue, symbol, price, far)
                if price is None:
                    continue
                self._health.well(venue, PRICES, symbol)
                if symbol not in found or price.asof_ms > found[symbol].asof_ms:
                    found[symbol] = price
            old_ms = self._clock.now_ms() - OLD_PRICE_MS
            left = [symbol for symbol in left if symbol not in found or found[symbol].asof_ms < old_ms]
            if not left:
                break
        for symbol, (_, price) in far.items():  # nobody has another: whoever reads it asks for confirmation
            found.setdefault(symbol, price)
        if not found:
            raise _failure(failures, f"prices of {', '.join(symbols)}")
        return found

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
        raise _failure(failures, "the time")

    def remember(self, symbol: str, klines: Klines) -> None:
        """See the protocol. Where nobody has told a candle yet, they are taken to be at the first venue's level."""
        if len(klines):
            self._levels.begin(symbol, self.venues[0].offer.name)
            self._levels.learn(symbol, klines, own=True, older=True)

    def borrowed(self, symbol: str, interval_ms: int) -> Sequence[Span]:
        """See the protocol; empty while it is not the series' own venue that is asked first.

        One that is back and fails again makes another venue tell all of them once more: so less and less often.
        """
        series, level, now_ms = self._series(symbol, interval_ms), self.level(symbol), self._clock.now_ms()
        if 0 < series.again_ms - now_ms <= LONGEST_VAIN_MS:  # more: the clock was set back
            return ()
        asked = next(self._health.order(KLINES, symbol, [], self._having(interval_ms, self._clock.now_ms())), None)
        if asked is None or asked.offer.name != level:
            return ()
        series.offered = bool(series.borrowed)
        return series.borrowed

    def stream_factor(self, symbol: str) -> float | None:
        """See the protocol; the stream is the first venue's."""
        return self._levels.factor(self.venues[0], symbol, may_ask=False)

    def lent(self, symbol: str, interval_ms: int) -> int:
        """See the protocol."""
        return self._series(symbol, interval_ms).lent

    def source(self, symbol: str, interval_ms: int) -> str:
        """See the protocol; empty before the first candle."""
        return self._series(symbol, interval_ms).source

    def level(self, symbol: str) -> str:
        """The venue at whose level a symbol's series are; empty before the first candle."""
        return self._levels.of(symbol)

    @property
    def standing(self) -> Standing:
        """What another process, or this one after its end, must know of each series: see ``market.venues``."""
        with self._lock:
            return {
                f"{symbol}-{interval_name(interval_ms)}": {
                    "level": self.level(symbol),
                    "borrowed": [list(span) for span in self._book.series[symbol, interval_ms].borrowed],
                }
                for symbol, interval_ms in sorted(self._book.series)
                if self.level(symbol)
            }

    def stand(self, symbol: str, interval_ms: int, level: str, borrowed: Iterable[Span]) -> None:
        """Begin a series where an earlier process left it."""
        with self._lock:
            self._levels.begin(symbol, level)
            self._book.series[symbol, interval_ms] = _Series(borrowed=tuple(borrowed))

    def owe(self, symbol: str, interval_ms: int, borrowed: Iterable[Span]) -> None:
        """Candles of another venue's were to be replaced and could not be kept: they are to be asked for once more."""
        series = self._series(symbol, interval_ms)
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

    def _having(self, interval_ms: int, end_ms: int) -> Callable[[Venue], bool]:
        """Whether a venue has candles of an interval, as far back as they end."""

        def has(venue: Venue) -> bool:
            rows = venue.offer.history_rows
            reaches = rows is None or end_ms > self._clock.now_ms() - rows * interval_ms
            return interval_ms in venue.offer.intervals_ms and reaches

        return has

    def _why_no_price(self, venue: Venue, symbol: str) -> WorkerError | None:
        """Why a venue is not asked for a price now; None when it is."""

        def fits(one: Venue) -> bool:
            return self._levels.can_tell(one, symbol)

        if not fits(venue):
            return self._levels.unknown(venue, symbol)
        return self._health.why_left(venue, PRICES, symbol, fits)

    def _series(self, symbol: str, interval_ms: int) -> _Series:
        with self._lock:
            return self._book.series.setdefault((symbol, interval_ms), _Series())

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
        if end_ms < newest_ms or len(self.venues) == 1:
            return False
        recent = self._levels.recent(symbol, interval_ms)
        run = klines if recent is None else recent.between(0, start_ms).merge(klines)
        awaited = self._clock.now_ms() - newest_ms < PUBLISHED_MS
        quiet = quiet_rows(run, max(klines.end_ms, newest_ms - interval_ms) if awaited else newest_ms)
        return quiet >= max(SILENT_ROWS, 2 * longest_quiet(run) + 1)

    def _at_level(self, venue: Venue, symbol: str, price: Price) -> Price:
        """A venue's price at the level of the symbol's series.

        Raises:
            WorkerError: that cannot be told, or the price stands still while the market does not; it is noted.
        """
        try:
            factor = self._levels.factor(venue, symbol)
            if factor is None:
                raise self._levels.unknown(venue, symbol)
        except WorkerError as error:
            self._health.failed(venue, PRICES, symbol, error)
            raise
        price = replace(price, price=price.price * factor, venue=venue.offer.name)
        since_ms = self._still_since(venue, symbol, price)
        if since_ms is not None:
            raise self._health.frozen(venue, symbol, since_ms)
        return price

    def _agreed(self, venue: Venue, symbol: str, price: Price, far: dict[str, tuple[Venue, Price]]) -> Price | None:
        """A price that goes with the candles, or with another venue's; None where the next venue is to be asked.

        Args:
            far: by symbol, the first price that did not, and who told it.
        """
        if self._is_far(symbol, price):
            doubted = far.setdefault(symbol, (venue, price))[1]
            alone = doubted is price or abs(np.log(price.price / doubted.price)) > MOST_LIMIT / 2
            return None if alone else doubted  # two agree: it is the market that moved
        if symbol in far:
            first = far.pop(symbol)[0]
            why = f"its price of {symbol} is far from the candles, and that of {venue.offer.name} is not"
            self._health.failed(first, PRICES, symbol, MalformedKlines(f"{first.offer.name}: {why}"))
        return price

    def _is_far(self, symbol: str, price: Price) -> bool:
        """Whether a price is further from the newest candle than a price that is believed at once."""
        recents = self._levels.recents(symbol)
        if not recents or price.asof_ms - recents[0].end_ms > FAR_WITHIN_MS:
            return False
        return abs(float(np.log(price.price / recents[0].close[-1]))) > MOST_LIMIT

    def _still_since(self, venue: Venue, symbol: str, told: Price) -> int | None:
        """Since when a venue tells a price that the candles of its symbol have left meanwhile; None where not."""
        price = told.price
        name, now_ms, recents = venue.offer.name, self._clock.now_ms(), self._levels.recents(symbol)
        with self._lock:
            still = self._book.stills.get((name, symbol))
            again = still is not None and (still.frozen or 0 <= now_ms - still.seen_ms < STILL_SEEN_MS)
            # At another level it is a little another number.
            if still is None or not again or abs(still.price / price - 1) > ROUNDING:
                known_ms = max((recent.end_ms for recent in recents), default=0)
                self._book.stills[name, symbol] = _Still(
                    price=price, since_ms=now_ms, seen_ms=now_ms, known_ms=known_ms
                )
                return None
            still.seen_ms = now_ms
            # Known before: the clock was set back since, and what looks later is not.
            since_ms = max(still.since_ms, still.known_ms)
            still.frozen = any(has_left(price, recent, since_ms) for recent in recents)
            return still.since_ms if still.frozen else None

    def _taken(self, venue: Venue, symbol: str, klines: Klines, asked: Span) -> Klines:
        """Candles that a venue told, less those that are not believed; and what is known of the series after them.

        Args:
            asked: the range that it was asked for.
        """
        klines = self._believed(venue, symbol, klines)
        name = venue.offer.name
        series = self._series(symbol, klines.interval_ms)
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
            for other in self._health.order(KLINES, symbol, [], self._having(interval_ms, end_ms)):
                if other is venue:
                    continue
                try:
                    told = self._levels.klines(other, symbol, interval_ms, start_ms, end_ms)
                except WorkerError as error:
                    self._health.failed(other, KLINES, symbol, error)
                    continue
                told = self._believed(other, symbol, told, among=klines)
                if len(told):
                    log.info("hole_filled", symbol=symbol, venue=other.offer.name, start=iso(start_ms), rows=len(told))
                    klines = klines.merge(told)
                    self.filled += len(told)
                    break
        return klines

    def _believed(self, venue: Venue, symbol: str, klines: Klines, among: Klines | None = None) -> Klines:
        """Candles less those far from all others, unless a second venue has the like.

        Args:
            among: candles around them that are believed.
        """
        interval_ms = klines.interval_ms
        series, recent = self._series(symbol, interval_ms), self._levels.recent(symbol, interval_ms)
        run = klines if among is None else among.merge(klines)
        doubts = doubts_of(run, recent)
        if not doubts:
            return klines
        if recent is not None and len(run):  # the candle before the first says how far that one goes
            run = recent.between(0, int(run.open_time_ms[0])).merge(run)
        refused = [
            _row(klines, at_ms, "far from its neighbours, and no second venue has the like")
            for at_ms in doubts.spikes
            if at_ms in klines.open_time_ms and not self._is_shared(venue, symbol, run, at_ms)
        ]
        keep = ~np.isin(klines.open_time_ms, [row.open_time_ms for row in refused])
        leap_ms = doubts.leap_ms
        if leap_ms is not None and not self._has_second(venue, symbol, run, leap_ms):
            # It comes again with the next question, and is believed when it has stayed.
            keep &= klines.open_time_ms < leap_ms
            if series.awaited_ms != leap_ms:
                series.awaited_ms = leap_ms
                log.warning("leap_awaits_confirmation", venue=venue.offer.name, symbol=symbol, open=iso(leap_ms))
        self.aside.put(venue.offer.name, symbol, interval_ms, refused, self._clock.now_ms())
        columns = {name: getattr(klines, name)[keep] for name in COLUMNS}
        return Klines(interval_ms=interval_ms, open_time_ms=klines.open_time_ms[keep], **columns)

    def _check_leaps(self, venue: Venue, symbol: str, klines: Klines) -> None:
        """Refuse candles whose level leaps where a second venue's does not, or too far to be believed of one alone.

        Raises:
            MalformedKlines: so it is: another unit, or another asset.
        """
        interval_ms, recent = klines.interval_ms, self._levels.recent(symbol, klines.interval_ms)
        doubts = doubts_of(klines, recent)
        late = () if doubts.leap_ms is None else (doubts.leap_ms,)
        for at_ms in (*doubts.leaps, *late):
            run = klines if recent is None else recent.between(0, int(klines.open_time_ms[0])).merge(klines)
            known = None if recent is None else recent.between(at_ms, at_ms + interval_ms)
            if known and abs(float(known.close[0]) / float(run.between(at_ms, run.end_ms).close[0]) - 1) < ROUNDING:
                continue  # it was believed
            step = step_of(run, at_ms)
            if at_ms in late and abs(step) <= MOST_LEAP:
                continue  # it waits for others to follow
            rows = len(run.between(at_ms - interval_ms, at_ms + (STAYED_ROWS + 1) * interval_ms))
            key = (venue.offer.name, symbol, interval_ms, at_ms, rows)
            other, its = self._step_elsewhere(venue, symbol, interval_ms, at_ms, key)
            said = f"{symbol} leaps by {100 * (np.exp(step) - 1):+.0f} % at {iso(at_ms)}"
            if other and its / step < 1 / 2:
                raise MalformedKlines(f"{said}, and {other} has no such move")
            if not other and abs(step) > MOST_LEAP and at_ms not in late:
                raise MalformedKlines(
                    f"{said}, and no second venue has it: another unit or asset? If it is so indeed, begin anew: "
                    "stop the node, delete DATA_DIR/klines, start it"
                )

    def _step_elsewhere(
        self, first: Venue, symbol: str, interval_ms: int, at_ms: int, key: tuple[str, str, int, int, int]
    ) -> tuple[str, float]:
        """Which other venue has those candles, and how far they go there; remembered for a while. Empty: none has."""
        now_ms = self._clock.now_ms()
        with self._lock:
            known = self._book.steps.get(key)
        if known is not None and 0 <= now_ms - known[0] < HOLE_AGAIN_MS:
            return known[1:]
        found = ("", 0.0)
        span = (at_ms - interval_ms, at_ms + (STAYED_ROWS + 1) * interval_ms)
        for venue in self._health.order(KLINES, symbol, [], self._having(interval_ms, span[1])):
            if venue is first:
                continue
            try:
                told = venue.klines(symbol, interval_ms, *span)
            except WorkerError as error:
                self._health.failed(venue, KLINES, symbol, error)
                continue
            if len(told) >= key[-1]:
                found = (venue.offer.name, step_of(told, at_ms))
                break
        with self._lock:
            if len(self._book.steps) > REMEMBERED_HOLES:
                self._book.steps.clear()
            self._book.steps[key] = (now_ms, *found)
        return found

    def _is_shared(self, venue: Venue, symbol: str, klines: Klines, at_ms: int) -> bool:
        """Whether another venue has a spike as well; it is asked about it now and then, for it stays in the window."""
        key, now_ms = (venue.offer.name, symbol, klines.interval_ms, at_ms), self._clock.now_ms()
        with self._lock:
            known = self._book.verdicts.get(key)
        if known is not None and 0 <= now_ms - known[0] < HOLE_AGAIN_MS:
            return known[1]
        verdict = self._has_second(venue, symbol, klines, at_ms)
        with self._lock:
            if len(self._book.verdicts) > REMEMBERED_HOLES:
                self._book.verdicts.clear()
            self._book.verdicts[key] = (now_ms, verdict)
        return verdict

    def _has_second(self, first: Venue, symbol: str, klines: Klines, at_ms: int) -> bool:
        """Whether another venue has as large a move in the same candle."""
        interval_ms = klines.interval_ms
        move = extent_of(klines, at_ms)
        for venue in self._health.order(KLINES, symbol, [], self._having(interval_ms, at_ms + interval_ms)):
            if venue is first:
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
        """Prices of one venue, not asked for more often than a share of its budget allows: what it told then stands."""
        name, now_ms = venue.offer.name, self._clock.now_ms()
        with self._lock:
            quotes = self._book.quotes.setdefault(name, {})
            for symbol, quote in list(quotes.items()):
                if not 0 <= now_ms - quote.at_ms < MINUTE_MS:
                    del quotes[symbol]
            lately = dict(quotes)
        # Whoever asks for some only must not make the others due: what counts is what was asked for within a minute.
        everything = list(dict.fromkeys([*symbols, *lately]))
        requests = 1 if venue.offer.prices_at_once else len(everything)
        pause_ms = MINUTE_MS * requests / (PRICE_SHARE * venue.offer.requests_a_minute)
        due = [symbol for symbol in symbols if symbol not in lately or now_ms - lately[symbol].at_ms >= pause_ms]
        told = self._asked(venue, due, failures) if due else {}
        with self._lock:
            quotes.update({symbol: _Quote(at_ms=now_ms, price=price) for symbol, price in told.items()})
        return told | {symbol: lately[symbol].price for symbol in symbols if symbol not in due}

    def _asked(self, venue: Venue, symbols: list[str], failures: Failures) -> dict[str, Price]:
        """Ask a venue for prices; one symbol that it cannot tell does not spoil the others."""
        try:
            return venue.prices(symbols)
        except WorkerError as error:
            if len(symbols) == 1 or not isinstance(error, OF_ONE_SYMBOL):
                self._health.failed(venue, PRICES, symbols[0], error)
                failures.append((venue, error))
                return {}
        singles: dict[str, Price] = {}
        for symbol in symbols:
            singles |= self._asked(venue, [symbol], failures)
            if failures and failures[-1][0] is venue and not isinstance(failures[-1][1], OF_ONE_SYMBOL):
                break  # it is not one symbol that ails it
        return singles


def _ignored() -> None:
    """What is done about a changed standing where nobody keeps it."""


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
