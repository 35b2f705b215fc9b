"""Files of a month of klines: their names, what is in them, and reading them while another process writes."""

import io
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl
import structlog

from core.clock import DAY_MS, iso
from core.errors import MalformedKlines
from klines.klines import COLUMNS, Ints, Klines
from klines.spans import Span, month_span
from market.store.disk import disk

SCHEMA = pl.Schema({"open_time_ms": pl.Int64, **dict.fromkeys(COLUMNS, pl.Float64)})
JOURNAL = ".new.parquet"
END_OF_TIME_MS = 253_402_300_799_000  # the last second that is written with a year of four digits
CHECKSUM = "birnn_crc32"  # in the metadata of a month file, of the columns as they were written
Stamp = tuple[int, int, int] | None  # (inode, time of change in ns, bytes) of a file; None if the file is missing

TRUSTED_S = DAY_MS / 1000  # a file that did not change is looked into again after this: disks rot
# Times of files are as coarse as the kernel's tick: a file this new may change once more and show the same time.
SETTLED_S = 0.05
TRIES = 5  # of reading a month while it changes

log = structlog.get_logger()


class Damaged(Exception):
    """A month file cannot be used; says why."""


def months_of(klines: Klines) -> Iterator[Span]:
    """The months that these klines lie in, oldest first."""
    row = 0
    while row < len(klines):
        span = month_span(int(klines.open_time_ms[row]))
        yield span
        row = int(np.searchsorted(klines.open_time_ms, span[1]))


def month_file(ms: int) -> str:
    """Name of the month file of an open time; of a time that no file can have, that of the nearest one."""
    return f"{iso(min(max(ms, 0), END_OF_TIME_MS))[:7]}.parquet"


def journal_of(month: Path) -> Path:
    return month.with_name(f"{month.name[:7]}{JOURNAL}")


def month_of(path: Path) -> Path:
    """The month file of a journal; of a month file, itself."""
    return path.with_name(f"{path.name[:7]}.parquet")


def stamps_of(month: Path) -> tuple[Stamp, Stamp]:
    """Stamps of the journal and of the month: the same as long as the files are not replaced."""

    def stamp(path: Path) -> Stamp:
        try:
            with disk(path):
                found = path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    return stamp(journal_of(month)), stamp(month)


def runs_of(klines: Klines) -> Ints:
    """``(runs, 2)``: first open time and end of each run without a hole."""
    times = klines.open_time_ms
    edges = np.flatnonzero(np.diff(times) != klines.interval_ms)
    firsts, lasts = np.append(times[:1], times[edges + 1]), np.append(times[edges], times[-1:])
    return np.stack([firsts, lasts + klines.interval_ms], axis=1)


def packed(klines: Klines) -> bytes:
    """The content of a month file."""
    buffer = io.BytesIO()
    frame = pl.DataFrame({name: getattr(klines, name) for name in SCHEMA}, schema=SCHEMA)
    frame.write_parquet(buffer, compression="zstd", metadata={CHECKSUM: _checksum(klines)})
    return buffer.getvalue()


def _checksum(klines: Klines) -> str:
    """A checksum of all columns: a compressed file can be damaged and still be readable."""
    sums = (getattr(klines, name) for name in SCHEMA)
    return f"{reduce(lambda known, column: zlib.crc32(np.ascontiguousarray(column).data, known), sums, 0):08x}"


def unpacked(path: Path, interval_ms: int) -> Klines:
    """Klines of one month file; empty if there is no such file.

    Raises:
        Damaged: the file is torn, or holds something else.
        WorkerError: the file cannot be read.
    """
    try:
        with disk(path):
            content = path.read_bytes()  # at once: the file may be replaced at any moment
    except FileNotFoundError:
        return Klines.empty(interval_ms)
    try:
        frame, metadata = pl.read_parquet(content), pl.read_parquet_metadata(io.BytesIO(content))
        if frame.schema != SCHEMA or any(column.null_count() for column in frame):
            raise Damaged(f"columns are {dict(frame.schema)}")
        klines = Klines(interval_ms=interval_ms, **{name: frame[name].to_numpy() for name in SCHEMA})
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise Damaged(f"not a Parquet file that can be read: {str(error)[:200]}") from error
    except MalformedKlines as error:
        raise Damaged(str(error)) from error
    if CHECKSUM in metadata and metadata[CHECKSUM] != _checksum(klines):  # a file of an older release has no checksum
        raise Damaged("its klines are not those that were written: the checksum differs")
    if len(klines) and {month_file(int(edge))[:7] for edge in klines.open_time_ms[[0, -1]]} != {path.name[:7]}:
        raise Damaged("its klines belong to another month")
    return klines


@dataclass(frozen=True, slots=True, eq=False)
class _Looked:
    """The content of a month when its files were last read."""

    stamps: tuple[Stamp, Stamp]
    runs: Ints
    looked_s: float


class MonthReader:
    """Reads months. What it remembers of a month counts until a file of that month changes, and a day at most."""

    def __init__(self) -> None:
        self._looked: dict[Path, _Looked] = {}

    def load(self, month: Path, interval_ms: int) -> Klines:
        """The content of a month and its journal; a damaged file of the two is logged and skipped."""
        for _ in range(TRIES):
            # The journal first: what leaves it is in the month by then. Should the journal have changed meanwhile, an
            # older row of it might hide a newer row of the month.
            before, is_sound, parts = stamps_of(month), True, []
            for path in (journal_of(month), month):
                try:
                    parts.append(unpacked(path, interval_ms))
                except Damaged as error:
                    log.warning("kline_file_skipped", file=str(path), why=str(error))
                    is_sound = False
            if stamps_of(month)[0] == before[0]:
                break
        klines = reduce(Klines.merge, parts[::-1], Klines.empty(interval_ms))
        if is_sound:
            self.note(month, klines, before)
        return klines

    def runs(self, month: Path, interval_ms: int) -> Ints:
        """``(runs, 2)``: first open time and end of each run of a month without a hole; read only when it changed."""
        if self.is_known(month):
            return self._looked[month].runs
        return runs_of(self.load(month, interval_ms))

    def is_known(self, month: Path) -> bool:
        """True if a month's files did not change since they were found sound."""
        looked = self._looked.get(month)
        if looked is None or time.monotonic() - looked.looked_s > TRUSTED_S:
            return False
        return looked.stamps == stamps_of(month)

    def note(self, month: Path, klines: Klines, before: tuple[Stamp, Stamp] | None = None) -> None:
        """Remember what was just written, or read from files that had these stamps before, unless they may change."""
        stamps = stamps_of(month)
        newest_ns = max((stamp[1] for stamp in stamps if stamp), default=0)
        if before is None or (stamps == before and time.time_ns() - newest_ns > SETTLED_S * 1e9):
            self._looked[month] = _Looked(stamps, runs_of(klines), time.monotonic())

    def forget(self, month: Path) -> None:
        """Read a month's files when they are next looked into."""
        self._looked.pop(month, None)
