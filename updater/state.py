"""``DATA_DIR/updater.json``: the updater's last, present and next work, for people and health checks.

Nothing is decided by this file alone: a lost or unreadable file costs the history of failures and no model.
"""

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import structlog
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from core.backoff import backoff
from core.clock import MINUTE_MS, Clock
from core.files import replace_json

FILE = "updater.json"

FIRST_RETRY_MIN = 1
LONGEST_RETRY_MIN = 60

log = structlog.get_logger()


class Record(BaseModel):
    """A part of the file. An unknown field makes the file unreadable, rather than half read."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Verdict(Record):
    """The gate's decision for a topic; losses are means over the judge rows, in the topic's own loss and unit.

    The figures of the test against the naive forecast are ``model.judging.gate.Decision``'s. Earlier releases wrote
    none of the fields that have a default.
    """

    topic: str  # Topic.key
    symbol: str
    head: str  # "return-10m"
    loss: str
    rows: int
    challenger: float | None
    naive: float | None
    champion: float | None = None  # None: the topic had no usable champion
    champion_version: str | None = None
    promoted: bool
    reason: str
    p: float | None = None  # chance of such a lead over the naive forecast without skill; None: no test was made
    effective: float = 0.0  # independent rows that the test's rows are worth
    won: int = 0  # of the blocks of time
    blocks: int = 0
    pooled: bool = False  # True if the test is over all symbols of the head
    demoted: str = ""  # which champion was demoted before the challenger was judged, and why; empty if none was

    @property
    def adds_nothing(self) -> bool:
        """True if the network's forecasts are the naive forecast's on every judge row: equal losses say so."""
        return self.challenger is not None and self.challenger == self.naive


class Outcome(Record):
    """The result of a training round of a panel."""

    panel: str
    ok: bool  # False: nothing was published
    reason: str = ""  # why not, in a line
    version: str | None = None
    finished_ms: int
    took_s: float
    rows: int = 0  # training rows
    training: dict[str, JsonValue] = Field(default_factory=dict)  # fields of TrainingConfig not at their defaults
    training_fault: str = ""  # why the file of training settings was not used, in a line
    verdicts: tuple[Verdict, ...] = ()
    missing: dict[str, str] = Field(default_factory=dict)  # symbol left out of the round -> why

    @property
    def complete(self) -> bool:
        """True if a version with every configured symbol was published: nothing to try again before the schedule."""
        return self.ok and not self.missing


class SeriesState(Record):
    """The last sync of a series of klines."""

    synced_ms: int
    fetched_rows: int
    newest_ms: int | None  # open time of the newest kline in the store
    gaps: int
    reason: str = ""  # why the sync failed; empty when it did not
    # The rejected rows, in words; "refused" in files of earlier releases.
    rejected: str = Field(default="", validation_alias=AliasChoices("rejected", "refused"))


class PanelState(Record):
    """A panel's past, present and future."""

    running_since_ms: int | None = None
    due: str = ""  # why the panel is trained as soon as the panel before it is done; empty if it is not
    progress: str = ""
    per_cent: float | None = None  # of the training's steps; None before the first and after the last
    left_s: float | None = None  # until the last step at the pace so far; a training that stops early needs less
    outcome: Outcome | None = None
    training: dict[str, JsonValue] = Field(default_factory=dict)  # settings of the last round that went well
    failures: int = 0  # in a row
    next_try_ms: int | None = None  # after a failure
    next_run_ms: int | None = None  # by RETRAIN_CRON


IDLE: dict[str, Any] = {
    "running_since_ms": None,
    "due": "",
    "progress": "",
    "per_cent": None,
    "left_s": None,
}
"""Fields of a panel that trains nothing."""


class UpdaterState(Record):
    """The whole file."""

    schema_version: Literal[2] = 2
    pid: int = 0  # 0: it has ended, at heartbeat_ms
    started_ms: int = 0
    heartbeat_ms: int = 0
    series: dict[str, SeriesState] = Field(default_factory=dict)  # "ETHUSDT-1m"
    panels: dict[str, PanelState] = Field(default_factory=dict)


def retry_after_min(failures: int) -> int:
    """Minutes to wait after this many failures in a row.

    >>> [retry_after_min(n) for n in range(1, 10)]
    [1, 2, 4, 8, 16, 32, 60, 60, 60]
    """
    return round(backoff(failures, FIRST_RETRY_MIN, LONGEST_RETRY_MIN))


def read_state(data_dir: Path) -> UpdaterState | None:
    """Return the last written state; None without a file, or if this version cannot read the file (logged)."""
    path = data_dir / FILE
    try:
        return UpdaterState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("state_unreadable", file=str(path), reason=str(error).splitlines()[0], remedy="it is begun anew")
        return None


class StateFile:
    """The only writer of the file; safe to call from several threads.

    A disk that refuses the write is logged and trainings go on: the models matter, and the health check sees the
    heartbeat stand still.
    """

    def __init__(self, data_dir: Path, clock: Clock, panels: Iterable[str]) -> None:
        """Take over the last updater's state.

        Args:
            data_dir: the file's folder.
            panels: the panels of this start; other panels are forgotten.
        """
        self._path = data_dir / FILE
        self._clock = clock
        self._lock = threading.Lock()
        self._fault = ""  # why the last write failed; empty if it did not
        old = read_state(data_dir) or UpdaterState()
        now_ms = clock.now_ms()
        taken = {
            name: old.panels.get(name, PanelState()).model_copy(
                update={**IDLE, "next_try_ms": None, "next_run_ms": None}
            )
            for name in panels
        }
        self._state = old.model_copy(update={"pid": os.getpid(), "started_ms": now_ms, "panels": taken})
        self.beat()

    @property
    def current(self) -> UpdaterState:
        """The state as of now; a value that does not change under the reader."""
        with self._lock:
            return self._state

    def panel(self, name: str) -> PanelState:
        """A panel's state as of now."""
        return self.current.panels.get(name, PanelState())

    def beat(self) -> None:
        """Record that this process is alive."""
        self._write({})

    def end(self) -> None:
        """Record that this process has ended."""
        self._write({"pid": 0})

    def update_panel(self, name: str, **changes: Any) -> PanelState:
        """Change fields of a panel."""
        with self._lock:
            panel = self._state.panels.get(name, PanelState()).model_copy(update=changes)
            self._write_locked({"panels": self._state.panels | {name: panel}})
        return panel

    def replace_series(self, series: Mapping[str, SeriesState]) -> None:
        """Record the newest sync of every wanted series; other series are forgotten."""
        self._write({"series": dict(series)})

    def finish(self, outcome: Outcome) -> PanelState:
        """Record the end of a round, and when to try again if it is not complete."""
        before = self.panel(outcome.panel)
        self.update_panel(
            outcome.panel,
            **IDLE,
            outcome=outcome,
            training=outcome.training if outcome.ok else before.training,
            failures=0 if outcome.complete else before.failures + 1,
        )
        return self.plan_retry(outcome.panel)

    def plan_retry(self, name: str) -> PanelState:
        """Plan the panel's next try, counted from now; no try if the last round went well."""
        failures = self.panel(name).failures
        next_try_ms = self._clock.now_ms() + retry_after_min(failures) * MINUTE_MS if failures else None
        return self.update_panel(name, next_try_ms=next_try_ms)

    def _write(self, changes: Mapping[str, Any]) -> None:
        with self._lock:
            self._write_locked(changes)

    def _write_locked(self, changes: Mapping[str, Any]) -> None:
        self._state = self._state.model_copy(update={"heartbeat_ms": self._clock.now_ms(), **changes})
        fault = ""
        try:
            replace_json(self._path, self._state.model_dump(mode="json"))
        except OSError as error:
            fault = error.strerror or str(error)
            if fault != self._fault:  # else each heartbeat would repeat it
                log.error("state_not_written", file=str(self._path), reason=fault)
        self._fault = fault
