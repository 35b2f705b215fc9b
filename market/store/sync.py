"""Bring the kline store up to now: archive files for long stretches, REST for the rest, only what is missing."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import structlog

from core.clock import DAY_MS, HOUR_MS, iso
from core.errors import MalformedKlines, MarketUnavailable, WorkerError
from klines.checks import EARLIEST_MS
from klines.klines import Klines
from klines.spans import Span, month_span, without
from market.store.kline_store import KlineStore
from market.store.units import odd_stretches
from market.store.warm_start import read_tail
from market.venue import MarketData

THREADS = 4
ARCHIVE_ROWS = 1000  # a REST request brings so many: an archive file (two requests) is not used for fewer
OVERLAP_ROWS = 60  # an hour of minutes, in the same request as what is new
REST_ROWS = 10_000  # asked for in one go, so that little is lost to a kill and little is held in memory
KNOWN_ROWS = 300  # read of a series whose tail is missing
MISSES = 7  # archive files in a row that are not to be had: the venue has no archive, or not of this time
UNIT_ROUNDS = 3  # behind a stretch that was given up there may be another
SETTLED_MS = HOUR_MS  # what a venue still lacks after this it will not have soon

Progress = Callable[[int, int], None]  # (rows settled, rows wanted)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a sync did to one series."""

    symbol: str
    interval_ms: int
    fetched: int = 0  # rows that are new in the store, or differ from what was there
    gaps: tuple[Span, ...] = ()  # not got; the next sync asks again
    set_aside: tuple[Path, ...] = ()  # damaged files of the store
    failure: WorkerError | None = None  # the venue's, or the store's
    remark: str = ""  # why the newest klines are not to be had although venues answer
    refused: str = ""  # what was told and refused and is not asked for now, in words


def failed_in(reports: Sequence[SyncReport]) -> set[tuple[str, int]]:
    """Symbol and interval of the series that not all was fetched or stored of."""
    return {(report.symbol, report.interval_ms) for report in reports if report.failure}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One download: an archive file ("month", "day") or a range by REST ("rest")."""

    source: str
    span: Span
    rows: int  # how many of the missing rows lie in it


def _no_progress(done: int, wanted: int) -> None:
    pass


def sync_all(
    store: KlineStore,
    market: MarketData,
    wanted: Sequence[tuple[str, int, int]],
    now_ms: int,
    progress: Progress = _no_progress,
) -> list[SyncReport]:
    """Bring several series up to now, one after the other. One that fails does not stop the others.

    Args:
        wanted: ``(symbol, interval_ms, start_ms)`` of each.
        now_ms: klines that have closed by then are fetched.
        progress: told how many rows of all series are settled, and how many were missing in all.
    Returns:
        A report for each; a failure is in it, not raised.
    Raises:
        ConfigError: another process is writing the store.
    """
    # One pool for all: its threads keep their connections to the venue from one series to the next.
    with store.writing(), ThreadPoolExecutor(THREADS, thread_name_prefix="sync") as pool:
        runs = [_Run(store, market, *series, now_ms) for series in wanted]
        total = sum(run.wanted for run in runs)
        done, reports = 0, []
        for run in runs:
            reports.append(run.report(pool, lambda settled, _, before=done: progress(before + settled, total)))  # type: ignore[misc]
            done += run.wanted
        return reports


def sync_series(
    store: KlineStore,
    market: MarketData,
    symbol: str,
    interval_ms: int,
    start_ms: int,
    now_ms: int,
    *,
    progress: Progress = _no_progress,
) -> SyncReport:
    """Fetch what the store lacks of one series from ``start_ms`` on; see ``sync_all``.

    What has arrived is in the store at once: a kill loses what was on its way, and the next run goes on from there.
    The newest klines are fetched once more with what follows them: had our clock been ahead of the venue's, the last
    might have been stored unfinished; and what the venue has corrected since is taken over.
    """
    return sync_all(store, market, [(symbol, interval_ms, start_ms)], now_ms, progress)[0]


class _Run:
    """One sync of one series. Downloads happen in a pool, everything else in the calling thread."""

    def __init__(
        self, store: KlineStore, market: MarketData, symbol: str, interval_ms: int, start_ms: int, now_ms: int
    ) -> None:
        self._store, self._market, self._symbol, self._interval_ms = store, market, symbol, interval_ms
        self._start_ms, self._now_ms = start_ms, now_ms
        self._progress: Progress = _no_progress
        self._done = self._fetched = 0
        self._failure: WorkerError | None = None
        self._set_aside: list[Path] = []
        self._refuted: set[Span] = set()  # archive files that were found to be of another unit
        self.wanted = 0
        try:
            self._set_aside = store.repair(symbol, interval_ms)
            market.remember(symbol, _known(store, symbol, interval_ms))
            self.wanted = self._rows(self._missing())
        except WorkerError as error:  # a symbol that cannot name a folder, or a disk that cannot be read
            self._failure = error

    def report(self, pool: ThreadPoolExecutor, progress: Progress) -> SyncReport:
        """Do it."""
        self._progress = progress
        gaps: list[Span] = []
        refused = ""
        if self._failure is None:
            try:
                self._fetch(pool)
                gaps = self._missing()
                refused = self._store.refused(self._symbol, self._interval_ms)
            except WorkerError as error:
                self._failure = error
            progress(max(0, self.wanted - self._rows(gaps)), self.wanted)
        _log.info(
            "synced",
            symbol=self._symbol,
            interval_ms=self._interval_ms,
            fetched=self._fetched,
            missing=self._rows(gaps),
            failure=None if self._failure is None else str(self._failure),
        )
        remark = "" if self._failure else self._market.remark(self._symbol, self._interval_ms)
        if remark and gaps:
            _log.warning("nothing_new", symbol=self._symbol, interval_ms=self._interval_ms, reason=remark)
        return SyncReport(
            symbol=self._symbol,
            interval_ms=self._interval_ms,
            fetched=self._fetched,
            gaps=tuple(gaps),
            set_aside=tuple(self._set_aside),
            failure=self._failure,
            remark=remark if gaps else "",
            refused=refused,
        )

    def _fetch(self, pool: ThreadPoolExecutor) -> None:
        if not self.wanted:
            return
        self._check_units(self._archives(pool, least_rows=ARCHIVE_ROWS))
        if not self._rest(pool):
            self._check_units(self._archives(pool, least_rows=1))

    def _check_units(self, got: Sequence[Span]) -> None:
        """Give up what is of another unit or asset than the rest; days of a month, REST or the next sync bring it."""
        for _ in range(UNIT_ROUNDS):
            odd = odd_stretches(
                self._store, self._market, self._symbol, self._interval_ms, got, self._start_ms, self._now_ms
            )
            for span in odd:
                rows = self._store.remove(self._symbol, self._interval_ms, span)
                self._market.forget(self._symbol, self._interval_ms, span)
                self._refuted |= {of for of in got if of[0] < span[1] and span[0] < of[1]}
                _log.warning(
                    "other_unit_removed",
                    symbol=self._symbol,
                    interval_ms=self._interval_ms,
                    start=iso(span[0]),
                    end=iso(span[1]),
                    rows=rows,
                )
            if not odd:
                break
            self._done = max(0, self.wanted - self._rows(self._missing()))
        if got or self._refuted:
            self._market.remember(self._symbol, _known(self._store, self._symbol, self._interval_ms))

    def _archives(self, pool: ThreadPoolExecutor, *, least_rows: int) -> list[Span]:
        """Fetch files of months, then of days, that hold at least so many missing rows; returns what they cover."""
        missing = self._missing()
        months = [job for job in self._files("month", missing) if job.rows >= least_rows]
        if least_rows > 1:  # of a month of which we have a part, the missing days are the smaller download
            months = [job for job in months if job.rows == self._rows([job.span])]
        got = self._files_got(pool, months)
        days = [job for job in self._files("day", without(missing, got)) if job.rows >= least_rows]
        return [*got, *self._files_got(pool, days)]

    def _files(self, source: str, missing: Sequence[Span]) -> list[_Job]:
        """Archive files whose time is over and that should hold missing rows, newest first."""
        jobs: list[_Job] = []
        at = 0
        for start, end in missing:
            at = max(at, start)
            while at < end:
                day_ms = at // DAY_MS * DAY_MS
                span = month_span(at) if source == "month" else (day_ms, day_ms + DAY_MS)
                if span[1] <= self._now_ms and span not in self._refuted:
                    jobs.append(self._job(source, span, missing))
                at = span[1]
        return jobs[::-1]

    def _files_got(self, pool: ThreadPoolExecutor, jobs: Sequence[_Job]) -> list[Span]:
        """Download files until too many in a row cannot be had; returns the time that the others cover."""
        got: list[Span] = []
        misses = 0
        with closing(self._download(pool, jobs)) as arrivals:
            for job, outcome in arrivals:
                if isinstance(outcome, Klines):
                    got.append(job.span)
                    misses = 0
                    self._settle(min(len(outcome), job.rows))
                    continue
                misses += 1
                if outcome is not None:
                    _log.warning("archive_unusable", symbol=self._symbol, file_of=job.source, why=str(outcome))
                if misses == MISSES:
                    break
        return sorted(got)

    def _rest(self, pool: ThreadPoolExecutor) -> bool:
        """Ask for what is missing by REST, newest first; False when the venue could not be asked for all of it."""
        missing = self._missing()
        spans = list(missing)
        latest = self._store.latest(self._symbol, self._interval_ms)
        if spans and latest is not None and spans[-1][0] == latest + self._interval_ms:
            overlap_ms = max(self._start_ms, latest - (OVERLAP_ROWS - 1) * self._interval_ms)
            spans[-1] = (overlap_ms, spans[-1][1])
        step = REST_ROWS * self._interval_ms
        pieces = [(at, min(at + step, end)) for start, end in spans for at in range(start, end, step)]
        settled_ms = (self._now_ms - SETTLED_MS) // self._interval_ms * self._interval_ms
        asked: list[Span] = []
        reached, lent = True, self._market.lent(self._symbol, self._interval_ms)
        with closing(self._download(pool, [self._job("rest", piece, missing) for piece in pieces[::-1]])) as arrivals:
            for job, outcome in arrivals:
                if isinstance(outcome, Klines):
                    self._settle(job.rows)
                    if job.span[0] < settled_ms:
                        asked.append((job.span[0], min(job.span[1], settled_ms)))
                elif isinstance(outcome, WorkerError):
                    self._failure = self._failure or outcome
                    if not isinstance(outcome, MalformedKlines):
                        reached = not isinstance(outcome, MarketUnavailable)
                        break
        if self._market.lent(self._symbol, self._interval_ms) > lent:
            return reached  # what another venue lacks the series' own may have
        # After the newest kline an answer without rows says that the venue is in trouble, not that there was no trade.
        newest_ms = self._store.latest(self._symbol, self._interval_ms) or 0
        absent = [span for span in _common(self._missing(), asked) if span[1] <= newest_ms]
        self._store.remember_absent(self._symbol, self._interval_ms, absent, self._now_ms, self._refused_of(absent))
        return reached

    def _refused_of(self, spans: Sequence[Span]) -> dict[int, str]:
        """By open time, why rows of spans were refused. One whose own time is wrong leaves a hole of a single row."""
        refused, interval_ms = self._market.refused(self._symbol, self._interval_ms), self._interval_ms
        by_row = {at_ms // interval_ms * interval_ms: why for at_ms, why in refused.items()}
        astray = next((why for at_ms, why in refused.items() if not EARLIEST_MS <= at_ms < self._now_ms), "")
        found = {start: astray for start, end in spans if astray and end - start == interval_ms}
        rows = (at_ms for start, end in spans for at_ms in range(start, end, interval_ms))
        return found | {at_ms: by_row[at_ms] for at_ms in rows if at_ms in by_row}

    def _download(
        self, pool: ThreadPoolExecutor, jobs: Sequence[_Job]
    ) -> Generator[tuple[_Job, Klines | WorkerError | None], None, None]:
        """Each job with what came of it, as it arrives and when its klines are in the store."""
        waiting = deque(jobs)
        running: dict[Future[Klines | WorkerError | None], _Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < 2 * THREADS:  # so that the pool has work while we write
                    job = waiting.popleft()
                    running[pool.submit(self._outcome, job)] = job
                ready = wait(running, return_when=FIRST_COMPLETED).done
                arrived = [(running.pop(future), future.result()) for future in ready]
                runs = [outcome for _, outcome in arrived if isinstance(outcome, Klines)]
                if runs:
                    klines = reduce(Klines.merge, runs)
                    self._fetched += self._store.append(self._symbol, klines)
                yield from arrived
        finally:
            for future in running:
                future.cancel()

    def _outcome(self, job: _Job) -> Klines | WorkerError | None:
        """In the pool: what the venue has, or why not."""
        start_ms, end_ms = job.span
        try:
            if job.source == "rest":
                return self._market.klines(self._symbol, self._interval_ms, start_ms, end_ms)
            return self._market.archive(self._symbol, self._interval_ms, start_ms, month=job.source == "month")
        except WorkerError as error:
            return error

    def _settle(self, rows: int) -> None:
        self._done = min(self._done + rows, self.wanted)
        self._progress(self._done, self.wanted)

    def _missing(self) -> list[Span]:
        """What is not in the store, or is there from another venue and is to be had from the series' own again."""
        end_ms = self._now_ms // self._interval_ms * self._interval_ms  # the kline that opens then has not closed
        borrowed = [
            (max(start, self._start_ms), min(end, end_ms))
            for start, end in self._market.borrowed(self._symbol, self._interval_ms)
        ]
        missing = self._not_stored(end_ms)
        return sorted([*without(missing, borrowed), *(span for span in borrowed if span[0] < span[1])])

    def _not_stored(self, end_ms: int) -> list[Span]:
        return self._store.missing(self._symbol, self._interval_ms, self._start_ms, end_ms, now_ms=self._now_ms)

    def _job(self, source: str, span: Span, missing: Sequence[Span]) -> _Job:
        return _Job(source=source, span=span, rows=self._rows(_common([span], missing)))

    def _rows(self, spans: Sequence[Span]) -> int:
        return sum(end - start for start, end in spans) // self._interval_ms


def _known(store: KlineStore, symbol: str, interval_ms: int) -> Klines:
    """The newest candles of a series, by which the level of what is fetched is told."""
    tail = read_tail(store.root, symbol, interval_ms)
    latest = None if len(tail) else store.latest(symbol, interval_ms)
    if latest is None:
        return tail
    return store.read(symbol, interval_ms, latest - KNOWN_ROWS * interval_ms, latest + interval_ms)


def _common(left: Sequence[Span], right: Sequence[Span]) -> list[Span]:
    """What lies in both.

    >>> _common([(0, 10), (20, 30)], [(5, 25)])
    [(5, 10), (20, 25)]
    """
    return without(left, without(left, right))
