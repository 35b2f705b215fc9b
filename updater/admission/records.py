"""DATA_DIR/admission.json: the champions' answers on each topic's own epochs, and whether they would be admitted.

A network answers only candles after all that it was trained, stopped and calibrated on. Which network served earlier is
not known any more; there the naive forecast with the known minutes answers: nothing is in-sample.
"""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from admission.assessment import readiness
from admission.readiness import Readiness, read_admission, write_admission
from admission.replay import BLOCK_MS, held
from core.clock import DAY_MS, MINUTE_MS, SECOND_MS, Clock, Every
from core.errors import IncompatibleModel, UnusableForecast
from core.process.commands import RUN
from core.setting_values import AUTO_WAIT, LONGEST_WAIT_S, wait_s
from core.settings import BaseRule, Settings
from core.topic import Topic
from klines.klines import Floats, Ints, Klines
from market.store.home_store import HomeStore
from model.forecaster import BiRNNForecaster
from model.judging.evaluation import forecasts, outputs
from model.panels import PanelPlan
from model.registry.champions import Champion, check
from model.registry.versions import Registry
from model.stretch import objective_of
from model.windows import build
from node.dry_run_heights import window_blocks
from updater.admission.answered import Answered, answered_of
from updater.training_process import Stopped, raise_if_stopped

REPLAYED_DAYS = 90
ASKED_DAYS = 14  # most days of candles that a network answers: two minutes on a core for ten symbols
LANDING_S = 15.0  # from an answer to a block that holds it

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRecords:
    """Makes admission.json anew; a failure is logged and stops nothing else."""

    settings: Settings
    plans: Mapping[str, PanelPlan]  # by panel name
    store: HomeStore
    registry: Registry
    clock: Clock
    stop: threading.Event
    due: Every = field(default_factory=lambda: Every(DAY_MS))

    def refresh_daily(self) -> None:
        """Refresh the entries of all panels, at most once a day."""
        if self.due.is_due(self.clock.now_ms()):
            self.refresh(self.plans)

    def refresh(self, plans: Mapping[str, PanelPlan]) -> None:
        """Refresh the entries of some panels.

        Raises:
            Stopped: the updater was asked to end.
        """
        go_on = partial(raise_if_stopped, self.stop)
        try:
            refresh_admission(self.settings, plans, self.store, self.registry, self.clock, go_on)
        except (Stopped, KeyboardInterrupt):
            raise
        except Exception:
            log.exception("admission_not_made", panels=[*plans], meanwhile="answers and trainings go on")


def refresh_admission(
    settings: Settings,
    plans: Mapping[str, PanelPlan],
    store: HomeStore,
    registry: Registry,
    clock: Clock,
    go_on: Callable[[], None] = lambda: None,
) -> None:
    """Make the entries of some panels' topics anew; entries of other panels stay.

    Args:
        plans: of the panels, by name.
        go_on: is called now and then, and raises if the work is to end.
    Raises:
        OSError: the file cannot be written.
    """
    now_ms = clock.now_ms()
    try:
        entries = read_admission(settings.data_dir)[1]
    except IncompatibleModel as error:
        log.warning("admission_begun_anew", reason=str(error))
        entries = {}
    answered = answered_of(settings.ledger_url, (topic for plan in plans.values() for topic in plan.topics), now_ms)
    for plan in plans.values():
        rest = _rest(plan, store, registry, now_ms, go_on)
        by_symbol: dict[str, Klines] = {}
        for topic in sorted(plan.topics, key=lambda topic: topic.symbol):
            go_on()
            if topic.symbol not in by_symbol:  # one symbol's minutes at a time
                start_ms = now_ms - REPLAYED_DAYS * DAY_MS
                by_symbol = {topic.symbol: store.read(topic.symbol, MINUTE_MS, start_ms, now_ms).closed(now_ms)}
            measured = answered.get(topic.key, Answered())
            entries[topic.key] = _entry(topic, by_symbol[topic.symbol], rest.get(topic.key), plan, settings, measured)
    write_admission(settings.data_dir, now_ms, entries)


def guaranteed_s(topic: Topic, settings: Settings, *, dry_run: bool) -> float:
    """Seconds of the interval that are surely known when a topic is answered, by the topic's Wait or ANSWER_WAIT.

    For topics with too few answers in the ledger to measure it (``updater.admission.answered``). The window of ``auto``
    is taken to be as long as the dry-run node's: an epoch, five minutes at most.

    Args:
        dry_run: True under ``birnn run``, whose node's heights give the base without a chain.
    """
    wait = topic.wait or settings.answer_wait
    if (topic.base or settings.base_rule) == BaseRule.ASKED:
        return 0.0  # the interval begins with the answer
    if not dry_run and (settings.rpc_urls == "none" or (wait == AUTO_WAIT and not topic.held)):
        return 0.0  # nothing is held then
    if wait != AUTO_WAIT:
        return min(wait_s(wait), LONGEST_WAIT_S)
    return max(0.0, min(window_blocks(topic) * BLOCK_MS / SECOND_MS - LANDING_S, LONGEST_WAIT_S))


Rest = tuple[Floats, Ints]  # (N,) forecasts in the head's unit, (N,) close times of the candles they were made after


def _entry(
    topic: Topic, klines: Klines, rest: Rest | None, plan: PanelPlan, settings: Settings, measured: Answered
) -> Readiness:
    known_s = measured.known_s
    return readiness(
        topic,
        klines,
        held(*rest, klines, plan.panel.interval_ms) if rest else None,
        known_s=guaranteed_s(topic, settings, dry_run=RUN in os.environ) if known_s is None else known_s,
        objective=objective_of(topic, settings.objective),
        block_ms=measured.block_ms,
        nonce_ms=measured.nonce_ms,
    )


def _rest(
    plan: PanelPlan, store: HomeStore, registry: Registry, now_ms: int, go_on: Callable[[], None]
) -> dict[str, Rest]:
    """Each topic's champion's forecasts at candles that it had not seen, by ``Topic.key``."""
    try:
        champions = registry.champions()
    except IncompatibleModel as error:
        log.warning("champions_unreadable", reason=str(error))
        return {}
    by_version: dict[tuple[str, str], list[Topic]] = {}
    for topic in plan.topics:
        champion = champions.get(topic.key)
        if champion is not None and _serves(topic, champion):
            by_version.setdefault((champion.version, champion.manifest_sha256), []).append(topic)
    found: dict[str, Rest] = {}
    for (version, digest), topics in by_version.items():
        go_on()
        try:
            found |= _unseen_forecasts(replace(plan, topics=tuple(topics)), store, registry, version, digest, now_ms)
        except (IncompatibleModel, UnusableForecast) as error:
            log.warning("network_unusable", version=version, reason=str(error))
    return found


def _serves(topic: Topic, champion: Champion) -> bool:
    try:
        check(topic, champion)
    except IncompatibleModel:
        return False
    return True


def _unseen_forecasts(
    plan: PanelPlan, store: HomeStore, registry: Registry, version: str, digest: str, now_ms: int
) -> dict[str, Rest]:
    forecaster = BiRNNForecaster(registry.open(version, digest))
    manifest, interval_ms = forecaster.manifest, plan.panel.interval_ms
    own = plan.reading(manifest.lookback)
    unseen_ms = max(manifest.split.judge_start_ms, now_ms - ASKED_DAYS * DAY_MS)
    start_ms = unseen_ms - 2 * own.panel.rows_needed * interval_ms
    klines = {symbol: store.read(symbol, interval_ms, start_ms, now_ms).closed(now_ms) for symbol in own.symbols}
    windows = build(own, klines)
    rows = windows.rows(unseen_ms, now_ms)
    if not len(rows):
        return {}
    output = outputs(forecaster.network, windows, rows)
    return {
        of_topic.topic.key: (of_topic.forecast, of_topic.open_time_ms + interval_ms)
        for of_topic in forecasts(windows, rows, output, forecaster.heads, forecaster.calibration)
    }
