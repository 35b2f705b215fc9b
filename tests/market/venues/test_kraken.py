"""What Kraken alone has: its newest 720 candles, names of pairs, errors with HTTP 200, times in whole seconds."""

from pathlib import Path

import pytest

from core.clock import MINUTE_MS, SECOND_MS
from core.errors import MalformedKlines, MarketUnavailable
from market.quarantine import Quarantine
from market.venues.kraken import ROWS, Kraken, candles, last_trades
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.venues.formats import kraken_rows, kraken_said

WALK = random_walk_klines(1000)
NOW_MS = WALK.end_ms - 20 * SECOND_MS  # the newest candle is unfinished
OHLC = "/0/public/OHLC"
NAMES = {"XBTUSD": ("XXBTZUSD", "40000.1"), "ETHUSD": ("XETHZUSD", "2000.5"), "SOLUSD": ("SOLUSD", "50.25")}


def handle(path: str, query: dict[str, str]) -> Answer | None:
    asked = str(query.get("pair")).split(",")
    if not set(asked) <= set(NAMES):
        return kraken_said({}, "EQuery:Unknown asset pair")
    if path == OHLC:  # the newest 720 whatever is asked for
        return kraken_said({"XXBTZUSD": kraken_rows(WALK.tail(ROWS)), "last": int(WALK.open_time_ms[-2]) // 1000})
    return kraken_said({NAMES[pair][0]: {"a": ["1", "1", "1"], "c": [NAMES[pair][1], "0.5"]} for pair in asked})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def client(venue: Venue, clock: FakeClock, quarantine: Quarantine) -> Kraken:
    venue.handler = handle
    return Kraken([venue.url], clock, quarantine)


def test_it_has_the_newest_720_candles_alone(venue: Venue, client: Kraken) -> None:
    start_ms = NOW_MS // MINUTE_MS * MINUTE_MS - 50 * MINUTE_MS
    assert len(client.klines("BTCUSDT", MINUTE_MS, start_ms, NOW_MS)) == 50
    assert len(client.klines("BTCUSDT", MINUTE_MS, 0, NOW_MS)) == ROWS - 1
    assert len(client.klines("BTCUSDT", MINUTE_MS, START_MS, START_MS + 60 * MINUTE_MS)) == 0
    first, second, _ = venue.asked(OHLC)
    # It tells what is after ``since``, so that is before the first candle.
    assert first == {"pair": "XBTUSD", "interval": "1", "since": str(start_ms // 1000 - 1)}
    assert second["since"] == "0"


def test_candles_without_a_trade_are_flat_and_stay() -> None:
    flat = [1700006400, "5.0", "5.0", "5.0", "5.0", "0.0", "0.00000000", 0]
    body = kraken_said({"XXBTZUSD": [flat], "last": 1}).content
    found = candles(body, interval_ms=MINUTE_MS, now_ms=NOW_MS).klines
    assert (found.volume[0], found.quote_volume[0], found.trades[0]) == (0.0, 0.0, 0.0)


def test_prices_of_several_symbols_take_one_request(venue: Venue, client: Kraken) -> None:
    found = client.prices(["SOLUSDT", "BTCUSDT", "ETHUSDC", "ETHUSDT"])
    assert [price.price for price in found.values()] == [50.25, 40000.1, 2000.5, 2000.5]
    assert len(venue.requests) == 1


@pytest.mark.parametrize(
    ("ours_ms", "ahead_ms"),
    [
        pytest.param(0, 0, id="at the beginning of its second"),
        pytest.param(999, 0, id="at the end of its second"),
        pytest.param(-30_000, 30_000, id="ours is behind"),
        pytest.param(30_999, -30_000, id="ours is ahead"),
    ],
)
def test_the_venues_second_differs_from_our_clock_only_outside_of_it(
    venue: Venue, client: Kraken, clock: FakeClock, ours_ms: int, ahead_ms: int
) -> None:
    venue.handler = lambda path, query: kraken_said({"unixtime": NOW_MS // 1000})
    clock.time_ms += ours_ms
    assert client.clock_ahead_ms() == ahead_ms


@pytest.mark.parametrize("at", [NOW_MS, -1, True, 1.5, str(NOW_MS // 1000), None])
def test_what_is_not_a_time_is_refused(venue: Venue, client: Kraken, at: object) -> None:
    venue.handler = lambda path, query: kraken_said({"unixtime": at})
    with pytest.raises(MalformedKlines, match="not a server time"):
        client.clock_ahead_ms()


@pytest.mark.parametrize(
    ("error", "rest_s"),
    [
        ("EAPI:Rate limit exceeded", 15.0),
        ("EGeneral:Too many requests", 15.0),
        ("EGeneral:Temporary lockout", 900.0),
        ("EService:Unavailable", None),
        ("EService:Busy", None),
    ],
)
def test_a_busy_kraken_is_left_alone_and_asked_again(
    venue: Venue, client: Kraken, clock: FakeClock, error: str, rest_s: float | None
) -> None:
    venue.handler = lambda path, query: kraken_said({}, error)
    with pytest.raises(MarketUnavailable, match=error) as caught:
        Kraken([venue.url], clock, Quarantine(), patience_s=0).prices(["BTCUSDT"])
    assert caught.value.retry_after_s == rest_s
    venue.handler = handle
    venue.scripted = [kraken_said({}, error)]
    if rest_s == 900.0:
        with pytest.raises(MarketUnavailable, match="lockout"):
            client.prices(["BTCUSDT"])
        assert clock.slept_s == []
    else:
        assert client.prices(["BTCUSDT"])["BTCUSDT"].price == 40000.1
        assert clock.slept_s == [rest_s or 0.5]


ROW = kraken_rows(WALK)[-10]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer("[]"), id="a list"),
        pytest.param(Answer('{"result":{"XXBTZUSD":[]}}'), id="no list of errors"),
        pytest.param(kraken_said([]), id="a list for a result"),
        pytest.param(kraken_said({}, "EFunny:Something else"), id="another error"),
        pytest.param(kraken_said({"XXBTZUSD": [ROW]}, "EFunny:Something else"), id="another error beside candles"),
        pytest.param(kraken_said({}, "EGeneral:Invalid arguments"), id="a request that is wrong"),
        pytest.param(kraken_said({}), id="no pair"),
        pytest.param(kraken_said({"XXBTZUSD": [ROW], "XETHZUSD": [ROW]}), id="two pairs"),
        pytest.param(kraken_said({"XXBTZUSD": [ROW[:6]]}), id="six columns"),
        pytest.param(kraken_said({"XXBTZUSD": [[*ROW[:5], "1e300", "1e300", 1]]}), id="more turnover than a number"),
        pytest.param(kraken_said({"XXBTZUSD": [[*ROW[:7], -1]]}), id="a count below zero"),
    ],
)
def test_what_is_not_candles_is_refused(answer: Answer) -> None:
    with pytest.raises(MalformedKlines):
        candles(answer.content, interval_ms=MINUTE_MS, now_ms=NOW_MS)


@pytest.mark.parametrize("ticker", [{}, {"c": []}, {"c": "2000"}, [], None])
@pytest.mark.parametrize("pair", ["XXBTZUSD", "XETHZUSD"])
def test_what_is_not_a_ticker_of_the_pair_is_refused(pair: str, ticker: object) -> None:
    tickers = {"XETHZUSD": {"c": ["2000", "1"]}} | {pair: ticker}
    with pytest.raises(MalformedKlines, match="no price of XBTUSD"):
        last_trades(kraken_said(tickers).content, pairs=["XBTUSD"], now_ms=NOW_MS)


def test_genuine_answers_are_read_as_kraken_means_them(payloads: Path) -> None:
    body = (payloads / "kraken" / "ohlc_small.json").read_bytes()
    small = candles(body, interval_ms=MINUTE_MS, now_ms=10**13).klines
    assert small.open_time_ms.tolist() == [1616662740000]  # the second one opens below its low
    assert (small.close[0], small.volume[0], small.trades[0]) == (52599.1, 0.11091626, 5)
    body = (payloads / "kraken" / "ohlc_XBTUSDT_1m.json").read_bytes()
    many = candles(body, interval_ms=MINUTE_MS, now_ms=10**13).klines
    assert len(many) == 60
    assert (many.volume == 0).any()
    assert [*many.gaps()] == []
