"""A round of a panel, inside the child process: stored klines in, a judged and published version out."""

from collections.abc import Mapping
from dataclasses import asdict, replace

import structlog
from pydantic import JsonValue

from core.clock import Clock
from core.errors import ConfigError, IncompatibleModel
from core.show.progress import Show
from core.topic import Topic
from klines.klines import Klines
from market.store.home_store import HomeStore
from model.features import FEATURE_VERSION, FEATURES
from model.heads import head_of
from model.panels import PANELS, PanelPlan, panels_for
from model.registry import provenance
from model.registry.artefact import Artefact, Manifest, Origin
from model.registry.versions import Registry
from model.training.config import TrainingConfig
from model.training.export import export_onnx, weights_bytes
from model.training.fit import Progress
from model.training.panel import TrainedPanel, train_panel
from updater.judging import bounded, judge, without_unproven
from updater.state import Outcome
from updater.training_process import Job
from updater.training_settings import Knobs, settings_in_use, training_config

KEEP_VERSIONS = 5  # of each panel, beside the champions
CHECKED_WINDOWS = 64
VOLATILITY = (
    "of the one-candle log-returns over the horizon, per minute whatever unit a topic asks for: heads volatility-* are "
    "the sample standard deviation (about the mean, n - 1), heads rms-* the square root of the mean square"
)

log = structlog.get_logger()


def refresh_panel(job: Job, registry: Registry, clock: Clock, show: Show) -> Outcome:
    """Train, judge, publish, promote if the gate decides so, and delete versions that nothing uses.

    Args:
        registry: the registry in ``job.data_dir``; the caller holds the registry's lock.
        show: called with the progress.
    Raises:
        TrainingFailed, ConfigError, IncompatibleModel, UnusableForecast: nothing was promoted. Champions that
            proved worse than the naive forecast may already be demoted; the other champions stay.
    """
    started_ms = clock.now_ms()
    plan = panels_for(job.topics)[PANELS[job.panel]]
    config, differing, fault = _configured(job)
    store = HomeStore(job.data_dir / "klines", job.venues)
    klines = {symbol: store.read(symbol, plan.panel.interval_ms, job.start_ms, started_ms) for symbol in plan.symbols}
    outcome = run_round(
        plan, klines, config, job.seed, registry, clock, oldest_champion_ms=job.oldest_champion_ms, show=show
    )
    try:
        registry.purge(KEEP_VERSIONS)
    except IncompatibleModel as error:
        log.warning("not_purged", reason=str(error))
    return outcome.model_copy(update={"training": differing, "training_fault": fault})


def _configured(job: Job) -> tuple[TrainingConfig, Knobs, str]:
    """Return the configuration, its differences from the defaults, and the file's fault (empty if the file is used).

    Raises:
        ConfigError: the file is wrong, and the job has no fallback.
    """
    fault = ""
    try:
        wanted = settings_in_use(job.training_file, [job.panel])[job.panel]
        return training_config(job.panel, wanted), wanted, fault
    except ConfigError as error:
        if job.fallback is None:
            raise
        fault = str(error)
    try:
        config, differing = training_config(job.panel, job.fallback), job.fallback
    except ConfigError:  # the fallback was accepted by another release
        config, differing = training_config(job.panel, {}), {}
    log.error("training_settings_not_heeded", panel=job.panel, reason=fault, trains_with=differing or "the defaults")
    return config, differing, fault


def run_round(
    plan: PanelPlan,
    klines: Mapping[str, Klines],
    config: TrainingConfig,
    seed: int,
    registry: Registry,
    clock: Clock,
    *,
    oldest_champion_ms: int = 0,
    show: Show = lambda _done, _wanted, _note: None,
) -> Outcome:
    """Train, judge, publish and promote, on klines in memory and at the clock's time; a backtest calls it too.

    The order is: demote champions, write the new version, promote it. If the process dies between two of these steps, a
    champion or the naive forecast still answers each topic.

    Args:
        klines: the panel's candles by symbol, all of them closed before ``clock.now_ms()``.
    Raises:
        The errors of ``refresh_panel``.
    """
    started_ms = clock.now_ms()
    trained = train_panel(plan, klines, config, seed, _as_progress(config, show))
    artefact = bounded(trained, artefact_of(trained, klines, clock.now_ms()))
    show(1, 1, "judging")
    verdicts = judge(trained, artefact, registry, clock.now_ms(), oldest_champion_ms=oldest_champion_ms)
    artefact, verdicts = without_unproven(artefact, verdicts)
    scores = tuple(verdict.model_dump(mode="json") for verdict in verdicts)
    version = registry.publish(replace(artefact, manifest=artefact.manifest.model_copy(update={"scores": scores})))
    won = {verdict.topic for verdict in verdicts if verdict.promoted}
    now_ms = clock.now_ms()
    if won:
        registry.promote([topic for topic in plan.topics if topic.key in won], version, now_ms)
    return Outcome(
        panel=plan.panel.name,
        ok=True,
        version=version,
        finished_ms=now_ms,
        took_s=(now_ms - started_ms) / 1000,
        rows=trained.rows["train"],
        verdicts=verdicts,
    )


def artefact_of(trained: TrainedPanel, klines: Mapping[str, Klines], now_ms: int) -> Artefact:
    """Return the artefact of a trained network, without scores.

    Args:
        klines: the candles it was trained on.
    """
    plan, windows, split = trained.plan, trained.windows, trained.split
    checked = windows.rows(split.judge_start_ms, split.judge_end_ms)[:CHECKED_WINDOWS]
    return Artefact(
        onnx=export_onnx(trained.model, plan.panel.lookback, windows.gather(checked)),
        weights=weights_bytes(trained.model),
        manifest=Manifest(
            panel=plan.panel.name,
            interval_ms=plan.panel.interval_ms,
            lookback=plan.panel.lookback,
            feature_version=FEATURE_VERSION,
            features=FEATURES,
            heads=tuple(head.key for head in plan.heads),
            symbols=plan.symbols,
            calibration=trained.calibration.to_json(),
            volatility=VOLATILITY,
            split=split,
            rows=trained.rows["train"],
            seed=trained.seed,
            training=asdict(trained.config),
            libraries=provenance.libraries(),
            origin=Origin(
                klines={symbol: provenance.candles_read(klines[symbol]) for symbol in plan.symbols},
                topics={topic.key: _topic_facts(topic) for topic in plan.topics},
                source_sha256=provenance.source_sha256(),
                machine=provenance.machine(),
            ),
            created_ms=now_ms,
        ),
    )


def _topic_facts(topic: Topic) -> dict[str, JsonValue]:
    return {
        "symbol": topic.symbol,
        "target": topic.target.value,
        "volatility": topic.volatility.value,
        "horizon": topic.horizon,
        "loss": topic.loss,
        "head": head_of(topic).key,
    }


def _as_progress(config: TrainingConfig, show: Show) -> Progress:
    def progress(epoch: int, batch: int, batches: int, loss: float) -> None:
        epochs = config.epochs * config.seeds
        note = f"epoch {epoch} of {epochs}, loss {loss:.4f}"
        show((epoch - 1) * batches + batch, epochs * batches, note)

    return progress
