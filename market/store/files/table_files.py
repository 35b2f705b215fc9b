"""Klines in files for other programs, and from them: CSV, Parquet, and zips as Binance's archive has them."""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from core.clock import iso
from core.errors import ConfigError, MalformedKlines
from core.files import replace_file
from klines.checks import EARLIEST_MS, MOST_REJECTED, RejectedRow, check_rows
from klines.klines import COLUMNS, FLOW_COLUMNS, PRICE_COLUMNS, Floats, Ints, Klines
from klines.spans import interval_name
from market.store.files.tables import (
    POSITIONS,
    Bools,
    Table,
    from_csv,
    from_parquet,
    from_zip,
    milliseconds_in,
    numbers_in,
)

MICROSECONDS_FROM_MS = 1_735_689_600_000  # 2025-01-01: archives count in microseconds from here on
MILLISECONDS_FROM = 10**11  # as seconds this is the year 5138
NANOSECONDS_FROM = 10**17  # as microseconds this is the year 5138
SPREADSHEET_DAYS = 10**6  # days since 1900, as spreadsheets count them, stay below
TIME_FORMS = "must be milliseconds or microseconds since 1970 (13 or 16 digits), or a date such as 2024-03-01T00:00:00Z"
FLOW_FORMS = "must be a number not below 0; only a flow other than volume may be empty"
DECIMALS = 8  # Binance's
MOST_MISFITS = 0.05  # of the rows of a file without a header, by which its columns are known
# By rule of klines.checks, for messages: the columns to look at, and what their cells must be.
EXPECTED = {
    "open time before 2009": (("open_time",), TIME_FORMS),
    "open time is not on the grid": (("open_time",), "must be where a candle of {interval} opens, in UTC"),
    "open time is in the future": (("open_time",), "must be in the past, in UTC"),
    "two different rows of one time": (("open_time",), "must be in one row, and other rows have it with other numbers"),
    "a price is not finite and above 0": (PRICE_COLUMNS, "must be a number above 0, such as 0.5"),
    "volume is not finite": (("volume",), FLOW_FORMS),
    "a flow is below 0 or infinite": (FLOW_COLUMNS, FLOW_FORMS),
    "low is above open or close": (("low", "open", "close"), "the low must be the lowest"),
    "high is below open or close": (("high", "open", "close"), "the high must be the highest"),
    "quote volume is not between low and high times volume": (
        ("quote_volume", "volume", "low", "high"),
        "quote volume must be between low times volume and high times volume",
    ),
    "taker volume is above volume": (("taker_buy_base", "volume"), "takers cannot buy more than the volume"),
    "taker quote volume is above quote volume": (
        ("taker_buy_quote", "quote_volume"),
        "takers cannot buy for more than the quote volume",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KlineFile:
    """The klines of a file, and what was wrong with it."""

    klines: Klines
    rejected: tuple[RejectedRow, ...] = ()
    fault: str = ""  # of the first rejected rows: where it is, its cells, and what they must be
    member: str = ""  # name of the CSV in a zip
    symbols: tuple[str, ...] = ()  # that a column for symbols names
    notes: tuple[str, ...] = ()  # what was left out, or taken for granted


def ending_of(path: Path) -> str:
    """The form of a file: ``.csv``, ``.parquet`` or ``.zip``; raises ConfigError if it is another."""
    if path.suffix.lower() not in _WRITERS:
        raise ConfigError(f"{path}: a file of klines ends in {', '.join(_WRITERS)}; give it one of these endings")
    return path.suffix.lower()


def write_klines(path: Path, symbol: str, klines: Klines) -> None:
    """Write klines to a file in the form of its ending; every number can be read back as it was.

    CSV has a header, milliseconds, and nothing where a flow is not known. A zip holds one CSV as Binance's archive
    writes it: no header, 12 columns, microseconds from 2025 on, eight decimals unless they do not tell a number.

    Raises:
        ConfigError: the ending is another, or the file cannot be written.
    """
    write = _WRITERS[ending_of(path)]
    try:
        series = f"{symbol}-{interval_name(klines.interval_ms)}"
        replace_file(path, write(klines, path.stem if path.stem.startswith(series) else f"{series}-{path.stem}"))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; name a file in a folder that can be written and has room"
        ) from error


def read_klines(path: Path, interval_ms: int, now_ms: int) -> KlineFile:
    """Read the klines of a file in the form of its ending, and the rows that break a rule.

    Exact names in a header (or in Parquet) identify columns. A CSV without header has open time, prices and volume,
    or Binance's 12 columns, and must look like that. Times are milliseconds, microseconds or ISO dates, told apart in
    each row. All columns but time, prices and volume may be missing.

    Args:
        now_ms: rows that open later are rejected.
    Raises:
        ConfigError: the ending is another, or the file cannot be read.
        MalformedKlines: the file has no klines, or too many rows that are not klines; names the first such row.
    """
    read = _READERS[ending_of(path)]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a file that can be read") from error
    try:
        return _klines_of(read(content), interval_ms, now_ms)
    except MalformedKlines as error:
        raise MalformedKlines(f"{path}: {error}") from error


def _klines_of(table: Table, interval_ms: int, now_ms: int) -> KlineFile:
    times, is_dated = milliseconds_in(table.columns["open_time"])
    if not len(times):
        raise MalformedKlines("has no rows")
    _check_unit_of_time(table, times)
    numbers = {name: numbers_in(table.columns[name]) for name in COLUMNS if name in table.columns}
    rows = check_rows(interval_ms, times, numbers, now_ms=now_ms, few=len(times), strict=True)
    if table.titles["open_time"] == "column 1":
        _check_layout(table, interval_ms, times, numbers)
    fault = ""
    if rows.rejected:
        fault = _fault(table, min(rows.rejected, key=lambda row: row.place), interval_ms)
        if len(rows.rejected) > max(1, MOST_REJECTED * len(times)) or not len(rows.klines):
            raise MalformedKlines(f"{len(rows.rejected)} of {len(times)} rows are no klines, the first: {fault}")
    notes = [*table.notes, *(["times without an offset are read as UTC"] if is_dated else [])]
    if rows.marked:
        first = f"the first of {iso(rows.marked[0].open_time_ms)}: {rows.marked[0].reason}"
        notes.append(f"{len(rows.marked):,} rows used, and odd, {first}")
    if "trades" in numbers:
        odd = np.flatnonzero(~_counts(numbers["trades"], numbers["volume"])).tolist()
        if len(odd) > MOST_MISFITS * len(times):
            cell = table.cell("trades", odd[0])
            notes.append(f"{len(odd):,} rows whose trades count none, such as {table.place(odd[0])}: {cell}")
    symbols = table.columns.get("symbol", pl.Series(dtype=pl.String)).drop_nulls().unique().sort()
    return KlineFile(
        klines=rows.klines,
        rejected=tuple(
            replace(row, row=tuple(cell if cell < np.inf else np.nan for cell in row.row)) for row in rows.rejected
        ),
        fault=fault,
        member=table.member,
        symbols=tuple(map(str, symbols)),
        notes=tuple(notes),
    )


def _check_unit_of_time(table: Table, times: Ints) -> None:
    """Raises MalformedKlines where all times are in another unit."""
    newest, row = int(times.max()), int((times > 0).argmax())
    if 0 < newest < SPREADSHEET_DAYS:
        unit = "a spreadsheet counts days"
    elif 0 < newest < MILLISECONDS_FROM:
        unit = "seconds are to be multiplied by 1000"
    elif times.min() >= NANOSECONDS_FROM // 1000:
        unit = "nanoseconds are to be divided by 1,000,000"
    else:
        return
    raise MalformedKlines(f"{table.place(row)}: {table.cell('open_time', row)} {TIME_FORMS}; {unit}")


def _check_layout(table: Table, interval_ms: int, times: Ints, numbers: Mapping[str, Floats]) -> None:
    """Raises MalformedKlines where a file without a header has not Binance's columns, by close times and trades."""
    if "close_time" not in table.columns:
        return
    ends = numbers_in(table.columns["close_time"])
    trades, volume = numbers["trades"], numbers["volume"]
    end_ms, end = times + interval_ms, f"must be the end of its candle of {interval_name(interval_ms)}"
    checks = [
        ("close_time", (ends == end_ms - 1) | (ends == end_ms * 1000 - 1), end),
        ("trades", _counts(trades, volume), "must count trades"),
    ]
    for name, fits, expected in checks:
        odd = np.flatnonzero(~fits & (times >= 0)).tolist()
        if len(odd) > MOST_MISFITS * len(times):
            raise MalformedKlines(
                f"{table.place(odd[0])}: {table.cell(name, odd[0])} {expected}, as in Binance's 12 columns; "
                "a file with others needs a header with their names"
            )


def _counts(trades: Floats, volume: Floats) -> Bools:
    """True for each number that can be a count of trades, or is not known."""
    fits: Bools = np.isnan(trades) | (trades == np.floor(trades)) & ((trades > 0) == (volume > 0))
    return fits


def _fault(table: Table, rejected: RejectedRow, interval_ms: int) -> str:
    """Name a rejected rows's place and cells, and what the cells must be."""
    row = rejected.place
    if row in table.torn:
        return f"{table.place(row)} {table.torn[row]}"
    rule = "open time before 2009" if rejected.open_time_ms < EARLIEST_MS else rejected.reason
    names, expected = EXPECTED[rule]
    at = dict(zip(COLUMNS, rejected.row, strict=True))
    impossible = [name for name in names if name in at and not _can_be(name, at[name])]
    names = tuple(impossible[:1]) or names
    cells = ", ".join(table.cell(name, row) for name in names) + (":" if len(names) > 1 else "")
    return f"{table.place(row)}: {cells} {expected.format(interval=interval_name(interval_ms))}"


def _can_be(name: str, number: float) -> bool:
    """True if a price or flow can have a number by itself; a flow but volume may be unknown."""
    if name in PRICE_COLUMNS:
        return 0 < number < np.inf
    return 0 <= number < np.inf or (name != "volume" and np.isnan(number))


# -- writing ----------------------------------------------------------------------------------------------------------


def _frame(klines: Klines) -> pl.DataFrame:
    return pl.DataFrame({"open_time_ms": klines.open_time_ms, **{name: getattr(klines, name) for name in COLUMNS}})


def _parquet(klines: Klines, _: str) -> bytes:
    buffer = io.BytesIO()
    _frame(klines).write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _csv(klines: Klines, _: str) -> bytes:
    frame = _frame(klines).rename({"open_time_ms": "open_time"}).with_columns(pl.col(FLOW_COLUMNS).fill_nan(None))
    if not (klines.trades % 1 > 0).any():
        frame = frame.with_columns(pl.col("trades").cast(pl.Int64))
    return frame.write_csv().encode()


def _zip(klines: Klines, name: str) -> bytes:
    times = klines.open_time_ms
    scale = np.where(times >= MICROSECONDS_FROM_MS, 1000, 1)
    counted = bool(_counts(klines.trades, klines.volume).all())
    frame = _frame(klines).with_columns(pl.col(FLOW_COLUMNS).fill_nan(None))
    frame = frame.with_columns(
        open_time=times * scale,
        close_time=(times + klines.interval_ms) * scale - 1,
        trades=pl.col("trades").cast(pl.Int64) if counted else pl.col("trades"),
        ignore=pl.lit(0),
    ).select(POSITIONS)
    # Without a header, what is in the column of trades must look like that.
    text = frame.write_csv(include_header=not counted, float_precision=DECIMALS).encode()
    told = from_csv(text).columns
    if any(not np.array_equal(numbers_in(told[n]), getattr(klines, n), equal_nan=True) for n in COLUMNS):
        text = frame.write_csv(include_header=not counted).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{name}.csv"), text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


_WRITERS: dict[str, Callable[[Klines, str], bytes]] = {".csv": _csv, ".parquet": _parquet, ".zip": _zip}
_READERS: dict[str, Callable[[bytes], Table]] = {".csv": from_csv, ".parquet": from_parquet, ".zip": from_zip}
