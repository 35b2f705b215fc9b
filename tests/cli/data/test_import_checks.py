"""What an import is held against: names, stored klines and a venue."""

import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from klines.klines import PRICE_COLUMNS
from market.store.files.table_files import write_klines
from market.store.kline_store import KlineStore
from tests.cli.data.stand import ETH, MONTH, OTHER, WALK, at_venue, data, moved, stored_minutes
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines
from tests.fakes.venue_server import Answer
from tests.fakes.venue_server import Venue as LoopbackVenue


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
