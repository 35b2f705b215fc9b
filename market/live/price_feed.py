"""The newest price of every symbol: from the stream while it agrees with the candles, else over REST."""

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
    """Keeps ``Anchors`` filled, in a thread of its own, and the clock right. Reading never waits."""

    def __init__(self, market: MarketData, symbols: Sequence[str], clock: CorrectedClock) -> None:
        self.anchors = Anchors()
        self.errors = 0  # requests that failed
        self.venue_clock = VenueClock(market, clock)
        self._market = market
        self._symbols = tuple(symbols)
        self._clock = clock
        self._faults: dict[str, str] = {}
        self._is_failing = False  # True if the last poll brought no price at all
        self._pause_s = POLL_S
        self._is_unavailable = False  # True if the last request failed for all symbols
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

    def follow_stream(self, *, is_up: bool) -> None:
        """Ask only for symbols that a stream is silent about while it is up, and for all at once when it goes down."""
        was_up, self._streaming = self._streaming, is_up  # before the poll is woken, which reads it
        if was_up and not is_up:
            self._due_s = 0.0
            self._wake.set()

    def traded(self, symbol: str, price: float, venue_ms: int) -> None:
        """Offer a price from the stream to the guard, and its time to the venue's clock."""
        self.venue_clock.heard(venue_ms)
        now_ms = self._clock.now_ms()
        offered = Price(price=price, asof_ms=min(venue_ms, now_ms), venue=self._market.stream_venue)
        self.anchors.offer(symbol, offered, now_ms)

    def poll(self, symbols: Sequence[str]) -> float:
        """Ask for prices and offer them to the guard; return the seconds from this poll's start to the next poll."""
        self._pause_s, self._is_unavailable = POLL_S, False
        prices = self._ask(symbols)
        if not prices:
            if not self._is_failing and (count := self._seldom.due("prices_unavailable")):
                log.warning("prices_unavailable", reason=self.fault(symbols[0]), count=count)
            self._is_failing = True
            return self._pause_s
        if self._is_failing:
            self.venue_clock.ask_soon()  # a venue that is back may tell the time
        self._is_failing = False
        for symbol, price in prices.items():
            verdict = self.anchors.offer(symbol, price, self._clock.now_ms(), asked=True)
            self._market.judge_price(symbol, price.venue, verdict)
            refusal = f"{price.venue or 'the venue'}: {symbol}: {REFUSALS[verdict]}" if verdict in REFUSALS else ""
            self._faults[symbol] = refusal
        return POLL_S

    def _run(self) -> None:
        while not self._stopping:
            now_s = self._clock.elapsed_s()
            if now_s >= self._due_s and (wanted := [symbol for symbol in self._symbols if self._is_wanted(symbol)]):
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
        """Ask for all symbols at once, then singly for missing ones: an unknown name or a bad price spoils a list."""
        prices: dict[str, Price] = {}
        try:
            prices |= self._market.prices(symbols)
        except Exception as error:
            if not isinstance(error, WorkerError) and (count := self._seldom.due("price_feed_fault")):
                log.exception("price_feed_fault", count=count)
            if len(symbols) == 1 or not isinstance(error, ConfigError | MalformedKlines):
                self._note_failure(symbols, error)
                return {}
        for symbol in [symbol for symbol in symbols if symbol not in prices and len(symbols) > 1]:
            prices |= self._ask([symbol])
            if not prices and self._is_unavailable:  # no further symbol would be answered, each after a time-out
                break
        return prices

    def _note_failure(self, symbols: Sequence[str], error: Exception) -> None:
        self.errors += 1
        self._is_unavailable = isinstance(error, MarketUnavailable)
        self._pause_s = max(self._pause_s, getattr(error, "retry_after_s", None) or 0.0)
        if isinstance(error, ConfigError):
            self._paused_until_s[symbols[0]] = self._clock.elapsed_s() + UNKNOWN_SYMBOL_S
            if self.fault(symbols[0]) != str(error) and (count := self._seldom.due("symbol_refused", symbols[0])):
                log.error("symbol_refused", symbol=symbols[0], reason=str(error), count=count)
        self._faults |= dict.fromkeys(symbols, str(error))
