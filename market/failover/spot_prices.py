"""The newest prices of several venues as one: which venue is asked how often, at the prices of the home venue.

Whether a price is believed is decided in ``market.price_guard``, whose verdict comes back to ``judge``.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.clock import MINUTE_MS, SECOND_MS, Clock
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from market.failover.breaker import PRICES, Failures, VenueBreaker, failure_of
from market.failover.home_ratio import HomeRatios
from market.http.errors import Refused
from market.venue import Price, Venue, Verdict

OF_ONE_SYMBOL = (ConfigError, MalformedKlines, Refused)  # failures that may be about one symbol of several
OLD_PRICE_MS = 10 * SECOND_MS  # of a trade: then the next venue is asked for a newer one
PRICE_SHARE = 0.5  # of a venue's budget; the other half is for candles
RESERVED_S = 2.0  # until candles are asked for again if only that share is left
MINUTE_S = MINUTE_MS / SECOND_MS


@dataclass(frozen=True, slots=True)
class _Known:
    """The price that a venue gave last, and when by ``Clock.elapsed_s``."""

    at_s: float
    price: Price


class SpotPrices:
    """Safe to use from several threads.

    Args:
        venues: best first.
        ratios: bring a price to the prices of the home venue.
        breaker: knows which venues may be asked.
        clock: for ages and pauses.
    """

    def __init__(self, venues: Sequence[Venue], ratios: HomeRatios, breaker: VenueBreaker, clock: Clock) -> None:
        self._venues = venues
        self._ratios = ratios
        self._breaker = breaker
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, _Known]] = {}  # by venue and symbol
        self._asked_s: dict[str, deque[float]] = {}  # by venue: requests of the last minute

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """The newest price of each symbol; a symbol without a price is left out if another has one.

        A symbol whose last trade at a venue is long ago is asked for at the next venue too, and the newest price
        counts.

        Raises:
            WorkerError: no venue has any.
        """
        found: dict[str, Price] = {}
        failures: Failures = []
        left = list(dict.fromkeys(symbols))
        for venue in self._venues:
            fit = []
            for symbol in left:
                why = self._why_no_price(venue, symbol)
                if why is None:
                    fit.append(symbol)
                elif not failures or failures[-1][0] is not venue:  # one reason for each venue says enough
                    failures.append((venue, why))
            for symbol, price in (self._paced(venue, fit, failures) if fit else {}).items():
                try:
                    at_home = self._at_home(venue, symbol, price)
                except WorkerError as error:
                    self._breaker.record_failure(venue, PRICES, symbol, error)
                    failures.append((venue, error))
                    continue
                if symbol not in found or at_home.asof_ms > found[symbol].asof_ms:
                    found[symbol] = at_home
            old_ms = self._clock.now_ms() - OLD_PRICE_MS
            left = [symbol for symbol in left if symbol not in found or found[symbol].asof_ms < old_ms]
            if not left:
                break
        if not found:
            raise failure_of(failures, f"prices of {', '.join(symbols)}")
        return found

    def judge(self, symbol: str, name: str, verdict: Verdict) -> None:
        """Leave the price of a venue alone if it was not believed, so that the next question goes to another venue."""
        for venue in self._venues:
            if venue.offer.name == name and verdict in {Verdict.FAR, Verdict.FROZEN}:
                self._breaker.record_unusable(venue, PRICES, symbol, verdict.value)
            elif venue.offer.name == name:
                self._breaker.record_success(venue, PRICES, symbol)

    def why_reserved(self, venue: Venue) -> WorkerError | None:
        """Why a venue is not asked for candles now: the rest of its budget is for prices. None if it may be asked."""
        requests = self._spent(venue, 0)
        budget = venue.offer.requests_a_minute
        left = budget - venue.hosts.limits.asked_last_minute
        if not requests or left > PRICE_SHARE * budget - requests:
            return None
        return MarketUnavailable(
            f"{venue.offer.name}: the last {left} requests of this minute are for prices", RESERVED_S
        )

    def _spent(self, venue: Venue, requests: int) -> int:
        """Count further requests for prices of a venue; return those of the last minute."""
        now_s = self._clock.elapsed_s()
        with self._lock:
            asked_s = self._asked_s.setdefault(venue.offer.name, deque())
            while asked_s and now_s - asked_s[0] >= MINUTE_S:
                asked_s.popleft()
            asked_s.extend([now_s] * requests)
            return len(asked_s)

    def _why_no_price(self, venue: Venue, symbol: str) -> WorkerError | None:
        """Why a venue is not asked for a price now; None if it is asked."""

        def fits(other: Venue) -> bool:
            return self._ratios.is_measurable(other, symbol)

        if not fits(venue):
            return self._ratios.unknown(venue, symbol)
        return self._breaker.why_open(venue, PRICES, symbol, fits)

    def _at_home(self, venue: Venue, symbol: str, price: Price) -> Price:
        factor = self._ratios.factor(venue, symbol)
        if factor is None:
            raise self._ratios.unknown(venue, symbol)
        return replace(price, price=price.price * factor, venue=venue.offer.name)

    def _paced(self, venue: Venue, symbols: list[str], failures: Failures) -> dict[str, Price]:
        """Prices of one venue. Where its budget allows no request, the price that it gave last stands."""
        name, now_s = venue.offer.name, self._clock.elapsed_s()
        with self._lock:
            known = self._known.setdefault(name, {})
            for symbol in [symbol for symbol, last in known.items() if now_s - last.at_s >= MINUTE_S]:
                del known[symbol]
            lately = dict(known)
        # A question for some symbols only must not make the others due: all that were asked for lately count.
        everything = list(dict.fromkeys([*symbols, *lately]))
        requests = 1 if venue.offer.prices_at_once else len(everything)
        pause_s = MINUTE_S * requests / (PRICE_SHARE * venue.offer.requests_a_minute)
        due = [symbol for symbol in symbols if symbol not in lately or now_s - lately[symbol].at_s >= pause_s]
        if due and venue.offer.prices_at_once:  # so that all are due at the same time
            due = everything
        new = self._asked(venue, due, failures) if due else {}
        with self._lock:
            known.update({symbol: _Known(now_s, price) for symbol, price in new.items()})
        stands = {symbol: last.price for symbol, last in lately.items() if symbol not in due}
        return {symbol: price for symbol, price in (stands | new).items() if symbol in symbols}

    def _asked(self, venue: Venue, symbols: list[str], failures: Failures) -> dict[str, Price]:
        """Ask a venue for prices; one symbol that it does not have does not spoil the others."""
        self._spent(venue, 1 if venue.offer.prices_at_once else len(symbols))
        try:
            return venue.prices(symbols)
        except WorkerError as error:
            if len(symbols) == 1 or not isinstance(error, OF_ONE_SYMBOL):
                self._breaker.record_failure(venue, PRICES, symbols[0], error)
                failures.append((venue, error))
                return {}
        singles: dict[str, Price] = {}
        for symbol in symbols:
            singles |= self._asked(venue, [symbol], failures)
            if failures and failures[-1][0] is venue and not isinstance(failures[-1][1], OF_ONE_SYMBOL):
                break  # the failure is not about one symbol
        return singles
