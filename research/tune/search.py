"""The search of a tuning: Optuna over the knobs of a panel's training, stored trial by trial in SQLite.

A search can be ended at any moment, by Ctrl-C or ``kill -9``: finished trials stay, and the one that was running is
marked as failed and tried again by the next search on the same study.
"""

import fcntl
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from core.errors import ConfigError, TrainingFailed, UnusableForecast
from model.panels import PanelPlan
from research.data import Recording
from research.tune.folds import Fold
from research.tune.trials import Announce, announced_progress, measure, searched, suggested
from updater.training_settings import Knobs, training_config

DEFAULT, IN_USE = "default", "in use"  # trials that set the standard
SLOWEST = 4.0  # times the default's CPU time; longer trials are given up
TRIES = 3  # of a trial that ends its process
STARTUP_TRIALS = 5  # random ones, and none pruned, before the sampler and the pruner have grounds
SQLITE_PATIENCE_S = 60.0
LAST_TRIALS = 4.0  # a confirmation takes as long as so many trials like the default (research.tune)


class OutOfTime(Exception):
    """The time for the search is over."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """The search and its data, as handed to helper processes."""

    plan: PanelPlan
    recording: Recording
    folds: tuple[Fold, ...]  # folds of the search
    base: Knobs  # settings in use outside the search
    in_use: Knobs  # all settings in use; empty for defaults
    seed: int
    storage: Path
    study: str  # of the study in the file

    def knobs_of(self, what: str) -> Knobs:
        """The fields of a reference that differ from the defaults."""
        return self.in_use if what == IN_USE else {}

    @property
    def references(self) -> tuple[str, ...]:
        """The references, measured first: trial 0 is the default."""
        return (DEFAULT, IN_USE) if self.in_use else (DEFAULT,)

    @property
    def known(self) -> list[dict[str, float]]:
        """The searched values of the references."""
        name = self.plan.panel.name
        return [searched(training_config(name, self.knobs_of(what))) for what in self.references]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a search; the first limit reached ends the search. References are always measured."""

    trials: int | None = None  # in the study, beside the references
    until_s: float | None = None  # of time.time()


@contextmanager
def only_tuner(storage: Path) -> Iterator[None]:
    """Lock a study file.

    Raises:
        ConfigError: another tuning holds the lock, or the file cannot be written.
    """
    if storage.is_dir():
        raise ConfigError(f"{storage}: is a folder; give a file with --study")
    try:
        storage.parent.mkdir(parents=True, exist_ok=True)
        handle = storage.with_name(f"{storage.name}.lock").open("a")
    except OSError as error:
        raise ConfigError(f"{storage}: {error.strerror}; give another file with --study") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{storage}: another tuning is at work on it; wait, or give --study FILE") from error
        yield


@contextmanager
def opened(task: Task, *, helper: int = 0, anew: bool = False) -> Iterator[optuna.Study]:
    """Open or make the study; only errors are logged.

    Args:
        helper: number of the process, for its own random numbers.
        anew: delete the study first.
    Raises:
        ConfigError: the file is not a study.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{task.storage}", engine_kwargs={"connect_args": {"timeout": SQLITE_PATIENCE_S}}
        )
    except Exception as error:  # sqlalchemy's and optuna's errors have no common base
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{task.storage}: is no study ({reason}); delete it, or give --study FILE") from error
    try:
        if anew:
            with suppress(KeyError):  # no such study
                optuna.delete_study(study_name=task.study, storage=storage)
        study = optuna.create_study(study_name=task.study, storage=storage, load_if_exists=True)
        # begun anew, a sampler would repeat its first draws
        state = np.random.SeedSequence([task.seed, len(study.get_trials(deepcopy=False)), helper])
        study.sampler = optuna.samplers.TPESampler(
            seed=int(state.generate_state(1)[0]), n_startup_trials=STARTUP_TRIALS, multivariate=True
        )
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=2)
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def prepare(study: optuna.Study, task: Task) -> None:
    """Repair the trials of a killed search, and queue the references first."""
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        _repeat(study, trial.params, trial.user_attrs)
    for what, values in zip(task.references, task.known, strict=True):
        knobs = task.knobs_of(what)
        if not _of(study, what, knobs, TrialState.COMPLETE, TrialState.WAITING):
            study.enqueue_trial(values, user_attrs={"what": what, "knobs": knobs})


def _of(study: optuna.Study, what: str, knobs: Knobs, *states: TrialState) -> list[FrozenTrial]:
    attrs = {"what": what, "knobs": knobs}
    return [trial for trial in study.get_trials(states=states) if attrs.items() <= trial.user_attrs.items()]


def _repeat(study: optuna.Study, params: Mapping[str, Any], attrs: Mapping[str, Any]) -> None:
    tries = attrs.get("tries", 1)
    if params and "what" not in attrs and tries < TRIES:
        study.enqueue_trial(dict(params), user_attrs={"tries": tries + 1})


def reference(study: optuna.Study, what: str, knobs: Knobs) -> FrozenTrial | None:
    """The finished trial of a reference: the default, or the settings in use."""
    return next(iter(_of(study, what, knobs, TrialState.COMPLETE)), None)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials, the best first, without references."""
    done = study.get_trials(states=[TrialState.COMPLETE])
    return sorted((trial for trial in done if "what" not in trial.user_attrs), key=lambda trial: trial.value or 0.0)


def count(study: optuna.Study) -> int:
    """Number of trials that are finished, pruned or running, without references."""
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING]
    return sum("what" not in trial.user_attrs for trial in study.get_trials(deepcopy=False, states=states))


def search(task: Task, limits: Limits, announce: Announce, say: Announce, *, jobs: int = 1) -> None:
    """Try configurations until a limit is reached.

    Args:
        announce: called with the present work.
        say: called with a line before and a line after the references are measured.
        jobs: processes; helpers end with this process.
    Raises:
        TrainingFailed, UnusableForecast: a reference cannot be trained or judged.
        KeyboardInterrupt: after the running trial was marked as failed.
    """
    with opened(task) as study:
        prepare(study, task)
        if not reference(study, DEFAULT, {}):
            say(
                f"first the default configuration is measured, in {len(task.folds)} trainings and however little time "
                "there is: how long trials take is known only then"
            )
        _work(study, task, Limits(trials=0), announce)
        if limits.until_s is not None:
            say(_time_left(study, limits.until_s))
        helpers = [
            multiprocessing.get_context("spawn").Process(target=_help, args=(task, limits, number), daemon=True)
            for number in range(1, jobs)
        ]
        try:
            for helper in helpers:
                helper.start()
            _work(study, task, limits, announce)
            for helper in helpers:
                helper.join()
        finally:
            for helper in helpers:
                if helper.pid is not None:
                    helper.kill()
                    helper.join()


def _help(task: Task, limits: Limits, number: int) -> None:
    """Run a helper process, which ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    parent = multiprocessing.parent_process()

    def end_with_the_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    with opened(task, helper=number) as study:
        _work(study, task, limits, lambda _: None)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Delay Ctrl-C until the yielded function is called or the block ends.

    An exception during a read of the study would leave its read lock behind, and every later write would wait for it.
    """
    caught: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}

    def let_through() -> None:
        if caught:
            number, frame = caught.pop(0)
            handlers[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for ending in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(ending)):  # unless the signal is ignored or ends the process
                handlers[ending] = handler
                signal.signal(ending, lambda number, frame: caught.append((number, frame)))
    try:
        yield let_through
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        let_through()


def _work(study: optuna.Study, task: Task, limits: Limits, announce: Announce) -> None:
    with suppress(OutOfTime), held_back() as let_through:
        while _may_begin(study, limits):
            _run(study, study.ask(), task, limits, announce, let_through)
            let_through()


def _may_begin(study: optuna.Study, limits: Limits) -> bool:
    waiting = study.get_trials(deepcopy=False, states=[TrialState.WAITING])
    if any("what" in trial.user_attrs for trial in waiting):
        return True
    if limits.trials is not None and count(study) >= limits.trials:
        return False
    return limits.until_s is None or time.time() + _wall_s(study) < _last_s(study, limits.until_s)


def _wall_s(study: optuna.Study) -> float:
    trial = reference(study, DEFAULT, {})
    return float(trial.user_attrs["wall_s"]) if trial else 0.0


def _last_s(study: optuna.Study, until_s: float) -> float:
    """The latest end of a search that leaves time for the confirmation."""
    return until_s - LAST_TRIALS * _wall_s(study)


def _time_left(study: optuna.Study, until_s: float) -> str:
    took_s, left_s = _wall_s(study), max(0.0, until_s - time.time())
    if took_s < left_s - LAST_TRIALS * took_s:
        return f"the default took {took_s:.0f} s; {left_s / 60:.1f} min are left for trials and for confirming the best"
    return (
        f"the default took {took_s:.0f} s, and the {left_s:.0f} s that are left are too few for a trial and its "
        "confirmation"
    )


def needed_min(default: FrozenTrial) -> int:
    """Least minutes of a panel: for the default, one trial like it, and the confirmation."""
    return math.ceil((LAST_TRIALS + 2) * float(default.user_attrs["wall_s"]) / 60)


def _say(announce: Announce, name: str, text: str) -> None:
    announce(f"{name} is {text}")


def _run(
    study: optuna.Study,
    trial: optuna.Trial,
    task: Task,
    limits: Limits,
    announce: Announce,
    let_through: Callable[[], None],
) -> None:
    what = trial.user_attrs.get("what")
    begun_s, begun_cpu_s = time.time(), time.process_time()
    knobs = suggested(trial, task.known)
    config = training_config(task.plan.panel.name, trial.user_attrs["knobs"] if what else task.base | knobs)
    default = reference(study, DEFAULT, {})
    name = what or f"trial {trial.number}"
    measures, curves = [], []

    def watch() -> None:
        let_through()
        if what:
            return
        if default and time.process_time() - begun_cpu_s > SLOWEST * default.user_attrs["cpu_s"]:
            raise optuna.TrialPruned(f"more than {SLOWEST:g} times as slow as the default")
        if limits.until_s is not None and time.time() > _last_s(study, limits.until_s):
            raise OutOfTime

    try:
        for number, fold in enumerate(task.folds):
            curve: list[float] = []
            curves.append(curve)

            def validated(epoch: int, loss: float, curve: list[float] = curve, number: int = number) -> None:
                curve.append(loss)
                if what or default is None or epoch != len(curve):
                    return
                usual = default.user_attrs["curves"][number]
                trial.report(loss / usual[min(epoch, len(usual)) - 1], number * config.epochs + epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned("worse than half of the others so far")

            progress = announced_progress(config, partial(_say, announce, name), watch, number, len(task.folds))
            measures.append(measure(task.plan, task.recording, fold, config, task.seed, progress, validated))
    except (optuna.TrialPruned, TrainingFailed, UnusableForecast) as error:
        trial.set_user_attr("reason", str(error))
        if what:
            study.tell(trial, state=TrialState.FAIL)
            raise
        study.tell(trial, state=TrialState.PRUNED)
        return
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        _repeat(study, trial.params, trial.user_attrs)
        raise
    for attr, value in {
        "ratios": [dict(one.ratios) for one in measures],
        "scores": [one.score for one in measures],
        "curves": curves,
        "cpu_s": time.process_time() - begun_cpu_s,
        "wall_s": time.time() - begun_s,
    }.items():
        trial.set_user_attr(attr, value)
    study.tell(trial, float(np.mean([one.score for one in measures])))
