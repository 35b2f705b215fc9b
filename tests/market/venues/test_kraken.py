"""Kraken's client against a server on loopback that answers as Kraken does."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import MINUTE_MS, SECOND_MS
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from klines.klines import Klines
from market.quarantine import Quarantine
from market.venues.kraken import ROWS, Kraken, candles, last_trades
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.net import free_port
from tests.fakes.venue_server import Answer, Venue

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


NAMES = {"XBTUSD": ("XXBTZUSD", "40000.1"), "ETHUSD": ("XETHZUSD", "2000.5"), "SOLUSD": ("SOLUSD", "50.25")}


def handle(path: str, query: dict[str, str]) -> Answer | None:
    if path == "/0/public/Time":
        return said({"unixtime": NOW_MS // 1000 + 30})
    asked = str(query.get("pair")).split(",")
    if not set(asked) <= set(NAMES):
        return said({}, "EQuery:Unknown asset pair")
    if path == OHLC:  # the newest 720 whatever is asked for
        return said({"XXBTZUSD": rows_of(WALK.tail(ROWS)), "last": int(WALK.open_time_ms[-2]) // 1000})
    return said({NAMES[pair][0]: {"a": ["1", "1", "1"], "c": [NAMES[pair][1], "0.5"]} for pair in asked})


@pytest.fixture
def venue(venue: Venue) -> Venue:
    venue.handler = handle
    return venue


def client(venue: Venue, aside: Quarantine | None = None) -> Kraken:
    return Kraken([venue.url], FakeClock(NOW_MS), aside or Quarantine(), patience_s=0)


def patient(venue: Venue) -> tuple[Kraken, FakeClock]:
    clock = FakeClock(NOW_MS)
    return Kraken([venue.url], clock, Quarantine()), clock


def test_closed_candles_of_the_range(venue: Venue) -> None:
    start_ms = NOW_MS // MINUTE_MS * MINUTE_MS - 50 * MINUTE_MS
    klines = client(venue).klines("BTCUSDT", MINUTE_MS, start_ms, NOW_MS)
    true = WALK.between(start_ms, NOW_MS // MINUTE_MS * MINUTE_MS)
    np.testing.assert_array_equal(klines.open_time_ms, true.open_time_ms)
    for name in ("open", "high", "low", "close", "volume", "trades"):
        np.testing.assert_array_equal(getattr(klines, name), getattr(true, name))
    np.testing.assert_allclose(klines.quote_volume, true.quote_volume)
    assert np.isnan(klines.taker_buy_base).all()
    (query,) = venue.asked(OHLC)
    # It tells what is after ``since``, so that is before the first candle.
    assert query == {"pair": "XBTUSD", "interval": "1", "since": str(start_ms // 1000 - 1)}


def test_from_the_beginning_of_time_is_asked_for_as_zero(venue: Venue) -> None:
    assert len(client(venue).klines("BTCUSDT", MINUTE_MS, 0, NOW_MS)) == ROWS - 1
    (query,) = venue.asked(OHLC)
    assert query["since"] == "0"


def test_what_has_not_begun_is_not_asked_for(venue: Venue) -> None:
    assert len(client(venue).klines("BTCUSDT", MINUTE_MS, NOW_MS, NOW_MS + 60 * MINUTE_MS)) == 0
    assert venue.requests == []


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
    asked = len(venue.requests)
    several = market.prices(["SOLUSDT", "BTCUSDT", "ETHUSDC", "ETHUSDT"])
    assert {symbol: price.price for symbol, price in several.items()} == {
        "SOLUSDT": 50.25,
        "BTCUSDT": 40000.1,
        "ETHUSDC": 2000.5,
        "ETHUSDT": 2000.5,
    }
    assert len(venue.requests) == asked + 1
    assert market.prices([]) == {}
    assert market.clock_ahead_ms() == 30_000


@pytest.mark.parametrize(
    ("ours_ms", "ahead_ms"),
    [
        pytest.param(0, 0, id="at the beginning of its second"),
        pytest.param(999, 0, id="at the end of its second"),
        pytest.param(-30_000, 30_000, id="ours is behind"),
        pytest.param(30_999, -30_000, id="ours is ahead"),
    ],
)
def test_the_venues_second_is_told_from_ours_where_they_differ(venue: Venue, ours_ms: int, ahead_ms: int) -> None:
    venue.handler = lambda path, query: said({"unixtime": NOW_MS // 1000})
    assert Kraken([venue.url], FakeClock(NOW_MS + ours_ms), Quarantine()).clock_ahead_ms() == ahead_ms


@pytest.mark.parametrize("at", [NOW_MS, -1, True, 1.5, str(NOW_MS // 1000), None])
def test_a_time_that_is_none_is_refused(venue: Venue, at: object) -> None:
    venue.handler = lambda path, query: said({"unixtime": at})
    with pytest.raises(MalformedKlines, match="no server time"):
        client(venue).clock_ahead_ms()


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
    waiting, clock = patient(venue)
    asked = len(venue.requests)
    with pytest.raises(ConfigError):
        waiting.prices(["NOPEUSDT"])
    assert (len(venue.requests) - asked, clock.slept_s) == (1, [])  # asking again would not help
    half = Kraken([venue.url, f"http://127.0.0.1:{free_port()}"], FakeClock(NOW_MS), Quarantine(), patience_s=0)
    with pytest.raises(ConfigError):  # whatever ails the other host
        half.prices(["NOPEUSDT"])


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


@pytest.mark.parametrize(
    ("error", "waits_s"),
    [
        pytest.param("EAPI:Rate limit exceeded", [15.0], id="limit"),
        pytest.param("EService:Unavailable", [0.5], id="unavailable"),
        pytest.param("EService:Busy", [0.5], id="busy"),
    ],
)
def test_a_busy_kraken_is_asked_again(venue: Venue, error: str, waits_s: list[float]) -> None:
    market, clock = patient(venue)
    venue.scripted = [said({}, error)]
    assert market.prices(["BTCUSDT"])["BTCUSDT"].price == 40000.1
    assert clock.slept_s == waits_s


def test_a_kraken_that_stays_busy_is_given_up_and_a_lockout_at_once(venue: Venue) -> None:
    market, clock = patient(venue)
    venue.handler = lambda path, query: said({}, "EService:Unavailable")
    with pytest.raises(MarketUnavailable, match="Unavailable"):
        market.prices(["BTCUSDT"])
    assert 40 < sum(clock.slept_s) <= 60
    venue.handler = lambda path, query: said({}, "EGeneral:Temporary lockout")
    slept = len(clock.slept_s)
    with pytest.raises(MarketUnavailable, match="lockout"):
        market.klines("BTCUSDT", MINUTE_MS, START_MS, NOW_MS)
    assert len(clock.slept_s) == slept


ROW = rows_of(WALK)[-10]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer("<html>busy</html>"), id="a page"),
        pytest.param(Answer('{"error":[],"result"'), id="cut JSON"),
        pytest.param(Answer("[]"), id="a list"),
        pytest.param(Answer(""), id="nothing"),
        pytest.param(Answer('{"result":{"XXBTZUSD":[]}}'), id="no list of errors"),
        pytest.param(said([]), id="a list for a result"),
        pytest.param(said({}, "EFunny:Something else"), id="another error"),
        pytest.param(said({"XXBTZUSD": [ROW]}, "EFunny:Something else"), id="another error beside candles"),
        pytest.param(said({}, "EGeneral:Invalid arguments"), id="a request that is wrong"),
        pytest.param(said({}), id="no pair"),
        pytest.param(said({"XXBTZUSD": [ROW], "XETHZUSD": [ROW]}), id="two pairs"),
        pytest.param(said({"XXBTZUSD": [ROW[:6]]}), id="six columns"),
        pytest.param(said({"XXBTZUSD": [[int(str(ROW[0])) * 1000, *ROW[1:]]]}), id="milliseconds"),
        pytest.param(said({"XXBTZUSD": [["9" * 400, *ROW[1:]]]}), id="a time without end"),
        pytest.param(said({"XXBTZUSD": [[int(str(ROW[0])) + 86_400, *ROW[1:]]]}), id="tomorrow"),
        pytest.param(said({"XXBTZUSD": [[int(str(ROW[0])) // 60, *ROW[1:]]]}), id="a time in minutes"),
        pytest.param(said({"XXBTZUSD": [[*ROW[:5], "1e300", "1e300", 1]]}), id="more turnover than a number holds"),
        pytest.param(said({"XXBTZUSD": [[*ROW[:6], "Infinity", 1]]}), id="a volume without end"),
        pytest.param(said({"XXBTZUSD": [[*ROW[:7], -1]]}), id="a count below zero"),
        pytest.param(said({"XXBTZUSD": [[*ROW[:4], "0", *ROW[5:]]]}), id="a price of zero"),
        pytest.param(said({"XXBTZUSD": [[*ROW[:4], "-5", *ROW[5:]]]}), id="a price below zero"),
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
        last_trades(said({"XXBTZUSD": ticker}).content, pairs=["XBTUSD"])


def test_a_price_of_another_pair_is_refused() -> None:
    with pytest.raises(MalformedKlines, match="no price of XBTUSD"):
        last_trades(said({"XETHZUSD": {"c": ["2000", "1"]}}).content, pairs=["XBTUSD"])


def test_one_bad_row_is_set_aside(venue: Venue) -> None:
    aside = Quarantine()
    rows = rows_of(WALK.tail(100))
    rows[7][4] = "-1"
    venue.handler = lambda path, query: said({"XXBTZUSD": rows, "last": 1})
    klines = client(venue, aside).klines("BTCUSDT", MINUTE_MS, START_MS, NOW_MS)
    assert len(klines) == 98  # the newest has not closed
    assert WALK.tail(100).open_time_ms[7] not in klines.open_time_ms
    assert aside.counts == {("kraken", "BTCUSDT", "a price is not finite and above 0"): 1}


def test_a_pair_without_candles_is_no_error(venue: Venue) -> None:
    venue.handler = lambda path, query: said({"XXBTZUSD": [], "last": 0})
    assert len(client(venue).klines("BTCUSDT", MINUTE_MS, START_MS, NOW_MS)) == 0


def test_the_unfinished_candle_is_dropped_also_by_a_clock_that_is_behind() -> None:
    body = said({"XXBTZUSD": rows_of(WALK)}).content
    for now_ms in (WALK.end_ms - 1, WALK.end_ms - MINUTE_MS, WALK.end_ms - MINUTE_MS - 1):
        found = candles(body, interval_ms=MINUTE_MS, now_ms=now_ms)
        assert (found.klines.end_ms, found.refused) == (now_ms // MINUTE_MS * MINUTE_MS, ())


CELL = st.one_of(st.none(), st.floats(), st.integers(-(10**20), 10**20), st.text(max_size=5), st.booleans())
SPOILED_CELLS = st.lists(st.tuples(st.integers(0, 39), st.integers(0, 7), CELL), max_size=3)


def spoiled(cells: Sequence[tuple[int, int, object]]) -> bytes:
    """Forty good candles with some cells changed."""
    rows = rows_of(WALK.tail(40))
    for row, column, cell in cells:
        rows[row][column] = cell
    return said({"XXBTZUSD": rows, "last": 1}).content


@given(body=st.one_of(st.binary(max_size=60), SPOILED_CELLS.map(spoiled)))
def test_any_answer_gives_klines_that_keep_the_rules_or_a_named_error(body: bytes) -> None:
    with contextlib.suppress(WorkerError):
        found = candles(body, interval_ms=MINUTE_MS, now_ms=NOW_MS).klines  # they check most of their rules
        assert len(found.closed(NOW_MS)) == len(found)
        for flow in (found.quote_volume, found.trades):
            assert not ((flow < 0) | np.isinf(flow)).any()
    with contextlib.suppress(WorkerError):
        assert last_trades(body, pairs=["XBTUSD"])["XBTUSD"] > 0


def test_genuine_answers_are_read_as_kraken_means_them(shared_data: Path) -> None:
    folder = shared_data / "raw" / "kraken"
    small = candles((folder / "ohlc_small.json").read_bytes(), interval_ms=MINUTE_MS, now_ms=10**13).klines
    assert small.open_time_ms.tolist() == [1616662740000]  # the second one opens below its low
    assert (small.close[0], small.volume[0], small.trades[0]) == (52599.1, 0.11091626, 5)
    whole = candles((folder / "ohlc_XBTUSDT_1m.json").read_bytes(), interval_ms=MINUTE_MS, now_ms=10**13).klines
    assert len(whole) >= 700
    assert (whole.volume == 0).any()
    assert [*whole.gaps()] == []
