"""What ails a stored series: files, the warm-start file, holes."""

import numpy as np

from core.clock import HOUR_MS, MINUTE_MS
from market.store.absence import Gap
from market.store.inspection import gaps, inspect, tail_fault
from market.store.kline_store import TAIL_BEHIND_MS, KlineStore
from market.store.warm_start import read_tail
from tests.fakes.klines import assert_exact, random_walk_klines
from tests.market.store.month_end import CORRECTED, WALK, at, rows


def test_a_tail_is_not_written_for_each_row(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 100))
    path = journalled.root / "tails" / "ETHUSDT-1m.npy"
    before = path.read_bytes()
    behind = TAIL_BEHIND_MS // MINUTE_MS
    for row in range(100, 100 + behind - 1):
        journalled.append("ETHUSDT", rows(row, row + 1))
        assert tail_fault(journalled, "ETHUSDT", MINUTE_MS) == ""
    assert path.read_bytes() == before
    journalled.append("ETHUSDT", rows(100 + behind - 1, 100 + behind))
    assert_exact(read_tail(journalled.root, "ETHUSDT", MINUTE_MS), rows(0, 100 + behind))


def test_a_tail_tells_no_row_that_was_corrected(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 100))
    corrected = CORRECTED.between(at(99), at(101))
    journalled.append("ETHUSDT", corrected)
    assert_exact(read_tail(journalled.root, "ETHUSDT", MINUTE_MS), rows(0, 100).merge(corrected))


def test_in_what_a_tail_differs_is_told_and_repaired(store: KlineStore) -> None:
    store.append("ETHUSDT", WALK)
    path = store.root / "tails" / "ETHUSDT-1m.npy"
    good = path.read_bytes()
    table = np.load(path)
    for spoilt, says in ((table[:-100], "ends at"), (np.delete(table, 5, 0), "1 rows of the months are not in it")):
        np.save(path, spoilt)
        assert says in tail_fault(store, "ETHUSDT", MINUTE_MS)
    table[7, 1:5] *= 2
    np.save(path, table)
    assert "1 rows are not as in the months" in tail_fault(store, "ETHUSDT", MINUTE_MS)
    path.write_bytes(b"torn")
    assert tail_fault(store, "ETHUSDT", MINUTE_MS) == "cannot be read"
    store.repair_tail("ETHUSDT", MINUTE_MS)
    assert tail_fault(store, "ETHUSDT", MINUTE_MS) == ""
    assert path.read_bytes() == good
    path.unlink()
    assert tail_fault(store, "ETHUSDT", MINUTE_MS) == ""


def test_series_are_kept_apart_and_named_by_their_folders(store: KlineStore) -> None:
    assert store.series() == []
    appended = {("BTC-USD", HOUR_MS): random_walk_klines(3, HOUR_MS), ("ETHUSDT", HOUR_MS): WALK.resample(HOUR_MS)}
    appended["ETHUSDT", MINUTE_MS] = rows(0, 5)
    for (symbol, interval_ms), klines in appended.items():
        store.append(symbol, klines)
        assert_exact(store.read(symbol, interval_ms, 0, 2**62), klines)
    (store.root / "notes-of-mine").mkdir()
    assert sorted(store.series()) == sorted(appended)


def test_inspect_reads_every_file_and_says_what_ails_it(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 1600))
    journalled.append("ETHUSDT", rows(1600, 1610))
    assert [(state.path.name, state.rows, state.fault) for state in inspect(journalled, "ETHUSDT", MINUTE_MS)] == [
        ("2023-11.parquet", 1500, ""),
        ("2023-12.parquet", 100, ""),
        ("2023-12.new.parquet", 10, ""),
    ]
    (journalled.root / "ETHUSDT-1m" / "2023-11.parquet").write_bytes(b"torn")
    first, *others = inspect(journalled, "ETHUSDT", MINUTE_MS)
    assert "not a Parquet file" in first.fault
    assert not any(state.fault for state in others)


def test_gaps_tell_what_the_venue_said(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(5, 20).merge(rows(30, 40)).merge(rows(50, 60)))
    store.remember_absent("ETHUSDT", MINUTE_MS, [(at(0), at(5)), (at(32), at(45))], now_ms=at(100))
    assert gaps(store, "ETHUSDT", MINUTE_MS) == [
        Gap(start_ms=at(20), end_ms=at(30)),
        Gap(start_ms=at(40), end_ms=at(45), absent_ms=at(100)),
        Gap(start_ms=at(45), end_ms=at(50)),
    ]
