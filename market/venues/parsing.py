"""Reading the responses of any venue: columns of numbers, times, prices, rows with names."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from core.clock import HOUR_MS, SECOND_MS
from core.errors import MalformedKlines
from klines.checks import EARLIEST_MS, MOST_REFUSED, UNREADABLE_MS, CheckedRows, check_closed_rows
from klines.klines import Floats, Ints
from klines.spans import Span
from market.venue import Price

Row = dict[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def spans(start_ms: int, end_ms: int, step_ms: int) -> Iterator[Span]:
    """Cut a range into spans of at most ``step_ms``.

    >>> [*spans(0, 25, 10)]
    [(0, 10), (10, 20), (20, 25)]
    """
    for first_ms in range(start_ms, end_ms, step_ms):
        yield first_ms, min(first_ms + step_ms, end_ms)


def price_of(symbol: str, value: object) -> float:
    """Read a price from a number or its text.

    Raises:
        MalformedKlines: the price is not finite and above 0.
    """
    price = number(value)
    if not (math.isfinite(price) and price > 0):
        raise MalformedKlines(f"the price of {symbol} must be finite and above 0, was {value!r}")
    return price


def aged_price(name: str, value: object, at_ms: int, now_ms: int) -> Price:
    """A price with the venue's time of it, cut to now.

    Raises:
        MalformedKlines: not a positive number, or a time before 2009 or over an hour ahead (another unit).
    """
    if not EARLIEST_MS <= at_ms <= now_ms + HOUR_MS:
        raise MalformedKlines(f"the price of {name} must have a time in the past, was {at_ms} ms")
    return Price(price=price_of(name, value), asof_ms=min(at_ms, now_ms))


def time_ms(cell: object) -> int:
    """Read a time from text, in UTC if the text names no offset; 0, which no kline has, if it is not a time.

    >>> time_ms("2019-05-01T02:00:00+02:00"), time_ms("soon"), time_ms(1556668800)
    (1556668800000, 0, 0)
    """
    try:
        at = datetime.fromisoformat(cell)  # type: ignore[arg-type]
        return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)
    except (TypeError, ValueError, OverflowError):
        return 0


def number(cell: object) -> float:
    """Read a number or its text; NaN if the cell is neither, so that one bad cell costs one row."""
    try:
        return math.nan if isinstance(cell, bool) else float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def column(rows: Sequence[Sequence[Any]], place: int) -> Floats:
    """The numbers in one place of every row."""
    return np.array([number(row[place]) for row in rows], np.float64)


def whole_seconds_ms(cells: Iterable[Any]) -> Ints:
    """Read open times in whole seconds, in ms; ``UNREADABLE_MS`` for a cell that is not such a time.

    Raises:
        MalformedKlines: most cells are not; times in milliseconds are not either.
    """
    times = np.array([number(cell) for cell in cells], np.float64)
    known = (times >= 0) & (times < 10**11) & (np.floor(times) == times)
    if int((~known).sum()) > MOST_REFUSED * len(times):
        raise MalformedKlines("a candle must have a time in whole seconds")
    return np.where(known, times, 0).astype(np.int64) * SECOND_MS


def whole_rows(
    value: object, is_row: Callable[[list[Any]], bool], width: int, rule: str, few: int = 0
) -> list[list[Any]]:
    """Read a list of rows; a row without any value, not even a time, replaces each entry that is not a row.

    Args:
        is_row: True if a list is a row.
        width: columns of a row.
        rule: what the value must be, for the message.
        few: so many entries may be something else in any case.
    Raises:
        MalformedKlines: not a list, or most entries are not rows; names the first.
    """
    if not isinstance(value, list):
        raise MalformedKlines(f"{rule}, was {str(value)[:80]}")
    empty: list[Any] = [UNREADABLE_MS] * width
    rows = [row if isinstance(row, list) and is_row(row) else empty for row in value]
    odd = [place for place, row in enumerate(rows) if row is empty]
    if len(odd) > max(few, MOST_REFUSED * len(rows)):
        raise MalformedKlines(f"{rule}; {len(odd)} of {len(rows)} are not, row {odd[0]} was {str(value[odd[0]])[:80]}")
    return rows


def rows_in(value: object, what: str) -> list[Row]:
    """Read a list of objects; an empty object replaces each entry that is not an object.

    Raises:
        MalformedKlines: not a list, or most entries are not objects.
    """
    rows = [row if isinstance(row, dict) else {} for row in value] if isinstance(value, list) else []
    if not isinstance(value, list) or sum(isinstance(row, dict) for row in value) < (1 - MOST_REFUSED) * len(value):
        raise MalformedKlines(f"{what} must be a list of objects, was {str(value)[:80]}")
    return rows


def sifted_rows(interval_ms: int, rows: Sequence[Row], time: str, names: Mapping[str, str], now_ms: int) -> CheckedRows:
    """Check rows with names.

    Args:
        time: name of the open time.
        names: our column -> the venue's.
    Raises:
        MalformedKlines: as ``check_rows``.
    """
    times = np.array([time_ms(row.get(time)) for row in rows], np.int64)
    columns = {ours: np.array([number(row.get(theirs)) for row in rows], np.float64) for ours, theirs in names.items()}
    return check_closed_rows(interval_ms, times, columns, now_ms)
