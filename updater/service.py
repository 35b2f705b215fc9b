"""The updater's work: a sync, a round of a panel, and the panels that are due. The schedule calls it."""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from core.clock import DAY_MS, HOUR_MS, Clock, SystemClock, iso
from core.data_folder import only_updater
from core.errors import ConfigError, TrainingFailed, WorkerError
from core.settings import Market, Settings
from core.show.progress import Pace, progress_of
from core.topic import Topic
from market.build import truth_venue_from, venues_from
from market.listings import Listings
from market.quarantine import Quarantine
from market.store.home_store import HomeStore
from market.store.home_sync import HomeSync
from market.store.migration import migrate
from model.panels import LEADER, PANELS, PanelPlan, panels_for, training_start_ms
from model.registry.versions import Registry
from truth.adopted import Adopted
from updater.admission.records import AdmissionRecords
from updater.due import DueCheck
from updater.keeper import SYNC_PATIENCE_S, Keeper, StoppableClock, series_name
from updater.live import LiveJudge
from updater.state import FILE, IDLE, Outcome, PanelState, StateFile
from updater.training_process import TIME_LIMIT_S, Job, Stopped, run_training
from updater.training_settings import settings_file, settings_in_use

LONGEST_DATA_AGE_MS = DAY_MS  # a network from older klines is not worth judging
LISTINGS_WAIT_S = 5.0  # a venue that does not answer must not delay a training

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Updater:
    """The parts that a round needs. The caller must call the methods from one thread at a time."""

    settings: Settings
    plans: Mapping[str, PanelPlan]  # by panel name
    store: HomeStore
    keeper: Keeper
    records: AdmissionRecords
    live: LiveJudge
    registry: Registry
    state: StateFile
    clock: Clock
    stop: threading.Event
    listings: Listings
    training_file: Path | None = None  # of training settings; None: DATA_DIR/training.json, if that exists
    strict: bool = False  # True if a wrong file fails the round; else the last good settings are used
    time_limit_s: float = TIME_LIMIT_S

    def sync(self) -> None:
        """Sync the klines of all panels, look at what champions answered, and make admission.json anew once a day.

        Failures go to log and state.
        """
        if self.keeper.sync():
            self.live.look()
            self.records.refresh_daily()

    def train(self, panel: str, *, again: bool = False) -> PanelState:
        """Run one round: ``sync``, train in a child process, judge, publish. A failure goes to the state and the log.

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
            if refusal := self.keeper.disk_refusal():
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
        self.records.refresh({panel: plan})
        return after

    def due(self) -> dict[str, str]:
        """Panels that must be trained now rather than on schedule, each with the first reason."""
        check = DueCheck(
            registry=self.registry,
            state=self.state,
            clock=self.clock,
            max_model_age_h=self.settings.max_model_age_h,
        )
        return {name: reason for name, plan in self.plans.items() if (reason := check.reason(plan))}

    def _missing(self, plan: PanelPlan) -> dict[str, str]:
        """Return why symbols of a panel cannot be trained on: no new klines, or a pair that is not the topic's."""
        now_ms, interval_ms = self.clock.now_ms(), plan.panel.interval_ms
        missing = {}
        for symbol in plan.symbols:
            newest_ms = self.store.latest(symbol, interval_ms)
            series = self.state.current.series.get(series_name(symbol, interval_ms))
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
        for leftover in settings.data_dir.glob(f".tmp-{FILE}-*"):  # store and registry remove their own when they write
            leftover.unlink(missing_ok=True)
        listings = Listings(venues, topics, stop, logs_doubts=False)
        listings.start()
        registry, state = Registry(settings.data_dir), StateFile(settings.data_dir, clock, plans)
        keeper = Keeper(
            settings=settings,
            plans=plans,
            store=store,
            homes=HomeSync(store, venues, quarantine, stoppable),
            truth=truth_venue_from(settings, stoppable, quarantine, topics=topics, patience_s=SYNC_PATIENCE_S),
            state=state,
            clock=clock,
            stop=stop,
        )
        records = AdmissionRecords(
            settings=settings, plans=plans, store=store, registry=registry, clock=clock, stop=stop
        )
        yield Updater(
            settings=settings,
            plans=plans,
            store=store,
            keeper=keeper,
            records=records,
            live=LiveJudge(settings=settings, plans=plans, store=store, registry=registry, clock=clock),
            registry=registry,
            state=state,
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
    strict, settings = training_file is not None, Adopted(settings).settings
    with open_updater(settings, topics, training_file, threading.Event(), strict=strict) as updater:
        try:
            states = [updater.train(panel) for panel in panels or updater.plans]
        finally:
            updater.state.end()
    return tuple(state.outcome for state in states if state.outcome)
