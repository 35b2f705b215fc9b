"""``birnn tune``: a search per panel, the confirmation of its best, and the file that the next trainings read.

Trial 0 is the default configuration. The best trial is adopted only if it also beats the default and the settings in
use, on rows that no trial saw and with other seeds.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from core.clock import DAY_MS
from core.errors import ConfigError
from core.show.progress import Show
from core.show.words import counted
from core.topic import Topic
from model.panels import LONGEST_LOOKBACK, PanelPlan, panels_for
from model.registry.provenance import source_sha256
from model.training.config import CONFIGS
from research.data import Recording, recording_of, span_text
from research.tune.folds import SEARCHED, Fold, folds_of
from research.tune.search import Limits, Task, count, finished, only_tuner, opened, prepare, reference, search
from research.tune.trials import KNOBS, Announce, announced_progress, measure
from updater.training_settings import FILE, Knobs, settings_in_use, training_config, write_settings

STUDY_FILE = "tuning.sqlite3"
CONFIRM_SEEDS = 2  # on each of the folds to confirm on: four pairs of trainings in all
SOURCES = (
    "core/losses.py",
    "klines/returns.py",
    "model/**/*.py",
    "research/tune/folds.py",
    "research/tune/trials.py",
)  # trials of different code cannot be compared
LEVEL = 0.05  # chance of adopting settings that are no better


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line of a tuning."""

    topics: Sequence[Topic]
    data_dir: Path
    data: Path | None = None  # folder of Parquet klines
    venues: Sequence[str]  # MARKET_VENUES, for klines of the store
    end_ms: int | None = None
    panels: Sequence[str] = ()  # empty for all that the topics need
    training_days: int = 90
    seed: int = 0
    minutes: float = 60.0  # for all panels together
    trials: int | None = None  # in each panel's study
    jobs: int = 1
    study: Path | None = None
    out: Path | None = None  # instead of DATA_DIR/training.json
    adopt: bool = True
    anew: bool = False  # delete the study first

    @property
    def settings_file(self) -> Path:
        """The file of training settings."""
        return self.out or self.data_dir / FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two configurations trained with one seed and judged on the same rows."""

    fold: Fold
    seed: int
    ours: float  # as ``Measured.score``
    theirs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of one panel's tuning."""

    panel: str
    topics: int
    references: tuple[FrozenTrial, ...]  # the default first
    best: tuple[FrozenTrial, ...]  # finished trials, the best first
    tried: int
    importances: Mapping[str, float]
    pairs: Mapping[str, tuple[Pair, ...]] = field(default_factory=dict)  # of the best against each reference
    chances: Mapping[str, float] = field(default_factory=dict)  # chance of such a lead by luck, against each reference
    adopted: Path | None = None

    @property
    def better(self) -> bool:
        """True if the best trial is to be adopted."""
        return bool(self.chances) and max(self.chances.values()) < LEVEL


def plans_of(asked: Asked) -> list[PanelPlan]:
    """The panels to tune.

    Raises:
        ConfigError: no topic needs a panel of that name, or a number is out of its range.
    """
    if not 0 < asked.minutes < math.inf:
        raise ConfigError(f"--minutes must be a number above 0, was {asked.minutes:g}")
    for option, value in (("--jobs", asked.jobs), ("--trials", asked.trials)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} must be 1 or more, was {value}")
    plans = {panel.name: plan for panel, plan in panels_for(asked.topics).items()}
    for panel in asked.panels:
        if panel not in plans:
            raise ConfigError(f"--panel {panel}: no topic needs it; there are {', '.join(plans)}")
    return [plan for name, plan in plans.items() if not asked.panels or name in asked.panels]


def tuned(asked: Asked, show: Show, say: Announce) -> Iterator[Found]:
    """Tune one panel after the other; each result is written before the next begins.

    Args:
        show: called with the progress.
        say: called with lines about the work to come.
    Raises:
        ConfigError: an option, the klines or a file is wrong. TrainingFailed, UnusableForecast: the
            default configuration cannot be trained or judged.
    """
    plans = plans_of(asked)
    in_use = _checked_file(asked, plans)
    recording = recording_of(plans, asked.data, asked.data_dir, asked.venues)
    if recording.simulated:
        say(recording.simulated)
    storage = asked.study or asked.data_dir / STUDY_FILE
    with only_tuner(storage):
        for place, plan in enumerate(plans):
            minutes = asked.minutes / len(plans)
            begun_s = time.time()

            def announce(note: str, plan: PanelPlan = plan, begun_s: float = begun_s, minutes: float = minutes) -> None:
                show(round(time.time() - begun_s), round(60 * minutes), f"{plan.panel.name}: {note}")

            task = _task(asked, plan, in_use[plan.panel.name], recording, storage)
            with opened(task, anew=asked.anew) as study:
                folds = _folds(study, asked, task)
                prepare(study, task)
            say(_introduction(task, folds, place, len(plans)))
            limits = Limits(trials=asked.trials, until_s=begun_s + 60 * minutes)
            search(replace(task, folds=folds[:SEARCHED]), limits, announce, say, jobs=asked.jobs)
            with opened(task) as study:
                yield _concluded(study, asked, replace(task, folds=folds[SEARCHED:]), announce)


def _checked_file(asked: Asked, plans: Sequence[PanelPlan]) -> dict[str, Knobs]:
    """The settings in use, by panel; checked before hours are spent on a result that could not be written.

    Raises:
        ConfigError: the file of training settings is wrong, or cannot be written although it is to be.
    """
    file = asked.settings_file
    if asked.adopt and not (file.parent.is_dir() and os.access(file.parent, os.W_OK)) and asked.out:
        raise ConfigError(f"--out {file}: {file.parent} is no folder that can be written; give another file")
    return settings_in_use(file if file.exists() else None, [plan.panel.name for plan in plans])


def _task(asked: Asked, plan: PanelPlan, in_use: Knobs, recording: Recording, storage: Path) -> Task:
    """The search without its folds."""
    panel = plan.panel.name
    searched = {knob.name for knob in KNOBS}
    base = {name: value for name, value in in_use.items() if name not in searched}
    went_in = {
        "topics": [(topic.key, topic.symbol, topic.target, topic.horizon_min, topic.loss) for topic in plan.topics],
        "klines": str(Path(recording.source).resolve()),
        "end": asked.end_ms,
        "TRAINING_DAYS": asked.training_days,
        "seed": asked.seed,
        "base": base,
        "default": asdict(CONFIGS[panel]),
        "code": source_sha256(*SOURCES),
    }
    digest = hashlib.sha256(json.dumps(went_in, sort_keys=True).encode()).hexdigest()
    return Task(
        plan=plan,
        recording=recording,
        folds=(),
        base=base,
        in_use=in_use,
        seed=asked.seed,
        storage=storage,
        study=f"{panel}-{digest[:12]}",
    )


def _folds(study: optuna.Study, asked: Asked, task: Task) -> tuple[Fold, ...]:
    """The folds that the study began with, even if the store has grown since."""
    if "folds" in study.user_attrs:
        folds = tuple(Fold(start_ms=start, end_ms=end) for start, end in study.user_attrs["folds"])
    else:
        folds = folds_of(task.recording, task.plan, asked.training_days, asked.end_ms)
    digests = _digests(task, folds)
    if study.user_attrs.get("klines", digests) != digests:
        raise ConfigError(
            f"{task.storage}: study {task.study} was begun on other klines of "
            f"{span_text(folds[0].start_ms, folds[-1].end_ms)} than {task.recording.source} has now (a hole may have "
            "been filled since): begin another with --new"
        )
    study.set_user_attr("klines", digests)
    study.set_user_attr("folds", [(fold.start_ms, fold.end_ms) for fold in folds])
    return folds


def _digests(task: Task, folds: Sequence[Fold]) -> dict[str, str]:
    """Digests of the klines that trials may read."""
    panel = task.plan.panel.reading(LONGEST_LOOKBACK)
    klines = task.recording.until(task.plan, folds[0].klines_from_ms(panel), folds[-1].end_ms)
    series = {(symbol, panel.interval_ms): run for symbol, run in klines.items()}
    return replace(task.recording, series=series).digests()


def _introduction(task: Task, folds: Sequence[Fold], place: int, panels: int) -> str:
    with opened(task) as study:
        done = count(study)
    length = (folds[0].end_ms - folds[0].start_ms) / DAY_MS
    return (
        f"{task.plan.panel.name} panel ({place + 1} of {panels}): {counted(len(task.plan.topics), 'topic')}, "
        f"{len(folds)} folds of {length:.1f} days in {span_text(folds[0].start_ms, folds[-1].end_ms)}; "
        f"study {task.study} in {task.storage}" + (f"; {counted(done, 'trial')} there already" if done else "")
    )


def _concluded(study: optuna.Study, asked: Asked, task: Task, announce: Announce) -> Found:
    """Confirm the best trial, and adopt it if it holds."""
    references = [(what, task.knobs_of(what)) for what in task.references]
    trials = [trial for what, knobs in references if (trial := reference(study, what, knobs))]
    found = Found(
        panel=task.plan.panel.name,
        topics=len(task.plan.topics),
        references=tuple(trials),
        best=tuple(finished(study)),
        tried=count(study),
        importances=_importances(study),
    )
    if not found.best or _value(found.best[0]) >= min(map(_value, trials)):
        return found
    best = found.best[0]
    candidates = [*dict.fromkeys([*study.user_attrs.get("candidates", []), best.number])]
    study.set_user_attr("candidates", candidates)
    knobs = task.base | best.params
    pairs = {
        what: tuple(_pairs(study, task, (f"trial {best.number}", knobs), (what, theirs), announce))
        for what, theirs in references
    }
    # each tested candidate is one more chance to be lucky
    chances = {what: min(1.0, luck(of) * len(candidates)) for what, of in pairs.items()}
    found = replace(found, pairs=pairs, chances=chances)
    if found.better and asked.adopt:
        write_settings(asked.settings_file, found.panel, knobs)
        found = replace(found, adopted=asked.settings_file)
    return found


def _value(trial: FrozenTrial) -> float:
    return float(trial.value if trial.value is not None else math.inf)


def _pairs(
    study: optuna.Study, task: Task, ours: tuple[str, Knobs], theirs: tuple[str, Knobs], announce: Announce
) -> Iterator[Pair]:
    for number, fold in enumerate(task.folds):
        for seed in range(task.seed + 1, task.seed + 1 + CONFIRM_SEEDS):
            scores = [_confirmed(study, task, name, knobs, number, seed, announce) for name, knobs in (ours, theirs)]
            yield Pair(fold=fold, seed=seed, ours=scores[0], theirs=scores[1])


def _confirmed(
    study: optuna.Study, task: Task, name: str, knobs: Knobs, number: int, seed: int, announce: Announce
) -> float:
    """The score of one training of a confirmation, kept in the study for the next run."""
    digest = hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()
    key = f"confirmed {digest} {number} {seed}"
    if key not in study.user_attrs:
        config = training_config(task.plan.panel.name, knobs)

        def say(text: str) -> None:
            announce(f"confirming, {name} with seed {seed} is {text}")

        progress = announced_progress(config, say, lambda: None, number, len(task.folds))
        measured = measure(task.plan, task.recording, task.folds[number], config, seed, progress)
        study.set_user_attr(key, measured.score)
    return float(study.user_attrs[key])


def luck(pairs: Sequence[Pair]) -> float:
    """Chance of at least this lead by luck: Student's t on the pairs' differences.

    The four pairs differ in fold and seed; the distribution function for three degrees of freedom is
    ``1/2 + (x / (1 + x^2) + atan x) / pi`` with ``x = t / sqrt 3`` (Student, Biometrika 6(1), 1908).
    """
    leads = np.array([pair.theirs - pair.ours for pair in pairs])
    if len(leads) != 4:
        raise ValueError(f"the distribution is that of 4 pairs, there are {len(leads)}")
    error = float(leads.std(ddof=1)) / 2
    if not error > 0:
        return 0.0 if leads.mean() > 0 else 0.5
    x = float(leads.mean()) / error / 3**0.5
    return 0.5 - (x / (1 + x * x) + math.atan(x)) / math.pi


def _importances(study: optuna.Study) -> dict[str, float]:
    """Share of the scores' variance that each knob explains; empty for too few trials."""
    if len(finished(study)) < 2 * len(KNOBS):
        return {}
    try:
        return dict(optuna.importance.get_param_importances(study))
    except (RuntimeError, ValueError):  # all trials scored alike
        return {}
