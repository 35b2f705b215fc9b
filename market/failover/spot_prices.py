"""The newest prices of several venues as one: who is asked how often, at what level, and which price counts."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.clock import MINUTE_MS, SECOND_MS, Clock
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from klines.activity import ROUNDING, has_left
from market.failover.breaker import PRICES, Failures, Health, failure_of
from market.failover.level import Levels
from market.http.client import Refused
from market.price_guard import MOST_LIMIT
from market.venue import Price, Venue

STILL_SEEN_MS = 5 * SECOND_MS  # a price that was not asked for in between may have been another one
OF_ONE_SYMBOL = (ConfigError, MalformedKlines, Refused)  # failures that may be about one symbol of several
FAR_WITHIN_MS = 10 * MINUTE_MS  # of the newest candle: after that a price may be anywhere
OLD_PRICE_MS = 10 * SECOND_MS  # of a trade: then the next venue is asked whether it has had one since
PRICE_SHARE = 0.5  # of what a venue may be asked: the other half is for candles and signs of life
RESERVED_S = 2.0  # until candles are asked for again where that share is all that is left


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


class Quotes:
    """See the module. Safe to use from several threads.

    Args:
        venues: best first.
        levels: bring a price to the level of its symbol's series.
        health: says who may be asked.
        clock: for ages and pauses.
    """

    def __init__(self, venues: Sequence[Venue], levels: Levels, health: Health, clock: Clock) -> None:
        self._venues = venues
        self._levels = levels
        self._health = health
        self._clock = clock
        self._lock = threading.Lock()
        self._quotes: dict[str, dict[str, _Quote]] = {}  # by venue, symbol
        self._asked_ms: dict[str, list[int]] = {}  # by venue: requests of the last minute
        self._stills: dict[tuple[str, str], _Still] = {}  # by (venue, symbol)

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """See the protocol. A symbol that no venue has a price of is left out, where there is one of another.

        A symbol that has long not been traded at one venue is asked for at the next, and the newest price counts.
        """
        found: dict[str, Price] = {}
        failures: Failures = []
        far: dict[str, tuple[Venue, Price]] = {}  # prices that the candles say nothing of
        left = list(dict.fromkeys(symbols))
        for venue in self._venues:
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
            raise failure_of(failures, f"prices of {', '.join(symbols)}")
        return found

    def needs(self, venue: Venue) -> WorkerError | None:
        """Why a venue is not asked for candles now: what is left of its budget is the part of prices."""
        name, asked = venue.offer.name, self._spent(venue, 0)
        budget = venue.offer.requests_a_minute
        left = budget - venue.hosts.asked_last_minute
        if not asked or left > PRICE_SHARE * budget - asked:
            return None
        return MarketUnavailable(f"{name}: the last {left} requests of this minute are for prices", RESERVED_S)

    def _spent(self, venue: Venue, requests: int) -> int:
        """How many requests of the last minute were for prices of a venue, with some more now."""
        name, now_ms = venue.offer.name, self._clock.now_ms()
        with self._lock:
            asked_ms = [at_ms for at_ms in self._asked_ms.get(name, ()) if 0 <= now_ms - at_ms < MINUTE_MS]
            self._asked_ms[name] = [*asked_ms, *[now_ms] * requests]
            return len(self._asked_ms[name])

    def _why_no_price(self, venue: Venue, symbol: str) -> WorkerError | None:
        """Why a venue is not asked for a price now; None when it is."""

        def fits(one: Venue) -> bool:
            return self._levels.can_tell(one, symbol)

        if not fits(venue):
            return self._levels.unknown(venue, symbol)
        return self._health.why_left(venue, PRICES, symbol, fits)

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
            still = self._stills.get((name, symbol))
            again = still is not None and (still.frozen or 0 <= now_ms - still.seen_ms < STILL_SEEN_MS)
            # At another level it is a little another number.
            if still is None or not again or abs(still.price / price - 1) > ROUNDING:
                known_ms = max((recent.end_ms for recent in recents), default=0)
                self._stills[name, symbol] = _Still(price=price, since_ms=now_ms, seen_ms=now_ms, known_ms=known_ms)
                return None
            still.seen_ms = now_ms
            # Known before: the clock was set back since, and what looks later is not.
            since_ms = max(still.since_ms, still.known_ms)
            still.frozen = any(has_left(price, recent, since_ms) for recent in recents)
            return still.since_ms if still.frozen else None

    def _told(self, venue: Venue, symbols: list[str], failures: Failures) -> dict[str, Price]:
        """Prices of one venue, not asked for more often than a share of its budget allows: what it told then stands."""
        name, now_ms = venue.offer.name, self._clock.now_ms()
        with self._lock:
            quotes = self._quotes.setdefault(name, {})
            for symbol, quote in list(quotes.items()):
                if not 0 <= now_ms - quote.at_ms < MINUTE_MS:
                    del quotes[symbol]
            lately = dict(quotes)
        # Whoever asks for some only must not make the others due: what counts is what was asked for within a minute.
        everything = list(dict.fromkeys([*symbols, *lately]))
        requests = 1 if venue.offer.prices_at_once else len(everything)
        pause_ms = MINUTE_MS * requests / (PRICE_SHARE * venue.offer.requests_a_minute)
        due = [symbol for symbol in symbols if symbol not in lately or now_ms - lately[symbol].at_ms >= pause_ms]
        if due and venue.offer.prices_at_once:  # so that each is due at the same time, whoever is asked for
            due = everything
        told = self._asked(venue, due, failures) if due else {}
        with self._lock:
            quotes.update({symbol: _Quote(at_ms=now_ms, price=price) for symbol, price in told.items()})
        known = {symbol: quote.price for symbol, quote in lately.items() if symbol not in due} | told
        return {symbol: known[symbol] for symbol in symbols if symbol in known}

    def _asked(self, venue: Venue, symbols: list[str], failures: Failures) -> dict[str, Price]:
        """Ask a venue for prices; one symbol that it cannot tell does not spoil the others."""
        self._spent(venue, 1 if venue.offer.prices_at_once else len(symbols))
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
