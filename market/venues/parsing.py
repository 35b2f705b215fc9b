"""Reading the responses of any venue: rows of candles, times, prices."""

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from core.clock import DAY_MS, HOUR_MS, SECOND_MS
from core.errors import MalformedKlines
from klines.checks import EARLIEST_MS, CheckedRows, check_closed_rows
from klines.spans import Span
from market.venue import Price

Place = int | str | Callable[[Any], object]  # of a cell: the number or name of its column, or what computes it

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNREADABLE_FROM = 10**14  # ms, the year 5138: such a time is in another unit
NO_TIME_MS = -DAY_MS  # for the row checks: on every grid, and rows with times below 0 are never one row


def spans(start_ms: int, end_ms: int, step_ms: int) -> Iterator[Span]:
    """Cut a range into spans of at most ``step_ms``.

    >>> [*spans(0, 25, 10)]
    [(0, 10), (10, 20), (20, 25)]
    """
    for first_ms in range(start_ms, end_ms, step_ms):
        yield first_ms, min(first_ms + step_ms, end_ms)


def cell(row: Any, place: Place) -> Any:
    """Return a cell of a list or an object; None if the row has no such cell, or is neither."""
    try:
        return place(row) if callable(place) else row[place]
    except (LookupError, TypeError):
        return None


def number(value: object) -> float:
    """Read a number or its text; NaN if the value is neither, so that one bad cell costs one row."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def time_ms(value: object, unit_ms: int = SECOND_MS) -> int:
    """Read ISO text, in UTC if the text names no offset, or a whole number of a unit; 0, which no kline has, otherwise.

    >>> time_ms("2019-05-01T02:00:00+02:00"), time_ms(1556668800), time_ms(1556668800000), time_ms("soon")
    (1556668800000, 1556668800000, 0, 0)
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) * unit_ms if 0 <= value * unit_ms < UNREADABLE_FROM and value % 1 == 0 else 0
    try:
        at = datetime.fromisoformat(value)  # type: ignore[arg-type]
        return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)
    except (TypeError, ValueError, OverflowError):
        return 0


def price_of(name: str, value: object, now_ms: int, at_ms: int | None = None) -> Price:
    """Read a price from a number or its text; the venue's time of the price, if it names one, is cut to now.

    Raises:
        MalformedKlines: not finite and above 0, or a time before 2009 or over an hour ahead (another unit).
    """
    at_ms = now_ms if at_ms is None else at_ms
    if not EARLIEST_MS <= at_ms <= now_ms + HOUR_MS:
        raise MalformedKlines(f"the price of {name} must have a time in the past, was {at_ms} ms")
    price = number(value)
    if not (math.isfinite(price) and price > 0):
        raise MalformedKlines(f"the price of {name} must be finite and above 0, was {value!r}")
    return Price(price=price, asof_ms=min(at_ms, now_ms))


def list_of(value: object, what: str) -> list[Any]:
    """Return a list; raises MalformedKlines if the value is something else."""
    if not isinstance(value, list):
        raise MalformedKlines(f"{what} must be a list, was {value!r:.80}")
    return value


def candles_in(value: object, interval_ms: int, places: Mapping[str, Place], now_ms: int) -> CheckedRows:
    """Check the candles of a list that have closed, in any order. A cell that cannot be read costs its row alone.

    Args:
        places: of our columns, and of "time", the open time in seconds or ISO text, in a row.
        now_ms: by the venue's clock; the candle that has not ended by then is left out.
    Raises:
        MalformedKlines: not a list, or most rows are no klines; names the columns and the first row.
    """
    rows = list_of(value, "candles")
    times = np.array([time_ms(cell(row, places["time"])) or NO_TIME_MS for row in rows], np.int64)
    # The checks do not read the column "time".
    columns = {name: np.array([number(cell(row, place)) for row in rows], np.float64) for name, place in places.items()}
    try:
        return check_closed_rows(interval_ms, times, columns, now_ms)
    except MalformedKlines as error:
        raise MalformedKlines(
            f"{error}; {', '.join(places)} are wanted, the first row was {rows[0]!r:.80} (time: seconds or ISO text)"
        ) from error
