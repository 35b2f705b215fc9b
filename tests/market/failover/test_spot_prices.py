"""Newest prices of several venues as one: who is asked how often, and which price counts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from core.clock import MINUTE_MS, SECOND_MS, CorrectedClock, iso
from core.errors import ConfigError, MarketUnavailable
from klines.klines import Klines
from market.failover.breaker import PRICES
from market.failover.failover import Failover
from market.failover.spot_prices import OLD_PRICE_MS, PRICE_SHARE
from market.live.price_feed import PriceFeed
from market.quarantine import Quarantine
from market.venue import Price
from market.venues.coinbase import Coinbase
from tests.fakes.venue_server import Answer
from tests.market.failover.pair import APART, CANDLES, TICKERS, WALK, Stand, at_level, frozen, walk

LONGER = walk(6 * 60 + 10)
CLOSE = float(WALK.close[-1])


def test_prices_come_from_whoever_has_them(stand: Stand) -> None:
    found = stand.market.prices(["ETHUSDT", "SOLUSDT", "BTCUSDT", "NOSUCHUSDT"])
    assert {symbol: price.venue for symbol, price in found.items()} == {
        "ETHUSDT": "binance",
        "BTCUSDT": "binance",
        "SOLUSDT": "binanceus",
    }
    with pytest.raises(ConfigError, match=r"no venue has prices of NOSUCHUSDT: binance: unknown symbol.*binanceus: "):
        stand.market.prices(["NOSUCHUSDT"])


class Feed:
    """A feed that knows the newest candles. Its thread is not started: the test says when it polls."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.feed = PriceFeed(stand.market, ["ETHUSDT"], CorrectedClock(stand.clock))
        self.learn(stand.latest(rows=120))

    def learn(self, klines: Klines) -> None:
        self.feed.anchors.learn("ETHUSDT", klines)

    def poll(self, seconds: int = 1) -> Price:
        """The anchor after a poll."""
        self.stand.wait(seconds)
        self.feed.poll(["ETHUSDT"])
        anchor = self.feed.anchors.get("ETHUSDT")
        assert anchor
        return anchor

    def poll_for(self, minutes: int) -> Price:
        """Poll every four seconds and ask for candles every minute, as a node does; the last anchor."""
        for step in range(15 * minutes):
            ended_ms = self.stand.clock.time_ms + 4 * SECOND_MS - MINUTE_MS + 1
            ended = self.stand.second.series["ETHUSDT", "1m"].between(0, ended_ms)
            self.stand.second.prices = {"ETHUSDT": repr(float(ended.close[-1]))}
            anchor = self.poll(4)
            if step % 15 == 14:
                self.learn(self.stand.latest())
        return anchor


def quote(stand: Stand, price: float, second: float | None = None) -> None:
    """Let the venues have a price, the second venue at its own level."""
    stand.first.prices = {"ETHUSDT": repr(price)}
    stand.second.prices = {"ETHUSDT": repr((price if second is None else second) * APART)}


def test_a_price_that_its_own_candles_have_left_is_passed_over(stand: Stand) -> None:
    """A ticker out of a cache that nobody renews has the time of the question, and is old all the same."""
    stand.have(LONGER)
    quote(stand, CLOSE * 1.002)
    feed = Feed(stand)
    assert feed.poll_for(minutes=1).venue == "binance"
    price = feed.poll_for(minutes=2)
    assert price.venue == "binanceus"
    assert price.price == pytest.approx(LONGER.close[6 * 60 + 2])
    assert stand.market.faults["binance", PRICES, "ETHUSDT"].state == "frozen"
    assert feed.poll_for(minutes=4).venue == "binanceus"  # also after its rest: it is the same
    quote(stand, float(LONGER.close[6 * 60 + 6]))
    assert feed.poll_for(minutes=2).venue == "binance"


def test_a_price_that_stands_still_with_its_candles_is_believed(stand: Stand) -> None:
    still = frozen(LONGER, 10)
    stand.have(replace(still, volume=np.linspace(1.0, 2.0, len(still))))  # trades, at one price
    quote(stand, float(still.close[-1]))
    assert Feed(stand).poll_for(minutes=5).venue == "binance"


def test_a_price_that_stands_still_at_a_stand_in_is_refused_and_said(stand: Stand) -> None:
    """At home prices its candles have left it as those of the home venue would have."""
    feed = Feed(stand)
    stand.fail()
    stand.have(WALK, LONGER)
    quote(stand, CLOSE, CLOSE * 1.002)
    for _ in range(3):
        for _ in range(15):
            feed.feed.poll(["ETHUSDT"])
            stand.wait(4)
        feed.learn(stand.latest())
    before = feed.feed.anchors.get("ETHUSDT")
    assert feed.poll() == before
    assert feed.feed.fault("ETHUSDT").startswith("binanceus: ETHUSDT: tells the same price again and again")
    assert stand.market.faults["binanceus", PRICES, "ETHUSDT"].state == "frozen"


@pytest.mark.parametrize("factor", [100.0, 1.3, 1.04, 0.01])
def test_a_price_of_another_unit_is_left_for_a_venue_whose_price_is_near(stand: Stand, factor: float) -> None:
    """The venue stays at the new level; every price that is believed meanwhile is of the other one, and fresh."""
    feed = Feed(stand)
    quote(stand, CLOSE)
    assert feed.poll().venue == "binance"
    quote(stand, CLOSE * factor, CLOSE)
    for _ in range(600):
        anchor = feed.poll()
        assert anchor.price == pytest.approx(CLOSE, rel=1e-9)
        assert stand.clock.time_ms - anchor.asof_ms <= 2 * SECOND_MS
    assert len(stand.first.asked(TICKERS)) < 25  # rests double up to a minute
    assert stand.market.faults["binance", PRICES, "ETHUSDT"].state == "far"


@pytest.mark.parametrize("factor", [1000.0, 1.08, 0.92, 0.001])
def test_an_absurd_price_of_a_venue_alone_is_not_served_until_a_candle_says_so(lone: Stand, factor: float) -> None:
    quote(lone, CLOSE)
    feed = Feed(lone)
    before = feed.poll()
    quote(lone, CLOSE * factor)
    for _ in range(50):
        assert feed.poll() == before
    assert len(lone.first.asked(TICKERS)) == 51  # each second, as before
    assert "far from the last ones" in feed.feed.fault("ETHUSDT")
    feed.learn(at_level(WALK.tail(60), factor))
    assert feed.poll().price == CLOSE * factor
    assert feed.feed.fault("ETHUSDT") == ""


def test_a_leap_of_two_venues_is_the_market_s(stand: Stand) -> None:
    """Each waits for the other's word: no candle has it yet."""
    feed = Feed(stand)
    for price in (CLOSE, CLOSE * 0.7):
        quote(stand, price)
        for _ in range(3):
            anchor = feed.poll()
        assert anchor.price == pytest.approx(price)
        assert anchor.asof_ms == stand.clock.time_ms


def test_a_price_of_long_ago_is_asked_for_elsewhere_and_the_newest_counts(stand: Stand) -> None:
    """Coinbase tells when a trade was: one of long ago says little where another venue has traded since."""
    traded_ms = stand.clock.time_ms

    def told(path: str, query: dict[str, str]) -> Answer | None:
        return Answer(json.dumps({"price": "1990", "time": iso(traded_ms)})) if path.endswith("/ticker") else None

    stand.first.handler = told
    coinbase = Coinbase([stand.first.url], stand.clock, Quarantine(), patience_s=0)
    stand.market = Failover([coinbase, stand.venues[1]], stand.clock, Quarantine())
    assert stand.price.venue == "coinbase"
    assert not stand.second.requests
    stand.clock.time_ms += OLD_PRICE_MS + SECOND_MS
    assert stand.price == Price(price=2000 * APART, asof_ms=stand.clock.time_ms, venue="binanceus")
    stand.second.prices = {}
    stand.wait(1)
    assert stand.price.asof_ms == traded_ms  # better than none
    traded_ms = stand.clock.time_ms
    stand.wait(2)
    assert stand.price.asof_ms == traded_ms


def test_prices_are_asked_for_as_often_as_a_venue_wants(stand: Stand) -> None:
    stand.venues[1]._info = replace(stand.venues[1].info, prices_at_once=False, requests_a_minute=60)
    stand.first.prices = {"BTCUSDT": "41000"}
    for _ in range(60):  # as a node asks, and with a symbol that nobody has
        assert set(stand.market.prices(["ETHUSDT", "SOLUSDT", "NONEUSDT"])) == {"ETHUSDT", "SOLUSDT"}
        assert stand.market.prices(["BTCUSDT"])["BTCUSDT"].venue == "binance"  # the pace is a venue's own
        stand.wait(1)
    asked = stand.second.asked(TICKERS)
    named = [name for query in asked for name in json.loads(query.get("symbols", "[]")) or [query["symbol"]]]
    for symbol in ("ETHUSDT", "SOLUSDT"):
        assert 5 <= named.count(symbol) <= PRICE_SHARE * 60 / 2 + 2  # the first list was asked for one by one as well
    assert named.count("NONEUSDT") <= 3  # then it is left alone for ten minutes


def test_lists_of_changing_length_do_not_ask_more_often(lone: Stand) -> None:
    """While the stream tells most symbols, the list of those that are asked for is another one each second."""
    names = [f"S{number}USDT" for number in range(10)]
    lone.first.prices = dict.fromkeys(names, "5")
    lone.venues[0]._info = replace(lone.venues[0].info, prices_at_once=False, requests_a_minute=300)
    lone.first.knows_symbols = False  # no form for several
    rng = np.random.default_rng(3)
    for _ in range(120):
        chosen = [name for name in names if rng.random() < 0.3] or names
        assert set(lone.market.prices(chosen)) == set(chosen)
        lone.wait(1)
    assert len(lone.first.requests) <= 2 * PRICE_SHARE * 300 + len(names)


def limited(stand: Stand, requests: int) -> None:
    venue = stand.venues[0]
    venue._info, venue.hosts.limits.requests_a_minute = replace(venue.info, requests_a_minute=requests), requests


def test_candles_leave_prices_their_part_of_a_budget(lone: Stand) -> None:
    """Where a venue is always late, its candles are asked for again and again."""
    limited(lone, 60)
    said = []
    for _ in range(180):
        assert lone.price
        for _ in range(3):
            try:
                lone.newest()
            except MarketUnavailable as error:
                said.append(str(error))
        lone.wait(1)
    assert said
    assert all("requests of this minute are for prices" in one for one in said)
    assert len(lone.first.asked(CANDLES)) >= 3 * 15  # they have their part as well


def test_where_nobody_asks_for_prices_all_of_a_budget_is_for_candles(lone: Stand) -> None:
    limited(lone, 20)
    for _ in range(20):
        lone.newest()
    with pytest.raises(MarketUnavailable, match="budget of 20 requests a minute is used up"):
        lone.newest()
