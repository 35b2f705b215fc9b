"""DATA_DIR/admission.json: what the champions would have answered on each topic's own epochs, and whether that gets in.

A network is asked about candles alone that came after all that it was trained, stopped and calibrated on. What served
before is not known any more, and there the naive forecast answers that knows what is known: nothing is in-sample.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from admission.readiness import Readiness, read_admission, readiness, write_admission
from admission.replay import BLOCK_MS, held
from core.clock import DAY_MS, MINUTE_MS, SECOND_MS, Clock
from core.errors import IncompatibleModel, UnusableForecast
from core.process.commands import RUN
from core.settings import AUTO_WAIT, LONGEST_WAIT_S, Settings, wait_s
from core.topic import Topic
from klines.klines import Floats, Ints, Klines
from market.store.home_store import HomeStore
from model.calibration import Calibration
from model.evaluation import forecasts, onnx_network, outputs
from model.heads import Head, PanelPlan
from model.registry.versions import Champion, Registry, check
from model.stretch import objective_of
from model.windows import build
from node.dry_run_heights import window_blocks

REPLAYED_DAYS = 90
ASKED_DAYS = 14  # of the newest candles, at most, a network is asked about: two minutes on one core for ten symbols
LANDING_S = 15.0  # from an answer to its place in a block

log = structlog.get_logger()


def refresh_admission(
    settings: Settings,
    plans: Mapping[str, PanelPlan],
    store: HomeStore,
    registry: Registry,
    clock: Clock,
    go_on: Callable[[], None] = lambda: None,
) -> None:
    """Make the entries of some panels' topics anew; those of other panels stay.

    Args:
        plans: of the panels, by name.
        go_on: is called now and then, and raises where the work is to end.
    Raises:
        OSError: the file cannot be written.
    """
    now_ms = clock.now_ms()
    try:
        entries = read_admission(settings.data_dir)[1]
    except IncompatibleModel as error:
        log.warning("admission_begun_anew", reason=str(error))
        entries = {}
    for plan in plans.values():
        rest = _rest(plan, store, registry, now_ms, go_on)
        by_symbol: dict[str, Klines] = {}
        for topic in sorted(plan.topics, key=lambda topic: topic.symbol):
            go_on()
            if topic.symbol not in by_symbol:  # one symbol's minutes at a time
                start_ms = now_ms - REPLAYED_DAYS * DAY_MS
                by_symbol = {topic.symbol: store.read(topic.symbol, MINUTE_MS, start_ms, now_ms).closed(now_ms)}
            entries[topic.key] = _entry(topic, by_symbol[topic.symbol], rest.get(topic.key), plan, settings)
    write_admission(settings.data_dir, now_ms, entries)


def guaranteed_s(topic: Topic, settings: Settings, *, dry_run: bool) -> float:
    """Seconds of the interval that are surely known when a topic is answered, by its Wait or ANSWER_WAIT.

    The window of ``auto`` is taken to be as long as the dry-run node's: an epoch, five minutes at most.

    Args:
        dry_run: True under ``birnn run``, whose node's heights tell the base without a chain.
    """
    wait = topic.wait or settings.answer_wait
    if not dry_run and (settings.rpc_urls == "none" or (wait == AUTO_WAIT and not topic.held)):
        return 0.0  # nothing is held then
    if wait != AUTO_WAIT:
        return min(wait_s(wait), LONGEST_WAIT_S)
    return max(0.0, min(window_blocks(topic) * BLOCK_MS / SECOND_MS - LANDING_S, LONGEST_WAIT_S))


Rest = tuple[Floats, Ints]  # (N,) forecasts in the head's unit, (N,) when the candle closed that each was made after


def _entry(topic: Topic, klines: Klines, rest: Rest | None, plan: PanelPlan, settings: Settings) -> Readiness:
    return readiness(
        topic,
        klines,
        held(*rest, klines, plan.panel.interval_ms) if rest else None,
        known_s=guaranteed_s(topic, settings, dry_run=RUN in os.environ),
        objective=objective_of(topic, settings.objective),
    )


def _rest(
    plan: PanelPlan, store: HomeStore, registry: Registry, now_ms: int, go_on: Callable[[], None]
) -> dict[str, Rest]:
    """What each topic's champion said of the candles that it had not seen, by ``Topic.key``."""
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
            found |= _said(replace(plan, topics=tuple(topics)), store, registry, version, digest, now_ms)
        except (IncompatibleModel, UnusableForecast) as error:
            log.warning("network_unusable", version=version, reason=str(error))
    return found


def _serves(topic: Topic, champion: Champion) -> bool:
    try:
        check(topic, champion)
    except IncompatibleModel:
        return False
    return True


def _said(
    plan: PanelPlan, store: HomeStore, registry: Registry, version: str, digest: str, now_ms: int
) -> dict[str, Rest]:
    artefact = registry.open(version, digest)
    manifest = artefact.manifest
    own = plan.reading(manifest.lookback)
    unseen_ms = max(manifest.split.judge_start_ms, now_ms - ASKED_DAYS * DAY_MS)
    interval_ms = own.panel.interval_ms
    start_ms = unseen_ms - 2 * own.panel.rows_needed * interval_ms
    klines = {symbol: store.read(symbol, interval_ms, start_ms, now_ms).closed(now_ms) for symbol in own.symbols}
    windows = build(own, klines)
    rows = windows.rows(unseen_ms, now_ms)
    if not len(rows):
        return {}
    output = outputs(onnx_network(artefact.onnx), windows, rows)
    heads = tuple(Head.parse(key) for key in manifest.heads)
    return {
        one.topic.key: (one.forecast, one.open_time_ms + interval_ms)
        for one in forecasts(windows, rows, output, heads, Calibration.from_json(manifest.calibration))
    }
