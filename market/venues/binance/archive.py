"""Kline archive files: a zip with one CSV and a checksum beside it, as data.binance.vision publishes them."""

import contextlib
import hashlib
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.errors import MalformedKlines
from klines.checks import CheckedRows, check_rows
from klines.klines import Ints

CSV_LIMIT_BYTES = 64 * 1024 * 1024  # a month of 1m klines is 6 MB; anything near this is no kline file
MICROSECONDS_FROM = 10**14  # as milliseconds this is the year 5138
LOCKED = 1  # bit of a zip member's flags
# open_time, prices, volume, then quote_volume, trades and the taker columns; close_time and the last are not read
COLUMNS = 12
USED_COLUMNS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 10)
NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
NAMES = ("open", "high", "low", "close", "volume", "quote_volume", "trades", "taker_buy_base", "taker_buy_quote")


def check(body: bytes, checksum: bytes) -> None:
    """Compare a file with its checksum file.

    Args:
        body: the archive file.
        checksum: content of the file beside it: SHA-256 in hex digits, blanks, the file's name.
    Raises:
        MalformedKlines: they differ.
    """
    found = re.match(rb"([0-9a-fA-F]{64})(\s|$)", checksum)
    if found is None:
        raise MalformedKlines(f"the checksum file holds no SHA-256 but {checksum[:80]!r}")
    expected, actual = found[1].decode().lower(), hashlib.sha256(body).hexdigest()
    if expected != actual:
        raise MalformedKlines(f"SHA-256 is {actual}, its checksum file says {expected}")


def read_archive(body: bytes, interval_ms: int, start_ms: int, end_ms: int) -> CheckedRows:
    """Klines of one archive file, and its rows that are none.

    Args:
        body: a zip with one CSV of 12 columns, a header row or none, times in milliseconds or (2025 on)
            microseconds, told apart in each row. A row that cannot be read costs no other its place.
        interval_ms: what the file should hold.
        start_ms, end_ms: what the file is about; rows outside are dropped.
    Raises:
        MalformedKlines: says what is wrong.
    """
    table = _table(unzipped(body))
    times = _milliseconds(table[:, 0])
    found = check_rows(interval_ms, times, {name: table[:, column] for column, name in enumerate(NAMES, start=1)})
    inside = found.klines.between(start_ms, end_ms)
    if not len(inside):
        raise MalformedKlines("no row lies in the time that the file's name says")
    return replace(found, klines=inside)


def unzipped(body: bytes, limit_bytes: int = CSV_LIMIT_BYTES) -> bytes:
    """The one CSV of a zip; raises as ``csv_in_zip``."""
    return csv_in_zip(body, limit_bytes)[1]


def csv_in_zip(body: bytes, limit_bytes: int) -> tuple[str, bytes]:
    """The one CSV of a zip, its name first; what macOS adds to a zip is passed over.

    Raises:
        MalformedKlines: it is no zip, is locked, holds something else, or more than ``limit_bytes``.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = [one for one in archive.infolist() if not one.is_dir() and not _of_macos(one.filename)]
            found = [one for one in members if one.filename.lower().endswith(".csv")]
            if len(found) != 1:
                there = ", ".join(one.filename for one in members[:5]) or "nothing"
                raise MalformedKlines(f"the zip must hold one CSV, holds {len(found)}: {there}")
            if found[0].flag_bits & LOCKED:
                raise MalformedKlines(f"{found[0].filename} in the zip is locked by a password: unpack it first")
            with archive.open(found[0]) as handle:
                csv = handle.read(limit_bytes + 1)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
    ) as error:
        raise MalformedKlines(f"not a zip that can be read: {error}") from error
    if len(csv) > limit_bytes:
        raise MalformedKlines(f"the CSV is larger than {limit_bytes >> 20} MB")
    return found[0].filename.rsplit("/", 1)[-1], csv


def _of_macos(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith("._")


def _table(content: bytes) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """``(rows, 10)`` numbers of the used columns; NaN where there is none."""
    lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    if lines and np.isnan(_number(lines[0].split(b",", 1)[0])):  # a header
        del lines[0]
    if not lines:
        raise MalformedKlines("the CSV has no rows")
    if all(line.count(b",") == COLUMNS - 1 for line in lines):
        with contextlib.suppress(ValueError):
            whole = io.BytesIO(b"\n".join(lines))
            return np.loadtxt(whole, delimiter=",", usecols=USED_COLUMNS, ndmin=2, comments=None)
    return _rows(lines)  # which takes ten times as long


def _rows(lines: Sequence[bytes]) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Line by line: one that cannot be read is a row without numbers, and takes no other with it."""
    rows = [line.split(b",") for line in lines]
    if not any(len(row) == COLUMNS for row in rows):
        raise MalformedKlines(f"the CSV holds something else than {COLUMNS} columns of numbers: {lines[0][:80]!r}")
    nothing = [np.nan] * len(USED_COLUMNS)
    read = [[_number(row[column]) for column in USED_COLUMNS] if len(row) == COLUMNS else nothing for row in rows]
    return np.array(read)


def _number(cell: bytes) -> float:
    """What a cell holds, with or without quotes; NaN where that is no number as machines write them."""
    cell = cell.strip()
    if cell[:1] == cell[-1:] == b'"':
        cell = cell[1:-1]
    return float(cell) if NUMBER.fullmatch(cell) else np.nan


def _milliseconds(times: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Ints:
    """``(T,)`` times of either unit in milliseconds, a double holds both exactly; -1, on no grid, where it is none."""
    known = np.isfinite(times) & (times >= 0) & (times < 10**17) & (times % 1 == 0)
    whole = np.where(known, times, -1).astype(np.int64)
    micro = whole >= MICROSECONDS_FROM
    whole[micro & (whole % 1000 != 0)] = -1
    return np.where(micro & (whole >= 0), whole // 1000, whole)
