"""The updater's work: sync the store, find the panels that need training, run a round. The schedule is elsewhere."""

import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import ValidationError

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, Clock, SystemClock, iso
from core.data_folder import only_updater
from core.errors import ConfigError, IncompatibleModel, TrainingFailed, WorkerError
from core.files import disk_refusal
from core.settings import Market, Settings
from core.show.progress import Pace, progress_of
from core.topic import Target, Topic
from klines.spans import interval_name
from market.build import truth_venue_from, venues_from
from market.listings import Listings
from market.quarantine import Quarantine
from market.store.home_store import HomeStore, HomeSync
from market.store.migration import migrate
from market.store.retention import kept_from_ms
from market.venue import Venue
from model.forecaster import BiRNNForecaster
from model.heads import head_of
from model.panels import LEADER, MINUTE, PANELS, PanelPlan, panels_for, training_start_ms
from model.registry.champions import Champion, check
from model.registry.versions import Registry
from updater.admission import REPLAYED_DAYS, refresh_admission
from updater.state import FILE, IDLE, Outcome, PanelState, SeriesState, StateFile, Verdict
from updater.training_process import TIME_LIMIT_S, Job, Stopped, run_training
from updater.training_settings import settings_file, settings_in_use

LONGEST_DATA_AGE_MS = DAY_MS  # a network from older klines is not worth judging
LISTINGS_WAIT_S = 5.0  # a venue that does not answer must not delay a training
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
class Updater:
    """The parts that a round needs. The caller must call the methods from one thread at a time."""

    settings: Settings
    plans: Mapping[str, PanelPlan]  # by panel name
    store: HomeStore
    keeper: HomeSync
    registry: Registry
    state: StateFile
    clock: Clock
    stop: threading.Event
    listings: Listings
    training_file: Path | None = None  # of training settings; None: DATA_DIR/training.json, if that exists
    strict: bool = False  # True if a wrong file fails the round; else the last good settings are used
    time_limit_s: float = TIME_LIMIT_S
    least_free_mb: int = LEAST_FREE_MB
    trimmed_ms: list[int] = field(default_factory=list)  # when klines were trimmed last; empty before
    truth: Venue | None = None  # TRUTH_VENUE, if that is not the first venue
    truth_ms: list[int] = field(default_factory=list)  # when the truth venue's minutes were synced last; empty before
    admission_ms: list[int] = field(
        default_factory=list
    )  # when admission.json was last made of all panels; empty before

    def sync(self) -> None:
        """Fetch new and missing klines of every series that a panel needs; failures go to the log and the state."""
        self._go_on()
        if refusal := self._disk_refusal():
            log.error("disk_refuses", reason=refusal, meanwhile="nothing is fetched or trained; answers go on")
            return
        now_ms = self.clock.now_ms()
        wanted = [
            (symbol, plan.panel.interval_ms, training_start_ms(plan.panel, self.settings.training_days, now_ms))
            for plan in self.plans.values()
            for symbol in plan.symbols
        ]
        wanted += [(symbol, MINUTE_MS, now_ms - REPLAYED_DAYS * DAY_MS) for symbol in self._replayed_alone()]
        with progress_of("sync") as show:

            def progress(done: int, rows: int) -> None:
                self._go_on()
                show(done, rows, "klines")

            reports = self.keeper.sync(wanted, now_ms, progress)
            self._sync_truth(now_ms)
        try:
            self._trim(now_ms)
        except WorkerError as error:  # a fault of the disk; series that could not be written report it too
            log.error("not_kept", reason=str(error))
        self._look_at_the_disk()
        self.state.replace_series(
            {
                _series(report.symbol, report.interval_ms): SeriesState(
                    synced_ms=now_ms,
                    fetched_rows=report.fetched,
                    newest_ms=self.store.latest(report.symbol, report.interval_ms),
                    gaps=len(report.gaps),
                    reason=str(report.failure or report.remark),
                    refused=report.refused,
                )
                for report in reports
            }
        )
        if self._is_due(self.admission_ms, now_ms, DAY_MS):
            self._make_admission(self.plans)

    def _sync_truth(self, now_ms: int) -> None:
        """Once an hour, fetch the truth venue's minutes of the price topics' symbols; a failure is in the log."""
        if self.truth and self._is_due(self.truth_ms, now_ms, HOUR_MS):
            topics = {topic for plan in self.plans.values() for topic in plan.topics if topic.target is Target.PRICE}
            symbols = sorted({topic.symbol for topic in topics})
            start_ms = now_ms - REPLAYED_DAYS * DAY_MS
            self.keeper.sync_from(self.truth, [(symbol, MINUTE_MS, start_ms) for symbol in symbols], now_ms)

    def _replayed_alone(self) -> list[str]:
        """Symbols whose minutes are needed only for the replay of their topics, not by a network."""
        trained = {symbol for plan in self.plans.values() if plan.panel is MINUTE for symbol in plan.symbols}
        return sorted({topic.symbol for plan in self.plans.values() for topic in plan.topics} - trained)

    def _make_admission(self, plans: Mapping[str, PanelPlan]) -> None:
        """Compute admission.json anew; a failure is logged and stops nothing else."""
        try:
            refresh_admission(self.settings, plans, self.store, self.registry, self.clock, self._go_on)
        except (Stopped, KeyboardInterrupt):
            raise
        except Exception:
            log.exception("admission_not_made", panels=[*plans], meanwhile="answers and trainings go on")

    def _trim(self, now_ms: int) -> None:
        """Once a day, delete months of klines that nothing reads any more."""
        if not self._is_due(self.trimmed_ms, now_ms, DAY_MS):
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

    @staticmethod
    def _is_due(done_ms: list[int], now_ms: int, every_ms: int) -> bool:
        """Return True at most once per ``every_ms``, and record the time in ``done_ms``."""
        if done_ms and 0 <= now_ms - done_ms[-1] < every_ms:
            return False
        done_ms[:] = [now_ms]
        return True

    def _disk_refusal(self) -> str:
        """Say why the disk takes no klines or networks, and what to do; empty if it takes them."""
        folder = self.settings.data_dir
        reason = disk_refusal(folder, LEAST_FREE_BYTES)
        return f"DATA_DIR={folder}: {reason}; make room, or mount it writable" if reason else ""

    def _look_at_the_disk(self) -> None:
        """Log an error before the disk is full: a full disk keeps neither networks nor answers."""
        free_mb = shutil.disk_usage(self.settings.data_dir).free >> 20
        if free_mb < self.least_free_mb:
            log.error(
                "disk_nearly_full",
                data_dir=str(self.settings.data_dir),
                free_mb=free_mb,
                remedy=f"make room: at least {self.least_free_mb} MB; answers go on, trainings and the ledger may not",
            )

    def train(self, panel: str, *, again: bool = False) -> PanelState:
        """Run one round: sync, train in a child process, judge, publish. A failure goes to the state and the log.

        Args:
            again: True to repeat a round that left symbols out; if those are still missing, nothing is trained.
        Raises:
            Stopped: the updater was asked to end; a child process, if started, has ended.
        """
        plan = self.plans[panel]
        last = self.state.panel(panel).outcome
        started_ms = self.clock.now_ms()
        begun = IDLE | {"running_since_ms": started_ms, "progress": "syncing klines"}
        self.state.update_panel(panel, **begun, next_try_ms=None)
        try:
            if refusal := self._disk_refusal():
                raise TrainingFailed(refusal)
            self.sync()
            self.listings.wait(LISTINGS_WAIT_S)
            missing = self._missing(plan)
            if again and last and last.ok and missing.keys() >= last.missing.keys() > set():
                outcome = last.model_copy(update={"missing": missing, "finished_ms": self.clock.now_ms()})
            else:
                outcome = self._train(plan, missing)
        except (Stopped, KeyboardInterrupt):
            self.state.update_panel(panel, **IDLE)
            raise
        except Exception as error:  # a round's failure, even a bug, ends here
            if not isinstance(error, WorkerError):
                log.exception("unforeseen", panel=panel)
            now_ms = self.clock.now_ms()
            outcome = Outcome(
                panel=panel,
                ok=False,
                reason=str(error) if isinstance(error, WorkerError) else f"{type(error).__name__}: {error}",
                finished_ms=now_ms,
                took_s=(now_ms - started_ms) / 1000,
            )
        after = self.state.finish(outcome)
        (log.info if outcome.complete else log.error)(
            "round",
            **outcome.model_dump(mode="json", exclude={"finished_ms"}),
            failures=after.failures,
            next_try=iso(after.next_try_ms) if after.next_try_ms else None,
        )
        self._make_admission({panel: plan})
        return after

    def due(self) -> dict[str, str]:
        """Panels that must be trained now rather than on schedule, each with the first reason."""
        return {name: reason for name, plan in self.plans.items() if (reason := self._why_due(plan))}

    def _go_on(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def _missing(self, plan: PanelPlan) -> dict[str, str]:
        """Return why symbols of a panel cannot be trained on: no new klines, or a pair that is not the topic's."""
        now_ms, interval_ms = self.clock.now_ms(), plan.panel.interval_ms
        missing = {}
        for symbol in plan.symbols:
            newest_ms = self.store.latest(symbol, interval_ms)
            series = self.state.current.series.get(_series(symbol, interval_ms))
            why = f": {series.reason}" if series and series.reason else ""
            if newest_ms is None:
                missing[symbol] = f"no klines{why}"
            elif now_ms - newest_ms - interval_ms > LONGEST_DATA_AGE_MS:
                missing[symbol] = f"newest kline is of {iso(newest_ms)}, more than a day old{why}"
        for topic in plan.topics:
            if refusal := self.listings.refusal(topic):
                missing[topic.symbol] = refusal
        return missing

    def _train(self, plan: PanelPlan, missing: Mapping[str, str]) -> Outcome:
        topics = tuple(topic for topic in plan.topics if topic.symbol not in missing)
        if LEADER in missing or not topics:
            raise TrainingFailed("; ".join(f"{symbol}: {why}" for symbol, why in missing.items()))
        name, now_ms = plan.panel.name, self.clock.now_ms()
        job = Job(
            data_dir=self.settings.data_dir,
            venues=self.settings.venues,
            panel=name,
            topics=topics,
            start_ms=training_start_ms(plan.panel, self.settings.training_days, now_ms),
            seed=self.settings.seed,
            oldest_champion_ms=now_ms - self.settings.max_model_age_h * HOUR_MS,
            simulated=self.settings.market is Market.SIMULATED,
            training_file=settings_file(self.settings.data_dir, self.training_file),
            fallback=None if self.strict else self.state.panel(name).training,
        )
        self.state.update_panel(name, progress="preparing the training")
        pace = Pace()
        with progress_of(f"train {name}") as show_task:

            def show(done: int, wanted: int, note: str) -> None:
                show_task(done, wanted, note)
                left_s, trains = pace.left_s(done, wanted), done < wanted
                self.state.update_panel(
                    name, progress=note, per_cent=100 * done / wanted if trains else None, left_s=left_s
                )

            outcome = run_training(job, stop=self.stop, show=show, time_limit_s=self.time_limit_s)
        return outcome.model_copy(update={"missing": dict(missing)})

    def _why_due(self, plan: PanelPlan) -> str:
        try:
            champions = self.registry.champions()
        except IncompatibleModel as error:
            return str(error)
        versions = [version for version in self.registry.versions() if version.startswith(f"{plan.panel.name}-")]
        settled = self._settled(plan.panel.name, versions[-1]) if versions else _nothing
        fit: dict[str, str] = {}
        for topic in plan.topics:
            why = self._why_unusable(topic, champions.get(topic.key), fit)
            if why and not settled(topic):
                return why
        return ""

    def _settled(self, panel: str, newest: str) -> Callable[[Topic], bool]:
        """Return a test for topics that need no training at once although the newest version is not their champion.

        The version lost there, or was trained without the symbol because klines were missing; training again at once
        would change nothing. The schedule and the retries train these topics.
        """
        if self._why_unfit(newest):
            return _nothing
        try:
            verdicts = [Verdict.model_validate(score) for score in self.registry.open(newest).manifest.scores]
        except ValidationError:  # written by another release; the next round writes readable ones
            return _nothing
        lost = {(v.topic, v.symbol, v.head) for v in verdicts if not v.promoted}
        last = self.state.panel(panel).outcome
        left_out = last.missing if last and last.version == newest else {}
        return lambda topic: (topic.key, topic.symbol, head_of(topic).key) in lost or topic.symbol in left_out

    def _why_unusable(self, topic: Topic, champion: Champion | None, known: dict[str, str]) -> str:
        """Say why a champion cannot answer a topic; empty if it can. ``known`` keeps the reasons by version."""
        if champion is None:
            return f"topic {topic.key} has no champion"
        try:
            check(topic, champion)
        except IncompatibleModel as error:
            return str(error)
        if champion.version not in known:
            known[champion.version] = self._why_unfit(champion.version)
        return known[champion.version]

    def _why_unfit(self, version: str) -> str:
        try:
            made_ms = BiRNNForecaster.load(self.registry.path(version)).manifest.created_ms
        except IncompatibleModel as error:
            return str(error)
        oldest_h = self.settings.max_model_age_h
        too_old = self.clock.now_ms() - made_ms > oldest_h * HOUR_MS
        return f"{version} is older than MAX_MODEL_AGE_H={oldest_h}" if too_old else ""


def _nothing(_: Topic) -> bool:
    return False


def _series(symbol: str, interval_ms: int) -> str:
    return f"{symbol}-{interval_name(interval_ms)}"


def checked_plans(topics: Sequence[Topic], panels: Collection[str], training_file: Path | None) -> dict[str, PanelPlan]:
    """Return the plans to train by panel name, after checking panels, topics and training settings.

    Args:
        panels: names of those to train; empty for all that the topics need.
        training_file: of training settings, if one was given.
    Raises:
        ConfigError: no topic needs a panel of that name, or the file is wrong.
    """
    plans = {panel.name: plan for panel, plan in panels_for(topics).items()}
    for panel in panels:
        if panel not in plans:
            raise ConfigError(f"no topic needs the panel {panel!r}; there are {', '.join(plans)}")
    settings_in_use(training_file, PANELS)  # checks also the panels that are not trained now
    return plans


@contextmanager
def open_updater(
    settings: Settings,
    topics: Sequence[Topic],
    training_file: Path | None,
    stop: threading.Event,
    *,
    strict: bool = False,
) -> Iterator[Updater]:
    """Build the updater, lock the data folder, and remove files that a killed updater left there.

    Args:
        training_file: of training settings, instead of DATA_DIR/training.json.
        stop: set from another thread to make sync and training end with ``Stopped``.
    Raises:
        ConfigError: another updater works on this DATA_DIR, a setting or topic cannot be served, or the training file
            is wrong. A file that becomes wrong later does not stop the updater.
    """
    plans = checked_plans(topics, (), training_file)
    clock = SystemClock()
    with only_updater(settings.data_dir):
        migrate(settings.klines_dir, settings.venues[0])
        store = HomeStore(settings.klines_dir, settings.venues)
        stoppable, quarantine = StoppableClock(clock, stop), Quarantine(settings.klines_dir)
        venues = venues_from(settings, stoppable, quarantine, topics=topics, patience_s=SYNC_PATIENCE_S)
        for leftover in settings.data_dir.glob(
            f".tmp-{FILE}-*"
        ):  # store and registry remove their own leftovers when they write
            leftover.unlink(missing_ok=True)
        listings = Listings(venues, topics, stop, logs_doubts=False)
        listings.start()
        yield Updater(
            settings=settings,
            plans=plans,
            store=store,
            keeper=HomeSync(store, venues, quarantine, stoppable),
            truth=truth_venue_from(settings, stoppable, quarantine, topics=topics, patience_s=SYNC_PATIENCE_S),
            registry=Registry(settings.data_dir),
            state=StateFile(settings.data_dir, clock, plans),
            clock=clock,
            stop=stop,
            listings=listings,
            training_file=training_file,
            strict=strict,
        )


def train_once(
    settings: Settings,
    topics: Sequence[Topic],
    *,
    panels: Collection[str] = (),
    training_file: Path | None = None,
) -> tuple[Outcome, ...]:
    """Run one round of each panel in the foreground, with progress; Ctrl-C kills the training and returns.

    Args:
        panels: names of those to train; empty for all that the topics need.
        training_file: of training settings, instead of DATA_DIR/training.json. A wrong file fails the round, because
            somebody is there to correct it.
    Raises:
        ConfigError: an updater works on this DATA_DIR; or the errors of ``checked_plans``.
    """
    checked_plans(topics, panels, training_file)
    strict = training_file is not None
    with open_updater(settings, topics, training_file, threading.Event(), strict=strict) as updater:
        try:
            states = [updater.train(panel) for panel in panels or updater.plans]
        finally:
            updater.state.end()
    return tuple(state.outcome for state in states if state.outcome)
