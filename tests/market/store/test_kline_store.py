"""The kline store: merges, months, absences, damage, and what is trimmed."""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError, WorkerError
from klines.klines import Klines
from klines.spans import Span
from market.store.absence import ABSENT_FOR_MS
from market.store.inspection import tail_fault
from market.store.kline_store import DAMAGED_FOR_MS, KlineStore
from market.store.warm_start import TAIL_ROWS
from tests.fakes.clock import START_MS
from tests.fakes.klines import assert_exact, random_walk_klines
from tests.market.store.month_end import DAMAGES, WALK, at, everything, rows


def test_what_is_appended_is_read_in_any_range(store: KlineStore) -> None:
    assert store.append("ETHUSDT", WALK) == 3000
    assert sorted(path.name for path in (store.root / "ETHUSDT-1m").iterdir()) == ["2023-11.parquet", "2023-12.parquet"]
    assert_exact(everything(store), WALK)
    for first, last in ((0, 10), (1490, 1510), (1500, 1500), (2999, 5000), (4000, 5000)):
        assert_exact(store.read("ETHUSDT", MINUTE_MS, at(first), at(last)), rows(first, last))
    assert store.latest("ETHUSDT", MINUTE_MS) == at(2999)


def test_a_store_that_is_not_there_is_empty_and_reading_makes_nothing(store: KlineStore) -> None:
    assert len(everything(store)) == 0
    assert store.latest("ETHUSDT", MINUTE_MS) is None
    assert store.missing("ETHUSDT", MINUTE_MS, at(0), at(10)) == [(at(0), at(10))]
    assert store.append("ETHUSDT", Klines.empty(MINUTE_MS)) == 0
    assert not (store.root / "ETHUSDT-1m").exists()


def test_only_touched_months_are_written_and_none_when_nothing_changes(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(0, 2000))
    november, december = (store.root / "ETHUSDT-1m" / f"2023-{month}.parquet" for month in (11, 12))
    before = november.stat().st_ino, december.stat().st_ino
    assert store.append("ETHUSDT", rows(0, 2000)) == 0
    assert store.append("ETHUSDT", rows(100, 1700)) == 0
    assert (november.stat().st_ino, december.stat().st_ino) == before
    assert store.append("ETHUSDT", rows(1400, 2100)) == 100
    assert november.stat().st_ino == before[0]
    assert december.stat().st_ino != before[1]
    assert_exact(everything(store), rows(0, 2100))


def test_flows_that_are_not_known_stay_so(store: KlineStore) -> None:
    without_trades = replace(WALK, trades=np.full(3000, np.nan))
    store.append("ETHUSDT", without_trades)
    assert_exact(everything(store), without_trades)
    assert store.append("ETHUSDT", without_trades) == 0


@settings(max_examples=30, deadline=None)
@given(
    have=st.lists(st.integers(0, 60), max_size=40),
    absent=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=3),
    first=st.integers(-10, 70),
    last=st.integers(-10, 70),
    off=st.integers(0, MINUTE_MS - 1),
)
def test_missing_is_what_is_neither_there_nor_known_to_be_absent(
    have: list[int], absent: list[tuple[int, int]], first: int, last: int, off: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = KlineStore(Path(folder))
        store.append("ETHUSDT", reduce(Klines.merge, (rows(row, row + 1) for row in have), Klines.empty(MINUTE_MS)))
        spans = [(at(start), at(start + count)) for start, count in absent]
        store.remember_absent("ETHUSDT", MINUTE_MS, spans, now_ms=at(100))
        found = store.missing("ETHUSDT", MINUTE_MS, at(first) - off, at(last), now_ms=at(100))
    known = {at(row) for row in have} | {time for start, end in spans for time in range(start, end, MINUTE_MS)}
    assert [time for start, end in found for time in range(start, end, MINUTE_MS)] == [
        at(row) for row in range(first, last) if at(row) not in known
    ]


def test_what_is_absent_is_asked_for_again_after_a_day(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(0, 10))
    span = (at(10), at(20))
    store.remember_absent("ETHUSDT", MINUTE_MS, [span], now_ms=at(100))

    def ask(now_ms: int | None) -> list[Span]:
        return store.missing("ETHUSDT", MINUTE_MS, at(0), at(20), now_ms=now_ms)

    assert ask(at(100)) == ask(None) == []
    assert ask(at(100) + ABSENT_FOR_MS) == [span]
    store.remember_absent("ETHUSDT", MINUTE_MS, [(at(15), at(20))], now_ms=at(100) + ABSENT_FOR_MS)
    assert ask(at(100) + ABSENT_FOR_MS) == [(at(10), at(15))]


@pytest.mark.parametrize("text", ["", "{", "[[1,2]]", "{}", "[[1,2,1e999]]", "\xff", '["abc"]', "5"])
def test_a_damaged_list_of_absences_is_forgotten(store: KlineStore, text: str) -> None:
    store.remember_absent("ETHUSDT", MINUTE_MS, [(at(0), at(5))], now_ms=at(100))
    path = store.root / "ETHUSDT-1m" / "absent.json"
    path.write_text(text, encoding="latin-1")
    assert store.missing("ETHUSDT", MINUTE_MS, at(0), at(5)) == [(at(0), at(5))]
    store.remember_absent("ETHUSDT", MINUTE_MS, [(at(0), at(5))], now_ms=at(100))
    assert json.loads(path.read_bytes()) == [[at(0), at(5), at(100), ""]]


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_month_is_skipped_then_set_aside_then_refilled(
    store: KlineStore, damage: Callable[[bytes], bytes]
) -> None:
    store.append("ETHUSDT", WALK)
    path = store.root / "ETHUSDT-1m" / "2023-12.parquet"
    broken = damage(path.read_bytes())
    path.write_bytes(broken)

    assert_exact(everything(store), rows(0, 1500))  # readers skip it and leave it
    assert store.latest("ETHUSDT", MINUTE_MS) == at(1499)
    assert path.read_bytes() == broken

    (damaged,) = store.repair("ETHUSDT", MINUTE_MS)
    assert damaged.name.startswith("2023-12.damaged-")
    assert damaged.read_bytes() == broken
    assert store.repair("ETHUSDT", MINUTE_MS) == []
    assert store.missing("ETHUSDT", MINUTE_MS, at(0), at(3000)) == [(at(1500), at(3000))]
    store.append("ETHUSDT", WALK)
    assert_exact(everything(store), WALK)


def test_append_to_a_damaged_month_sets_it_aside(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(0, 100))
    path = store.root / "ETHUSDT-1m" / "2023-11.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    assert store.append("ETHUSDT", rows(100, 200)) == 100
    assert_exact(everything(store), rows(100, 200))
    assert len(list(path.parent.glob("2023-11.damaged-*"))) == 1


@pytest.mark.parametrize("symbol", ["", "../ETHUSDT", "ETH/USDT", ".", "..", "ETH USDT", "ETH\x00"])
def test_a_symbol_that_would_leave_the_folder_is_refused(store: KlineStore, symbol: str) -> None:
    with pytest.raises(ConfigError, match="a symbol is letters and digits"):
        store.append(symbol, WALK)


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkerError, match="DATA_DIR"):
        KlineStore(tmp_path / "file" / "klines").append("ETHUSDT", WALK)


# -- trimming ---------------------------------------------------------------------------------------------------------

HOURS = random_walk_klines(400 * 24, HOUR_MS, start_ms=START_MS)


def test_whole_months_that_are_older_go(store: KlineStore) -> None:
    assert store.trim("ETHUSDT", 15 * MINUTE_MS, 2**62) == []  # of a series without klines
    year = random_walk_klines(400 * 24 * 4, 15 * MINUTE_MS)  # from 2023-11-15 to 2024-12-19
    store.append("ETHUSDT", year)
    absent = [(START_MS - DAY_MS, START_MS), (START_MS + 300 * DAY_MS, START_MS + 301 * DAY_MS)]
    store.remember_absent("ETHUSDT", 15 * MINUTE_MS, absent, now_ms=START_MS)
    oldest_ms = START_MS + 100 * DAY_MS  # 2024-02-23
    gone = store.trim("ETHUSDT", 15 * MINUTE_MS, oldest_ms)
    assert [path.name for path in gone] == ["2023-11.parquet", "2023-12.parquet", "2024-01.parquet"]
    assert store.first("ETHUSDT", 15 * MINUTE_MS) == 1_706_745_600_000  # 2024-02-01
    assert_exact(everything(store, 15 * MINUTE_MS), year.between(1_706_745_600_000, 2**62))
    told = json.loads((store.root / "ETHUSDT-15m" / "absent.json").read_bytes())
    assert told == [[*absent[1], START_MS, ""]]
    assert store.trim("ETHUSDT", 15 * MINUTE_MS, oldest_ms) == []


@pytest.mark.parametrize("oldest_ms", [0, START_MS, 2**62], ids=["nothing", "all are newer", "everything"])
def test_the_last_months_stay_whatever_is_asked_for(store: KlineStore, oldest_ms: int) -> None:
    minutes = random_walk_klines(70 * 1440)
    store.append("ETHUSDT", minutes)
    store.append("ETHUSDT", HOURS)
    gone = store.trim("ETHUSDT", MINUTE_MS, oldest_ms)
    assert [path.name for path in gone] == (["2023-11.parquet"] if oldest_ms == 2**62 else [])
    assert store.latest("ETHUSDT", MINUTE_MS) == int(minutes.open_time_ms[-1])
    store.trim("ETHUSDT", HOUR_MS, oldest_ms)
    assert len(everything(store, HOUR_MS)) >= TAIL_ROWS
    assert tail_fault(store, "ETHUSDT", HOUR_MS) == ""


def test_what_was_set_aside_long_ago_goes(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(0, 10))
    now_ms = time.time_ns() // 1_000_000
    folder = store.root / "ETHUSDT-1m"
    old, new = (folder / f"2023-11.damaged-{now_ms - age}" for age in (DAMAGED_FOR_MS + MINUTE_MS, DAY_MS))
    other = folder / "2023-11.damaged-by-hand"
    for path in (old, new, other):
        path.write_bytes(b"torn")
    assert store.trim("ETHUSDT", MINUTE_MS, 0) == [old]
    assert new.exists()
    assert other.exists()
