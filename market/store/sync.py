"""Bring one venue's folder of klines up to now: archive files for long stretches, REST for the rest, no row twice."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import structlog

from core.clock import DAY_MS, HOUR_MS, iso
from core.errors import MalformedKlines, MarketUnavailable, WorkerError
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


@dataclass(frozen=True, slots=True, kw_only=True)
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
    refused: str = ""  # rows that were refused and are not asked for again now, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One download: an archive file ("month", "day") or a range by REST ("rest")."""

    source: str
    span: Span
    rows: int  # how many of the missing rows lie in it

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
    aside: Quarantine | None = None,
    endings: Endings | None = None,
) -> list[SyncReport]:
    """Bring several series up to now, one after the other. A series that fails does not stop the others.

    Args:
        store: the venue's folder.
        wanted: ``(symbol, interval_ms, start_ms)`` of each.
        now_ms: klines that have closed by then are fetched.
        progress: is called with how many rows of all series are settled, and how many were missing in all.
        aside: the quarantine that the venue puts rejected rows into; takes those that are rejected here.
        endings: says why a series has no new klines although the venue answers; without it the reports do not say.
    Returns:
        A report for each; a failure is in it, not raised.
    Raises:
        ConfigError: another process is writing the store.
    """
    # One pool for all: its threads keep their connections to the venue from one series to the next.
    with store.writing(), ThreadPoolExecutor(THREADS, thread_name_prefix="sync") as pool:
        runs = [_Run(store, venue, *series, now_ms, aside or Quarantine(), endings) for series in wanted]
        total = sum(run.wanted for run in runs)
        done, reports = 0, []
        for run in runs:
            reports.append(run.report(pool, lambda settled, _, before=done: progress(before + settled, total)))  # type: ignore[misc]
            done += run.wanted
        return reports


class _Run:
    """One sync of one series. Downloads happen in a pool, everything else in the calling thread.

    What has arrived is in the store at once: a kill loses what was on its way, and the next run goes on from there.
    The newest klines are fetched once more with what follows them: had our clock been ahead of the venue's, the last
    might have been stored unfinished; and what the venue has corrected since is taken over.
    """

    def __init__(
        self,
        store: KlineStore,
        venue: Venue,
        symbol: str,
        interval_ms: int,
        start_ms: int,
        now_ms: int,
        aside: Quarantine,
        endings: Endings | None,
    ) -> None:
        self._store, self._venue, self._symbol, self._interval_ms = store, venue, symbol, interval_ms
        self._start_ms, self._now_ms = start_ms, now_ms
        self._end_ms = now_ms // interval_ms * interval_ms  # the kline that opens then has not closed
        self._aside, self._endings = aside, endings
        self._said = {"venue": venue.offer.name, "symbol": symbol, "interval_ms": interval_ms}
        self._progress: Progress = no_progress
        self._done = self._fetched = 0
        self._failure: WorkerError | None = None
        self._set_aside: list[Path] = []
        self._quarantined: list[Span] = []  # archive files with a scale break
        self._malformed: dict[int, str] = {}  # by open time: why a part of a REST answer was not used
        self.wanted = 0
        try:
            self._set_aside = store.repair(symbol, interval_ms)
            self.wanted = self._rows(self._missing())
        except WorkerError as error:  # a symbol that cannot name a folder, or a disk that cannot be read
            self._failure = error

    def report(self, pool: ThreadPoolExecutor, progress: Progress) -> SyncReport:
        self._progress = progress
        gaps: list[Span] = []
        refused = remark = ""
        if self._failure is None:
            try:
                self._fetch(pool)
                gaps = self._missing()
                refused = self._store.refused(self._symbol, self._interval_ms)
            except WorkerError as error:
                self._failure = error
            progress(max(0, self.wanted - self._rows(gaps)), self.wanted)
        failure = None if self._failure is None else str(self._failure)
        log.info("synced", **self._said, fetched=self._fetched, missing=self._rows(gaps), failure=failure)
        if failure is None and (remark := self._why_ended() if gaps else ""):
            log.warning("nothing_new", **self._said, reason=remark)
        return SyncReport(
            venue=self._venue.offer.name,
            symbol=self._symbol,
            interval_ms=self._interval_ms,
            fetched=self._fetched,
            gaps=tuple(gaps),
            set_aside=tuple(self._set_aside),
            failure=self._failure,
            remark=remark,
            refused=refused,
        )

    def _why_ended(self) -> str:
        if self._endings is None:
            return ""
        self._endings.look(self._symbol, self._interval_ms, [self._venue], self._newest_ms())
        return self._endings.remark(self._symbol)

    def _fetch(self, pool: ThreadPoolExecutor) -> None:
        if self.wanted and self._venue.offer.archives:
            self._archives(pool, least_rows=ARCHIVE_ROWS)
        if self.wanted and not self._rest(pool) and self._venue.offer.archives:
            self._archives(pool, least_rows=1)
        newest_ms = self._newest_ms()
        if self._endings and self._end_ms - newest_ms < SILENT_ROWS * self._interval_ms:
            self._endings.went_on(self._symbol, newest_ms)

    def _archives(self, pool: ThreadPoolExecutor, *, least_rows: int) -> None:
        """Fetch files of months, then of days, with at least ``least_rows`` missing rows."""
        months = [job for job in self._files("month", self._missing()) if job.rows >= least_rows]
        if least_rows > 1:  # of a month of which we have a part, the missing days are the smaller download
            months = [job for job in months if job.rows == self._rows([job.span])]
        days = self._days(months, least_rows)
        if (months or days) and self._newest_ms() == 0:
            # The newest rows over REST first: archive files are held against what is stored.
            self._get(pool, [(max(self._start_ms, self._end_ms - OVERLAP_ROWS * self._interval_ms), self._end_ms)])
        self._files_got(pool, months)
        self._files_got(pool, self._days([], least_rows))

    def _days(self, months: Sequence[_Job], least_rows: int) -> list[_Job]:
        """Files of days with at least ``least_rows`` missing rows, outside the given months."""
        missing = without(self._missing(), [*self._quarantined, *(job.span for job in months)])
        return [job for job in self._files("day", missing) if job.rows >= least_rows]

    def _files(self, source: str, missing: Sequence[Span]) -> list[_Job]:
        """Archive files whose time is over and that should hold missing rows, newest first."""
        jobs: list[_Job] = []
        at = 0
        for start, end in missing:
            at = max(at, start)
            while at < end:
                day_ms = at // DAY_MS * DAY_MS
                span = month_span(at) if source == "month" else (day_ms, day_ms + DAY_MS)
                if span[1] <= self._now_ms and span not in self._quarantined:
                    jobs.append(self._job(source, span, missing))
                at = span[1]
        return jobs[::-1]

    def _files_got(self, pool: ThreadPoolExecutor, jobs: Sequence[_Job]) -> None:
        """Download files until too many in a row cannot be had."""
        misses = 0
        with closing(self._download(pool, jobs)) as arrivals:
            for job, outcome in arrivals:
                if isinstance(outcome, Klines):
                    misses = 0
                    self._settle(min(len(outcome), job.rows))
                    continue
                misses += 1
                if isinstance(outcome, ScaleBreak):
                    self._quarantined.append(job.span)
                elif outcome is not None:
                    log.warning("archive_unusable", **self._said, file=job.name, why=str(outcome))
                if misses == MISSES:
                    break

    def _rest(self, pool: ThreadPoolExecutor) -> bool:
        """Ask for missing rows by REST, newest first; return False if the venue could not be asked for all."""
        spans = self._missing()
        latest = self._store.latest(self._symbol, self._interval_ms)
        if spans and latest is not None and spans[-1][0] == latest + self._interval_ms:
            overlap_ms = max(self._start_ms, latest - (OVERLAP_ROWS - 1) * self._interval_ms)
            spans[-1] = (overlap_ms, spans[-1][1])
        asked, reached = self._get(pool, spans)
        # After the newest kline an answer without rows says that the venue is in trouble, not that there was no trade.
        absent = [span for span in _common(self._missing(), asked) if span[1] <= self._newest_ms()]
        self._store.remember_absent(self._symbol, self._interval_ms, absent, self._now_ms, self._refused_of(absent))
        return reached

    def _get(self, pool: ThreadPoolExecutor, spans: Sequence[Span]) -> tuple[list[Span], bool]:
        """Ask for spans by REST.

        Returns:
            The settled time that the venue has answered about, and False if it could not be asked for all of it.
        """
        missing, step = self._missing(), REST_ROWS * self._interval_ms
        wide = [self._widened(span) for span in spans]
        pieces = [(at, min(at + step, end)) for start, end in wide for at in range(start, end, step)]
        settled_ms = (self._now_ms - SETTLED_MS) // self._interval_ms * self._interval_ms
        asked: list[Span] = []
        with closing(self._download(pool, [self._job("rest", piece, missing) for piece in pieces[::-1]])) as arrivals:
            for job, outcome in arrivals:
                if isinstance(outcome, Klines):
                    self._settle(job.rows)
                elif isinstance(outcome, WorkerError) and not self._is_settled_part(job, outcome, settled_ms):
                    self._failure = self._failure or outcome
                    if not isinstance(outcome, MalformedKlines):
                        return asked, not isinstance(outcome, MarketUnavailable)
                    continue
                if job.span[0] < settled_ms:
                    asked.append((job.span[0], min(job.span[1], settled_ms)))
        return asked, True

    def _widened(self, span: Span) -> Span:
        """A span of few rows with rows on either side: alone, one odd row would make the whole answer malformed."""
        start_ms, end_ms = span
        if end_ms - start_ms >= FEW_ROWS * self._interval_ms:
            return span
        beside_ms = FEW_ROWS * self._interval_ms
        return max(self._start_ms, start_ms - beside_ms), min(self._end_ms, end_ms + beside_ms)

    def _is_settled_part(self, job: _Job, error: WorkerError, settled_ms: int) -> bool:
        """True if a part of an answer is malformed and not of the newest rows: asked for again after a day."""
        if job.source != "part" or job.span[1] > settled_ms or not isinstance(error, MalformedKlines):
            return False
        self._malformed |= dict.fromkeys(range(*job.span, self._interval_ms), str(error))
        log.warning("part_refused", **self._said, start=iso(job.span[0]), reason=str(error))
        return True

    def _refused_of(self, spans: Sequence[Span]) -> dict[int, str]:
        """The reasons of refused rows by open time; a row with a wrong time of its own leaves a hole of one row."""
        interval_ms = self._interval_ms
        refused = self._aside.refused(self._symbol, interval_ms)
        by_row = {at_ms // interval_ms * interval_ms: why for at_ms, why in refused.items()} | self._malformed
        astray = next((why for at_ms, why in refused.items() if not EARLIEST_MS <= at_ms < self._now_ms), "")
        found = {start: astray for start, end in spans if astray and end - start == interval_ms}
        rows = (at_ms for start, end in spans for at_ms in range(start, end, interval_ms))
        return found | {at_ms: by_row[at_ms] for at_ms in rows if at_ms in by_row}

    def _download(
        self, pool: ThreadPoolExecutor, jobs: Sequence[_Job]
    ) -> Generator[tuple[_Job, Klines | WorkerError | None], None, None]:
        """Each job with its outcome, as it arrives and once its klines are stored."""
        waiting = deque(jobs)
        running: dict[Future[Klines | WorkerError | None], _Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < 2 * THREADS:  # so that the pool has work while we write
                    job = waiting.popleft()
                    running[pool.submit(self._outcome, job)] = job
                ready = wait(running, return_when=FIRST_COMPLETED).done
                arrived = [(running.pop(future), future.result()) for future in ready]
                for job, outcome in sorted(arrived, key=lambda one: -one[0].span[0]):
                    parts = self._parts(job) if isinstance(outcome, MalformedKlines) else []
                    waiting.extend(parts)
                    if not parts:
                        yield job, self._stored(job, outcome) if isinstance(outcome, Klines) else outcome
        finally:
            for future in running:
                future.cancel()

    def _parts(self, job: _Job) -> list[_Job]:
        """The parts to ask for in place of a long range that is malformed: odd hours must not cost the others."""
        step, (start_ms, end_ms) = PART_ROWS * self._interval_ms, job.span
        if job.source != "rest" or end_ms - start_ms <= step:
            return []
        missing = self._missing()
        spans = [(max(at, start_ms), at + step) for at in range(end_ms - step, start_ms - step, -step)]
        return [self._job("part", span, missing) for span in spans]

    def _outcome(self, job: _Job) -> Klines | WorkerError | None:
        """Ask the venue. Runs in the pool."""
        start_ms, end_ms = job.span
        try:
            if job.source in {"rest", "part"}:
                return self._venue.klines(self._symbol, self._interval_ms, start_ms, end_ms)
            return self._venue.archive(self._symbol, self._interval_ms, start_ms, month=job.source == "month")
        except WorkerError as error:
            return error

    def _stored(self, job: _Job, klines: Klines) -> Klines | ScaleBreak:
        """Store the rows of an answer that can be of the series; a file or page with a scale break is quarantined."""
        beside = self._store.beside(self._symbol, klines, BESIDE_ROWS)
        where = (self._venue.offer.name, self._symbol, self._interval_ms)
        try:
            rows = checked(klines, beside)
        except ScaleBreak as error:
            self._aside.put(*where, [error.row], self._now_ms)
            remedy = "REST is asked instead; where the stored rows are wrong: birnn data verify --repair"
            log.warning("scale_break", **self._said, file=job.name, factor=error.factor, remedy=remedy)
            return error
        self._aside.take(*where, rows, self._now_ms)
        self._fetched += self._store.append(self._symbol, rows.klines)
        return klines

    def _settle(self, rows: int) -> None:
        self._done = min(self._done + rows, self.wanted)
        self._progress(self._done, self.wanted)

    def _missing(self) -> list[Span]:
        return self._store.missing(self._symbol, self._interval_ms, self._start_ms, self._end_ms, now_ms=self._now_ms)

    def _newest_ms(self) -> int:
        """Close time of the newest stored kline; 0 without klines."""
        latest = self._store.latest(self._symbol, self._interval_ms)
        return 0 if latest is None else latest + self._interval_ms

    def _job(self, source: str, span: Span, missing: Sequence[Span]) -> _Job:
        return _Job(source=source, span=span, rows=self._rows(_common([span], missing)))

    def _rows(self, spans: Sequence[Span]) -> int:
        return sum(end - start for start, end in spans) // self._interval_ms


def _common(left: Sequence[Span], right: Sequence[Span]) -> list[Span]:
    """The time that lies in both.

    >>> _common([(0, 10), (20, 30)], [(5, 25)])
    [(5, 10), (20, 25)]
    """
    return without(left, without(left, right))
