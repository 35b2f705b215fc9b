"""Klines in files for other programs, and from them: CSV, Parquet, and zips as Binance's archive has them."""

import csv
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from core.clock import DAY_MS, iso
from core.errors import ConfigError, MalformedKlines
from core.files import replace_file
from klines.checks import EARLIEST_MS, MOST_REFUSED, RejectedRow, separate_rows
from klines.klines import COLUMNS, FLOW_COLUMNS, PRICE_COLUMNS, Floats, Ints, Klines
from klines.spans import interval_name
from market.venues.binance.archive import MICROSECONDS_FROM, csv_in_zip

MICROSECONDS_FROM_MS = 1_735_689_600_000  # 2025-01-01: archives count in microseconds from here on
MILLISECONDS_FROM = 10**11  # as seconds this is the year 5138
NANOSECONDS_FROM = 10**17  # as microseconds this is the year 5138
SPREADSHEET_DAYS = 10**6  # days since 1900, as spreadsheets count them, stay below
LIMIT_BYTES = 4 << 30  # of a CSV in a zip: years of minutes are 100 MB each
DECIMALS = 8  # Binance's
MOST_MISFITS = 0.05  # of the rows of a file without a header, by which its columns are known
NEEDED = ("open_time", *PRICE_COLUMNS, "volume")
# The two orders that are read without a header: the needed columns, or Binance's.
POSITIONS = (*NEEDED, "close_time", *FLOW_COLUMNS[1:], "ignore")
# Other names for the columns: of our own files, and of the headers that Binance and programs around it write.
ALIASES = {
    "open_time_ms": "open_time",
    "opentime": "open_time",
    "timestamp": "open_time",
    "time": "open_time",
    "date": "open_time",
    "datetime": "open_time",
    "quote_asset_volume": "quote_volume",
    "quote_vol": "quote_volume",
    "count": "trades",
    "num_trades": "trades",
    "number_of_trades": "trades",
    "taker_buy_volume": "taker_buy_base",
    "taker_buy_base_volume": "taker_buy_base",
    "taker_buy_base_asset_volume": "taker_buy_base",
    "taker_buy_vol": "taker_buy_base",
    "taker_buy_quote_volume": "taker_buy_quote",
    "taker_buy_quote_asset_volume": "taker_buy_quote",
    "pair": "symbol",
    "ticker": "symbol",
}
UNREAD = {"close_time", "ignore", "symbol"}  # known names that hold nothing of a kline
COMMENTS = ("#", "//")  # what a line of a CSV begins with that holds no row
NOTHING = {"", "null", "nan", "none", "na", "n/a"}  # an empty cell, as programs write it
SEPARATE = "write decimals with a point and separate columns by commas"
TIME_FORMS = "must be milliseconds or microseconds since 1970 (13 or 16 digits), or a date such as 2024-03-01T00:00:00Z"
# What a row that breaks a rule of market.quality is told with: the columns to look at, and what they must be.
EXPECTED = {
    "open time is not on the grid": (("open_time",), "must be where a candle of {interval} opens, in UTC"),
    "open time is in the future": (("open_time",), "must be in the past, in UTC"),
    "two different rows of one time": (("open_time",), "must be in one row, and other rows have it with other numbers"),
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

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class KlineFile:
    """What a file holds."""

    klines: Klines
    refused: tuple[RejectedRow, ...] = ()
    fault: str = ""  # of the first refused row: where it is, its cells, and what they must be
    member: str = ""  # name of the CSV in a zip
    symbols: tuple[str, ...] = ()  # that a column for symbols names
    notes: tuple[str, ...] = ()  # what was left out, or taken for granted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Columns of a file as it has them."""

    columns: Mapping[str, pl.Series]  # by our names
    titles: Mapping[str, str]  # by our names: as the file calls them
    lines: Sequence[int] | None = None  # of each row in its file; None where rows are no lines
    torn: Mapping[int, str] = field(default_factory=dict)  # rows that have too many or few cells, and in words how many
    member: str = ""
    notes: tuple[str, ...] = ()

    def cell(self, name: str, row: int) -> str:
        found = self.columns[name][row]
        return f"{self.titles[name]} {('' if found is None else str(found))[:40]!r}"

    def place(self, row: int) -> str:
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"


def ending_of(path: Path) -> str:
    """Which of the three forms a file has: ``.csv``, ``.parquet`` or ``.zip``.

    Raises:
        ConfigError: none of them.
    """
    if path.suffix.lower() not in _WRITERS:
        raise ConfigError(f"{path}: a file of klines ends in {', '.join(_WRITERS)}; give it one of these endings")
    return path.suffix.lower()


def write_klines(path: Path, symbol: str, klines: Klines) -> None:
    """Klines as a file in the form its ending says; every number can be read back as it was.

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
    """Klines of a file in the form its ending says, and the rows that break a rule.

    Columns are told by the exact names of a header (or of Parquet). A CSV without one has open time, prices and volume,
    or Binance's 12 columns, and must look like that. Times are milliseconds, microseconds or ISO dates, told apart in
    each row. All columns but time, prices and volume may be missing.

    Args:
        now_ms: rows that open later are refused.
    Raises:
        ConfigError: the ending is another, or the file cannot be read.
        MalformedKlines: it holds no klines, or too many rows that are none; names the first such row and its cells.
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


def _klines_of(table: _Table, interval_ms: int, now_ms: int) -> KlineFile:
    times, dated = _milliseconds(table.columns["open_time"])
    if not len(times):
        raise MalformedKlines("has no rows")
    _check_unit_of_time(table, times)
    found = {name: _numbers(table.columns[name]) for name in COLUMNS if name in table.columns}
    numbers = {name: column for name, (column, _) in found.items()}
    wrong = {name: unread for name, (_, unread) in found.items()}
    # What is in no cell must break a rule: infinity where there is something else than a number.
    sifted = separate_rows(
        interval_ms, times, {n: np.where(wrong[n], np.inf, numbers[n]) for n in numbers}, now_ms=now_ms, strict=True
    )
    if table.titles["open_time"] == "column 1":
        _check_layout(table, interval_ms, times, numbers)
    refused = tuple(
        replace(one, row=tuple(float(numbers[n][one.place]) if n in numbers else np.nan for n in COLUMNS))
        for one in sifted.refused
    )
    fault = ""
    if refused:
        first = min(refused, key=lambda one: one.place)
        fault = _fault(table, first, bool(times[first.place] < EARLIEST_MS), wrong, interval_ms)
        if len(refused) > max(1, MOST_REFUSED * len(times)) or not len(sifted.klines):
            raise MalformedKlines(f"{len(refused)} of {len(times)} rows are no klines, the first: {fault}")
    notes = [*table.notes, *(["times without an offset are read as UTC"] if dated else [])]
    if sifted.marked:
        first_odd = sifted.marked[0]
        notes.append(
            f"{len(sifted.marked):,} rows used, and odd, the first of {iso(first_odd.open_time_ms)}: {first_odd.reason}"
        )
    if "trades" in numbers:
        odd = np.flatnonzero(~_counts(numbers["trades"], numbers["volume"])).tolist()
        if len(odd) > MOST_MISFITS * len(times):
            cell = table.cell("trades", odd[0])
            notes.append(f"{len(odd):,} rows whose trades count none, such as {table.place(odd[0])}: {cell}")
    symbols: tuple[str, ...] = ()
    if "symbol" in table.columns:
        symbols = tuple(str(one) for one in table.columns["symbol"].drop_nulls().unique().sort().to_list())
    return KlineFile(
        klines=sifted.klines, refused=refused, fault=fault, member=table.member, symbols=symbols, notes=tuple(notes)
    )


def _check_unit_of_time(table: _Table, times: Ints) -> None:
    """Times that are all in another unit are told as that."""
    newest, row = int(times.max()), int((times > 0).argmax())
    first = table.cell("open_time", row)
    if 0 < newest < SPREADSHEET_DAYS:
        raise MalformedKlines(f"{table.place(row)}: {first} {TIME_FORMS}; a spreadsheet counts days")
    if 0 < newest < MILLISECONDS_FROM:
        raise MalformedKlines(f"{table.place(row)}: {first} {TIME_FORMS}; seconds are to be multiplied by 1000")
    if times.min() >= NANOSECONDS_FROM // 1000:
        raise MalformedKlines(f"{table.place(row)}: {first} {TIME_FORMS}; nanoseconds are to be divided by 1,000,000")


def _check_layout(table: _Table, interval_ms: int, times: Ints, numbers: Mapping[str, Floats]) -> None:
    """A file without a header has Binance's columns if its close times and numbers of trades are such."""
    if "close_time" not in table.columns:
        return
    ends, _ = _numbers(table.columns["close_time"])
    trades, volume = numbers["trades"], numbers["volume"]
    checks = [
        (
            "close_time",
            _ends(ends, times + interval_ms),
            f"must be the end of its candle of {interval_name(interval_ms)}",
        ),
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
    """Which numbers of trades are such, as far as they are known."""
    fits: Bools = np.isnan(trades) | (trades % 1 == 0) & ((trades > 0) == (volume > 0))
    return fits


def _ends(cells: Floats, end_ms: Ints) -> Bools:
    fits: Bools = (cells == end_ms - 1) | (cells == end_ms * 1000 - 1)
    return fits


def _fault(table: _Table, refused: RejectedRow, untimed: bool, wrong: Mapping[str, Bools], interval_ms: int) -> str:
    """Where a refused row is, its cells, and what they must be."""
    row = refused.place
    if row in table.torn:
        return f"{table.place(row)} {table.torn[row]}"
    place = f"{table.place(row)}: "
    if untimed:
        return f"{place}{table.cell('open_time', row)} {TIME_FORMS}"
    for name in wrong:
        if wrong[name][row]:
            return f"{place}{table.cell(name, row)} must be a number such as 0.5"
    at = dict(zip(COLUMNS, refused.row, strict=True))
    for name in (*PRICE_COLUMNS, "volume"):
        if not np.isfinite(at[name]) or at[name] < 0 or (name != "volume" and at[name] == 0):
            return f"{place}{table.cell(name, row)} must be a number {'not below 0' if name == 'volume' else 'above 0'}"
    for name in FLOW_COLUMNS:
        if at[name] < 0 or np.isinf(at[name]):
            return f"{place}{table.cell(name, row)} must be a number not below 0, or nothing"
    names, expected = EXPECTED[refused.reason]
    cells = ", ".join(table.cell(name, row) for name in names)
    return f"{place}{cells}{':' if len(names) > 1 else ''} {expected.format(interval=interval_name(interval_ms))}"


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
    times, closes = klines.open_time_ms, klines.open_time_ms + klines.interval_ms
    micro = times >= MICROSECONDS_FROM_MS
    counted = bool(_counts(klines.trades, klines.volume).all())
    frame = _frame(klines).with_columns(pl.col(FLOW_COLUMNS).fill_nan(None))
    frame = frame.with_columns(
        open_time=np.where(micro, times * 1000, times),
        close_time=np.where(micro, closes * 1000, closes) - 1,
        trades=pl.col("trades").cast(pl.Int64) if counted else pl.col("trades"),
        ignore=pl.lit(0),
    ).select(POSITIONS)
    # Without a header, what is in the column of trades must look like that.
    text = frame.write_csv(include_header=not counted, float_precision=DECIMALS).encode()
    told = _from_csv(text).columns
    if any(not np.array_equal(_numbers(told[n])[0], getattr(klines, n), equal_nan=True) for n in COLUMNS):
        text = frame.write_csv(include_header=not counted).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{name}.csv"), text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


# -- reading ----------------------------------------------------------------------------------------------------------


def _from_zip(content: bytes) -> _Table:
    member, text = csv_in_zip(content, LIMIT_BYTES)
    return replace(_from_csv(text), member=member)


def _from_csv(content: bytes) -> _Table:
    lines = _text(content).splitlines()
    comments = sum(1 for line in lines if line.lstrip().startswith(COMMENTS))
    kept = [number for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(COMMENTS)]
    if not kept:
        raise MalformedKlines("is empty")
    first = _cells(lines[kept[0]])
    named = not first[0][:1].isdigit()  # or it is a row, whatever separates its cells
    headed = named and not any(_is_number(cell) or _iso_ms(cell) is not None for cell in first)
    if headed:
        places, titles, notes = _named(first)
        del kept[0]
    else:
        if len(first) not in {len(NEEDED), len(POSITIONS)}:
            raise MalformedKlines(
                f"without a header a row has {len(NEEDED)} or {len(POSITIONS)} columns, was {len(first)} in line "
                f"{kept[0] + 1}: {lines[kept[0]][:80]!r}; {SEPARATE}, and write a header with their names "
                f"where they are others than {', '.join(NEEDED)} (or Binance's 12)"
            )
        places = {name: number for number, name in enumerate(POSITIONS[: len(first)])}
        titles, notes = {name: f"column {number + 1}" for name, number in places.items()}, []
    torn, blank = {}, "," * (len(first) - 1)
    rows = []
    for row, number in enumerate(kept):
        line = lines[number]
        count = line.count(",") + 1 if '"' not in line else len(_cells(line))
        if count != len(first):
            torn[row] = f"has {count} cells, must have {len(first)}: {line[:80]!r}"
        rows.append(blank if row in torn else line)
    text = "\n".join([",".join(map(str, range(len(first)))), *rows])
    try:
        frame = pl.read_csv(text.encode(), infer_schema=False, raise_if_empty=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise MalformedKlines(f"is no CSV that can be read: {str(error).splitlines()[0]}") from error
    if len(frame) != len(rows):
        raise MalformedKlines("is no CSV that can be read: a quote is not closed in its line")
    return _Table(
        columns={name: frame.to_series(number) for name, number in places.items()},
        titles=titles,
        lines=[number + 1 for number in kept],
        torn=torn,
        notes=(*notes, *([f"{comments} comment lines left out"] if comments else [])),
    )


def _text(content: bytes) -> str:
    """The text of a CSV, whatever byte order mark it has."""
    for magic, said in ((b"PK\x03\x04", "a zip: let its name end in .zip"), (b"PAR1", "Parquet: let its name end so")):
        if content.startswith(magic):
            raise MalformedKlines(f"is {said}")
    if content.startswith(b"\x1f\x8b"):
        raise MalformedKlines("is compressed by gzip: unpack it first")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MalformedKlines(
            f"line {line} holds the byte 0x{content[error.start]:02x}, which is no text: save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise MalformedKlines(f"line {line} holds the byte 0x00, which is no text: save the file as UTF-8")
    return text


def _cells(line: str) -> list[str]:
    return next(csv.reader([line], skipinitialspace=True), [])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell.strip().lower() not in NOTHING


def _from_parquet(content: bytes) -> _Table:
    try:
        frame = pl.read_parquet(content)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise MalformedKlines(f"is no Parquet file that can be read: {str(error).splitlines()[0]}") from error
    places, titles, notes = _named(frame.columns)
    columns = {name: frame.to_series(number) for name, number in places.items()}
    for name, column in columns.items():
        numeric = column.dtype.is_numeric() or column.dtype in {pl.String, pl.Null}
        if name not in UNREAD and not numeric and not (name == "open_time" and column.dtype.is_temporal()):
            wanted = "milliseconds or microseconds" if name == "open_time" else "numbers"
            raise MalformedKlines(f"{titles[name]} holds {column.dtype}, must be {wanted}")
    return _Table(columns=columns, titles=titles, notes=tuple(notes))


def _named(names: Sequence[str]) -> tuple[dict[str, int], dict[str, str], list[str]]:
    """Of each column that is known by its name: where it is, and as the file calls it; and what is said of the others.

    Raises:
        MalformedKlines: a needed column is missing, or one is there twice.
    """
    places: dict[str, int] = {}
    unknown = []
    for number, name in enumerate(names):
        plain = name.strip().lower().replace(" ", "_")
        ours = ALIASES.get(plain, plain)
        if ours not in {*POSITIONS, *UNREAD}:
            unknown.append(name.strip() or f"number {number + 1} without a name")
        elif ours in places:
            raise MalformedKlines(
                f"has the column {ours} twice: {names[places[ours]].strip()!r} is column {places[ours] + 1} and "
                f"{name.strip()!r} column {number + 1}; rename the one that it is not"
            )
        else:
            places[ours] = number
    if missing := [name for name in NEEDED if name not in places]:
        only = ", ".join(name.strip() for name in names)
        hint = f"; {SEPARATE}" if len(names) == 1 and {";", "\t", "|"} & set(only) else ""
        raise MalformedKlines(f"has no column {', '.join(missing)}, only {only[:200]}{hint}")
    titles = {ours: f"column {names[number].strip()}" for ours, number in places.items()}
    return places, titles, [f"columns not read: {', '.join(unknown)[:200]}"] if unknown else []


def _numbers(column: pl.Series) -> tuple[Floats, Bools]:
    """``(T,)`` numbers, NaN where there is none, and where there is something else."""
    if column.dtype != pl.String:
        return np.array(column.cast(pl.Float64).fill_null(np.nan).to_numpy()), np.zeros(len(column), np.bool_)
    texts = column.str.strip_chars()
    found = texts.cast(pl.Float64, strict=False)
    empty = texts.is_null() | texts.str.to_lowercase().is_in(list(NOTHING))
    numbers = np.array(found.fill_null(np.nan).to_numpy(), np.float64)
    return numbers, (found.is_null() & ~empty).fill_null(value=False).to_numpy()


def _milliseconds(column: pl.Series) -> tuple[Ints, bool]:
    """``(T,)`` times, below 0, which is on no grid, where there is none; and if some are dates without an offset."""
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).dt.epoch("us")
    texts = column.str.strip_chars() if column.dtype == pl.String else None
    number = (column if texts is None else texts).cast(pl.Float64, strict=False)  # holds both units exactly
    whole = number.cast(pl.Int64, strict=False)
    whole = whole.set(whole.cast(pl.Float64) != number, None)
    times = np.array(whole.fill_null(-1).to_numpy(), np.int64)
    micro = times >= MICROSECONDS_FROM
    times[micro & (times % 1000 != 0)] = -1
    times = np.where(micro & (times >= 0), times // 1000, times)
    dated = False
    if texts is not None:
        for row in np.flatnonzero(number.is_null().to_numpy()).tolist():
            at = _iso_ms(texts[row] or "")
            if at is not None:
                times[row], dated = at[0], dated or not at[1]
    return times, dated


def _iso_ms(text: str) -> tuple[int, bool] | None:
    """A date or moment as a time, and whether it names its offset; None where it is none, or not of whole ms."""
    text = text.strip()
    if len(text) < len("2024-03-01") or text[4] != "-":
        return None
    text = f"{text[:-3].strip()}Z" if text.upper().endswith("UTC") else text
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    told = at.tzinfo is not None
    since = (at if told else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    if since.microseconds % 1000:
        return None
    return since.days * DAY_MS + since.seconds * 1000 + since.microseconds // 1000, told


_WRITERS: dict[str, Callable[[Klines, str], bytes]] = {".csv": _csv, ".parquet": _parquet, ".zip": _zip}
_READERS: dict[str, Callable[[bytes], _Table]] = {".csv": _from_csv, ".parquet": _from_parquet, ".zip": _from_zip}
