"""When the updater works: by RETRAIN_CRON, every few minutes to stay fresh, and again after failures.

All work runs on the single thread of the scheduler's pool, so two jobs never overlap. A job that still waits or runs
when its time comes again is not queued twice.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Protocol

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from core.clock import iso
from core.errors import ConfigError
from updater.state import PanelState, StateFile
from updater.training_process import Stopped

SYNC_EVERY_MIN = 5
MOST_JITTER_S = 300.0
MOST_SET_BACK_S = 60.0
LONGEST_IDLE_S = 3600.0  # a sync is due every five minutes, whether it goes well or not
LONGEST_JOB_S = 4 * 3600.0  # the first job may be a sync and a round of each panel
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

log = structlog.get_logger()


class Rounds(Protocol):
    """The work that is scheduled."""

    def sync(self) -> None: ...

    def train(self, panel: str, *, again: bool = False) -> PanelState: ...

    def due(self) -> dict[str, str]: ...


def cron_trigger(text: str) -> CronTrigger:
    """RETRAIN_CRON as a trigger in UTC, with a jitter so that not all nodes ask the venue at once.

    The jitter is at most five minutes and a tenth of the shortest interval. Weekdays count as in cron, from
    Sunday = 0; the scheduler's own reading of the same five fields counts from Monday.

    Raises:
        ConfigError: the text is not a cron line, or its time never comes.
    """
    fields = text.split()
    try:
        if len(fields) != 5:
            raise ValueError(f"it has {len(fields)} fields")
        trigger = CronTrigger.from_crontab(" ".join([*fields[:4], _weekdays(fields[4])]), timezone=UTC)
    except ValueError as error:
        raise ConfigError(
            f"RETRAIN_CRON={text!r} cannot be read: {error}; give minute, hour, day, month and weekday in UTC, "
            "such as '17 */6 * * *'"
        ) from error
    times = _next_times(trigger, 8)
    if not times:
        raise ConfigError(f"RETRAIN_CRON={text!r} names no day that ever comes; give one such as '17 */6 * * *'")
    shortest_s = min(((b - a).total_seconds() for a, b in pairwise(times)), default=MOST_JITTER_S * 10)
    trigger.jitter = min(MOST_JITTER_S, shortest_s / 10)
    return trigger


def _weekdays(field: str) -> str:
    """Cron's weekday numbers as a list of names.

    >>> _weekdays("1-5"), _weekdays("0,6/3"), _weekdays("*"), _weekdays("5-7"), _weekdays("mon")
    ('mon,tue,wed,thu,fri', 'sun,sat', '*', 'sun,fri,sat', 'mon')
    """
    if field == "*" or any(character.isalpha() for character in field):
        return field
    days: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = ("0", "-", "6") if span == "*" else span.partition("-")
        end = int(last or ("6" if step else first))
        if not 0 <= int(first) <= end <= 7:
            raise ValueError(f"weekday {part!r} must lie within 0 (Sunday) and 7 (Sunday)")
        days.update(day % 7 for day in range(int(first), end + 1, int(step or 1)))
    return ",".join(_DAYS[day] for day in sorted(days))


def _next_times(trigger: CronTrigger, count: int) -> list[datetime]:
    times: list[datetime] = []
    now = datetime.now(UTC)
    while len(times) < count and (time := trigger.get_next_fire_time(times[-1] if times else None, now)):
        times.append(time)
        now = time
    return times


class Schedule:
    """Runs rounds until it is stopped."""

    def __init__(self, rounds: Rounds, state: StateFile, panels: Collection[str], trigger: CronTrigger) -> None:
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)  # our own lines say more
        self._rounds = rounds
        self._state = state
        self._panels = panels
        self._at_work_since_s = (False, time.monotonic())  # a single value, because two threads use it
        self._ahead_s: float | None = None  # of the machine's clock before the monotonic clock, at the last call
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={
                "max_instances": 1,
                "coalesce": True,
                "misfire_grace_time": None,
            },  # late is better than never
        )
        self._add(self._start, id="start")
        self._add(rounds.sync, "interval", id="sync", minutes=SYNC_EVERY_MIN, next_run_time=datetime.now(UTC))
        for panel in panels:
            self._add(self._train, trigger, id=f"train-{panel}", args=[panel])

    def start(self) -> None:
        """Begin: train panels without a usable champion, sync, then go on by the clock."""
        self._scheduler.start()
        self.note_next_runs()

    def note_next_runs(self) -> None:
        """Write the next scheduled run of each panel into the state."""
        for panel in self._panels:
            job = self._scheduler.get_job(f"train-{panel}")
            next_ms = round(job.next_run_time.timestamp() * 1000) if job else None
            if next_ms != self._state.panel(panel).next_run_ms:
                self._state.update_panel(panel, next_run_ms=next_ms)

    @property
    def is_at_work(self) -> bool:
        """True while a job runs."""
        return self._at_work_since_s[0]

    def trouble(self, now_s: float, monotonic_s: float) -> str:
        """Say why the process must be started anew: scheduled work would not come in time. Empty if it will.

        The scheduler plans by the machine's clock: set back by six hours, the next sync would come in six hours.

        Args:
            now_s: the machine's clock. A jump back is noticed between two calls.
            monotonic_s: the clock that is never set.
        """
        ahead_s, before_s = now_s - monotonic_s, self._ahead_s
        self._ahead_s = ahead_s
        if before_s is not None and before_s - ahead_s > MOST_SET_BACK_S:
            return f"the machine's clock was set back by {before_s - ahead_s:.0f} s"
        at_work, since_s = self._at_work_since_s
        lasted_s = monotonic_s - since_s
        if lasted_s > (LONGEST_JOB_S if at_work else LONGEST_IDLE_S):
            return f"a job hangs: it began {lasted_s:.0f} s ago" if at_work else f"no job began for {lasted_s:.0f} s"
        return ""

    def end(self, patience_s: float) -> bool:
        """Start nothing more, and wait for the job at hand.

        Returns:
            True if the job ended in time.
        """
        waiting = threading.Thread(target=self._scheduler.shutdown, daemon=True)
        waiting.start()
        waiting.join(patience_s)
        return not waiting.is_alive()

    def _add(self, job: Callable[..., None], trigger: Any = None, **options: Any) -> None:
        def run(*args: Any) -> None:
            self._at_work_since_s = (True, time.monotonic())
            try:
                job(*args)
            except Stopped:
                log.debug("stopped", job=options["id"])
            except Exception:  # a bug; the other jobs go on
                log.exception("job_failed", job=options["id"])
            finally:
                self._at_work_since_s = (False, time.monotonic())

        self._scheduler.add_job(run, trigger, replace_existing=True, **options)

    def _start(self) -> None:
        due = self._rounds.due()
        for panel in due:
            self._state.update_panel(panel, due=due[panel])
        for panel in self._panels:
            if panel in due:
                log.info("training_due", panel=panel, reason=due[panel])
                self._train(panel)
            elif failures := self._state.panel(panel).failures:
                log.info("training_due", panel=panel, reason=f"failures in a row before this start: {failures}")
                self._plan_retry(panel, self._state.plan_retry(panel))

    def _train(self, panel: str, again: bool = False) -> None:
        if again and not self._state.panel(panel).failures:
            return  # a scheduled round came first and went well
        self._plan_retry(panel, self._rounds.train(panel, again=again))

    def _plan_retry(self, panel: str, after: PanelState) -> None:
        if after.next_try_ms is None:
            return
        log.info("retry_planned", panel=panel, failures=after.failures, next_try=iso(after.next_try_ms))
        at = datetime.fromtimestamp(after.next_try_ms / 1000, UTC)
        self._add(self._train, "date", id=f"retry-{panel}", run_date=at, args=[panel, True])
