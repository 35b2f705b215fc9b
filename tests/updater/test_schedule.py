"""The schedule: cron lines, single flight, coalescing, retries, an end within its patience."""

import queue
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apscheduler.triggers.cron import CronTrigger

from core.clock import HOUR_MS, SystemClock
from core.errors import ConfigError
from tests.fakes.clock import FakeClock, eventually
from tests.truth.test_adopted import ASKED, settings_on, write
from truth.adopted import Adopted
from updater.__main__ import START_ANEW, watch
from updater.schedule import MOST_JITTER_S, Schedule, cron_trigger
from updater.state import Outcome, PanelState, StateFile
from updater.training_process import Stopped

SATURDAY = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


class Rounds:
    """Counts what runs at once, and fails on demand."""

    def __init__(self, state: StateFile, due: dict[str, str], *, ok: bool = True) -> None:
        self.state, self.ok, self._due = state, ok, due
        self.hold = threading.Event()
        self.hold.set()
        self.stop = threading.Event()
        self.calls: list[str] = []
        self.running = self.most = 0

    def _work(self, name: str) -> None:
        self.calls.append(name)
        self.running += 1
        self.most = max(self.most, self.running)
        while not self.hold.wait(0.01) and not self.stop.is_set():
            pass
        self.running -= 1
        if self.stop.is_set():
            raise Stopped

    def sync(self) -> None:
        self._work("sync")

    def train(self, panel: str, *, again: bool = False) -> PanelState:
        self._work(f"again {panel}" if again else panel)
        return self.state.finish(Outcome(panel=panel, ok=self.ok, finished_ms=0, took_s=0.0))

    def due(self) -> dict[str, str]:
        return self._due


@pytest.mark.parametrize(
    ("line", "first"),
    [
        pytest.param("17 */6 * * *", datetime(2026, 11, 21, 12, 17, tzinfo=UTC), id="the default"),
        pytest.param("0 0 * * 0", datetime(2026, 11, 22, tzinfo=UTC), id="0 is Sunday, as in cron"),
        pytest.param("0 0 * * 7", datetime(2026, 11, 22, tzinfo=UTC), id="and so is 7"),
        pytest.param("0 0 * * 1-5", datetime(2026, 11, 23, tzinfo=UTC), id="working days begin on Monday"),
        pytest.param("0 0 * * tue", datetime(2026, 11, 24, tzinfo=UTC), id="by name"),
    ],
)
def test_a_cron_line_means_what_cron_means(line: str, first: datetime) -> None:
    trigger = cron_trigger(line)
    trigger.jitter = None
    assert trigger.get_next_fire_time(None, SATURDAY) == first


@pytest.mark.parametrize(
    ("line", "jitter_s"), [("17 */6 * * *", MOST_JITTER_S), ("*/10 * * * *", 60.0), ("* * * * *", 6.0)]
)
def test_the_jitter_is_small_beside_the_interval(line: str, jitter_s: float) -> None:
    assert cron_trigger(line).jitter == jitter_s


@pytest.mark.parametrize(
    "line",
    ["", "often", "61 * * * *", "* * * *", "* * * * * *", "0 0 * * 8", "0 0 * * 5-1", "0 0 * * x", "0 0 30 2 *"],
)
def test_a_line_that_is_no_cron_line_is_refused_in_one_line(line: str) -> None:
    with pytest.raises(ConfigError, match="RETRAIN_CRON") as caught:
        cron_trigger(line)
    assert repr(line) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_jobs_never_overlap_and_do_not_pile_up(tmp_path: Path) -> None:
    state = StateFile(tmp_path, SystemClock(), ["minute", "hour"])
    rounds = Rounds(state, {"minute": "no champion", "hour": "no champion"})
    rounds.hold.clear()
    schedule = Schedule(rounds, state, ["minute", "hour"], CronTrigger(second="*", timezone=UTC))
    schedule.start()
    try:
        eventually(lambda: rounds.calls == ["minute"], what="the first training")
        assert (state.panel("hour").due, state.panel("hour").running_since_ms) == ("no champion", None), "it waits"
        queued_ms = state.panel("hour").next_run_ms
        assert queued_ms is not None
        eventually(lambda: SystemClock().now_ms() > queued_ms + 2_000, what="two more runs by the clock")
        rounds.hold.set()
        eventually(lambda: len(rounds.calls) >= 5, what="what had waited")
    finally:
        rounds.stop.set()
        assert schedule.end(5.0)
    assert rounds.most == 1
    assert sorted(rounds.calls[:5]) == ["hour", "hour", "minute", "minute", "sync"], "each once by need, once by clock"


def test_what_is_not_due_is_not_trained(tmp_path: Path) -> None:
    state = StateFile(tmp_path, SystemClock(), ["minute", "hour"])
    rounds = Rounds(state, {"hour": "topic 9 has no champion"})
    schedule = Schedule(rounds, state, ["minute", "hour"], cron_trigger("17 */6 * * *"))
    schedule.start()
    eventually(lambda: rounds.calls == ["hour", "sync"], what="the hour panel and the sync")
    assert schedule.end(5.0)
    assert state.panel("minute").next_run_ms is not None


def test_a_failure_is_tried_again_and_a_success_ends_it(tmp_path: Path) -> None:
    clock = FakeClock(0)  # every date it gives lies in the past for the scheduler: no wait
    state = StateFile(tmp_path, clock, ["minute"])
    rounds = Rounds(state, {"minute": "no champion"}, ok=False)
    schedule = Schedule(rounds, state, ["minute"], cron_trigger("17 */6 * * *"))
    schedule.start()
    eventually(lambda: rounds.calls.count("again minute") >= 2, what="two more tries")
    rounds.ok = True
    eventually(lambda: state.panel("minute").failures == 0, what="the success")
    assert schedule.end(5.0)
    assert state.panel("minute").next_try_ms is None


def test_the_end_does_not_wait_for_ever(tmp_path: Path) -> None:
    state = StateFile(tmp_path, SystemClock(), ["minute"])
    rounds = Rounds(state, {"minute": "no champion"})
    rounds.hold.clear()
    schedule = Schedule(rounds, state, ["minute"], cron_trigger("17 */6 * * *"))
    schedule.start()
    eventually(lambda: rounds.calls == ["minute"], what="the training")
    assert not schedule.end(0.05)
    rounds.stop.set()
    eventually(lambda: rounds.running == 0, what="the end of the job")


HOUR_S = 3600.0


def trouble_after(schedule: Schedule, hours: float) -> str:
    """What is said so much later by both clocks."""
    return schedule.trouble(time.time() + hours * HOUR_S, time.monotonic() + hours * HOUR_S)


def test_an_idle_schedule_is_in_trouble_after_an_hour(tmp_path: Path) -> None:
    state = StateFile(tmp_path, SystemClock(), ["minute"])
    schedule = Schedule(Rounds(state, {}), state, ["minute"], cron_trigger("17 */6 * * *"))  # never started: as if dead
    assert trouble_after(schedule, 0.9) == ""
    assert "no job began" in trouble_after(schedule, 1.1)


def test_a_round_may_take_hours_but_not_for_ever(tmp_path: Path) -> None:
    state = StateFile(tmp_path, SystemClock(), ["minute"])
    rounds = Rounds(state, {"minute": "no champion"})
    rounds.hold.clear()
    schedule = Schedule(rounds, state, ["minute"], cron_trigger("17 */6 * * *"))
    schedule.start()
    try:
        eventually(lambda: rounds.calls == ["minute"], what="the training")
        assert trouble_after(schedule, 3.9) == ""
        assert "a job hangs" in trouble_after(schedule, 4.1)
        rounds.hold.set()
        eventually(lambda: "no job began" in trouble_after(schedule, 3.9), what="the end of the training")
    finally:
        rounds.stop.set()
        assert schedule.end(5.0)


@pytest.mark.parametrize(
    ("jump_s", "trouble"),
    [
        pytest.param(-6 * HOUR_S, "set back by 21600 s", id="six hours back"),
        pytest.param(-61.0, "set back by 61 s", id="a minute back"),
        pytest.param(-2.0, "", id="a correction"),
        pytest.param(6 * HOUR_S, "", id="ahead: what is due comes at once"),
    ],
)
def test_a_clock_set_back_is_trouble(tmp_path: Path, jump_s: float, trouble: str) -> None:
    state = StateFile(tmp_path, SystemClock(), ["minute"])
    schedule = Schedule(Rounds(state, {}), state, ["minute"], cron_trigger("17 */6 * * *"))
    now_s, monotonic_s = time.time(), time.monotonic()
    assert schedule.trouble(now_s, monotonic_s) == ""
    said = schedule.trouble(now_s + 20 + jump_s, monotonic_s + 20)
    assert trouble in said
    assert bool(said) == bool(trouble)


def test_a_process_with_a_clock_set_back_ends_to_be_started_anew(tmp_path: Path) -> None:
    clock = FakeClock(SystemClock().now_ms())
    state = StateFile(tmp_path, clock, ["minute"])
    schedule = Schedule(Rounds(state, {}), state, ["minute"], cron_trigger("17 */6 * * *"))
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    signals.put(signal.SIGTERM)
    schedule.start()
    try:
        assert watch(schedule, state, signals, clock) == 0
        clock.time_ms -= 6 * HOUR_MS
        before_ms = state.current.heartbeat_ms
        assert watch(schedule, state, signals, clock) not in {0, 2}
        assert state.current.heartbeat_ms == before_ms, "it does not look alive"
    finally:
        assert schedule.end(5.0)


def test_a_bug_in_one_job_stops_no_other(tmp_path: Path) -> None:
    state = StateFile(tmp_path, SystemClock(), ["minute"])

    class Buggy(Rounds):
        def due(self) -> dict[str, str]:
            raise ZeroDivisionError

    rounds = Buggy(state, {})
    schedule = Schedule(rounds, state, ["minute"], cron_trigger("17 */6 * * *"))
    schedule.start()
    eventually(lambda: rounds.calls == ["sync"], what="the sync")
    assert schedule.end(5.0)


def test_what_is_adopted_ends_the_process_once_no_job_is_at_work(tmp_path: Path) -> None:
    settings = settings_on(tmp_path)
    adopted = Adopted(settings)
    state = StateFile(tmp_path, SystemClock(), ["minute"])
    rounds = Rounds(state, {})
    rounds.hold.clear()
    schedule = Schedule(rounds, state, ["minute"], cron_trigger("17 */6 * * *"))
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    schedule.start()
    try:
        eventually(lambda: schedule.is_at_work and rounds.calls == ["sync"], what="a job that lasts")
        write(settings, ASKED)
        signals.put(signal.SIGTERM)
        assert watch(schedule, state, signals, SystemClock(), adopted) == 0, "it ends by the signal alone"
        assert adopted.is_outdated
        rounds.hold.set()
        eventually(lambda: not schedule.is_at_work, what="the job's end")
        assert watch(schedule, state, signals, SystemClock(), adopted) == START_ANEW
    finally:
        rounds.hold.set()
        assert schedule.end(5.0)
