"""Several venues as one: who is asked, and what is kept of it. The venues are servers on loopback."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from core.clock import MINUTE_MS, SECOND_MS
from core.errors import MalformedKlines, MarketUnavailable
from klines.klines import Klines
from market.failover.breaker import KLINES, PRICES
from market.failover.failover import Failover
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import only
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import (
    APART,
    LAST_MS,
    NOW_MS,
    WALK,
    assert_prices_equal,
    at_level,
    broken,
    frozen,
    newest,
    two,
    walk,
    works,
)

FAULTS = [  # one for each state; docs/fault-matrix.md has all faults
    pytest.param(Answer('{"code":0,"msg":"restricted location"}', 451), "barred", id="451"),
    pytest.param(Answer("{}", 429, {"Retry-After": "7"}), "limited", id="429"),
    pytest.param(Answer("sorry", 500), "unreachable", id="500"),
    pytest.param(Answer("<html>busy</html>"), "malformed", id="HTML with 200"),
    pytest.param(Answer('{"code":-1121,"msg":"Invalid symbol."}', 400), "unknown symbol", id="unknown or delisted"),
]


@pytest.mark.parametrize(("answer", "state"), FAULTS)
def test_the_next_venue_stands_in_at_the_level_of_the_first(
    first: Venue, second: Venue, market: Failover, clock: FakeClock, answer: Answer, state: str
) -> None:
    before = newest(market)
    first.handler = broken(answer)
    first.prices = {}
    clock.time_ms += MINUTE_MS
    second.series["ETHUSDT", "1m"] = at_level(walk(6 * 60 + 1), APART)
    klines = newest(market, end_ms=NOW_MS + MINUTE_MS)
    assert_prices_equal(klines, walk(6 * 60 + 1).tail(20))
    assert market.source("ETHUSDT", MINUTE_MS) == "binanceus"
    assert market.home("ETHUSDT") == "binance"
    assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(2000.0)
    assert market.prices(["ETHUSDT"])["ETHUSDT"].venue == "binanceus"
    faults = {key: fault.state for key, fault in market.faults.items()}
    assert {faults.get(("binance", KLINES, "")), faults.get(("binance", KLINES, "ETHUSDT"))} >= {state}
    asked = len(first.requests)
    newest(market, end_ms=NOW_MS + MINUTE_MS)
    market.prices(["ETHUSDT"])
    assert len(first.requests) == asked  # left alone
    np.testing.assert_array_equal(before.tail(19).close, klines.between(0, NOW_MS).close)


def four_minutes_later(market: Failover, clock: FakeClock) -> Klines:
    """What the market did until then, of which two hours were told."""
    newest(market, rows=120)
    clock.time_ms += 4 * MINUTE_MS
    return walk(6 * 60 + 4)


STILL: dict[str, Callable[[Klines], Klines]] = {
    "no newer candles, politely": lambda klines: klines.between(0, NOW_MS),
    "no trade in the last candles": lambda klines: frozen(klines, 4),
    "the last candle again and again, volume and all": lambda klines: Klines.from_table(
        MINUTE_MS, klines.open_time_ms, klines.table()[np.minimum(np.arange(len(klines)), len(klines) - 5)]
    ),
}


@pytest.mark.parametrize("still", STILL.values(), ids=STILL.keys())
def test_a_venue_that_stands_still_is_passed_over_where_another_one_trades(
    first: Venue, second: Venue, market: Failover, clock: FakeClock, still: Callable[[Klines], Klines]
) -> None:
    longer = four_minutes_later(market, clock)
    first.series["ETHUSDT", "1m"] = still(longer)
    second.series["ETHUSDT", "1m"] = at_level(longer, APART)
    assert_prices_equal(newest(market, end_ms=clock.time_ms), longer.tail(20))
    assert market.source("ETHUSDT", MINUTE_MS) == "binanceus"
    assert market.faults["binance", PRICES, "ETHUSDT"].state == "silent"


def test_a_market_that_is_silent_everywhere_is_told_as_it_is(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    longer = four_minutes_later(market, clock)
    first.series["ETHUSDT", "1m"] = frozen(longer, 4)
    second.series["ETHUSDT", "1m"] = frozen(at_level(longer, APART), 4)
    klines = newest(market, end_ms=clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    assert (klines.volume[-4:] == 0).all()
    assert len(klines) == 20


def test_a_symbol_that_seldom_trades_is_not_taken_for_frozen(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    seldom = replace(WALK, volume=np.where(np.arange(len(WALK)) % 8 == 0, WALK.volume, 0.0))
    first.series["ETHUSDT", "1m"] = seldom
    second.series["ETHUSDT", "1m"] = at_level(WALK, APART)
    newest(market, rows=200)
    newest(market)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    assert second.asked("/api/v3/klines") == []


def test_a_hole_is_filled_by_whoever_has_it_and_asked_for_once(first: Venue, second: Venue, market: Failover) -> None:
    hole = (LAST_MS - 8 * MINUTE_MS, LAST_MS - 5 * MINUTE_MS)
    first.series["ETHUSDT", "1m"] = WALK.between(0, hole[0]).merge(WALK.between(hole[1], NOW_MS))
    assert_prices_equal(newest(market), WALK.tail(20))
    assert market.filled == 3
    asked = len(second.requests)
    second.handler = broken(Answer("[]"))
    first.series["ETHUSDT", "1m"] = first.series["ETHUSDT", "1m"].tail(100)
    newest(market)
    assert len(second.requests) == asked


def test_a_venue_that_has_only_the_newest_is_not_asked_for_the_old(
    first: Venue, second: Venue, market: Failover
) -> None:
    market.venues[1]._offer = replace(market.venues[1].offer, history_rows=30)  # type: ignore[attr-defined]
    newest(market)
    first.handler = broken(Answer("sorry", 500))
    with pytest.raises(MarketUnavailable):
        market.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 60 * MINUTE_MS)
    assert second.asked("/api/v3/klines") == []


def test_one_venue_alone_speaks_for_itself(first: Venue, lone: Failover) -> None:
    first.handler = broken(Answer(json.dumps({"msg": "maintenance"})))
    with pytest.raises(MalformedKlines, match="must be a list"):
        newest(lone)


def test_a_restart_goes_on_at_the_level_of_the_home_venue(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    kept = newest(market, rows=120)
    first.handler = broken(Answer("sorry", 500))
    clock.time_ms += MINUTE_MS
    second.series["ETHUSDT", "1m"] = at_level(walk(6 * 60 + 1), APART)
    again = two(first, second, clock)
    again.begin("ETHUSDT", "binance")
    again.remember("ETHUSDT", kept)
    assert_prices_equal(newest(again, rows=5, end_ms=clock.time_ms), walk(6 * 60 + 1).tail(5))
    assert (again.home("ETHUSDT"), again.source("ETHUSDT", MINUTE_MS)) == ("binance", "binanceus")
    first.handler, first.series["ETHUSDT", "1m"] = works, walk(6 * 60 + 1)
    clock.time_ms += 2 * MINUTE_MS
    newest(again, rows=5, end_ms=NOW_MS + MINUTE_MS)
    assert again.source("ETHUSDT", MINUTE_MS) == "binance"


def test_minutes_without_a_candle_are_a_symbol_s_way_and_no_halt(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Coinbase has no candle where nobody traded: seven minutes without one are usual there for some symbols."""
    whole = walk(8 * 60)
    usual = np.arange(len(whole)) % 8 < 1 + np.arange(len(whole)) % 3 % 2
    first.series["ETHUSDT", "1m"] = only(whole, usual)
    second.series["ETHUSDT", "1m"] = at_level(whole, APART)
    newest(market, rows=200)
    for _ in range(60):
        clock.time_ms += MINUTE_MS
        newest(market, end_ms=clock.time_ms)
        assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    first.series["ETHUSDT", "1m"] = first.series["ETHUSDT", "1m"].between(0, clock.time_ms - 8 * MINUTE_MS)
    clock.time_ms += 20 * MINUTE_MS
    newest(market, end_ms=clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binanceus"  # that is longer than its way


@pytest.mark.parametrize(
    ("first_ms", "second_ms", "ahead_ms"),
    [(7_200_000, 0, 0), (50_000, 50_000, 50_000), (-40_000, -40_300, -40_000), (300, 9_000, 300), (-60_000, 20_000, 0)],
)
def test_a_time_that_is_far_off_wants_a_second_venue_that_says_so(
    first: Venue, second: Venue, market: Failover, clock: FakeClock, first_ms: int, second_ms: int, ahead_ms: int
) -> None:
    for venue, its_ms in ((first, first_ms), (second, second_ms)):
        venue.handler = broken(Answer(json.dumps({"serverTime": clock.time_ms + its_ms})))
    assert market.clock_ahead_ms() == pytest.approx(ahead_ms, abs=500)
    assert bool(second.requests) is (abs(first_ms) > SECOND_MS)
