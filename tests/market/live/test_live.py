"""The live market against the simulated exchange: it fills, keeps up, survives faults, and heals what it missed."""

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, Clock, CorrectedClock
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from exchange.server import SimulatedExchange
from klines.klines import Klines
from market.live.live_market import LiveMarket, Series
from market.live.price_feed import PriceFeed
from market.live.series import OVERLAP_ROWS
from market.venue import MarketData, MarketStream, Price
from market.venues.binance.rest import Binance
from tests.fakes.clock import BASE_MS, RunningClock, eventually
from tests.fakes.klines import random_walk_klines

BTC, ETH = ("BTCUSDT", MINUTE_MS), ("ETHUSDT", MINUTE_MS)
ROWS = 30


class Feed:
    """A live market that runs, and the panels it has announced."""

    def __init__(self, live: LiveMarket) -> None:
        self.closed: list[tuple[int, dict[str, int]]] = []  # interval -> end of each symbol's klines
        self.live = live

    def note(self, interval_ms: int) -> None:
        ends = {symbol: klines.end_ms for symbol, klines in self.live.snapshot(interval_ms).items()}
        self.closed.append((interval_ms, ends))

    def ends(self, series: Series, end_ms: int) -> None:
        """Wait until the newest candle of a series ends then."""
        eventually(lambda: self.live.klines(*series).end_ms == end_ms, what=f"the candle of {series} until {end_ms}")

    def announces(self, what: str, count: int = 1) -> None:
        """Wait until panels were announced so often since the start."""
        eventually(lambda: len(self.closed) >= count, what=what)


@contextmanager
def feeding(
    market: MarketData,
    rows: Mapping[Series, int],
    clock: Clock,
    stream: MarketStream | None = None,
    tails: Mapping[Series, Klines] | None = None,
    *,
    loads: bool = True,
) -> Iterator[Feed]:
    """A live market that runs until the end; with ``loads``, its first panels are announced before it is handed on."""
    ours = clock if isinstance(clock, CorrectedClock) else CorrectedClock(clock)  # the clock that the market shares
    feed = Feed(LiveMarket(market, rows, ours, stream, tails))
    feed.live.start(feed.note)
    try:
        if loads:
            feed.announces("the first load", len({interval_ms for _, interval_ms in rows}))
        yield feed
    finally:
        feed.live.stop()
        assert not [t.name for t in threading.enumerate() if t.name.startswith("live-")]


def venue(exchange: SimulatedExchange, clock: Clock) -> Binance:
    return Binance([exchange.url], exchange.url, clock, timeout_s=2, patience_s=0)


def test_it_fills_at_start_and_announces_each_interval_and_each_candle_once_for_all_symbols(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    market = venue(exchange, clock)
    hour: Series = ("BTCUSDT", HOUR_MS)
    with feeding(market, {BTC: ROWS, ETH: ROWS, hour: 5}, clock) as feed:
        assert len(feed.closed) == 2
        assert dict(feed.closed) == {
            MINUTE_MS: {"BTCUSDT": BASE_MS, "ETHUSDT": BASE_MS},
            HOUR_MS: {"BTCUSDT": BASE_MS // HOUR_MS * HOUR_MS},
        }
        assert (len(feed.live.klines(*BTC)), len(feed.live.klines(*hour))) == (ROWS, 5)
        eventually(lambda: all(feed.live.anchor(symbol) for symbol, _ in (BTC, ETH)), what="anchors")
        anchor = feed.live.anchor("ETHUSDT")
        assert anchor
        assert 0 <= clock.now_ms() - anchor.asof_ms < 10_000
        assert feed.live.errors == {"klines": 0, "prices": 0}
        clock.jump(MINUTE_MS)
        feed.announces("the next candle", 3)
        end_ms = BASE_MS + MINUTE_MS
        assert feed.closed[-1] == (MINUTE_MS, {"BTCUSDT": end_ms, "ETHUSDT": end_ms})
        assert len(feed.live.klines(*BTC)) == ROWS, "the oldest candle makes room for the newest"
        eventually(lambda: feed.live.anchor("ETHUSDT") != anchor, what="a newer price")


def test_what_an_earlier_run_left_is_announced_when_the_venue_is_back_with_nothing_newer(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    """Hours are told once an hour: until then a topic would have no candles."""
    market, hour = venue(exchange, clock), ("BTCUSDT", HOUR_MS)
    end_ms = BASE_MS // HOUR_MS * HOUR_MS
    left = market.klines(*hour, end_ms - 5 * HOUR_MS, end_ms)
    exchange.fail_next("/api", count=10_000, status=503)
    with feeding(market, {hour: 5}, clock, tails={hour: left}, loads=False) as feed:
        eventually(lambda: feed.live.errors["klines"] > 0, what="the outage")
        assert not feed.closed
        exchange.clear_faults()
        clock.jump(10_000)  # past the back-off
        feed.announces("the candles")


def test_a_question_of_the_past_does_not_hold_the_candles_of_its_time(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    """Each window is a hundred kilobytes; questions have a new beginning every minute."""
    with feeding(venue(exchange, clock), {BTC: ROWS}, clock) as feed:
        window = weakref.ref(feed.live.klines(*BTC).close.base)
        assert window() is not None
        assert feed.live.opening("BTCUSDT", BASE_MS)
        clock.jump(MINUTE_MS)
        feed.announces("the next candle", 2)
        assert feed.live.opening("BTCUSDT", BASE_MS + MINUTE_MS)
        eventually(lambda: window() is None, what="the end of the window of before")


def test_an_outage_keeps_the_last_good_data_and_its_hole_is_filled_afterwards(
    exchange: SimulatedExchange, clock: RunningClock
) -> None:
    market = venue(exchange, clock)
    with feeding(market, {BTC: ROWS, ETH: ROWS}, clock) as feed:
        eventually(lambda: feed.live.anchor("BTCUSDT") is not None, what="a price")
        exchange.fail_next("/api", count=10_000, status=503)
        clock.jump(5 * MINUTE_MS)
        eventually(lambda: bool(feed.live.kline_fault(*BTC) and feed.live.price_fault("BTCUSDT")), what="the outage")
        assert feed.live.klines(*BTC).end_ms == BASE_MS
        assert feed.live.anchor("BTCUSDT") is not None
        assert min(feed.live.errors.values()) > 0
        exchange.clear_faults()
        clock.jump(10_000)  # past the back-off
        newest_ms = BASE_MS + 5 * MINUTE_MS
        whole = (MINUTE_MS, {"BTCUSDT": newest_ms, "ETHUSDT": newest_ms})
        eventually(lambda: feed.closed[-1] == whole, what="the candles that were missed")
        klines = feed.live.klines(*ETH)
        assert not list(klines.gaps())
        asked = market.klines(*ETH, klines.end_ms - ROWS * MINUTE_MS, klines.end_ms)
        np.testing.assert_array_equal(klines.close, asked.close)
        eventually(lambda: not feed.live.price_fault("BTCUSDT"), what="prices again")
        assert feed.live.kline_fault(*BTC) == ""


def test_a_symbol_that_the_venue_does_not_know_stops_no_other(exchange: SimulatedExchange, clock: RunningClock) -> None:
    unknown: Series = ("NOSUCHUSDT", MINUTE_MS)
    with feeding(venue(exchange, clock), {unknown: ROWS, BTC: ROWS}, clock) as feed:
        eventually(lambda: feed.live.anchor("BTCUSDT") is not None, what="the anchor of the known symbol")
        assert feed.live.anchor("NOSUCHUSDT") is None
        assert "NOSUCHUSDT" in feed.live.kline_fault(*unknown)
        assert "NOSUCHUSDT" in feed.live.price_fault("NOSUCHUSDT")
        assert feed.live.price_fault("BTCUSDT") == ""
        clock.jump(MINUTE_MS)
        eventually(lambda: feed.closed[-1][1]["BTCUSDT"] == BASE_MS + MINUTE_MS, what="the next candle")


class Scripted(MarketData):
    """A venue whose candles come when the test says so, or not."""

    def __init__(self, clock: RunningClock) -> None:
        self.tape = random_walk_klines(1600, start_ms=BASE_MS - 1500 * MINUTE_MS)
        self.clock = clock
        self.late: dict[str, int] = {}  # symbol -> candles from this open time on are not published yet
        self.missing: set[int] = set()  # open times that nobody can have for now
        self.fault: Exception | None = None
        self.unpriced: dict[str, Exception] = {}  # by symbol: why it has no price
        self.asked_ms: list[int] = []  # where requests for klines began
        self.answering = {"BTCUSDT": threading.Event(), "ETHUSDT": threading.Event()}  # cleared: a request hangs
        for symbol in self.answering.values():
            symbol.set()

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        if self.fault:
            raise self.fault
        self.asked_ms.append(start_ms)
        self.answering[symbol].wait()
        found = self.tape.between(start_ms, min(end_ms, self.late.get(symbol, end_ms))).closed(self.clock.now_ms())
        for hole_ms in self.missing:
            found = found.between(0, hole_ms).merge(found.between(hole_ms + MINUTE_MS, 2**62))
        return found

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        if self.fault:
            raise self.fault
        for symbol in symbols:
            if symbol in self.unpriced:
                raise self.unpriced[symbol]
        return {symbol: Price(price=float(self.tape.close[-1]), asof_ms=self.clock.now_ms()) for symbol in symbols}


@pytest.fixture
def market(clock: RunningClock) -> Scripted:
    return Scripted(clock)


@pytest.mark.parametrize("behind", [0, 1, 25, ROWS - 1, ROWS, 500])
def test_what_an_earlier_run_left_saves_asking_for_it(market: Scripted, clock: RunningClock, behind: int) -> None:
    left = market.tape.between(0, BASE_MS - behind * MINUTE_MS)
    with feeding(market, {BTC: ROWS}, clock, tails={BTC: left}) as feed:
        np.testing.assert_array_equal(feed.live.klines(*BTC).close, market.tape.between(0, BASE_MS).tail(ROWS).close)
        oldest_ms = BASE_MS - ROWS * MINUTE_MS
        overlap_ms = max(oldest_ms, left.end_ms - OVERLAP_ROWS * MINUTE_MS)
        assert market.asked_ms == [overlap_ms if behind < ROWS else oldest_ms]


def test_a_late_candle_is_no_news_a_straggler_is_waited_for_a_moment_and_announced_when_it_comes(
    market: Scripted, clock: RunningClock
) -> None:
    with feeding(market, {BTC: ROWS, ETH: ROWS}, clock) as feed:
        market.late = {"ETHUSDT": BASE_MS}
        market.answering["BTCUSDT"].clear()
        clock.jump(MINUTE_MS)
        try:
            eventually(lambda: len(market.asked_ms) == 6, what="the late one asked for thrice")
            assert len(feed.closed) == 1
        finally:
            market.answering["BTCUSDT"].set()
        end_ms = BASE_MS + MINUTE_MS
        feed.announces("the panel without the straggler", 2)
        assert feed.closed[-1][1] == {"BTCUSDT": end_ms, "ETHUSDT": BASE_MS}
        market.late = {}
        eventually(lambda: feed.closed[-1][1]["ETHUSDT"] == end_ms, what="the straggler")


def test_a_hole_in_the_middle_is_asked_for_until_the_venue_has_it(market: Scripted, clock: RunningClock) -> None:
    market.missing = {BASE_MS - 7 * MINUTE_MS, BASE_MS - 4 * MINUTE_MS}
    with feeding(market, {BTC: ROWS}, clock) as feed:
        market.missing = {BASE_MS - 4 * MINUTE_MS}
        clock.jump(MINUTE_MS)
        eventually(lambda: len(list(feed.live.klines(*BTC).gaps())) == 1, what="one hole filled")
        market.missing = set()
        clock.jump(MINUTE_MS)
        eventually(lambda: not list(feed.live.klines(*BTC).gaps()), what="the other hole filled")
        assert len(feed.live.klines(*BTC)) == ROWS


def test_a_hole_of_long_ago_is_not_asked_for_with_every_candle(market: Scripted, clock: RunningClock) -> None:
    market.missing = {BASE_MS - 1200 * MINUTE_MS}
    with feeding(market, {BTC: 1400}, clock) as feed:
        clock.jump(MINUTE_MS)
        feed.ends(BTC, BASE_MS + MINUTE_MS)
        assert market.asked_ms == [BASE_MS - 1400 * MINUTE_MS, BASE_MS - OVERLAP_ROWS * MINUTE_MS]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(MarketUnavailable("banned", retry_after_s=30), id="the venue wants to be left alone"),
        pytest.param(MalformedKlines("<html>busy</html>"), id="no klines"),
        pytest.param(RuntimeError("a fault in the client"), id="something nobody expected"),
    ],
)
def test_the_threads_outlive_any_fault(market: Scripted, clock: RunningClock, fault: Exception) -> None:
    with feeding(market, {BTC: ROWS}, clock) as feed:
        market.fault = fault
        clock.jump(MINUTE_MS)
        eventually(lambda: bool(feed.live.kline_fault(*BTC) and feed.live.price_fault("BTCUSDT")), what="the fault")
        assert str(fault) in feed.live.kline_fault(*BTC)
        assert feed.live.klines(*BTC).end_ms == BASE_MS
        market.fault = None
        clock.jump(40_000)
        feed.ends(BTC, BASE_MS + MINUTE_MS)
        eventually(lambda: not feed.live.price_fault("BTCUSDT"), what="prices again")


def test_a_clock_that_is_set_back_while_a_request_hangs_delays_no_other_symbol(
    market: Scripted, clock: RunningClock
) -> None:
    clock.jump(HOUR_MS)
    with feeding(market, {BTC: ROWS, ETH: ROWS}, clock) as feed:
        market.answering["ETHUSDT"].clear()
        clock.jump(MINUTE_MS)
        feed.ends(BTC, BASE_MS + 61 * MINUTE_MS)
        clock.jump(-50 * MINUTE_MS)
        try:
            eventually(lambda: feed.closed[-1][1]["BTCUSDT"] == BASE_MS + 11 * MINUTE_MS, what="the other symbol")
            anchor = feed.live.anchor("BTCUSDT")
            eventually(lambda: feed.live.anchor("BTCUSDT") != anchor, what="prices by the new time")
        finally:
            market.answering["ETHUSDT"].set()


@pytest.mark.parametrize("error", [ConfigError("no such symbol: ETHUSDT"), MalformedKlines("the price of ETHUSDT")])
def test_a_symbol_without_a_price_costs_no_other_symbol_and_a_clock_that_is_set_back_lengthens_no_pause(
    market: Scripted, clock: RunningClock, error: WorkerError
) -> None:
    market.unpriced = {"ETHUSDT": error}
    with feeding(market, {BTC: ROWS, ETH: ROWS}, clock) as feed:
        eventually(lambda: feed.live.anchor("BTCUSDT") is not None, what="the price of BTC")
        assert feed.live.anchor("ETHUSDT") is None
        assert (feed.live.price_fault("ETHUSDT"), feed.live.price_fault("BTCUSDT")) == (str(error), "")
        market.unpriced = {}
        clock.jump(-HOUR_MS)
        clock.jump(61_000)
        eventually(lambda: feed.live.anchor("ETHUSDT") is not None, what="the price")


def test_a_venue_that_is_gone_after_a_spoilt_list_is_not_asked_for_each_symbol(clock: RunningClock) -> None:
    """Each request would run into its time-out."""

    class Gone(Scripted):
        asked = 0

        def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
            self.asked += 1
            raise MalformedKlines("a spoilt list") if len(symbols) > 1 else MarketUnavailable("gone")

    market = Gone(clock)
    PriceFeed(market, ["BTCUSDT", "ETHUSDT", "SOLUSDT"], CorrectedClock(clock)).poll(["BTCUSDT", "ETHUSDT", "SOLUSDT"])
    assert market.asked == 2


class Timed(Scripted):
    """A venue that goes by its own time: it tells that, and refuses prices by a clock that is far from it."""

    def __init__(self, ours: CorrectedClock, its: RunningClock) -> None:
        super().__init__(its)
        self.ours = ours
        self.looks = 0

    def clock_ahead_ms(self) -> int:
        self.looks += 1
        return self.clock.now_ms() - self.ours.now_ms()

    def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        if abs(self.clock.now_ms() - self.ours.now_ms()) > MINUTE_MS:
            raise MalformedKlines("the time of its trade is in the future")
        return super().prices(symbols)


def test_a_wrong_clock_is_seen_though_it_makes_prices_fail_and_again_when_it_is_set_or_the_venue_is_back(
    clock: RunningClock,
) -> None:
    machine = RunningClock()
    machine.jump(-2 * HOUR_MS)
    ours = CorrectedClock(machine)
    market = Timed(ours, clock)
    with feeding(market, {BTC: ROWS}, ours) as feed:
        eventually(lambda: feed.live.anchor("BTCUSDT") is not None, what="a price by the venue's time")
        machine.jump(-HOUR_MS)
        eventually(lambda: abs(ours.now_ms() - clock.now_ms()) < SECOND_MS, what="the venue's time instead")
        eventually(lambda: not feed.live.price_fault("BTCUSDT"), what="prices by it")
        machine.set_wall(30 * SECOND_MS)  # by which a running candle may seem to have closed
        eventually(lambda: abs(ours.now_ms() - clock.now_ms()) < SECOND_MS, what="the venue's time once more")
        market.fault = MarketUnavailable("gone")
        eventually(lambda: feed.live.price_fault("BTCUSDT") == "gone", what="an outage")
        looks, market.fault = market.looks, None
        eventually(lambda: market.looks > looks, what="another look")


def test_a_venue_of_little_history_is_not_all_there_is(market: Scripted, clock: RunningClock) -> None:
    """Another one that reaches further back may have returned: all that is kept is asked for again now and then."""
    whole, market.tape = market.tape, market.tape.between(BASE_MS - 5 * MINUTE_MS, 2**62)
    with feeding(market, {BTC: ROWS}, clock) as feed:
        market.tape = whole
        for _ in range(2):
            clock.jump(6 * MINUTE_MS)
            asked = len(market.asked_ms)
            eventually(lambda asked=asked: len(market.asked_ms) > asked, what="the next candles")  # type: ignore[misc]
        eventually(lambda: len(feed.live.klines(*BTC)) == ROWS, what="all that is wanted")
        asked = len(market.asked_ms)
        clock.jump(12 * MINUTE_MS)
        eventually(lambda: len(market.asked_ms) > asked, what="the next candles")
        assert min(market.asked_ms[asked:]) > BASE_MS - 20 * MINUTE_MS  # it has all now


class WithStandIn(Scripted):
    """A home venue that is away for a while, so that another venue tells its candles a little otherwise."""

    is_away = False

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        told = super().klines(symbol, interval_ms, start_ms, end_ms)
        return replace(told, close=told.low) if self.is_away else told

    def home(self, symbol: str) -> str:
        return "binance"

    def source(self, symbol: str, interval_ms: int) -> str:
        return "kraken" if self.is_away else "binance"


def test_a_stand_in_replaces_nothing_but_the_newest(clock: RunningClock) -> None:
    """Also where all that is kept is asked for, as it is while there is a hole in it."""
    market = WithStandIn(clock)
    market.missing = {BASE_MS - 25 * MINUTE_MS}
    with feeding(market, {BTC: ROWS}, clock) as feed:
        own = feed.live.klines(*BTC)
        market.is_away = True
        clock.jump(11 * MINUTE_MS)
        feed.ends(BTC, BASE_MS + 11 * MINUTE_MS)
        assert min(market.asked_ms[1:]) == BASE_MS - (ROWS - 11) * MINUTE_MS  # it was asked for all
        known = feed.live.klines(*BTC).between(0, BASE_MS - OVERLAP_ROWS * MINUTE_MS)
        expected = own.between(int(known.open_time_ms[0]), known.end_ms)
        np.testing.assert_array_equal(known.close, expected.close)


def test_the_whole_window_is_asked_for_once_when_the_home_venue_is_back(clock: RunningClock) -> None:
    market = WithStandIn(clock)
    market.is_away = True
    with feeding(market, {BTC: ROWS}, clock) as feed:
        market.is_away = False
        asked = len(market.asked_ms)
        clock.jump(MINUTE_MS)
        oldest_ms = BASE_MS - (ROWS - 1) * MINUTE_MS
        eventually(lambda: oldest_ms in market.asked_ms[asked:], what="the whole window from the home venue")
        known = market.tape.between(oldest_ms, BASE_MS + MINUTE_MS)
        eventually(lambda: np.array_equal(feed.live.klines(*BTC).close, known.close), what="no stand-in left")
        asked = len(market.asked_ms)
        clock.jump(MINUTE_MS)
        eventually(lambda: len(market.asked_ms) > asked, what="the next candle")
        assert min(market.asked_ms[asked:]) > BASE_MS - 20 * MINUTE_MS
