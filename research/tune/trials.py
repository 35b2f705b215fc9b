"""A configuration of a panel's training, measured as by the gate; and the range of a search."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import optuna

from core.errors import TrainingFailed
from model.judging.evaluation import outputs, score
from model.network import onnx_network
from model.panels import LONGEST_LOOKBACK, SHORTEST_LOOKBACK, PanelPlan
from model.training.config import TrainingConfig
from model.training.export import export_onnx
from model.training.fit import Progress, Validated
from model.training.panel import train_panel
from research.data import Recording
from research.tune.folds import Fold
from updater.training_settings import Knobs

CHECKED_WINDOWS = 64
LEAST_RATIO, MOST_RATIO = 1e-3, 1e3  # bounds of a ratio: one absurd topic must not decide


@dataclass(frozen=True, slots=True)
class Knob:
    """A field of TrainingConfig and its range in a search."""

    name: str
    low: float
    high: float
    whole: bool = False
    log: bool = True

    def suggest(self, trial: optuna.Trial, known: Sequence[float]) -> int | float:
        """A value for a trial; the range is widened to hold ``known`` values."""
        low, high = min(self.low, *known), max(self.high, *known)
        if self.whole:
            return trial.suggest_int(self.name, int(low), int(high), log=self.log)
        return trial.suggest_float(self.name, low, high, log=self.log)


# The guide's knobs, then ours. What costs time is bounded by SLOWEST in the search as well.
KNOBS = (
    Knob("hidden_layer_size", 8, 96, whole=True),
    Knob("num_layers", 1, 3, whole=True, log=False),
    Knob("dropout", 0.0, 0.5, log=False),
    Knob("learning_rate", 3e-4, 2e-2),
    Knob("clip_norm", 0.05, 10.0),
    Knob("lookback", 2 * SHORTEST_LOOKBACK, LONGEST_LOOKBACK / 4, whole=True),
    Knob("stride", 2, 15, whole=True),
    Knob("weight_decay", 1e-6, 1e-1),
    Knob("seeds", 1, 6, whole=True, log=False),
)


def searched(config: TrainingConfig) -> dict[str, float]:
    """The searched values of a configuration, of knobs that this release has."""
    known = asdict(config)
    return {knob.name: known[knob.name] for knob in KNOBS if knob.name in known}


def suggested(trial: optuna.Trial, known: Sequence[Mapping[str, float]]) -> Knobs:
    """The settings of a trial.

    Args:
        known: values of every knob that the ranges must hold.
    """
    return {
        knob.name: knob.suggest(trial, [values[knob.name] for values in known])
        for knob in KNOBS
        if knob.name in known[0]
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The result of a configuration on the judge rows of one fold."""

    ratios: Mapping[str, float]  # by Topic.key: loss over naive loss on the same rows
    cpu_s: float  # training alone

    @property
    def score(self) -> float:
        """Mean over the topics of the logarithm of their ratios; below 0 is skill."""
        return sum(math.log(ratio) for ratio in self.ratios.values()) / len(self.ratios)


def measure(
    plan: PanelPlan,
    recording: Recording,
    fold: Fold,
    config: TrainingConfig,
    seed: int,
    progress: Progress = lambda _epoch, _batch, _batches, _loss: None,
    validated: Validated = lambda _epoch, _loss: None,
) -> Measured:
    """Train on a fold and judge the network that would be published, in each topic's own loss.

    Args:
        progress, validated: as for ``train_panel``; what they raise ends the training.
    Raises:
        TrainingFailed: too few windows, no row to judge on, or a loss that is not finite. UnusableForecast.
    """
    plan = plan.reading(config.lookback)
    klines = recording.until(plan, fold.klines_from_ms(plan.panel), fold.end_ms)
    begun_s = time.process_time()
    trained = train_panel(plan, klines, config, seed, progress, validated)
    cpu_s = time.process_time() - begun_s
    progress(config.epochs * config.seeds, 1, 1, math.nan)  # after an early end too
    windows, split = trained.windows, trained.split
    rows = windows.rows(split.judge_start_ms, split.judge_end_ms)
    onnx = export_onnx(trained.model, config.lookback, windows.gather(rows[:CHECKED_WINDOWS]))
    scores = score(windows, rows, outputs(onnx_network(onnx), windows, rows), plan.heads, trained.calibration)
    if not scores or not all(math.isfinite(one.model_loss) for one in scores):
        raise TrainingFailed(f"{plan.panel.name} panel: no row to judge on, or a loss that is not finite")
    return Measured(ratios={one.topic: min(max(one.ratio, LEAST_RATIO), MOST_RATIO) for one in scores}, cpu_s=cpu_s)


Announce = Callable[[str], None]  # called with the present work


def announced_progress(
    config: TrainingConfig, announce: Announce, watch: Callable[[], None], number: int = 0, trainings: int = 1
) -> Progress:
    """Show a training's progress in words; ``watch`` may end the training by raising.

    Args:
        number, trainings: place of the training from 0, and how many there are; per cent are of all.
    """
    epochs = config.epochs * config.seeds

    def progress(epoch: int, batch: int, batches: int, _loss: float) -> None:
        watch()
        trained = (epoch - 1 + batch / batches) / epochs
        what = "scoring" if trained == 1 else f"epoch {epoch} of {epochs}"
        announce(f"{100 * (number + trained) / trainings:.0f} % done, {what}, fold {number + 1} of {trainings}")

    return progress
