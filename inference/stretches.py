"""The stretch of each topic, as the updater has fitted it, and what a stretch of a volatility is measured from."""

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
from model.forecaster import Start
from model.heads import Head, realised_volatility
from model.known import Known
from model.stretch import NONE, Stretch, before_data, objective_of

NEWEST_STARTS = 15  # whole minutes; a base is ten minutes old at most

log = structlog.get_logger()


class Stretches:
    """The stretches in use.

    Args:
        setting: OBJECTIVE, for topics that have none of their own.
        data_dir: where the updater leaves what it has fitted.
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
        """Put to use what the updater has fitted since the last look; what cannot be read leaves all as it is."""
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
                log.warning("stretches_not_read", reason=str(error), remedy="the ones in use stay", count=count)

    def of(self, topic: Topic, known: Known) -> Stretch:
        """The stretch of an answer with so much known."""
        asked = topic.key, topic.objective
        objective = self._objectives.get(asked)
        if objective is None:
            objective = self._objectives[asked] = objective_of(topic, self._setting)
        if objective is Objective.LOSS:
            return NONE
        fitted = self.fitted.get(topic.key)
        if fitted is not None:
            return fitted
        if objective is Objective.AUTO or topic.target is Target.VOLATILITY or not known.elapsed_ms:
            return NONE
        return before_data(topic.horizon_min, float(known.elapsed_ms) / MINUTE_MS)


def starts(minutes: Klines, head: Head, epoch_min: int) -> dict[int, Start]:
    """The market at each of the newest whole minutes, by base in ms; a base whose day is not known is left out.

    Args:
        minutes: one-minute candles, a day and a horizon of them.
        head: a volatility's.
        epoch_min: minutes from one of the topic's epochs to the next.
    """
    day = DAY_MS // MINUTE_MS
    tail = minutes.tail(day + head.horizon_min + NEWEST_STARTS)
    volatility = realised_volatility(tail, head.horizon_min, head.kind)
    with np.errstate(divide="ignore"):
        log = np.log(volatility)
    found = {}
    for row in range(max(0, len(tail) - NEWEST_STARTS), len(tail)):
        epochs = log[row::-epoch_min][: max(1, day // epoch_min)]
        if np.isfinite(log[row]) and len(finite := epochs[np.isfinite(epochs)]):
            base_ms = int(tail.open_time_ms[row]) + MINUTE_MS
            found[base_ms] = Start(volatility=float(volatility[row]), dev=float(log[row] - finite.mean()))
    return found
