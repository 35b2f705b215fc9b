"""``birnn data export`` and ``import``."""

from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SystemClock
from exchange.sources.replay import Replay
from klines.klines import COLUMNS
from market.store.files.table_files import read_klines, write_klines
from market.store.kline_store import KlineStore
from tests.cli.data.stand import ETH, WALK, at, data, in_another_unit, moved, stored_minutes
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines


@pytest.mark.parametrize("ending", ["csv", "parquet", "zip"])
def test_what_is_exported_is_imported_just_so(tmp_path: Path, store: KlineStore, ending: str) -> None:
    out, other = tmp_path / f"eth.{ending}", tmp_path / "other"
    code, shown, _ = data(tmp_path, "export", "--symbol", "ETHUSDT", "--interval", "1m", "--out", str(out))
    assert (code, shown) == (
        0,
        f"{out}: 3,990 rows of ETHUSDT in 1m, 2023-11-15 00:00 to 2023-11-17 18:40 UTC, 1 gaps\n"
        f"klines: {store.root.parent}\n",
    )
    for counts in ("3,990 new, 0 replaced, 0 the same", "0 new, 0 replaced, 3,990 the same"):
        code, shown, _ = data(other, "import", str(out), "--symbol", "ETHUSDT", "--interval", "1m")
        said = f"{out}: 3,990 rows of ETHUSDT in 1m, {counts}"
        assert (code, shown.splitlines()[0]) == (0, said)
        assert shown.splitlines()[-1] == f"klines: {other / 'klines'}"
    found, taken = (
        one.read("ETHUSDT", MINUTE_MS, 0, 2**62) for one in (store, KlineStore(other / "klines" / "binance"))
    )
    for name in ("open_time_ms", *COLUMNS):
        np.testing.assert_array_equal(getattr(found, name), getattr(taken, name))


def test_an_exported_file_is_imported_and_replayed_as_it_is(tmp_path: Path, store: KlineStore) -> None:
    folder, other = tmp_path / "tape", tmp_path / "other"
    folder.mkdir()
    out = folder / "ETHUSDT-1m-20231115-20231117.parquet"
    assert data(tmp_path, "export", *ETH, "--out", str(out))[0] == 0
    assert data(other, "import", str(out), *ETH)[0] == 0
    expected = store.read("ETHUSDT", MINUTE_MS, 0, 2**62)
    replay = Replay.open(folder, SystemClock().now_ms())
    played = moved(replay.klines("ETHUSDT", MINUTE_MS, 0, 2**62), -replay.shift_ms // MINUTE_MS)
    for found in (stored_minutes(other), played):
        for name in ("open_time_ms", *COLUMNS):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_some_days_are_exported(tmp_path: Path, store: KlineStore) -> None:
    out = tmp_path / "day.parquet"
    series = ["--symbol", "ETHUSDT", "--interval", "1m", "--out", str(out)]
    assert data(tmp_path, "export", *series, "--start", "2023-11-16", "--end", "2023-11-17")[0] == 0
    klines = read_klines(out, MINUTE_MS, SystemClock().now_ms()).klines
    assert (len(klines), klines.open_time_ms[0], klines.end_ms) == (1440, START_MS + DAY_MS, START_MS + 2 * DAY_MS)


def test_rows_that_are_none_are_counted_and_kept_aside(tmp_path: Path) -> None:
    good = random_walk_klines(100)
    path = tmp_path / "some.csv"
    write_klines(path, "ETHUSDT", good)
    lines = path.read_text().splitlines()
    for row in (30, 60):
        cells = lines[row].split(",")
        lines[row] = ",".join([*cells[:4], "-1", *cells[5:]])
    path.write_text("\n".join(lines))
    code, shown, _ = data(tmp_path, "import", str(path), "--symbol", "ETHUSDT", "--interval", "1m")
    assert code == 0
    assert "98 rows of ETHUSDT in 1m, 98 new, 0 replaced, 0 the same; 2 rejected, the first: line 31: " in shown
    assert "column close '-1' must be a number above 0" in shown
    assert len((tmp_path / "klines" / "rejected.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("rows", [slice(50, 51), slice(50, 80), slice(0, 100)])
def test_candles_of_another_unit_are_not_imported(tmp_path: Path, rows: slice) -> None:
    """Among themselves, or beside those that are there: the last ones are all of another unit."""
    path, walk = tmp_path / "some.csv", random_walk_klines(200)
    series = ["--symbol", "ETHUSDT", "--interval", "1m"]
    write_klines(path, "ETHUSDT", walk.tail(100))
    assert data(tmp_path, "import", str(path), *series)[0] == 0
    factor = np.ones(100)
    factor[rows] = 100.0
    first = walk.between(0, int(walk.open_time_ms[100]))
    write_klines(path, "ETHUSDT", in_another_unit(first, factor))
    code, _, said = data(tmp_path, "import", str(path), *series)
    assert code == 1
    assert "some.csv: the close of 2023-11-15T0" in said
    assert "times the one before: another unit or asset?" in said
    assert len(KlineStore(tmp_path / "klines" / "binance").read("ETHUSDT", MINUTE_MS, 0, 2**62)) == 100


@pytest.mark.parametrize(("first", "last"), [(80, 120), (100, 200)])
def test_candles_of_another_unit_are_not_imported_around_stored_ones_or_an_hour_away(
    tmp_path: Path, first: int, last: int
) -> None:
    path, walk = tmp_path / "some.csv", random_walk_klines(300)
    there = walk.rows(first, last)
    KlineStore(tmp_path / "klines" / "binance").append("ETHUSDT", there)
    around = walk.rows(0, first - 30).merge(walk.rows(last + 60, 300))
    write_klines(path, "ETHUSDT", in_another_unit(around))
    code, _, said = data(tmp_path, "import", str(path), *ETH)
    assert (code, "another unit or asset?" in said) == (1, True)
    assert len(KlineStore(tmp_path / "klines" / "binance").read("ETHUSDT", MINUTE_MS, 0, 2**62)) == last - first


def test_a_candle_that_has_not_closed_is_left_out(tmp_path: Path) -> None:
    now_ms = SystemClock().now_ms()
    path = tmp_path / "new.csv"
    write_klines(path, "ETHUSDT", random_walk_klines(24, HOUR_MS, start_ms=now_ms - 23 * HOUR_MS))
    _, shown, _ = data(tmp_path, "import", str(path), "--symbol", "ETHUSDT", "--interval", "1h")
    assert "23 rows of ETHUSDT" in shown
    assert "has not closed" in shown


def test_files_with_other_names_for_columns_and_of_several_kinds_go_in_together(tmp_path: Path) -> None:
    one, two = tmp_path / "one.zip", tmp_path / "two.parquet"
    write_klines(one, "ETHUSDT", WALK.between(0, at(2500)))
    write_klines(two, "ETHUSDT", WALK.between(at(2400), 2**62))
    assert data(tmp_path, "import", str(one), str(two), "--symbol", "ETHUSDT", "--interval", "1m")[0] == 0
    assert len(KlineStore(tmp_path / "klines" / "binance").read("ETHUSDT", MINUTE_MS, 0, 2**62)) == 4000


def test_where_one_file_cannot_be_used_none_is_taken(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    write_klines(good, "ETHUSDT", WALK.between(0, at(2000)))
    write_klines(bad, "ETHUSDT", in_another_unit(WALK.between(at(2000), 2**62)))
    code, _, said = data(tmp_path, "import", str(good), str(bad), *ETH)
    assert code == 1
    assert "another unit or asset?" in said
    assert KlineStore(tmp_path / "klines" / "binance").latest("ETHUSDT", MINUTE_MS) is None


def test_a_symbol_may_be_in_small_letters(tmp_path: Path, store: KlineStore) -> None:
    path = tmp_path / "some.csv"
    code, shown, _ = data(tmp_path, "export", "--symbol", "ethusdt", "--interval", "1m", "--out", str(path))
    assert (code, "rows of ETHUSDT" in shown) == (0, True)
    assert data(tmp_path, "import", str(path), "--symbol", "ethusdt", "--interval", "1m")[0] == 0
    assert data(tmp_path, "verify", "--symbol", "ethusdt")[0] == 0
    assert store.series() == [("BTCUSDT", HOUR_MS), ("ETHUSDT", MINUTE_MS)]


def test_a_series_without_klines_is_not_called_whole(tmp_path: Path, store: KlineStore) -> None:
    (store.root / "SOLUSDT-1m").mkdir()
    shown = data(tmp_path, "gaps", "--symbol", "SOLUSDT")[1]
    assert shown == f"no klines at all: SOLUSDT-1m; run birnn data sync\nklines: {store.root.parent}\n"


def test_a_folder_that_cannot_be_read_is_not_called_empty(tmp_path: Path, store: KlineStore) -> None:
    """A file in its place, for tests may be run by one who may read everything."""
    (store.root / "SOLUSDT-1m").write_text("")
    code, _, said = data(
        tmp_path, "export", "--symbol", "SOLUSDT", "--interval", "1m", "--out", str(tmp_path / "x.csv")
    )
    assert code == 1
    assert "SOLUSDT-1m: Not a directory; check the space, owner and mode of DATA_DIR" in said


def test_while_another_process_writes_nothing_is_imported(tmp_path: Path, store: KlineStore) -> None:
    path = tmp_path / "some.csv"
    write_klines(path, "SOLUSDT", WALK)
    with store.writing():
        for verb in (
            ["import", str(path), "--symbol", "SOLUSDT", "--interval", "1m"],
            ["trim"],
            ["verify", "--repair"],
        ):
            code, _, said = data(tmp_path, *verb)
            assert code == 2
            assert said.startswith("birnn: another process is writing")
    assert store.latest("SOLUSDT", MINUTE_MS) is None
