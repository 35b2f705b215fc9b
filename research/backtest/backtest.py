"""A walk forward through the past with the very code that trains and serves.

At each date a round of the updater (``updater.round.run_round``) runs on the klines closed by then, with a clock set to
that date and a registry of the walk's own. The champion then answers, chosen as by inference, until the next date.
Each row keeps the served forecast, the newest network's forecast and the baselines'.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version as version_of

import numpy as np
import polars as pl
from pydantic import JsonValue

from core.clock import Clock, iso
from core.show.progress import Show
from core.topic import Topic
from inference.champions import Champions
from klines.klines import Floats
from model.calibration import Calibration
from model.features import Floats32
from model.forecaster import BiRNNForecaster
from model.heads import head_of
from model.judging.evaluation import TopicForecasts, forecasts, outputs
from model.network import onnx_network
from model.panels import MINUTE, PanelPlan, training_start_ms
from model.registry.artefact import Artefact
from model.registry.provenance import source_sha256
from model.registry.versions import Registry
from model.windows import build
from research.backtest.baselines import BASELINES
from research.backtest.folder import Fingerprint, Folder, StepRecord
from research.backtest.stage import Stage
from research.backtest.walk import Walk
from research.data import Recording
from updater.round import KEEP_VERSIONS, run_round
from updater.training_settings import training_config

LIBRARIES = ("torch", "onnx", "onnxruntime", "numpy", "lightgbm")
SOURCES = (  # code that forecasts depend on; a folder of other code is not continued
    "model/**/*.py",
    "core/losses.py",
    "klines/klines.py",
    "klines/returns.py",
    "updater/judging.py",
    "updater/round.py",
    *(f"research/backtest/{name}.py" for name in ("backtest", "baselines", "guide", "stage", "walk")),
)
STEP = 1000  # of the progress bar: one date of one panel
TRAINING_PART, BASELINES_FROM = 0.5, 0.6  # of it
FORECAST_COLUMNS = ("truth", "naive", "served", "newest", "raw", "scale")
"""Truths and forecasts, in the head's unit. ``served`` is what the gate let through, ``newest`` the
newest network's forecast, ``raw`` the same before calibration; ``scale`` one standard deviation of the horizon's return
as the market is now, or the present volatility."""


@dataclass(frozen=True, slots=True)
class PastClock:
    """A clock fixed at a moment of the past."""

    time_ms: int

    def now_ms(self) -> int:
        return self.time_ms

    def elapsed_s(self) -> float:
        return self.time_ms / 1000

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nothing waits in a walk through the past, asked were {seconds} s")


def fingerprint(walk: Walk, recording: Recording) -> Fingerprint:
    """All inputs of a walk: equal fingerprints give equal rows."""
    return {
        "topics": {topic.key: _question(topic) for topic in walk.topics},
        "unseen": list(walk.unseen),
        "start": iso(walk.start_ms),
        "end": iso(walk.end_ms),
        "retraining every, days": walk.every_days,
        "TRAINING_DAYS": walk.training_days,
        "scored every, minutes": walk.stride,
        "seed": walk.seed,
        "training": {
            plan.panel.name: asdict(training_config(plan.panel.name, walk.training.get(plan.panel.name, {})))
            for plan in walk.plans()
        },
        "baselines": list(walk.baselines),
        "quick": walk.quick,
        "klines": dict(recording.digests()),
        "versions": {name: version_of(name) for name in LIBRARIES},
        "code": source_sha256(*SOURCES),
    }


def _question(topic: Topic) -> str:
    return f"{topic.symbol} {topic.target.value} {topic.horizon} {topic.loss}"


def run(walk: Walk, recording: Recording, folder: Folder, show: Show) -> list[StepRecord]:
    """Walk, continuing after the last finished step of the folder.

    Args:
        show: called with the progress.
    Returns:
        the steps in order; their rows are in the folder.
    Raises:
        ConfigError: the folder holds another backtest. TrainingFailed, UnusableForecast: as a round of the updater.
    """
    steps = [(dates, plan) for dates in walk.dates for plan in walk.plans()]
    records: list[StepRecord] = []
    with folder.working(fingerprint(walk, recording)):
        champions: JsonValue = None
        for number, ((from_ms, to_ms), plan) in enumerate(steps):
            record = folder.step(plan.panel.name, from_ms)
            if record is None:
                folder.go_on_after(champions)
                name = f"{number + 1} of {len(steps)}, {plan.panel.name} {iso(from_ms)[:10]}"
                record = _step(
                    walk,
                    recording,
                    folder,
                    plan,
                    from_ms,
                    to_ms,
                    _announce_to(show, number * STEP, len(steps) * STEP, name),
                )
                show((number + 1) * STEP, len(steps) * STEP, "")
            champions = record.champions
            records.append(record)
        folder.go_on_after(champions)
    return records


Announce = Callable[[float, str], None]  # how much of the step is done, and a note


def _announce_to(show: Show, done: int, wanted: int, name: str) -> Announce:
    return lambda part, note: show(done + round(part * STEP), wanted, f"{name}: {note}")


def _step(
    walk: Walk, recording: Recording, folder: Folder, plan: PanelPlan, from_ms: int, to_ms: int, announce: Announce
) -> StepRecord:
    began_s, clock, trained = time.monotonic(), PastClock(from_ms), walk.trained(plan)
    announce(0.0, "cutting windows")
    start_ms = training_start_ms(plan.panel, walk.training_days, from_ms)
    before = _serving(folder.registry, trained, clock)
    outcome = run_round(
        trained,
        recording.until(trained, start_ms, from_ms),
        training_config(plan.panel.name, walk.training.get(plan.panel.name, {})),
        walk.seed,
        folder.registry,
        clock,
        show=lambda done, wanted, note: announce(TRAINING_PART * min(done / wanted, 1.0), note),
    )
    assert outcome.version  # noqa: S101  (a round that gives none raises)
    after = _serving(folder.registry, trained, clock)
    announce(TRAINING_PART, "forecasting")
    klines = recording.until(plan, start_ms, min(to_ms + plan.gap_ms, walk.end_ms))
    windows = build(plan, klines)
    versions = {outcome.version, *(forecaster.version for forecaster in after.values())}
    artefacts = {version: folder.registry.open(version) for version in versions}
    longest = max(artefact.manifest.lookback for artefact in artefacts.values())
    interval_ms = plan.panel.interval_ms  # a candle that closes at a moment is known at it
    stride = walk.stride if plan.panel.name == MINUTE.name else 1
    rows = windows.reading(longest).rows(from_ms - interval_ms, to_ms - interval_ms, stride=stride)
    stage = Stage(
        windows=windows,
        klines=klines,
        trained=trained.symbols,
        split=artefacts[outcome.version].manifest.split,
        rows=rows,
        now_ms=from_ms,
        seed=walk.seed,
        quick=walk.quick,
    )
    frame = _frame(stage, walk, artefacts, outcome.version, after, announce)
    record = StepRecord(
        panel=plan.panel.name,
        from_ms=from_ms,
        to_ms=to_ms,
        version=outcome.version,
        verdicts=tuple(verdict.model_dump(mode="json") for verdict in outcome.verdicts),
        before={key: forecaster.version for key, forecaster in before.items()},
        after={key: forecaster.version for key, forecaster in after.items()},
        champions=folder.champions(),
        rows=len(frame),
        took_s=round(time.monotonic() - began_s, 1),
        sha256="",
    )
    finished = folder.finish(record, frame)
    folder.registry.purge(KEEP_VERSIONS)  # after the step is finished: a step begun anew may need more
    return finished


def _serving(registry: Registry, plan: PanelPlan, clock: Clock) -> Mapping[str, BiRNNForecaster]:
    """The networks that serve now, by ``Topic.key``, chosen as by inference; naive serves other topics."""
    chosen = Champions(registry, plan.topics, clock).poll()
    assert chosen is not None  # noqa: S101  (the first look always reads)
    return chosen.forecasters


def _frame(
    stage: Stage,
    walk: Walk,
    artefacts: Mapping[str, Artefact],
    newest: str,
    serving: Mapping[str, BiRNNForecaster],
    announce: Announce,
) -> pl.DataFrame:
    """One row per topic and candle, in FORECAST_COLUMNS and a column for each baseline."""
    windows = stage.windows
    networks = {version: BiRNNForecaster(artefact) for version, artefact in artefacts.items()}
    output = {version: _output(artefact, stage) for version, artefact in artefacts.items()}

    def by_topic(version: str, calibration: Calibration) -> dict[str, TopicForecasts]:
        heads = networks[version].heads
        return {one.topic.key: one for one in forecasts(windows, stage.rows, output[version], heads, calibration)}

    said = {version: by_topic(version, network.calibration) for version, network in networks.items()}
    unshrunk = by_topic(newest, _unshrunk(stage))
    columns: dict[str, dict[str, Floats]] = {}
    for topic in windows.plan.topics:
        if (ours := said[newest].get(topic.key)) is None:
            continue
        rows, head = stage.rows_of(topic), head_of(topic)
        unit = windows.plan.panel.per_minute if head.kind.is_volatility else windows.plan.panel.steps(head) ** 0.5
        answering = newest if topic.symbol in walk.unseen else getattr(serving.get(topic.key), "version", None)
        columns[topic.key] = {
            "truth": ours.came_true,
            "naive": ours.naive,
            "served": said[answering][topic.key].forecast if answering else ours.naive,
            "newest": ours.forecast,
            "raw": unshrunk[topic.key].forecast,
            "scale": windows.scale[rows] * unit,
        }
    for number, name in enumerate(walk.baselines):
        baseline = BASELINES[name]
        part = BASELINES_FROM + (1 - BASELINES_FROM) * number / len(walk.baselines)
        heard = baseline.forecast(stage, partial(announce, part))
        for topic in windows.plan.topics:
            if topic.key in columns and topic.key in heard and baseline.applies(topic, topic.symbol in walk.unseen):
                naive = columns[topic.key]["naive"]
                columns[topic.key][name] = np.where(np.isfinite(heard[topic.key]), heard[topic.key], naive)
    frames = [
        pl.DataFrame(
            {
                "topic": [key] * len(of_topic["truth"]),
                "open_time_ms": said[newest][key].open_time_ms,
                "close": said[newest][key].close,
                "std": np.full(len(of_topic["truth"]), said[newest][key].std),
                **{
                    name: of_topic.get(name, np.full(len(of_topic["truth"]), np.nan)).astype(np.float32)
                    for name in (*FORECAST_COLUMNS, *walk.baselines)
                },
            }
        )
        for key, of_topic in columns.items()
    ]
    return pl.concat(frames) if frames else pl.DataFrame({"topic": []}, schema={"topic": pl.String})


def _output(artefact: Artefact, stage: Stage) -> Floats32:
    """A published network's output for the rows, from the file that is served."""
    return outputs(onnx_network(artefact.onnx), stage.windows.reading(artefact.manifest.lookback), stage.rows)


def _unshrunk(stage: Stage) -> Calibration:
    """A calibration that changes nothing: the raw output of the network."""
    plan = stage.windows.plan
    return Calibration(factors={symbol: {head.key: 1.0 for head in plan.heads} for symbol in plan.symbols})
