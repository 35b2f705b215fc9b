"""Which candles are believed, and what a second venue has to say of them."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from core.clock import MINUTE_MS
from core.errors import MalformedKlines
from klines.klines import PRICE_COLUMNS, Klines
from klines.plausible import BELIEVED_AFTER_MS
from market.failover.second_opinion import AGAIN_S
from tests.fakes.klines import random_walk_klines, times
from tests.fakes.venue_server import Answer, rest_rows
from tests.market.failover.pair import (
    CANDLES,
    LAST_MS,
    LONG,
    NOW_MS,
    WALK,
    Stand,
    assert_prices_equal,
    at_level,
    from_now,
    leapt,
    priced,
    walk,
    with_row,
)


@pytest.mark.parametrize("has_it", [pytest.param(True, id="confirmed"), pytest.param(False, id="contradicted")])
@pytest.mark.parametrize("factor", [pytest.param(1.3, id="up"), pytest.param(0.7, id="down")])
def test_a_leap_is_believed_when_a_second_venue_has_it(stand: Stand, factor: float, has_it: bool) -> None:
    moved = leapt(WALK, LAST_MS, factor)
    stand.have(moved, moved if has_it else WALK)
    assert stand.newest().end_ms == (NOW_MS if has_it else NOW_MS - MINUTE_MS)


def test_a_leap_that_stays_is_said_once_and_believed_in_the_end(lone: Stand) -> None:
    """Alone there is nobody to ask: two more candles at the new level say it."""
    lone.have(leapt(walk(6 * 60 + 3), NOW_MS, 0.7))
    ends = []
    with capture_logs() as lines:
        for _ in range(1, 4):
            lone.wait(minutes=1)
            ends.append((lone.latest().end_ms - NOW_MS) // MINUTE_MS)
    assert ends == [0, 0, 3]
    assert [line["event"] for line in lines].count("leap_awaits_confirmation") == 1


def test_a_leap_in_the_first_row_that_a_second_venue_lacks_is_not_confirmed(stand: Stand) -> None:
    """Between two candles: within itself that one goes no further than any."""
    longer = walk(6 * 60 + 1)
    gone = WALK.merge(at_level(longer.tail(1), 0.7))
    stand.have(gone, longer)
    stand.newest(rows=120)
    stand.wait(minutes=1)
    assert not len(stand.latest(rows=1))
    stand.have(gone)
    assert len(stand.latest(rows=1)) == 1


def spiked(at_ms: int) -> Klines:
    price = float(WALK.between(at_ms, NOW_MS).close[0])
    return with_row(WALK, at_ms, close=price * 1.5, high=price * 1.6)


def test_a_spike_is_set_aside_with_its_reason(stand: Stand) -> None:
    gone = spiked(LAST_MS - 5 * MINUTE_MS)
    stand.have(gone, WALK)
    assert_prices_equal(stand.newest(), WALK.tail(20))  # the second venue has that candle
    ((key, count),) = stand.market.quarantine.counts.items()
    assert (key[:2], count) == (("binance", "ETHUSDT"), 1)
    assert "no second venue" in key[2]
    stand.have(gone)
    asked = len(stand.second.requests)
    stand.newest()
    assert len(stand.second.requests) == asked  # it stays in the window: the verdict counts for a while
    stand.wait(AGAIN_S)
    assert_prices_equal(stand.newest(), gone.tail(20))


def test_what_fills_a_hole_is_doubted_as_any(stand: Stand) -> None:
    hole = (LAST_MS - 8 * MINUTE_MS, LAST_MS - 5 * MINUTE_MS)
    at_ms = hole[0] + MINUTE_MS
    stand.have(WALK.between(0, hole[0]).merge(WALK.between(hole[1], NOW_MS)), spiked(at_ms))
    true = WALK.tail(20).between(0, at_ms).merge(WALK.between(at_ms + MINUTE_MS, NOW_MS))
    assert_prices_equal(stand.newest(), true)
    ((key, _),) = stand.market.quarantine.counts.items()
    assert key[:2] == ("binanceus", "ETHUSDT")


@pytest.mark.parametrize("factor", [100.0, 1.3, 0.01])
def test_a_venue_that_changes_its_unit_is_left_for_the_one_that_does_not(stand: Stand, factor: float) -> None:
    """The venue stays at the new level: that does not make it true while another venue has the old one."""
    stand.newest(rows=120)
    stand.have(from_now(factor), LONG)
    for _ in range(40):
        stand.wait(1, minutes=1)
        told, end_ms = stand.latest(), stand.clock.time_ms // MINUTE_MS * MINUTE_MS
        np.testing.assert_allclose(told.close, LONG.between(int(told.open_time_ms[0]), told.end_ms).close, rtol=1e-9)
        assert told.end_ms == end_ms or factor == 1.3  # beyond twofold nothing is waited for
        assert told.end_ms >= end_ms - 2 * MINUTE_MS


def test_a_leap_that_two_venues_have_is_the_market_s(stand: Stand) -> None:
    stand.newest(rows=120)
    gone = leapt(LONG, NOW_MS, 0.7)
    stand.have(gone)
    for _ in range(5):
        stand.wait(minutes=1)
        assert_prices_equal(stand.latest(), gone.between(0, stand.clock.time_ms).tail(20))
    assert stand.source == "binance"


@pytest.mark.parametrize("rows", [slice(100, 101), slice(100, 102), slice(100, 200), slice(345, 357)])
def test_candles_of_another_unit_are_set_aside_where_the_level_comes_back(lone: Stand, rows: slice) -> None:
    """Of one venue alone, and the others keep their place."""
    odd, true = WALK.open_time_ms[rows], WALK.tail(300)
    lone.have(priced(WALK, np.where(np.isin(WALK.open_time_ms, odd), 100.0, 1.0)))
    assert_prices_equal(lone.newest(rows=300), true.where(~np.isin(true.open_time_ms, odd)))
    assert sum(lone.market.quarantine.counts.values()) == len(odd)
    assert not lone.market.quarantine.marks


@pytest.mark.parametrize("factor", [100.0, 0.01, 2.5], ids=["another unit", "a hundredth", "a listing"])
def test_a_level_that_nobody_confirms_is_used_when_it_has_stayed(lone: Stand, factor: float) -> None:
    """Nothing of it within ten minutes, all of it after; meanwhile it is told what is waited for."""
    lone.newest()
    lone.have(from_now(factor))
    rows = BELIEVED_AFTER_MS // MINUTE_MS
    for minute in range(1, rows + 3):
        lone.wait(minutes=1)
        told = lone.latest()
        assert told.end_ms == (NOW_MS if minute <= rows else lone.clock.time_ms)
        assert ("used when 10 more candles have stayed" in lone.remark) == (minute <= rows)
    assert_prices_equal(told, from_now(factor).between(0, lone.clock.time_ms).tail(20))
    assert list(lone.market.quarantine.marks.values()) == [1]


def test_a_unit_that_is_set_right_within_ten_minutes_leaves_a_hole_and_no_doubt(lone: Stand) -> None:
    lone.newest()
    right_ms = NOW_MS + 7 * MINUTE_MS
    lone.have(from_now(100.0, right_ms))
    lone.wait(minutes=8)
    told = lone.latest()
    assert (told.end_ms, list(told.gaps())) == (lone.clock.time_ms, [(NOW_MS, right_ms)])
    assert lone.remark == ""


@pytest.mark.parametrize("factor", [100.0, 1.3], ids=["another unit", "a third more"])
def test_candles_that_were_believed_wrongly_do_not_keep_the_right_ones_out(stand: Stand, factor: float) -> None:
    """Stored while there was nobody to ask. When the venue tells its old level again, a second venue is at it."""
    stand.market.remember("ETHUSDT", at_level(WALK.tail(120), factor))
    stand.wait(minutes=4)
    stand.have(LONG)
    assert_prices_equal(stand.latest(rows=4), LONG.between(NOW_MS, stand.clock.time_ms))
    assert stand.source == "binance"


def test_some_odd_hours_do_not_cost_the_others_their_place(lone: Stand) -> None:
    """More of a page is wrong than right; the pages beside it are used, the newest first."""
    rows = 3 * 1000
    whole = random_walk_klines(rows, start_ms=NOW_MS - rows * MINUTE_MS)
    bad = range(NOW_MS - 1900 * MINUTE_MS, NOW_MS - 1100 * MINUTE_MS)

    def handle(path: str, query: dict[str, str]) -> Answer | None:
        if path != CANDLES:
            return None
        told = rest_rows(whole.between(int(query["startTime"]), int(query["endTime"]) + 1).rows(0, 1000))
        return Answer(json.dumps([[*r[:4], "NaN" if int(str(r[0])) in bad else r[4], *r[5:]] for r in told]))

    lone.first.handler = handle
    told = lone.newest(rows)
    assert (len(told), told.end_ms) == (2000, NOW_MS)


def test_minutes_that_are_five_minutes_apart_are_another_interval(lone: Stand) -> None:
    lone.have(replace(WALK.resample(5 * MINUTE_MS), interval_ms=MINUTE_MS))
    with pytest.raises(MalformedKlines, match="must be 60 s apart, and all 60 are multiples of 300 s apart"):
        lone.newest(rows=300)


@pytest.mark.parametrize("factor", [3.0, 0.3, 100.0])
@pytest.mark.parametrize("rows", [1, 2, 5, 9])
def test_a_market_that_alternates_between_two_levels_is_served_from_the_third_time_on(
    lone: Stand, factor: float, rows: int
) -> None:
    """Out for as long as the first two visits take, which is less than ten minutes each; then never again."""
    lone.newest(rows=300)
    minute = (LONG.open_time_ms - NOW_MS) // MINUTE_MS
    whole = times(LONG, np.where((minute >= 0) & (minute // rows % 2 == 0), factor, 1.0))
    lone.have(whole)
    out = []
    for passed in range(1, 14 * rows if rows < 9 else 110):
        lone.wait(minutes=1)
        told = lone.latest(rows=110)
        out += [passed] if told.end_ms < lone.clock.time_ms else []
        assert not lone.remark or "or it comes for the third time, or a second venue has it" in lone.remark
    assert max(out) <= 4 * rows + 1
    assert len(out) <= 2 * rows + 1
    np.testing.assert_allclose(told.close, whole.between(0, lone.clock.time_ms).tail(110).close, rtol=1e-9)
    assert not list(told.gaps())


def test_a_pair_that_bounces_by_a_ninth_each_minute_has_no_spikes(lone: Stand) -> None:
    """A thin one, whose candles are flat: how far it goes from one to the next is what is usual."""
    close = np.where(np.arange(len(WALK)) % 2, 2220.0, 2000.0)
    columns: dict[str, Any] = dict.fromkeys(PRICE_COLUMNS, close)
    columns |= {"quote_volume": WALK.volume * close, "taker_buy_quote": WALK.taker_buy_base * close}
    lone.have(replace(WALK, **columns))
    assert_prices_equal(lone.newest(rows=100), replace(WALK, **columns).tail(100))
    assert not lone.market.quarantine.counts
