"""The market kept warm in memory: the newest closed klines of every series and the newest price of every symbol.

Threads do all the asking and listening, so a reader never sees half an update. A stream sends candles and prices as
they happen; REST fills the start, verifies each candle, heals holes, and steps in while the stream is silent.
"""

import threading
from collections.abc import Callable, Mapping
from itertools import takewhile

import numpy as np
import structlog

from core.clock import MINUTE_MS, SECOND_MS, CorrectedClock, is_ahead, iso
from core.errors import WorkerError
from core.seldom import Seldom
from klines.klines import Klines
from market.live.price_feed import PriceFeed
from market.live.series import LiveSeries, is_whole
from market.venue import MarketData, MarketStream, Opening, Price, StreamReader

Series = tuple[str, int]  # symbol, interval_ms

CLOCK_PATIENCE_S = 1.0  # how long the first candles wait for it to be known what time it is
KLINE_THREADS = 4  # a symbol whose answer hangs leaves three for the others
LONGEST_NAP_S = 0.25  # a clock that was set, or a machine that slept, is noticed this late

log = structlog.get_logger()


class LiveMarket(StreamReader):
    """The last closed klines and the anchor price of every symbol. Reading never waits.

    Args:
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
        self._kept: dict[Series, LiveSeries] = {}
        self._batches: dict[int, list[LiveSeries]] = {}  # the series of each interval
        for number, (series, count) in enumerate(rows.items()):
            symbol, interval_ms = series
            left = (tails or {}).get(series, Klines.empty(interval_ms))
            market.remember(symbol, left)  # klines too old to be kept still give the price level
            end_ms = clock.now_ms() // interval_ms * interval_ms
            kept = self._kept[series] = LiveSeries(
                symbol=symbol,
                interval_ms=interval_ms,
                rows=count,
                number=number,
                has_stream=stream is not None,
                klines=left.between(end_ms - count * interval_ms, end_ms),
            )
            self._batches.setdefault(interval_ms, []).append(kept)
        self._news_since_ms: dict[int, int] = {}  # by interval whose new candles were not handed on yet
        self._shortest = dict(sorted(rows, key=lambda series: -series[1]))  # interval by symbol: the last one stays
        self._prices = PriceFeed(market, [*self._shortest], clock)
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
        """Begin; returns at once. A thread calls ``on_candles`` with an interval when its newest candles are in."""
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
        deadline_s = self._clock.elapsed_s() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(deadline_s - self._clock.elapsed_s())

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
            "price_doubted": self._prices.anchors.doubted,
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
        return {kept.symbol: kept.klines for kept in self._batches[interval_ms]}

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
        self._prices.follow_stream(is_up=True)

    def stream_down(self, reason: str) -> None:
        with self._changed:
            self._stream_fault = reason
            if self._stream_host:
                self._stream_host = ""
                self._stream_ends += 1
                self._ask_all_again()
        self._prices.follow_stream(is_up=False)

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
            extremes = [Price(price=float(price), asof_ms=closed_ms) for price in (kline.low[0], kline.high[0])]
            believable = all(self._prices.anchors.is_usual(symbol, price) for price in extremes)
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

    def _poll_series(self) -> None:
        self._prices.venue_clock.tried.wait(CLOCK_PATIENCE_S)
        while (kept := self._next_due()) is not None:
            asked_ms = self._clock.now_ms()
            try:
                answer = self._market.klines(kept.symbol, kept.interval_ms, *kept.wanted(asked_ms))
            except Exception as error:
                if not isinstance(error, WorkerError) and (count := self._seldom.due("kline_feed_fault", kept.number)):
                    log.exception("kline_feed_fault", **kept.names, count=count)
                self._note_failure(kept, error)
            else:
                self._note_klines(kept, answer, asked_ms)

    def _next_due(self) -> LiveSeries | None:
        """Wait for a series that is due and take it; None when it is time to stop."""
        with self._changed:
            while not self._stopping.is_set():
                now_ms, before_ms = self._clock.now_ms(), self._looked_ms
                self._looked_ms = now_ms
                if now_ms < before_ms - SECOND_MS:  # the clock was set back: what was due is not due in its time
                    for kept in self._kept.values():
                        kept.asked_ms, kept.due_ms = min(kept.asked_ms, now_ms), min(kept.due_ms, now_ms)
                free = [kept for kept in self._kept.values() if not kept.polling]
                due = min(free, key=lambda kept: kept.due_ms, default=None)
                wait_ms = due.due_ms - now_ms if due else SECOND_MS
                if due and wait_ms <= 0:
                    due.polling, due.asked_ms = True, now_ms
                    return due
                self._changed.wait(min(LONGEST_NAP_S, wait_ms / 1000))
        return None

    def _note_klines(self, kept: LiveSeries, fetched: Klines, asked_ms: int) -> None:
        source = self._market.source(kept.symbol, kept.interval_ms)
        is_stand_in = len(fetched) > 0 and source != self._market.home(kept.symbol)
        with self._changed:
            if self._stopping.is_set():
                return
            if kept.failures and (count := self._seldom.due("klines_back", kept.number)):
                log.info("klines_back", **kept.names, failures=kept.failures, count=count)
            now_ms, is_up = self._clock.now_ms(), bool(self._stream_host)
            news, corrected_ms = kept.take(fetched, asked_ms, now_ms, is_stand_in=is_stand_in, stream_is_up=is_up)
            if corrected_ms is not None:
                self._corrected += 1
                log.info("candle_corrected", **kept.names, open=iso(corrected_ms))
            if news:
                self._news(kept, now_ms)
            self._changed.notify_all()

    def _news(self, kept: LiveSeries, now_ms: int) -> None:
        self._news_since_ms.setdefault(kept.interval_ms, now_ms)
        if self._shortest[kept.symbol] == kept.interval_ms:
            self._prices.anchors.learn(kept.symbol, kept.klines)

    def _note_failure(self, kept: LiveSeries, error: Exception) -> None:
        with self._changed:
            if kept.fault != str(error) and (count := self._seldom.due("klines_unavailable", kept.number)):
                log.warning("klines_unavailable", **kept.names, reason=str(error), count=count)
            self._kline_errors += 1
            kept.fail(error, self._clock.now_ms())
            self._changed.notify_all()

    # Candles handed on: all of an interval in one go.

    def _hand_on(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                now_ms, news = self._clock.now_ms(), self._news_since_ms.items()
                ready = next((i for i, since_ms in news if is_whole(self._batches[i], since_ms, now_ms)), None)
                if ready is None:
                    self._changed.wait(LONGEST_NAP_S)
                    continue
                del self._news_since_ms[ready]
            try:
                self._on_candles(ready)
            except Exception:
                if count := self._seldom.due("candles_not_handled", ready):
                    log.exception("candles_not_handled", interval_ms=ready, count=count)


def opening_of(minutes: Klines, since_ms: int, teller: Callable[[int], str]) -> Opening | None:
    """The moves since a whole minute, by one venue's one-minute candles; None if no candle closed then.

    Args:
        teller: the venue that sent the candle of an opening time.
    """
    first_ms = since_ms - MINUTE_MS
    later = minutes.between(first_ms, minutes.end_ms)
    venue = teller(first_ms)
    pairs = zip(later.open_time_ms.tolist(), range(first_ms, minutes.end_ms, MINUTE_MS), strict=False)
    unbroken = takewhile(lambda pair: pair[0] == pair[1] and teller(pair[0]) == venue, pairs)
    closes = later.close[: sum(1 for _ in unbroken)]
    if not len(closes):
        return None
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
