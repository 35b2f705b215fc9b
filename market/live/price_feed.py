"""The newest price of every symbol: from the stream while it agrees with the candles, else over REST."""

import contextlib
import threading
from collections.abc import Sequence

import structlog

from core.clock import CorrectedClock, is_ahead
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from core.seldom import Seldom
from market.live.venue_clock import VenueClock
from market.price_guard import Anchors
from market.venue import MarketData, Price, Verdict

POLL_S = 1.0  # also after a failure: a venue that is back is noticed this soon
QUIET_MS = 1_500  # a symbol without a price from the stream for so long is asked for over REST
UNKNOWN_SYMBOL_S = 60.0  # until a symbol that the venue does not know is asked for again
NAP_S = 0.25  # a stream that falls silent, and a clock that was set, is noticed this late
# By verdict, what a symbol's fault says.
REFUSALS = {
    Verdict.FAR: "its price is far from the last ones and the newest candle; more prices, another venue or the next "
    "candle decide",
    Verdict.FROZEN: "tells the same price again and again, which the newest candles have left",
}

log = structlog.get_logger()


class PriceFeed:
    """Keeps ``Anchors`` filled, in a thread of its own. Reading never waits.

    Args:
        market: the venue.
        symbols: whose prices are wanted.
        clock: for the ages of prices, of the market too; it is corrected by the venue's.
    """

    def __init__(self, market: MarketData, symbols: Sequence[str], clock: CorrectedClock) -> None:
        self.anchors = Anchors()
        self.errors = 0  # requests that failed
        self.venue_clock = VenueClock(market, clock)
        self._market = market
        self._symbols = tuple(symbols)
        self._clock = clock
        self._faults: dict[str, str] = {}
        self._failures = 0
        self._paused_until_s: dict[str, float] = {}  # by symbol that the venue does not know
        self._due_s = 0.0
        self._streaming = False
        self._seldom = Seldom()
        self._wake = threading.Event()
        self._stopping = False
        self.thread = threading.Thread(target=self._run, name="live-prices", daemon=True)

    def fault(self, symbol: str) -> str:
        """Why the last request for a symbol's price failed, or its price was refused; empty otherwise."""
        return self._faults.get(symbol, "")

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping = True
        self._wake.set()

    def stream_up(self) -> None:
        """From now on only symbols that the stream is silent about are asked for."""
        self._streaming = True

    def stream_down(self) -> None:
        """From now on all symbols are asked for, beginning at once."""
        if self._streaming:
            self._streaming = False
            self._due_s = 0.0
            self._wake.set()

    def traded(self, symbol: str, price: float, venue_ms: int) -> None:
        """Offer a price from the stream."""
        self.venue_clock.heard(venue_ms)
        now_ms = self._clock.now_ms()
        offered = Price(price=price, asof_ms=min(venue_ms, now_ms), venue=self._market.stream_venue)
        self.anchors.offer(symbol, offered, now_ms)

    def poll(self, symbols: Sequence[str]) -> float:
        """Ask for prices and offer them to the guard; return the seconds from this poll's start to the next poll."""
        try:
            prices = self._ask(symbols)
        except WorkerError as error:
            return self._note_failure(error, symbols)
        except Exception as error:
            if count := self._seldom.due("price_feed_fault"):
                log.exception("price_feed_fault", count=count)
            return self._note_failure(error, symbols)
        if self._failures:
            self.venue_clock.ask_soon()  # a venue that is back may tell the time
        self._failures = 0
        faults = {symbol: fault for symbol, fault in self._faults.items() if symbol not in prices}
        for symbol, price in prices.items():
            verdict = self.anchors.offer(symbol, price, self._clock.now_ms(), asked=True)
            self._market.judge_price(symbol, price.venue, verdict)
            if verdict in REFUSALS:
                faults[symbol] = f"{price.venue or 'the venue'}: {symbol}: {REFUSALS[verdict]}"
        self._faults = faults
        return POLL_S

    def _run(self) -> None:
        while not self._stopping:
            now_s = self._clock.elapsed_s()
            if now_s >= self._due_s:
                wanted = [symbol for symbol in self._symbols if self._is_wanted(symbol)]
                if wanted:
                    self._due_s = now_s + self.poll(wanted)
            self.venue_clock.look()  # also where prices fail: a wrong clock may be why
            self._wake.wait(NAP_S)
            self._wake.clear()

    def _is_wanted(self, symbol: str) -> bool:
        if self._clock.elapsed_s() < self._paused_until_s.get(symbol, 0.0):
            return False
        known, now_ms = self.anchors.get(symbol), self._clock.now_ms()
        if not self._streaming or known is None:
            return True
        is_stale = now_ms - known.asof_ms >= QUIET_MS or is_ahead(known.asof_ms, now_ms)
        return is_stale or not self.anchors.agrees(symbol)

    def _ask(self, symbols: Sequence[str]) -> dict[str, Price]:
        """Ask for all symbols at once, then singly for missing ones: an unknown name or a bad price spoils a list.

        Raises:
            WorkerError: there is no price at all; the failures of single symbols are noted.
        """
        prices: dict[str, Price] = {}
        failure: WorkerError | None = None
        with contextlib.suppress(ConfigError, MalformedKlines):
            prices = self._market.prices(symbols)
        for symbol in [symbol for symbol in symbols if symbol not in prices]:
            try:
                prices |= self._market.prices([symbol])
            except WorkerError as error:
                if isinstance(error, MarketUnavailable) and not prices:
                    raise
                if isinstance(error, ConfigError):
                    self._pause(symbol, error)
                failure = error
                self.errors += 1
                self._faults = {**self._faults, symbol: str(error)}
        if failure and not prices:
            raise failure
        return prices

    def _pause(self, symbol: str, error: ConfigError) -> None:
        if self._faults.get(symbol) != str(error) and (count := self._seldom.due("symbol_refused", symbol)):
            log.error("symbol_refused", symbol=symbol, reason=str(error), count=count)
        self._paused_until_s[symbol] = self._clock.elapsed_s() + UNKNOWN_SYMBOL_S

    def _note_failure(self, error: Exception, symbols: Sequence[str]) -> float:
        """Remember and log a failure; return the seconds until the next poll."""
        self.errors += 1
        self._failures += 1
        if self._failures == 1 and (count := self._seldom.due("prices_unavailable")):
            log.warning("prices_unavailable", reason=str(error), count=count)
        paused = {symbol: self._faults[symbol] for symbol in self._paused_until_s if symbol in self._faults}
        self._faults = {**self._faults, **dict.fromkeys(symbols, str(error)), **paused}
        return max(POLL_S, getattr(error, "retry_after_s", None) or 0.0)
