"""The market kept warm in memory: the newest closed klines of every series and the newest price of every symbol.

Threads of their own do all the asking and listening, so a reader never waits and never sees half an update. A stream
tells candles and prices as they happen; REST fills the start, verifies each candle, heals holes, and steps in for the
stream whenever that tells nothing.
"""

import threading
from collections.abc import Callable, Mapping

import numpy as np
import structlog

from core.clock import MINUTE_MS, SECOND_MS, CorrectedClock, is_ahead, iso
from core.errors import WorkerError
from core.seldom import Seldom
from klines.klines import PRICE_COLUMNS, Klines
from market.live.price_feed import PriceFeed
from market.live.series import Batch, LiveSeries
from market.venue import MarketData, MarketStream, Opening, Price, StreamReader

Series = tuple[str, int]  # symbol, interval_ms

CLOCK_PATIENCE_S = 1.0  # how long the first candles wait for it to be known what time it is
KLINE_THREADS = 4  # a symbol whose answer hangs leaves three for the others
LONGEST_NAP_S = 0.25  # a clock that was set, or a machine that slept, is noticed this late

log = structlog.get_logger()


class LiveMarket(StreamReader):
    """The last closed klines and the anchor price of every symbol. Reading never waits.

    Args:
        market: the venue.
        rows: how many klines to keep of each (symbol, interval_ms).
        clock: whose time says which candles have closed; the market's own. It is corrected by the venue's.
        stream: tells prices and candles as they happen; without one all is polled.
        tails: what is known of the series from an earlier run, old or empty as it may be.
    """

    def __init__(
        self,
        market: MarketData,
        rows: Mapping[Series, int],
        clock: CorrectedClock,
        stream: MarketStream | None = None,
        tails: Mapping[Series, Klines] | None = None,
    ) -> None:
        self._market = market
        self._clock = clock
        self._stream = stream
        self._on_candles: Callable[[int], None] = lambda _: None
        self._kept = {
            (symbol, interval_ms): LiveSeries(
                symbol=symbol,
                interval_ms=interval_ms,
                rows=count,
                number=number,
                klines=self._remembered(symbol, interval_ms, count, tails or {}),
            )
            for number, ((symbol, interval_ms), count) in enumerate(rows.items())
        }
        self._batches = {interval_ms: Batch() for _, interval_ms in self._kept}
        for (_, interval_ms), kept in self._kept.items():
            self._batches[interval_ms].series.append(kept)
        self._symbols = tuple(dict.fromkeys(symbol for symbol, _ in self._kept))
        self._shortest = {s: min(interval for symbol, interval in self._kept if symbol == s) for s in self._symbols}
        self._prices = PriceFeed(market, self._symbols, clock)
        self._kline_errors = 0
        self._corrected = 0
        self._stream_host, self._stream_fault, self._stream_ends = "", "", 0
        self._looked_ms = 0
        # By symbol: the klines of the newest question, and by beginning what they say of it.
        self._openings: dict[str, tuple[Klines, dict[int, Opening | None]]] = {}
        self._seldom = Seldom()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._threads = [
            self._prices.thread,
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
        if self._stream:
            self._stream.start(self)

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the threads; a thread that hangs in a request is left behind after ``timeout_s``."""
        self._stopping.set()
        self._prices.stop()
        with self._changed:
            self._changed.notify_all()
        if self._stream:
            self._stream.stop(timeout_s)
        deadline_ms = self._clock.now_ms() + round(timeout_s * 1000)
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.01, min(timeout_s, (deadline_ms - self._clock.now_ms()) / 1000)))

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that are kept."""
        return self._symbols

    @property
    def errors(self) -> dict[str, int]:
        """The number of failed requests so far, for klines and for prices."""
        return {"klines": self._kline_errors, "prices": self._prices.errors}

    @property
    def incidents(self) -> dict[str, int]:
        """The counts of faults that the feed corrected by itself."""
        return {
            "stream_ended": self._stream_ends,
            "stream_message_refused": self._stream.malformed if self._stream else 0,
            "price_doubted": self._prices.anchors.refused,
            "candle_corrected": self._corrected,
            "venue_changed": self._market.switches,
            "candle_of_another_venue": self._market.filled,
        }

    def source(self, symbol: str, interval_ms: int) -> str:
        """The venue of a series' newest candle; empty if there is but one venue."""
        return self._market.source(symbol, interval_ms)

    @property
    def stream_fault(self) -> str:
        """Why the stream sends nothing now; empty while it does, and if there is no stream."""
        return "" if self._stream_host or not self._stream else self._stream_fault or "not connected yet"

    @property
    def clock_ahead_ms(self) -> int:
        """The lead of the venue's clock over ours, in milliseconds."""
        return self._clock.ahead_ms

    def klines(self, symbol: str, interval_ms: int) -> Klines:
        """The newest closed klines of a series, holes and all; empty before the first answer."""
        return self._kept[symbol, interval_ms].klines

    def snapshot(self, interval_ms: int) -> dict[str, Klines]:
        """Every symbol's klines of one interval."""
        return {kept.symbol: kept.klines for kept in self._batches[interval_ms].series}

    def anchor(self, symbol: str) -> Price | None:
        """The newest believed trade price; None before the first."""
        return self._prices.anchors.get(symbol)

    def opening(self, symbol: str, since_ms: int) -> Opening | None:
        """The moves since the whole minute ``since_ms``; None if no candle that closed then is known.

        Where no candle closed in time the last trade before that moment stands for its close: ``last_before``.
        """
        kept = self._kept.get((symbol, MINUTE_MS))
        klines = kept.klines if kept else Klines.empty(MINUTE_MS)
        known = self._openings.get(symbol)
        if known is None or known[0] is not klines:  # the klines of before must not stay in memory
            known = self._openings[symbol] = (klines, {})
        if since_ms not in known[1]:
            known[1][since_ms] = opening_of(
                klines, since_ms, lambda open_ms: self._market.teller(symbol, MINUTE_MS, open_ms)
            )
        return known[1][since_ms]

    def last_before(self, symbol: str, moment_ms: int) -> Price | None:
        """The last believed price of the minute before a whole minute; None if there was no such price."""
        return self._prices.anchors.last_before(symbol, moment_ms)

    def kline_fault(self, symbol: str, interval_ms: int) -> str:
        """Why the last request for a series failed, or brought no new candle; empty if it did bring one."""
        return self._kept[symbol, interval_ms].fault or self._market.remark(symbol, interval_ms)

    def price_fault(self, symbol: str) -> str:
        """Why the last request for a symbol's price failed; empty when it did not."""
        return self._prices.fault(symbol)

    # Events of the stream, in the stream's thread.

    def stream_up(self, host: str) -> None:
        with self._changed:
            self._stream_host = host
            self._ask_all_again()  # what closed while nothing was heard
        self._prices.stream_up()

    def stream_down(self, reason: str) -> None:
        with self._changed:
            self._stream_fault = reason
            if self._stream_host:
                self._stream_host = ""
                self._stream_ends += 1
                self._ask_all_again()
        self._prices.stream_down()

    def traded(self, symbol: str, price: float, venue_ms: int) -> None:
        factor = self._market.stream_factor(symbol)
        if factor is not None:
            self._prices.traded(symbol, price * factor, venue_ms)

    def candle_closed(self, symbol: str, kline: Klines) -> None:
        kept, now_ms = self._kept[symbol, kline.interval_ms], self._clock.now_ms()
        closed_ms = kline.end_ms
        with self._changed:
            known = kept.klines
            if self._stopping.is_set() or closed_ms <= known.end_ms or is_ahead(closed_ms, now_ms):
                return  # REST had it before, it came twice, or it closes ahead of our clock
            believable = all(
                self._prices.anchors.is_usual(symbol, Price(price=float(getattr(kline, name)[0]), asof_ms=closed_ms))
                for name in PRICE_COLUMNS
            )
            if not len(known) or not believable or self._market.stream_factor(symbol) != 1.0:
                kept.ask_instead(now_ms)
            else:
                kept.add(kline, now_ms)
                self._market.remember(symbol, kline)
                self._news(kept, now_ms)
            self._changed.notify_all()

    def _ask_all_again(self) -> None:
        now_ms = self._clock.now_ms()
        for kept in self._kept.values():
            if not kept.failures:  # what failed has its own time, which the venue may have set
                kept.due_ms = min(kept.due_ms, now_ms)
        self._changed.notify_all()

    # Klines over REST: each series is asked for when it is due, by the next free thread.

    def _remembered(self, symbol: str, interval_ms: int, rows: int, tails: Mapping[Series, Klines]) -> Klines:
        """The candles of an earlier run that are new enough to use."""
        left = tails.get((symbol, interval_ms), Klines.empty(interval_ms))
        self._market.remember(symbol, left)  # klines too old to be kept still give the price level
        end_ms = self._clock.now_ms() // interval_ms * interval_ms
        return left.between(end_ms - rows * interval_ms, end_ms)

    def _poll_series(self) -> None:
        self._prices.venue_clock.tried.wait(CLOCK_PATIENCE_S)
        while (kept := self._next_due()) is not None:
            now_ms, series = self._clock.now_ms(), (kept.symbol, kept.interval_ms)
            try:
                fetched = self._market.klines(*series, *kept.wanted(now_ms))
            except WorkerError as error:
                self._note_kline_failure(kept, error)
            except Exception as error:
                if count := self._seldom.due("kline_feed_fault", *series):
                    log.exception("kline_feed_fault", symbol=kept.symbol, interval_ms=kept.interval_ms, count=count)
                self._note_kline_failure(kept, error)
            else:
                is_stand_in = len(fetched) > 0 and self._market.source(*series) != self._market.home(kept.symbol)
                self._note_klines(kept, fetched, now_ms, is_stand_in=is_stand_in)

    def _next_due(self) -> LiveSeries | None:
        """Wait for a series that is due and take it; None when it is time to stop."""
        with self._changed:
            while not self._stopping.is_set():
                now_ms, before_ms = self._clock.now_ms(), self._looked_ms
                self._looked_ms = now_ms
                if now_ms < before_ms - SECOND_MS:  # the clock was set back: what was due is not due in its time
                    for series in self._kept.values():
                        series.asked_ms = min(series.asked_ms, now_ms)
                        series.due_ms = min(series.due_ms, now_ms)
                free = [kept for kept in self._kept.values() if not kept.polling]
                kept = min(free, key=lambda k: k.due_ms, default=None)
                wait_ms = kept.due_ms - now_ms if kept else SECOND_MS
                if kept and wait_ms <= 0:
                    kept.polling, kept.asked_ms = True, now_ms
                    return kept
                self._changed.wait(min(LONGEST_NAP_S, wait_ms / 1000))
        return None

    def _note_klines(self, kept: LiveSeries, fetched: Klines, asked_ms: int, *, is_stand_in: bool) -> None:
        now_ms, series = self._clock.now_ms(), {"symbol": kept.symbol, "interval_ms": kept.interval_ms}
        with self._changed:
            if self._stopping.is_set():
                return
            if kept.failures and (count := self._seldom.due("klines_back", kept.symbol, kept.interval_ms)):
                log.info("klines_back", **series, failures=kept.failures, count=count)
            update = kept.take(
                fetched,
                asked_ms,
                now_ms,
                is_stand_in=is_stand_in,
                has_stream=self._stream is not None,
                stream_is_up=bool(self._stream_host),
            )
            if update.corrected_ms is not None:
                self._corrected += 1
                log.info("candle_corrected", **series, open=iso(update.corrected_ms))
            if update.news:
                self._news(kept, now_ms)
            self._changed.notify_all()

    def _news(self, kept: LiveSeries, now_ms: int) -> None:
        batch = self._batches[kept.interval_ms]
        batch.since_ms = now_ms if batch.since_ms is None else batch.since_ms
        if self._shortest[kept.symbol] == kept.interval_ms:
            self._prices.anchors.learn(kept.symbol, kept.klines)

    def _note_kline_failure(self, kept: LiveSeries, error: Exception) -> None:
        fields = {"symbol": kept.symbol, "interval_ms": kept.interval_ms, "reason": str(error)}
        with self._changed:
            news = kept.fault != str(error)
            if news and (count := self._seldom.due("klines_unavailable", kept.symbol, kept.interval_ms)):
                log.warning("klines_unavailable", **fields, count=count)
            self._kline_errors += 1
            kept.fail(error, self._clock.now_ms())
            self._changed.notify_all()

    # Candles handed on: all of an interval in one go.

    def _hand_on(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                now_ms = self._clock.now_ms()
                ready = next((i for i, batch in self._batches.items() if batch.is_whole(now_ms)), None)
                if ready is None:
                    self._changed.wait(LONGEST_NAP_S)
                    continue
                self._batches[ready].since_ms = None
            try:
                self._on_candles(ready)
            except Exception:
                if count := self._seldom.due("candles_not_handled", ready):
                    log.exception("candles_not_handled", interval_ms=ready, count=count)


def opening_of(minutes: Klines, since_ms: int, teller: Callable[[int], str]) -> Opening | None:
    """The moves since a whole minute, by one venue's candles; None if no candle closed then.

    Args:
        minutes: one-minute candles.
        teller: the venue that told the candle of an opening time.
    """
    first_ms = since_ms - MINUTE_MS
    row = int(np.searchsorted(minutes.open_time_ms, first_ms))
    if row == len(minutes) or minutes.open_time_ms[row] != first_ms:
        return None
    venue, end = teller(first_ms), row + 1
    for open_ms in minutes.open_time_ms[row + 1 :].tolist():
        if open_ms != first_ms + (end - row) * MINUTE_MS or teller(open_ms) != venue:
            break
        end += 1
    closes = minutes.close[row:end]
    returns = np.diff(np.log(closes))
    return Opening(
        venue=venue,
        first=float(closes[0]),
        last=float(closes[-1]),
        end_ms=first_ms + len(closes) * MINUTE_MS,
        minutes=len(returns),
        total=float(returns.sum()),
        squares=float(returns @ returns),
    )
