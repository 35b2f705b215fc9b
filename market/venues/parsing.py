"""Answers of any venue, read: JSON, columns of numbers, times, prices, rows with names."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from core.clock import HOUR_MS, SECOND_MS
from core.errors import MalformedKlines
from klines.checks import EARLIEST_MS, MOST_REFUSED, UNREADABLE_MS, CheckedRows, check_closed_rows
from klines.klines import Ints
from market.venue import Price

Row = dict[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def json_of(body: bytes) -> Any:
    """What a body says.

    Raises:
        MalformedKlines: it is not JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedKlines(f"the answer is not JSON but {body[:60]!r}") from error


def price_of(symbol: str, value: object) -> float:
    """A price, a number or the text of one.

    Raises:
        MalformedKlines: it is not finite and above 0.
    """
    price = number(value)
    if not (math.isfinite(price) and price > 0):
        raise MalformedKlines(f"the price of {symbol} must be finite and above 0, was {value!r}")
    return price


def time_ms(cell: object) -> int:
    """A time in text, UTC where it names no offset; 0, which no kline has, where it is no time.

    >>> time_ms("2019-05-01T02:00:00+02:00"), time_ms("soon"), time_ms(1556668800)
    (1556668800000, 0, 0)
    """
    try:
        at = datetime.fromisoformat(cell)  # type: ignore[arg-type]
        return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)
    except (TypeError, ValueError, OverflowError):
        return 0


def number(cell: object) -> float:
    """A number or the text of one; NaN where it is neither, so that one bad cell costs one row."""
    try:
        return math.nan if isinstance(cell, bool) else float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def whole_seconds_ms(cells: Iterable[Any]) -> Ints:
    """A column of open times in whole seconds, in ms; ``UNREADABLE_MS`` where a cell is none.

    Raises:
        MalformedKlines: most are none; milliseconds are none either.
    """
    times = np.array([number(cell) for cell in cells], np.float64)
    known = (times >= 0) & (times < 10**11) & (np.floor(times) == times)
    if int((~known).sum()) > MOST_REFUSED * len(times):
        raise MalformedKlines("a candle must have a time in whole seconds")
    return np.where(known, times, 0).astype(np.int64) * SECOND_MS


def whole_rows(
    rows: Sequence[Any], is_row: Callable[[list[Any]], bool], width: int, rule: str, few: int = 0
) -> list[list[Any]]:
    """Rows in lists, with one that tells nothing, not even its time, in the place of each that is no row.

    Args:
        is_row: whether a list is a row.
        width: columns of a row.
        rule: what a row must be, for the message.
        few: so many that are no rows say nothing of the answer, as ``check_rows`` has it.
    Raises:
        MalformedKlines: most are no rows; names the first.
    """
    nothing: list[Any] = [UNREADABLE_MS] * width
    whole = [row if isinstance(row, list) and is_row(row) else nothing for row in rows]
    odd = [place for place, row in enumerate(whole) if row is nothing]
    if len(odd) > max(few, MOST_REFUSED * len(rows)):
        raise MalformedKlines(f"{rule}; {len(odd)} of {len(rows)} are not, row {odd[0]} was {str(rows[odd[0]])[:80]}")
    return whole


def aged_price(name: str, value: object, at_ms: int, now_ms: int) -> Price:
    """A price with the venue's time of it, never after now.

    Raises:
        MalformedKlines: it is no price; or its time is before 2009 or in an hour: in another unit, or none.
    """
    if not EARLIEST_MS <= at_ms <= now_ms + HOUR_MS:
        raise MalformedKlines(f"the price of {name} must have a time in the past, was {at_ms} ms")
    return Price(price=price_of(name, value), asof_ms=min(at_ms, now_ms))


def rows_in(value: object, what: str) -> list[Row]:
    """A list of objects; one without names stands in the place of each that is no object.

    Raises:
        MalformedKlines: it is no list, or most are no objects.
    """
    whole = [row if isinstance(row, dict) else {} for row in value] if isinstance(value, list) else []
    if not isinstance(value, list) or sum(isinstance(row, dict) for row in value) < (1 - MOST_REFUSED) * len(value):
        raise MalformedKlines(f"{what} must be a list of objects, was {str(value)[:80]}")
    return whole


def sifted_rows(interval_ms: int, rows: Sequence[Row], time: str, names: Mapping[str, str], now_ms: int) -> CheckedRows:
    """Rows with names, sorted out.

    Args:
        time: name of the open time.
        names: our column -> theirs.
    Raises:
        MalformedKlines: as ``check_rows``.
    """
    times = np.array([time_ms(row.get(time)) for row in rows], np.int64)
    columns = {ours: np.array([number(row.get(theirs)) for row in rows], np.float64) for ours, theirs in names.items()}
    return check_closed_rows(interval_ms, times, columns, now_ms)
