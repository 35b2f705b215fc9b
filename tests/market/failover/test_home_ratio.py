"""What a stand-in's candles and prices are multiplied by to be at the prices of the home venue."""

import numpy as np
import pytest

from core.clock import HOUR_MS, MINUTE_MS
from core.errors import MarketUnavailable
from klines.klines import COLUMNS, Klines
from market.failover.home_ratio import GOOD_MS
from tests.fakes.klines import random_walk_klines, times
from tests.fakes.venue_server import Answer
from tests.market.failover.pair import (
    APART,
    CANDLES,
    DOWN,
    LAST_MS,
    LONG,
    NOW_MS,
    WALK,
    Stand,
    assert_prices_equal,
    at_level,
    walk,
    with_row,
    works,
)

UNKNOWN_RATIO = "the price ratio is not known"
HOURS = random_walk_klines(200, interval_ms=HOUR_MS, start_ms=NOW_MS - 200 * HOUR_MS)


def hours(stand: Stand, rows: int) -> Klines:
    return stand.market.klines("ETHUSDT", HOUR_MS, NOW_MS - rows * HOUR_MS, NOW_MS)


def assert_close(told: Klines, true: Klines, factor: float = 1.0) -> None:
    np.testing.assert_allclose(told.close, true.close * factor, rtol=1e-9)


def out_of_use(stand: Stand) -> Stand:
    """The market of a symbol whose home venue is named no more, with its candles of until five minutes ago."""
    stand.market.begin("ETHUSDT", "kraken")
    stand.market.remember("ETHUSDT", at_level(WALK, APART).between(0, NOW_MS - 5 * MINUTE_MS))
    return stand


def test_candles_of_the_home_venue_stay_as_they_are(stand: Stand) -> None:
    before = stand.newest(rows=30)
    price = float(WALK.close[-1])
    stand.have(WALK, with_row(WALK, LAST_MS, close=price * 1.002, high=float(WALK.high[-1]) * 1.008))
    stand.fail()
    after = stand.newest(rows=30)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_no_return_has_the_difference_of_two_venues_in_it(stand: Stand) -> None:
    """There and back: what a reader has merged is the market's own path throughout."""
    whole = walk(7 * 60)
    kept = stand.newest(rows=100)
    stand.have(whole)
    stand.fail()
    for _ in range(1, 40):
        stand.wait(minutes=1)
        kept = kept.merge(stand.market.klines("ETHUSDT", MINUTE_MS, kept.end_ms - 10 * MINUTE_MS, stand.clock.time_ms))
    stand.first.handler = works
    stand.wait(minutes=1)
    assert_prices_equal(kept, whole.between(int(kept.open_time_ms[0]), kept.end_ms))
    back = stand.latest(rows=40)
    assert stand.source == "binance"
    np.testing.assert_allclose(back.close, whole.between(NOW_MS, stand.clock.time_ms).close, rtol=1e-11)


def test_a_venue_whose_ratio_cannot_be_measured_is_not_used(stand: Stand) -> None:
    stand.newest()
    stand.have(WALK, times(WALK, 1.2))
    stand.fail()
    with pytest.raises(
        MarketUnavailable, match=r"no venue has 1m klines of ETHUSDT: binance: .*500.*binanceus: .*price ratio"
    ):
        stand.newest()


def test_a_ratio_of_a_venue_that_is_not_in_use_any_more(lone: Stand) -> None:
    """Where candles at that level are there, the new venue's are brought to it; where none are, it begins anew."""
    assert_close(out_of_use(lone).newest(), WALK.tail(20), APART)
    again = Stand(lone.first, lone.second, lone.clock, alone=True)
    again.market.begin("ETHUSDT", "kraken")
    assert_prices_equal(again.newest(), WALK.tail(20))
    assert again.market.home("ETHUSDT") == "binance"


def test_a_home_venue_out_of_use_leaves_its_prices_to_all_intervals_of_a_symbol(lone: Stand) -> None:
    """Candles of one interval are enough to bring the other to it."""
    lone.first.add("ETHUSDT", HOURS)
    with pytest.raises(MarketUnavailable, match=UNKNOWN_RATIO):
        hours(out_of_use(lone), 20)
    assert lone.market.home("ETHUSDT") == "kraken"
    lone.wait(2)
    assert_close(lone.newest(), WALK.tail(20), APART)
    assert_close(hours(lone, 20), HOURS.tail(20), APART)


def test_two_first_answers_at_once_have_one_home_venue(stand: Stand) -> None:
    """A first sync asks for several months at a time, and a venue may fail for one of them."""
    stand.fail()

    def meanwhile(path: str, query: dict[str, str]) -> Answer | None:
        stand.first.handler = stand.second.handler = works
        stand.wait(2)
        stand.newest(rows=120)
        return None

    stand.second.handler = meanwhile
    assert_prices_equal(stand.newest(), WALK.tail(20))
    assert stand.market.home("ETHUSDT") == "binance"


def test_volume_is_brought_to_size_also_long_after_the_venues_shared_a_candle_and_other_flows_are_left_out(
    stand: Stand,
) -> None:
    stand.newest(rows=120)
    stand.fail()
    stand.have(LONG)
    for minutes in (1, 89):
        stand.wait(minutes=minutes)
        last = stand.latest().tail(1)
        np.testing.assert_allclose(last.volume, LONG.between(0, stand.clock.time_ms).tail(1).volume, rtol=1e-6)
        assert np.isnan([last.trades, last.taker_buy_base]).all()


def test_a_ratio_of_long_ago_is_measured_anew_before_a_price_counts_by_it(stand: Stand) -> None:
    stand.newest(rows=120)
    stand.first.prices = {}
    assert stand.price.price == pytest.approx(2000.0)
    stand.second.prices = {"ETHUSDT": str(2000 * 1.01 * APART)}
    stand.have(LONG, times(LONG, 1.01))
    stand.wait(minutes=GOOD_MS // MINUTE_MS + 1)
    stand.latest(rows=90)
    assert stand.price.price == pytest.approx(2000.0)


def test_a_ratio_is_used_while_the_venue_cannot_tell_a_newer_one(stand: Stand) -> None:
    """Its candles fail and its prices do not: they are neither thrown away nor is it asked for candles each time."""
    stand.newest(rows=120)
    stand.first.prices = {}
    assert stand.price.venue == "binanceus"
    stand.have(LONG, WALK)
    stand.wait(minutes=GOOD_MS // MINUTE_MS + 1)
    stand.latest(rows=90)
    stand.second.handler = lambda path, query: DOWN if path == CANDLES else None
    asked = len(stand.second.asked(CANDLES))
    for _ in range(120):
        assert stand.price.price == pytest.approx(2000)
        stand.wait(1)
    assert len(stand.second.asked(CANDLES)) - asked <= 3


def test_without_a_ratio_there_is_no_price_and_no_word_of_a_wrong_symbol(stand: Stand) -> None:
    stand.newest()
    stand.first.prices = {}
    stand.second.series["ETHUSDT", "1m"] = random_walk_klines(6 * 60, seed=5, sigma=0.02)
    for _ in range(300):
        with pytest.raises(MarketUnavailable, match=f"binanceus: .*{UNKNOWN_RATIO}"):
            stand.market.prices(["ETHUSDT"])
        stand.wait(1)
    assert len(stand.second.asked(CANDLES)) <= 5  # in five minutes: a budget is not spent on it


def test_a_ratio_that_newer_candles_refute_is_not_used_any_more(stand: Stand) -> None:
    stand.newest()
    stand.fail()
    stand.newest()  # the second one stands in, at a level that fits
    stand.first.handler = works
    stand.wait(minutes=2)
    stand.have(LONG, times(LONG, 1.08))  # apart by more than two venues of one asset can be
    stand.latest()
    stand.fail()
    for ask in (stand.latest, lambda: stand.price):
        with pytest.raises(MarketUnavailable, match=UNKNOWN_RATIO):
            ask()


def test_the_venue_that_begins_a_series_is_its_home_and_the_first_venue_goes_on_at_one_ratio(stand: Stand) -> None:
    """Whatever the venue that began it does meanwhile, a halt or a spike of its own: it is not asked any more."""
    whole = random_walk_klines(14 * 60)
    stand.have(whole)
    stand.fail(Answer("barred", 451))
    assert_close(stand.newest(), WALK.tail(20), APART)
    assert stand.market.home("ETHUSDT") == "binanceus"
    assert stand.price.price == pytest.approx(2000 * APART)
    stand.first.handler = works
    stand.wait(minutes=11)  # the hosts' own memory of being barred
    asked = len(stand.second.requests)
    for _ in range(1, 6 * 60):
        stand.wait(minutes=1)
        assert_close(stand.latest(), whole.between(0, stand.clock.time_ms).tail(20), APART)
    assert (stand.market.home("ETHUSDT"), stand.source) == ("binanceus", "binance")
    assert len(stand.second.requests) == asked


def test_a_ratio_does_not_change_while_nothing_new_is_known(stand: Stand) -> None:
    """In an outage fewer and fewer candles of before are among those asked for: the last ones may have been odd."""
    is_odd = (LONG.open_time_ms >= LAST_MS - 4 * MINUTE_MS) & (LONG.open_time_ms <= LAST_MS)
    stand.have(WALK, times(LONG, np.where(is_odd, 1.004, 1.0)))
    stand.newest(rows=200)
    stand.fail()
    for _ in range(1, 110):
        stand.wait(minutes=1)
        true = LONG.between(0, stand.clock.time_ms)
        assert stand.latest().close[-1] == pytest.approx(true.close[-1], rel=1e-4)


def test_a_ratio_of_a_venue_out_of_use_outlasts_the_candles_that_it_told(stand: Stand) -> None:
    """What is told since at that level is what others are measured by."""
    stand.market.begin("ETHUSDT", "kraken")
    stand.market.remember("ETHUSDT", at_level(WALK, 1.01))
    longer = random_walk_klines(20 * 60)
    stand.have(longer)
    for _ in range(7 * 60):
        stand.wait(minutes=1)
        stand.latest(rows=5)
    stand.fail()
    told = stand.latest(rows=5)
    assert stand.source == "binanceus"
    assert_close(told, longer.between(0, stand.clock.time_ms).tail(5), 1.01)


def test_a_ratio_is_measured_by_each_interval_and_a_price_counts_by_the_shortest(stand: Stand) -> None:
    """In a long outage sixty hours say another ratio than the last hour."""
    stand.first.add("ETHUSDT", HOURS)
    stand.second.add("ETHUSDT", at_level(HOURS, 1.006))
    stand.newest(rows=120)
    hours(stand, 50)
    stand.fail()
    stand.first.prices = {}
    stand.newest()
    assert_close(hours(stand, 60), HOURS.tail(60))
    stand.wait(minutes=1)
    stand.have(WALK, walk(6 * 60 + 1))
    assert stand.price.price == pytest.approx(2000)
    assert_prices_equal(stand.latest(), walk(6 * 60 + 1).tail(20))
