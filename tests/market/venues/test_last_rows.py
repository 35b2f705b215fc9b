"""The newest row, alone on the last page of an answer, costs itself and not the pages before it."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from core.clock import MINUTE_MS
from market.venues.binance.rest import Binance
from tests.fakes.clock import START_MS, FakeClock
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer, Venue, rest_rows

ROWS = 90
WALK = random_walk_klines(ROWS, start_ms=START_MS)
END_MS = WALK.end_ms
Row = list[Any]

UNREADABLE: dict[str, Callable[[Row], object]] = {
    "nothing": lambda row: None,
    "no list": lambda row: {"open": row[1]},
    "no cells": lambda row: [],
    "a time in words": lambda row: ["soon", *row[1:]],
    "no time": lambda row: [None, *row[1:]],
    "a time in microseconds": lambda row: [row[0] * 1000, *row[1:]],
    "a close time in words": lambda row: [*row[:6], "soon", *row[7:]],
    "no price": lambda row: [*row[:4], None, *row[5:]],
    "a price that is no number": lambda row: [*row[:4], [1], *row[5:]],
}


def told(venue: Venue, change: Callable[[list[Row]], list[object]], start_ms: int = 0) -> np.ndarray[Any, Any]:
    """Open times of what is read where a venue selects rows by their right times and tells them changed."""
    rows: list[Row] = rest_rows(WALK)
    odd = change(rows)

    def handle(path: str, query: dict[str, str]) -> Answer | None:
        first, last = int(query["startTime"]), int(query["endTime"])
        return Answer(json.dumps([said for row, said in zip(rows, odd, strict=True) if first <= row[0] <= last]))

    venue.handler = handle
    market = Binance([venue.url], "", FakeClock(END_MS + 5_000), patience_s=0)
    return market.klines("ETHUSDT", MINUTE_MS, start_ms or START_MS, END_MS).open_time_ms


@pytest.mark.parametrize("last", [1, 2])
@pytest.mark.parametrize("odd", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_newest_rows_that_cannot_be_read_cost_themselves(venue: Venue, odd: Callable[[Row], object], last: int) -> None:
    found = told(venue, lambda rows: [*rows[:-last], *(odd(row) for row in rows[-last:])])
    np.testing.assert_array_equal(found, WALK.open_time_ms[:-last])


@pytest.mark.parametrize("off_ms", [-14_789, -1, -59_999])
def test_minutes_that_begin_before_the_grid_are_read(venue: Venue, off_ms: int) -> None:
    """The last page holds the last of them again, whose time is before what was asked for."""
    found = told(venue, lambda rows: [[row[0] + off_ms, *row[1:6], row[6] + off_ms, *row[7:]] for row in rows])
    np.testing.assert_array_equal(found, WALK.open_time_ms[:-1])
