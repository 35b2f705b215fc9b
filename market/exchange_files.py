"""Klines in files for other programs, and from them: CSV, Parquet, and zips as Binance's archive has them."""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from core.errors import ConfigError, MalformedKlines
from core.files import replace_file
from market.archive import MICROSECONDS_FROM, unzipped
from market.klines import COLUMNS, FLOW_COLUMNS, PRICE_COLUMNS, Klines, interval_name
from market.quality import Sifted, sift

MICROSECONDS_FROM_MS = 1_735_689_600_000  # 2025-01-01: archives count in microseconds from here on
MILLISECONDS_FROM = 10**11  # as seconds this is the year 5138
LIMIT_BYTES = 4 << 30  # of a CSV in a zip: years of minutes are 100 MB each
DECIMALS = 8  # Binance's
# Of a file without a header, as Binance orders them; one of n columns has the first n.
POSITIONS = ("open_time", *PRICE_COLUMNS, "volume", "close_time", *FLOW_COLUMNS[1:], "ignore")
LEAST_COLUMNS = 6
NEEDED = (*PRICE_COLUMNS, "volume")
# Other names for the columns: of our own files, and of the headers that Binance and programs around it write.
ALIASES = {
    "open_time_ms": "open_time",
    "opentime": "open_time",
    "timestamp": "open_time",
    "time": "open_time",
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
}


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


def read_klines(path: Path, interval_ms: int, now_ms: int) -> Sifted:
    """Klines of a file in the form its ending says, and the rows that break a rule.

    Times are in milliseconds or microseconds, told apart in each row. A CSV has a header or, without one, 6 to 12
    columns in Binance's order; Parquet has our columns or those names. Flow columns may be missing.

    Args:
        now_ms: rows that open later are refused.
    Raises:
        ConfigError: the ending is another, or the file cannot be read.
        MalformedKlines: it holds no klines, or too many rows that are none.
    """
    read = _READERS[ending_of(path)]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a file that can be read") from error
    try:
        columns = read(content)
        missing = [name for name in ("open_time", *NEEDED) if name not in columns]
        if missing:
            only = ", ".join(columns)
            hint = "; separate columns by commas" if len(columns) == 1 and {";", "\t", "|"} & set(only) else ""
            raise MalformedKlines(f"has no column {', '.join(missing)}, only {only[:200]}{hint}")
        times = _milliseconds(columns["open_time"])
        if not len(times):
            raise MalformedKlines("has no rows")
        if 0 < times.max() < MILLISECONDS_FROM:
            raise MalformedKlines(
                f"open times must be in milliseconds or microseconds, was {times.max()}; seconds are to be multiplied "
                "by 1000"
            )
        numbers = {name: _numbers(columns[name]) for name in COLUMNS if name in columns}
        return sift(interval_ms, times, numbers, now_ms=now_ms)
    except MalformedKlines as error:
        raise MalformedKlines(f"{path}: {error}") from error


# -- writing ----------------------------------------------------------------------------------------------------------


def _frame(klines: Klines) -> pl.DataFrame:
    return pl.DataFrame({"open_time_ms": klines.open_time_ms, **{name: getattr(klines, name) for name in COLUMNS}})


def _parquet(klines: Klines, _: str) -> bytes:
    buffer = io.BytesIO()
    _frame(klines).write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _csv(klines: Klines, _: str) -> bytes:
    frame = _frame(klines).rename({"open_time_ms": "open_time"})
    return frame.with_columns(pl.col(FLOW_COLUMNS).fill_nan(None)).write_csv().encode()


def _zip(klines: Klines, name: str) -> bytes:
    times, closes = klines.open_time_ms, klines.open_time_ms + klines.interval_ms
    micro = times >= MICROSECONDS_FROM_MS
    counted = bool((np.isnan(klines.trades) | (klines.trades % 1 == 0)).all())
    frame = _frame(klines).with_columns(pl.col(FLOW_COLUMNS).fill_nan(None))
    frame = frame.with_columns(
        open_time=np.where(micro, times * 1000, times),
        close_time=np.where(micro, closes * 1000, closes) - 1,
        trades=pl.col("trades").cast(pl.Int64) if counted else pl.col("trades"),
        ignore=pl.lit(0),
    ).select(POSITIONS)
    text = frame.write_csv(include_header=False, float_precision=DECIMALS).encode()
    told = _from_csv(text)
    if any(not np.array_equal(_numbers(told[n]), getattr(klines, n), equal_nan=True) for n in COLUMNS):
        text = frame.write_csv(include_header=False).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(f"{name}.csv"), text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


# -- reading ----------------------------------------------------------------------------------------------------------


def _from_zip(content: bytes) -> Mapping[str, pl.Series]:
    return _from_csv(unzipped(content, LIMIT_BYTES))


def _from_csv(content: bytes) -> Mapping[str, pl.Series]:
    """Columns by our names, as texts."""
    content = content.removeprefix(b"\xef\xbb\xbf").strip()
    first = content.split(b"\n", 1)[0]
    has_header = first[:1].isalpha() or first[:1] in {b'"', b"_"}
    if not content:
        raise MalformedKlines("is empty")
    try:
        frame = pl.read_csv(content, has_header=has_header, infer_schema=False, raise_if_empty=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise MalformedKlines(f"is no CSV that can be read: {str(error).splitlines()[0]}") from error
    if has_header:
        return _named(frame)
    if not LEAST_COLUMNS <= frame.width <= len(POSITIONS):
        raise MalformedKlines(
            f"without a header a row has {LEAST_COLUMNS} to {len(POSITIONS)} columns, was {frame.width}; "
            "separate them by commas, or write a header with their names"
        )
    return dict(zip(POSITIONS, frame.get_columns(), strict=False))


def _from_parquet(content: bytes) -> Mapping[str, pl.Series]:
    try:
        return _named(pl.read_parquet(content))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise MalformedKlines(f"is no Parquet file that can be read: {str(error).splitlines()[0]}") from error


def _named(frame: pl.DataFrame) -> Mapping[str, pl.Series]:
    columns: dict[str, pl.Series] = {}
    for name, column in zip(frame.columns, frame.get_columns(), strict=True):
        plain = name.strip().lower().replace(" ", "_")
        columns.setdefault(ALIASES.get(plain, plain), column)
    return columns


def _numbers(column: pl.Series) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """``(T,)``; NaN where there is nothing, infinite, which no rule allows, where there is something else."""
    if column.dtype == pl.String:
        texts = column.str.strip_chars()
        found = texts.cast(pl.Float64, strict=False)
        empty = texts.is_null() | (texts == "") | (texts.str.to_lowercase() == "nan")
        wrong = (found.is_null() & ~empty).fill_null(value=False).to_numpy()
    else:
        if not (column.dtype.is_numeric() or column.dtype == pl.Null):
            raise MalformedKlines(f"column {column.name} holds {column.dtype}, must be numbers")
        found, wrong = column.cast(pl.Float64), np.zeros(len(column), np.bool_)
    numbers = np.array(found.fill_null(np.nan).to_numpy(), np.float64)
    numbers[wrong] = np.inf
    return numbers


def _milliseconds(column: pl.Series) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """``(T,)``; -1, which is on no grid, where there is no whole number of milliseconds or microseconds."""
    if column.dtype == pl.Datetime:
        column = column.dt.epoch("us")
    elif column.dtype == pl.String:
        column = column.str.strip_chars()
    elif not column.dtype.is_numeric():
        raise MalformedKlines(f"column {column.name} holds {column.dtype}, must be milliseconds or microseconds")
    number = column.cast(pl.Float64, strict=False)  # holds both units exactly
    whole = number.cast(pl.Int64, strict=False)
    whole = whole.set(whole.cast(pl.Float64) != number, None)
    times = np.array(whole.fill_null(-1).to_numpy(), np.int64)
    micro = times >= MICROSECONDS_FROM
    times[micro & (times % 1000 != 0)] = -1
    return np.where(micro & (times >= 0), times // 1000, times)


_WRITERS: dict[str, Callable[[Klines, str], bytes]] = {".csv": _csv, ".parquet": _parquet, ".zip": _zip}
_READERS: dict[str, Callable[[bytes], Mapping[str, pl.Series]]] = {
    ".csv": _from_csv,
    ".parquet": _from_parquet,
    ".zip": _from_zip,
}
