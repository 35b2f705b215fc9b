"""What Binance alone has: pages of 1000 rows, close times, bans in words, several tickers in one request."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from core.net.http import USER_AGENT
from klines.klines import Klines
from market.quarantine import Quarantine
from market.venues.binance.rest import Binance
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import assert_same, random_walk_klines
from tests.fakes.venue_server import Answer, Venue, rest_rows

NOW_MS = START_MS + 40 * DAY_MS
WALK = random_walk_klines(3 * 1440)
FIVE = WALK.rows(0, 5)
PAGE: list[list[Any]] = rest_rows(FIVE)
BANNED = '{"code":-1003,"msg":"Way too much request weight used; IP banned until %d. Please use the websocket."}'


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW_MS)


@pytest.fixture
def venue(venue: Venue) -> Venue:
    venue.add("ETHUSDT", WALK)
    venue.prices = {"ETHUSDT": "2000.5", "BTCUSDT": "40000.25"}
    return venue


@pytest.fixture
def binance(venue: Venue, clock: FakeClock, quarantine: Quarantine) -> Binance:
    return Binance([venue.url], venue.url, clock, quarantine=quarantine)


def five(market: Binance) -> Klines:
    return market.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 5 * MINUTE_MS)


# -- klines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_rows", [pytest.param(1000, id="whole pages"), pytest.param(300, id="short pages")])
def test_pages_are_joined(venue: Venue, binance: Binance, page_rows: int) -> None:
    venue.page_rows = page_rows
    klines = binance.klines("ETHUSDT", MINUTE_MS, START_MS + 1, START_MS + 2500 * MINUTE_MS)
    assert_same(klines, WALK.between(START_MS + 1, START_MS + 2500 * MINUTE_MS))
    asked = venue.asked("/api/v3/klines")
    assert len(asked) == -(-2499 // page_rows)
    assert asked[0] == {
        "symbol": "ETHUSDT",
        "interval": "1m",
        "startTime": str(START_MS + MINUTE_MS),
        "endTime": str(START_MS + 2500 * MINUTE_MS - 1),
        "limit": "1000",
    }
    assert {head["User-Agent"] for head in venue.heads} == {USER_AGENT}


def test_a_row_that_says_it_closes_later_is_unfinished(venue: Venue, binance: Binance) -> None:
    venue.scripted = [Answer(changed(3, 6, NOW_MS)), Answer("[]")]
    assert len(five(binance)) == 3


def test_an_absurd_close_time_in_the_middle_drops_nothing(venue: Venue, binance: Binance) -> None:
    rows = rest_rows(WALK.tail(20))
    rows[5][6] = 10**13
    venue.handler = lambda path, query: Answer(json.dumps(rows))
    assert len(binance.klines("ETHUSDT", MINUTE_MS, int(WALK.tail(20).open_time_ms[0]), WALK.end_ms)) == 20


def test_rows_after_the_range_and_columns_that_are_not_read_do_no_harm(venue: Venue, binance: Binance) -> None:
    longer = rest_rows(WALK.rows(0, 8))
    for rows in (longer, [[*row, "x", None] for row in PAGE], [row[:11] for row in PAGE]):
        venue.scripted = [Answer(json.dumps(rows))]
        assert_same(five(binance), FIVE)


def test_a_host_that_ignores_the_start_ends_in_an_error_and_not_in_a_loop(venue: Venue, binance: Binance) -> None:
    venue.handler = lambda path, query: Answer(json.dumps(PAGE))
    with pytest.raises(MalformedKlines, match="got only older ones"):
        binance.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 10 * MINUTE_MS)
    assert len(venue.requests) == 2


def changed(row: int, column: int, value: object) -> str:
    rows = [list(kline) for kline in PAGE]
    rows[row][column] = value
    return json.dumps(rows)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(json.dumps([row[:6] for row in PAGE]), "11 columns", id="six columns"),
        pytest.param(json.dumps(PAGE[::-1]), "must rise", id="newest first"),
        pytest.param(json.dumps([[60_000, *PAGE[0][1:]]]), "got only older ones", id="another time"),
        *(
            pytest.param(json.dumps(rest_rows(WALK.resample(5 * MINUTE_MS).rows(0, rows))), "60 s long", id=f"{rows}x5")
            for rows in (1, 3, 15)
        ),
    ],
)
def test_what_is_not_such_klines_is_refused(venue: Venue, binance: Binance, body: str, says: str) -> None:
    venue.scripted = [Answer(body)]
    with pytest.raises(MalformedKlines, match=says):
        five(binance)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(changed(1, 0, START_MS + 61_000), "grid", id="off the grid"),
        pytest.param(changed(1, 0, START_MS * 1000), "before 2009", id="a time in microseconds"),
        pytest.param(changed(1, 6, None), "before 2009", id="no close time"),
        pytest.param(json.dumps([PAGE[0], {"open": 1}, *PAGE[2:]]), "before 2009", id="no list"),
        pytest.param(json.dumps([PAGE[0], PAGE[1][:6], *PAGE[2:]]), "before 2009", id="six columns"),
        pytest.param(json.dumps([PAGE[0], None, PAGE[3], PAGE[2], PAGE[4]]), "before 2009", id="in disorder"),
    ],
)
def test_one_row_that_is_not_a_kline_is_set_aside(
    venue: Venue, binance: Binance, quarantine: Quarantine, body: str, says: str
) -> None:
    venue.scripted = [Answer(body)]
    klines = five(binance)
    assert len(klines) == 4
    assert START_MS + MINUTE_MS not in klines.open_time_ms
    (((name, symbol, reason), count),) = quarantine.counts.items()
    assert (name, symbol, count) == ("binance", "ETHUSDT", 1)
    assert says in reason


@pytest.mark.parametrize("body", [changed(1, 8, [1]), changed(1, 8, None), json.dumps([PAGE[0], *PAGE])])
def test_a_count_that_is_not_a_number_and_a_row_that_is_there_twice_cost_nothing(
    venue: Venue, binance: Binance, body: str
) -> None:
    venue.scripted = [Answer(body), Answer("[]")]
    assert len(five(binance)) == 5


LAST: dict[str, Callable[[list[Any]], object]] = {
    "nothing": lambda row: None,
    "no list": lambda row: {"open": row[1]},
    "no cells": lambda row: [],
    "a time in words": lambda row: ["soon", *row[1:]],
    "a time in microseconds": lambda row: [row[0] * 1000, *row[1:]],
    "a close time in words": lambda row: [*row[:6], "soon", *row[7:]],
    "no price": lambda row: [*row[:4], None, *row[5:]],
}


def read(venue: Venue, binance: Binance, change: Callable[[int, list[Any]], object]) -> list[int]:
    """Open times of what is read from a venue that selects rows by their right times and writes them changed."""
    rows: list[list[Any]] = rest_rows(WALK)
    odd = [change(number, row) for number, row in enumerate(rows)]

    def handle(path: str, query: dict[str, str]) -> Answer | None:
        first, last = int(query["startTime"]), int(query["endTime"])
        return Answer(json.dumps([new for row, new in zip(rows, odd, strict=True) if first <= row[0] <= last]))

    venue.handler = handle
    return [*binance.klines("ETHUSDT", MINUTE_MS, START_MS, WALK.end_ms).open_time_ms]


@pytest.mark.parametrize("last", [1, 2])
@pytest.mark.parametrize("odd", LAST.values(), ids=LAST.keys())
def test_newest_rows_that_cannot_be_read_cost_themselves(
    venue: Venue, binance: Binance, odd: Callable[[list[Any]], object], last: int
) -> None:
    """They are alone on the last page, and the pages before it stay."""
    found = read(venue, binance, lambda number, row: odd(row) if number >= len(WALK) - last else row)
    assert found == WALK.open_time_ms[:-last].tolist()


@pytest.mark.parametrize("off_ms", [-14_789, -1, -59_999])
def test_minutes_that_begin_before_the_grid_are_read(venue: Venue, binance: Binance, off_ms: int) -> None:
    """The last page holds the last of them again, whose time is before what was asked for."""
    found = read(venue, binance, lambda _, row: [row[0] + off_ms, *row[1:6], row[6] + off_ms, *row[7:]])
    np.testing.assert_array_equal(found, WALK.open_time_ms[:-1])


# -- bans, prices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}], ids=["in words alone", "with both"])
def test_a_ban_lasts_until_the_end_that_its_text_names(
    venue: Venue, binance: Binance, clock: FakeClock, headers: dict[str, str]
) -> None:
    venue.scripted = [Answer(BANNED % (NOW_MS + 30_000), 418, headers)]
    assert len(five(binance)) == 5
    assert clock.slept_s == [30.0]
    venue.scripted = [Answer(BANNED % (clock.now_ms() + 7_200_000), 418)]
    with pytest.raises(MarketUnavailable) as caught:
        five(binance)
    assert caught.value.retry_after_s == 7_200.0


def test_prices_of_several_symbols_take_one_request(venue: Venue, binance: Binance, clock: FakeClock) -> None:
    prices = binance.prices(["ETHUSDT", "BTCUSDT", "ETHUSDT"])
    assert {symbol: price.price for symbol, price in prices.items()} == {"ETHUSDT": 2000.5, "BTCUSDT": 40000.25}
    assert {price.asof_ms for price in prices.values()} == {clock.now_ms()}
    assert binance.prices(["ETHUSDT"])["ETHUSDT"].price == 2000.5
    assert venue.asked("/api/v3/ticker") == [{"symbols": '["ETHUSDT","BTCUSDT"]'}, {"symbol": "ETHUSDT"}]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer("{}", 400), id="400"),
        pytest.param(Answer('{"detail":[]}', 422), id="422"),
        pytest.param(Answer('{"symbol":"ETHUSDT","price":"1"}'), id="one price"),
        pytest.param(Answer('[{"symbol":"ETHUSDT","price":"1"}]'), id="a list that lacks one"),
        pytest.param(Answer('[1, null, {"symbol": []}]'), id="a list of other things"),
    ],
)
def test_a_server_without_the_form_for_several_is_asked_one_by_one(
    venue: Venue, binance: Binance, clock: FakeClock, answer: Answer
) -> None:
    venue.handler = lambda path, query: answer if "symbols" in query else None
    for _ in range(2):
        prices = binance.prices(["ETHUSDT", "BTCUSDT"])
        assert {symbol: price.price for symbol, price in prices.items()} == {"ETHUSDT": 2000.5, "BTCUSDT": 40000.25}
        clock.set_wall(-HOUR_MS)  # the pause is not of the wall clock
    assert len(venue.requests) == 5
    clock.time_ms += 600 * SECOND_MS
    binance.prices(["ETHUSDT", "BTCUSDT"])
    assert sum("symbols" in query for query in venue.asked("/api/v3/ticker")) == 2


def test_a_price_of_another_symbol_is_refused_and_an_unknown_one_named(venue: Venue, binance: Binance) -> None:
    venue.scripted = [Answer('{"symbol":"BTCUSDT","price":"1"}')]
    with pytest.raises(MalformedKlines, match="no price of ETHUSDT"):
        binance.prices(["ETHUSDT"])
    with pytest.raises(ConfigError, match="'NOUSDT'"):
        binance.prices(["ETHUSDT", "NOUSDT"])


# -- genuine answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "interval_ms"),
    [
        pytest.param("spot_klines.json", MINUTE_MS, id="1m"),
        pytest.param("klines_SOLUSDT_1h_2024-02-01.json", HOUR_MS, id="1h"),
        pytest.param("klines_ETHUSDT_1d_2022-01-01.json", DAY_MS, id="1d"),
        pytest.param("klines_SOLUSDT_4h_2017-07-01.json", 4 * HOUR_MS, id="before the listing"),
    ],
)
def test_genuine_klines_are_read(payloads: Path, venue: Venue, name: str, interval_ms: int) -> None:
    body = (payloads / "binance" / name).read_bytes()
    expected = json.loads(body)
    venue.scripted = [Answer(body), Answer("[]")]
    market = Binance([venue.url], venue.url, FakeClock(1_800_000_000_000))
    start_ms = expected[0][0] if expected else 0
    klines = market.klines("SOLUSDT", interval_ms, start_ms, start_ms + 5000 * interval_ms)
    assert klines.close.tolist() == [float(row[4]) for row in expected]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("http400_invalid_symbol.json", ConfigError),
        ("http400_invalid_interval.json", MarketUnavailable),
        ("http403_waf.html", MarketUnavailable),
        ("http418_ip_banned.json", MarketUnavailable),
        ("http429_too_much_weight.json", MarketUnavailable),
        ("http451_restricted_location.json", MarketUnavailable),
    ],
)
def test_genuine_errors_are_told_in_one_line(
    payloads: Path, venue: Venue, clock: FakeClock, name: str, error: type[WorkerError]
) -> None:
    body, status = (payloads / "binance" / name).read_bytes(), name[4:7]
    venue.handler = lambda path, query: Answer(body, int(status))
    with pytest.raises(error, match=status) as caught:
        five(Binance([venue.url], venue.url, clock, patience_s=0))
    assert "\n" not in str(caught.value)
    assert "<" not in str(caught.value)
