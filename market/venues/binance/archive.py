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
from market.venues.binance.rows import MICROSECONDS_FROM, OPEN_TIME, PLACES, WIDTH

CSV_LIMIT_BYTES = 64 * 1024 * 1024  # a month of 1m klines is 6 MB
LOCKED = 1  # bit of a zip member's flags
WHOLE_WIDTH = WIDTH + 1  # with the unused column
USED_COLUMNS = (OPEN_TIME, *PLACES.values())
NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


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
    """Check the rows of one archive file.

    Args:
        body: a zip with one CSV of 12 columns, with or without a header, each time in milliseconds or (since 2025)
            microseconds. A row that cannot be read is rejected alone.
        interval_ms: of the file's klines.
        start_ms, end_ms: the span that the file's name says; rows outside are dropped.
    Raises:
        MalformedKlines: says what is wrong.
    """
    _, content = csv_in_zip(body, CSV_LIMIT_BYTES)
    table = _table(content)
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
    """Read the used columns, ``(rows, 10)``; NaN for a cell that is not a number."""
    lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    if lines and np.isnan(_number(lines[0].split(b",", 1)[0])):  # a header
        del lines[0]
    if not lines:
        raise MalformedKlines("the CSV has no rows")
    if all(line.count(b",") == WHOLE_WIDTH - 1 for line in lines):
        with contextlib.suppress(ValueError):
            whole = io.BytesIO(b"\n".join(lines))
            return np.loadtxt(whole, delimiter=",", usecols=USED_COLUMNS, ndmin=2, comments=None)
    return _line_by_line(lines)  # ten times as slow


def _line_by_line(lines: Sequence[bytes]) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """A line that cannot be read becomes a row without numbers."""
    rows = [line.split(b",") for line in lines]
    if not any(len(row) == WHOLE_WIDTH for row in rows):
        raise MalformedKlines(f"the CSV must hold {WHOLE_WIDTH} columns of numbers, has: {lines[0][:80]!r}")
    empty = [np.nan] * len(USED_COLUMNS)
    read = [[_number(row[column]) for column in USED_COLUMNS] if len(row) == WHOLE_WIDTH else empty for row in rows]
    return np.array(read)


def _number(cell: bytes) -> float:
    """Read a cell with or without quotes; NaN if it is not a number as machines write them."""
    cell = cell.strip()
    if cell[:1] == cell[-1:] == b'"':
        cell = cell[1:-1]
    return float(cell) if NUMBER.fullmatch(cell) else np.nan


def _milliseconds(times: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Ints:
    """Convert ``(T,)`` times of either unit to milliseconds; -1, which is on no grid, for a cell that is not a time."""
    known = np.isfinite(times) & (times >= 0) & (times < 10**17) & (times % 1 == 0)
    whole = np.where(known, times, -1).astype(np.int64)
    micro = whole >= MICROSECONDS_FROM
    whole[micro & (whole % 1000 != 0)] = -1
    return np.where(micro & (whole >= 0), whole // 1000, whole)
