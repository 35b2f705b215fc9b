"""``birnn data``: its verbs as processes, on a store and against the simulated exchange."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SystemClock
from exchange.server import SimulatedExchange
from klines.klines import COLUMNS, PRICE_COLUMNS, Klines
from market.store.kline_store import KlineStore
from market.store.table_files import read_klines, write_klines
from model.heads import BACKTEST_DAYS, MINUTE, training_start_ms
from research.backtest.walk import SPAN_DAYS
from tests.fakes.clock import START_MS, eventually
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer
from tests.fakes.venue_server import Venue as LoopbackVenue
from tests.terminal import on_terminal

ROOT = Path(__file__).parents[2]
WALK = random_walk_klines(4000)


def at(row: int) -> int:
    return START_MS + row * MINUTE_MS


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "DATA_DIR": str(data_dir),
        "CONFIG_FILE": str(ROOT / "config.example.json"),
        "COLUMNS": "120",
        **more,
    }


def data(data_dir: Path, *arguments: str, **more: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of ``birnn data``, run in this process: a hundred starts take minutes."""
    ran = CliRunner().invoke(app, ["data", *arguments], env=environment(data_dir, **more), prog_name="birnn")
    return ran.exit_code, ran.stdout, ran.stderr


@pytest.fixture
def store(tmp_path: Path) -> KlineStore:
    """With minutes of ETH, one gap in them, and hours of BTC."""
    store = KlineStore(tmp_path / "klines" / "binance")
    store.append("ETHUSDT", WALK.between(0, at(1000)).merge(WALK.between(at(1010), 2**62)))
    store.append("BTCUSDT", random_walk_klines(300, HOUR_MS))
    return store


def in_another_unit(klines: Klines, factor: "float | np.ndarray[tuple[int], np.dtype[np.float64]]" = 100.0) -> Klines:
    """Prices, and what was paid, so many times as large."""
    names = (*PRICE_COLUMNS, "quote_volume", "taker_buy_quote")
    return replace(klines, **{name: getattr(klines, name) * factor for name in names})


def row_of(shown: str, name: str) -> list[str]:
    (line,) = [line for line in shown.splitlines() if line.strip().startswith(name)]
    return re.split(r"\s{2,}", line.strip())


# -- verify and gaps --------------------------------------------------------------------------------------------------


def test_a_sound_store_is_told_as_such(tmp_path: Path, store: KlineStore) -> None:
    code, shown, _ = data(tmp_path, "verify")
    assert code == 0
    assert row_of(shown, "ETHUSDT-1m") == [
        "ETHUSDT-1m", "1", "3,990", "2023-11-15 00:00", "2023-11-17 18:39", "0", "agrees",
    ]  # fmt: skip
    assert row_of(shown, "BTCUSDT-1h")[2] == "300"
    code, shown, _ = data(tmp_path, "verify", "--symbol", "BTCUSDT")
    assert "ETHUSDT" not in shown


def test_damage_is_told_then_set_aside(tmp_path: Path, store: KlineStore) -> None:
    month = store.root / "BTCUSDT-1h" / "2023-11.parquet"
    month.write_bytes(month.read_bytes()[:-10])
    tail = store.root / "tails" / "ETHUSDT-1m.npy"
    table = np.load(tail)
    table[5, 1:5] *= 2
    np.save(tail, table)
    for _ in range(2):
        code, shown, _ = data(tmp_path, "verify")
        assert code == 1
        assert row_of(shown, "BTCUSDT-1h")[-2:] == ["1", "differs"]
        assert row_of(shown, "ETHUSDT-1m")[-2:] == ["0", "differs"]
        assert f"{month}: not a Parquet file that can be read" in shown
        assert "tail of ETHUSDT-1m: 1 rows are not as in the months" in shown
        assert "--repair" in shown
    code, shown, _ = data(tmp_path, "verify", "--repair")
    assert code == 0
    assert re.search(r"set aside: .*BTCUSDT-1h/2023-11\.damaged-[0-9]+", shown)
    assert "birnn data sync" in shown
    code, shown, _ = data(tmp_path, "verify")
    assert code == 0
    assert row_of(shown, "ETHUSDT-1m")[-2:] == ["0", "agrees"]


def test_gaps_are_told_with_what_the_venue_said(tmp_path: Path, store: KlineStore) -> None:
    code, shown, _ = data(tmp_path, "gaps")
    assert code == 0
    assert row_of(shown, "ETHUSDT-1m") == ["ETHUSDT-1m", "2023-11-15 16:40", "2023-11-15 16:50", "10", "not said"]
    store.remember_absent("ETHUSDT", MINUTE_MS, [(at(1000), at(1010))], now_ms=START_MS + DAY_MS)
    _, shown, _ = data(tmp_path, "gaps", "--interval", "1m")
    assert row_of(shown, "ETHUSDT-1m")[-1] == "said so 2023-11-16 00:00"
    refused = {at(1000): "low is above open or close"}
    store.remember_absent("ETHUSDT", MINUTE_MS, [(at(1000), at(1001))], START_MS + DAY_MS, refused)
    told = json.loads(data(tmp_path, "gaps", "--interval", "1m", "--json")[1])["gaps"]
    assert [(one["rows"], one["venue has none"]) for one in told] == [
        (1, "no: refused 2023-11-16 00:00: low is above open or close"),
        (9, "said so 2023-11-16 00:00"),
    ]
    _, shown, _ = data(tmp_path, "verify", "--offline")
    assert (
        "ETHUSDT-1m: 1 row refused, the first of 2023-11-15 16:40Z: low is above open or close (asked for again "
        "by the first sync after 2023-11-17 00:00Z)"
    ) in shown
    assert data(tmp_path, "gaps", "--symbol", "BTCUSDT")[1] == f"no gaps\nklines: {store.root.parent}\n"


# -- export and import ------------------------------------------------------------------------------------------------


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
    both = (store, KlineStore(other / "klines" / "binance"))
    found, taken = (one.read("ETHUSDT", MINUTE_MS, 0, 2**62) for one in both)
    for name in ("open_time_ms", *COLUMNS):
        np.testing.assert_array_equal(getattr(found, name), getattr(taken, name))


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
    assert "98 rows of ETHUSDT in 1m, 98 new, 0 replaced, 0 the same; 2 refused, the first: line 31: " in shown
    assert "column close '-1' must be a number above 0" in shown
    assert len((tmp_path / "klines" / "refused.jsonl").read_text().splitlines()) == 2


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


# -- what an import is held against -----------------------------------------------------------------------------------

MONTH = random_walk_klines(9000)  # six days of minutes
OTHER = random_walk_klines(9000, seed=5)


def stored_minutes(data_dir: Path, symbol: str = "ETHUSDT") -> Klines:
    return KlineStore(data_dir / "klines" / "binance").read(symbol, MINUTE_MS, 0, 2**62)


def moved(klines: Klines, minutes: int) -> Klines:
    return replace(klines, open_time_ms=klines.open_time_ms + minutes * MINUTE_MS)


@pytest.mark.parametrize(
    ("name", "interval", "says"),
    [
        pytest.param("TK0USDT-1m.zip", "1m", "the name says TK0USDT, asked for was TK1USDT in 1m", id="Binance's"),
        pytest.param("TK0USDT-1m-2024-03-14.zip", "1m", "says TK0USDT", id="with a day"),
        pytest.param("tk0usdt_1m.csv", "1m", "says TK0USDT", id="small letters"),
        pytest.param("TK0-USDT.csv", "1m", "says TK0USDT", id="in two words"),
        pytest.param("TK0_USDT-1m.parquet", "1m", "says TK0USDT", id="another program's"),
        pytest.param("TK1BTC-1m.csv", "1m", "says TK1BTC", id="another quote"),
        pytest.param("TK1USDC.csv", "1m", "says TK1USDC", id="another dollar"),
        pytest.param("TK1USDT-1h-2024-03.zip", "1m", "says 1h", id="another interval"),
        pytest.param(
            "TK1USDT-1m-2024-03.zip", "1h", "the name says 1m, asked for was TK1USDT in 1h", id="a longer one"
        ),
        pytest.param("TK1USDT_5min.csv", "1m", "says 5m", id="an interval in letters"),
        pytest.param("klines 1d.csv", "1m", "says 1d", id="an interval alone"),
        pytest.param("TK1USDT-1m-2024-03.zip", "1m", "", id="right"),
        pytest.param("tk1_usdt 60m.csv", "1h", "", id="right in other words"),
        pytest.param("eth.csv", "1m", "", id="nothing said"),
        pytest.param("last 90d of my backtest.csv", "1m", "", id="a span"),
        pytest.param("old_eth.csv", "1m", "", id="words"),
        pytest.param("2024-03.csv", "1m", "", id="a month"),
    ],
)
def test_a_name_that_says_another_series_is_refused(tmp_path: Path, name: str, interval: str, says: str) -> None:
    path = tmp_path / name
    # The archive's own minutes where hours are asked for: no row of them would fit.
    is_of_minutes = interval == "1m" or name == "TK1USDT-1m-2024-03.zip"
    write_klines(path, "TK1USDT", random_walk_klines(100, MINUTE_MS if is_of_minutes else HOUR_MS))
    series = ["--symbol", "TK1USDT", "--interval", interval]
    code, shown, said = data(tmp_path, "import", str(path), *series)
    if not says:
        assert (code, "100 new, 0 replaced, 0 the same" in shown) == (0, True), said
        return
    assert (code, len(said.splitlines())) == (2, 1)
    assert str(path) in said
    assert says in said
    assert not len(stored_minutes(tmp_path, "TK1USDT"))
    if is_of_minutes and interval == "1h":
        return
    code, shown, _ = data(tmp_path, "import", str(path), *series, "--force")
    assert (code, "100 new, 0 replaced, 0 the same" in shown) == (0, True)


def test_the_name_in_a_zip_and_a_column_for_symbols_are_looked_at(tmp_path: Path) -> None:
    write_klines(tmp_path / "TK0USDT-1m.zip", "TK0USDT", MONTH)
    (tmp_path / "TK0USDT-1m.zip").rename(tmp_path / "mine.zip")
    code, _, said = data(tmp_path, "import", str(tmp_path / "mine.zip"), *ETH)
    assert (code, "mine.zip: TK0USDT-1m.csv in it: the name says TK0USDT" in said) == (2, True)
    write_klines(tmp_path / "mine.csv", "TK0USDT", WALK)
    lines = (tmp_path / "mine.csv").read_text().splitlines()
    lines = [f"{lines[0]},Symbol", *(f"{line},TK0/USDT" for line in lines[1:])]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    code, _, said = data(tmp_path, "import", str(tmp_path / "mine.csv"), *ETH)
    assert (code, "mine.csv: has rows of TK0/USDT, asked for was ETHUSDT in 1m" in said) == (2, True)


def test_the_candles_of_another_symbol_do_not_replace_right_ones(tmp_path: Path) -> None:
    """The very case: 8,640 minutes of one token in the place of another's, whose prices are near each other."""
    KlineStore(tmp_path / "klines" / "binance").append("ETHUSDT", MONTH)
    path = tmp_path / "mine.csv"
    write_klines(path, "BTCUSDT", OTHER.rows(100, 8740))
    code, shown, said = data(tmp_path, "import", str(path), *ETH)
    assert (code, shown, len(said.splitlines())) == (1, "", 1)
    assert "8,640 of 8,640 rows that are stored already differ, such as 2023-11-1" in said
    assert re.search(r"close [0-9.]+ in the file, [0-9.]+ stored; no shift of time makes them fit; the store", said)
    assert f"; the store is {tmp_path / 'klines'}; --force takes" in said
    np.testing.assert_array_equal(stored_minutes(tmp_path).close, MONTH.close)
    code, shown, _ = data(tmp_path, "import", str(path), *ETH, "--force")
    assert (code, "8,640 rows of ETHUSDT in 1m, 0 new, 8,640 replaced, 0 the same" in shown) == (0, True)
    np.testing.assert_array_equal(stored_minutes(tmp_path).close[100:8740], OTHER.close[100:8740])


@pytest.mark.parametrize("minutes", [-1, 1, 60, -480, 330, 840])
def test_the_shift_that_would_fit_is_named(tmp_path: Path, minutes: int) -> None:
    KlineStore(tmp_path / "klines" / "binance").append("ETHUSDT", MONTH)
    path = tmp_path / "mine.parquet"
    write_klines(path, "ETHUSDT", moved(MONTH.rows(1500, 4500), minutes))
    code, _, said = data(tmp_path, "import", str(path), *ETH)
    assert code == 1
    assert f"they fit those that are stored when moved by {-minutes:+d} minutes: is the file in UTC?" in said


def test_a_shift_is_named_where_no_row_lies_over_a_stored_one(tmp_path: Path) -> None:
    KlineStore(tmp_path / "klines" / "binance").append("ETHUSDT", MONTH)
    path = tmp_path / "mine.csv"
    write_klines(path, "ETHUSDT", moved(MONTH.tail(400), 480))
    code, _, said = data(tmp_path, "import", str(path), *ETH)
    assert (code, "when moved by -480 minutes" in said) == (1, True)


def test_hours_of_another_zone_are_told(tmp_path: Path) -> None:
    hours = random_walk_klines(300, HOUR_MS)
    KlineStore(tmp_path / "klines" / "binance").append("ETHUSDT", hours)
    path = tmp_path / "mine.csv"
    write_klines(path, "ETHUSDT", moved(hours.rows(50, 250), 9 * 60))
    code, _, said = data(tmp_path, "import", str(path), "--symbol", "ETHUSDT", "--interval", "1h")
    assert (code, "when moved by -540 minutes" in said) == (1, True)


def test_a_month_of_something_else_among_right_ones_is_refused(tmp_path: Path) -> None:
    """Three days of a month that is over, in a file of which most is right."""
    long, other = random_walk_klines(30_000), random_walk_klines(30_000, seed=9)
    KlineStore(tmp_path / "klines" / "binance").append("ETHUSDT", long)
    turn = int(np.searchsorted(long.open_time_ms, START_MS // DAY_MS * DAY_MS + 16 * DAY_MS))  # 2023-12-01
    path = tmp_path / "mine.parquet"
    write_klines(path, "ETHUSDT", long.rows(0, turn).merge(other.rows(turn, 30_000)))
    code, _, said = data(tmp_path, "import", str(path), *ETH)
    assert (code, "rows that are stored already of 2023-12 differ" in said) == (1, True)


def test_a_correction_is_taken_and_counted(tmp_path: Path) -> None:
    KlineStore(tmp_path / "klines" / "binance").append("ETHUSDT", MONTH.rows(0, 8000))
    corrected = MONTH.rows(7000, 9000)
    close = corrected.close.copy()
    close[10:110] = (corrected.low * 0.4 + corrected.high * 0.6)[10:110]
    path, more = tmp_path / "mine.parquet", tmp_path / "more.csv"
    write_klines(path, "ETHUSDT", replace(corrected, close=close))
    write_klines(more, "ETHUSDT", MONTH.rows(6900, 7005))
    code, shown, _ = data(tmp_path, "import", str(path), str(more), *ETH)
    assert code == 0
    lines = shown.splitlines()
    assert lines[0] == f"{path}: 2,000 rows of ETHUSDT in 1m, 1,000 new, 100 replaced, 900 the same"
    assert lines[1] == f"{more}: 105 rows of ETHUSDT in 1m, 0 new, 0 replaced, 105 the same"
    assert lines[2] == "together: 1,000 new, 100 replaced, 1,005 the same"


def test_a_file_without_flows_leaves_those_that_are_stored(tmp_path: Path) -> None:
    KlineStore(tmp_path / "klines" / "binance").append("ETHUSDT", WALK)
    path = tmp_path / "mine.csv"
    columns = ("open_time_ms", *PRICE_COLUMNS, "volume")
    rows = zip(*(getattr(WALK, name).tolist() for name in columns), strict=True)
    path.write_text("\n".join(",".join(map(repr, row)) for row in rows))
    code, shown, _ = data(tmp_path, "import", str(path), *ETH)
    assert (code, "0 new, 0 replaced, 4,000 the same" in shown) == (0, True)
    np.testing.assert_array_equal(stored_minutes(tmp_path).taker_buy_base, WALK.taker_buy_base)


def test_files_are_held_against_each_other(tmp_path: Path) -> None:
    write_klines(tmp_path / "one.csv", "ETHUSDT", MONTH)
    write_klines(tmp_path / "two.csv", "ETHUSDT", OTHER)
    code, _, said = data(tmp_path, "import", str(tmp_path / "one.csv"), str(tmp_path / "two.csv"), *ETH)
    assert (code, "two.csv: 9,000 of 9,000 rows" in said) == (1, True)
    assert not len(stored_minutes(tmp_path))


@pytest.fixture
def listed() -> Iterator[LoopbackVenue]:
    """A venue that has the six days of minutes, and their days."""
    with LoopbackVenue().running() as venue:
        venue.series["ETHUSDT", "1m"] = as_told(MONTH)
        venue.series["ETHUSDT", "1d"] = as_told(MONTH.resample(DAY_MS))
        yield venue


def as_told(klines: Klines) -> Klines:
    """With the eight decimals of a venue."""
    return replace(klines, **{name: np.round(getattr(klines, name), 8) for name in COLUMNS})


def at_venue(venue: LoopbackVenue) -> dict[str, str]:
    return {"MARKET": "binance", "BINANCE_REST_URLS": venue.url, "BINANCE_ARCHIVE_URL": "", "MARKET_VENUES": "binance"}


def test_a_venue_that_has_other_candles_stops_an_import(tmp_path: Path, listed: LoopbackVenue) -> None:
    path = tmp_path / "mine.csv"
    write_klines(path, "BTCUSDT", OTHER)
    code, _, said = data(tmp_path, "import", str(path), *ETH, **at_venue(listed))
    assert (code, len(said.splitlines())) == (1, 1)
    assert re.search(
        r"mine\.csv: 8 of 8 rows compared with binance differ, such as 2023-11-.*: close [0-9.]+ in the", said
    )
    assert re.search(r"in the file, [0-9.]+ at binance; the store is [^ ]+/klines; --force takes", said)
    assert not len(stored_minutes(tmp_path))
    assert data(tmp_path, "import", str(path), *ETH, "--force", **at_venue(listed))[0] == 0


def test_a_venue_that_has_the_same_is_said(tmp_path: Path, listed: LoopbackVenue) -> None:
    path = tmp_path / "mine.csv"
    write_klines(path, "ETHUSDT", MONTH)
    code, shown, _ = data(tmp_path, "import", str(path), *ETH, **at_venue(listed))
    assert (code, shown.splitlines()[-2]) == (0, "8 of 8 rows compared are as binance has them")
    asked = len(listed.requests)
    code, shown, _ = data(tmp_path, "import", str(path), *ETH, **at_venue(listed))
    assert (code, "0 new, 0 replaced, 9,000 the same\n" in shown) == (0, True)
    assert len(listed.requests) == asked  # nothing would change, so there is nothing to ask about


@pytest.mark.parametrize("lists", [True, False], ids=["candles of other times alone", "another symbol alone"])
def test_a_venue_without_these_candles_is_no_hindrance(tmp_path: Path, listed: LoopbackVenue, lists: bool) -> None:
    path = tmp_path / "mine.csv"
    write_klines(path, "X", moved(MONTH, -60 * 24 * 60))
    series = ["--symbol", "ETHUSDT" if lists else "OLDUSDT", "--interval", "1m"]
    code, shown, _ = data(tmp_path, "import", str(path), *series, **at_venue(listed))
    assert (code, "9,000 new" in shown) == (0, True)
    assert "not compared with a venue: binance " in shown


def test_a_venue_that_does_not_answer_is_no_hindrance(tmp_path: Path, listed: LoopbackVenue) -> None:
    never = threading.Event()
    listed.handler = lambda *_: Answer(wait_for=never)
    path = tmp_path / "mine.csv"
    write_klines(path, "ETHUSDT", MONTH)
    try:
        code, shown, _ = data(tmp_path, "import", str(path), *ETH, **at_venue(listed))
    finally:
        never.set()
    assert (code, "9,000 new" in shown) == (0, True)
    assert "not compared with a venue: " in shown
    assert len(stored_minutes(tmp_path)) == 9000


def test_days_of_another_symbol_are_found_and_fetched_anew(tmp_path: Path, listed: LoopbackVenue) -> None:
    """What the very case left behind, before imports were held against anything."""
    store = KlineStore(tmp_path / "klines" / "binance")
    store.append("ETHUSDT", MONTH)
    first = START_MS // DAY_MS * DAY_MS + 2 * DAY_MS
    wrong = random_walk_klines(1440, seed=3, start_ms=first, first=1000.0)
    code, shown, _ = data(tmp_path, "verify", **at_venue(listed))
    assert (code, "days of ETHUSDT-1m: 6 days compared are as binance has them" in shown) == (0, True)
    store.append("ETHUSDT", wrong)
    assert data(tmp_path, "verify", "--offline", **at_venue(listed))[0] == 0
    code, shown, _ = data(tmp_path, "verify", **at_venue(listed))
    assert code == 1
    assert "days of ETHUSDT-1m: 1 of 6 days compared with binance are of something else, the first 2023-11-17" in shown
    assert "--repair" in shown
    code, shown, _ = data(tmp_path, "verify", "--repair", **at_venue(listed))
    assert (code, "taken out: 1,440 klines of ETHUSDT-1m in 1 days" in shown) == (0, True)
    np.testing.assert_array_equal(
        stored_minutes(tmp_path).open_time_ms, np.setdiff1d(MONTH.open_time_ms, wrong.open_time_ms)
    )
    assert data(tmp_path, "verify", **at_venue(listed))[0] == 0


# -- trim -------------------------------------------------------------------------------------------------------------


def test_the_margin_covers_what_a_backtest_walks_over() -> None:
    assert BACKTEST_DAYS > SPAN_DAYS


@pytest.mark.parametrize("keep_days", [None, 40])
def test_months_that_nothing_reads_are_deleted(tmp_path: Path, keep_days: int | None) -> None:
    now_ms = SystemClock().now_ms()
    store = KlineStore(tmp_path / "klines" / "binance")
    days = 200
    sparse = random_walk_klines(days, DAY_MS, start_ms=now_ms - days * DAY_MS)
    minutes = Klines(
        interval_ms=MINUTE_MS, open_time_ms=sparse.open_time_ms, **{n: getattr(sparse, n) for n in COLUMNS}
    )
    store.append("ETHUSDT", minutes)
    store.append("ETHUSDT", sparse)
    arguments = ["--keep-days", str(keep_days), "--interval", "1m"] if keep_days else []
    code, shown, _ = data(tmp_path, "trim", *arguments, TRAINING_DAYS="30")
    assert code == 0
    oldest_ms = now_ms - 40 * DAY_MS if keep_days else training_start_ms(MINUTE, 30, now_ms) - BACKTEST_DAYS * DAY_MS
    first_ms = store.first("ETHUSDT", MINUTE_MS)
    assert first_ms is not None
    assert oldest_ms - 31 * DAY_MS < first_ms <= oldest_ms
    assert "ETHUSDT-1m: deleted 20" in shown
    assert len(store.read("ETHUSDT", DAY_MS, 0, 2**62)) == days  # no training reads days: they are nobody's to delete
    assert data(tmp_path, "trim", *arguments, TRAINING_DAYS="30")[1].startswith("nothing is old enough to be deleted\n")


# -- sync -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def venue() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(seed=1, clock=SystemClock()) as exchange:
        yield exchange


def of(venue: SimulatedExchange) -> dict[str, str]:
    """The venue as if it were Binance: the sync is to use it as it is."""
    return {
        "MARKET": "binance",
        "BINANCE_REST_URLS": venue.url,
        "BINANCE_ARCHIVE_URL": venue.url,
        "MARKET_VENUES": "binance",
        "LOG_LEVEL": "error",
    }


def test_sync_fetches_what_the_topics_need_and_then_only_what_is_new(tmp_path: Path, venue: SimulatedExchange) -> None:
    code, shown, said = data(tmp_path, "sync", **of(venue), TRAINING_DAYS="3")
    assert code == 0, said
    lines = shown.splitlines()
    assert lines[1] == f"data: {tmp_path}"
    assert re.fullmatch(r"BTCUSDT-1m: [0-9]+ rows fetched; no gaps", lines[2])
    assert any(re.fullmatch(r"BTCUSDT-1h: [0-9]+ rows fetched; no gaps", line) for line in lines)
    assert data(tmp_path, "verify")[0] == 0
    again = data(tmp_path, "sync", **of(venue), TRAINING_DAYS="3")[1]
    assert all(int(line.split()[1]) < 70 for line in again.splitlines() if "rows fetched" in line)


def test_klines_of_the_simulated_exchange_are_not_called_a_venues(tmp_path: Path) -> None:
    series = ("--symbol", "ETHUSDT", "--interval", "1h")
    assert data(tmp_path, "sync", *series, "--days", "3", MARKET="simulated")[0] == 0
    code, shown, said = data(tmp_path, "verify", *series, MARKET="simulated")
    assert (code, "days compared are as the simulated exchange has them" in shown) == (0, True), (shown, said)
    store = tmp_path / "simulated" / "seed-0" / "klines"
    assert shown.endswith(f"klines: {store} (SIMULATED)\n")
    KlineStore(store / "binance").remove("ETHUSDT", HOUR_MS, (0, 2**62))
    now_ms = SystemClock().now_ms() // HOUR_MS * HOUR_MS
    walk = random_walk_klines(20, HOUR_MS)
    path = tmp_path / "real.csv"
    write_klines(
        path, "ETHUSDT", replace(walk, open_time_ms=walk.open_time_ms - walk.open_time_ms[-1] + now_ms - HOUR_MS)
    )
    code, _, said = data(tmp_path, "import", str(path), *series, MARKET="simulated")
    assert code == 1
    assert "rows compared with the simulated exchange differ, such as " in said
    assert f" at the simulated exchange; the store is {store} (SIMULATED); --force takes" in said


def test_what_is_asked_for_as_json_is_alone_on_standard_output(tmp_path: Path, venue: SimulatedExchange) -> None:
    series = ("--symbol", "ETHUSDT", "--interval", "1h", "--days", "2")
    code, shown, said = data(tmp_path, "sync", *series, "--json", **{**of(venue), "LOG_LEVEL": "info"})
    (report,) = json.loads(shown)
    assert (code, report["symbol"], report["interval"], report["gaps"]) == (0, "ETHUSDT", "1h", [])
    assert report["fetched"] >= 24
    assert "market: " in said, "what else is said goes to standard error"
    (verified,) = json.loads(data(tmp_path, "verify", "--json", **of(venue))[1])["series"]
    assert (verified["series"], verified["rows"], verified["damaged"]) == ("ETHUSDT-1h", report["fetched"], 0)
    assert json.loads(data(tmp_path, "gaps", "--json", **of(venue))[1]) == {"gaps": [], "empty": []}


def test_tables_fit_80_columns(tmp_path: Path, store: KlineStore) -> None:
    store.append("1000BONKUSDT", WALK)
    for verb in ("verify --offline", "gaps"):
        command = [sys.executable, "-m", "cli.main", "data", *verb.split()]
        given = {name: value for name, value in environment(tmp_path).items() if name != "COLUMNS"}
        with on_terminal(command, 80, given, str(ROOT)) as (terminal, process):
            assert process.wait(60) == 0
        assert max(len(line) for line in terminal.lines if not line.startswith("klines: ")) <= 80
        shown = " ".join(terminal.lines).split()
        assert {"ETHUSDT-1m", "2023-11-15", "16:40" if verb == "gaps" else "3,990"} <= set(shown)


def test_a_symbol_of_the_command_line_that_nobody_trades_is_to_be_changed_there(
    tmp_path: Path, venue: SimulatedExchange
) -> None:
    code, shown, _ = data(tmp_path, "sync", "--symbol", "NOPEUSDT", "--interval", "1h", "--days", "1", **of(venue))
    assert code == 1
    line = shown.splitlines()[-1]
    assert "unknown symbol 'NOPEUSDT'" in line
    assert "set --symbol to a symbol that binance trades" in line
    assert "config.json" not in line


def test_sync_of_named_series(tmp_path: Path, venue: SimulatedExchange) -> None:
    code, shown, _ = data(
        tmp_path, "sync", "--symbol", "SOLUSDT", "--interval", "15m", "--interval", "1m", "--days", "2", **of(venue)
    )
    assert code == 0
    assert [line.split(":")[0] for line in shown.splitlines()[2:]] == ["SOLUSDT-15m", "SOLUSDT-1m"]
    series = KlineStore(tmp_path / "klines" / "binance").series()
    assert sorted(series) == [("SOLUSDT", MINUTE_MS), ("SOLUSDT", 15 * MINUTE_MS)]


def test_a_series_that_fails_is_told_and_the_others_are_fetched(tmp_path: Path, venue: SimulatedExchange) -> None:
    arguments = ["--symbol", "NOUSDT", "--symbol", "SOLUSDT", "--interval", "1h", "--days", "1"]
    code, shown, _ = data(tmp_path, "sync", *arguments, **of(venue))
    assert code == 1
    assert "NOUSDT-1h: 0 rows fetched" in shown
    assert "FAILED: unknown symbol 'NOUSDT'" in shown
    assert re.search(r"SOLUSDT-1h: 2[4-9]|SOLUSDT-1h: [34][0-9]", shown)


def test_an_interrupted_sync_leaves_a_store_that_the_next_goes_on_with(
    tmp_path: Path, venue: SimulatedExchange
) -> None:
    venue.fail_next("/api/v3/klines", count=10_000, delay_s=0.4)
    arguments = ["--symbol", "ETHUSDT", "--symbol", "SOLUSDT", "--interval", "1m", "--days", "200"]
    reader = KlineStore(tmp_path / "klines" / "binance")
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "data", "sync", *arguments],
        env=environment(tmp_path, **of(venue)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            eventually(lambda: len(reader.read("ETHUSDT", MINUTE_MS, 0, 2**62)) > 1440, 60, "a day being stored")
            began_s = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert time.monotonic() - began_s < 15
    assert process.returncode == 130
    assert said.splitlines()[-1] == "stopped; what has arrived is stored, and the same command goes on"
    assert "Traceback" not in said
    code, _, _ = data(tmp_path, "verify")
    assert code == 0
    held = len(reader.read("ETHUSDT", MINUTE_MS, 0, 2**62))
    assert held > 0
    venue.clear_faults()
    code, shown, _ = data(tmp_path, "sync", *arguments, **of(venue))
    assert code == 0
    fetched = int(re.search(r"ETHUSDT-1m: ([0-9]+) rows", shown)[1])  # type: ignore[index]
    assert fetched + held >= 200 * 1440
    assert fetched < 200 * 1440
    assert data(tmp_path, "gaps")[1].startswith("no gaps\n")


# -- refusals ---------------------------------------------------------------------------------------------------------

ETH = ("--symbol", "ETHUSDT", "--interval", "1m")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["verify", "--symbol", "DOGEUSDT"], 2, "--symbol DOGEUSDT: no klines of it", id="no such symbol"),
        pytest.param(["gaps", "--interval", "2s"], 2, "--interval must be one of 1m, 3m", id="no interval"),
        pytest.param(["gaps", "--interval", "5m"], 2, "there are BTCUSDT-1h, ETHUSDT-1m", id="none of that interval"),
        pytest.param(["sync", "--interval", "1w"], 2, "was '1w'", id="sync of no interval"),
        pytest.param(["sync", "--symbol", "../ETH"], 2, "a symbol is letters and digits", id="sync of no symbol"),
        pytest.param(["sync", "--config", "/no.json"], 2, "/no.json", id="no config"),
        pytest.param(["export", *ETH, "--out", "/tmp/x.xlsx"], 2, "ends in .csv, .parquet, .zip", id="an ending"),  # noqa: S108
        pytest.param(["export", *ETH, "--out", "/no/x.csv"], 2, "/no/x.csv: No such file", id="no folder"),
        pytest.param(
            ["export", *ETH, "--out", "/no/x.csv", "--start", "soon"], 2, "--start must be a UTC day", id="no day"
        ),
        pytest.param(
            ["export", *ETH, "--out", "/no/x.csv", "--start", "2030-01-01"],
            2,
            "there are from 2023-11-15 00:00 to 2023-11-17 18:39",
            id="a day without klines",
        ),
        pytest.param(
            ["export", "--symbol", "X", "--interval", "1m", "--out", "/no/x.csv"],
            2,
            "no klines of X in 1m; there are BTCUSDT-1h, ETHUSDT-1m",
            id="export of no symbol",
        ),
        pytest.param(["import", "/no/x.csv", *ETH], 2, "/no/x.csv: No such file", id="no file"),
        pytest.param(["import", "/no/x.txt", *ETH], 2, "/no/x.txt: a file of klines ends in", id="import of an ending"),
        pytest.param(["import", str(ROOT / "README.md"), *ETH], 2, "ends in .csv", id="no klines"),
        pytest.param(
            ["trim", "--keep-days", "5"], 2, "--keep-days 5: a training with TRAINING_DAYS=90 reads", id="trim"
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, store: KlineStore, arguments: list[str], code: int, says: str
) -> None:
    found, _, said = data(tmp_path, *arguments, MARKET="binance")
    assert found == code, said
    (line,) = said.splitlines()
    assert line.startswith("birnn: ")
    assert says in line


def test_a_file_of_something_else_is_one_line_and_status_1(tmp_path: Path, store: KlineStore) -> None:
    path = tmp_path / "something.csv"
    path.write_text("name,value\na,1\n")
    code, _, said = data(tmp_path, "import", str(path), *ETH)
    assert code == 1
    assert said == f"birnn: {path}: has no column open_time, open, high, low, close, volume, only name, value\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            "open_time;open;high;low;close;volume\n1;2;3;4;5;6\n",
            "write decimals with a point and separate columns",
            id="header",
        ),
        pytest.param("1;2;3;4;5;6\n", "write decimals with a point and separate columns", id="no header"),
        pytest.param("1700000040,2,3,1,2,6\n1700000100,2,3,1,2,6\n", "line 1: column 1 '1700000040'", id="the first"),
        pytest.param("1700000040,2,3,1,2,6\n", "seconds are to be multiplied by 1000", id="seconds"),
    ],
)
def test_what_to_do_about_a_file_is_said(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "some.csv"
    path.write_text(text)
    code, _, said = data(tmp_path, "import", str(path), *ETH)
    assert (code, len(said.splitlines())) == (1, 1)
    assert says in said


def test_an_empty_store_is_told(tmp_path: Path) -> None:
    code, _, said = data(tmp_path, "verify")
    assert code == 2
    assert "run birnn data sync" in said
