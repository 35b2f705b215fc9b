"""Binance's wire format, written: rows of REST klines, messages of the stream, and archive files."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from exchange.walk import Tape, unfinished
from klines.klines import COLUMNS, FLOW_COLUMNS, Klines

MICROSECONDS_FROM_MS = 1_735_689_600_000  # 2025-01-01: archives count in microseconds from here on

_ROW = '[%d,"%.8f","%.8f","%.8f","%.8f","%.8f",%d,"%.8f",%d,"%.8f","%.8f","0"]'
_WIRE_COLUMNS = ("open", "high", "low", "close", "volume", "close_time", *FLOW_COLUMNS[1:])


def _wire(klines: Klines) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """Columns in the order of Binance's rows, open and close time in ms; what a recording does not have is 0."""
    columns = {name: getattr(klines, name) for name in COLUMNS}
    columns |= {name: np.nan_to_num(columns[name], nan=0.0) for name in FLOW_COLUMNS}
    columns |= {
        "close_time": klines.open_time_ms + klines.interval_ms - 1,
        "trades": columns["trades"].astype(np.int64),
    }
    return [klines.open_time_ms, *(columns[name] for name in _WIRE_COLUMNS)]


def rest_rows(klines: Klines) -> bytes:
    """Klines as ``/api/v3/klines`` writes them: 12 elements a row, prices and volumes as strings."""
    rows = zip(*(column.tolist() for column in _wire(klines)), strict=True)
    return ("[" + ",".join([_ROW % row for row in rows]) + "]").encode()


def kline_events(
    klines: Klines, symbol: str, interval: str, event_ms: int, *, closed: bool
) -> Iterator[dict[str, Any]]:
    """Klines as the stream's messages, with the very texts of their REST rows.

    Args:
        interval: as Binance names it.
        event_ms: when they are told.
        closed: whether they are finished.
    """
    for row in json.loads(rest_rows(klines)):
        at_ms, opened, high, low, close, volume, until_ms, quote_volume, trades, taker_base, taker_quote, _ = row
        first = at_ms // 1_000 if trades else -1  # ids of trades rise with time; no trade is -1
        candle = {"t": at_ms, "T": until_ms, "s": symbol, "i": interval, "f": first, "L": max(first + trades - 1, -1)}
        candle |= {"o": opened, "c": close, "h": high, "l": low, "v": volume, "n": trades, "x": closed}
        candle |= {"q": quote_volume, "V": taker_base, "Q": taker_quote, "B": "0"}
        yield {"e": "kline", "E": event_ms, "s": symbol, "k": candle}


def archive_zip(klines: Klines, name: str, end_ms: int) -> bytes:
    """Klines as the zip of an archive: one CSV without a header row; the same bytes every time.

    Args:
        klines: rows of one day or month.
        name: of the file, without its ending.
        end_ms: end of the day or month; the zip is dated a little later.
    """
    columns = _wire(klines)
    if end_ms > MICROSECONDS_FROM_MS:
        columns[0], columns[6] = klines.open_time_ms * 1_000, (klines.open_time_ms + klines.interval_ms) * 1_000 - 1
    frame = pl.DataFrame({str(n): column for n, column in enumerate(columns)})
    text = io.BytesIO()
    frame.with_columns(pl.lit("0").alias("ignore")).write_csv(text, include_header=False, float_precision=8)
    packed = io.BytesIO()
    made = datetime.fromtimestamp(end_ms / 1_000, UTC)
    with zipfile.ZipFile(packed, "w") as archive:
        entry = zipfile.ZipInfo(f"{name}.csv", (made.year, made.month, made.day, 1, 14, 0))
        entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
        archive.writestr(entry, text.getvalue(), compresslevel=1)
    return packed.getvalue()


def page(
    tape: Tape, symbol: str, interval_ms: int, *, start_ms: int | None, end_ms: int, limit: int, now_ms: int
) -> Klines:
    """What one request for klines gets: the first ``limit`` rows from ``start_ms`` on, or without it the last ones.

    Holes do not count as rows. The candle that is open at ``now_ms`` is the newest row; later ones are not shown.

    Args:
        end_ms: newest open time asked for, itself included.
    """
    open_ms = now_ms // interval_ms * interval_ms
    first = tape.first_ms(symbol) if start_ms is None else max(start_ms, tape.first_ms(symbol))
    end = min(end_ms, open_ms) + 1
    first = min(first, end)
    span = limit * interval_ms
    while True:  # the span doubles until there are rows enough or nothing is left to look through
        low, high = (max(first, end - span), end) if start_ms is None else (first, min(end, first + span))
        rows = tape.klines(symbol, interval_ms, low, min(high, open_ms))
        if low <= open_ms < high:
            rows = rows.merge(unfinished(tape, symbol, interval_ms, now_ms))
        if len(rows) >= limit or high - low < span:
            if start_ms is None:
                return rows.tail(limit)
            return rows.between(low, int(rows.open_time_ms[limit])) if len(rows) > limit else rows
        span *= 2


_DATE = {"daily": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), "monthly": re.compile(r"[0-9]{4}-[0-9]{2}")}


def archive_span(period: str, date: str) -> tuple[int, int] | None:
    """First moment of an archive's day or month and of the next one, in ms; None when ``date`` is none of its kind.

    >>> archive_span("monthly", "2024-02")
    (1706745600000, 1709251200000)
    >>> archive_span("daily", "2024-02") is archive_span("daily", "2024-02-30") is None
    True
    """
    if period not in _DATE or not _DATE[period].fullmatch(date):
        return None
    try:
        first = np.datetime64(date)
    except ValueError:
        return None
    start, end = (int(moment.astype("datetime64[ms]").astype(np.int64)) for moment in (first, first + 1))
    return start, end
