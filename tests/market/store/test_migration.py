"""A store of before one venue had a folder of its own is moved over once, whatever kills the move."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.clock import HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from klines.klines import Klines
from market.store.absence import read_absent
from market.store.home import HOMES, read_homes
from market.store.home_store import HomeStore
from market.store.inspection import tail_fault
from market.store.kline_store import KlineStore
from market.store.migration import STANDING, migrate
from market.store.warm_start import read_tail
from tests.fakes.klines import assert_same, random_walk_klines
from tests.market.failover.pair import at_level

WALK = random_walk_klines(30 * 1440)
HOURS = WALK.resample(HOUR_MS)
LINE = ("binance", "coinbase")


def at(row: int) -> int:
    return int(WALK.open_time_ms[row])


BORROWED = [[at(20_000), at(20_060)], [at(40_000), WALK.end_ms + HOUR_MS]]
SAID = {
    "ETHUSDT-1m": {"level": "binance", "borrowed": BORROWED},
    "ETHUSDT-1h": {"level": "binance", "borrowed": []},
    "SOLUSDT-1m": {"level": "coinbase", "borrowed": []},
}


def own(klines: Klines) -> Klines:
    """Those that no other venue told."""
    (start, end), (last, _) = BORROWED
    return klines.between(0, start).merge(klines.between(end, last))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the release before wrote: months, journals, tails, what is absent, and ``venues.json``."""
    root = tmp_path_factory.mktemp("old") / "klines"
    store = KlineStore(root, journal_rows=5_000, small_bytes=0)
    store.append("ETHUSDT", WALK.between(0, at(39_000)))
    store.append("ETHUSDT", WALK.between(at(39_000), WALK.end_ms))
    store.append("ETHUSDT", HOURS)
    store.append("SOLUSDT", at_level(WALK, 0.1))
    store.remember_absent("SOLUSDT", MINUTE_MS, [(at(0) - HOUR_MS, at(0))], at(50))
    (root / "SOLUSDT-1m" / "2023-11.damaged-1700000000000").write_text("?")
    (root / STANDING).write_text(json.dumps(SAID))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "klines"))


def assert_moved(root: Path) -> None:
    store = HomeStore(root, LINE)
    assert {path.name for path in root.iterdir()} <= {"binance", "coinbase", HOMES, ".lock"}
    assert read_homes(root) == {"ETHUSDT": "binance", "SOLUSDT": "coinbase"}
    assert store.series() == [("ETHUSDT", MINUTE_MS), ("ETHUSDT", HOUR_MS), ("SOLUSDT", MINUTE_MS)]
    assert (store.home("ETHUSDT"), store.home("SOLUSDT")) == LINE
    assert_same(store.read("ETHUSDT", MINUTE_MS, 0, 2**62), own(WALK))
    assert_same(store.read("ETHUSDT", HOUR_MS, 0, 2**62), HOURS)
    assert_same(store.read("SOLUSDT", MINUTE_MS, 0, 2**62), at_level(WALK, 0.1))
    (absent,) = read_absent(store.of("coinbase").folder("SOLUSDT", MINUTE_MS))
    assert (absent.start_ms, absent.absent_ms) == (at(0) - HOUR_MS, at(50))
    assert len([*root.glob("coinbase/SOLUSDT-1m/*.damaged-*")]) == 1
    for symbol, interval_ms in store.series():
        assert tail_fault(store.home_store(symbol), symbol, interval_ms) == ""
        assert len(read_tail(store.home_store(symbol).root, symbol, interval_ms))


def test_a_store_is_moved_over_without_the_rows_of_other_venues(root: Path) -> None:
    untouched = (root / "SOLUSDT-1m" / "2023-11.parquet").stat().st_ino
    migrate(root, "binance")
    assert_moved(root)
    assert (root / "coinbase" / "SOLUSDT-1m" / "2023-11.parquet").stat().st_ino == untouched  # renamed, not written
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    migrate(root, "kraken")
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


KILLED = """
import os, shutil, sys
from pathlib import Path
from market.store.migration import migrate

made, copies = Path(sys.argv[1]), Path(sys.argv[2])
left = 0

def dying(event, _):
    global left
    if event in {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}:
        left -= 1
        if left == 0:
            os._exit(9)

sys.addaudithook(dying)
for nth in range(1, 100):
    root = Path(shutil.copytree(made, copies / str(nth)))
    child = os.fork()
    if child == 0:
        left = nth
        migrate(root, "binance")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
print(nth)
"""


def test_a_kill_at_any_step_is_made_good_by_the_next_start(made: Path, tmp_path: Path) -> None:
    """The n-th process dies before its n-th change of the folder."""
    command = [sys.executable, "-c", KILLED, str(made), str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) > 15
    for root in tmp_path.iterdir():
        migrate(root, "binance")
        assert_moved(root)


def test_a_store_of_before_the_file_is_the_first_venue_s(root: Path) -> None:
    (root / STANDING).unlink()
    shutil.rmtree(root / "tails")
    migrate(root, "kraken")
    store = HomeStore(root, LINE)
    assert [folder.root.name for folder in store.folders()] == ["kraken"]
    assert_same(store.read("ETHUSDT", MINUTE_MS, 0, 2**62), WALK)


def test_a_series_that_the_file_does_not_name_goes_with_its_symbol_or_the_first_venue(root: Path) -> None:
    standing = {"ETHUSDT-1m": SAID["ETHUSDT-1m"]}
    standing |= {name: {"level": "kraken", "borrowed": [[0, 9]]} for name in ("SOLUSDT-1m", "GONEUSDT-1m")}
    (root / STANDING).write_text(json.dumps(standing))
    KlineStore(root).append("BTCUSDT", HOURS)
    migrate(root, "coinbase")
    assert read_homes(root) == {"ETHUSDT": "binance", "SOLUSDT": "kraken", "BTCUSDT": "coinbase"}
    series = [("BTCUSDT", HOUR_MS), ("ETHUSDT", MINUTE_MS), ("ETHUSDT", HOUR_MS), ("SOLUSDT", MINUTE_MS)]
    assert HomeStore(root).series() == series


SPOILT = [5, {"level": "../x", "borrowed": []}, {"level": "binance", "borrowed": [[1]]}]


@pytest.mark.parametrize("text", ["", "[]", *(json.dumps({"ETHUSDT-1m": entry}) for entry in SPOILT)])
def test_a_file_that_cannot_be_read_is_refused_and_nothing_is_moved(root: Path, text: str) -> None:
    (root / STANDING).write_text(text)
    before = [path for path in sorted(root.rglob("*")) if path != root / ".lock"]
    with pytest.raises(ConfigError, match=r"venues.json: cannot be read .* delete the file if all are of the first"):
        migrate(root, "binance")
    assert [path for path in sorted(root.rglob("*")) if path != root / ".lock"] == before


def test_klines_of_an_older_release_beside_moved_ones_are_refused(root: Path) -> None:
    KlineStore(root / "binance").append("ETHUSDT", WALK.tail(5))
    with pytest.raises(ConfigError, match=r"ETHUSDT-1m both hold klines of ETHUSDT: .* delete the folder"):
        migrate(root, "binance")
    shutil.rmtree(root / "binance" / "ETHUSDT-1m")
    migrate(root, "binance")
    assert_moved(root)


def test_a_store_that_another_process_writes_is_left_alone(root: Path) -> None:
    with KlineStore(root).writing(), pytest.raises(ConfigError, match="another process is writing"):
        migrate(root, "binance")


def test_nothing_is_made_where_there_is_no_store(tmp_path: Path) -> None:
    migrate(tmp_path / "klines", "binance")
    assert not (tmp_path / "klines").exists()
    KlineStore(tmp_path / "klines" / "binance").append("ETHUSDT", WALK.tail(5))
    migrate(tmp_path / "klines", "binance")
    assert_same(HomeStore(tmp_path / "klines").read("ETHUSDT", MINUTE_MS, 0, 2**62), WALK.tail(5))
