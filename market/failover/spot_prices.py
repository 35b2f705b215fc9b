"""The newest prices of several venues as one: which venue is asked how often, at the prices of the home venue.

Whether a price is believed is decided in ``market.price_guard``, whose verdict comes back to ``judge``.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from core.clock import SECOND_MS, Clock
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from market.failover.breaker import PRICES, Failures, VenueBreaker, failure_of
from market.failover.home_ratio import HomeRatios
from market.http.errors import Refused
from market.http.limits import MINUTE_S, Limits
from market.venue import Price, Venue, Verdict

OF_ONE_SYMBOL = (ConfigError, MalformedKlines, Refused)  # failures that may be about one symbol of several
OLD_PRICE_MS = 10 * SECOND_MS  # of a trade: then the next venue is asked for a newer one
PRICE_SHARE = 0.5  # of a venue's budget; the other half is for candles
RESERVED_S = 2.0  # until candles are asked for again if only that share is left


class SpotPrices:
    """Safe to use from several threads. The venues come best first."""

    def __init__(self, venues: Sequence[Venue], ratios: HomeRatios, breaker: VenueBreaker, clock: Clock) -> None:
        self._venues = {venue.info.name: venue for venue in venues}
        self._ratios = ratios
        self._breaker = breaker
        self._clock = clock
        # By venue and symbol: the last price, and when the venue gave it, by Clock.elapsed_s.
        self._known: dict[str, dict[str, tuple[float, Price]]] = {}
        self._requests = {name: Limits(name, clock, None) for name in self._venues}  # for prices alone

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
        for name, venue in self._venues.items():
            whys = {symbol: self._why_not_asked(venue, symbol) for symbol in left}
            failures += [(venue, why) for why in whys.values() if why][:1]  # one reason for each venue says enough
            asked = [symbol for symbol, why in whys.items() if why is None]
            for symbol, price in self._paced(venue, asked, failures).items():
                try:
                    factor = self._ratios.factor(venue, symbol)
                except WorkerError as error:
                    self._breaker.record_failure(venue, PRICES, symbol, error)
                    failures.append((venue, error))
                    continue
                if symbol not in found or price.asof_ms > found[symbol].asof_ms:
                    found[symbol] = replace(price, price=price.price * factor, venue=name)
            old_ms = self._clock.now_ms() - OLD_PRICE_MS
            left = [symbol for symbol in left if symbol not in found or found[symbol].asof_ms < old_ms]
            if not left:
                break
        if not found:
            raise failure_of(failures, f"prices of {', '.join(symbols)}")
        return found

    def judge(self, symbol: str, name: str, verdict: Verdict) -> None:
        """Leave the price of a venue alone if it was not believed, so that the next question goes to another venue."""
        if verdict in {Verdict.FAR, Verdict.FROZEN}:
            self._breaker.record_unusable(self._venues[name], PRICES, symbol, verdict.value)
        else:
            self._breaker.record_success(self._venues[name], PRICES, symbol)

    def why_reserved(self, venue: Venue) -> WorkerError | None:
        """Why a venue is not asked for candles now: the rest of its budget is for prices. None if it may be asked."""
        requests, budget = self._requests[venue.info.name].asked_last_minute, venue.info.requests_a_minute
        left = budget - venue.hosts.limits.asked_last_minute
        if not requests or left > PRICE_SHARE * budget - requests:
            return None
        reason = f"{venue.info.name}: the last {left} requests of this minute are for prices"
        return MarketUnavailable(reason, RESERVED_S)

    def _why_not_asked(self, venue: Venue, symbol: str) -> WorkerError | None:
        fits = partial(self._ratios.is_measurable, symbol=symbol)
        if not fits(venue):
            return self._ratios.unknown(venue, symbol)
        return self._breaker.why_open(venue, PRICES, symbol, fits)

    def _paced(self, venue: Venue, symbols: list[str], failures: Failures) -> dict[str, Price]:
        """Prices of one venue. Where its budget allows no request, the price that it gave last stands."""
        info, now_s = venue.info, self._clock.elapsed_s()
        known = {symbol: last for symbol, last in self._known.get(info.name, {}).items() if now_s - last[0] < MINUTE_S}
        # A question for some symbols only must not make the others due: all that were asked for lately count.
        everything = list(dict.fromkeys([*symbols, *known]))
        requests = 1 if info.prices_at_once else len(everything)
        pause_s = MINUTE_S * requests / (PRICE_SHARE * info.requests_a_minute)
        due = [symbol for symbol in symbols if symbol not in known or now_s - known[symbol][0] >= pause_s]
        if due and info.prices_at_once:  # so that all are due at the same time
            due = everything
        new = self._asked(venue, due, failures) if due else {}
        self._known[info.name] = known | {symbol: (now_s, price) for symbol, price in new.items()}
        prices = {symbol: price for symbol, (_, price) in known.items() if symbol not in due} | new
        return {symbol: prices[symbol] for symbol in symbols if symbol in prices}

    def _asked(self, venue: Venue, symbols: list[str], failures: Failures) -> dict[str, Price]:
        """Ask a venue for prices; one symbol that it does not have does not spoil the others."""
        for _ in symbols[:1] if venue.info.prices_at_once else symbols:
            self._requests[venue.info.name].spend()
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
