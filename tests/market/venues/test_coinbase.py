"""What Coinbase Exchange alone has: pages from the newest back, its column order."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso
from core.errors import MalformedKlines
from klines.klines import Klines
from market.quarantine import Quarantine
from market.venues.coinbase import EMPTY_PAGES, PAGE_ROWS, Coinbase, candles
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Handler, Venue
from tests.market.venues.formats import coinbase_rows

ROWS = 1000
WALK = random_walk_klines(ROWS)
NOW_MS = WALK.end_ms + 20_000
CANDLES = "/products/ETH-USD/candles"


def serving(klines: Klines) -> Handler:
    """Pages as Coinbase makes them: a longer one is refused, and rows before the start may come along."""

    def answer(path: str, query: dict[str, str]) -> Answer | None:
        start_ms, end_ms = (round(datetime.fromisoformat(query[name]).timestamp() * 1000) for name in ("start", "end"))
        step_ms = int(query["granularity"]) * 1000
        if (end_ms - start_ms) // step_ms + 1 > PAGE_ROWS:
            return Answer('{"message":"granularity too small for the requested time range."}', 400)
        return Answer(json.dumps(coinbase_rows(klines.between(start_ms - 2 * step_ms, end_ms + 1))))

    return answer


@pytest.fixture
def client(venue: Venue, quarantine: Quarantine) -> Coinbase:
    venue.handler = serving(WALK)
    return Coinbase([venue.url], FakeClock(NOW_MS), quarantine, patience_s=0)


def test_a_long_range_is_asked_for_in_pages_from_the_newest_back(venue: Venue, client: Coinbase) -> None:
    klines = client.klines("ETHUSDT", MINUTE_MS, START_MS, NOW_MS)
    np.testing.assert_array_equal(klines.open_time_ms, WALK.open_time_ms)
    np.testing.assert_array_equal(klines.close, WALK.close)
    asked = venue.asked(CANDLES)
    assert len(asked) == -(-ROWS // PAGE_ROWS)
    assert asked[0] == {
        "granularity": "60",
        "start": iso(WALK.end_ms - PAGE_ROWS * MINUTE_MS),
        "end": iso(WALK.end_ms - MINUTE_MS),
    }


def test_whole_pages_without_a_trade_are_a_gap(venue: Venue, client: Coinbase) -> None:
    gap = (START_MS + 100 * MINUTE_MS, START_MS + 800 * MINUTE_MS)
    venue.handler = serving(WALK.between(0, gap[0]).merge(WALK.between(gap[1], NOW_MS)))
    assert [*client.klines("ETHUSDT", MINUTE_MS, START_MS, NOW_MS).gaps()] == [gap]


def test_before_a_listing_it_is_not_asked_for_ever(venue: Venue, client: Coinbase) -> None:
    assert len(client.klines("ETHUSDT", MINUTE_MS, START_MS - 365 * DAY_MS, NOW_MS)) == ROWS
    assert len(venue.asked(CANDLES)) == -(-ROWS // PAGE_ROWS) + EMPTY_PAGES


def test_a_host_that_ignores_the_range_is_not_taken_for_one_without_candles(venue: Venue, client: Coinbase) -> None:
    venue.handler = lambda path, query: Answer(json.dumps(coinbase_rows(WALK.tail(PAGE_ROWS))))
    with pytest.raises(MalformedKlines, match="got only newer ones"):
        client.klines("ETHUSDT", MINUTE_MS, START_MS, NOW_MS)


ROW = coinbase_rows(WALK)[0]


@pytest.mark.parametrize("row", [ROW[:5], [ROW[0] + 0.5, *ROW[1:]], [ROW[0], ROW[3], ROW[1], ROW[2], *ROW[4:]]])
def test_what_is_not_candles_is_refused(row: list[float]) -> None:
    """Five columns, half a second, columns of another order."""
    with pytest.raises(MalformedKlines, match="time, low, high, open, close, volume are wanted, the first row was "):
        candles(json.dumps([row]).encode(), interval_ms=MINUTE_MS, now_ms=NOW_MS)


def test_one_row_of_tomorrow_is_set_aside() -> None:
    rows = coinbase_rows(WALK.tail(100))
    rows[7][0] += DAY_MS // 1000
    found = candles(json.dumps(rows).encode(), interval_ms=MINUTE_MS, now_ms=NOW_MS)
    assert (len(found.klines), [row.reason for row in found.rejected]) == (99, ["open time is in the future"])


def test_genuine_answers_are_read_as_coinbase_means_them(payloads: Path) -> None:
    body = (payloads / "coinbase" / "exchange_candles_BTC-USDT_1h.json").read_bytes()
    exchange = candles(body, interval_ms=HOUR_MS, now_ms=10**13).klines
    assert exchange.table()[0, :5].tolist() == [73243.33, 73402.47, 73241.5, 73370.65, 1.56794406]
