"""What the venues' own lists say of a symbol, asked at a start."""

import json
import socket
import time

import pytest

from core.clock import SystemClock
from core.topic import Target, Topic
from market.binance import Binance
from market.listings import doubt, doubts
from market.simulated import SimulatedExchange
from tests.fakes import free_port


def binance(url: str, name: str = "binance") -> Binance:
    return Binance([url], "", SystemClock(), timeout_s=2, patience_s=0, name=name)


def nobody() -> str:
    return f"http://127.0.0.1:{free_port()}"


def topic(token: str, symbol: str) -> Topic:
    return Topic(topic_id=1, token=token, symbol=symbol, target=Target.PRICE, horizon_min=10)


def test_the_simulated_exchange_lists_what_it_trades() -> None:
    with SimulatedExchange(symbols=["BTCUSDT", "ETHUSDT", "PAXGUSDT"]) as exchange:
        venue = binance(exchange.url)
        assert (listing := venue.listing("ETHUSDT"))
        assert (listing.base, listing.quote, listing.trades) == ("ETH", "USDT", True)
        assert doubt([venue], "PAXGUSDT", "XAU") == ""
        assert doubt([venue], "DOGEUSDT", "DOGE") == "binance does not list it"


def entry(base: str, quote: str, status: str = "TRADING") -> bytes:
    listed = {"symbol": "BTCTUSD", "status": status, "baseAsset": base, "quoteAsset": quote}
    return json.dumps({"symbols": [listed]}).encode()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(entry("BTC", "TUSD"), "", id="as it ends"),
        pytest.param(entry("BTCT", "USD"), "binance lists it as BTCT in USD, and Token is BTC", id="another base"),
        pytest.param(entry("BTC", "TUS"), "binance lists it as BTC in TUS, and Token is BTC", id="no dollar"),
        pytest.param(entry("BTC", "TUSD", "BREAK"), "binance has halted or delisted it", id="halted"),
        pytest.param(b'{"symbols": []}', "", id="a list that lacks it says nothing"),
        pytest.param(b"<html>", "", id="no list"),
    ],
)
def test_the_venues_own_base_and_quote_count(body: bytes, says: str) -> None:
    with SimulatedExchange(symbols=["BTCUSDT"]) as exchange:
        exchange.fail_next("/api/v3/exchangeInfo", 1, status=200, body=body)
        assert doubt([binance(exchange.url)], "BTCTUSD", "BTC") == says


def test_the_first_venue_that_lists_it_decides() -> None:
    with SimulatedExchange(symbols=["BTCUSDT"]) as without, SimulatedExchange(symbols=["BTCUSDT", "SOLUSDT"]) as having:
        first, second = binance(without.url), binance(having.url, "binanceus")
        assert doubt([first, second], "SOLUSDT", "SOL") == ""
        gone = binance(nobody(), "binanceus")
        assert doubt([gone, first], "SOLUSDT", "SOL") == "binance does not list it, binanceus could not be asked"
        assert doubt([gone], "SOLUSDT", "SOL") == ""  # nobody said anything against it


def test_nothing_is_waited_for_longer_than_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, SimulatedExchange(symbols=["BTCUSDT"]) as exchange:
        hanging = Binance(
            [f"http://127.0.0.1:{silent.getsockname()[1]}"], "", SystemClock(), timeout_s=60, patience_s=0
        )
        topics = [topic("ETH", "ETHUSDT"), topic("SOL", "SOLUSDT")]
        began_s = time.monotonic()
        assert doubts([hanging], topics, 0.2) == {}
        assert time.monotonic() - began_s < 30
        assert doubts([binance(exchange.url)], topics, 20) == dict.fromkeys(
            ("ETHUSDT", "SOLUSDT"), "binance does not list it"
        )
