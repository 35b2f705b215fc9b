"""What Tiingo alone has: spans of 5000 bars, several tickers in an answer, used up allocations with HTTP 200."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import MalformedKlines, MarketUnavailable
from klines.klines import Klines
from market.quarantine import Quarantine
from market.venues.parsing import time_ms
from market.venues.tiingo import PAGE_ROWS, RUN_OUT_S, Tiingo, bars, tops
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue
from tests.market.venues.formats import FORMATS, KEY, tiingo_page, tiingo_rows, tiingo_top

NOW_MS = START_MS + 40 * DAY_MS
WALK = random_walk_klines(12_000)
(FORMAT,) = (each for each in FORMATS if each.name == "tiingo")


@pytest.fixture
def tiingo(venue: Venue, quarantine: Quarantine) -> Tiingo:
    venue.handler = FORMAT.serving(WALK)
    return Tiingo([venue.url], FakeClock(NOW_MS), quarantine, key=KEY)


def five(tiingo: Tiingo) -> Klines:
    return tiingo.klines("ETHUSDT", MINUTE_MS, START_MS, START_MS + 5 * MINUTE_MS)


def test_a_long_range_is_asked_for_in_spans(venue: Venue, tiingo: Tiingo) -> None:
    klines = tiingo.klines("ETHUSDT", MINUTE_MS, START_MS + 1, WALK.end_ms)
    np.testing.assert_array_equal(klines.open_time_ms, WALK.open_time_ms[1:])
    asked = venue.asked("/tiingo/crypto/prices")
    assert len(asked) == 3
    assert asked[0] == {
        "tickers": "ethusd",
        "startDate": iso(START_MS + MINUTE_MS),
        "endDate": iso(START_MS + (PAGE_ROWS + 1) * MINUTE_MS),
        "resampleFreq": "1min",
    }
    assert {head["Authorization"] for head in venue.heads} == {f"Token {KEY}"}


@pytest.mark.parametrize(
    ("interval_ms", "frequency"),
    [(5 * MINUTE_MS, "5min"), (HOUR_MS, "1hour"), (4 * HOUR_MS, "4hour"), (DAY_MS, "1day")],
)
def test_intervals_have_its_names(venue: Venue, tiingo: Tiingo, interval_ms: int, frequency: str) -> None:
    venue.handler = FORMAT.serving(WALK.resample(interval_ms))
    assert len(tiingo.klines("ETHUSD", interval_ms, START_MS, START_MS + 3 * DAY_MS)) == 3 * DAY_MS // interval_ms
    assert venue.requests[0][1]["resampleFreq"] == frequency


def test_a_flow_that_it_does_not_know_costs_no_row_and_rows_may_come_newest_first() -> None:
    rows = tiingo_rows(WALK.rows(0, 100))
    rows[9]["volumeNotional"] = None
    found = bars(tiingo_page(rows[::-1]).encode(), name="ethusd", interval_ms=MINUTE_MS, now_ms=NOW_MS)
    assert (len(found.klines), found.rejected) == (100, ())
    assert np.isnan(found.klines.quote_volume).sum() == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param("[5]", "asked for bars of ethusd", id="a number for a ticker"),
        pytest.param('[{"ticker": "ethusd"}]', "must be a list, was None", id="no bars at all"),
        pytest.param(tiingo_page(tiingo_rows(WALK.rows(0, 1)), "btcusd"), "asked for bars of ethusd", id="another"),
    ],
)
def test_what_is_not_bars_is_refused(body: str, says: str) -> None:
    with pytest.raises(MalformedKlines, match=says):
        bars(body.encode(), name="ethusd", interval_ms=MINUTE_MS, now_ms=NOW_MS)


def test_genuine_bars_are_read_as_they_are_meant(payloads: Path) -> None:
    body = (payloads / "tiingo" / "crypto_prices_1day.json").read_bytes()
    found = bars(body, name="btcusd", interval_ms=DAY_MS, now_ms=NOW_MS)
    assert [iso(at)[:10] for at in found.klines.open_time_ms.tolist()] == ["2019-05-01", "2019-05-02"]
    assert found.klines.table()[0, :5].tolist() == [
        *(5367.348827845256, 5443.811868611532, 5358.100876910302, 5420.0896708474575, 27749.729226739997)
    ]
    assert found.klines.quote_volume[1] == 222030376.30221513
    assert found.klines.trades[1] == 241005
    assert found.rejected == ()
    assert len(bars(body, name="btcusd", interval_ms=DAY_MS, now_ms=time_ms("2019-05-02T23:59:59Z")).klines) == 1


def test_prices_of_several_symbols_take_one_request(venue: Venue, tiingo: Tiingo) -> None:
    late = tiingo_top(40000, iso(NOW_MS + 900), "BTCUSD")
    venue.scripted = [Answer(json.dumps([tiingo_top(at=iso(NOW_MS - 1500)), late]))]
    prices = tiingo.prices(["ETHUSDT", "BTCUSDT", "ETHUSDC"])
    assert prices["ETHUSDT"] == prices["ETHUSDC"]
    assert (prices["BTCUSDT"].price, prices["BTCUSDT"].asof_ms) == (40000, NOW_MS)
    assert venue.requests == [("/tiingo/crypto/top", {"tickers": "ethusd,btcusd"})]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param([], "no price of ethusd", id="none"),
        pytest.param([tiingo_top(ticker="btcusd")], "no price of ethusd", id="another ticker's"),
        pytest.param([{"ticker": "ethusd", "topOfBookData": []}], "no price of ethusd", id="an empty book"),
        pytest.param([{"ticker": "ethusd", "topOfBookData": 5}], "no price of ethusd", id="a number for a book"),
        pytest.param([tiingo_top(at=None)], "time in the past", id="no time"),
        pytest.param([tiingo_top(at=NOW_MS)], "time in the past", id="a time that is not text"),
    ],
)
def test_what_is_not_a_price_is_refused(answer: object, says: str) -> None:
    with pytest.raises(MalformedKlines, match=says):
        tops(json.dumps(answer).encode(), names=["ethusd"], now_ms=NOW_MS)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("Error: You have run over your hourly request allocation.\nUpgrade.", id="text"),
        pytest.param('{"detail": "You have run over your 500 symbol look up for this month"}', id="an object"),
    ],
)
def test_a_used_up_allocation_is_seen_though_the_status_is_200(venue: Venue, tiingo: Tiingo, body: str) -> None:
    venue.handler = lambda path, query: Answer(body)
    with pytest.raises(MarketUnavailable, match=r"used up: .*run over your") as caught:
        five(tiingo)
    assert caught.value.retry_after_s == RUN_OUT_S
    assert "\n" not in str(caught.value)
