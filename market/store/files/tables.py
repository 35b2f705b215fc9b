"""Columns of a CSV, a zip or a Parquet file, by our names, as the file has them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from core.errors import MalformedKlines
from klines.klines import PRICE_COLUMNS, Floats, Ints
from market.venues.binance.archive import csv_in_zip
from market.venues.binance.rows import MICROSECONDS_FROM, ROW

LIMIT_BYTES = 4 << 30  # of a CSV in a zip: years of minutes are 100 MB each
NEEDED = ("open_time", *PRICE_COLUMNS, "volume")
# The two orders that are read without a header: the needed columns, or Binance's.
POSITIONS = ROW
# Other names for the columns: of our own files, and of the headers that Binance and programs around it write.
OTHER_NAMES = {
    "open_time": ("open_time_ms", "opentime", "timestamp", "time", "date", "datetime"),
    "quote_volume": ("quote_asset_volume", "quote_vol"),
    "trades": ("count", "num_trades", "number_of_trades"),
    "taker_buy_base": ("taker_buy_volume", "taker_buy_base_volume", "taker_buy_base_asset_volume", "taker_buy_vol"),
    "taker_buy_quote": ("taker_buy_quote_volume", "taker_buy_quote_asset_volume"),
    "symbol": ("pair", "ticker"),
}
OURS = {name: ours for ours, names in OTHER_NAMES.items() for name in names}
UNREAD = {"close_time", "ignore", "symbol"}  # known names that hold nothing of a kline
COMMENTS = ("#", "//")  # what a line of a CSV begins with that holds no row
NOTHING = {"", "null", "nan", "none", "na", "n/a"}  # an empty cell, as programs write it
SEPARATE = "write decimals with a point and separate columns by commas"

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns of a file, as the file has them."""

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


def from_zip(content: bytes) -> Table:
    member, text = csv_in_zip(content, LIMIT_BYTES)
    return replace(from_csv(text), member=member)


def from_csv(content: bytes) -> Table:
    lines = _text(content).splitlines()
    filled = [number for number, line in enumerate(lines) if line.strip()]
    kept = [number for number in filled if not lines[number].lstrip().startswith(COMMENTS)]
    comments = len(filled) - len(kept)
    if not kept:
        raise MalformedKlines("is empty")
    first = _cells(lines[kept[0]])
    width = len(first)
    notes: list[str] = []
    # A first cell that begins with a digit is of a row, whatever separates its cells.
    if not first[0][:1].isdigit() and not any(_is_number(cell) or _iso_ms(cell) is not None for cell in first):
        places, titles, notes = _named(first)
        del kept[0]
    elif width not in {len(NEEDED), len(POSITIONS)}:
        raise MalformedKlines(
            f"without a header a row has {len(NEEDED)} or {len(POSITIONS)} columns, was {width} in line "
            f"{kept[0] + 1}: {lines[kept[0]][:80]!r}; {SEPARATE}, and write a header with their names "
            f"where they are others than {', '.join(NEEDED)} (or Binance's 12)"
        )
    else:
        places = {name: number for number, name in enumerate(POSITIONS[:width])}
        titles = {name: f"column {number + 1}" for name, number in places.items()}
    torn = {}
    rows = [lines[number] for number in kept]
    for row, line in enumerate(rows):
        count = line.count(",") + 1 if '"' not in line else len(_cells(line))
        if count != width:
            torn[row] = f"has {count} cells, must have {width}: {line[:80]!r}"
            rows[row] = "," * (width - 1)
    text = "\n".join([",".join(map(str, range(width))), *rows])
    try:
        frame = pl.read_csv(text.encode(), infer_schema=False, raise_if_empty=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise MalformedKlines(f"is no CSV that can be read: {str(error).splitlines()[0]}") from error
    if len(frame) != len(rows):
        raise MalformedKlines("is no CSV that can be read: a quote is not closed in its line")
    if comments:
        notes.append(f"{comments} comment lines left out")
    return Table(
        columns={name: frame.to_series(number) for name, number in places.items()},
        titles=titles,
        lines=[number + 1 for number in kept],
        torn=torn,
        notes=tuple(notes),
    )


def _text(content: bytes) -> str:
    """The text of a CSV, with any byte order mark."""
    for magic, form in ((b"PK\x03\x04", "a zip: let its name end in .zip"), (b"PAR1", "Parquet: let its name end so")):
        if content.startswith(magic):
            raise MalformedKlines(f"is {form}")
    if content.startswith(b"\x1f\x8b"):
        raise MalformedKlines("is compressed by gzip: unpack it first")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
    else:
        if "\0" not in text:
            return text
        line, byte = text.count("\n", 0, text.index("\0")) + 1, 0
    raise MalformedKlines(f"line {line} holds the byte 0x{byte:02x}, which is no text: save the file as UTF-8")


def _cells(line: str) -> list[str]:
    return next(csv.reader([line], skipinitialspace=True), [])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell.strip().lower() not in NOTHING


def from_parquet(content: bytes) -> Table:
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
    return Table(columns=columns, titles=titles, notes=tuple(notes))


def _named(names: Sequence[str]) -> tuple[dict[str, int], dict[str, str], list[str]]:
    """Return place and title of each known column, by our name; and notes about the other columns.

    Raises:
        MalformedKlines: a needed column is missing, or one is there twice.
    """
    places: dict[str, int] = {}
    unknown = []
    for number, name in enumerate(names):
        plain = name.strip().lower().replace(" ", "_")
        ours = OURS.get(plain, plain)
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


def numbers_in(column: pl.Series) -> Floats:
    """``(T,)`` numbers: NaN for an empty cell; infinite, which no rule allows, for a text that is not a number."""
    if column.dtype == pl.String:
        texts = column.str.strip_chars()
        is_empty = texts.is_null() | texts.str.to_lowercase().is_in(list(NOTHING))
        numbers = texts.cast(pl.Float64, strict=False)
        column = numbers.set(numbers.is_null() & ~is_empty, np.inf)
    return np.array(column.cast(pl.Float64).fill_null(np.nan).to_numpy())


def milliseconds_in(column: pl.Series) -> tuple[Ints, bool]:
    """``(T,)`` times, below 0 for a cell that is not a time; and True if some are dates without an offset."""
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).dt.epoch("us")
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    number = column.cast(pl.Float64, strict=False)  # holds both units exactly
    whole = number.cast(pl.Int64, strict=False)
    whole = whole.set(whole.cast(pl.Float64) != number, None)
    times = np.array(whole.fill_null(-1).to_numpy(), np.int64)
    is_micro = times >= MICROSECONDS_FROM
    times = np.where(is_micro, np.where(times % 1000 == 0, times // 1000, -1), times)
    is_dated = False
    for row in np.flatnonzero(number.is_null().to_numpy()).tolist():
        if (at := _iso_ms(str(column[row] or ""))) is not None:
            times[row], is_dated = at[0], is_dated or not at[1]
    return times, is_dated


def _iso_ms(text: str) -> tuple[int, bool] | None:
    """A date or moment as a time, and True if it names its offset; None if it is not a moment of whole ms."""
    text = text.strip()
    if len(text) < len("2024-03-01") or text[4] != "-":
        return None
    text = f"{text[:-3].strip()}Z" if text.upper().endswith("UTC") else text
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    has_offset = at.tzinfo is not None
    since = (at if has_offset else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    ms, rest = divmod(since, timedelta(milliseconds=1))
    return None if rest else (ms, has_offset)
