"""Coinbase Exchange's client against a server on loopback that answers as Coinbase does."""

import contextlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, CorrectedClock, iso
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from klines.klines import Klines
from market.quarantine import Quarantine
from market.venues.coinbase import PAGE_ROWS, SILENT_PAGES, Coinbase, candles, ticker
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue

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
def venue(venue: Venue) -> Venue:
    Exchange(venue)
    return venue


def client(venue: Venue, now_ms: int = NOW_MS, aside: Quarantine | None = None) -> Coinbase:
    return Coinbase([venue.url], FakeClock(now_ms), aside or Quarantine(), patience_s=0)


def last_rows(venue: Venue, rows: int, aside: Quarantine | None = None) -> Klines:
    """The newest closed candles, as the client has them."""
    return client(venue, aside=aside).klines("ETHUSDT", MINUTE_MS, WALK.end_ms - rows * MINUTE_MS, NOW_MS)


def test_pages_are_joined_oldest_first(venue: Venue) -> None:
    klines = client(venue).klines("ETHUSDT", MINUTE_MS, START_MS, NOW_MS)
    np.testing.assert_array_equal(klines.open_time_ms, WALK.open_time_ms)
    for name in ("open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(klines, name), getattr(WALK, name))
    assert np.isnan(klines.trades).all()
    assert len(venue.asked(CANDLES)) == -(-ROWS // PAGE_ROWS)
    assert venue.asked(CANDLES)[0] == {
        "granularity": "60",
        "start": iso(WALK.end_ms - PAGE_ROWS * MINUTE_MS),
        "end": iso(WALK.end_ms - MINUTE_MS),
    }


def test_a_range_between_two_candles_begins_and_ends_within(venue: Venue) -> None:
    klines = client(venue).klines("ETHUSDT", MINUTE_MS, START_MS + 1, START_MS + 9 * MINUTE_MS + 1)
    assert (klines.open_time_ms - START_MS).tolist() == [minute * MINUTE_MS for minute in range(1, 10)]


def test_the_unfinished_candle_is_dropped(venue: Venue) -> None:
    klines = client(venue, now_ms=WALK.end_ms - 1).klines("ETHUSDT", MINUTE_MS, START_MS, WALK.end_ms)
    assert klines.end_ms == WALK.end_ms - MINUTE_MS
    body = json.dumps(rows_of(WALK)).encode()
    for now_ms in (WALK.end_ms - 1, WALK.end_ms - MINUTE_MS, WALK.end_ms - MINUTE_MS - 1):
        found = candles(body, interval_ms=MINUTE_MS, now_ms=now_ms)
        assert (found.klines.end_ms, found.refused) == (now_ms // MINUTE_MS * MINUTE_MS, ())


def test_the_venues_clock_says_what_is_closed(venue: Venue) -> None:
    clock = CorrectedClock(FakeClock(WALK.end_ms - 5_000))
    market = Coinbase([venue.url], clock, Quarantine(), patience_s=0)
    clock.ahead_ms = market.clock_ahead_ms()
    assert clock.now_ms() == NOW_MS + 7_000
    assert market.clock_ahead_ms() == 0
    assert market.klines("ETHUSDT", MINUTE_MS, START_MS, NOW_MS).end_ms == WALK.end_ms


def test_minutes_without_a_trade_and_whole_pages_without_one_are_gaps(venue: Venue) -> None:
    holed = WALK.between(0, START_MS + 100 * MINUTE_MS).merge(WALK.between(START_MS + 800 * MINUTE_MS, NOW_MS))
    Exchange(venue, holed)
    klines = client(venue).klines("ETHUSDT", MINUTE_MS, START_MS, NOW_MS)
    assert [*klines.gaps()] == [(START_MS + 100 * MINUTE_MS, START_MS + 800 * MINUTE_MS)]


def test_before_a_listing_it_is_not_asked_for_ever(venue: Venue) -> None:
    klines = client(venue).klines("ETHUSDT", MINUTE_MS, START_MS - 365 * DAY_MS, NOW_MS)
    assert len(klines) == ROWS
    assert len(venue.asked(CANDLES)) == -(-ROWS // PAGE_ROWS) + SILENT_PAGES


def test_rows_after_the_range_are_dropped(venue: Venue) -> None:
    venue.handler = lambda path, query: Answer(json.dumps(rows_of(WALK.tail(100))))
    start_ms = WALK.end_ms - 100 * MINUTE_MS
    klines = client(venue).klines("ETHUSDT", MINUTE_MS, start_ms, start_ms + 40 * MINUTE_MS)
    np.testing.assert_array_equal(klines.open_time_ms, WALK.tail(100).open_time_ms[:40])


def test_a_host_that_ignores_the_range_is_not_taken_for_one_without_candles(venue: Venue) -> None:
    venue.handler = lambda path, query: Answer(json.dumps(rows_of(WALK.tail(PAGE_ROWS))))
    with pytest.raises(MalformedKlines, match="got only newer ones"):
        client(venue).klines("ETHUSDT", MINUTE_MS, START_MS, NOW_MS)


def test_what_has_not_begun_is_not_asked_for(venue: Venue) -> None:
    assert len(client(venue).klines("ETHUSDT", MINUTE_MS, NOW_MS, NOW_MS + DAY_MS)) == 0
    assert venue.requests == []


def test_the_advanced_trade_form_is_read_too(venue: Venue) -> None:
    names = ("start", "low", "high", "open", "close", "volume")
    rows = [dict(zip(names, map(str, (int(row[0]), *row[1:])), strict=True)) for row in rows_of(WALK.tail(50))]
    venue.handler = lambda path, query: Answer(json.dumps({"candles": rows}))
    found, true = last_rows(venue, 50), WALK.tail(50)
    for name in ("open_time_ms", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(found, name), getattr(true, name))


def test_a_price_has_the_time_of_its_trade(venue: Venue) -> None:
    market = client(venue)
    price = market.prices(["ETHUSDT"])["ETHUSDT"]
    assert (price.price, price.asof_ms) == (2000.5, NOW_MS - 1_500)
    assert market.clock_ahead_ms() == 7_000


def test_a_price_is_never_of_later_than_now(venue: Venue) -> None:
    assert client(venue, now_ms=NOW_MS - 60_000).prices(["ETHUSDT"])["ETHUSDT"].asof_ms == NOW_MS - 60_000


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
        pytest.param(Answer(""), id="nothing"),
        pytest.param(Answer(json.dumps([["soon", *ROW[1:]]])), id="a time in words"),
        pytest.param(Answer(json.dumps([["9" * 400, *ROW[1:]]])), id="a time without end"),
        pytest.param(Answer(json.dumps([[ROW[0] + 0.5, *ROW[1:]]])), id="a time in parts of a second"),
        pytest.param(Answer(json.dumps([[ROW[0] + DAY_MS // 1000, *ROW[1:]]])), id="tomorrow"),
        pytest.param(Answer(json.dumps([[ROW[0] // 60, *ROW[1:]]])), id="a time in minutes"),
        pytest.param(Answer(json.dumps({"candles": [5]})), id="a number for an advanced row"),
        pytest.param(Answer(json.dumps({"candles": [{"start": str(ROW[0])}]})), id="an advanced row without prices"),
        pytest.param(Answer(json.dumps([[ROW[0], ROW[3], ROW[1], ROW[2], *ROW[4:]]])), id="columns of another order"),
        pytest.param(Answer(json.dumps([[*ROW[:4], None, ROW[5]]])), id="no close"),
        pytest.param(Answer(json.dumps([[*ROW[:4], -1, ROW[5]]])), id="a price below zero"),
        pytest.param(Answer(json.dumps([[*ROW[:4], 0, ROW[5]]])), id="a price of zero"),
        pytest.param(Answer(json.dumps([[*ROW[:4], "NaN", ROW[5]]])), id="a price that is no number"),
        pytest.param(Answer(json.dumps([[*ROW[:5], float("inf")]])), id="a volume without end"),
    ],
)
def test_what_is_not_candles_is_refused(venue: Venue, answer: Answer) -> None:
    venue.handler = lambda path, query: answer
    with pytest.raises(MalformedKlines):
        last_rows(venue, 10)


def test_one_bad_row_is_set_aside(venue: Venue) -> None:
    aside = Quarantine()
    rows = rows_of(WALK.tail(100))
    rows[7][4] = -1
    venue.handler = lambda path, query: Answer(json.dumps(rows))
    klines = last_rows(venue, 100, aside)
    assert len(klines) == 99
    assert rows[7][0] * 1000 not in klines.open_time_ms
    assert aside.counts == {("coinbase", "ETHUSDT", "a price is not finite and above 0"): 1}


def test_one_row_of_tomorrow_is_set_aside() -> None:
    rows = rows_of(WALK.tail(100))
    rows[7][0] += DAY_MS // 1000
    found = candles(json.dumps(rows).encode(), interval_ms=MINUTE_MS, now_ms=NOW_MS)
    assert (len(found.klines), [row.reason for row in found.refused]) == (99, ["open time is in the future"])


def test_a_rate_limit_is_heeded(venue: Venue) -> None:
    venue.handler = lambda path, query: Answer('{"message":"Public rate limit exceeded"}', 429, {"Retry-After": "3"})
    with pytest.raises(MarketUnavailable, match="Public rate limit exceeded") as caught:
        client(venue).prices(["ETHUSDT"])
    assert caught.value.retry_after_s == 3.0
    clock = FakeClock(NOW_MS)
    venue.scripted = [Answer("{}", 429, {"Retry-After": "3"})]
    Exchange(venue)
    assert Coinbase([venue.url], clock, Quarantine()).prices(["ETHUSDT"])["ETHUSDT"].price == 2000.5
    assert clock.slept_s == [3.0]


@pytest.mark.parametrize("body", ["[]", "{}", '{"price":"0","time":"2023-11-15T00:00:00Z"}', '{"price":"2000"}'])
def test_a_price_that_is_none_is_refused(venue: Venue, body: str) -> None:
    venue.handler = lambda path, query: Answer(body)
    with pytest.raises(MalformedKlines):
        client(venue).prices(["ETHUSDT"])


CELL = st.one_of(st.none(), st.floats(), st.integers(-(10**20), 10**20), st.text(max_size=5), st.booleans())
SPOILED_CELLS = st.lists(st.tuples(st.integers(0, 39), st.integers(0, 5), CELL), max_size=3)


def spoiled(cells: Sequence[tuple[int, int, object]]) -> bytes:
    """Forty good candles with some cells changed."""
    rows: list[list[object]] = [list(row) for row in rows_of(WALK.tail(40))]
    for row, column, cell in cells:
        rows[row][column] = cell
    return json.dumps(rows).encode()


@given(body=st.one_of(st.binary(max_size=60), SPOILED_CELLS.map(spoiled)))
def test_any_answer_gives_klines_that_keep_the_rules_or_a_named_error(body: bytes) -> None:
    now_ms = WALK.end_ms - 1  # the newest candle is unfinished
    with contextlib.suppress(WorkerError):
        found = candles(body, interval_ms=MINUTE_MS, now_ms=now_ms).klines  # they check their own rules
        assert len(found.closed(now_ms)) == len(found)
    with contextlib.suppress(WorkerError):
        assert ticker(body, symbol="ETHUSDT", clock=FakeClock(NOW_MS)).price > 0


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
