"""Bring one venue's folder of klines up to now: archive files for long stretches, REST for the rest, no row twice."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import structlog

from core.clock import DAY_MS, HOUR_MS, iso
from core.errors import ConfigError, MalformedKlines, MarketUnavailable, WorkerError
from klines.checks import EARLIEST_MS
from klines.klines import Klines
from klines.spans import Span, month_span, without
from market.failover.endings import Endings
from market.quarantine import Quarantine
from market.store.kline_store import KlineStore
from market.store.scale_break import ScaleBreak, checked
from market.venue import Venue

THREADS = 4
ARCHIVE_ROWS = 1000  # a REST request brings so many: an archive file (two requests) is not used for fewer
OVERLAP_ROWS = 60  # an hour of minutes, in the same request as what is new
REST_ROWS = 10_000  # asked for in one go, so that little is lost to a kill and little is held in memory
BESIDE_ROWS = 240  # stored rows on either side of an answer, which say what is usual
FEW_ROWS = 10  # a hole of fewer is asked for with the rows beside it
PART_ROWS = 1_000  # asked for by itself where a longer range is malformed
MISSES = 7  # archive files in a row that are not to be had: the venue has no archive, or not of this time
SETTLED_MS = HOUR_MS  # a row that a venue lacks for longer will not come soon
SILENT_ROWS = 2  # missing at the end: the venue may have halted the pair

Progress = Callable[[int, int], None]  # (rows settled, rows wanted)

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class SyncReport:
    """The result of a sync of one series."""

    venue: str
    symbol: str
    interval_ms: int
    fetched: int = 0  # rows that are new in the store, or differ from what was there
    gaps: tuple[Span, ...] = ()  # still missing; the next sync asks again
    set_aside: tuple[Path, ...] = ()  # damaged files of the store
    failure: WorkerError | None = None  # the venue's, or the store's
    remark: str = ""  # why the newest klines are not to be had although venues answer
    rejected: str = ""  # rows that were rejected and are not asked for again now, in words


class _Job(NamedTuple):
    """One download: an archive file ("month", "day"), or a range by REST ("rest", or "part" of a malformed one)."""

    source: str
    span: Span

    @property
    def name(self) -> str:
        """Name the download in a log line: "month 2024-03", "day 2024-03-05", "rest 2024-03-05"."""
        return f"{self.source} {iso(self.span[0])[: 7 if self.source == 'month' else 10]}"


def no_progress(done: int, wanted: int) -> None:
    """Show no progress."""


def sync_all(
    store: KlineStore,
    venue: Venue,
    wanted: Sequence[tuple[str, int, int]],
    now_ms: int,
    progress: Progress = no_progress,
    *,
    quarantine: Quarantine | None = None,
    endings: Endings | None = None,
) -> list[SyncReport]:
    """Bring several series up to now, one after the other. A series that fails does not stop the others.

    Args:
        store: the venue's folder.
        wanted: ``(symbol, interval_ms, start_ms)`` of each.
        now_ms: klines that have closed by then are fetched.
        progress: is called with how many rows of all series are settled, and how many were missing in all.
        quarantine: the quarantine that the venue puts rejected rows into; takes those that are rejected here.
        endings: says why a series has no new klines although the venue answers; without it the reports do not say.
    Returns:
        A report for each; a failure is in it, not raised.
    Raises:
        ConfigError: another process is writing the store.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(store.writing())
        except ConfigError:
            raise
        except WorkerError as error:  # a disk that cannot be written
            log.error("klines_not_written", venue=venue.info.name, reason=str(error))
            return [
                SyncReport(venue=venue.info.name, symbol=one[0], interval_ms=one[1], failure=error) for one in wanted
            ]
        # One pool for all: its threads keep their connections to the venue from one series to the next.
        pool = stack.enter_context(ThreadPoolExecutor(THREADS, thread_name_prefix="sync"))

        def show(settled: int) -> None:
            progress(done + settled, total)

        runs = [
            _Run(store, venue, *series, now_ms, quarantine or Quarantine(), endings, pool, show) for series in wanted
        ]
        total, done, reports = sum(run.wanted for run in runs), 0, []
        for run in runs:
            reports.append(run.report())
            done += run.wanted
        return reports


@dataclass
class _Run:
    """One sync of one series. Downloads happen in a pool, everything else in the calling thread.

    What has arrived is in the store at once: a kill loses what was on its way, and the next run goes on from there.
    The newest klines are fetched once more with what follows them: had our clock been ahead of the venue's, the last
    might have been stored unfinished; and what the venue has corrected since is taken over.
    """

    store: KlineStore
    venue: Venue
    symbol: str
    interval_ms: int
    start_ms: int
    now_ms: int
    quarantine: Quarantine
    endings: Endings | None
    pool: ThreadPoolExecutor
    progress: Callable[[int], None]  # is called with how many rows are settled
    wanted: int = 0  # rows that were missing at first

    def __post_init__(self) -> None:
        self.series = self.symbol, self.interval_ms
        self.end_ms = self.now_ms // self.interval_ms * self.interval_ms  # the kline that opens then has not closed
        self.settled_ms = (self.now_ms - SETTLED_MS) // self.interval_ms * self.interval_ms
        self.asked: list[Span] = []  # the settled time that the venue has answered about by REST
        self.quarantined: list[Span] = []  # archive files with a scale break
        self.malformed: dict[int, str] = {}  # by open time: why a part of a REST answer was not used
        self.where = {"venue": self.venue.info.name, "symbol": self.symbol, "interval_ms": self.interval_ms}
        self.found = SyncReport(venue=self.venue.info.name, symbol=self.symbol, interval_ms=self.interval_ms)
        try:
            self.found.set_aside = tuple(self.store.repair(*self.series))
            self.wanted = self.rows(self.missing())
        except WorkerError as error:  # a symbol that cannot name a folder, or a disk that cannot be read
            self.found.failure = error

    def report(self) -> SyncReport:
        found = self.found
        if found.failure is None:
            try:
                self.fetch()
                found.gaps = tuple(self.missing())
                found.rejected = self.store.rejected(*self.series)
            except WorkerError as error:
                found.failure = error
            self.progress(max(0, self.wanted - self.rows(found.gaps)))
        failure = None if found.failure is None else str(found.failure)
        log.info("synced", **self.where, fetched=found.fetched, missing=self.rows(found.gaps), failure=failure)
        if failure is None and found.gaps and self.endings:
            self.endings.look(*self.series, [self.venue], self.store.end_ms(*self.series))
            if remark := self.endings.remark(self.symbol):
                found.remark = remark
                log.warning("nothing_new", **self.where, reason=remark)
        return found

    def fetch(self) -> None:
        if self.wanted and self.venue.info.archives:
            self.archives(least_rows=ARCHIVE_ROWS)
        if self.wanted and not self.rest() and self.venue.info.archives:
            self.archives(least_rows=1)
        newest_ms = self.store.end_ms(*self.series)
        if self.endings and self.end_ms - newest_ms < SILENT_ROWS * self.interval_ms:
            self.endings.went_on(self.symbol, newest_ms)

    def archives(self, *, least_rows: int) -> None:
        """Download files of months, then of days, with enough missing rows, newest first.

        Of a month of which we have a part, the missing days are the smaller download.
        """
        for source in ("month", "day"):
            missing = without(self.missing(), self.quarantined)
            moments = {at for start, end in missing for at in (*range(start, end, DAY_MS), end - 1)}
            spans = {month_span(at) if source == "month" else _day_span(at) for at in moments}
            jobs = []
            for span in sorted(spans, reverse=True):
                rows = self.rows(common([span], missing))
                is_enough = source == "day" or least_rows == 1 or rows == self.rows([span])
                if span[1] <= self.now_ms and rows >= least_rows and is_enough:
                    jobs.append(_Job(source, span))
            if jobs and not self.store.end_ms(*self.series):
                # The newest rows over REST first: archive files are held against what is stored.
                self.get([(max(self.start_ms, self.end_ms - OVERLAP_ROWS * self.interval_ms), self.end_ms)])
            self.files_got(jobs)

    def files_got(self, jobs: Sequence[_Job]) -> None:
        """Download files until too many in a row cannot be had."""
        misses = 0
        with closing(self.download(jobs)) as arrivals:
            for job, outcome in arrivals:
                misses = 0 if isinstance(outcome, Klines) else misses + 1
                if isinstance(outcome, ScaleBreak):
                    self.quarantined.append(job.span)
                elif isinstance(outcome, WorkerError):
                    log.warning("archive_unusable", **self.where, file=job.name, why=str(outcome))
                if misses == MISSES:
                    break

    def rest(self) -> bool:
        """Ask for missing rows by REST, newest first; return False if the venue could not be asked for all."""
        spans, newest_ms = self.missing(), self.store.end_ms(*self.series)
        if spans and spans[-1][0] == newest_ms:
            spans[-1] = (max(self.start_ms, newest_ms - OVERLAP_ROWS * self.interval_ms), spans[-1][1])
        is_reached = self.get(spans)
        # After the newest kline an answer without rows says that the venue is in trouble, not that there was no trade.
        newest_ms = self.store.end_ms(*self.series)
        absent = [span for span in common(self.missing(), self.asked) if span[1] <= newest_ms]
        self.store.remember_absent(*self.series, absent, self.now_ms, self.rejected_of(absent))
        return is_reached

    def get(self, spans: Sequence[Span]) -> bool:
        """Ask for spans by REST; return False if the venue could not be reached for all of them."""
        step = REST_ROWS * self.interval_ms
        wide = [self.widened(span) for span in spans]
        pieces = [(at, min(at + step, end)) for start, end in wide for at in range(start, end, step)]
        with closing(self.download([_Job("rest", piece) for piece in pieces[::-1]])) as arrivals:
            for job, outcome in arrivals:
                start_ms, end_ms = job.span
                if isinstance(outcome, MalformedKlines) and job.source == "part" and end_ms <= self.settled_ms:
                    self.malformed |= dict.fromkeys(range(start_ms, end_ms, self.interval_ms), str(outcome))
                    log.warning("part_refused", **self.where, start=iso(start_ms), reason=str(outcome))
                elif isinstance(outcome, WorkerError):
                    self.found.failure = self.found.failure or outcome
                    if not isinstance(outcome, MalformedKlines):
                        return not isinstance(outcome, MarketUnavailable)
                    continue
                self.asked += common([job.span], [(0, self.settled_ms)])
        return True

    def widened(self, span: Span) -> Span:
        """A span of few rows with rows on either side: alone, one odd row would make the whole answer malformed."""
        start_ms, end_ms = span
        few_ms = FEW_ROWS * self.interval_ms
        if end_ms - start_ms >= few_ms:
            return span
        return max(self.start_ms, start_ms - few_ms), min(self.end_ms, end_ms + few_ms)

    def rejected_of(self, spans: Sequence[Span]) -> dict[int, str]:
        """The reasons of rejected rows by open time; a row with a wrong time of its own leaves a hole of one row."""
        step = self.interval_ms
        rejected = self.quarantine.rejected(*self.series)
        by_row = {at_ms // step * step: why for at_ms, why in rejected.items()} | self.malformed
        astray = next((why for at_ms, why in rejected.items() if not EARLIEST_MS <= at_ms < self.now_ms), "")
        found = {start: astray for start, end in spans if astray and end - start == step}
        rows = (at_ms for start, end in spans for at_ms in range(start, end, step))
        return found | {at_ms: by_row[at_ms] for at_ms in rows if at_ms in by_row}

    def download(self, jobs: Sequence[_Job]) -> Generator[tuple[_Job, Klines | WorkerError | None], None, None]:
        """Each job with its outcome, once its klines are stored."""
        waiting = deque(jobs)
        running: dict[Future[Klines | WorkerError | None], _Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < 2 * THREADS:  # so that the pool has work while we write
                    job = waiting.popleft()
                    running[self.pool.submit(self.outcome, job)] = job
                future = next(as_completed(running))
                job, outcome = running.pop(future), future.result()
                if isinstance(outcome, MalformedKlines) and (parts := self.parts(job)):
                    waiting.extend(parts)
                    continue
                if isinstance(outcome, Klines):
                    outcome = self.stored(job, outcome)
                    self.progress(max(0, self.wanted - self.rows(self.missing())))
                yield job, outcome
        finally:
            for future in running:
                future.cancel()

    def parts(self, job: _Job) -> list[_Job]:
        """The parts to ask for in place of a long range that is malformed: odd hours must not cost the others."""
        step, (start_ms, end_ms) = PART_ROWS * self.interval_ms, job.span
        if job.source != "rest" or end_ms - start_ms <= step:
            return []
        starts = range(end_ms - step, start_ms - step, -step)
        return [_Job("part", (max(at, start_ms), at + step)) for at in starts]

    def outcome(self, job: _Job) -> Klines | WorkerError | None:
        """Ask the venue. Runs in the pool."""
        try:
            if job.source in {"rest", "part"}:
                return self.venue.klines(*self.series, *job.span)
            return self.venue.archive(*self.series, job.span[0], month=job.source == "month")
        except WorkerError as error:
            return error

    def stored(self, job: _Job, klines: Klines) -> Klines | ScaleBreak:
        """Store the rows of an answer that can be of the series; a file or page with a scale break is quarantined."""
        where = self.venue.info.name, *self.series
        try:
            rows = checked(klines, self.store.beside(self.symbol, klines, BESIDE_ROWS))
        except ScaleBreak as error:
            self.quarantine.put(*where, [error.row], self.now_ms)
            remedy = "REST is asked instead; where the stored rows are wrong: birnn data verify --repair"
            log.warning("scale_break", **self.where, file=job.name, factor=error.factor, remedy=remedy)
            return error
        self.quarantine.take(*where, rows, self.now_ms)
        self.found.fetched += self.store.append(self.symbol, rows.klines)
        return klines

    def missing(self) -> list[Span]:
        return self.store.missing(*self.series, self.start_ms, self.end_ms, now_ms=self.now_ms)

    def rows(self, spans: Sequence[Span]) -> int:
        return sum(end - start for start, end in spans) // self.interval_ms


def _day_span(ms: int) -> Span:
    return ms // DAY_MS * DAY_MS, (ms // DAY_MS + 1) * DAY_MS


def common(left: Sequence[Span], right: Sequence[Span]) -> list[Span]:
    """The time that lies in both.

    >>> common([(0, 10), (20, 30)], [(5, 25)])
    [(5, 10), (20, 25)]
    """
    return without(left, without(left, right))
