"""Recorded klines, played: shifted by whole weeks, holes and all, and gone on with after a restart."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from exchange.sources.replay import WEEK_MS, Replay
from klines.klines import COLUMNS
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines, write_klines

NOW_MS = START_MS + 1_000 * DAY_MS + 12_345
HOLE_MS = START_MS + 10 * DAY_MS  # an hour without minutes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty days of minutes with a hole of an hour in two files, and hours that begin earlier, without trades."""
    folder = tmp_path / "klines"
    minutes = random_walk_klines(20 * 1_440)
    for span in ((0, HOLE_MS), (HOLE_MS + HOUR_MS, 2**62)):
        write_klines(folder, "ETHUSDT", minutes.between(*span))
    write_klines(folder, "BNBUSDT", random_walk_klines(20 * 96, interval_ms=15 * MINUTE_MS))
    write_klines(folder, "ETHUSDT", random_walk_klines(30 * 24, HOUR_MS, start_ms=START_MS - 10 * DAY_MS))
    (hours,) = folder.glob("ETHUSDT-1h-*")
    unknown = {"trades": pl.lit(None, pl.Int64), "taker_buy_quote": pl.lit(None, pl.Float64)}
    pl.read_parquet(hours).with_columns(**unknown).write_parquet(hours)
    (folder / "README.md").write_text("not klines")
    return folder


def unshifted(folder: Path) -> Replay:
    return Replay(folder, Replay.open(folder, NOW_MS).recorded, 0)


def test_files_of_one_series_are_joined_and_shifted_alike_with_their_holes(folder: Path) -> None:
    replay = Replay.open(folder, NOW_MS)
    assert list(replay.symbols) == ["BNBUSDT", "ETHUSDT"]
    assert replay.shift_ms % WEEK_MS == 0
    minutes = replay.klines("ETHUSDT", MINUTE_MS, 0, 2**62)
    recorded = random_walk_klines(20 * 1_440)
    assert list(minutes.gaps()) == [(HOLE_MS + replay.shift_ms, HOLE_MS + HOUR_MS + replay.shift_ms)]
    np.testing.assert_array_equal(minutes.close[:100], recorded.close[:100])
    assert minutes.open_time_ms[0] == START_MS + replay.shift_ms
    hours = replay.klines("ETHUSDT", HOUR_MS, 0, 2**62)
    assert hours.open_time_ms[0] == START_MS - 10 * DAY_MS + replay.shift_ms == replay.symbols["ETHUSDT"].first_ms
    assert np.isnan(hours.trades).all()
    assert np.isnan(hours.taker_buy_quote).all()


def test_an_interval_without_a_file_is_made_of_the_shortest(folder: Path) -> None:
    replay = unshifted(folder)
    recorded = random_walk_klines(20 * 1_440)
    five = replay.klines("ETHUSDT", 5 * MINUTE_MS, START_MS + 1, START_MS + HOUR_MS)
    np.testing.assert_array_equal(
        five.close, recorded.resample(5 * MINUTE_MS).between(START_MS + 1, START_MS + HOUR_MS).close
    )
    assert len(replay.klines("BNBUSDT", MINUTE_MS, 0, 2**62)) == 0, "minutes cannot be made of quarters of an hour"
    assert len(replay.klines("BNBUSDT", HOUR_MS, 0, 2**62)) == 20 * 24


@pytest.mark.parametrize("symbols", [None, ["BNBUSDT"], ["ETHUSDT"]], ids=["all", "no minutes", "one"])
def test_now_lies_a_week_or_two_before_the_end(folder: Path, symbols: list[str] | None) -> None:
    for late_days in range(0, 15, 2):
        now_ms = NOW_MS + late_days * DAY_MS
        replay = Replay.open(folder, now_ms, symbols=symbols)
        assert 7 * DAY_MS <= replay.end_ms - now_ms < 14 * DAY_MS
        assert replay.at(now_ms) is replay


def test_a_restart_goes_on_with_the_same_replay(folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    first = Replay.open(folder, NOW_MS, state=state)
    again = Replay.open(folder, first.end_ms - DAY_MS, state=state)
    assert again.shift_ms == first.shift_ms
    assert "continues" in again.note
    fresh = Replay.open(folder, first.end_ms - DAY_MS)
    assert fresh.shift_ms != first.shift_ms, "without the state it would have been another one"


def test_a_replay_that_has_run_out_starts_over_and_says_so(folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    first = Replay.open(folder, NOW_MS, state=state)
    assert first.at(first.end_ms - 1) is first
    for over in (Replay.open(folder, first.end_ms, state=state), first.at(first.end_ms)):
        assert "had run out at 20" in over.note
        assert "starts over" in over.note
        assert over.end_ms - first.end_ms in {7 * DAY_MS, 14 * DAY_MS}
        assert json.loads(state.read_text())["shift_ms"] == over.shift_ms


def test_a_state_of_another_folder_is_not_gone_on_with(folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"folder": "/elsewhere", "shift_ms": 99 * WEEK_MS}))
    assert "starts anew" in Replay.open(folder, NOW_MS, state=state).note
    assert json.loads(state.read_text())["folder"] == str(folder.resolve())


def empty(folder: Path) -> None:
    for path in folder.glob("*.parquet"):
        path.unlink()


def torn(folder: Path) -> None:
    (folder / "ETHUSDT-1m-20231205-20231206.parquet").write_bytes(b"PAR1 and then nothing")


def upside_down(folder: Path) -> None:
    klines = random_walk_klines(3, start_ms=START_MS + 40 * DAY_MS)
    frame = pl.DataFrame({"open_time": klines.open_time_ms} | {c: getattr(klines, c) for c in COLUMNS})
    frame.with_columns(low=pl.col("high") * 2).write_parquet(folder / "ETHUSDT-1m-20231225-20231225.parquet")


@pytest.mark.parametrize(
    ("spoil", "symbols", "message"),
    [
        pytest.param(empty, None, "no klines; needs files SYMBOL-INTERVAL", id="no files"),
        pytest.param(lambda _: None, ["ETHUSDT", "XRPUSDT"], "no klines of XRPUSDT", id="symbol without file"),
        pytest.param(torn, None, "20231206.parquet: .*; remove it", id="torn file"),
        pytest.param(upside_down, None, "20231225.parquet: low is above", id="not klines"),
    ],
)
def test_a_folder_that_cannot_be_played_is_refused(
    folder: Path, spoil: Callable[[Path], None], symbols: list[str] | None, message: str
) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=message) as caught:
        Replay.open(folder, NOW_MS, symbols=symbols)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("not json", id="no JSON"),
        pytest.param("[]", id="a list"),
        pytest.param('{"folder": "x"}', id="no shift"),
        pytest.param('{"folder": "x", "shift_ms": 1}', id="no whole weeks"),
    ],
)
def test_a_file_that_is_no_state_is_left_alone(folder: Path, tmp_path: Path, text: str) -> None:
    state = tmp_path / "state.json"
    state.write_text(text)
    with pytest.raises(ConfigError, match=r"not a replay's state .* delete it or name another"):
        Replay.open(folder, NOW_MS, state=state)
    assert state.read_text() == text


def test_a_state_that_cannot_be_written_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        Replay.open(folder, NOW_MS, state=tmp_path / "absent" / "state.json")


def test_the_market_stands_still_in_a_hole(folder: Path) -> None:
    replay = unshifted(folder)
    last = replay.klines("ETHUSDT", MINUTE_MS, HOLE_MS - MINUTE_MS, HOLE_MS)
    assert replay.price_at("ETHUSDT", HOLE_MS + 10 * MINUTE_MS) == last.close[0]
    assert len(replay.unfinished("ETHUSDT", MINUTE_MS, HOLE_MS + 10 * MINUTE_MS)) == 0
    assert replay.price_at("ETHUSDT", START_MS - DAY_MS) is None


def test_the_real_klines_are_played_as_they_are(shared_data: Path) -> None:
    replay = Replay.open(shared_data / "spot", NOW_MS)
    assert list(replay.symbols) == ["ARBUSDT", "BNBUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT"]
    path = shared_data / "spot" / "SOLUSDT-1m-20221106-20221112.parquet"
    frame = pl.read_parquet(path)
    start_ms = int(frame["open_time"][0]) + replay.shift_ms
    klines = replay.klines("SOLUSDT", MINUTE_MS, start_ms, start_ms + WEEK_MS)
    np.testing.assert_array_equal(klines.open_time_ms, frame["open_time"].to_numpy() + replay.shift_ms)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(klines, name), frame[name].to_numpy(), err_msg=name)
    assert [replay.symbols[symbol].decimals for symbol in ("BTCUSDT", "ARBUSDT")] == [2, 4]
    # The hour that is open now is made of minutes; once closed it is the file's own.
    now_ms = NOW_MS // HOUR_MS * HOUR_MS
    last = replay.unfinished("BTCUSDT", HOUR_MS, now_ms + HOUR_MS - 1)
    closed = replay.klines("BTCUSDT", HOUR_MS, now_ms, now_ms + HOUR_MS)
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(last, name), getattr(closed, name), rtol=1e-12, err_msg=name)
