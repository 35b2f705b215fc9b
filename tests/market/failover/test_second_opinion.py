"""Which candles are believed, and what a second venue has to say of them."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from core.clock import MINUTE_MS, SECOND_MS
from core.errors import MalformedKlines
from klines.klines import PRICE_COLUMNS, Klines
from klines.plausible import BELIEVED_AFTER_MS
from market.failover.failover import Failover
from market.failover.second_opinion import AGAIN_S
from tests.fakes.clock import FakeClock
from tests.fakes.klines import random_walk_klines, times
from tests.fakes.venue_server import Answer, Venue, rest_rows
from tests.market.failover.pair import (
    APART,
    LAST_MS,
    LONG,
    NOW_MS,
    WALK,
    assert_prices_equal,
    at_level,
    leapt,
    newest,
    walk,
    with_row,
)


@pytest.mark.parametrize("has_it", [pytest.param(True, id="confirmed"), pytest.param(False, id="contradicted")])
@pytest.mark.parametrize("factor", [pytest.param(1.3, id="up"), pytest.param(0.7, id="down")])
def test_a_leap_is_believed_when_a_second_venue_has_it(
    first: Venue, second: Venue, market: Failover, factor: float, has_it: bool
) -> None:
    moved = leapt(WALK, LAST_MS, factor)
    first.series["ETHUSDT", "1m"] = moved
    second.series["ETHUSDT", "1m"] = at_level(moved if has_it else WALK, APART)
    klines = newest(market)
    assert klines.end_ms == (NOW_MS if has_it else NOW_MS - MINUTE_MS)


def test_a_leap_that_stays_is_believed_in_the_end(first: Venue, lone: Failover, clock: FakeClock) -> None:
    """Alone there is nobody to ask: two more candles at the new level say it."""
    whole = leapt(walk(6 * 60 + 3), NOW_MS, 0.7)
    first.series["ETHUSDT", "1m"] = whole
    ends = []
    for minute in range(1, 4):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        ends.append((newest(lone, end_ms=clock.time_ms).end_ms - NOW_MS) // MINUTE_MS)
    assert ends == [0, 0, 3]


def test_a_leap_that_waits_is_said_once(first: Venue, lone: Failover) -> None:
    first.series["ETHUSDT", "1m"] = leapt(WALK, LAST_MS, 1.3)
    with capture_logs() as lines:
        for _ in range(5):
            newest(lone)
    assert [line["event"] for line in lines].count("leap_awaits_confirmation") == 1


def test_a_leap_in_the_first_row_that_a_second_venue_lacks_is_not_confirmed(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Between two candles: within itself that one goes no further than any."""
    longer = walk(6 * 60 + 1)
    gone = WALK.merge(at_level(longer.tail(1), 0.7))
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = gone, at_level(longer, APART)
    newest(market, rows=120)
    clock.time_ms += MINUTE_MS
    assert not len(market.klines("ETHUSDT", MINUTE_MS, NOW_MS, clock.time_ms))
    second.series["ETHUSDT", "1m"] = at_level(gone, APART)
    assert len(market.klines("ETHUSDT", MINUTE_MS, NOW_MS, clock.time_ms)) == 1


def test_a_spike_is_set_aside_with_its_reason(first: Venue, second: Venue, market: Failover, clock: FakeClock) -> None:
    at_ms = LAST_MS - 5 * MINUTE_MS
    price = float(WALK.close[-6])
    first.series["ETHUSDT", "1m"] = with_row(WALK, at_ms, close=price * 1.5, high=price * 1.6)
    klines = newest(market)
    assert_prices_equal(klines, WALK.tail(20))  # the second venue has that candle
    ((key, count),) = market.aside.counts.items()
    assert key[:2] == ("binance", "ETHUSDT")
    assert "no second venue" in key[2]
    assert count == 1
    second.series["ETHUSDT", "1m"] = at_level(first.series["ETHUSDT", "1m"], APART)
    asked = len(second.requests)
    newest(market)
    assert len(second.requests) == asked  # it stays in the window: the verdict counts for a while
    clock.time_ms += round(AGAIN_S * SECOND_MS)
    assert_prices_equal(newest(market), first.series["ETHUSDT", "1m"].tail(20))


def test_what_fills_a_hole_is_doubted_as_any(first: Venue, second: Venue, market: Failover) -> None:
    hole = (LAST_MS - 8 * MINUTE_MS, LAST_MS - 5 * MINUTE_MS)
    first.series["ETHUSDT", "1m"] = WALK.between(0, hole[0]).merge(WALK.between(hole[1], NOW_MS))
    at_ms = hole[0] + MINUTE_MS
    price = float(WALK.between(at_ms, NOW_MS).close[0])
    second.series["ETHUSDT", "1m"] = at_level(with_row(WALK, at_ms, close=price * 1.5, high=price * 1.6), APART)
    told = newest(market)
    assert_prices_equal(told, WALK.tail(20).between(0, at_ms).merge(WALK.between(at_ms + MINUTE_MS, NOW_MS)))
    ((key, _),) = market.aside.counts.items()
    assert key[:2] == ("binanceus", "ETHUSDT")


@pytest.mark.parametrize("factor", [100.0, 1.3, 0.01])
def test_a_venue_that_changes_its_unit_is_left_for_the_one_that_does_not(
    first: Venue, second: Venue, market: Failover, clock: FakeClock, factor: float
) -> None:
    """The venue stays at the new level: that does not make it true while another venue has the old one."""
    newest(market, rows=120)
    gone = np.where(LONG.open_time_ms >= NOW_MS, factor, 1.0)
    first.series["ETHUSDT", "1m"] = times(LONG, gone)
    second.series["ETHUSDT", "1m"] = at_level(LONG, APART)
    for _ in range(40):
        clock.time_ms += MINUTE_MS + SECOND_MS
        end_ms = clock.time_ms // MINUTE_MS * MINUTE_MS
        told = newest(market, end_ms=end_ms)
        true = LONG.between(int(told.open_time_ms[0]), told.end_ms)
        np.testing.assert_allclose(told.close, true.close, rtol=1e-9)
        assert told.end_ms == end_ms or factor == 1.3  # beyond twofold nothing is waited for
        assert told.end_ms >= end_ms - 2 * MINUTE_MS


def test_a_leap_that_two_venues_have_is_the_market_s(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market, rows=120)
    gone = leapt(LONG, NOW_MS, 0.7)
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = gone, at_level(gone, APART)
    for _ in range(5):
        clock.time_ms += MINUTE_MS
        assert_prices_equal(newest(market, end_ms=clock.time_ms), gone.between(0, clock.time_ms).tail(20))
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"


def in_another_unit(rows: slice) -> Klines:
    factor = np.ones(len(WALK))
    factor[rows] = 100.0
    return times(WALK, factor)


@pytest.mark.parametrize("rows", [slice(100, 101), slice(100, 102), slice(100, 200), slice(345, 357)])
def test_candles_of_another_unit_are_set_aside_where_the_level_comes_back(
    first: Venue, lone: Failover, rows: slice
) -> None:
    """Of one venue alone, and the others keep their place."""
    first.series["ETHUSDT", "1m"] = in_another_unit(rows)
    odd = WALK.open_time_ms[rows]
    true = WALK.tail(300)
    klines = newest(lone, rows=300)
    np.testing.assert_array_equal(klines.open_time_ms, np.setdiff1d(true.open_time_ms, odd))
    np.testing.assert_allclose(klines.close, true.close[~np.isin(true.open_time_ms, odd)], rtol=1e-9)
    assert sum(lone.aside.counts.values()) == len(odd)
    assert not lone.aside.marks


@pytest.mark.parametrize("factor", [100.0, 0.01, 2.5], ids=["another unit", "a hundredth", "a listing"])
def test_a_level_that_nobody_confirms_is_used_when_it_has_stayed(
    first: Venue, lone: Failover, clock: FakeClock, factor: float
) -> None:
    """Nothing of it within ten minutes, all of it after; meanwhile it is told what is waited for."""
    newest(lone)
    gone = np.where(LONG.open_time_ms >= NOW_MS, factor, 1.0)
    whole = times(LONG, gone)
    first.series["ETHUSDT", "1m"] = whole
    rows = BELIEVED_AFTER_MS // MINUTE_MS
    for minute in range(1, rows + 3):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        told = newest(lone, end_ms=clock.time_ms)
        assert told.end_ms == (NOW_MS if minute <= rows else clock.time_ms)
        assert ("used when 10 more candles have stayed" in lone.remark("ETHUSDT", MINUTE_MS)) == (minute <= rows)
    assert_prices_equal(told, whole.between(0, clock.time_ms).tail(20))
    assert list(lone.aside.marks.values()) == [1]


def test_a_unit_that_is_set_right_within_ten_minutes_leaves_a_hole_and_no_doubt(
    first: Venue, lone: Failover, clock: FakeClock
) -> None:
    newest(lone)
    gone = np.where((LONG.open_time_ms >= NOW_MS) & (LONG.open_time_ms < NOW_MS + 7 * MINUTE_MS), 100.0, 1.0)
    first.series["ETHUSDT", "1m"] = times(LONG, gone)
    clock.time_ms = NOW_MS + 8 * MINUTE_MS
    told = newest(lone, end_ms=clock.time_ms)
    assert told.end_ms == clock.time_ms
    assert list(told.gaps()) == [(NOW_MS, NOW_MS + 7 * MINUTE_MS)]
    assert lone.remark("ETHUSDT", MINUTE_MS) == ""


@pytest.mark.parametrize("factor", [100.0, 1.3], ids=["another unit", "a third more"])
def test_candles_that_were_believed_wrongly_do_not_keep_the_right_ones_out(
    first: Venue, second: Venue, market: Failover, clock: FakeClock, factor: float
) -> None:
    """Stored while there was nobody to ask. When the venue tells its old level again, a second venue is at it."""
    market.remember("ETHUSDT", at_level(WALK.tail(120), factor))
    clock.time_ms = NOW_MS + 4 * MINUTE_MS
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = LONG, at_level(LONG, APART)
    told = newest(market, rows=4, end_ms=clock.time_ms)
    assert_prices_equal(told, LONG.between(NOW_MS, clock.time_ms))
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"


def test_some_odd_hours_do_not_cost_the_others_their_place(first: Venue, lone: Failover) -> None:
    """More of a page is wrong than right; the pages beside it are used, the newest first."""
    rows = 3 * 1000
    whole = random_walk_klines(rows, start_ms=NOW_MS - rows * MINUTE_MS)

    def handle(path: str, query: dict[str, str]) -> Answer | None:
        if path != "/api/v3/klines":
            return None
        start_ms, end_ms = int(query["startTime"]), int(query["endTime"]) + 1
        told = rest_rows(whole.between(start_ms, end_ms).rows(0, min(1000, (end_ms - start_ms) // MINUTE_MS)))
        bad = (NOW_MS - 1900 * MINUTE_MS, NOW_MS - 1100 * MINUTE_MS)
        return Answer(
            json.dumps([[*r[:4], "NaN" if bad[0] <= int(str(r[0])) < bad[1] else r[4], *r[5:]] for r in told])
        )

    first.handler = handle
    told = lone.klines("ETHUSDT", MINUTE_MS, NOW_MS - rows * MINUTE_MS, NOW_MS)
    assert len(told) == 2000
    assert told.end_ms == NOW_MS


def test_minutes_that_are_five_minutes_apart_are_another_interval(first: Venue, lone: Failover) -> None:
    first.series["ETHUSDT", "1m"] = replace(WALK.resample(5 * MINUTE_MS), interval_ms=MINUTE_MS)
    with pytest.raises(MalformedKlines, match="must be 60 s apart, and all 60 are multiples of 300 s apart"):
        newest(lone, rows=300)


def alternating(rows: int, factor: float) -> Klines:
    """The long walk, from ``NOW_MS`` on at another level in every other stretch of so many candles."""
    minute = (LONG.open_time_ms - NOW_MS) // MINUTE_MS
    gone = np.where((minute >= 0) & (minute // rows % 2 == 0), factor, 1.0)
    return times(LONG, gone)


@pytest.mark.parametrize("factor", [3.0, 0.3, 100.0])
@pytest.mark.parametrize("rows", [1, 2, 5, 9])
def test_a_market_that_alternates_between_two_levels_is_served_from_the_third_time_on(
    first: Venue, lone: Failover, clock: FakeClock, factor: float, rows: int
) -> None:
    """Out for as long as the first two visits take, which is less than ten minutes each; then never again."""
    newest(lone, rows=300)
    whole = alternating(rows, factor)
    first.series["ETHUSDT", "1m"] = whole
    out = []
    for minute in range(1, 14 * rows if rows < 9 else 110):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        told = newest(lone, rows=110, end_ms=clock.time_ms)
        if told.end_ms < clock.time_ms:
            out.append(minute)
        if lone.remark("ETHUSDT", MINUTE_MS):
            assert "or it comes for the third time, or a second venue has it" in lone.remark("ETHUSDT", MINUTE_MS)
    assert max(out) <= 4 * rows + 1
    assert len(out) <= 2 * rows + 1
    np.testing.assert_allclose(told.close, whole.between(0, clock.time_ms).tail(110).close, rtol=1e-9)
    assert not list(told.gaps())


def test_a_pair_that_bounces_by_a_ninth_each_minute_has_no_spikes(first: Venue, lone: Failover) -> None:
    """A thin one, whose candles are flat: how far it goes from one to the next is what is usual."""
    close = np.where(np.arange(len(WALK)) % 2, 2220.0, 2000.0)
    columns: dict[str, Any] = dict.fromkeys(PRICE_COLUMNS, close)
    columns |= {"quote_volume": WALK.volume * close, "taker_buy_quote": WALK.taker_buy_base * close}
    thin = replace(WALK, **columns)
    first.series["ETHUSDT", "1m"] = thin
    assert_prices_equal(newest(lone, rows=100), thin.tail(100))
    assert not lone.aside.counts
