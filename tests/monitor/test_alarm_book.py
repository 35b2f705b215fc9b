"""What is told of alarms: once, to every address, over restarts, and whatever fails."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.clock import SystemClock
from core.errors import ConfigError
from monitor.alarm_book import AlarmBook
from monitor.alarm_rows import Alarm, Kept
from tests.fakes.clock import RunningClock, eventually
from tests.fakes.net import free_port
from tests.monitor.desk import Desk, desk
from tests.monitor.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def alarm(name: str = "clock", subject: str = "", since_ms: int = 1_700_000_000_000) -> Alarm:
    return Alarm(name=name, subject=subject, what=f"{name} {subject} is off", since_ms=since_ms, remedy=f"mend {name}")


def found(watching: Desk, *alarms: Alarm, known: bool = True) -> None:
    """One look that finds these alarms."""
    watching.book.step(alarms, lambda _, __: known, watching.clock.now_ms())


def pass_s(watching: Desk, seconds: float, *alarms: Alarm) -> None:
    """Let time pass between two looks with these alarms."""
    found(watching, *alarms)
    watching.clock.jump(round(seconds * 1000))
    found(watching, *alarms)


def rows(folder: Path) -> Sequence[Kept]:
    with closing(sqlite3.connect(folder / "ledger.sqlite3")) as connection:
        connection.row_factory = sqlite3.Row
        return [Kept(**row) for row in connection.execute("SELECT * FROM alarms ORDER BY since_ms, name")]


def test_an_alarm_is_told_once_with_its_remedy_and_then_that_it_is_over(
    tmp_path: Path, clock: RunningClock, receiver: Receiver
) -> None:
    with desk(tmp_path, clock, alarm_urls=receiver.alarm_url) as watching:
        for _ in range(5):
            found(watching, alarm())
        eventually(lambda: len(receiver.received) == 1, what="the alarm")
        told = receiver.received[0]
        assert told["title"].endswith(": clock")
        assert "ALARM clock: clock  is off\nSince 2023-11-14 22:13 UTC (" in told["message"]
        assert "To do: mend clock" in told["message"]
        assert told["type"] == "failure"
        eventually(lambda: rows(tmp_path)[0].sent_ms is not None, what="the row")
        pass_s(watching, 31)
        eventually(lambda: len(receiver.received) == 2, what="the recovery message")
        over = receiver.received[1]
        assert over["title"].endswith(": over: clock")
        assert "OVER clock: clock  is off\nFrom 2023-11-14 22:13 to " in over["message"]
        assert over["type"] == "success"
        eventually(lambda: rows(tmp_path)[0].end_sent_ms is not None, what="the row")
        assert watching.book.standing == ()
        assert [kept.name for kept in watching.book.ended] == ["clock"]
        assert watching.book.fault == ""


def test_what_flutters_is_one_alarm(tmp_path: Path, clock: RunningClock, receiver: Receiver) -> None:
    with desk(tmp_path, clock, alarm_urls=receiver.alarm_url) as watching:
        for _ in range(10):
            found(watching, alarm())
            pass_s(watching, 20)
        eventually(lambda: len(receiver.received) == 1, what="the alarm")
        pass_s(watching, 31)
        eventually(lambda: len(receiver.received) == 2, what="the recovery message")
        assert receiver.told("ALARM") == receiver.told("OVER") == 1


def test_an_alarm_that_nobody_can_judge_goes_on(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock) as watching:
        found(watching, alarm())
        for _ in range(3):
            clock.jump(60_000)
            found(watching, known=False)
        assert len(watching.book.standing) == 1


def test_a_restart_repeats_nothing_and_still_tells_the_end(
    tmp_path: Path, clock: RunningClock, receiver: Receiver
) -> None:
    with desk(tmp_path, clock, alarm_urls=receiver.alarm_url) as watching:
        found(watching, alarm())
        eventually(lambda: receiver.told("ALARM") == 1, what="the alarm")
        eventually(lambda: rows(tmp_path)[0].sent_ms is not None, what="the row")
    with desk(tmp_path, clock, alarm_urls=receiver.alarm_url) as watching:
        found(watching, alarm(since_ms=1_700_000_900_000), alarm("market"))
        eventually(lambda: receiver.told("ALARM market") == 1, what="another alarm")
        assert receiver.told("ALARM clock") == 1
        assert {kept.since_ms for kept in watching.book.standing if kept.name == "clock"} == {1_700_000_000_000}
    with desk(tmp_path, clock, alarm_urls=receiver.alarm_url) as watching:
        pass_s(watching, 31, alarm("market"))
        eventually(lambda: receiver.told("OVER clock") == 1, what="the recovery message")
    with desk(tmp_path, clock, alarm_urls=receiver.alarm_url) as watching:
        found(watching, alarm("market"), alarm("store"))
        eventually(lambda: receiver.told("ALARM store") == 1, what="a third alarm")
        assert receiver.told("OVER") == receiver.told("ALARM clock") == receiver.told("ALARM market") == 1


def test_what_nobody_accepted_before_a_restart_is_told_after_it(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock, alarm_urls=f"json://127.0.0.1:{free_port()}") as watching:
        found(watching, alarm())
        eventually(lambda: bool(watching.book.fault), what="the fault")
    with receiving() as receiver, desk(tmp_path, clock, alarm_urls=receiver.alarm_url) as watching:
        found(watching, alarm())
        eventually(lambda: receiver.told("ALARM clock") == 1, what="the alarm")


def test_many_alarms_at_once_are_one_notification(tmp_path: Path, clock: RunningClock, receiver: Receiver) -> None:
    with desk(tmp_path, clock, alarm_urls=receiver.alarm_url) as watching:
        found(watching, *(alarm("topic", f"allora/{number}") for number in range(55)))
        eventually(lambda: bool(receiver.received), what="the notification")
        found(watching, *(alarm("topic", f"allora/{number}") for number in range(55)))
        assert receiver.told("ALARM topic") == 10
        assert receiver.told("and 45 more: see the status page") == 1
        assert len(receiver.received) == 1


def test_an_address_that_fails_is_tried_again_and_keeps_no_other_waiting(
    tmp_path: Path, clock: RunningClock, receiver: Receiver
) -> None:
    with receiving() as broken:
        broken.status = 500
        urls = f"{broken.alarm_url},{receiver.alarm_url}"
        with desk(tmp_path, clock, alarm_urls=urls) as watching, capture_logs() as logged:
            found(watching, alarm())
            eventually(lambda: receiver.told("ALARM") == 1, what="the alarm at the other address")
            eventually(lambda: bool(watching.book.fault), what="the fault")
            fault = "alarms cannot be sent to entry 1 of ALARM_URLS (json): status 500; tried 1 times"
            assert watching.book.fault == fault
            broken.status = 200
            eventually(lambda: broken.told("ALARM") == 1, 20, "the alarm after a pause")
            eventually(lambda: watching.book.fault == "", what="no fault")
            found(watching, alarm())
            assert receiver.told("ALARM") == 1
        assert [line["event"] for line in logged if "not_sent" in line["event"]] == ["alarm_not_sent"]
        assert "SECRET" not in str(logged)


def test_an_address_that_hangs_holds_nothing_up_and_ends_with_the_monitor(
    tmp_path: Path, clock: RunningClock, receiver: Receiver
) -> None:
    with receiving() as hanging:
        hanging.holding = threading.Event()
        with desk(tmp_path, clock, alarm_urls=f"{hanging.alarm_url},{receiver.alarm_url}") as watching:
            found(watching, alarm())
            eventually(lambda: hanging.attempts == 1, what="the notification that hangs")
            eventually(lambda: receiver.told("ALARM clock") == 1, what="the other address")
            found(watching, alarm(), alarm("market"))
            eventually(lambda: receiver.told("ALARM market") == 1, what="another alarm")


def test_a_wrong_entry_is_named_by_position_and_scheme_alone(
    tmp_path: Path, clock: RunningClock, receiver: Receiver
) -> None:
    urls = f"nosuch://SECRET4, {receiver.alarm_url}, tgram://SECRET5"
    with capture_logs() as logged, desk(tmp_path, clock, alarm_urls=urls) as watching:
        eventually(lambda: len([line for line in logged if line["event"] == "alarm_url_wrong"]) == 2, what="the lines")
        found(watching, alarm())
        eventually(lambda: receiver.told("ALARM") == 1, what="the alarm")
        entries = {line["entry"] for line in logged if line["event"] == "alarm_url_wrong"}
        assert entries == {"entry 1 of ALARM_URLS (nosuch)", "entry 3 of ALARM_URLS (tgram)"}
        assert "entry 1 of ALARM_URLS (nosuch) is no address" in watching.book.fault
        assert "SECRET" not in str(logged) + watching.book.fault


def test_an_alarm_that_came_and_went_while_nobody_could_be_told_is_one_message(
    tmp_path: Path, clock: RunningClock, receiver: Receiver
) -> None:
    receiver.status = 503
    with desk(tmp_path, clock, alarm_urls=receiver.alarm_url) as watching:
        found(watching, alarm())
        eventually(lambda: receiver.attempts == 1, what="the attempt")
        pass_s(watching, 31)
        receiver.status = 200
        eventually(lambda: receiver.told("OVER clock") == 1, 20, "the message")
        assert receiver.told("ALARM") == 0


@pytest.mark.parametrize("how", ["missing", "damaged", "without the table"])
def test_a_database_that_cannot_be_used_costs_only_the_memory_of_a_restart(
    tmp_path: Path, clock: RunningClock, receiver: Receiver, how: str
) -> None:
    file = tmp_path / "ledger.sqlite3"
    with desk(tmp_path, clock, alarm_urls=receiver.alarm_url) as watching:
        good = file.read_bytes()
        for left in tmp_path.glob("ledger.sqlite3*"):
            left.unlink()
        if how == "damaged":
            file.write_bytes(b"no database at all, but long enough to be one" * 100)
        elif how != "missing":
            sqlite3.connect(file).close()
            file.write_bytes(b"")
        found(watching, alarm())
        assert watching.book.database_fault
        assert not receiver.received, "it may have been told before"
        clock.jump(31_000)
        found(watching, alarm())
        eventually(lambda: receiver.told("ALARM clock") == 1, what="the alarm")
        file.write_bytes(good)
        found(watching, alarm(), alarm("market"))
        assert watching.book.database_fault == ""
        eventually(lambda: {kept.name for kept in rows(tmp_path)} == {"clock", "market"}, what="the rows")
        assert receiver.told("ALARM clock") == 1


def test_without_addresses_alarms_are_kept_for_the_page(tmp_path: Path, clock: RunningClock) -> None:
    with desk(tmp_path, clock) as watching:
        found(watching, alarm())
        assert [kept.name for kept in watching.book.standing] == ["clock"]
        assert [kept.sent_ms for kept in rows(tmp_path)] == [None]
        assert watching.book.fault == ""


def test_a_driver_that_is_not_installed_is_one_line_without_the_password() -> None:
    with pytest.raises(ConfigError, match="pg8000 is not installed") as caught:
        AlarmBook("postgresql+pg8000://me:secret@127.0.0.1/a", [], SystemClock())
    assert "secret" not in str(caught.value)
