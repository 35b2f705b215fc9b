"""Binance's formats, written: REST rows, stream messages, and archive files."""

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from core.clock import SECOND_MS
from klines.klines import COLUMNS, FLOW_COLUMNS, Klines
from klines.spans import INTERVALS, Span
from market.venues.binance.rows import ROW

Event = dict[str, Any]  # of a stream

MICROSECONDS_FROM_MS = 1_735_689_600_000  # 2025-01-01: archives count in microseconds from here on

_ROW = '[%d,"%.8f","%.8f","%.8f","%.8f","%.8f",%d,"%.8f",%d,"%.8f","%.8f","0"]'


def _columns(klines: Klines) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """Return the columns of ``ROW`` but the last; a flow that a recording does not have is 0."""
    columns = {name: getattr(klines, name) for name in COLUMNS}
    columns |= {name: np.nan_to_num(columns[name], nan=0.0) for name in FLOW_COLUMNS}
    columns |= {
        "open_time": klines.open_time_ms,
        "close_time": klines.open_time_ms + klines.interval_ms - 1,
        "trades": columns["trades"].astype(np.int64),
    }
    return [columns[name] for name in ROW[:-1]]


def rest_rows(klines: Klines) -> bytes:
    """Return klines as ``/api/v3/klines`` writes them: 12 elements a row, prices and volumes as strings."""
    rows = zip(*(column.tolist() for column in _columns(klines)), strict=True)
    return ("[" + ",".join([_ROW % row for row in rows]) + "]").encode()


def kline_events(klines: Klines, symbol: str, event_ms: int, *, closed: bool) -> Iterator[Event]:
    """Yield klines as the stream's messages of ``event_ms``, with the very texts of their REST rows."""
    interval = INTERVALS[klines.interval_ms]
    for row in json.loads(rest_rows(klines)):
        at_ms, opened, high, low, close, volume, until_ms, quote_volume, trades, taker_base, taker_quote, _ = row
        first = at_ms // 1_000 if trades else -1  # ids of trades rise with time; without a trade it is -1
        candle = {"t": at_ms, "T": until_ms, "s": symbol, "i": interval, "f": first, "L": max(first + trades - 1, -1)}
        candle |= {"o": opened, "c": close, "h": high, "l": low, "v": volume, "n": trades, "x": closed}
        candle |= {"q": quote_volume, "V": taker_base, "Q": taker_quote, "B": "0"}
        yield {"e": "kline", "E": event_ms, "s": symbol, "k": candle}


def price_event(kind: str, symbol: str, price: float, decimals: int, event_ms: int) -> Event:
    """Return the trade of the newest second; for ``bookTicker`` the best bid and ask, a tick to either side of it."""
    at_ms = event_ms // SECOND_MS * SECOND_MS
    number = at_ms // SECOND_MS  # the same id for all clients, rising with time
    if kind == "bookTicker":
        tick = 10.0**-decimals
        bid, ask = f"{price - tick if price > tick else price:.8f}", f"{price + tick:.8f}"
        return {"u": number, "s": symbol, "b": bid, "B": "1.00000000", "a": ask, "A": "1.00000000"}
    event: Event = {"e": kind, "E": event_ms, "s": symbol, "p": f"{price:.8f}", "q": "0.01000000", "T": at_ms}
    event |= {"m": False, "M": True}
    return event | ({"t": number} if kind == "trade" else {"a": number, "f": number, "l": number})


def archive_csv(klines: Klines, *, microseconds: bool = False) -> bytes:
    """Return klines as the CSV of an archive, without a header row."""
    columns = _columns(klines)
    if microseconds:
        columns[0], columns[6] = klines.open_time_ms * 1_000, (klines.open_time_ms + klines.interval_ms) * 1_000 - 1
    frame = pl.DataFrame({str(n): column for n, column in enumerate(columns)})
    text = io.BytesIO()
    frame.with_columns(pl.lit("0").alias("ignore")).write_csv(text, include_header=False, float_precision=8)
    return text.getvalue()


def archive_zip(klines: Klines, name: str, end_ms: int) -> bytes:
    """Return klines as the zip of an archive, the same bytes every time.

    Args:
        name: of the file, without its ending.
        end_ms: end of the day or month; the zip is dated a little later.
    """
    packed = io.BytesIO()
    made = datetime.fromtimestamp(end_ms / 1_000, UTC)
    with zipfile.ZipFile(packed, "w") as archive:
        entry = zipfile.ZipInfo(f"{name}.csv", (made.year, made.month, made.day, 1, 14, 0))
        entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
        text = archive_csv(klines, microseconds=end_ms > MICROSECONDS_FROM_MS)
        archive.writestr(entry, text, compresslevel=1)
    return packed.getvalue()


def archive_span(date: str) -> Span | None:
    """Return the day or month of an archive's name; None if there is no such day or month.

    >>> archive_span("2024-02"), archive_span("2024-02-30")
    ((1706745600000, 1709251200000), None)
    """
    try:
        first = np.datetime64(date)
    except ValueError:
        return None
    start, end = (int(moment.astype("datetime64[ms]").astype(np.int64)) for moment in (first, first + 1))
    return start, end
