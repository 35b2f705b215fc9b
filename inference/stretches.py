"""The stretches that the updater has fitted, and the past volatility that some of them start from."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import structlog

from admission.readiness import FILE, read_admission
from core.clock import DAY_MS, MINUTE_MS
from core.errors import IncompatibleModel
from core.seldom import Seldom
from core.settings import Objective
from core.topic import Target, Topic
from klines.klines import Klines
from model.answer import Start
from model.heads import Head
from model.known import Known
from model.stretch import NONE, Stretch, before_data, objective_of

NEWEST_STARTS = 15  # minutes; a base is at most ten minutes old

log = structlog.get_logger()


class Stretches:
    """The stretches in use, read from the updater's file.

    Args:
        setting: OBJECTIVE, for topics without an objective of their own.
        data_dir: folder of the updater's file.
    Attributes:
        fitted: by Topic.key; replaced as a whole.
    """

    def __init__(self, setting: Objective, data_dir: Path) -> None:
        self._setting = setting
        self._objectives: dict[tuple[str, str | None], Objective] = {}  # by Topic.key and the topic's own
        self._file = data_dir / FILE
        self._stamp: object = None
        self.fitted: Mapping[str, Stretch] = {}
        self._seldom = Seldom()

    def poll(self) -> None:
        """Put new stretches to use, if there are any. A file that cannot be read changes nothing."""
        try:
            status = self._file.stat()
        except OSError:
            return
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            _, topics = read_admission(self._file.parent)
            self.fitted = {key: topic.stretch for key, topic in topics.items()}
        except (OSError, IncompatibleModel) as error:
            if count := self._seldom.due("stretches_not_read"):
                log.warning("stretches_not_read", reason=str(error), remedy="the stretches in use stay", count=count)

    def of(self, topic: Topic, known: Known) -> Stretch:
        """Return the stretch of an answer for which ``known`` of its interval is known."""
        key = topic.key, topic.objective
        objective = self._objectives.get(key)
        if objective is None:
            objective = self._objectives[key] = objective_of(topic, self._setting)
        if objective is Objective.LOSS:
            return NONE
        fitted = self.fitted.get(topic.key)
        if fitted is not None:
            return fitted
        if objective is Objective.AUTO or topic.target is Target.VOLATILITY or not known.elapsed_ms:
            return NONE
        return before_data(topic.horizon_min, float(known.elapsed_ms) / MINUTE_MS)


def starts(minutes: Klines, head: Head, epoch_min: int) -> dict[int, Start]:
    """Return a volatility's start for each of the newest minutes, by base in ms; without a known day there is no start.

    Args:
        minutes: one-minute candles, at least a day and a horizon of them.
        head: of a volatility.
        epoch_min: minutes from one of the topic's epochs to the next.
    """
    day = DAY_MS // MINUTE_MS
    tail = minutes.tail(day + head.horizon_min + NEWEST_STARTS)
    volatility = head.kind.measure.trailing(tail, head.horizon_min)
    with np.errstate(divide="ignore"):
        log = np.log(volatility)
    found = {}
    for row in range(max(0, len(tail) - NEWEST_STARTS), len(tail)):
        epochs = log[row::-epoch_min][: max(1, day // epoch_min)]
        if np.isfinite(log[row]) and len(finite := epochs[np.isfinite(epochs)]):
            base_ms = int(tail.open_time_ms[row]) + MINUTE_MS
            found[base_ms] = Start(volatility=float(volatility[row]), dev=float(log[row] - finite.mean()))
    return found
