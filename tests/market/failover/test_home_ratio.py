"""What a stand-in's candles and prices are multiplied by to be at the prices of the home venue."""

from dataclasses import replace

import numpy as np
import pytest

from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS
from core.errors import MarketUnavailable
from klines.klines import COLUMNS, PRICE_COLUMNS
from market.failover.failover import Failover
from market.failover.home_ratio import GOOD_MS
from tests.fakes.clock import FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import (
    APART,
    LAST_MS,
    LONG,
    NOW_MS,
    WALK,
    alone,
    assert_prices_equal,
    at_level,
    broken,
    newest,
    walk,
    with_row,
    works,
)


def test_candles_of_the_home_venue_stay_as_they_are(first: Venue, second: Venue, market: Failover) -> None:
    before = newest(market, rows=30)
    second.series["ETHUSDT", "1m"] = with_row(
        at_level(WALK, APART), LAST_MS, close=float(WALK.close[-1]) * 1.004, high=float(WALK.high[-1]) * 1.01
    )
    first.handler = broken(Answer("sorry", 500))
    after = newest(market, rows=30)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_no_return_has_the_difference_of_two_venues_in_it(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """There and back: what a reader has merged is the market's own path throughout."""
    whole = walk(7 * 60)
    kept = newest(market, rows=100)
    second.series["ETHUSDT", "1m"] = at_level(whole, APART)
    first.handler = broken(Answer("sorry", 500))
    for minute in range(1, 40):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        kept = kept.merge(market.klines("ETHUSDT", MINUTE_MS, kept.end_ms - 10 * MINUTE_MS, clock.time_ms))
    first.series["ETHUSDT", "1m"] = whole
    first.handler = works
    clock.time_ms += MINUTE_MS
    assert_prices_equal(kept, whole.between(int(kept.open_time_ms[0]), kept.end_ms))
    back = market.klines("ETHUSDT", MINUTE_MS, NOW_MS, clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    np.testing.assert_allclose(back.close, whole.between(NOW_MS, clock.time_ms).close, rtol=1e-11)


def test_a_venue_whose_ratio_cannot_be_measured_is_not_used(first: Venue, second: Venue, market: Failover) -> None:
    newest(market)
    second.series["ETHUSDT", "1m"] = at_level(WALK, 1.2)
    first.handler = broken(Answer("sorry", 500))
    with pytest.raises(
        MarketUnavailable, match=r"no venue has 1m klines of ETHUSDT: binance: .*500.*binanceus: .*price ratio"
    ):
        newest(market)


def test_the_first_venue_that_answers_is_the_home_venue(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    first.handler = broken(Answer("barred", 451))
    klines = newest(market)
    np.testing.assert_allclose(klines.close, WALK.tail(20).close * APART)
    assert market.home("ETHUSDT") == "binanceus"
    assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(2000 * APART)
    first.handler = works
    clock.time_ms += 11 * 60 * SECOND_MS  # the hosts' own memory of being barred
    first.series["ETHUSDT", "1m"] = longer = walk(6 * 60 + 11)
    klines = newest(market, end_ms=clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binance"
    np.testing.assert_allclose(klines.close[-1], longer.close[-1] * APART)


def test_a_ratio_of_a_venue_that_is_not_in_use_any_more(first: Venue, clock: FakeClock) -> None:
    """Where candles at that level are there, the new venue's are brought to it; where none are, it begins anew."""
    lone = alone(first, clock)
    lone.begin("ETHUSDT", "kraken")
    lone.remember("ETHUSDT", at_level(WALK, APART).between(0, NOW_MS - 5 * MINUTE_MS))
    np.testing.assert_allclose(newest(lone).close, WALK.tail(20).close * APART, rtol=1e-9)
    again = alone(first, clock)
    again.begin("ETHUSDT", "kraken")
    assert_prices_equal(newest(again), WALK.tail(20))
    assert again.home("ETHUSDT") == "binance"


def test_two_first_answers_at_once_have_one_home_venue(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """A first sync asks for several months at a time, and a venue may fail for one of them."""
    first.handler = broken(Answer("sorry", 500))

    def meanwhile(path: str, query: dict[str, str]) -> Answer | None:
        second.handler = works
        first.handler = works
        clock.time_ms += 2 * SECOND_MS
        newest(market, rows=120)
        return None

    second.handler = meanwhile
    assert_prices_equal(newest(market), WALK.tail(20))
    assert market.home("ETHUSDT") == "binance"


def test_volume_is_brought_to_size_also_long_after_the_venues_shared_a_candle_and_other_flows_are_left_out(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market, rows=120)
    first.handler = broken(Answer("sorry", 500))
    second.series["ETHUSDT", "1m"] = at_level(LONG, APART)
    for minute in (1, 90):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        last = newest(market, end_ms=clock.time_ms).tail(1)
        np.testing.assert_allclose(last.volume, walk(6 * 60 + minute).tail(1).volume, rtol=1e-6)
        assert np.isnan([last.trades, last.taker_buy_base]).all()


def test_a_ratio_of_long_ago_is_measured_anew_before_a_price_counts_by_it(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market, rows=120)
    first.prices = {}
    assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(2000.0)
    second.prices = {"ETHUSDT": str(2000 * 1.01)}
    second.series["ETHUSDT", "1m"] = at_level(LONG, 1.01)
    clock.time_ms += GOOD_MS + MINUTE_MS
    first.series["ETHUSDT", "1m"] = LONG
    newest(market, rows=90, end_ms=clock.time_ms)
    assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(2000.0)


def test_without_a_ratio_there_is_no_price_and_no_word_of_a_wrong_symbol(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market)
    first.prices = {}
    second.series["ETHUSDT", "1m"] = random_walk_klines(6 * 60, seed=5, sigma=0.02)
    for _ in range(300):
        with pytest.raises(MarketUnavailable, match=r"binanceus: .*the price ratio is not known"):
            market.prices(["ETHUSDT"])
        clock.time_ms += SECOND_MS
    assert len(second.asked("/api/v3/klines")) <= 5  # in five minutes: a budget is not spent on it


def test_a_ratio_that_newer_candles_refute_is_not_used_any_more(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    newest(market)
    first.handler = broken(Answer("sorry", 500))
    newest(market)  # the second one stands in, at a level that fits
    first.handler = works
    clock.time_ms += 2 * MINUTE_MS
    first.series["ETHUSDT", "1m"] = LONG
    newest(market, end_ms=clock.time_ms)
    first.handler = broken(Answer("sorry", 500))
    second.series["ETHUSDT", "1m"] = at_level(LONG, 1.08)  # apart by more than two venues of one asset can be
    with pytest.raises(MarketUnavailable, match="the price ratio is not known"):
        newest(market, end_ms=clock.time_ms)
    with pytest.raises(MarketUnavailable, match="the price ratio is not known"):
        market.prices(["ETHUSDT"])


def test_a_series_that_another_venue_began_is_the_first_ones_path_at_one_ratio(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Whatever the venue that began it does meanwhile, a halt or a spike of its own: it is not asked any more."""
    whole = random_walk_klines(14 * 60)
    first.series["ETHUSDT", "1m"] = whole
    second.series["ETHUSDT", "1m"] = at_level(whole, APART)
    first.handler = broken(Answer("sorry", 500))
    newest(market)
    first.handler = works
    asked = len(second.requests)
    for minute in range(1, 6 * 60):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        told = newest(market, end_ms=clock.time_ms)
        np.testing.assert_allclose(told.close, whole.between(0, clock.time_ms).tail(20).close * APART, rtol=1e-9)
    assert (market.home("ETHUSDT"), market.source("ETHUSDT", MINUTE_MS)) == ("binanceus", "binance")
    assert len(second.requests) == asked


def test_a_ratio_does_not_change_while_nothing_new_is_known(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """In an outage fewer and fewer candles of before are among those asked for: the last ones may have been odd."""
    odd = at_level(LONG, APART)
    at_ms = LAST_MS - 4 * MINUTE_MS
    factor = np.where((odd.open_time_ms >= at_ms) & (odd.open_time_ms <= LAST_MS), 1.004, 1.0)
    second.series["ETHUSDT", "1m"] = replace(odd, **{n: getattr(odd, n) * factor for n in PRICE_COLUMNS})
    newest(market, rows=200)
    first.handler = broken(Answer("sorry", 500))
    for minute in range(1, 110):
        clock.time_ms = NOW_MS + minute * MINUTE_MS
        told = newest(market, end_ms=clock.time_ms)
        assert told.close[-1] == pytest.approx(LONG.between(0, clock.time_ms).close[-1], rel=1e-4)


def test_a_ratio_of_a_venue_out_of_use_outlasts_the_candles_that_it_told(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """What is told since at that level is what others are measured by."""
    market.begin("ETHUSDT", "kraken")
    market.remember("ETHUSDT", at_level(WALK, 1.01))
    longer = random_walk_klines(20 * 60)
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = longer, at_level(longer, APART)
    for _ in range(7 * 60):
        clock.time_ms += MINUTE_MS
        newest(market, rows=5, end_ms=clock.time_ms)
    first.handler = broken(Answer("sorry", 500))
    told = newest(market, rows=5, end_ms=clock.time_ms)
    assert market.source("ETHUSDT", MINUTE_MS) == "binanceus"
    np.testing.assert_allclose(told.close, longer.between(0, clock.time_ms).tail(5).close * 1.01, rtol=1e-9)


def test_a_ratio_is_measured_by_each_interval_and_a_price_counts_by_the_shortest(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """In a long outage sixty hours say another ratio than the last hour."""
    hours = random_walk_klines(200, interval_ms=HOUR_MS, start_ms=NOW_MS - 200 * HOUR_MS)
    first.add("ETHUSDT", hours)
    second.add("ETHUSDT", at_level(hours, 1.006))
    newest(market, rows=120)
    market.klines("ETHUSDT", HOUR_MS, NOW_MS - 50 * HOUR_MS, NOW_MS)
    first.handler = broken(Answer("sorry", 500))
    first.prices = {}
    newest(market)
    told = market.klines("ETHUSDT", HOUR_MS, NOW_MS - 60 * HOUR_MS, NOW_MS)
    np.testing.assert_allclose(told.close, hours.tail(60).close, rtol=1e-9)
    clock.time_ms += MINUTE_MS
    second.series["ETHUSDT", "1m"] = at_level(walk(6 * 60 + 1), APART)
    assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(2000)
    assert_prices_equal(newest(market, end_ms=clock.time_ms), walk(6 * 60 + 1).tail(20))


def test_a_home_venue_out_of_use_leaves_its_prices_to_all_intervals_of_a_symbol(first: Venue, clock: FakeClock) -> None:
    """Candles of one interval are enough to bring the other to it."""
    hours = random_walk_klines(200, interval_ms=HOUR_MS, start_ms=NOW_MS - 200 * HOUR_MS)
    first.add("ETHUSDT", hours)
    again = alone(first, clock)
    again.begin("ETHUSDT", "kraken")
    again.remember("ETHUSDT", at_level(WALK, APART).between(0, NOW_MS - 5 * MINUTE_MS))
    with pytest.raises(MarketUnavailable, match="the price ratio is not known"):
        again.klines("ETHUSDT", HOUR_MS, NOW_MS - 20 * HOUR_MS, NOW_MS)
    assert again.home("ETHUSDT") == "kraken"
    clock.time_ms += 2 * SECOND_MS
    np.testing.assert_allclose(newest(again).close, WALK.tail(20).close * APART, rtol=1e-9)
    told = again.klines("ETHUSDT", HOUR_MS, NOW_MS - 20 * HOUR_MS, NOW_MS)
    np.testing.assert_allclose(told.close, hours.tail(20).close * APART, rtol=1e-9)


def test_a_ratio_is_used_while_the_venue_cannot_tell_a_newer_one(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Its candles fail and its prices do not: they are neither thrown away nor is it asked for candles each time."""
    newest(market, rows=120)
    first.prices = {}
    assert market.prices(["ETHUSDT"])["ETHUSDT"].venue == "binanceus"
    first.series["ETHUSDT", "1m"] = LONG
    clock.time_ms += GOOD_MS + MINUTE_MS
    newest(market, rows=90, end_ms=clock.time_ms)
    second.handler = lambda path, query: Answer("sorry", 500) if path == "/api/v3/klines" else None
    asked = len(second.asked("/api/v3/klines"))
    for _ in range(120):
        assert market.prices(["ETHUSDT"])["ETHUSDT"].price == pytest.approx(2000)
        clock.time_ms += SECOND_MS
    assert len(second.asked("/api/v3/klines")) - asked <= 3
