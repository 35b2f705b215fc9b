"""The kline store: Parquet files per series and month, one writing process, any number of reading ones."""

import json
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np
import structlog

from core.clock import DAY_MS, MINUTE_MS, iso
from core.errors import ConfigError, WorkerError
from core.files import replace_file, replace_json, sweep_leftovers, sync_folder
from core.process.commands import lock_holder, try_lock
from klines.klines import Ints, Klines, unit_leaps
from klines.spans import INTERVALS, Span, interval_name, without
from market.store.month_file import (
    JOURNAL,
    Damaged,
    Stamp,
    disk,
    journal_of,
    month_file,
    month_of,
    months_of,
    not_in,
    packed,
    runs_of,
    stamp_of,
    stamps_of,
    unpacked,
)
from market.store.warm_start import TAIL_ROWS, read_tail, write_tail

# What the venue does not have, or told so that it was refused, is asked for again after a day: venues refill holes and
# correct rows, and while the usual host could not be reached a lesser one may have answered.
ABSENT_FOR_MS = DAY_MS
END_OF_TIME_MS = 253_402_300_799_000  # the last second that is written with a year of four digits
# A month of minutes is 2 MB, and a sync adds five rows to it: they go to a journal of some 20 kB on average, which the
# month takes in when it is full. The sum of both, what a row costs to write, is least about here (benchmarks.data).
JOURNAL_ROWS = 720
SMALL_BYTES = 128 * 1024  # a month below it is replaced itself: a journal would not be worth a second file
# A tail is 320 kB. Serving asks the venue for what is newer, in one request as long as it is less than 1000 rows.
TAIL_BEHIND_MS = 90 * MINUTE_MS
TRUSTED_S = DAY_MS / 1000  # a file that did not change is looked into again after this: disks rot
# Times of files are as coarse as the kernel's tick: a file this new may change once more and show the same time.
SETTLED_S = 0.05
MONTH = re.compile(rf"[0-9]{{4}}-[01][0-9](\.parquet|{re.escape(JOURNAL)})")
KEPT_MONTHS = 2  # whatever a trim is asked for
DAMAGED_FOR_MS = 30 * DAY_MS  # then what was set aside is of no more use to anybody

TRIES = 5  # of reading a month while it changes

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """One file of a series, as ``inspect`` found it."""

    path: Path
    rows: int = 0
    fault: str = ""  # why it cannot be used; empty when it can


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A hole between the first and the last kline of a series, or the part of it that was told at one time."""

    start_ms: int
    end_ms: int
    absent_ms: int | None = None  # when the venue told nothing usable of it; None where it was not asked
    why: str = ""  # why the rows that it told were refused; empty where it told none


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Month:
    """What a month held when its files were last looked into."""

    stamps: tuple[Stamp, Stamp]
    runs: Ints  # (runs, 2): first open time and end of each run without a hole
    edges: Klines  # the first and the last
    leaps: tuple[Span, ...]  # see ``KlineStore.leaps``
    looked_s: float

    @classmethod
    def of(cls, klines: Klines, stamps: tuple[Stamp, Stamp]) -> "_Month":
        """What is remembered of a month."""
        return cls(
            stamps=stamps,
            runs=runs_of(klines),
            edges=klines.rows(0, 1).merge(klines.tail(1)),
            leaps=_leaps_in(klines),
            looked_s=time.monotonic(),
        )


class KlineStore:
    """Klines in ``root/SYMBOL-1m/YYYY-MM.parquet``, and the newest once more in ``root/tails`` for serving.

    A file is replaced as a whole, so a reader sees the old or the new one, and a kill loses at most what was not yet
    appended. Few new rows of a large month go to ``YYYY-MM.new.parquet``, its journal, which counts before the month
    and is taken into it when it is full or the month is over; readers see both. A file that is damaged all the same is
    skipped by readers; the writer sets it aside as ``YYYY-MM.damaged-<ms>``, whereupon its klines are missing and will
    be fetched again.

    Args:
        journal_rows: a journal with more is taken into its month; 0 for no journals.
        small_bytes: months of fewer have no journal.
    """

    def __init__(self, root: Path, *, journal_rows: int = JOURNAL_ROWS, small_bytes: int = SMALL_BYTES) -> None:
        self.root = root
        self._journal_rows, self._small_bytes = journal_rows, small_bytes
        self._writer = threading.RLock()
        self._depth = 0
        self._looked: dict[Path, _Month] = {}
        self._genuine: set[tuple[str, int, Span]] = set()

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
        changed: list[Klines] = []
        with self.writing():
            for start_ms, end_ms in months_of(klines):
                month = folder / month_file(start_ms)
                if len(fresh := self._put(month, klines.between(start_ms, end_ms))):
                    changed.append(fresh)
            if changed:
                for journal in sorted(folder.glob(f"*{JOURNAL}")):
                    if journal.name[:7] < month_file(changed[-1].end_ms - 1)[:7]:
                        self._fold(month_of(journal), klines.interval_ms)
                self._keep_tail(symbol, Klines.joined(klines.interval_ms, changed))
        return sum(map(len, changed))

    def _put(self, month: Path, part: Klines) -> Klines:
        """Store klines of one month; returns those that were not there just so."""
        interval_ms = part.interval_ms
        journal = journal_of(month)
        recent = self._load_or_set_aside(journal, interval_ms)
        whole = self._load_or_set_aside(month, interval_ms)
        span = int(part.open_time_ms[0]), part.end_ms
        fresh = not_in(whole.between(*span).merge(recent.between(*span)), part)
        if not len(fresh):
            return fresh
        corrects = bool(np.isin(fresh.open_time_ms, recent.open_time_ms).any())
        recent = recent.merge(fresh)
        held = whole.merge(recent)
        stamp = stamp_of(month)
        with disk(month):
            if stamp is None or stamp[2] < self._small_bytes or len(recent) > self._journal_rows:
                month.parent.mkdir(exist_ok=True)
                if corrects:  # or after a kill between month and journal the old rows of the journal would count
                    replace_file(journal, packed(recent))
                self._replace(month, held)
            else:
                replace_file(journal, packed(recent))
        self._looked[month] = _Month.of(held, stamps_of(month))
        return fresh

    def _fold(self, month: Path, interval_ms: int) -> None:
        """Take a month's journal into it."""
        recent = self._load_or_set_aside(journal_of(month), interval_ms)
        if len(recent):
            whole = self._load_or_set_aside(month, interval_ms)
            with disk(month):
                self._replace(month, whole.merge(recent))

    @staticmethod
    def _replace(month: Path, held: Klines) -> None:
        """Write a month with all that its journal has. A kill in between leaves the journal: it says nothing new."""
        replace_file(month, packed(held))
        journal = journal_of(month)
        if journal.exists():
            journal.unlink()
            sync_folder(journal.parent)

    def _keep_tail(self, symbol: str, changed: Klines) -> None:
        """Write the tail of a series anew where it is too far behind, or tells of a kline what is no longer so.

        After a kill between the months and the tail it is as it was, until the next time that it is behind.

        Args:
            changed: what was just appended and was not there before, or not just so.
        """
        interval_ms = changed.interval_ms
        known = read_tail(self.root, symbol, interval_ms)
        newest_ms = (self.latest(symbol, interval_ms) or 0) + interval_ms
        oldest_ms = newest_ms - TAIL_ROWS * interval_ms
        corrected = len(changed.between(oldest_ms, known.end_ms)) > 0
        if corrected or not len(known) or newest_ms - known.end_ms >= TAIL_BEHIND_MS:
            self._write_tail(symbol, interval_ms)

    def _write_tail(self, symbol: str, interval_ms: int) -> None:
        end_ms = (self.latest(symbol, interval_ms) or 0) + interval_ms
        newest = self.read(symbol, interval_ms, end_ms - TAIL_ROWS * interval_ms, end_ms)
        with disk(self.root):
            write_tail(self.root, symbol, newest)

    def latest(self, symbol: str, interval_ms: int) -> int | None:
        """Open time of the newest kline, or None when there is none."""
        for month in reversed(self._files(symbol, interval_ms)):
            runs = self._look(month, interval_ms).runs
            if len(runs):
                return int(runs[-1, 1]) - interval_ms
        return None

    def first(self, symbol: str, interval_ms: int) -> int | None:
        """Open time of the oldest kline, or None when there is none."""
        for month in self._files(symbol, interval_ms):
            runs = self._look(month, interval_ms).runs
            if len(runs):
                return int(runs[0, 0])
        return None

    def read(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        """Klines with ``start_ms <= open_time_ms < end_ms``, oldest first; gaps stay gaps."""
        months = self._between(self._files(symbol, interval_ms), start_ms, end_ms)
        held = [self._load(month, interval_ms)[0].between(start_ms, end_ms) for month in months]
        return Klines.joined(interval_ms, held)

    def beside(self, symbol: str, klines: Klines) -> Klines:
        """The klines that a run of them would come to lie among: those of its time, and the nearest on either side."""
        interval_ms = klines.interval_ms
        if not len(klines):
            return klines
        start_ms, end_ms = int(klines.open_time_ms[0]), klines.end_ms
        runs = self._runs(symbol, interval_ms)
        before = [min(end, start_ms) for start, end in runs if start < start_ms]
        after = [max(start, end_ms) for start, end in runs if end > end_ms]
        first_ms = before[-1] - interval_ms if before else start_ms
        return self.read(symbol, interval_ms, first_ms, after[0] + interval_ms if after else end_ms)

    def missing(
        self, symbol: str, interval_ms: int, start_ms: int, end_ms: int, *, now_ms: int | None = None
    ) -> list[Span]:
        """What a sync should ask for: ranges of the grid in ``[start_ms, end_ms)`` that are not in the store.

        What the venue told nothing usable of is left out, with ``now_ms`` only if it did so within the last day.
        """
        first, last = (-(-edge // interval_ms) * interval_ms for edge in (start_ms, end_ms))
        if first >= last:
            return []
        months = self._between(self._files(symbol, interval_ms), first, last)
        runs = np.concatenate([np.empty((0, 2), np.int64), *(self._look(month, interval_ms).runs for month in months)])
        runs = np.clip(runs[(runs[:, 1] > first) & (runs[:, 0] < last)], first, last)
        ends, starts = np.append(first, runs[:, 1]), np.append(runs[:, 0], last)
        rows = np.flatnonzero(starts > ends)
        holes = list(zip(ends[rows].tolist(), starts[rows].tolist(), strict=True))
        absent = [
            (start, end)
            for start, end, asked_ms, _ in self._absent(symbol, interval_ms)
            if now_ms is None or now_ms - asked_ms < ABSENT_FOR_MS
        ]
        return without(holes, absent)

    def gaps(self, symbol: str, interval_ms: int) -> list[Gap]:
        """The holes between the first and the last kline, oldest first, and what the venue said of them."""
        holes = [(a[1], b[0]) for a, b in pairwise(self._runs(symbol, interval_ms)) if a[1] < b[0]]
        found: list[Gap] = []
        for start, end, asked_ms, why in sorted(self._absent(symbol, interval_ms), key=lambda one: -one[2]):
            known = without(holes, without(holes, [(start, end)]))
            found += [Gap(start_ms=a, end_ms=b, absent_ms=asked_ms, why=why) for a, b in known]
            holes = without(holes, known)
        return sorted([*found, *(Gap(start_ms=a, end_ms=b) for a, b in holes)], key=lambda gap: gap.start_ms)

    def refused(self, symbol: str, interval_ms: int) -> str:
        """What of a series was told and refused and is not stored, in words; empty where there is nothing of it."""
        runs = self._runs(symbol, interval_ms)
        spans = [
            (*span, asked_ms, why)
            for start, end, asked_ms, why in sorted(self._absent(symbol, interval_ms))
            for span in (without([(start, end)], runs) if why else ())
        ]
        if not spans:
            return ""
        rows = sum(end - start for start, end, *_ in spans) // interval_ms
        first_ms, _, asked_ms, why = spans[0]
        return (
            f"{rows:,} row{'s' if rows > 1 else ''} refused, the first of {_minute(first_ms)}: {why} (asked for again "
            f"by the first sync after {_minute(asked_ms + ABSENT_FOR_MS)})"
        )

    def _runs(self, symbol: str, interval_ms: int) -> list[Span]:
        """First open time and end of each run of klines without a hole, oldest first; months are apart."""
        runs = [self._look(month, interval_ms).runs for month in self._files(symbol, interval_ms)]
        return [span for run in runs for span in run.tolist()]

    def believe(self, symbol: str, interval_ms: int, leap: Span) -> None:
        """A leap is genuine; remembered by this object alone."""
        self._genuine.add((symbol, interval_ms, leap))

    def leaps(self, symbol: str, interval_ms: int) -> list[Span]:
        """Open times of neighbours so far apart that one of them is of another unit or asset, oldest first."""
        months = [self._look(month, interval_ms) for month in self._files(symbol, interval_ms)]
        months = [month for month in months if len(month.edges)]
        between = [_leaps_in(a.edges.tail(1).merge(b.edges.rows(0, 1))) for a, b in pairwise(months)]
        found = {leap for some in (*between, *(month.leaps for month in months)) for leap in some}
        return sorted(leap for leap in found if (symbol, interval_ms, leap) not in self._genuine)

    def remove(self, symbol: str, interval_ms: int, span: Span) -> int:
        """Take klines out that are not to be believed; they are missing from then on. Returns how many.

        Raises:
            ConfigError, WorkerError: as ``writing``.
        """
        removed = 0
        with self.writing():
            for month in self._between(self._files(symbol, interval_ms), *span):
                held = self._load(month, interval_ms)[0]
                kept = held.between(0, span[0]).merge(held.between(span[1], held.end_ms))
                if len(kept) == len(held):
                    continue
                removed += len(held) - len(kept)
                with disk(month):
                    # The month before its journal, as in ``trim``: what a kill leaves in that is found once more.
                    if len(kept):
                        replace_file(month, packed(kept))
                    else:
                        month.unlink(missing_ok=True)
                    journal_of(month).unlink(missing_ok=True)
                    sync_folder(month.parent)
                self._looked.pop(month, None)
            if removed:
                self.repair_tail(symbol, interval_ms)
        return removed

    def remember_absent(
        self,
        symbol: str,
        interval_ms: int,
        spans: Iterable[Span],
        now_ms: int,
        refused: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Remember ranges that the venue was asked for at ``now_ms`` and told nothing usable of.

        Args:
            refused: by open time, why a row of them was refused; of the others it told none.
        """
        new = sorted(spans)
        if not new:
            return
        with self.writing():
            kept = [
                (*span, asked_ms, why)
                for start, end, asked_ms, why in self._absent(symbol, interval_ms)
                if now_ms - asked_ms < ABSENT_FOR_MS
                for span in without([(start, end)], new)
            ]
            told: list[tuple[int, int, int, str]] = []
            for start, end in new:
                rows = range(start, end, interval_ms)
                for why, group in groupby(rows, lambda at_ms: refused.get(at_ms, "")):
                    some = list(group)
                    told.append((some[0], some[-1] + interval_ms, now_ms, why))
            folder = self._folder(symbol, interval_ms)
            with disk(folder):
                folder.mkdir(exist_ok=True)
                replace_json(folder / "absent.json", sorted([*kept, *told]))

    def repair(self, symbol: str, interval_ms: int) -> list[Path]:
        """Set damaged files of a series aside. One that did not change since it was found sound is believed for a day.

        Returns:
            Where they are now.
        """
        with self.writing():
            damaged: list[Path] = []
            for month in self._files(symbol, interval_ms):
                if self._known(month) is None:
                    recent, whole = (
                        self._load_or_set_aside(path, interval_ms, damaged) for path in (journal_of(month), month)
                    )
                    self._note(month, whole.merge(recent), stamps_of(month))
            return damaged

    def series(self) -> list[tuple[str, int]]:
        """``(symbol, interval_ms)`` of each series there is a folder of, by name."""
        by_name = {name: interval_ms for interval_ms, name in INTERVALS.items()}
        names = sorted(path.name for path in self.root.glob("*-*") if path.is_dir())
        return [(symbol, by_name[tail]) for symbol, _, tail in (n.rpartition("-") for n in names) if tail in by_name]

    def inspect(self, symbol: str, interval_ms: int) -> list[FileState]:
        """Read every file of a series, whatever is known of it: whether it can be used, and why not."""
        found = []
        for month in self._files(symbol, interval_ms):
            for path in (month, journal_of(month)):
                if path.exists():
                    try:
                        found.append(FileState(path=path, rows=len(unpacked(path, interval_ms))))
                    except Damaged as error:
                        self._looked.pop(month, None)
                        found.append(FileState(path=path, fault=str(error)))
        return found

    def tail_fault(self, symbol: str, interval_ms: int) -> str:
        """In what the tail of a series is not what the months say; empty where it is, or where there is none."""
        tail = read_tail(self.root, symbol, interval_ms)
        latest = self.latest(symbol, interval_ms)
        if not len(tail):
            if (self.root / "tails" / f"{self._folder(symbol, interval_ms).name}.npy").exists():
                return "cannot be read"
            return ""  # serving asks the venue for all of it
        newest_ms = (latest or 0) + interval_ms
        held = self.read(symbol, interval_ms, max(newest_ms - TAIL_ROWS * interval_ms, 0), tail.end_ms)
        tail = tail.between(newest_ms - TAIL_ROWS * interval_ms, tail.end_ms)
        if len(differing := not_in(held, tail)):
            return f"{len(differing)} rows are not as in the months, the first of {iso(int(differing.open_time_ms[0]))}"
        if len(held) > len(tail):
            return f"{len(held) - len(tail)} rows of the months are not in it"
        if newest_ms - tail.end_ms > TAIL_BEHIND_MS + interval_ms:
            return f"ends at {iso(tail.end_ms)}, the months at {iso(newest_ms)}"
        return ""

    def repair_tail(self, symbol: str, interval_ms: int) -> None:
        """Write the tail of a series as the months say; without klines there is none.

        Raises:
            ConfigError, WorkerError: as ``writing``.
        """
        with self.writing():
            if self.latest(symbol, interval_ms) is None:
                with disk(self.root):
                    (self.root / "tails" / f"{self._folder(symbol, interval_ms).name}.npy").unlink(missing_ok=True)
            else:
                self._write_tail(symbol, interval_ms)

    def trim(self, symbol: str, interval_ms: int, oldest_ms: int) -> list[Path]:
        """Delete whole months of a series that end at ``oldest_ms`` or earlier, and damaged files a month old.

        The newest ``KEPT_MONTHS`` months, and those whose klines the tail holds, stay whatever is asked for. What is
        known to be absent is forgotten as far back as the months are.

        Returns:
            What was deleted.
        Raises:
            ConfigError, WorkerError: as ``writing``.
        """
        folder = self._folder(symbol, interval_ms)
        deleted: list[Path] = []
        with self.writing(), disk(folder):
            latest = self.latest(symbol, interval_ms)
            months = self._files(symbol, interval_ms)
            if latest is not None:
                oldest_ms = min(oldest_ms, latest + interval_ms - TAIL_ROWS * interval_ms)
                first_kept = min([month_file(max(oldest_ms, 0)), *(month.name for month in months[-KEPT_MONTHS:])])
                gone = [month for month in months if month.name < first_kept]
                # The month before its journal: alone, a journal is a month with few rows, which a reader may see.
                for path in (path for month in gone for path in (month, journal_of(month))):
                    if path.exists():
                        path.unlink()
                        deleted.append(path)
                for month in gone:
                    self._looked.pop(month, None)
                self._forget_absent(symbol, interval_ms, first_kept)
            now_ms = time.time_ns() // 1_000_000
            for path in sorted(folder.glob("*.damaged-*")):
                set_aside = re.fullmatch(r".*\.damaged-([0-9]{1,15})", path.name)
                if set_aside and now_ms - int(set_aside[1]) > DAMAGED_FOR_MS:
                    path.unlink()
                    deleted.append(path)
            if deleted:
                sync_folder(folder)
        return deleted

    def _forget_absent(self, symbol: str, interval_ms: int, first_month: str) -> None:
        known = self._absent(symbol, interval_ms)
        kept = [one for one in known if month_file(min(max(one[1] - 1, 0), END_OF_TIME_MS)) >= first_month]
        if kept != known:
            replace_json(self._folder(symbol, interval_ms) / "absent.json", kept)

    def _folder(self, symbol: str, interval_ms: int) -> Path:
        if not re.fullmatch(r"\w[\w.-]*", symbol):
            raise ConfigError(f"a symbol is letters and digits, such as ETHUSDT, was {symbol!r}")
        return self.root / f"{symbol}-{interval_name(interval_ms)}"

    def _files(self, symbol: str, interval_ms: int) -> list[Path]:
        """Month files, oldest first; of a month that has a journal alone, where its file would be."""
        folder = self._folder(symbol, interval_ms)
        try:
            with disk(folder):  # one that may not be read is not empty
                found = list(folder.iterdir())
        except FileNotFoundError:
            return []
        return sorted({month_of(path) for path in found if MONTH.fullmatch(path.name)})

    @staticmethod
    def _between(months: Sequence[Path], start_ms: int, end_ms: int) -> list[Path]:
        """Those that may hold klines of the range."""
        first, last = (month_file(min(max(edge, 0), END_OF_TIME_MS)) for edge in (start_ms, end_ms - 1))
        return [month for month in months if first <= month.name <= last]

    def _load(self, month: Path, interval_ms: int) -> tuple[Klines, bool]:
        """What a month and its journal hold, and whether both could be used."""
        for _ in range(TRIES):
            # The journal first: what leaves it is in the month by then. Should the journal have changed meanwhile, an
            # older row of it might hide a newer one of the month.
            before = stamp_of(journal_of(month))
            (recent, first_sound), (whole, second_sound) = (
                self._usable(path, interval_ms) for path in (journal_of(month), month)
            )
            if stamp_of(journal_of(month)) == before:
                break
        return whole.merge(recent), first_sound and second_sound

    @staticmethod
    def _usable(path: Path, interval_ms: int) -> tuple[Klines, bool]:
        try:
            return unpacked(path, interval_ms), True
        except Damaged as error:
            _log.warning("kline_file_skipped", file=str(path), why=str(error))
            return Klines.empty(interval_ms), False

    def _look(self, month: Path, interval_ms: int) -> _Month:
        """What there is in a month: read from its files only when they changed."""
        if (known := self._known(month)) is not None:
            return known
        stamps = stamps_of(month)
        klines, sound = self._load(month, interval_ms)
        if sound:
            self._note(month, klines, stamps)
        return _Month.of(klines, stamps)

    def _known(self, month: Path) -> _Month | None:
        known = self._looked.get(month)
        if known is None or time.monotonic() - known.looked_s > TRUSTED_S or known.stamps != stamps_of(month):
            return None
        return known

    def _note(self, month: Path, klines: Klines, stamps: tuple[Stamp, Stamp]) -> None:
        """Remember what files hold that had these stamps before they were read, unless they may still change."""
        newest_ns = max((stamp[1] for stamp in stamps if stamp), default=0)
        if stamps == stamps_of(month) and time.time_ns() - newest_ns > SETTLED_S * 1e9:
            self._looked[month] = _Month.of(klines, stamps)

    def _load_or_set_aside(self, path: Path, interval_ms: int, damaged: list[Path] | None = None) -> Klines:
        try:
            return unpacked(path, interval_ms)
        except Damaged as error:
            aside = path.with_name(f"{path.stem}.damaged-{time.time_ns() // 1_000_000}")
            with disk(path):
                path.replace(aside)
            self._looked.pop(month_of(path), None)
            _log.warning("kline_file_set_aside", file=str(path), now=aside.name, why=str(error))
            if damaged is not None:
                damaged.append(aside)
            return Klines.empty(interval_ms)

    def _absent(self, symbol: str, interval_ms: int) -> list[tuple[int, int, int, str]]:
        """``(start_ms, end_ms, asked_ms, why)``, oldest first; ``why`` as ``Gap`` has it, and not in older files."""
        path = self._folder(symbol, interval_ms) / "absent.json"
        try:
            return [
                (int(start), int(end), int(asked), " ".join(map(str, why)))
                for start, end, asked, *why in json.loads(path.read_bytes())
            ]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            # Only saves requests: what is forgotten is asked for once more and written anew.
            _log.warning("absent_file_skipped", file=str(path), why=str(error))
            return []
        except OSError as error:
            raise WorkerError(
                f"{path}: cannot be read: {error.strerror}; check the owner and mode of its folder"
            ) from error


def _minute(ms: int) -> str:
    return iso(ms)[:16].replace("T", " ") + "Z"


def _leaps_in(klines: Klines) -> tuple[Span, ...]:
    times = klines.open_time_ms
    return tuple((int(times[row - 1]), int(times[row])) for row in unit_leaps(klines))
