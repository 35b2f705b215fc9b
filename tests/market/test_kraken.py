"""Kraken's client against a server on loopback that answers as Kraken does."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import MINUTE_MS, SECOND_MS
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from market.klines import Klines
from market.kraken import ROWS, Kraken, candles, last
from market.quality import Aside
from tests.fakes import START_MS, FakeClock, random_walk_klines
from tests.market.venue import Answer, Venue

WALK = random_walk_klines(1000)
NOW_MS = WALK.end_ms - 20 * SECOND_MS  # the newest candle is unfinished
OHLC = "/0/public/OHLC"


def rows_of(klines: Klines) -> list[list[object]]:
    """As Kraken has them: seconds, prices and volumes in quotes, and a mean price."""
    return [
        [int(at) // 1000, *(repr(cell) for cell in prices), repr(quote / volume), repr(volume), int(trades)]
        for at, *prices, volume, quote, trades in zip(
            klines.open_time_ms.tolist(),
            *(
                getattr(klines, name).tolist()
                for name in ("open", "high", "low", "close", "volume", "quote_volume", "trades")
            ),
            strict=True,
        )
    ]


def said(result: object, *errors: str) -> Answer:
    return Answer(json.dumps({"error": list(errors), "result": result}))


def handle(path: str, query: dict[str, str]) -> Answer | None:
    if path == "/0/public/Time":
        return said({"unixtime": NOW_MS // 1000 + 30})
    if query.get("pair") != "XBTUSD":
        return said({}, "EQuery:Unknown asset pair")
    if path == OHLC:  # the newest 720 whatever is asked for
        return said({"XXBTZUSD": rows_of(WALK.tail(ROWS)), "last": int(WALK.open_time_ms[-2]) // 1000})
    return said({"XXBTZUSD": {"a": ["1", "1", "1"], "c": ["40000.1", "0.5"]}})


@pytest.fixture
def venue() -> Iterator[Venue]:
    with Venue().running() as running:
        running.handler = handle
        yield running


def client(venue: Venue, aside: Aside | None = None) -> Kraken:
    return Kraken([venue.url], FakeClock(NOW_MS), aside or Aside(), patience_s=0)


def test_closed_candles_of_the_range(venue: Venue) -> None:
    start_ms = NOW_MS // MINUTE_MS * MINUTE_MS - 50 * MINUTE_MS
    klines = client(venue).klines("BTCUSDT", MINUTE_MS, start_ms, NOW_MS)
    true = WALK.between(start_ms, NOW_MS // MINUTE_MS * MINUTE_MS)
    np.testing.assert_array_equal(klines.open_time_ms, true.open_time_ms)
    for name in ("open", "high", "low", "close", "volume", "trades"):
        np.testing.assert_array_equal(getattr(klines, name), getattr(true, name))
    np.testing.assert_allclose(klines.quote_volume, true.quote_volume)
    assert np.isnan(klines.taker_buy_base).all()
    ((query),) = venue.asked(OHLC)
    assert (query["pair"], query["interval"]) == ("XBTUSD", "1")


def test_what_it_no_longer_has_is_no_error(venue: Venue) -> None:
    assert len(client(venue).klines("BTCUSDT", MINUTE_MS, START_MS, START_MS + 60 * MINUTE_MS)) == 0
    assert len(client(venue).klines("BTCUSDT", MINUTE_MS, START_MS, NOW_MS)) == ROWS - 1


def test_candles_without_a_trade_are_flat_and_stay() -> None:
    flat = [1700006400, "5.0", "5.0", "5.0", "5.0", "0.0", "0.00000000", 0]
    found = candles(said({"XXBTZUSD": [flat], "last": 1}).content, interval_ms=MINUTE_MS, now_ms=NOW_MS).klines
    assert (found.volume[0], found.quote_volume[0], found.trades[0]) == (0.0, 0.0, 0.0)


def test_prices_and_the_clock(venue: Venue) -> None:
    market = client(venue)
    price = market.prices(["BTCUSDT"])["BTCUSDT"]
    assert (price.price, price.asof_ms) == (40000.1, NOW_MS)
    assert market.clock_ahead_ms() == pytest.approx(30_500, abs=1_000)


@pytest.mark.parametrize(("symbol", "name"), [("BTCUSDT", "XBTUSD"), ("DOGEUSD", "XDGUSD"), ("ETHUSDC", "ETHUSD")])
def test_names(venue: Venue, symbol: str, name: str) -> None:
    assert client(venue).name_of(symbol) == name


def test_an_unknown_pair_is_an_error_of_the_configuration(venue: Venue) -> None:
    market = client(venue)
    for ask in (
        lambda: market.klines("NOPEUSDT", MINUTE_MS, START_MS, NOW_MS),
        lambda: market.prices(["NOPEUSDT"]),
    ):
        with pytest.raises(ConfigError, match=r"unknown symbol 'NOPEUSDT'.*Unknown asset pair"):
            ask()
    with pytest.raises(ConfigError, match="kraken"):
        market.prices(["ETHBTC"])
    with pytest.raises(ConfigError, match="no klines of 180000 ms"):
        market.klines("BTCUSDT", 3 * MINUTE_MS, START_MS, NOW_MS)


@pytest.mark.parametrize(
    ("error", "rest_s"),
    [
        pytest.param("EAPI:Rate limit exceeded", 15.0, id="limit"),
        pytest.param("EGeneral:Too many requests", 15.0, id="too many"),
        pytest.param("EGeneral:Temporary lockout", 900.0, id="lockout"),
        pytest.param("EService:Unavailable", None, id="unavailable"),
        pytest.param("EService:Busy", None, id="busy"),
    ],
)
def test_a_busy_kraken_is_left_alone(venue: Venue, error: str, rest_s: float | None) -> None:
    venue.handler = lambda path, query: said({}, error)
    with pytest.raises(MarketUnavailable, match=error) as caught:
        client(venue).prices(["BTCUSDT"])
    assert caught.value.retry_after_s == rest_s


ROW = rows_of(WALK)[-10]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer("<html>busy</html>"), id="a page"),
        pytest.param(Answer('{"error":[],"result"'), id="cut JSON"),
        pytest.param(Answer("[]"), id="a list"),
        pytest.param(said({}, "EFunny:Something else"), id="another error"),
        pytest.param(said({}), id="no pair"),
        pytest.param(said({"XXBTZUSD": [ROW], "XETHZUSD": [ROW]}), id="two pairs"),
        pytest.param(said({"XXBTZUSD": [ROW[:6]]}), id="six columns"),
        pytest.param(said({"XXBTZUSD": [[int(str(ROW[0])) * 1000, *ROW[1:]]]}), id="milliseconds"),
        pytest.param(said({"XXBTZUSD": [[ROW[0], "nan", *ROW[2:]]]}), id="a price that is no number"),
        pytest.param(said({"XXBTZUSD": [[ROW[0], ROW[3], "1", *ROW[3:]]]}), id="high below low"),
    ],
)
def test_what_is_not_candles_is_refused(venue: Venue, answer: Answer) -> None:
    venue.handler = lambda path, query: answer
    with pytest.raises(MalformedKlines):
        client(venue).klines("BTCUSDT", MINUTE_MS, START_MS, NOW_MS)


@pytest.mark.parametrize("ticker", [{}, {"c": []}, {"c": ["0"]}, {"c": ["nan", "1"]}, [], None])
def test_a_price_that_is_none_is_refused(ticker: object) -> None:
    with pytest.raises(MalformedKlines):
        last(said({"XXBTZUSD": ticker}).content, symbol="BTCUSDT")


CELL = st.one_of(st.none(), st.floats(), st.integers(-(10**20), 10**20), st.text(max_size=5), st.booleans())
TABLES = st.lists(st.lists(CELL, min_size=7, max_size=9), max_size=4)


@given(body=st.one_of(st.binary(max_size=60), TABLES.map(lambda rows: said({"XXBTZUSD": rows}).content)))
def test_any_answer_gives_candles_or_a_named_error(body: bytes) -> None:
    try:
        candles(body, interval_ms=MINUTE_MS, now_ms=NOW_MS)
    except WorkerError:
        return


def test_genuine_answers_are_read_as_kraken_means_them(shared_data: Path) -> None:
    folder = shared_data / "raw" / "kraken"
    small = candles((folder / "ohlc_small.json").read_bytes(), interval_ms=MINUTE_MS, now_ms=10**13).klines
    assert small.open_time_ms.tolist() == [1616662740000]  # the second one opens below its low
    assert (small.close[0], small.volume[0], small.trades[0]) == (52599.1, 0.11091626, 5)
    whole = candles((folder / "ohlc_XBTUSDT_1m.json").read_bytes(), interval_ms=MINUTE_MS, now_ms=10**13).klines
    assert len(whole) >= 700
    assert (whole.volume == 0).any()
    assert [*whole.gaps()] == []
