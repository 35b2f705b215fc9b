"""What the venues' own lists say of a symbol, asked at a start."""

import socket
import threading
import time
from functools import partial

import pytest
from structlog.testing import capture_logs

from core.clock import SystemClock
from core.topic import Target, Topic
from exchange.server import SimulatedExchange
from market.listings import Listings, Pair, asked_pairs
from market.venue import Venue
from market.venues.binance.rest import Binance
from tests.fakes.clock import eventually
from tests.fakes.net import free_port, nobody
from tests.fakes.venue_server import entry_of

INFO = "/api/v3/exchangeInfo"
entry = partial(entry_of, "BTCTUSD")


def binance(url: str, name: str = "binance") -> Binance:
    return Binance([url], "", SystemClock(), timeout_s=2, patience_s=0, name=name)


def topic(token: str, symbol: str) -> Topic:
    return Topic(topic_id=1, token=token, symbol=symbol, target=Target.PRICE, horizon_min=10)


def asked(venues: list[Venue], symbol: str, token: str) -> Pair:
    pair = Pair(symbol, token)
    pair.ask(venues, set())
    return pair


def test_the_simulated_exchange_lists_what_it_trades() -> None:
    with SimulatedExchange(symbols=["BTCUSDT", "ETHUSDT", "PAXGUSDT"]) as exchange:
        venue = binance(exchange.url)
        assert (listing := venue.listing("ETHUSDT"))
        assert (listing.base, listing.quote, listing.trades) == ("ETH", "USDT", True)
        assert asked([venue], "PAXGUSDT", "XAU").line == ""
        assert asked([venue], "DOGEUSDT", "DOGE").doubt == "binance does not list it"


@pytest.mark.parametrize(
    ("body", "contradiction", "doubt"),
    [
        pytest.param(entry("BTC", "TUSD"), "", "", id="as it ends"),
        pytest.param(entry("BTCT", "USD"), "binance lists it as BTCT in USD, not BTC in dollars", "", id="base"),
        pytest.param(entry("BTC", "TUS"), "binance lists it as BTC in TUS, not BTC in dollars", "", id="no dollar"),
        pytest.param(entry("BTC", "TUSD", "BREAK"), "", "binance has halted or delisted it", id="halted"),
        pytest.param(entry("", "TUSD"), "", "", id="an entry without base"),
        pytest.param(entry(None, "TUSD"), "", "", id="an entry with null"),
        pytest.param(b'{"symbols": []}', "", "", id="a list that lacks it says nothing"),
        pytest.param(b"<html>", "", "", id="no list"),
    ],
)
def test_the_venues_own_base_and_quote_count(body: bytes, contradiction: str, doubt: str) -> None:
    with SimulatedExchange(symbols=["BTCUSDT"]) as exchange:
        exchange.fail_next(INFO, 1, status=200, body=body)
        pair = asked([binance(exchange.url)], "BTCTUSD", "BTC")
        assert (pair.contradiction, pair.doubt) == (contradiction, doubt)


def test_one_venue_that_lists_it_ends_the_doubt() -> None:
    with SimulatedExchange(symbols=["BTCUSDT"]) as without, SimulatedExchange(symbols=["BTCUSDT", "SOLUSDT"]) as having:
        first, second = binance(without.url), binance(having.url, "binanceus")
        assert asked([first, second], "SOLUSDT", "SOL").line == ""
        gone = binance(nobody(), "binanceus")
        doubt = asked([gone, first], "SOLUSDT", "SOL").doubt
        assert doubt == "binance does not list it, binanceus could not be asked"
        assert asked([gone], "SOLUSDT", "SOL").line == ""  # nobody said anything against it


def test_one_venue_that_contradicts_is_enough() -> None:
    with SimulatedExchange() as right, SimulatedExchange() as wrong:
        wrong.fail_next(INFO, 1, status=200, body=entry_of("ETHUSDT", "ETH", "BTC"))
        pair = asked([binance(right.url), binance(wrong.url, "binanceus")], "ETHUSDT", "ETH")
        assert pair.line == (
            "ETHUSDT cannot answer for ETH: binanceus lists it as ETH in BTC, not ETH in dollars; correct Token or "
            "Symbol in config.json and start again; birnn doctor --market --symbol ETHUSDT asks every venue"
        )


def test_nothing_is_waited_for_longer_than_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, SimulatedExchange(symbols=["BTCUSDT"]) as exchange:
        hanging = Binance(
            [f"http://127.0.0.1:{silent.getsockname()[1]}"], "", SystemClock(), timeout_s=60, patience_s=0
        )
        topics = [topic("ETH", "ETHUSDT"), topic("SOL", "SOLUSDT")]
        began_s = time.monotonic()
        assert [pair.line for pair in asked_pairs([hanging], topics, 0.2)] == ["", ""]
        assert time.monotonic() - began_s < 30
        found = asked_pairs([binance(exchange.url)], topics, 20)
        assert [(pair.symbol, pair.doubt) for pair in found] == [
            ("ETHUSDT", "binance does not list it"),
            ("SOLUSDT", "binance does not list it"),
        ]


def test_a_venue_that_was_away_is_asked_until_it_has_said_something() -> None:
    stop, port, eth = threading.Event(), free_port(), topic("ETH", "ETHUSDT")
    listings = Listings([binance(f"http://127.0.0.1:{port}")], [eth, topic("SOL", "SOLUSDT")], stop)
    with capture_logs() as lines:
        try:
            listings.start()
            listings.wait(20)
            assert listings.refusal(eth) == ""
            back = SimulatedExchange(port=port)
            back.fail_next(INFO, 1, status=200, body=entry_of("ETHUSDT", "ETH", "BTC"))
            with back as exchange:
                eventually(lambda: bool(listings.refusal(eth)), 30, "the word of the venue")
                assert "binance lists it as ETH in BTC" in listings.refusal(eth)
                assert listings.refusal(topic("SOL", "SOLUSDT")) == ""
                eventually(lambda: len(exchange.requests) == 2, 20, "the word on the other symbol")
            assert "binance lists it as ETH in BTC" in listings.refusal(eth)
        finally:
            stop.set()
    (line,) = [line for line in lines if line["event"] == "symbol_contradicted"]
    assert (line["log_level"], line["symbol"], line["token"]) == ("error", "ETHUSDT", "ETH")
