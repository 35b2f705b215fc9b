"""The newest price of every symbol: from the stream while that tells it and goes with the candles, else over REST."""

import threading
import time
from collections.abc import Sequence

import structlog

from core.backoff import backoff
from core.clock import DAY_MS, MINUTE_MS, SECOND_MS, CorrectedClock, is_ahead
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from core.seldom import Seldom
from market.price_guard import Anchors
from market.venue import MarketData, Price

POLL_S = 1.0
QUIET_MS = 1_500  # a symbol of which the stream has told nothing for so long is asked for over REST
UNKNOWN_SYMBOL_S = 60.0  # until a symbol that the venue does not know is asked for again
LONGEST_BACK_OFF_S = 1.0  # a venue that is back is noticed this soon; what it asks to be left alone is heeded anyway
NAP_S = 0.25  # what the stream stops telling, and a clock that was set, is noticed this late
CLOCK_EVERY_MS, CLOCK_UNKNOWN_MS = MINUTE_MS, 5 * MINUTE_MS  # the second where the venue did not tell it
CLOCK_AGAIN_MS = 10 * SECOND_MS
STEP_MS = 5 * SECOND_MS  # by which a clock and the time that has passed differ when it was set, or the machine slept
SUSPECT_MS = 2 * SECOND_MS  # a trade that is so far from our now: it is late, or the clocks differ
TELLING_MS = SECOND_MS  # clocks that differ by more are worth a word
MOST_AHEAD_MS = DAY_MS  # no machine that can speak TLS is further off: it is the venue's answer that is wrong

log = structlog.get_logger()


class PriceFeed:
    """Keeps an ``Anchors`` filled, in a thread of its own. Reading never waits.

    Args:
        market: the venue.
        symbols: whose prices are wanted.
        clock: by which prices have an age, and the market too; it is corrected by the venue's.
    """

    def __init__(self, market: MarketData, symbols: Sequence[str], clock: CorrectedClock) -> None:
        self.anchors = Anchors()
        self.errors = 0  # requests that failed
        self.clock_looked_at = threading.Event()  # set once it was tried
        self._market = market
        self._symbols = tuple(symbols)
        self._clock = clock
        self._faults: dict[str, str] = {}
        self._failures = 0
        self._pause_until_ms: dict[str, int] = {}
        self._asked_ms: int | None = None
        self._pause_ms = 0
        self._streaming = False
        self._clock_looked_ms: int | None = None
        self._clock_pause_ms = CLOCK_EVERY_MS
        self._looped = (clock.now_ms(), time.monotonic())  # by our clock, and by one that nobody sets
        self._clock_suspect = False
        self._seldom = Seldom()
        self._wake = threading.Event()
        self._stopping = False
        self.thread = threading.Thread(target=self._run, name="live-prices", daemon=True)

    def fault(self, symbol: str) -> str:
        """Why the last request for a symbol's price failed; empty when it did not."""
        return self._faults.get(symbol, "")

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping = True
        self._wake.set()

    def stream_up(self) -> None:
        """From now on only what the stream does not tell is asked for."""
        self._streaming = True

    def stream_down(self) -> None:
        """From now on all is asked for, beginning at once."""
        if self._streaming:
            self._streaming = False
            self._asked_ms = None
            self._wake.set()

    def traded(self, symbol: str, price: float, venue_ms: int) -> None:
        """A price that the stream tells."""
        now_ms = self._clock.now_ms()
        if abs(now_ms - venue_ms) > SUSPECT_MS:
            self._clock_suspect = True
        told = Price(price=price, asof_ms=min(venue_ms, now_ms), venue=self._market.stream_venue)
        self.anchors.offer(symbol, told, now_ms)

    def _run(self) -> None:
        while not self._stopping:
            now_ms = self._clock.now_ms()
            if self._has_stepped(now_ms):
                self._clock_looked_ms = None
            if self._asked_ms is None or not 0 <= now_ms - self._asked_ms < self._pause_ms:
                wanted = [symbol for symbol in self._symbols if self._is_wanted(symbol, now_ms)]
                if wanted:
                    self._asked_ms, self._pause_ms = now_ms, self._ask_and_note(wanted, now_ms)
            self._look_at_the_clock(now_ms)  # also where prices fail: a wrong clock may be why
            self._wake.wait(NAP_S)
            self._wake.clear()

    def _has_stepped(self, now_ms: int) -> bool:
        """Whether our clock was set since this was asked last."""
        before, self._looped = self._looped, (now_ms, time.monotonic())
        passed_ms, by_ms = 1000 * (self._looped[1] - before[1]), now_ms - before[0]
        return by_ms < 0 or by_ms - passed_ms > STEP_MS

    def _is_wanted(self, symbol: str, now_ms: int) -> bool:
        """Whether to ask for a symbol now."""
        # Longer than any pause is no pause: the clock was set back.
        if 0 < self._pause_until_ms.get(symbol, 0) - now_ms <= UNKNOWN_SYMBOL_S * 1000:
            return False
        known = self.anchors.get(symbol)
        if not self._streaming or known is None:
            return True
        is_stale = now_ms - known.asof_ms >= QUIET_MS or is_ahead(known.asof_ms, now_ms)
        return is_stale or not self.anchors.agrees(symbol)

    def _ask_and_note(self, symbols: list[str], now_ms: int) -> int:
        """Ask, and remember how it went; milliseconds from the question to the next one."""
        try:
            prices = self._ask(symbols, now_ms)
        except WorkerError as error:
            return self._note_failure(error, symbols)
        except Exception as error:
            if count := self._seldom.due("price_feed_fault"):
                log.exception("price_feed_fault", count=count)
            return self._note_failure(error, symbols)
        if self._failures:
            self._clock_looked_ms = None  # whoever is back may tell the time
        self._failures = 0
        self._faults = {symbol: fault for symbol, fault in self._faults.items() if symbol not in prices}
        now_ms = self._clock.now_ms()
        for symbol, price in prices.items():
            self.anchors.offer(symbol, price, now_ms, asked=True)
        return round(POLL_S * 1000)

    def _ask(self, symbols: list[str], now_ms: int) -> dict[str, Price]:
        try:
            prices = self._market.prices(symbols)
        except (ConfigError, MalformedKlines):
            # One unknown name or one bad price spoils the whole list: the others are to be had one by one.
            return self._ask_each(symbols, now_ms)
        untold = [symbol for symbol in symbols if symbol not in prices]
        return prices | self._ask_each(untold, now_ms, some=True) if untold else prices

    def _ask_each(self, symbols: list[str], now_ms: int, *, some: bool = False) -> dict[str, Price]:
        """One question a symbol, so that one that fails does not spoil the others.

        Args:
            some: there are prices of others already; failures are noted and not raised.
        """
        prices: dict[str, Price] = {}
        failure: WorkerError | None = None
        for symbol in symbols:
            try:
                prices |= self._market.prices([symbol])
            except ConfigError as error:
                failure = error
                self._pause(symbol, error, now_ms)
            except MalformedKlines as error:
                failure = error
                self.errors += 1
                self._faults = {**self._faults, symbol: str(error)}
            except MarketUnavailable as error:
                if not some:
                    raise
                self.errors += 1
                self._faults = {**self._faults, symbol: str(error)}
        if failure and not prices and not some:
            raise failure
        return prices

    def _pause(self, symbol: str, error: ConfigError, now_ms: int) -> None:
        self.errors += 1
        if self._faults.get(symbol) != str(error) and (count := self._seldom.due("symbol_refused", symbol)):
            log.error("symbol_refused", symbol=symbol, reason=str(error), count=count)
        self._faults = {**self._faults, symbol: str(error)}
        self._pause_until_ms[symbol] = now_ms + round(UNKNOWN_SYMBOL_S * 1000)

    def _note_failure(self, error: Exception, symbols: list[str]) -> int:
        """Remember and log the failure; milliseconds from the question to the next one."""
        self.errors += 1
        self._failures += 1
        if self._failures == 1 and (count := self._seldom.due("prices_unavailable")):
            log.warning("prices_unavailable", reason=str(error), count=count)
        paused = {s: self._faults[s] for s in self._pause_until_ms if s in self._faults}
        self._faults = {**self._faults, **dict.fromkeys(symbols, str(error)), **paused}
        asked_for_s = getattr(error, "retry_after_s", None) or 0.0
        return round(1000 * max(asked_for_s, backoff(self._failures, POLL_S, LONGEST_BACK_OFF_S)))

    def _look_at_the_clock(self, now_ms: int) -> None:
        """Correct our clock by the venue's from time to time, and when a trade's time looks odd.

        A machine whose clock is half a minute fast would find every trade too old to answer with, and take the running
        candle for a closed one.
        """
        if self._clock_looked_ms is not None:
            pause_ms = min(self._clock_pause_ms, CLOCK_AGAIN_MS if self._clock_suspect else CLOCK_UNKNOWN_MS)
            if 0 <= now_ms - self._clock_looked_ms < pause_ms:
                return
        self._clock_looked_ms, self._clock_suspect, self._clock_pause_ms = now_ms, False, CLOCK_UNKNOWN_MS
        try:
            self._correct(self._clock.ahead_ms + self._market.clock_ahead_ms())
        except WorkerError as error:
            log.info("venue_clock_unknown", reason=str(error))
        except Exception:
            if count := self._seldom.due("venue_clock_fault"):
                log.exception("venue_clock_fault", count=count)
        self.clock_looked_at.set()

    def _correct(self, ahead_ms: int) -> None:
        if abs(ahead_ms) > MOST_AHEAD_MS:
            log.error("clock_not_believed", venue_ahead_s=ahead_ms / 1000, remedy="set this machine's clock (NTP)")
            return
        if abs(ahead_ms) > TELLING_MS and abs(ahead_ms - self._clock.ahead_ms) > TELLING_MS:
            log.warning(
                "clock_differs",
                venue_ahead_s=ahead_ms / 1000,
                remedy="set this machine's clock (NTP); the venue's time is used until then",
            )
        self._clock.ahead_ms, self._clock_pause_ms = ahead_ms, CLOCK_EVERY_MS
        self._looped = (self._clock.now_ms(), time.monotonic())  # a correction is no step
        self._clock_looked_ms = self._clock.now_ms()
