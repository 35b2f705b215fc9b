"""``birnn data``: its verbs as processes, on a store and against the simulated exchange."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SystemClock
from market.exchange_files import read_klines, write_klines
from market.klines import COLUMNS, PRICE_COLUMNS, Klines
from market.simulated import SimulatedExchange
from market.store import KlineStore
from model.heads import BACKTEST_DAYS, MINUTE, training_start_ms
from research.walk import SPAN_DAYS
from tests.fakes import START_MS, eventually, random_walk_klines
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
    """Exit status, standard output and error of ``birnn data``."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "data", *arguments],
        env=environment(data_dir, **more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def store(tmp_path: Path) -> KlineStore:
    """With minutes of ETH, one gap in them, and hours of BTC."""
    store = KlineStore(tmp_path / "klines")
    store.append("ETHUSDT", WALK.between(0, at(1000)).merge(WALK.between(at(1010), 2**62)))
    store.append("BTCUSDT", random_walk_klines(300, HOUR_MS))
    return store


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
    assert data(tmp_path, "gaps", "--symbol", "BTCUSDT")[1] == f"no gaps\nklines: {store.root}\n"


# -- export and import ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet", "zip"])
def test_what_is_exported_is_imported_just_so(tmp_path: Path, store: KlineStore, ending: str) -> None:
    out, other = tmp_path / f"eth.{ending}", tmp_path / "other"
    code, shown, _ = data(tmp_path, "export", "--symbol", "ETHUSDT", "--interval", "1m", "--out", str(out))
    assert (code, shown) == (
        0,
        f"{out}: 3,990 rows of ETHUSDT in 1m, 2023-11-15 00:00 to 2023-11-17 18:40 UTC, 1 gaps\nklines: {store.root}\n",
    )
    for changed in ("3,990", "0"):
        code, shown, _ = data(other, "import", str(out), "--symbol", "ETHUSDT", "--interval", "1m")
        told = f"{out}: 3,990 rows of ETHUSDT in 1m, {changed} of them new or different"
        assert (code, shown.splitlines()) == (0, [told, f"klines: {other / 'klines'}"])
    found, taken = (one.read("ETHUSDT", MINUTE_MS, 0, 2**62) for one in (store, KlineStore(other / "klines")))
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
    assert (
        "98 rows of ETHUSDT in 1m, 98 of them new or different; 2 refused, the first (row of 2023-11-15T00:29" in shown
    )
    assert "a price is not finite and above 0" in shown
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
    changed = {name: getattr(first, name) * factor for name in PRICE_COLUMNS}
    write_klines(path, "ETHUSDT", replace(first, **changed))
    code, _, said = data(tmp_path, "import", str(path), *series)
    assert code == 1
    assert "some.csv: the close of 2023-11-15T0" in said
    assert "times the one before: another unit or asset?" in said
    assert len(KlineStore(tmp_path / "klines").read("ETHUSDT", MINUTE_MS, 0, 2**62)) == 100


@pytest.mark.parametrize(("first", "last"), [(80, 120), (100, 200)])
def test_candles_of_another_unit_are_not_imported_around_stored_ones_or_an_hour_away(
    tmp_path: Path, first: int, last: int
) -> None:
    path, walk = tmp_path / "some.csv", random_walk_klines(300)
    there = walk.rows(first, last)
    KlineStore(tmp_path / "klines").append("ETHUSDT", there)
    around = walk.rows(0, first - 30).merge(walk.rows(last + 60, 300))
    changed = {name: getattr(around, name) * 100 for name in PRICE_COLUMNS}
    write_klines(path, "ETHUSDT", replace(around, **changed))
    code, _, said = data(tmp_path, "import", str(path), *ETH)
    assert (code, "another unit or asset?" in said) == (1, True)
    assert len(KlineStore(tmp_path / "klines").read("ETHUSDT", MINUTE_MS, 0, 2**62)) == last - first


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
    assert len(KlineStore(tmp_path / "klines").read("ETHUSDT", MINUTE_MS, 0, 2**62)) == 4000


def test_where_one_file_cannot_be_used_none_is_taken(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    write_klines(good, "ETHUSDT", WALK.between(0, at(2000)))
    later = WALK.between(at(2000), 2**62)
    write_klines(bad, "ETHUSDT", replace(later, **{name: getattr(later, name) * 100 for name in PRICE_COLUMNS}))
    code, _, said = data(tmp_path, "import", str(good), str(bad), *ETH)
    assert code == 1
    assert "another unit or asset?" in said
    assert KlineStore(tmp_path / "klines").latest("ETHUSDT", MINUTE_MS) is None


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
    assert shown == "no klines at all: SOLUSDT-1m; run birnn data sync\n"


def test_a_folder_that_cannot_be_read_is_not_called_empty(tmp_path: Path, store: KlineStore) -> None:
    """A file in its place, for tests may be run by one who may read everything."""
    (tmp_path / "klines" / "SOLUSDT-1m").write_text("")
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


# -- trim -------------------------------------------------------------------------------------------------------------


def test_the_margin_covers_what_a_backtest_walks_over() -> None:
    assert BACKTEST_DAYS > SPAN_DAYS


@pytest.mark.parametrize("keep_days", [None, 40])
def test_months_that_nothing_reads_are_deleted(tmp_path: Path, keep_days: int | None) -> None:
    now_ms = SystemClock().now_ms()
    store = KlineStore(tmp_path / "klines")
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
    assert data(tmp_path, "trim", *arguments, TRAINING_DAYS="30")[1] == "nothing is old enough to be deleted\n"


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
    assert re.fullmatch(r"BTCUSDT-1m: [0-9]+ rows fetched; no gaps", lines[1])
    assert any(re.fullmatch(r"BTCUSDT-1h: [0-9]+ rows fetched; no gaps", line) for line in lines)
    assert data(tmp_path, "verify")[0] == 0
    again = data(tmp_path, "sync", **of(venue), TRAINING_DAYS="3")[1]
    assert all(int(line.split()[1]) < 70 for line in again.splitlines() if "rows fetched" in line)


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
    for verb in ("verify", "gaps"):
        command = [sys.executable, "-m", "cli.main", "data", verb]
        given = {name: value for name, value in environment(tmp_path).items() if name != "COLUMNS"}
        with on_terminal(command, 80, given, str(ROOT)) as (terminal, process):
            assert process.wait(60) == 0
        assert max(map(len, terminal.lines)) <= 80
        shown = " ".join(terminal.lines).split()
        assert {"ETHUSDT-1m", "2023-11-15", "16:40" if verb == "gaps" else "3,990"} <= set(shown)


def test_sync_of_named_series(tmp_path: Path, venue: SimulatedExchange) -> None:
    code, shown, _ = data(
        tmp_path, "sync", "--symbol", "SOLUSDT", "--interval", "15m", "--interval", "1m", "--days", "2", **of(venue)
    )
    assert code == 0
    assert [line.split(":")[0] for line in shown.splitlines()[1:]] == ["SOLUSDT-15m", "SOLUSDT-1m"]
    assert sorted(KlineStore(tmp_path / "klines").series()) == [("SOLUSDT", MINUTE_MS), ("SOLUSDT", 15 * MINUTE_MS)]


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
    reader = KlineStore(tmp_path / "klines")
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "data", "sync", *arguments],
        env=environment(tmp_path, **of(venue)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            eventually(lambda: reader.latest("ETHUSDT", MINUTE_MS) is not None, 60, "the first klines being stored")
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
    assert data(tmp_path, "gaps")[1] == "no gaps\n"


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
        pytest.param("open_time;open;high;low;close;volume\n1;2;3;4;5;6\n", "separate columns by commas", id="header"),
        pytest.param("1;2;3;4;5;6\n", "separate them by commas", id="no header"),
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
