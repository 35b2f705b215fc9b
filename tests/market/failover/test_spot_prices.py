"""Newest prices of several venues as one: who is asked how often, and which price counts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from core.clock import MINUTE_MS, SECOND_MS, CorrectedClock, iso
from core.errors import ConfigError, MarketUnavailable
from market.failover.breaker import PRICES
from market.failover.failover import Failover
from market.failover.spot_prices import OLD_PRICE_MS, PRICE_SHARE
from market.live.price_feed import PriceFeed
from market.quarantine import Quarantine
from market.venue import Price
from market.venues.binance.rest import Binance
from market.venues.coinbase import Coinbase
from tests.fakes.clock import FakeClock
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import APART, WALK, alone, at_level, broken, frozen, newest, walk


def test_prices_come_from_whoever_has_them(market: Failover) -> None:
    found = market.prices(["ETHUSDT", "SOLUSDT", "BTCUSDT", "NOSUCHUSDT"])
    assert {symbol: price.venue for symbol, price in found.items()} == {
        "ETHUSDT": "binance",
        "BTCUSDT": "binance",
        "SOLUSDT": "binanceus",
    }
    with pytest.raises(ConfigError, match=r"no venue has prices of NOSUCHUSDT: binance: unknown symbol.*binanceus: "):
        market.prices(["NOSUCHUSDT"])


def feed_of(market: Failover, clock: FakeClock) -> PriceFeed:
    """A feed that knows the newest candles. Its thread is not started: the test says when it polls."""
    feed = PriceFeed(market, ["ETHUSDT"], CorrectedClock(clock))
    feed.anchors.learn("ETHUSDT", newest(market, rows=120, end_ms=clock.time_ms // MINUTE_MS * MINUTE_MS))
    return feed


def poll(feed: PriceFeed, clock: FakeClock, seconds: int = 1) -> Price:
    """The anchor after a poll."""
    clock.time_ms += seconds * SECOND_MS
    feed.poll(["ETHUSDT"])
    anchor = feed.anchors.get("ETHUSDT")
    assert anchor
    return anchor


def poll_for_minutes(feed: PriceFeed, market: Failover, clock: FakeClock, minutes: int, second: Venue) -> Price:
    """Poll every four seconds and ask for candles every minute, as a node does; the last anchor."""
    for step in range(15 * minutes):
        ended = second.series["ETHUSDT", "1m"].between(0, clock.time_ms + 4 * SECOND_MS - MINUTE_MS + 1)
        second.prices = {"ETHUSDT": repr(float(ended.close[-1]))}
        anchor = poll(feed, clock, 4)
        if step % 15 == 14:
            feed.anchors.learn("ETHUSDT", newest(market, end_ms=clock.time_ms // MINUTE_MS * MINUTE_MS))
    return anchor


def test_a_price_that_its_own_candles_have_left_is_passed_over(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """A ticker out of a cache that nobody renews has the time of the question, and is old all the same."""
    longer = walk(6 * 60 + 10)
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = longer, at_level(longer, APART)
    first.prices = {"ETHUSDT": str(float(longer.close[6 * 60 - 1]) * 1.002)}
    feed = feed_of(market, clock)
    assert poll_for_minutes(feed, market, clock, 1, second).venue == "binance"
    price = poll_for_minutes(feed, market, clock, 2, second)
    assert price.venue == "binanceus"
    assert price.price == pytest.approx(longer.close[6 * 60 + 2])
    assert market.faults["binance", PRICES, "ETHUSDT"].state == "frozen"
    assert poll_for_minutes(feed, market, clock, 4, second).venue == "binanceus"  # also after its rest: it is the same
    first.prices = {"ETHUSDT": repr(float(longer.close[6 * 60 + 6]))}
    assert poll_for_minutes(feed, market, clock, 2, second).venue == "binance"


def test_a_price_that_stands_still_with_its_candles_is_believed(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    longer = frozen(walk(6 * 60 + 10), 10)
    longer = replace(longer, volume=np.linspace(1.0, 2.0, len(longer)))  # trades, at one price
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = longer, at_level(longer, APART)
    first.prices = {"ETHUSDT": repr(float(longer.close[-1]))}
    assert poll_for_minutes(feed_of(market, clock), market, clock, 5, second).venue == "binance"


def test_a_price_that_stands_still_at_a_stand_in_is_refused_and_said(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """At home prices its candles have left it as those of the home venue would have."""
    longer = walk(6 * 60 + 10)
    feed = feed_of(market, clock)
    first.handler = broken(Answer("sorry", 500))
    second.series["ETHUSDT", "1m"] = at_level(longer, APART)
    second.prices = {"ETHUSDT": str(float(longer.close[6 * 60 - 1]) * 1.004)}
    for _ in range(3):
        for _ in range(15):
            feed.poll(["ETHUSDT"])
            clock.time_ms += 4 * SECOND_MS
        feed.anchors.learn("ETHUSDT", newest(market, end_ms=clock.time_ms))
    before = feed.anchors.get("ETHUSDT")
    assert poll(feed, clock) == before
    assert feed.fault("ETHUSDT").startswith("binanceus: ETHUSDT: tells the same price again and again")
    assert market.faults["binanceus", PRICES, "ETHUSDT"].state == "frozen"


@pytest.mark.parametrize("factor", [100.0, 1.3, 1.04, 0.01])
def test_a_price_of_another_unit_is_left_for_a_venue_whose_price_is_near(
    first: Venue, second: Venue, market: Failover, clock: FakeClock, factor: float
) -> None:
    """The venue stays at the new level; every price that is believed meanwhile is of the other one, and fresh."""
    second.series["ETHUSDT", "1m"] = at_level(WALK, APART)
    feed = feed_of(market, clock)
    true = float(WALK.close[-1])
    first.prices, second.prices = {"ETHUSDT": repr(true)}, {"ETHUSDT": repr(true * APART)}
    assert poll(feed, clock).venue == "binance"
    first.prices = {"ETHUSDT": repr(true * factor)}
    for _ in range(600):
        anchor = poll(feed, clock)
        assert anchor.price == pytest.approx(true, rel=1e-9)
        assert clock.time_ms - anchor.asof_ms <= 2 * SECOND_MS
    asked = len(first.asked("/api/v3/ticker/price"))
    assert asked < 25  # rests double up to a minute
    assert market.faults["binance", PRICES, "ETHUSDT"].state == "far"


@pytest.mark.parametrize("factor", [1000.0, 1.08, 0.92, 0.001])
def test_an_absurd_price_of_a_venue_alone_is_not_served_until_a_candle_says_so(
    first: Venue, clock: FakeClock, factor: float
) -> None:
    first.prices = {"ETHUSDT": repr(float(WALK.close[-1]))}
    market = alone(first, clock)
    feed = feed_of(market, clock)
    before = poll(feed, clock)
    gone = float(WALK.close[-1]) * factor
    first.prices = {"ETHUSDT": repr(gone)}
    for _ in range(50):
        assert poll(feed, clock) == before
    assert len(first.asked("/api/v3/ticker/price")) == 51  # each second, as before
    assert "far from the last ones" in feed.fault("ETHUSDT")
    feed.anchors.learn("ETHUSDT", at_level(WALK.tail(60), factor))
    assert poll(feed, clock).price == gone
    assert feed.fault("ETHUSDT") == ""


def test_a_leap_of_two_venues_is_the_market_s(first: Venue, second: Venue, market: Failover, clock: FakeClock) -> None:
    """Each waits for the other's word: no candle has it yet."""
    feed = feed_of(market, clock)
    for factor in (1.0, 0.7):
        price = float(WALK.close[-1]) * factor
        first.prices, second.prices = {"ETHUSDT": repr(price)}, {"ETHUSDT": repr(price * APART)}
        for _ in range(3):
            anchor = poll(feed, clock)
        assert anchor.price == pytest.approx(price)
        assert anchor.asof_ms == clock.time_ms


def test_a_price_of_long_ago_is_asked_for_elsewhere_and_the_newest_counts(
    first: Venue, second: Venue, clock: FakeClock
) -> None:
    """Coinbase tells when a trade was: one of long ago says little where another venue has traded since."""
    traded_ms = clock.time_ms

    def told(path: str, query: dict[str, str]) -> Answer | None:
        return Answer(json.dumps({"price": "1990", "time": iso(traded_ms)})) if path.endswith("/ticker") else None

    first.handler = told
    second.series["ETHUSDT", "1m"] = WALK
    venues = [
        Coinbase([first.url], clock, Quarantine(), patience_s=0),
        Binance([second.url], "", clock, patience_s=0, name="binanceus"),
    ]
    market = Failover(venues, clock, Quarantine())
    assert market.prices(["ETHUSDT"])["ETHUSDT"].venue == "coinbase"
    assert not second.requests
    clock.time_ms += OLD_PRICE_MS + SECOND_MS
    assert market.prices(["ETHUSDT"])["ETHUSDT"] == Price(price=2000 * APART, asof_ms=clock.time_ms, venue="binanceus")
    second.prices = {}
    clock.time_ms += SECOND_MS
    assert market.prices(["ETHUSDT"])["ETHUSDT"].asof_ms == traded_ms  # better than none
    traded_ms = clock.time_ms
    clock.time_ms += 2 * SECOND_MS
    assert market.prices(["ETHUSDT"])["ETHUSDT"].asof_ms == traded_ms


def test_prices_are_asked_for_as_often_as_a_venue_wants(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    market.venues[1]._offer = replace(market.venues[1].offer, prices_at_once=False, requests_a_minute=60)  # type: ignore[attr-defined]
    first.prices = {"BTCUSDT": "41000"}
    for _ in range(60):  # as a node asks, and with a symbol that nobody has
        assert set(market.prices(["ETHUSDT", "SOLUSDT", "NONEUSDT"])) == {"ETHUSDT", "SOLUSDT"}
        assert market.prices(["BTCUSDT"])["BTCUSDT"].venue == "binance"  # the pace is a venue's own
        clock.time_ms += SECOND_MS
    asked = second.asked("/api/v3/ticker/price")
    named = [name for query in asked for name in json.loads(query.get("symbols", "[]")) or [query["symbol"]]]
    for symbol in ("ETHUSDT", "SOLUSDT"):
        assert 5 <= named.count(symbol) <= PRICE_SHARE * 60 / 2 + 2  # the first list was asked for one by one as well
    assert named.count("NONEUSDT") <= 3  # then it is left alone for ten minutes


def test_lists_of_changing_length_do_not_ask_more_often(second: Venue, clock: FakeClock) -> None:
    """While the stream tells most symbols, the list of those that are asked for is another one each second."""
    names = [f"S{number}USDT" for number in range(10)]
    second.prices = dict.fromkeys(names, "5")
    venue = Binance([second.url], "", clock, patience_s=0, name="binanceus")
    venue._offer = replace(venue.offer, prices_at_once=False, requests_a_minute=300)
    second.knows_symbols = False  # no form for several
    market = Failover([venue], clock, Quarantine())
    rng = np.random.default_rng(3)
    for _ in range(120):
        chosen = [name for name in names if rng.random() < 0.3] or names
        assert set(market.prices(chosen)) == set(chosen)
        clock.time_ms += SECOND_MS
    assert len(second.requests) <= 2 * PRICE_SHARE * 300 + len(names)


def test_candles_leave_prices_their_part_of_a_budget(first: Venue, clock: FakeClock) -> None:
    """Where a venue is always late, its candles are asked for again and again."""
    venue = Binance([first.url], "", clock, patience_s=0)
    venue._offer, venue.hosts.limits.requests_a_minute = replace(venue.offer, requests_a_minute=60), 60
    market = Failover([venue], clock, Quarantine())
    said = []
    for _ in range(180):
        assert market.prices(["ETHUSDT"])
        for _ in range(3):
            try:
                newest(market)
            except MarketUnavailable as error:
                said.append(str(error))
        clock.time_ms += SECOND_MS
    assert said
    assert all("requests of this minute are for prices" in one for one in said)
    assert len(first.asked("/api/v3/klines")) >= 3 * 15  # they have their part as well


def test_where_nobody_asks_for_prices_all_of_a_budget_is_for_candles(first: Venue, clock: FakeClock) -> None:
    venue = Binance([first.url], "", clock, patience_s=0)
    venue._offer, venue.hosts.limits.requests_a_minute = replace(venue.offer, requests_a_minute=20), 20
    market = Failover([venue], clock, Quarantine())
    for _ in range(20):
        newest(market)
    with pytest.raises(MarketUnavailable, match="budget of 20 requests a minute is used up"):
        newest(market)
