"""The kline store: Parquet files per series and month, one writing process, any number of reading ones."""

import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import structlog

from core.clock import DAY_MS, MINUTE_MS
from core.errors import ConfigError
from core.files import replace_file, sweep_leftovers, sync_folder
from core.process.commands import lock_holder, try_lock
from klines.klines import Ints, Klines
from klines.spans import INTERVALS_MS, Span, interval_name
from market.store.absence import is_recent, read_absent, rejected_words, with_asked, write_absent
from market.store.disk import disk
from market.store.month_file import (
    JOURNAL,
    Damaged,
    MonthReader,
    journal_of,
    month_file,
    month_of,
    months_of,
    packed,
    stamps_of,
    unpacked,
)
from market.store.warm_start import TAIL_ROWS, read_tail, tail_path, write_tail

# A month of minutes is 2 MB and a sync adds five rows, so new rows go to a journal of about 20 kB, which is taken into
# the month when it is full. What a row costs to write, in both, is least about here (benchmarks.tools.data).
JOURNAL_ROWS = 720
SMALL_BYTES = 128 * 1024  # a smaller month has no journal: a second file is not worth it
# A tail is 320 kB. Serving asks the venue for what is newer, in one request as long as it is less than 1000 rows.
TAIL_BEHIND_MS = 90 * MINUTE_MS
MONTH = re.compile(rf"[0-9]{{4}}-[01][0-9](\.parquet|{re.escape(JOURNAL)})")
KEPT_MONTHS = 2  # the newest months, which no trim deletes
DAMAGED_FOR_MS = 30 * DAY_MS  # after this damaged files are deleted

log = structlog.get_logger()


class KlineStore:
    """One venue's klines in ``root/SYMBOL-1m/YYYY-MM.parquet``, and the newest again in ``root/tails`` for serving.

    Files are replaced whole: a reader sees the old file or the new one, and a kill loses at most what was not appended.
    Few new rows of a large month go to its journal, ``YYYY-MM.new.parquet``, which counts before the month and is taken
    into the month when it is full or the month is over. Readers skip a damaged file; the writer renames it to
    ``YYYY-MM.damaged-<ms>``, so that its klines are missing and fetched again.

    Whatever writes raises ConfigError where another process is writing, and WorkerError where the disk refuses.

    Args:
        root: the venue's folder of klines.
        journal_rows: a journal with more rows is taken into its month; 0 for no journals.
        small_bytes: smaller months have no journal.
    """

    def __init__(self, root: Path, *, journal_rows: int = JOURNAL_ROWS, small_bytes: int = SMALL_BYTES) -> None:
        self.root = root
        self._journal_rows, self._small_bytes = journal_rows, small_bytes
        self._writer = threading.RLock()
        self._is_writing = False
        self._reader = MonthReader()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer of this folder while the block runs; blocks may be nested."""
        with self._writer:
            if self._is_writing:
                yield
                return
            with disk(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                with disk(self.root):
                    if not try_lock(lock):
                        raise ConfigError(
                            f"another process is writing {self.root}: {lock_holder(lock)[1]}; stop it, or set "
                            "another DATA_DIR"
                        )
                    sweep_leftovers(self.root)
                self._is_writing = True
                yield
            finally:
                self._is_writing = False
                os.close(lock)

    def append(self, symbol: str, klines: Klines) -> int:
        """Merge klines into the months they touch; a new kline replaces a stored kline of the same open time.

        Returns:
            How many rows are new or differ from what was there; files without such rows are left alone.
        """
        folder = self.folder(symbol, klines.interval_ms)
        with self.writing():
            parts = [self._put(symbol, klines.between(*span)) for span in months_of(klines)]
            changed = Klines.joined(klines.interval_ms, parts)
            if len(changed):
                for month in map(month_of, folder.glob(f"*{JOURNAL}")):
                    if month.name < month_file(changed.end_ms - 1):  # is over, so that it takes its journal in
                        recent, whole = self._sound(month, klines.interval_ms)
                        if len(recent):
                            with disk(month):
                                _replace(month, whole.merge(recent))
                self._keep_tail(symbol, klines.interval_ms)
        return len(changed)

    def _put(self, symbol: str, part: Klines) -> Klines:
        """Store klines of one month; returns those that are new or differ from what was there."""
        month = self.folder(symbol, part.interval_ms) / month_file(int(part.open_time_ms[0]))
        recent, whole = self._sound(month, part.interval_ms)
        fresh = part.not_in(whole.merge(recent))
        if not len(fresh):
            return fresh
        self._drop_tail(symbol, fresh)
        is_corrected = bool(np.isin(fresh.open_time_ms, recent.open_time_ms).any())
        recent = recent.merge(fresh)
        held = whole.merge(recent)
        with disk(month):
            is_small = not month.exists() or month.stat().st_size < self._small_bytes
            is_taken_in = is_small or len(recent) > self._journal_rows
            month.parent.mkdir(exist_ok=True)
            # Corrections first: after a kill between month and journal the old rows of the journal would count.
            if not is_taken_in or is_corrected:
                replace_file(journal_of(month), packed(recent))
            if is_taken_in:
                _replace(month, held)
        self._reader.note(month, held)
        return fresh

    def _drop_tail(self, symbol: str, changing: Klines) -> None:
        """Delete the warm-start file if rows about to be stored or removed are of its time.

        Otherwise a kill or a full disk, after the month is written and before this file is, would leave it with other
        rows than the months have.
        """
        known = read_tail(self.root, symbol, changing.interval_ms)
        oldest_ms = known.end_ms - TAIL_ROWS * changing.interval_ms
        if len(known) and len(changing.between(oldest_ms, known.end_ms)):
            path = tail_path(self.root, symbol, changing.interval_ms)
            with disk(path):
                path.unlink(missing_ok=True)
                sync_folder(path.parent)

    def _keep_tail(self, symbol: str, interval_ms: int) -> None:
        """Write the warm-start file if it is missing or too far behind."""
        known = read_tail(self.root, symbol, interval_ms)
        if not len(known) or self.end_ms(symbol, interval_ms) - known.end_ms >= TAIL_BEHIND_MS:
            self.repair_tail(symbol, interval_ms)

    def latest(self, symbol: str, interval_ms: int) -> int | None:
        """Open time of the newest kline; None without klines."""
        end_ms = self.end_ms(symbol, interval_ms)
        return end_ms - interval_ms if end_ms else None

    def end_ms(self, symbol: str, interval_ms: int) -> int:
        """Close time of the newest kline; 0 without klines."""
        runs = (self._reader.runs(month, interval_ms) for month in self.files(symbol, interval_ms)[::-1])
        return next((int(run[-1, 1]) for run in runs if len(run)), 0)

    def first(self, symbol: str, interval_ms: int) -> int | None:
        """Open time of the oldest kline; None without klines."""
        runs = (self._reader.runs(month, interval_ms) for month in self.files(symbol, interval_ms))
        return next((int(run[0, 0]) for run in runs if len(run)), None)

    def read(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Klines with ``start_ms <= open_time_ms < end_ms``, oldest first; gaps stay gaps."""
        months = self.files(symbol, interval_ms, start_ms, end_ms)
        held = [self._reader.load(month, interval_ms).between(start_ms, end_ms) for month in months]
        return Klines.joined(interval_ms, held)

    def beside(self, symbol: str, klines: Klines, rows: int = 1) -> Klines:
        """The stored rows of the time of some klines, and the nearest on either side.

        Args:
            rows: how many on either side, as far as they follow each other without a hole.
        """
        interval_ms = klines.interval_ms
        if not len(klines):
            return klines
        start_ms, end_ms = int(klines.open_time_ms[0]), klines.end_ms
        runs = self.runs(symbol, interval_ms)
        before, after = runs[runs[:, 0] < start_ms], runs[runs[:, 1] > end_ms]
        first_ms = min(int(before[-1, 1]), start_ms) - rows * interval_ms if len(before) else start_ms
        last_ms = max(int(after[0, 0]), end_ms) + rows * interval_ms if len(after) else end_ms
        return self.read(symbol, interval_ms, first_ms, last_ms)

    def missing(
        self, symbol: str, interval_ms: int, start_ms: int, end_ms: int, *, now_ms: int | None = None
    ) -> list[Span]:
        """The ranges of ``[start_ms, end_ms)`` that a sync should ask for, as they are not stored.

        Absent ranges are left out; with ``now_ms`` only ranges found absent within the last day.
        """
        first, last = (-(-edge // interval_ms) * interval_ms for edge in (start_ms, end_ms))
        if first >= last:
            return []
        gaps = [
            gap for gap in read_absent(self.folder(symbol, interval_ms)) if now_ms is None or is_recent(gap, now_ms)
        ]
        absent = np.array([[min(max(edge, first), last) for edge in gap.span] for gap in gaps], np.int64)
        known = np.concatenate([self.runs(symbol, interval_ms, first, last).clip(first, last), absent.reshape(-1, 2)])
        known = known[np.argsort(known[:, 0])]
        ends, starts = np.maximum.accumulate(np.append(first, known[:, 1])), np.append(known[:, 0], last)
        rows = np.flatnonzero(starts > ends)
        return list(zip(ends[rows].tolist(), starts[rows].tolist(), strict=True))

    def rejected(self, symbol: str, interval_ms: int) -> str:
        """The rejected rows of a series that are not stored, in words; empty without such rows."""
        absent, stored = read_absent(self.folder(symbol, interval_ms)), self.runs(symbol, interval_ms).tolist()
        return rejected_words([part for gap in absent if gap.why for part in gap.less(stored)], interval_ms)

    def runs(self, symbol: str, interval_ms: int, start_ms: int = 0, end_ms: int = 2**62) -> Ints:
        """``(runs, 2)``: first open time and end of each run of klines without a hole, oldest first.

        A run ends with its month. Runs of the months outside the range are left out.
        """
        months = self.files(symbol, interval_ms, start_ms, end_ms)
        return np.concatenate([np.empty((0, 2), np.int64), *(self._reader.runs(one, interval_ms) for one in months)])

    def remove(self, symbol: str, interval_ms: int, span: Span) -> int:
        """Take klines out, so that they are missing from then on. Returns how many."""
        removed = 0
        with self.writing():
            for month in self.files(symbol, interval_ms, *span):
                held = self._reader.load(month, interval_ms)
                kept = held.between(0, span[0]).merge(held.between(span[1], held.end_ms))
                if len(kept) == len(held):
                    continue
                removed += len(held) - len(kept)
                self._drop_tail(symbol, held.between(*span))
                with disk(month):
                    if len(kept):
                        _replace(month, kept)
                    else:
                        _delete(month)
            if removed:
                self.repair_tail(symbol, interval_ms)
        return removed

    def remember_absent(
        self,
        symbol: str,
        interval_ms: int,
        spans: Iterable[Span],
        now_ms: int,
        rejected: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Remember ranges for which the venue, asked at ``now_ms``, had no usable rows.

        Args:
            rejected: by open time, why a row was rejected; the venue did not send the other rows.
        """
        new, folder = sorted(spans), self.folder(symbol, interval_ms)
        if new:
            with self.writing(), disk(folder):
                folder.mkdir(exist_ok=True)
                write_absent(folder, with_asked(read_absent(folder), new, now_ms, rejected, interval_ms))

    def repair(self, symbol: str, interval_ms: int) -> list[Path]:
        """Rename the damaged files of a series, and return their new paths; an unchanged file is trusted for a day."""
        damaged: list[Path] = []
        with self.writing():
            for month in self.files(symbol, interval_ms):
                if not self._reader.is_known(month):
                    recent, whole = self._sound(month, interval_ms, damaged)
                    self._reader.note(month, whole.merge(recent), stamps_of(month))
        return damaged

    def series(self) -> list[tuple[str, int]]:
        """``(symbol, interval_ms)`` of each series that has a folder, by name."""
        parts = (path.name.rpartition("-") for path in sorted(self.root.glob("*-*")) if path.is_dir())
        return [(symbol, INTERVALS_MS[interval]) for symbol, _, interval in parts if interval in INTERVALS_MS]

    def repair_tail(self, symbol: str, interval_ms: int) -> None:
        """Write the warm-start file of a series anew from its months; a series without klines has no such file."""
        with self.writing():
            end_ms = self.end_ms(symbol, interval_ms)
            newest = self.read(symbol, interval_ms, end_ms - TAIL_ROWS * interval_ms, end_ms)
            with disk(self.root):
                if len(newest):
                    write_tail(self.root, symbol, newest)
                else:
                    tail_path(self.root, symbol, interval_ms).unlink(missing_ok=True)

    def trim(self, symbol: str, interval_ms: int, oldest_ms: int) -> list[Path]:
        """Delete whole months of a series that end at ``oldest_ms`` or earlier, and damaged files a month old.

        The newest ``KEPT_MONTHS`` months stay, and those of the warm-start file. What is absent before the first month
        is forgotten. Returns the deleted files.
        """
        folder = self.folder(symbol, interval_ms)
        deleted: list[Path] = []
        with self.writing(), disk(folder):
            if end_ms := self.end_ms(symbol, interval_ms):
                months = self.files(symbol, interval_ms)
                oldest_ms = min(oldest_ms, end_ms - TAIL_ROWS * interval_ms)
                first_kept = min([month_file(oldest_ms), *(month.name for month in months[-KEPT_MONTHS:])])
                for month in months:
                    if month.name < first_kept:
                        deleted += _delete(month)
                absent = read_absent(folder)
                kept = [gap for gap in absent if month_file(gap.end_ms - 1) >= first_kept]
                if kept != absent:
                    write_absent(folder, kept)
            now_ms = time.time_ns() // 1_000_000
            for path in sorted(folder.glob("*.damaged-*")):
                set_aside = re.fullmatch(r".*\.damaged-([0-9]{1,15})", path.name)
                if set_aside and now_ms - int(set_aside[1]) > DAMAGED_FOR_MS:
                    path.unlink()
                    deleted.append(path)
        return deleted

    def forget(self, month: Path) -> None:
        """Read a month's files when they are next looked into, whatever is remembered of them."""
        self._reader.forget(month)

    def folder(self, symbol: str, interval_ms: int) -> Path:
        """The folder of a series.

        Raises:
            ConfigError: the symbol cannot name a folder, or there is no such interval.
        """
        if not re.fullmatch(r"\w[\w.-]*", symbol):
            raise ConfigError(f"a symbol is letters and digits, such as ETHUSDT, was {symbol!r}")
        return self.root / f"{symbol}-{interval_name(interval_ms)}"

    def files(self, symbol: str, interval_ms: int, start_ms: int = 0, end_ms: int = 2**62) -> list[Path]:
        """The month files that may hold klines of a time, oldest first; also the path of a month of a journal alone."""
        folder = self.folder(symbol, interval_ms)
        try:
            with disk(folder):  # a folder that may not be read is not empty
                found = list(folder.iterdir())
        except FileNotFoundError:
            return []
        first, last = month_file(start_ms), month_file(end_ms - 1)
        months = {month_of(path) for path in found if MONTH.fullmatch(path.name)}
        return sorted(month for month in months if first <= month.name <= last)

    @staticmethod
    def _sound(month: Path, interval_ms: int, damaged: list[Path] | None = None) -> tuple[Klines, Klines]:
        """The klines of a journal and a month; a damaged file of the two is renamed."""
        sound = []
        for path in (journal_of(month), month):
            try:
                sound.append(unpacked(path, interval_ms))
            except Damaged as error:
                moved = path.with_name(f"{path.stem}.damaged-{time.time_ns() // 1_000_000}")
                with disk(path):
                    path.replace(moved)
                log.warning("kline_file_set_aside", file=str(path), now=moved.name, why=str(error))
                sound.append(Klines.empty(interval_ms))
                if damaged is not None:
                    damaged.append(moved)
        return sound[0], sound[1]


def _replace(month: Path, held: Klines) -> None:
    """Write a month with all rows of its journal; a journal that a kill leaves behind has nothing new."""
    replace_file(month, packed(held))
    if (journal := journal_of(month)).exists():
        journal.unlink()
        sync_folder(journal.parent)


def _delete(month: Path) -> list[Path]:
    """Delete a month, then its journal: alone, a journal is a month with few rows, which a reader may see."""
    there = [path for path in (month, journal_of(month)) if path.exists()]
    for path in there:
        path.unlink()
    sync_folder(month.parent)
    return there
