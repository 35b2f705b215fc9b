"""Newest prices of several venues as one: who is asked how often, and which price counts."""

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from core.clock import MINUTE_MS, SECOND_MS, iso
from core.errors import ConfigError, MarketUnavailable
from market.failover.breaker import PRICES
from market.failover.failover import Failover
from market.failover.spot_prices import OLD_PRICE_MS, PRICE_SHARE
from market.quarantine import Quarantine
from market.venue import Price
from market.venues.binance.rest import Binance
from market.venues.coinbase import Coinbase
from tests.fakes.clock import FakeClock
from tests.fakes.venue_server import Answer, Venue
from tests.market.failover.pair import (
    APART,
    WALK,
    at_level,
    broken,
    frozen,
    newest,
    walk,
)


def test_prices_come_from_whoever_has_them(market: Failover) -> None:
    found = market.prices(["ETHUSDT", "SOLUSDT", "BTCUSDT", "NOSUCHUSDT"])
    assert {symbol: price.venue for symbol, price in found.items()} == {
        "ETHUSDT": "binance",
        "BTCUSDT": "binance",
        "SOLUSDT": "binanceus",
    }
    with pytest.raises(ConfigError, match=r"no venue has prices of NOSUCHUSDT: binance: unknown symbol.*binanceus: "):
        market.prices(["NOSUCHUSDT"])


def ask_for_minutes(market: Failover, clock: FakeClock, minutes: int, second: Venue) -> Price:
    """Ask for prices every four seconds and for candles every minute, as a node does; the last price."""
    for step in range(15 * minutes):
        clock.time_ms += 4 * SECOND_MS
        ended = second.series["ETHUSDT", "1m"].between(0, clock.time_ms - MINUTE_MS + 1)
        second.prices = {"ETHUSDT": repr(float(ended.close[-1]))}
        price = market.prices(["ETHUSDT"])["ETHUSDT"]
        if step % 15 == 14:
            newest(market, end_ms=clock.time_ms // MINUTE_MS * MINUTE_MS)
    return price


def test_a_price_that_its_own_candles_have_left_is_passed_over(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """A ticker out of a cache that nobody renews has the time of the question, and is old all the same."""
    longer = walk(6 * 60 + 10)
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = longer, at_level(longer, APART)
    first.prices = {"ETHUSDT": str(float(longer.close[6 * 60 - 1]) * 1.002)}
    newest(market, rows=120)
    assert ask_for_minutes(market, clock, 1, second).venue == "binance"
    price = ask_for_minutes(market, clock, 2, second)
    assert price.venue == "binanceus"
    assert price.price == pytest.approx(longer.close[6 * 60 + 2])
    assert market.faults["binance", PRICES, "ETHUSDT"].state == "frozen"
    assert ask_for_minutes(market, clock, 4, second).venue == "binanceus"  # also after its rest: it is the same
    first.prices = {"ETHUSDT": "2001"}
    assert ask_for_minutes(market, clock, 2, second).venue == "binance"


def test_a_price_that_stands_still_with_its_candles_is_believed(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    longer = frozen(walk(6 * 60 + 10), 10)
    longer = replace(longer, volume=np.linspace(1.0, 2.0, len(longer)))  # trades, at one price
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = longer, at_level(longer, APART)
    first.prices = {"ETHUSDT": repr(float(longer.close[-1]))}
    newest(market, rows=120)
    assert ask_for_minutes(market, clock, 5, second).venue == "binance"


def test_a_clock_that_is_set_back_makes_no_healthy_price_frozen(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Candles that were told before look as if they came after the price, and have others."""
    longer = walk(6 * 60 + 5)
    first.series["ETHUSDT", "1m"], second.series["ETHUSDT", "1m"] = longer, at_level(longer, APART)
    clock.time_ms += 5 * MINUTE_MS
    newest(market, rows=120, end_ms=clock.time_ms)
    first.prices = {"ETHUSDT": repr(float(longer.high[-1]) * 1.01)}
    clock.time_ms -= 4 * MINUTE_MS
    for _ in range(40):
        assert market.prices(["ETHUSDT"])["ETHUSDT"].venue == "binance"
        clock.time_ms += 4 * SECOND_MS
    assert not market.faults


def test_a_price_that_stands_still_at_a_venue_that_stands_in_is_told_from_one_that_moves(
    first: Venue, second: Venue, market: Failover, clock: FakeClock
) -> None:
    """Its candles, brought to the level, have left it as its own venue's would have."""
    longer = walk(6 * 60 + 10)
    newest(market, rows=120)
    first.handler = broken(Answer("sorry", 500))
    second.series["ETHUSDT", "1m"] = at_level(longer, APART)
    second.prices = {"ETHUSDT": str(float(longer.close[6 * 60 - 1]) * 1.004)}
    for _ in range(3):
        for _ in range(15):
            with suppress(MarketUnavailable):
                market.prices(["ETHUSDT"])
            clock.time_ms += 4 * SECOND_MS
        newest(market, end_ms=clock.time_ms)
    with pytest.raises(MarketUnavailable, match="binanceus tells the same price of ETHUSDT since"):
        market.prices(["ETHUSDT"])
    assert market.faults["binanceus", PRICES, "ETHUSDT"].state == "frozen"


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
    market = Failover(venues, clock, Quarantine(), awaits_life=False)
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
    market = Failover([venue], clock, Quarantine(), awaits_life=False)
    rng = np.random.default_rng(3)
    for _ in range(120):
        chosen = [name for name in names if rng.random() < 0.3] or names
        assert set(market.prices(chosen)) == set(chosen)
        clock.time_ms += SECOND_MS
    assert len(second.requests) <= 2 * PRICE_SHARE * 300 + len(names)


def test_candles_leave_prices_their_part_of_a_budget(first: Venue, clock: FakeClock) -> None:
    """Where a venue is always late, its candles are asked for again and again."""
    venue = Binance([first.url], "", clock, patience_s=0)
    venue._offer, venue.hosts.requests_a_minute = replace(venue.offer, requests_a_minute=60), 60
    market = Failover([venue], clock, Quarantine(), awaits_life=False)
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
    venue._offer, venue.hosts.requests_a_minute = replace(venue.offer, requests_a_minute=20), 20
    market = Failover([venue], clock, Quarantine(), awaits_life=False)
    for _ in range(20):
        newest(market)
    with pytest.raises(MarketUnavailable, match="20 requests went out within a minute"):
        newest(market)
