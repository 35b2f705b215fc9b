"""Coinbase Exchange's client against a server on loopback that answers as Coinbase does."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import HOUR_MS, MINUTE_MS, iso
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from market.coinbase import PAGE_ROWS, SILENT_PAGES, Coinbase, candles
from market.klines import Klines
from market.quality import Aside
from tests.fakes import START_MS, FakeClock, random_walk_klines
from tests.market.venue import Answer, Venue

ROWS = 1000
WALK = random_walk_klines(ROWS)
NOW_MS = WALK.end_ms + 20_000
CANDLES = "/products/ETH-USD/candles"


def rows_of(klines: Klines) -> list[list[float]]:
    """As Coinbase has them: seconds, low before high before open, newest first."""
    columns = (klines.open_time_ms // 1000, klines.low, klines.high, klines.open, klines.close, klines.volume)
    return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)][::-1]


class Exchange:
    """Serves a walk page by page, refusing longer ones."""

    def __init__(self, venue: Venue, klines: Klines = WALK) -> None:
        self.klines = klines
        self.venue = venue
        venue.handler = self.handle

    def handle(self, path: str, query: dict[str, str]) -> Answer | None:
        if path == CANDLES:
            start_ms, end_ms = (
                round(datetime.fromisoformat(query[name]).timestamp() * 1000) for name in ("start", "end")
            )
            step_ms = int(query["granularity"]) * 1000
            if (end_ms - start_ms) // step_ms + 1 > PAGE_ROWS:
                return Answer('{"message":"granularity too small for the requested time range."}', 400)
            # Some rows before the start come along, as its documentation says they may.
            return Answer(json.dumps(rows_of(self.klines.between(start_ms - 2 * step_ms, end_ms + 1))))
        if path == "/products/ETH-USD/ticker":
            return Answer(json.dumps({"price": "2000.5", "time": iso(NOW_MS - 1_500), "size": "1", "trade_id": 7}))
        if path == "/time":
            return Answer(json.dumps({"iso": iso(NOW_MS + 7_000), "epoch": (NOW_MS + 7_000) / 1000}))
        return Answer('{"message":"NotFound"}', 404)


@pytest.fixture
def venue() -> Iterator[Venue]:
    with Venue().running() as running:
        Exchange(running)
        yield running


def client(venue: Venue, now_ms: int = NOW_MS, aside: Aside | None = None) -> Coinbase:
    return Coinbase([venue.url], FakeClock(now_ms), aside or Aside(), patience_s=0)


def test_pages_are_joined_oldest_first(venue: Venue) -> None:
    klines = client(venue).klines("ETHUSDT", MINUTE_MS, START_MS, NOW_MS)
    np.testing.assert_array_equal(klines.open_time_ms, WALK.open_time_ms)
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(klines, name), getattr(WALK, name))
    assert np.isnan(klines.trades).all()
    assert len(venue.asked(CANDLES)) == -(-ROWS // PAGE_ROWS)


def test_the_unfinished_candle_is_dropped(venue: Venue) -> None:
    klines = client(venue, now_ms=WALK.end_ms - 1).klines("ETHUSDT", MINUTE_MS, START_MS, WALK.end_ms)
    assert klines.end_ms == WALK.end_ms - MINUTE_MS


def test_minutes_without_a_trade_and_whole_pages_without_one_are_gaps(venue: Venue) -> None:
    holed = WALK.between(0, START_MS + 100 * MINUTE_MS).merge(WALK.between(START_MS + 800 * MINUTE_MS, NOW_MS))
    Exchange(venue, holed)
    klines = client(venue).klines("ETHUSDT", MINUTE_MS, START_MS, NOW_MS)
    assert [*klines.gaps()] == [(START_MS + 100 * MINUTE_MS, START_MS + 800 * MINUTE_MS)]


def test_before_a_listing_it_is_not_asked_for_ever(venue: Venue) -> None:
    start_ms = START_MS - 365 * 24 * HOUR_MS
    klines = client(venue).klines("ETHUSDT", MINUTE_MS, start_ms, NOW_MS)
    assert len(klines) == ROWS
    assert len(venue.asked(CANDLES)) <= -(-ROWS // PAGE_ROWS) + SILENT_PAGES + 1


def test_a_price_has_the_time_of_its_trade(venue: Venue) -> None:
    market = client(venue)
    price = market.prices(["ETHUSDT"])["ETHUSDT"]
    assert (price.price, price.asof_ms) == (2000.5, NOW_MS - 1_500)
    assert market.clock_ahead_ms() == 7_000
    assert market.prices(["ETHUSDT"])["ETHUSDT"].asof_ms == NOW_MS - 8_500


@pytest.mark.parametrize(
    ("symbol", "name"),
    [("ETHUSDT", "ETH-USD"), ("ETHUSD", "ETH-USD"), ("BTCUSDC", "BTC-USD")],
)
def test_names(venue: Venue, symbol: str, name: str) -> None:
    assert client(venue).name_of(symbol) == name


@pytest.mark.parametrize("symbol", ["ETHBTC", "eth", ""])
def test_what_is_not_in_dollars_is_refused_before_it_is_asked_for(venue: Venue, symbol: str) -> None:
    with pytest.raises(ConfigError, match="coinbase"):
        client(venue).klines(symbol, MINUTE_MS, START_MS, NOW_MS)
    assert venue.requests == []


def test_an_unknown_product_is_an_error_of_the_configuration(venue: Venue) -> None:
    market = client(venue)
    with pytest.raises(ConfigError, match=r"unknown symbol 'NOPEUSDT'.*NotFound"):
        market.klines("NOPEUSDT", MINUTE_MS, START_MS, NOW_MS)
    with pytest.raises(ConfigError, match="unknown symbol"):
        market.prices(["NOPEUSDT"])
    with pytest.raises(ConfigError, match="coinbase has no klines of 180000 ms"):
        market.klines("ETHUSDT", 3 * MINUTE_MS, START_MS, NOW_MS)


ROW = rows_of(WALK)[0]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer("<html>busy</html>"), id="a page"),
        pytest.param(Answer('[[1, "2"'), id="cut JSON"),
        pytest.param(Answer('{"rows":[]}'), id="an object"),
        pytest.param(Answer("[5]"), id="a number for a row"),
        pytest.param(Answer(json.dumps([ROW[:5]])), id="five columns"),
        pytest.param(Answer(json.dumps([[ROW[0] * 1000, *ROW[1:]]])), id="milliseconds"),
        pytest.param(Answer(json.dumps([["soon", *ROW[1:]]])), id="a time in words"),
        pytest.param(Answer(json.dumps([[ROW[0], ROW[3], ROW[1], ROW[2], *ROW[4:]]])), id="columns of another order"),
        pytest.param(Answer(json.dumps([[*ROW[:4], None, ROW[5]]])), id="no close"),
        pytest.param(Answer(json.dumps([[*ROW[:4], -1, ROW[5]]])), id="a price below zero"),
    ],
)
def test_what_is_not_candles_is_refused(venue: Venue, answer: Answer) -> None:
    venue.handler = lambda path, query: answer
    with pytest.raises(MalformedKlines):
        client(venue).klines("ETHUSDT", MINUTE_MS, NOW_MS - 10 * MINUTE_MS, NOW_MS)


def test_one_bad_row_is_set_aside(venue: Venue) -> None:
    aside = Aside()
    rows = rows_of(WALK.tail(100))
    rows[7][4] = -1
    venue.handler = lambda path, query: Answer(json.dumps(rows))
    klines = client(venue, aside=aside).klines("ETHUSDT", MINUTE_MS, WALK.end_ms - 100 * MINUTE_MS, NOW_MS)
    assert len(klines) == 99
    assert sum(aside.counts.values()) == 1


def test_a_rate_limit_is_heeded(venue: Venue) -> None:
    venue.handler = lambda path, query: Answer('{"message":"Public rate limit exceeded"}', 429, {"Retry-After": "3"})
    with pytest.raises(MarketUnavailable, match="Public rate limit exceeded") as caught:
        client(venue).prices(["ETHUSDT"])
    assert caught.value.retry_after_s == 3.0


@pytest.mark.parametrize("body", ["[]", "{}", '{"price":"0","time":"2023-11-15T00:00:00Z"}', '{"price":"2000"}'])
def test_a_price_that_is_none_is_refused(venue: Venue, body: str) -> None:
    venue.handler = lambda path, query: Answer(body)
    with pytest.raises(MalformedKlines):
        client(venue).prices(["ETHUSDT"])


CELL = st.one_of(st.none(), st.floats(), st.integers(-(10**20), 10**20), st.text(max_size=5), st.booleans())
ROWS_OF_ANYTHING = st.lists(st.lists(CELL, min_size=5, max_size=7), max_size=4).map(
    lambda rows: json.dumps(rows).encode()
)


@given(body=st.one_of(st.binary(max_size=60), ROWS_OF_ANYTHING))
def test_any_answer_gives_candles_or_a_named_error(body: bytes) -> None:
    try:
        candles(body, interval_ms=MINUTE_MS, now_ms=NOW_MS)
    except WorkerError:
        return


def test_genuine_answers_are_read_as_coinbase_means_them(shared_data: Path) -> None:
    folder = shared_data / "raw" / "coinbase"
    exchange = candles(
        (folder / "exchange_candles_BTC-USDT_1h.json").read_bytes(), interval_ms=HOUR_MS, now_ms=10**13
    ).klines
    assert (exchange.open[0], exchange.high[0], exchange.low[0]) == (73243.33, 73402.47, 73241.5)
    assert (exchange.close[0], exchange.volume[0]) == (73370.65, 1.56794406)
    advanced = candles((folder / "advanced_trade_candles.json").read_bytes(), interval_ms=HOUR_MS, now_ms=10**13).klines
    assert advanced.open_time_ms.tolist() == [1712188800000, 1712192400000]
    assert advanced.open.tolist() == [65984.18, 66312.4]
