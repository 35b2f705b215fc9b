"""Kline archive files: a zip with one CSV and a checksum beside it, as data.binance.vision publishes them."""

import contextlib
import hashlib
import io
import lzma
import re
import zipfile
import zlib
from dataclasses import replace

import numpy as np

from core.errors import MalformedKlines
from klines.checks import CheckedRows, check_rows
from klines.klines import Floats, Ints
from market.venues.binance.rows import MICROSECONDS_FROM, OPEN_TIME, PLACES, WIDTH
from market.venues.parsing import number

CSV_LIMIT_BYTES = 64 * 1024 * 1024  # a month of 1m klines is 6 MB
LOCKED = 1  # bit of a zip member's flags
WHOLE_WIDTH = WIDTH + 1  # with the unused column
USED_COLUMNS = (OPEN_TIME, *PLACES.values())
UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError, ValueError)


def check(body: bytes, checksum: bytes) -> None:
    """Raise MalformedKlines unless a checksum file (SHA-256 in hex digits, blanks, the file's name) is of this body."""
    found = re.match(rb"([0-9a-fA-F]{64})(\s|$)", checksum)
    if found is None:
        raise MalformedKlines(f"the checksum file holds no SHA-256 but {checksum[:80]!r}")
    expected, actual = found[1].decode().lower(), hashlib.sha256(body).hexdigest()
    if expected != actual:
        raise MalformedKlines(f"SHA-256 is {actual}, its checksum file says {expected}")


def read_archive(body: bytes, interval_ms: int, start_ms: int, end_ms: int) -> CheckedRows:
    """Check the rows of one archive file.

    Args:
        body: a zip with one CSV of 12 columns, with or without a header, each time in milliseconds or (since 2025)
            microseconds. A row that cannot be read is rejected alone.
        start_ms, end_ms: the span that the file's name says; rows outside are dropped.
    """
    table = _table(csv_in_zip(body, CSV_LIMIT_BYTES)[1])
    times = _milliseconds(table[:, 0])
    found = check_rows(interval_ms, times, {name: table[:, column] for column, name in enumerate(PLACES, start=1)})
    inside = found.klines.between(start_ms, end_ms)
    if not len(inside):
        raise MalformedKlines("no row lies in the time that the file's name says")
    return replace(found, klines=inside)


def csv_in_zip(body: bytes, limit_bytes: int) -> tuple[str, bytes]:
    """Return name and content of the one CSV in a zip; the files that macOS adds are ignored.

    Raises:
        MalformedKlines: not a zip, locked, not one CSV, or more than ``limit_bytes``.
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
    except UNREADABLE as error:
        raise MalformedKlines(f"not a zip that can be read: {error}") from error
    if len(csv) > limit_bytes:
        raise MalformedKlines(f"the CSV is larger than {limit_bytes >> 20} MB")
    return found[0].filename.rsplit("/", 1)[-1], csv


def _of_macos(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith("._")


def _table(content: bytes) -> Floats:
    """Read the used columns, ``(rows, 10)``: NaN for a cell that is not a number, and in a line of another width."""
    lines = [line for line in content.decode("utf-8-sig", errors="replace").splitlines() if line.strip()]
    if lines and np.isnan(_number(lines[0].split(",", 1)[0])):  # a header
        del lines[0]
    if not lines:
        raise MalformedKlines("the CSV has no rows")
    if all(line.count(",") == WHOLE_WIDTH - 1 for line in lines):
        with contextlib.suppress(ValueError):  # a tenth of the time of the way below
            return np.loadtxt(lines, delimiter=",", usecols=USED_COLUMNS, ndmin=2, comments=None)
    rows = [line.split(",") for line in lines]
    if not any(len(row) == WHOLE_WIDTH for row in rows):
        raise MalformedKlines(f"the CSV must hold {WHOLE_WIDTH} columns of numbers, has: {lines[0][:80]!r}")
    empty = [np.nan] * len(USED_COLUMNS)
    return np.array(
        [[_number(row[column]) for column in USED_COLUMNS] if len(row) == WHOLE_WIDTH else empty for row in rows]
    )


def _number(cell: str) -> float:
    """Read a cell with or without quotes."""
    cell = cell.strip()
    return number(cell[1:-1] if cell[:1] == cell[-1:] == '"' else cell)


def _milliseconds(times: Floats) -> Ints:
    """Convert ``(T,)`` times of either unit to milliseconds; -1, which is on no grid, for a cell that is not a time."""
    times = np.where(times >= MICROSECONDS_FROM, times / 1000, times)
    known = (times >= 0) & (times < MICROSECONDS_FROM) & (np.floor(times) == times)
    return np.where(known, times, -1).astype(np.int64)
