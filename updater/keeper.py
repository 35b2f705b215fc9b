"""Keep the klines that the panels need: fetched up to now, trimmed once a day, and room for more on the disk."""

import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, Clock, Every
from core.errors import WorkerError
from core.files import disk_refusal
from core.settings import Settings
from core.show.progress import progress_of
from core.topic import Target
from klines.spans import interval_name
from market.store.home_store import HomeStore
from market.store.home_sync import HomeSync
from market.store.retention import kept_from_ms
from market.venue import Venue
from model.panels import MINUTE, PANELS, PanelPlan, training_start_ms
from updater.admission.records import REPLAYED_DAYS
from updater.state import SeriesState, StateFile
from updater.training_process import Stopped, raise_if_stopped

LEAST_FREE_MB = 256  # two rounds' networks and a month of all klines
LEAST_FREE_BYTES = 1 << 20  # about the size of a network; below it no round begins
SYNC_PATIENCE_S = 20.0  # limit of one request; the next sync comes within minutes

log = structlog.get_logger()


class StoppableClock:
    """A clock for the venues' clients: ``sleep`` raises ``Stopped`` as soon as the updater is asked to end."""

    def __init__(self, clock: Clock, stop: threading.Event) -> None:
        self._clock = clock
        self._stop = stop

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def elapsed_s(self) -> float:
        return self._clock.elapsed_s()

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """Syncs, trims and watches the disk. The caller must call the methods from one thread at a time."""

    settings: Settings
    plans: Mapping[str, PanelPlan]  # by panel name
    store: HomeStore
    homes: HomeSync
    state: StateFile
    clock: Clock
    stop: threading.Event
    truth: Venue | None = None  # TRUTH_VENUE, if that is not the first venue
    least_free_mb: int = LEAST_FREE_MB
    trim_due: Every = field(default_factory=lambda: Every(DAY_MS))
    truth_due: Every = field(default_factory=lambda: Every(HOUR_MS))

    def sync(self) -> bool:
        """Fetch new and missing klines of every series that a panel needs; failures go to the log and the state.

        Returns:
            False if the disk refuses, so that nothing was fetched.
        Raises:
            Stopped: the updater was asked to end.
        """
        raise_if_stopped(self.stop)
        if refusal := self.disk_refusal():
            log.error("disk_refuses", reason=refusal, meanwhile="nothing is fetched or trained; answers go on")
            return False
        now_ms = self.clock.now_ms()
        wanted = [
            (symbol, plan.panel.interval_ms, training_start_ms(plan.panel, self.settings.training_days, now_ms))
            for plan in self.plans.values()
            for symbol in plan.symbols
        ]
        wanted += [(symbol, MINUTE_MS, now_ms - REPLAYED_DAYS * DAY_MS) for symbol in self._replayed_alone()]
        with progress_of("sync") as show:

            def progress(done: int, rows: int) -> None:
                raise_if_stopped(self.stop)
                show(done, rows, "klines")

            reports = self.homes.sync(wanted, now_ms, progress)
            self._sync_truth(now_ms)
        try:
            self._trim(now_ms)
        except WorkerError as error:  # a fault of the disk; series that could not be written report it too
            log.error("not_kept", reason=str(error))
        self._look_at_the_disk()
        self.state.replace_series(
            {
                series_name(report.symbol, report.interval_ms): SeriesState(
                    synced_ms=now_ms,
                    fetched_rows=report.fetched,
                    newest_ms=self.store.latest(report.symbol, report.interval_ms),
                    gaps=len(report.gaps),
                    reason=str(report.failure or report.remark),
                    rejected=report.rejected,
                )
                for report in reports
            }
        )
        return True

    def disk_refusal(self) -> str:
        """Say why the disk takes no klines or networks, and what to do; empty if it takes them."""
        folder = self.settings.data_dir
        reason = disk_refusal(folder, LEAST_FREE_BYTES)
        return f"DATA_DIR={folder}: {reason}; make room, or mount it writable" if reason else ""

    def _sync_truth(self, now_ms: int) -> None:
        """Once an hour, fetch the truth venue's minutes of the price topics' symbols; a failure is in the log."""
        if self.truth and self.truth_due.is_due(now_ms):
            topics = {topic for plan in self.plans.values() for topic in plan.topics if topic.target is Target.PRICE}
            symbols = sorted({topic.symbol for topic in topics})
            start_ms = now_ms - REPLAYED_DAYS * DAY_MS
            self.homes.sync_from(self.truth, [(symbol, MINUTE_MS, start_ms) for symbol in symbols], now_ms)

    def _replayed_alone(self) -> list[str]:
        """Symbols whose minutes are needed only for the replay of their topics, not by a network."""
        trained = {symbol for plan in self.plans.values() if plan.panel is MINUTE for symbol in plan.symbols}
        return sorted({topic.symbol for plan in self.plans.values() for topic in plan.topics} - trained)

    def _trim(self, now_ms: int) -> None:
        """Once a day, delete months of klines that nothing reads any more."""
        if not self.trim_due.is_due(now_ms):
            return
        panels = {panel.interval_ms: panel for panel in PANELS.values()}
        for folder in self.store.folders():
            for symbol, interval_ms in folder.series():
                if interval_ms in panels:
                    oldest_ms = kept_from_ms(
                        training_start_ms(panels[interval_ms], self.settings.training_days, now_ms)
                    )
                    if gone := folder.trim(symbol, interval_ms, oldest_ms):
                        files = [path.name for path in gone]
                        log.info("klines_trimmed", symbol=symbol, interval_ms=interval_ms, files=files)

    def _look_at_the_disk(self) -> None:
        """Log an error before the disk is full: a full disk keeps neither networks nor answers."""
        free_mb = shutil.disk_usage(self.settings.data_dir).free // 1_000_000
        if free_mb < self.least_free_mb:
            log.error(
                "disk_nearly_full",
                data_dir=str(self.settings.data_dir),
                free_mb=free_mb,
                remedy=f"make room: at least {self.least_free_mb} MB; answers go on, trainings and the ledger may not",
            )


def series_name(symbol: str, interval_ms: int) -> str:
    """Return a series' name in the state, such as ETHUSDT-1m."""
    return f"{symbol}-{interval_name(interval_ms)}"
