"""The kline store: a Parquet file per series and month, one writing process, any number of reading ones."""

import fcntl
import io
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import structlog

from core.clock import DAY_MS, iso
from core.errors import ConfigError, MalformedKlines, WorkerError
from core.files import replace_file, replace_json, sweep_leftovers
from market.klines import COLUMNS, Klines, interval_name, month_span
from market.tail import TAIL_ROWS, read_tail, write_tail

SCHEMA = pl.Schema({"open_time_ms": pl.Int64, **dict.fromkeys(COLUMNS, pl.Float64)})
# What the venue said it does not have is asked for again after a day: venues refill holes, and while the usual
# host could not be reached a lesser one may have answered.
ABSENT_FOR_MS = DAY_MS
END_OF_TIME_MS = 253_402_300_799_000  # the last second that is written with a year of four digits

Span = tuple[int, int]  # (start_ms, end_ms), end excluded

_log = structlog.get_logger()


class _Damaged(Exception):
    """A month file that cannot be used, and why."""


class KlineStore:
    """Klines in ``root/SYMBOL-1m/YYYY-MM.parquet``, and the newest once more in ``root/tails`` for serving.

    A month file is replaced as a whole, so a reader sees the old or the new one, and a kill loses at most what was
    not yet appended. A file that is damaged all the same is skipped by readers; the writer sets it aside as
    ``YYYY-MM.damaged-<ms>``, whereupon its klines are missing and will be fetched again.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._writer = threading.RLock()
        self._depth = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer of this folder, for as long as the block lasts; blocks may be nested.

        Raises:
            ConfigError: another process is writing.
            WorkerError: the folder cannot be written.
        """
        with self._writer:
            if self._depth:
                yield
                return
            with _disk(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                with _disk(self.root):
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however it ends
                    except BlockingIOError as error:
                        raise ConfigError(
                            f"another process is writing {self.root}: stop it, or set another DATA_DIR"
                        ) from error
                    sweep_leftovers(self.root)
                self._depth = 1
                yield
            finally:
                self._depth = 0
                os.close(lock)

    def append(self, symbol: str, klines: Klines) -> int:
        """Merge klines into the months they touch; of two with one open time the new one stays.

        Returns:
            How many rows are new or differ from what was there; files without such rows are left alone.
        Raises:
            ConfigError, WorkerError: as ``writing``.
        """
        folder = self._folder(symbol, klines.interval_ms)
        changed = 0
        with self.writing():
            for start_ms, end_ms in _months(klines):
                part = klines.between(start_ms, end_ms)
                path = folder / _month_file(start_ms)
                old = self._load_or_set_aside(path, klines.interval_ms)
                fresh = len(part) - _equal_rows(old, part)
                if fresh:
                    with _disk(path):
                        folder.mkdir(exist_ok=True)
                        replace_file(path, _packed(old.merge(part)))
                changed += fresh
            if changed:
                self._keep_tail(symbol, klines)
        return changed

    def _keep_tail(self, symbol: str, klines: Klines) -> None:
        """Take klines that were just appended into the series' tail, unless they are older than all of it."""
        interval_ms = klines.interval_ms
        known = read_tail(self.root, symbol, interval_ms)
        newest_ms = max(known.end_ms, klines.end_ms)
        if not len(known):
            known = self.read(symbol, interval_ms, newest_ms - TAIL_ROWS * interval_ms, newest_ms)
        if klines.end_ms > newest_ms - TAIL_ROWS * interval_ms:
            with _disk(self.root):
                write_tail(self.root, symbol, known.merge(klines.tail(TAIL_ROWS)))

    def latest(self, symbol: str, interval_ms: int) -> int | None:
        """Open time of the newest kline, or None when there is none."""
        for path in reversed(self._files(symbol, interval_ms)):
            klines = self._load(path, interval_ms)
            if len(klines):
                return int(klines.open_time_ms[-1])
        return None

    def read(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Klines with ``start_ms <= open_time_ms < end_ms``, oldest first; gaps stay gaps."""
        first, last = (_month_file(min(max(edge, 0), END_OF_TIME_MS)) for edge in (start_ms, end_ms - 1))
        files = [path for path in self._files(symbol, interval_ms) if first <= path.name <= last]
        return Klines.joined(interval_ms, [self._load(path, interval_ms) for path in files]).between(start_ms, end_ms)

    def missing(
        self, symbol: str, interval_ms: int, start_ms: int, end_ms: int, *, now_ms: int | None = None
    ) -> list[Span]:
        """What a sync should ask for: ranges of the grid in ``[start_ms, end_ms)`` that are not in the store.

        What the venue said it does not have is left out, with ``now_ms`` only if it said so within the last day.
        """
        times = self.read(symbol, interval_ms, start_ms, end_ms).open_time_ms
        first, last = (-(-edge // interval_ms) * interval_ms for edge in (start_ms, end_ms))
        if first >= last:
            return []
        edges = np.concatenate([[first - interval_ms], times, [last]])
        before = np.flatnonzero(np.diff(edges) != interval_ms)
        holes = [(int(edges[row]) + interval_ms, int(edges[row + 1])) for row in before]
        absent = [
            (start, end)
            for start, end, asked_ms in self._absent(symbol, interval_ms)
            if now_ms is None or now_ms - asked_ms < ABSENT_FOR_MS
        ]
        return without(holes, absent)

    def remember_absent(self, symbol: str, interval_ms: int, spans: Iterable[Span], now_ms: int) -> None:
        """Remember ranges that the venue was asked for at ``now_ms`` and does not have."""
        new = sorted(spans)
        if not new:
            return
        with self.writing():
            kept = [
                (*span, asked_ms)
                for start, end, asked_ms in self._absent(symbol, interval_ms)
                if now_ms - asked_ms < ABSENT_FOR_MS
                for span in without([(start, end)], new)
            ]
            folder = self._folder(symbol, interval_ms)
            with _disk(folder):
                folder.mkdir(exist_ok=True)
                replace_json(folder / "absent.json", sorted([*kept, *((start, end, now_ms) for start, end in new)]))

    def repair(self, symbol: str, interval_ms: int) -> list[Path]:
        """Set damaged months of a series aside.

        Returns:
            Where they are now.
        """
        with self.writing():
            damaged: list[Path] = []
            for path in self._files(symbol, interval_ms):
                self._load_or_set_aside(path, interval_ms, damaged)
            return damaged

    def _folder(self, symbol: str, interval_ms: int) -> Path:
        if not re.fullmatch(r"\w[\w.-]*", symbol):
            raise ConfigError(f"a symbol is letters and digits, such as ETHUSDT, was {symbol!r}")
        return self.root / f"{symbol}-{interval_name(interval_ms)}"

    def _files(self, symbol: str, interval_ms: int) -> list[Path]:
        """Month files, oldest first."""
        return sorted(self._folder(symbol, interval_ms).glob("[0-9][0-9][0-9][0-9]-[01][0-9].parquet"))

    def _load(self, path: Path, interval_ms: int) -> Klines:
        try:
            return _unpacked(path, interval_ms)
        except _Damaged as error:
            _log.warning("kline_file_skipped", file=str(path), why=str(error))
            return Klines.empty(interval_ms)

    def _load_or_set_aside(self, path: Path, interval_ms: int, damaged: list[Path] | None = None) -> Klines:
        try:
            return _unpacked(path, interval_ms)
        except _Damaged as error:
            aside = path.with_name(f"{path.stem}.damaged-{time.time_ns() // 1_000_000}")
            with _disk(path):
                path.replace(aside)
            _log.warning("kline_file_set_aside", file=str(path), now=aside.name, why=str(error))
            if damaged is not None:
                damaged.append(aside)
            return Klines.empty(interval_ms)

    def _absent(self, symbol: str, interval_ms: int) -> list[tuple[int, int, int]]:
        """``(start_ms, end_ms, asked_ms)``, oldest first."""
        path = self._folder(symbol, interval_ms) / "absent.json"
        try:
            return [(int(start), int(end), int(asked)) for start, end, asked in json.loads(path.read_bytes())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            # Only saves requests: what is forgotten is asked for once more and written anew.
            _log.warning("absent_file_skipped", file=str(path), why=str(error))
            return []


def without(spans: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """``spans`` less ``holes``, in order.

    >>> without([(0, 10), (20, 30)], [(2, 4), (8, 22)])
    [(0, 2), (4, 8), (22, 30)]
    """
    rest = list(spans)
    for hole_start, hole_end in holes:
        rest = [
            piece
            for start, end in rest
            for piece in ((start, min(end, hole_start)), (max(start, hole_end), end))
            if piece[0] < piece[1]
        ]
    return rest


def _months(klines: Klines) -> Iterator[Span]:
    """The months that hold klines of this run, oldest first."""
    row = 0
    while row < len(klines):
        span = month_span(int(klines.open_time_ms[row]))
        yield span
        row = int(np.searchsorted(klines.open_time_ms, span[1]))


def _month_file(ms: int) -> str:
    return f"{iso(ms)[:7]}.parquet"


def _equal_rows(old: Klines, new: Klines) -> int:
    """How many rows of ``new`` are in ``old`` just so."""
    _, left, right = np.intersect1d(old.open_time_ms, new.open_time_ms, assume_unique=True, return_indices=True)
    same = np.ones(len(left), dtype=np.bool_)
    for name in COLUMNS:
        a, b = getattr(old, name)[left], getattr(new, name)[right]
        same &= (a == b) | (np.isnan(a) & np.isnan(b))
    return int(same.sum())


def _packed(klines: Klines) -> bytes:
    buffer = io.BytesIO()
    frame = pl.DataFrame({name: getattr(klines, name) for name in SCHEMA}, schema=SCHEMA)
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _unpacked(path: Path, interval_ms: int) -> Klines:
    """Klines of one month file; none when there is no such file.

    Raises:
        _Damaged: it is torn, or holds something else.
        WorkerError: it cannot be read.
    """
    try:
        with _disk(path):
            content = path.read_bytes()  # at once: the file may be replaced at any moment
    except FileNotFoundError:
        return Klines.empty(interval_ms)
    try:
        frame = pl.read_parquet(content)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _Damaged(f"not a Parquet file that can be read: {str(error)[:200]}") from error
    if frame.schema != SCHEMA or frame.null_count().sum_horizontal().item():
        raise _Damaged(f"columns are {dict(frame.schema)}")
    try:
        klines = Klines(interval_ms=interval_ms, **{name: frame[name].to_numpy() for name in SCHEMA})
    except MalformedKlines as error:
        raise _Damaged(str(error)) from error
    if len(klines) and {_month_file(int(edge)) for edge in klines.open_time_ms[[0, -1]]} != {path.name}:
        raise _Damaged("its klines are of another month")
    return klines


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """The operating system's refusals as one line that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise WorkerError(f"{path}: {error.strerror}; check the space, owner and mode of DATA_DIR") from error
