"""Several venues as one: who is asked, and what is kept of it. The venues are servers on loopback."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, iso
from core.errors import MalformedKlines, MarketUnavailable
from klines.klines import Klines
from market.failover.breaker import KLINES, PRICES
from market.failover.endings import Endings
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import only
from tests.fakes.venue_server import Answer
from tests.market.failover.pair import (
    CANDLES,
    DOWN,
    LAST_MS,
    NOW_MS,
    WALK,
    Stand,
    assert_prices_equal,
    broken,
    frozen,
    walk,
    works,
)

LONGER = walk(6 * 60 + 4)


def test_a_series_that_ended_earlier_does_not_move_the_end_of_its_symbol() -> None:
    """Minutes and hours of a halted symbol end at different times."""
    endings = Endings(FakeClock(NOW_MS))
    for interval_ms, ended_min in ((MINUTE_MS, 10), (HOUR_MS, 40)):
        endings.look("ETHUSDT", interval_ms, [], NOW_MS - ended_min * MINUTE_MS)
    assert iso(NOW_MS - 10 * MINUTE_MS) in endings.remark("ETHUSDT")


# One fault of a venue and one of a symbol; docs/fault-matrix.md has all faults.
@pytest.mark.parametrize(("answer", "state"), [(DOWN, "unreachable"), (Answer("<html>busy</html>"), "malformed")])
def test_the_next_venue_stands_in_at_the_level_of_the_first(stand: Stand, answer: Answer, state: str) -> None:
    before = stand.newest()
    stand.fail(answer)
    stand.first.prices = {}
    stand.wait(minutes=1)
    stand.have(WALK, walk(6 * 60 + 1))
    klines = stand.latest()
    assert_prices_equal(klines, walk(6 * 60 + 1).tail(20))
    assert (stand.market.home("ETHUSDT"), stand.source) == ("binance", "binanceus")
    assert stand.price.price == pytest.approx(2000.0)
    assert stand.price.venue == "binanceus"
    faults = {key: fault.state for key, fault in stand.market.faults.items()}
    assert {faults.get(("binance", KLINES, "")), faults.get(("binance", KLINES, "ETHUSDT"))} >= {state}
    asked = len(stand.first.requests)
    stand.latest()
    assert stand.price
    assert len(stand.first.requests) == asked  # left alone
    np.testing.assert_array_equal(before.tail(19).close, klines.between(0, NOW_MS).close)


STILL: dict[str, Callable[[Klines], Klines]] = {
    "no newer candles, politely": lambda klines: klines.between(0, NOW_MS),
    "no trade in the last candles": lambda klines: frozen(klines, 4),
    "the last candle again and again, volume and all": lambda klines: Klines.from_table(
        MINUTE_MS, klines.open_time_ms, klines.table()[np.minimum(np.arange(len(klines)), len(klines) - 5)]
    ),
}


@pytest.mark.parametrize("still", STILL.values(), ids=STILL.keys())
def test_a_venue_that_stands_still_is_passed_over_where_another_one_trades(
    stand: Stand, still: Callable[[Klines], Klines]
) -> None:
    stand.newest(rows=120)
    stand.wait(minutes=4)
    stand.have(still(LONGER), LONGER)
    assert_prices_equal(stand.latest(), LONGER.tail(20))
    assert stand.source == "binanceus"
    assert stand.market.faults["binance", PRICES, "ETHUSDT"].state == "silent"


def test_a_market_that_is_silent_everywhere_is_told_as_it_is(stand: Stand) -> None:
    stand.newest(rows=120)
    stand.wait(minutes=4)
    stand.have(frozen(LONGER, 4))
    klines = stand.latest()
    assert (stand.source, len(klines)) == ("binance", 20)
    assert (klines.volume[-4:] == 0).all()


def test_a_symbol_that_seldom_trades_is_not_taken_for_frozen(stand: Stand) -> None:
    stand.have(replace(WALK, volume=np.where(np.arange(len(WALK)) % 8 == 0, WALK.volume, 0.0)), WALK)
    stand.newest(rows=200)
    stand.newest()
    assert stand.source == "binance"
    assert stand.second.asked(CANDLES) == []


def test_a_hole_is_filled_by_whoever_has_it_and_asked_for_once(stand: Stand) -> None:
    hole = (LAST_MS - 8 * MINUTE_MS, LAST_MS - 5 * MINUTE_MS)
    holed = WALK.between(0, hole[0]).merge(WALK.between(hole[1], NOW_MS))
    stand.have(holed, WALK)
    assert_prices_equal(stand.newest(), WALK.tail(20))
    assert stand.market.filled == 3
    asked = len(stand.second.requests)
    stand.second.handler = broken(Answer("[]"))
    stand.have(holed.tail(100))
    stand.newest()
    assert len(stand.second.requests) == asked


def test_a_venue_that_has_only_the_newest_is_not_asked_for_the_old(stand: Stand) -> None:
    stand.venues[1]._info = replace(stand.venues[1].info, history_rows=30)
    stand.newest()
    stand.fail()
    with pytest.raises(MarketUnavailable):
        stand.newest(60, START_MS + 60 * MINUTE_MS)
    assert stand.second.asked(CANDLES) == []


def test_one_venue_alone_speaks_for_itself(lone: Stand) -> None:
    lone.fail(Answer(json.dumps({"msg": "maintenance"})))
    with pytest.raises(MalformedKlines, match="must be a list"):
        lone.newest()


def test_a_restart_goes_on_at_the_level_of_the_home_venue(stand: Stand) -> None:
    kept = stand.newest(rows=120)
    stand.fail()
    stand.wait(minutes=1)
    stand.have(walk(6 * 60 + 1))
    again = Stand(stand.first, stand.second, stand.clock)
    again.market.begin("ETHUSDT", "binance")
    again.market.remember("ETHUSDT", kept)
    assert_prices_equal(again.latest(rows=5), walk(6 * 60 + 1).tail(5))
    assert (again.market.home("ETHUSDT"), again.source) == ("binance", "binanceus")
    again.first.handler = works
    again.wait(minutes=2)
    again.newest(5, NOW_MS + MINUTE_MS)
    assert again.source == "binance"


def test_minutes_without_a_candle_are_a_symbol_s_way_and_no_halt(stand: Stand) -> None:
    """Coinbase has no candle where nobody traded: seven minutes without one are usual there for some symbols."""
    whole = walk(8 * 60)
    usual = only(whole, np.arange(len(whole)) % 8 < 1 + np.arange(len(whole)) % 3 % 2)
    stand.have(usual, whole)
    stand.newest(rows=200)
    for _ in range(60):
        stand.wait(minutes=1)
        stand.latest()
        assert stand.source == "binance"
    stand.have(usual.between(0, stand.clock.time_ms - 8 * MINUTE_MS), whole)
    stand.wait(minutes=20)
    stand.latest()
    assert stand.source == "binanceus"  # that is longer than its way


@pytest.mark.parametrize(
    ("first_ms", "second_ms", "ahead_ms"),
    [(7_200_000, 0, 0), (50_000, 50_000, 50_000), (-40_000, -40_300, -40_000), (300, 9_000, 300), (-60_000, 20_000, 0)],
)
def test_a_time_that_is_far_off_wants_a_second_venue_that_says_so(
    stand: Stand, first_ms: int, second_ms: int, ahead_ms: int
) -> None:
    for venue, its_ms in ((stand.first, first_ms), (stand.second, second_ms)):
        venue.handler = broken(Answer(json.dumps({"serverTime": stand.clock.time_ms + its_ms})))
    assert stand.market.clock_ahead_ms() == pytest.approx(ahead_ms, abs=500)
    assert bool(stand.second.requests) is (abs(first_ms) > SECOND_MS)
