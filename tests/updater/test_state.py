"""updater.json: what is written is read again, failures are counted, and no broken file stops a start."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import MINUTE_MS, SystemClock
from tests.fakes.clock import START_MS, FakeClock
from updater import probe
from updater.state import FILE, Outcome, PanelState, SeriesState, StateFile, Verdict, read_state, retry_after_min

VERDICT = Verdict(
    topic="allora-testnet-1/1", symbol="ETHUSDT", head="return-10m", loss="mse", rows=9, challenger=1e-6, naive=1e-6,
    promoted=True, reason="no worse than naive",
)  # fmt: skip


def outcome(*, ok: bool = True, missing: dict[str, str] | None = None) -> Outcome:
    return Outcome(panel="minute", ok=ok, finished_ms=START_MS, took_s=1.0, verdicts=(VERDICT,), missing=missing or {})


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = StateFile(tmp_path, FakeClock(), ["minute", "hour"])
    file.replace_series({"ETHUSDT-1m": SeriesState(synced_ms=1, fetched_rows=2, newest_ms=3, gaps=0)})
    file.update_panel("minute", progress="epoch 1 of 2")
    file.finish(outcome())
    assert read_state(tmp_path) == file.current
    assert file.panel("minute").outcome == outcome()
    assert file.panel("hour") == PanelState()


def test_a_file_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    StateFile(tmp_path, FakeClock(), ["minute"]).replace_series(
        {"ETHUSDT-1m": SeriesState(synced_ms=1, fetched_rows=2, newest_ms=3, gaps=0, rejected="2 rows rejected")}
    )
    path = tmp_path / FILE
    path.write_text(path.read_text().replace('"rejected":', '"refused":'))
    state = read_state(tmp_path)
    assert state
    assert state.series["ETHUSDT-1m"].rejected == "2 rows rejected"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"heartbeat_ms": 1', id="cut off"),
        pytest.param(b'{"schema_version": 3}', id="another schema"),
        pytest.param(b'{"surprise": 1}', id="unknown field"),
        pytest.param(b"\xff\xfe", id="no text"),
    ],
)
def test_an_unreadable_file_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert read_state(tmp_path) is None
    StateFile(tmp_path, FakeClock(), ["minute"])
    assert read_state(tmp_path) is not None


def test_failures_back_off_until_a_success(tmp_path: Path) -> None:
    clock = FakeClock()
    file = StateFile(tmp_path, clock, ["minute"])
    waits_min = []
    for _ in range(8):
        after = file.finish(outcome(ok=False))
        assert after.next_try_ms is not None
        waits_min.append((after.next_try_ms - clock.now_ms()) // MINUTE_MS)
    assert waits_min == [1, 2, 4, 8, 16, 32, 60, 60]
    assert file.panel("minute").failures == 8
    left_out = file.finish(outcome(missing={"SOLUSDT": "no klines"}))
    assert left_out.failures == 9, "published, but a symbol was left out: to be tried again"
    after = file.finish(outcome())
    assert (after.failures, after.next_try_ms) == (0, None)


def test_failures_outlive_a_restart_and_what_was_running_does_not(tmp_path: Path) -> None:
    first = StateFile(tmp_path, FakeClock(), ["minute", "hour"])
    first.finish(outcome(ok=False))
    first.update_panel("minute", running_since_ms=5, progress="epoch 3 of 9")
    second = StateFile(tmp_path, FakeClock(START_MS + 7), ["minute"])
    panel = second.panel("minute")
    assert (panel.failures, panel.running_since_ms, panel.progress) == (1, None, "")
    assert second.current.panels.keys() == {"minute"}
    assert second.current.heartbeat_ms == START_MS + 7


def test_a_disk_that_refuses_does_not_end_the_updater(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    file = StateFile(folder, FakeClock(), ["minute"])
    (folder / FILE).unlink()
    folder.rmdir()
    assert file.update_panel("minute", progress="on and on").progress == "on and on"


@given(st.integers(1, 10_000))
def test_waits_stay_within_an_hour(failures: int) -> None:
    assert 1 <= retry_after_min(failures) <= retry_after_min(failures + 1) <= 60


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        pytest.param(json.dumps({"heartbeat_ms": 2**61}).encode(), 1, "s in the future", id="before a clock set back"),
        pytest.param(b'{"heartbeat_ms": 1}', 1, "the last heartbeat is", id="old"),
        pytest.param(None, 1, "is the updater running", id="none"),
        pytest.param(b"[]", 1, "cannot be read", id="no object"),
    ],
)
def test_the_probe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, status: int, said: str
) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    assert probe.main(["--data-dir", str(tmp_path)]) == status
    assert said in capsys.readouterr().out


def test_the_probe_reads_what_the_updater_writes(tmp_path: Path) -> None:
    StateFile(tmp_path, FakeClock(), [])
    assert probe.check(tmp_path, 90, START_MS + 89_000) == ""
    assert "91 s old" in probe.check(tmp_path, 90, START_MS + 91_000)
    assert probe.check(tmp_path, 90, START_MS - 59_000) == "", "clocks differ a little"
    StateFile(tmp_path, SystemClock(), [])
    assert probe.main(["--data-dir", str(tmp_path)]) == 0
