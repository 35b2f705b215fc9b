"""Files of a month of klines: their names, what is in them, and what tells that one has changed."""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl

from core.clock import iso
from core.errors import MalformedKlines, WorkerError
from klines.klines import COLUMNS, Ints, Klines
from klines.spans import Span, month_span

SCHEMA = pl.Schema({"open_time_ms": pl.Int64, **dict.fromkeys(COLUMNS, pl.Float64)})
JOURNAL = ".new.parquet"
CHECKSUM = "birnn_crc32"  # in the metadata of a month file, of the columns as they were written
Stamp = tuple[int, int, int] | None  # (inode, time of change in ns, bytes) of a file; None when there is none


class Damaged(Exception):
    """A month file that cannot be used, and why."""


def months_of(klines: Klines) -> Iterator[Span]:
    """The months that hold klines of this run, oldest first."""
    row = 0
    while row < len(klines):
        span = month_span(int(klines.open_time_ms[row]))
        yield span
        row = int(np.searchsorted(klines.open_time_ms, span[1]))


def month_file(ms: int) -> str:
    """Name of the file that a kline of that open time is in."""
    return f"{iso(ms)[:7]}.parquet"


def journal_of(month: Path) -> Path:
    """The journal of a month file."""
    return month.with_name(f"{month.name[:7]}{JOURNAL}")


def month_of(path: Path) -> Path:
    """The month file of a journal, or itself."""
    return path.with_name(f"{path.name[:7]}.parquet")


def stamp_of(path: Path) -> Stamp:
    """The same as long as nobody replaces the file."""
    try:
        with disk(path):
            found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def stamps_of(month: Path) -> tuple[Stamp, Stamp]:
    """Of the journal and of the month."""
    return stamp_of(journal_of(month)), stamp_of(month)


def runs_of(klines: Klines) -> Ints:
    """``(runs, 2)``: first open time and end of each run without a hole."""
    times = klines.open_time_ms
    if not len(times):
        return np.empty((0, 2), np.int64)
    after = np.flatnonzero(np.diff(times) != klines.interval_ms) + 1
    first, last = np.append(0, after), np.append(after, len(times)) - 1
    return np.stack([times[first], times[last] + klines.interval_ms], axis=1)


def not_in(old: Klines, new: Klines) -> Klines:
    """The rows of ``new`` that ``old`` does not have just so."""
    _, left, right = np.intersect1d(old.open_time_ms, new.open_time_ms, assume_unique=True, return_indices=True)
    same = np.ones(len(left), dtype=np.bool_)
    for name in COLUMNS:
        a, b = getattr(old, name)[left], getattr(new, name)[right]
        same &= (a == b) | (np.isnan(a) & np.isnan(b))
    fresh = np.ones(len(new), dtype=np.bool_)
    fresh[right[same]] = False
    columns = {name: getattr(new, name)[fresh] for name in COLUMNS}
    return Klines(interval_ms=new.interval_ms, open_time_ms=new.open_time_ms[fresh], **columns)


def packed(klines: Klines) -> bytes:
    """A month file."""
    buffer = io.BytesIO()
    frame = pl.DataFrame({name: getattr(klines, name) for name in SCHEMA}, schema=SCHEMA)
    frame.write_parquet(buffer, compression="zstd", metadata={CHECKSUM: _checksum(klines)})
    return buffer.getvalue()


def _checksum(klines: Klines) -> str:
    """Of all columns: what is compressed can be damaged and read all the same."""
    sums = (getattr(klines, name) for name in SCHEMA)
    return f"{reduce(lambda known, column: zlib.crc32(np.ascontiguousarray(column).data, known), sums, 0):08x}"


def unpacked(path: Path, interval_ms: int) -> Klines:
    """Klines of one month file; none when there is no such file.

    Raises:
        Damaged: it is torn, or holds something else.
        WorkerError: it cannot be read.
    """
    try:
        with disk(path):
            content = path.read_bytes()  # at once: the file may be replaced at any moment
    except FileNotFoundError:
        return Klines.empty(interval_ms)
    try:
        frame, said = pl.read_parquet(content), pl.read_parquet_metadata(io.BytesIO(content))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise Damaged(f"not a Parquet file that can be read: {str(error)[:200]}") from error
    if frame.schema != SCHEMA or any(column.null_count() for column in frame):
        raise Damaged(f"columns are {dict(frame.schema)}")
    try:
        klines = Klines(interval_ms=interval_ms, **{name: frame[name].to_numpy() for name in SCHEMA})
    except MalformedKlines as error:
        raise Damaged(str(error)) from error
    if CHECKSUM in said and said[CHECKSUM] != _checksum(klines):  # a file of an older release has none
        raise Damaged("its klines are not those that were written: the checksum is another")
    if len(klines) and {month_file(int(edge))[:7] for edge in klines.open_time_ms[[0, -1]]} != {path.name[:7]}:
        raise Damaged("its klines are of another month")
    return klines


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """The operating system's refusals as one line that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise WorkerError(f"{path}: {error.strerror}; check the space, owner and mode of DATA_DIR") from error
