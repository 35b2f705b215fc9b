"""Columns of a CSV, a zip or a Parquet file, by our names, as the file has them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from core.clock import DAY_MS
from core.errors import MalformedKlines
from klines.klines import PRICE_COLUMNS, Floats, Ints
from market.venues.binance.archive import csv_in_zip
from market.venues.binance.rows import MICROSECONDS_FROM, ROW

LIMIT_BYTES = 4 << 30  # of a CSV in a zip: years of minutes are 100 MB each
NEEDED = ("open_time", *PRICE_COLUMNS, "volume")
# The two orders that are read without a header: the needed columns, or Binance's.
POSITIONS = ROW
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
    return Table(
        columns={name: frame.to_series(number) for name, number in places.items()},
        titles=titles,
        lines=[number + 1 for number in kept],
        torn=torn,
        notes=(*notes, *([f"{comments} comment lines left out"] if comments else [])),
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


def numbers_in(column: pl.Series) -> tuple[Floats, Bools]:
    """``(T,)`` numbers, NaN for an empty cell; and True for a cell that is not a number."""
    if column.dtype != pl.String:
        return np.array(column.cast(pl.Float64).fill_null(np.nan).to_numpy()), np.zeros(len(column), np.bool_)
    texts = column.str.strip_chars()
    found = texts.cast(pl.Float64, strict=False)
    empty = texts.is_null() | texts.str.to_lowercase().is_in(list(NOTHING))
    numbers = np.array(found.fill_null(np.nan).to_numpy(), np.float64)
    return numbers, (found.is_null() & ~empty).fill_null(value=False).to_numpy()


def milliseconds_in(column: pl.Series) -> tuple[Ints, bool]:
    """``(T,)`` times, below 0 for a cell that is not a time; and True if some are dates without an offset."""
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
    if since.microseconds % 1000:
        return None
    return since.days * DAY_MS + since.seconds * 1000 + since.microseconds // 1000, has_offset
