"""The one guard of prices: which price of a symbol becomes the anchor that forecasts start from.

A price near the last one is believed. A price that is far away needs confirmation by more prices; one that is further
from the newest candle than a market goes in a minute needs another venue, or the next candle. A price that stands still
while the candles leave it is not believed. Decision 0012 has the figures.
"""

import math
import threading
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import structlog

from core.clock import MINUTE_MS, SECOND_MS, is_ahead, iso
from core.seldom import Seldom
from klines.activity import ROUNDING, has_left
from klines.klines import Klines
from market.venue import Price, Verdict

# In units of the mean range of a minute. On BTC, ETH, SOL and ARB two to four minutes a day have such a move; a real
# move is late by a second then, which costs nothing, where a wrong price is a wrong answer.
MOST_RANGES = 5.0
LEAST_LIMIT, MOST_LIMIT = 0.002, 0.05  # of ln(price)
POSSIBLE_RANGES = 6.3  # ten standard deviations of a minute's return, in mean ranges; not measured
RANGE_ROWS = 30
REMEMBERED_MINUTES = 12  # a question's interval began ten minutes ago at most
CONFIRMATIONS = 3  # prices in agreement, the first doubted one among them
CONFIRMED_AFTER_MS = SECOND_MS  # from the first to the last: a burst of trades through an empty book is one event
# Of how far the doubted price is from the believed one: so near the next price agrees, for a running market goes on.
RUNNING_SHARE = 0.5
REPEATED_MS = 5 * SECOND_MS  # a price that was not asked for in between may have been another one

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Doubt:
    """Prices that agree with each other and differ from the believed price."""

    price: float  # the newest of them
    since_ms: int
    venues: set[str]
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usual:
    """A symbol's price and usual moves, by its newest candles."""

    klines: Klines
    price: Price  # close of the newest candle, or a newer price that two venues confirmed
    limit: float  # of ln(one price / another) within a minute
    possible: float  # the same for what no price does unconfirmed


class _UsualMoves(dict[str, _Usual]):
    """By symbol; every move is usual of a symbol without candles."""

    def __missing__(self, symbol: str) -> _Usual:
        nothing, price = Klines.empty(MINUTE_MS), Price(price=1.0, asof_ms=0)
        return _Usual(klines=nothing, price=price, limit=math.inf, possible=math.inf)


@dataclass(slots=True, kw_only=True)
class _Repeated:
    """A price that a venue gave again and again."""

    price: float
    since_ms: int
    seen_ms: int
    frozen: bool = False


class Anchors:
    """The newest believed price of each symbol.

    Several threads offer prices; a reader never waits and never sees half an update.
    """

    def __init__(self) -> None:
        self._believed: dict[str, Price] = {}
        self._minutes: defaultdict[str, dict[int, Price]] = defaultdict(dict)  # the last price believed in each minute
        self._usual = _UsualMoves()
        self._doubts: dict[tuple[str, bool], _Doubt] = {}  # by symbol and True if it was asked for
        self._repeated: dict[tuple[str, str], _Repeated] = {}  # by symbol and venue
        self._seldom = Seldom()
        self._offering = threading.Lock()
        self.doubted = 0  # offers that were doubted

    def get(self, symbol: str) -> Price | None:
        """The believed price; None before the first."""
        return self._believed.get(symbol)

    def last_before(self, symbol: str, moment_ms: int) -> Price | None:
        """The last price that was believed in the minute before a whole minute, or None."""
        return self._minutes.get(symbol, {}).get(moment_ms // MINUTE_MS - 1)

    def learn(self, symbol: str, klines: Klines) -> None:
        """Learn a usual move from a symbol's newest candles; a believed price that they exclude is dropped."""
        tail = klines.tail(RANGE_ROWS)
        if not len(tail):
            return
        move = float(np.mean(np.log(tail.high / tail.low))) / math.sqrt(klines.interval_ms / MINUTE_MS)
        usual = _Usual(
            klines=tail,
            price=Price(price=float(tail.close[-1]), asof_ms=tail.end_ms),
            limit=min(MOST_LIMIT, max(LEAST_LIMIT, MOST_RANGES * move)),
            possible=POSSIBLE_RANGES * move,
        )
        with self._offering:
            self._usual[symbol] = usual
            known = self._believed.get(symbol)
            if known and not self._is_possible(symbol, known):
                del self._believed[symbol]
                self._log_doubt(symbol, known, usual.price)

    def offer(self, symbol: str, price: Price, now_ms: int, *, asked: bool = False) -> Verdict:
        """Believe ``price`` if it is newer than the believed price and plausible.

        How far is too far grows with the time since the believed price, as a random walk's distance does. A far price
        is believed when ``CONFIRMATIONS`` in a row of its kind agree, over a second at least. One that is further from
        the newest candle than ``_is_possible`` allows needs two venues among them. If the believed price is far from
        the newest candle and the offered one, which was asked for, is near, the offered one replaces it.

        Args:
            price: from any venue; ``asof_ms`` by our clock.
            asked: True if it was asked for, False if a stream gave it.
        """
        with self._offering:
            if asked and self._is_frozen(symbol, price, now_ms):
                return Verdict.FROZEN
            known = self._believed.get(symbol)
            decides = asked and not self.agrees(symbol) and self._is_near(symbol, price, self._usual[symbol].price)
            if known and price.asof_ms < known.asof_ms and not is_ahead(known.asof_ms, now_ms) and not decides:
                return Verdict.OLDER
            is_usual = self.is_usual(symbol, price) and self._is_possible(symbol, price)
            if not (decides or is_usual or self._is_confirmed(symbol, price, asked=asked)):
                self.doubted += 1
                self._log_doubt(symbol, price, known or self._usual[symbol].price)
                return Verdict.FAR
            self._doubts.pop((symbol, True), None)
            self._doubts.pop((symbol, False), None)
            self._believed[symbol], minutes = price, self._minutes[symbol]
            minutes[price.asof_ms // MINUTE_MS] = price
            if len(minutes) > REMEMBERED_MINUTES:
                del minutes[min(minutes)]
            return Verdict.BELIEVED

    def is_usual(self, symbol: str, price: Price) -> bool:
        """True if ``price`` is near the believed price, or the newest candle's close if that is newer."""
        close, known = self._usual[symbol].price, self._believed.get(symbol)
        return self._is_near(symbol, price, known if known and known.asof_ms >= close.asof_ms else close)

    def agrees(self, symbol: str) -> bool:
        """True if the believed price is near the newest candle's close, or one of the two is not known."""
        known = self._believed.get(symbol)
        return known is None or self._is_near(symbol, known, self._usual[symbol].price)

    def _log_doubt(self, symbol: str, price: Price, last: Price) -> None:
        if count := self._seldom.due(symbol):
            line = {"price": price.price, "venue": price.venue, "last": last.price, "last_asof": iso(last.asof_ms)}
            log.warning("price_doubted", symbol=symbol, count=count, **line)

    def _is_near(self, symbol: str, price: Price, other: Price) -> bool:
        minutes = max(1.0, abs(price.asof_ms - other.asof_ms) / MINUTE_MS)
        return abs(math.log(price.price / other.price)) <= self._usual[symbol].limit * math.sqrt(minutes)

    def _is_possible(self, symbol: str, price: Price) -> bool:
        """True if a market could have gone to ``price`` since the newest candle."""
        usual = self._usual[symbol]
        minutes = (max(0, price.asof_ms - usual.price.asof_ms) + usual.klines.interval_ms) / MINUTE_MS
        most = max(MOST_LIMIT, usual.possible * math.sqrt(minutes))
        return abs(math.log(price.price / usual.price.price)) <= most

    def _is_confirmed(self, symbol: str, price: Price, *, asked: bool) -> bool:
        """Add ``price`` to the doubted prices that it agrees with; return True if there are enough to believe it."""
        usual, doubt = self._usual[symbol], self._doubts.get((symbol, asked))
        known = self._believed.get(symbol) or usual.price
        if doubt is None or price.asof_ms < doubt.since_ms or not _agrees(price, doubt, known, usual):
            self._doubts[symbol, asked] = _Doubt(price=price.price, since_ms=price.asof_ms, venues={price.venue})
            return False
        doubt.price, doubt.count = price.price, doubt.count + 1
        doubt.venues.add(price.venue)
        if doubt.count < CONFIRMATIONS or price.asof_ms - doubt.since_ms < CONFIRMED_AFTER_MS:
            return False
        if not self._is_possible(symbol, price):
            if len(doubt.venues) < 2:
                return False
            self._usual[symbol] = replace(usual, price=price)  # two venues count as much as a candle
        return True

    def _is_frozen(self, symbol: str, price: Price, now_ms: int) -> bool:
        """True if a venue repeats a price that the candles of the symbol have left meanwhile."""
        known, klines = self._repeated.get((symbol, price.venue)), self._usual[symbol].klines
        is_same = known is not None and abs(known.price / price.price - 1) <= ROUNDING
        if known is None or not is_same or not (known.frozen or now_ms - known.seen_ms < REPEATED_MS):
            # Candles that are known already began before: after a clock was set back they only look newer.
            since_ms = max(now_ms, klines.end_ms)
            self._repeated[symbol, price.venue] = _Repeated(price=price.price, since_ms=since_ms, seen_ms=now_ms)
            return False
        known.seen_ms = now_ms
        known.frozen = has_left(price.price, klines, known.since_ms)
        return known.frozen


def _agrees(price: Price, doubt: _Doubt, known: Price, usual: _Usual) -> bool:
    """True if ``price`` is near a doubted price; nearness grows with the distance of a running market."""
    running = RUNNING_SHARE * abs(math.log(doubt.price / known.price))
    return abs(math.log(price.price / doubt.price)) <= max(usual.limit, min(MOST_LIMIT, running))
