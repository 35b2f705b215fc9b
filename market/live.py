"""The market kept warm in memory: the newest closed klines of every series and the newest price of every symbol.

Threads of their own do all the asking, so a reader never waits and never sees half an update. Today they poll
over REST; a stream may later deliver the same two things.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from core.clock import MINUTE_MS, SECOND_MS, Clock
from core.errors import ConfigError, MalformedKlines, WorkerError
from market.klines import Klines
from market.provider import MarketData, Price

Series = tuple[str, int]  # symbol, interval_ms

PRICE_POLL_S = 1.0
AFTER_CLOSE_MS = 200  # a venue needs a moment to publish a candle that has just closed
STRAGGLERS_MS = 1_500  # how long the candles that are there wait for the others of their interval
FIRST_LOAD_MS = 10_000  # the same while some series have never been answered
UNKNOWN_SYMBOL_S = 60.0  # until a symbol that the venue does not know is asked for again
LONGEST_BACK_OFF_S = 4.0  # a venue that is back is noticed this soon; what it asks to be left alone is heeded anyway
KLINE_THREADS = 4  # a symbol whose answer hangs leaves three for the others
OVERLAP_ROWS = 10  # asked for again each time: what the venue has corrected since is taken over
HEALED_ROWS = 1_000  # one page: a hole further back the venue will not fill any more, and asking costs a page a minute
LONGEST_NAP_S = 0.25  # a clock that was set, or a machine that slept, is noticed this late

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Kept:
    """One series and when to ask for it again. Changed under the lock, by whoever polls it."""

    symbol: str
    interval_ms: int
    rows: int
    klines: Klines
    due_ms: int = 0
    polling: bool = False
    tried: bool = False
    failures: int = 0  # in a row
    fault: str = ""


@dataclass(slots=True, kw_only=True)
class _Batch:
    """Candles of one interval that came in and were not handed on yet."""

    series: list[_Kept] = field(default_factory=list)
    since_ms: int | None = None


class LiveMarket:
    """The last closed klines and the anchor price of every symbol. Reading never waits.

    Args:
        market: the venue.
        rows: how many klines to keep of each (symbol, interval_ms).
        clock: whose time says which candles have closed.
    """

    def __init__(self, market: MarketData, rows: Mapping[Series, int], clock: Clock) -> None:
        self._market = market
        self._clock = clock
        self._on_candles: Callable[[int], None] = _ignore
        self._kept = {
            (symbol, interval_ms): _Kept(
                symbol=symbol, interval_ms=interval_ms, rows=count, klines=Klines.empty(interval_ms)
            )
            for (symbol, interval_ms), count in rows.items()
        }
        self._batches = {interval_ms: _Batch() for _, interval_ms in self._kept}
        for (_, interval_ms), kept in self._kept.items():
            self._batches[interval_ms].series.append(kept)
        self._symbols = tuple(dict.fromkeys(symbol for symbol, _ in self._kept))
        self._prices: dict[str, Price] = {}
        self._price_faults: dict[str, str] = {}
        self._price_failures = 0
        self._price_pause_until_ms: dict[str, int] = {}
        self._errors = {"klines": 0, "prices": 0}
        self._looked_ms = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._poll_prices, name="live-prices", daemon=True),
            threading.Thread(target=self._hand_on, name="live-candles", daemon=True),
            *(
                threading.Thread(target=self._poll_series, name=f"live-klines-{n}", daemon=True)
                for n in range(min(KLINE_THREADS, len(self._kept)))
            ),
        ]

    def start(self, on_candles: Callable[[int], None]) -> None:
        """Begin to fill and to keep up; returns at once.

        Args:
            on_candles: called in a thread of this class with the interval whose newest candles are in, all at once.
        """
        self._on_candles = on_candles
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the threads; one that hangs in a request is left behind after ``timeout_s`` and changes nothing more."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        deadline_ms = self._clock.now_ms() + round(timeout_s * 1000)
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.01, min(timeout_s, (deadline_ms - self._clock.now_ms()) / 1000)))

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol kept."""
        return self._symbols

    @property
    def errors(self) -> dict[str, int]:
        """How many requests failed so far, for klines and for prices."""
        return dict(self._errors)

    def klines(self, symbol: str, interval_ms: int) -> Klines:
        """The newest closed klines of a series, holes and all; empty before the first answer."""
        return self._kept[symbol, interval_ms].klines

    def snapshot(self, interval_ms: int) -> dict[str, Klines]:
        """Every symbol's klines of one interval."""
        return {kept.symbol: kept.klines for kept in self._batches[interval_ms].series}

    def anchor(self, symbol: str) -> Price | None:
        """The newest trade price; None before the first."""
        return self._prices.get(symbol)

    def kline_fault(self, symbol: str, interval_ms: int) -> str:
        """Why the last request for a series failed; empty when it did not."""
        return self._kept[symbol, interval_ms].fault

    def price_fault(self, symbol: str) -> str:
        """Why the last request for a symbol's price failed; empty when it did not."""
        return self._price_faults.get(symbol, "")

    # Prices: one request for all symbols about once a second.

    def _poll_prices(self) -> None:
        while not self._stopping.is_set():
            began_ms = self._clock.now_ms()
            pause_s = PRICE_POLL_S
            try:
                self._ask_prices(began_ms)
                self._price_failures = 0
            except WorkerError as error:
                pause_s = self._note_price_failure(error)
            except Exception as error:
                log.exception("price_feed_fault")
                pause_s = self._note_price_failure(error)
            self._nap(began_ms, round(pause_s * 1000))

    def _ask_prices(self, now_ms: int) -> None:
        symbols = [s for s in self._symbols if not self._is_paused(s, now_ms)]
        if not symbols:
            return
        try:
            prices = self._market.prices(symbols)
        except (ConfigError, MalformedKlines):
            # One unknown name or one bad price spoils the whole list: the others are to be had one by one.
            prices = self._ask_each(symbols, now_ms)
        self._prices = {**self._prices, **prices}
        self._price_faults = {s: fault for s, fault in self._price_faults.items() if s not in prices}

    def _is_paused(self, symbol: str, now_ms: int) -> bool:
        """Whether a symbol is left out for now. Longer than any pause is no pause: the clock was set back."""
        return 0 < self._price_pause_until_ms.get(symbol, 0) - now_ms <= UNKNOWN_SYMBOL_S * 1000

    def _ask_each(self, symbols: list[str], now_ms: int) -> dict[str, Price]:
        prices: dict[str, Price] = {}
        failure: WorkerError | None = None
        for symbol in symbols:
            try:
                prices |= self._market.prices([symbol])
            except ConfigError as error:
                failure = error
                self._pause_price(symbol, error, now_ms)
            except MalformedKlines as error:
                failure = error
                self._errors["prices"] += 1
                self._price_faults = {**self._price_faults, symbol: str(error)}
        if failure and not prices:
            raise failure
        return prices

    def _pause_price(self, symbol: str, error: ConfigError, now_ms: int) -> None:
        self._errors["prices"] += 1
        if self._price_faults.get(symbol) != str(error):
            log.error("symbol_refused", symbol=symbol, reason=str(error))
        self._price_faults = {**self._price_faults, symbol: str(error)}
        self._price_pause_until_ms[symbol] = now_ms + round(UNKNOWN_SYMBOL_S * 1000)

    def _note_price_failure(self, error: Exception) -> float:
        """Remember and log the failure; seconds until the next try."""
        self._errors["prices"] += 1
        self._price_failures += 1
        if self._price_failures == 1:
            log.warning("prices_unavailable", reason=str(error))
        self._price_faults = {**dict.fromkeys(self._symbols, str(error)), **self._paused_faults()}
        asked_for_s = getattr(error, "retry_after_s", None) or 0.0
        return max(asked_for_s, min(LONGEST_BACK_OFF_S, PRICE_POLL_S * 2.0 ** (self._price_failures - 1)))

    def _paused_faults(self) -> dict[str, str]:
        return {s: self._price_faults[s] for s in self._price_pause_until_ms if s in self._price_faults}

    # Klines: each series is asked for when it is due, by the next free thread.

    def _poll_series(self) -> None:
        while (kept := self._next_due()) is not None:
            now_ms = self._clock.now_ms()
            try:
                arrived = self._ask_klines(kept, now_ms)
            except WorkerError as error:
                self._note_kline_failure(kept, error)
            except Exception as error:
                log.exception("kline_feed_fault", symbol=kept.symbol, interval_ms=kept.interval_ms)
                self._note_kline_failure(kept, error)
            else:
                self._note_klines(kept, arrived, now_ms)

    def _next_due(self) -> _Kept | None:
        """Wait for a series that is due and take it; None when it is time to stop."""
        with self._changed:
            while not self._stopping.is_set():
                now_ms, before_ms = self._clock.now_ms(), self._looked_ms
                self._looked_ms = now_ms
                if now_ms < before_ms - SECOND_MS:  # the clock was set back: what was due is not due in its time
                    for series in self._kept.values():
                        series.due_ms = min(series.due_ms, now_ms)
                free = [kept for kept in self._kept.values() if not kept.polling]
                kept = min(free, key=lambda k: k.due_ms, default=None)
                wait_ms = kept.due_ms - now_ms if kept else SECOND_MS
                if kept and wait_ms <= 0:
                    kept.polling = True
                    return kept
                self._changed.wait(min(LONGEST_NAP_S, wait_ms / 1000))
        return None

    def _ask_klines(self, kept: _Kept, now_ms: int) -> Klines:
        """The series with what has closed since, and with newer holes filled where the venue has the rows by now."""
        end_ms = now_ms // kept.interval_ms * kept.interval_ms
        oldest_ms = end_ms - kept.rows * kept.interval_ms
        known = kept.klines.between(oldest_ms, end_ms)
        if len(known):
            first_hole_ms, _ = next(known.tail(HEALED_ROWS).gaps(), (known.end_ms, 0))
            start_ms = max(oldest_ms, first_hole_ms - OVERLAP_ROWS * kept.interval_ms)
        else:
            start_ms = oldest_ms
        fetched = self._market.klines(kept.symbol, kept.interval_ms, start_ms, end_ms)
        return known.merge(fetched).tail(kept.rows)

    def _note_klines(self, kept: _Kept, klines: Klines, asked_ms: int) -> None:
        now_ms = self._clock.now_ms()
        complete_ms = asked_ms // kept.interval_ms * kept.interval_ms
        with self._changed:
            if self._stopping.is_set():
                return
            news = klines.end_ms != kept.klines.end_ms or len(klines) > len(kept.klines)  # fewer: old ones left
            if kept.failures:
                log.info("klines_back", symbol=kept.symbol, interval_ms=kept.interval_ms, failures=kept.failures)
            kept.klines, kept.fault, kept.failures, kept.tried, kept.polling = klines, "", 0, True, False
            kept.due_ms = min(complete_ms, now_ms) + kept.interval_ms + AFTER_CLOSE_MS  # now: the clock may go back
            if klines.end_ms < complete_ms:
                kept.due_ms = now_ms + _late_pause_ms(asked_ms - complete_ms)
            elif next(klines.tail(HEALED_ROWS).gaps(), None):
                kept.due_ms = min(kept.due_ms, now_ms + MINUTE_MS)
            batch = self._batches[kept.interval_ms]
            if news and batch.since_ms is None:
                batch.since_ms = now_ms
            self._changed.notify_all()

    def _note_kline_failure(self, kept: _Kept, error: Exception) -> None:
        """Keep the last good klines, remember why, and ask again later."""
        pause_s = max(
            UNKNOWN_SYMBOL_S if isinstance(error, ConfigError) else 0.0,
            getattr(error, "retry_after_s", None) or 0.0,
            min(LONGEST_BACK_OFF_S, 2.0 ** min(kept.failures, 10)),
        )
        with self._changed:
            if kept.fault != str(error):
                log.warning("klines_unavailable", symbol=kept.symbol, interval_ms=kept.interval_ms, reason=str(error))
            self._errors["klines"] += 1
            kept.failures += 1
            kept.fault, kept.tried, kept.polling = str(error), True, False
            kept.due_ms = self._clock.now_ms() + round(pause_s * 1000)
            self._changed.notify_all()

    # Candles handed on: all of an interval in one go.

    def _hand_on(self) -> None:
        while not self._stopping.is_set():
            ready = None
            with self._changed:
                now_ms = self._clock.now_ms()
                ready = next((i for i, batch in self._batches.items() if _is_whole(batch, now_ms)), None)
                if ready is None:
                    self._changed.wait(LONGEST_NAP_S)
                    continue
                self._batches[ready].since_ms = None
            try:
                self._on_candles(ready)
            except Exception:
                log.exception("candles_not_handled", interval_ms=ready)

    def _nap(self, began_ms: int, pause_ms: int) -> None:
        """Until ``pause_ms`` after ``began_ms``, or until the clock is set back."""
        while not self._stopping.is_set() and 0 < (left_ms := began_ms + pause_ms - self._clock.now_ms()) <= pause_ms:
            self._stopping.wait(min(LONGEST_NAP_S, left_ms / 1000))


def _ignore(_: int) -> None:
    """What is done with candles before anybody has asked for them."""


def _is_whole(batch: _Batch, now_ms: int) -> bool:
    """Whether candles are waiting and no more of the same close are worth waiting for."""
    if batch.since_ms is None:
        return False
    newest_ms = max(kept.klines.end_ms for kept in batch.series)
    # What failed and is not being asked for just now may take its time; its interval does not wait.
    if all(
        kept.tried and (kept.klines.end_ms == newest_ms or (kept.fault and not kept.polling)) for kept in batch.series
    ):
        return True
    patience_ms = STRAGGLERS_MS if all(kept.tried for kept in batch.series) else FIRST_LOAD_MS
    return not 0 <= now_ms - batch.since_ms < patience_ms  # before it began: the clock was set back


def _late_pause_ms(late_ms: int) -> int:
    """How soon to ask again for a candle that closed ``late_ms`` ago and is not there yet.

    >>> [_late_pause_ms(ms) for ms in (200, 3_000, 60_000)]
    [300, 1000, 5000]
    """
    if late_ms < SECOND_MS:
        return 300
    return 1_000 if late_ms < 15 * SECOND_MS else 5_000
