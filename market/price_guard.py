"""Which price of a symbol is believed: the newest, unless it is far from the last seconds' and nothing confirms it."""

import math
import threading
from dataclasses import dataclass

import numpy as np
import structlog

from core.clock import MINUTE_MS, SECOND_MS, is_ahead, iso
from core.seldom import Seldom
from klines.klines import Klines
from market.venue import Price

# In units of the mean range of a minute. On BTC, ETH, SOL and ARB two to four minutes a day have such a move in them
# somewhere; a real one is late by a second then, which costs nothing, where a wrong one is a wrong answer.
MOST_RANGES = 5.0
LEAST_LIMIT, MOST_LIMIT = 0.002, 0.05  # of the price
RANGE_ROWS = 30
REMEMBERED_MINUTES = 12  # a question's interval began ten minutes ago at most
CONFIRMATIONS = 3  # prices in agreement, the first doubted one among them
CONFIRMED_AFTER_MS = SECOND_MS  # and not all at once: a burst of trades through an empty book is one event
# Of how far the doubted price is from the believed one: so near the next one agrees, for a market that runs goes on.
RUNNING_SHARE = 0.5

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Doubt:
    """Prices that agree with each other and not with the one that is believed."""

    price: float  # the newest of them
    since_ms: int
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usual:
    """What the candles say of a symbol's price and of how far it goes in a minute."""

    price: Price  # close of the newest
    limit: float  # of ln(one price / another) within a minute


class Anchors:
    """The newest believed price of each symbol.

    Several threads offer prices; whoever reads one never waits and gets it whole.
    """

    def __init__(self) -> None:
        self._believed: dict[str, Price] = {}
        self._minutes: dict[str, dict[int, Price]] = {}  # by symbol and minute: the last price that was believed in it
        self._usual: dict[str, _Usual] = {}
        self._doubts: dict[tuple[str, bool], _Doubt] = {}  # by symbol and whether it was asked for
        self._seldom = Seldom()
        self._offering = threading.Lock()
        self.refused = 0  # offers that were doubted

    def get(self, symbol: str) -> Price | None:
        """The believed price; None before the first."""
        return self._believed.get(symbol)

    def last_before(self, symbol: str, moment_ms: int) -> Price | None:
        """The last price that was believed in the minute before a whole minute; None where there was none."""
        return self._minutes.get(symbol, {}).get(moment_ms // MINUTE_MS - 1)

    def _remember(self, symbol: str, price: Price) -> None:
        minutes = self._minutes.setdefault(symbol, {})
        minutes[price.asof_ms // MINUTE_MS] = price
        if len(minutes) > REMEMBERED_MINUTES:
            del minutes[min(minutes)]

    def learn(self, symbol: str, klines: Klines) -> None:
        """Take from a symbol's newest candles what a usual move is."""
        tail = klines.tail(RANGE_ROWS)
        if not len(tail):
            return
        minutes = klines.interval_ms / MINUTE_MS
        limit = MOST_RANGES * float(np.mean(np.log(tail.high / tail.low))) / math.sqrt(minutes)
        close = Price(price=float(tail.close[-1]), asof_ms=tail.end_ms)
        self._usual[symbol] = _Usual(price=close, limit=min(MOST_LIMIT, max(LEAST_LIMIT, limit)))

    def offer(self, symbol: str, price: Price, now_ms: int, *, asked: bool = False) -> bool:
        """Believe ``price``, if it is newer than the believed one and can be.

        What is too far from the price before is doubted until ``CONFIRMATIONS`` in a row of its source agree, over a
        second at least. How far is too far grows with the time since that price, as a random walk's distance does.
        Where the believed price is that far from the newest candle, one that was asked for and is not takes its place.

        Args:
            price: from any source; its ``asof_ms`` by our clock.
            asked: it was asked for, and not told by a stream.
        Returns:
            Whether it is the believed price now.
        """
        with self._offering:
            known = self._believed.get(symbol)
            decides = asked and not self.agrees(symbol) and self._is_near(symbol, price, self._usual[symbol].price)
            if known and price.asof_ms < known.asof_ms and not is_ahead(known.asof_ms, now_ms) and not decides:
                return False
            if decides or self.is_usual(symbol, price) or self._is_confirmed(symbol, price, asked=asked):
                for key in ((symbol, True), (symbol, False)):
                    self._doubts.pop(key, None)
                self._believed[symbol] = price
                self._remember(symbol, price)
                return True
            self.refused += 1
            if count := self._seldom.due(symbol):
                last = known or self._usual[symbol].price
                line = {"price": price.price, "last": last.price, "last_asof": iso(last.asof_ms)}
                log.warning("price_doubted", symbol=symbol, count=count, **line)
            return False

    def is_usual(self, symbol: str, price: Price) -> bool:
        """Whether ``price`` is near enough to the believed one, or to the newest candle's close if that is newer."""
        usual, known = self._usual.get(symbol), self._believed.get(symbol)
        if usual is None:
            return True
        return self._is_near(symbol, price, known if known and known.asof_ms >= usual.price.asof_ms else usual.price)

    def agrees(self, symbol: str) -> bool:
        """Whether the believed price is as near to the newest candle's close as is usual, or one of them not known."""
        known, usual = self._believed.get(symbol), self._usual.get(symbol)
        return known is None or usual is None or self._is_near(symbol, known, usual.price)

    def _is_near(self, symbol: str, price: Price, other: Price) -> bool:
        minutes = max(1.0, abs(price.asof_ms - other.asof_ms) / MINUTE_MS)
        return abs(math.log(price.price / other.price)) <= self._usual[symbol].limit * math.sqrt(minutes)

    def _is_confirmed(self, symbol: str, price: Price, *, asked: bool) -> bool:
        """Count it among the doubted ones of its source that it agrees with; whether they are enough now."""
        key, known = (symbol, asked), self._believed.get(symbol) or self._usual[symbol].price
        doubt = self._doubts.get(key)
        if (
            doubt is None
            or price.asof_ms < doubt.since_ms
            or abs(math.log(price.price / doubt.price)) > self._agreeing(symbol, doubt.price, known.price)
        ):
            self._doubts[key] = _Doubt(price=price.price, since_ms=price.asof_ms)
            return False
        doubt.price, doubt.count = price.price, doubt.count + 1
        return doubt.count >= CONFIRMATIONS and price.asof_ms - doubt.since_ms >= CONFIRMED_AFTER_MS

    def _agreeing(self, symbol: str, doubted: float, believed: float) -> float:
        """How far, of ln(price), a price may be from a doubted one to confirm it."""
        running = RUNNING_SHARE * abs(math.log(doubted / believed))
        return max(self._usual[symbol].limit, min(MOST_LIMIT, running))
