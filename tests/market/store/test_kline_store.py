"""The kline store: merges, months, damage, several processes, and kills at any moment."""

import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError, WorkerError
from klines.klines import COLUMNS, Klines
from klines.spans import Span, without
from market.store.kline_store import ABSENT_FOR_MS, DAMAGED_FOR_MS, TAIL_BEHIND_MS, Gap, KlineStore
from market.store.month_file import Damaged, unpacked
from market.store.warm_start import TAIL_ROWS, read_tail
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines

REPOSITORY = Path(__file__).parents[3]
MONTH_END_MS = START_MS + 16 * DAY_MS  # 2023-12-01
WALK = random_walk_klines(3000, start_ms=MONTH_END_MS - 1500 * MINUTE_MS)  # half in November, half in December


def at(row: int) -> int:
    return int(WALK.open_time_ms[0]) + row * MINUTE_MS


def rows(first: int, last: int) -> Klines:
    return WALK.between(at(first), at(last))


def everything(store: KlineStore, interval_ms: int = MINUTE_MS) -> Klines:
    return store.read("ETHUSDT", interval_ms, 0, 2**62)


def assert_same(left: Klines, right: Klines) -> None:
    np.testing.assert_array_equal(left.open_time_ms, right.open_time_ms)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.fixture
def store(tmp_path: Path) -> KlineStore:
    return KlineStore(tmp_path / "klines")


def test_what_is_appended_is_read_in_any_range(store: KlineStore) -> None:
    assert store.append("ETHUSDT", WALK) == 3000
    assert sorted(path.name for path in (store.root / "ETHUSDT-1m").iterdir()) == ["2023-11.parquet", "2023-12.parquet"]
    assert_same(everything(store), WALK)
    for first, last in ((0, 10), (1490, 1510), (1500, 1500), (2999, 5000), (4000, 5000)):
        assert_same(store.read("ETHUSDT", MINUTE_MS, at(first), at(last)), rows(first, last))
    assert store.latest("ETHUSDT", MINUTE_MS) == at(2999)


def test_a_store_that_is_not_there_is_empty_and_reading_makes_nothing(store: KlineStore) -> None:
    assert len(everything(store)) == 0
    assert store.latest("ETHUSDT", MINUTE_MS) is None
    assert store.missing("ETHUSDT", MINUTE_MS, at(0), at(10)) == [(at(0), at(10))]
    assert store.append("ETHUSDT", Klines.empty(MINUTE_MS)) == 0
    assert not (store.root / "ETHUSDT-1m").exists()


def test_series_are_kept_apart(store: KlineStore) -> None:
    hours = random_walk_klines(100, HOUR_MS)
    store.append("ETHUSDT", WALK)
    store.append("ETHUSDT", hours)
    store.append("BTCUSDT", rows(0, 5))
    assert_same(everything(store, HOUR_MS), hours)
    assert_same(everything(store), WALK)
    assert len(store.read("BTCUSDT", MINUTE_MS, 0, 2**62)) == 5


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
    assert_same(everything(store), rows(0, 2100))


def test_of_two_rows_with_one_time_the_newer_stays(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(0, 100))
    corrected = random_walk_klines(10, start_ms=at(50), seed=9)
    assert store.append("ETHUSDT", corrected) == 10
    assert_same(everything(store), rows(0, 100).merge(corrected))


def test_flows_that_are_not_known_stay_so(store: KlineStore) -> None:
    columns = {name: getattr(WALK, name) for name in COLUMNS} | {"trades": np.full(3000, np.nan)}
    without_trades = Klines(interval_ms=MINUTE_MS, open_time_ms=WALK.open_time_ms, **columns)
    store.append("ETHUSDT", without_trades)
    assert_same(everything(store), without_trades)
    assert store.append("ETHUSDT", without_trades) == 0


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 900)), min_size=1, max_size=6),
    data=st.data(),
)
def test_overlapping_batches_in_any_order_give_the_same_series(
    cuts: list[tuple[int, int]], data: st.DataObject
) -> None:
    found = []
    for order in (cuts, data.draw(st.permutations(cuts))):
        with tempfile.TemporaryDirectory() as folder:
            store = KlineStore(Path(folder))
            changed = sum(store.append("ETHUSDT", rows(first, first + count)) for first, count in order)
            found.append(everything(store))
            assert changed == len(found[-1])
    wanted = sorted({row for first, count in cuts for row in range(first, min(first + count, 3000))})
    assert found[0].open_time_ms.tolist() == [at(row) for row in wanted]
    assert_same(found[0], found[1])


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


@given(
    spans=st.lists(st.integers(0, 100), max_size=12, unique=True),
    holes=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 30)), max_size=5),
)
def test_without_takes_away_what_the_holes_cover(spans: list[int], holes: list[tuple[int, int]]) -> None:
    edges = sorted(spans)[: len(spans) // 2 * 2]
    given_spans = list(zip(edges[::2], edges[1::2], strict=True))
    cut = [(start, start + length) for start, length in holes]
    left = [n for start, end in without(given_spans, cut) for n in range(start, end)]
    taken = {n for start, end in cut for n in range(start, end)}
    assert left == [n for start, end in given_spans for n in range(start, end) if n not in taken]


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


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def altered(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[bytes], bytes]:
    return lambda content: parquet(change(pl.read_parquet(content)))


DAMAGES = [
    pytest.param(lambda content: content[: len(content) // 2], id="torn"),
    pytest.param(lambda content: b"", id="empty"),
    pytest.param(lambda content: b"PAR1" + bytes(100) + b"PAR1", id="hollow"),
    pytest.param(lambda content: content[:4000] + bytes(500) + content[4500:], id="overwritten inside"),
    pytest.param(lambda content: b"<html></html>", id="another format"),
    pytest.param(altered(lambda frame: frame.drop("trades")), id="a column less"),
    pytest.param(altered(lambda frame: frame.cast({"close": pl.Float32})), id="another type"),
    pytest.param(altered(lambda frame: frame.with_columns(close=pl.lit(None, pl.Float64))), id="nulls"),
    pytest.param(altered(lambda frame: frame.with_columns(close=pl.lit(-1.0))), id="negative prices"),
    pytest.param(altered(lambda frame: frame.reverse()), id="newest first"),
    pytest.param(altered(lambda frame: frame.with_columns(pl.col("open_time_ms") - 40 * DAY_MS)), id="another month"),
    pytest.param(altered(lambda frame: frame.with_columns(pl.col("open_time_ms") + 1)), id="off the grid"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_month_is_skipped_then_set_aside_then_refilled(
    store: KlineStore, damage: Callable[[bytes], bytes]
) -> None:
    store.append("ETHUSDT", WALK)
    path = store.root / "ETHUSDT-1m" / "2023-12.parquet"
    broken = damage(path.read_bytes())
    path.write_bytes(broken)

    assert_same(everything(store), rows(0, 1500))  # readers skip it and leave it
    assert store.latest("ETHUSDT", MINUTE_MS) == at(1499)
    assert path.read_bytes() == broken

    (aside,) = store.repair("ETHUSDT", MINUTE_MS)
    assert aside.name.startswith("2023-12.damaged-")
    assert aside.read_bytes() == broken
    assert store.repair("ETHUSDT", MINUTE_MS) == []
    assert store.missing("ETHUSDT", MINUTE_MS, at(0), at(3000)) == [(at(1500), at(3000))]
    store.append("ETHUSDT", WALK)
    assert_same(everything(store), WALK)


def test_append_to_a_damaged_month_sets_it_aside(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(0, 100))
    path = store.root / "ETHUSDT-1m" / "2023-11.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    assert store.append("ETHUSDT", rows(100, 200)) == 100
    assert_same(everything(store), rows(100, 200))
    assert len(list(path.parent.glob("2023-11.damaged-*"))) == 1


def test_a_file_torn_at_any_byte_is_never_read_as_klines(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(0, 300))
    path = store.root / "ETHUSDT-1m" / "2023-11.parquet"
    content = path.read_bytes()
    for length in random.Random(0).sample(range(len(content)), 60):
        path.write_bytes(content[:length])
        assert len(everything(store)) == 0


@pytest.mark.parametrize("symbol", ["", "../ETHUSDT", "ETH/USDT", ".", "..", "ETH USDT", "ETH\x00"])
def test_a_symbol_that_would_leave_the_folder_is_refused(store: KlineStore, symbol: str) -> None:
    with pytest.raises(ConfigError, match="a symbol is letters and digits"):
        store.append(symbol, WALK)


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkerError, match="DATA_DIR"):
        KlineStore(tmp_path / "file" / "klines").append("ETHUSDT", WALK)


# -- journals ---------------------------------------------------------------------------------------------------------

CORRECTED = random_walk_klines(3000, start_ms=int(WALK.open_time_ms[0]), seed=9)


def names(store: KlineStore) -> list[str]:
    return sorted(path.name for path in (store.root / "ETHUSDT-1m").iterdir())


@pytest.fixture
def journalled(tmp_path: Path) -> KlineStore:
    """With journals of up to 40 rows for a month of any size."""
    return KlineStore(tmp_path / "klines", journal_rows=40, small_bytes=0)


def test_few_rows_of_a_large_month_are_written_alone(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 100))
    month = journalled.root / "ETHUSDT-1m" / "2023-11.parquet"
    before = month.read_bytes()
    for row in range(100, 140):
        assert journalled.append("ETHUSDT", rows(row - 60, row + 1)) == 1
        assert journalled.append("ETHUSDT", rows(row - 60, row + 1)) == 0
        assert_same(everything(KlineStore(journalled.root)), rows(0, row + 1))
        assert journalled.latest("ETHUSDT", MINUTE_MS) == at(row)
        assert journalled.missing("ETHUSDT", MINUTE_MS, at(0), at(row + 1)) == []
    assert month.read_bytes() == before
    assert names(journalled) == ["2023-11.new.parquet", "2023-11.parquet"]
    journalled.append("ETHUSDT", rows(140, 141))
    assert names(journalled) == ["2023-11.parquet"]
    assert_same(everything(journalled), rows(0, 141))


def test_a_small_month_has_no_journal(store: KlineStore) -> None:
    for row in range(50):
        store.append("ETHUSDT", rows(row, row + 1))
    assert names(store) == ["2023-11.parquet"]


def test_a_journal_counts_before_its_month(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 100))
    corrected = CORRECTED.between(at(90), at(110))
    assert journalled.append("ETHUSDT", corrected) == 20
    assert len(names(journalled)) == 2
    assert_same(everything(journalled), rows(0, 100).merge(corrected))
    assert journalled.append("ETHUSDT", rows(95, 105)) == 10
    assert_same(everything(journalled), rows(0, 100).merge(corrected).merge(rows(95, 105)))


def test_a_month_that_is_over_takes_its_journal_in(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 1490))
    journalled.append("ETHUSDT", rows(1490, 1500))
    assert names(journalled) == ["2023-11.new.parquet", "2023-11.parquet"]
    journalled.append("ETHUSDT", rows(1500, 1501))
    assert names(journalled) == ["2023-11.parquet", "2023-12.parquet"]
    assert_same(everything(journalled), rows(0, 1501))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_costs_its_own_rows_alone(journalled: KlineStore, damage: Callable[[bytes], bytes]) -> None:
    journalled.append("ETHUSDT", rows(0, 1000))
    for row in range(1000, 1030):
        journalled.append("ETHUSDT", rows(row, row + 1))
    path = journalled.root / "ETHUSDT-1m" / "2023-11.new.parquet"
    path.write_bytes(damage(path.read_bytes()) + b" ")  # of another length: the disk's clock may stand still
    assert_same(everything(journalled), rows(0, 1000))
    (aside,) = journalled.repair("ETHUSDT", MINUTE_MS)
    assert aside.name.startswith("2023-11.new.damaged-")
    assert journalled.missing("ETHUSDT", MINUTE_MS, at(0), at(1030)) == [(at(1000), at(1030))]
    journalled.append("ETHUSDT", rows(1000, 1030))
    assert_same(everything(journalled), rows(0, 1030))


def test_a_damaged_month_leaves_its_journal(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 100))
    journalled.append("ETHUSDT", rows(100, 110))
    month = journalled.root / "ETHUSDT-1m" / "2023-11.parquet"
    month.write_bytes(month.read_bytes()[:-10])
    assert_same(everything(journalled), rows(100, 110))
    (aside,) = journalled.repair("ETHUSDT", MINUTE_MS)
    assert aside.name.startswith("2023-11.damaged-")
    assert_same(everything(journalled), rows(100, 110))
    assert journalled.latest("ETHUSDT", MINUTE_MS) == at(109)
    assert journalled.append("ETHUSDT", rows(0, 100)) == 100
    assert_same(everything(journalled), rows(0, 110))


Content = dict[str, bytes]


def content_of(root: Path) -> Content:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def put_back(root: Path, content: Content) -> None:
    shutil.rmtree(root)
    for name, body in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)


def kills(before: Content, after: Content) -> Iterator[Content]:
    """The folder as it was before each file that an append writes or removes, and after all of them."""

    def order(name: str) -> tuple[bool, str, bool]:  # the months one after the other, each before its journal; the tail
        return name.startswith("tails"), Path(name).name[:7], ".new." in name

    now = dict(before)
    yield dict(now)
    for name in sorted((n for n in before.keys() | after.keys() if before.get(n) != after.get(n)), key=order):
        if name in after:
            journal = name.replace(".parquet", ".new.parquet")
            if journal in before and journal not in after:  # what is corrected of it is so in the journal first
                told, whole = (pl.read_parquet(body) for body in (before[journal], after[name]))
                now[journal] = parquet(whole.filter(pl.col("open_time_ms").is_in(told["open_time_ms"].implode())))
            now[name] = after[name]
        else:
            del now[name]
        yield dict(now)
    assert now == after


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(
        st.tuples(st.integers(1400, 1599), st.integers(1, 60), st.sampled_from([WALK, CORRECTED])),
        min_size=1,
        max_size=8,
    ),
    journal_rows=st.integers(0, 50),
    small_bytes=st.sampled_from([0, 5_000]),
    data=st.data(),
)
def test_any_order_any_overlap_and_a_kill_between_any_two_writes_give_what_one_append_gives(
    batches: list[tuple[int, int, Klines]], journal_rows: int, small_bytes: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, expected = Path(folder) / "klines", Klines.empty(MINUTE_MS)
        root.mkdir()
        for first, count, source in batches:
            batch = source.between(at(first), at(first + count))
            before = content_of(root)
            KlineStore(root, journal_rows=journal_rows, small_bytes=small_bytes).append("ETHUSDT", batch)
            done = content_of(root)
            wanted = expected.merge(batch)
            states = list(kills(before, done))
            put_back(root, states[data.draw(st.integers(0, len(states) - 1))])
            seen = everything(KlineStore(root))
            for start, end in ((0, MONTH_END_MS), (MONTH_END_MS, 2**62)):
                # Of each month all or nothing: what was told as stored is there, and no row twice or made up.
                month = seen.between(start, end)
                assert any(same(month, whole.between(start, end)) for whole in (expected, wanted))
            again = KlineStore(root, journal_rows=journal_rows, small_bytes=small_bytes)
            again.append("ETHUSDT", batch)
            assert again.append("ETHUSDT", batch) == 0
            assert_same(everything(again), wanted)
            assert again.missing("ETHUSDT", MINUTE_MS, at(1400), at(1660)) == holes_of(wanted, 1400, 1660)
            assert again.latest("ETHUSDT", MINUTE_MS) == int(wanted.open_time_ms[-1])
            expected = wanted
        once = KlineStore(Path(folder) / "once")
        once.append("ETHUSDT", expected)
        store = KlineStore(root, journal_rows=journal_rows, small_bytes=small_bytes)
        assert_same(everything(store), everything(once))
        store.append("ETHUSDT", rows(1700, 1700 + TAIL_BEHIND_MS // MINUTE_MS))
        assert store.tail_fault("ETHUSDT", MINUTE_MS) == ""  # what a kill left undone in it is done by then


def same(left: Klines, right: Klines) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in ("open_time_ms", *COLUMNS))


def holes_of(klines: Klines, first: int, last: int) -> list[Span]:
    known = set(klines.open_time_ms.tolist())
    gone = [row for row in range(first, last) if at(row) not in known]
    starts = [row for row in gone if row - 1 not in gone]
    ends = [row + 1 for row in gone if row + 1 not in gone]
    return [(at(start), at(end)) for start, end in zip(starts, ends, strict=True)]


def test_what_another_process_writes_is_seen(store: KlineStore, journalled: KlineStore) -> None:
    reader = KlineStore(store.root)
    for row in range(0, 200, 20):
        journalled.append("ETHUSDT", rows(row, row + 20))
        for _ in range(2):
            assert reader.latest("ETHUSDT", MINUTE_MS) == at(row + 19)
            assert reader.missing("ETHUSDT", MINUTE_MS, at(0), at(200)) == (
                [(at(row + 20), at(200))] if row < 180 else []
            )


# -- the tail ---------------------------------------------------------------------------------------------------------


def test_a_tail_is_not_written_for_each_row(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 100))
    path = journalled.root / "tails" / "ETHUSDT-1m.npy"
    before = path.read_bytes()
    behind = TAIL_BEHIND_MS // MINUTE_MS
    for row in range(100, 100 + behind - 1):
        journalled.append("ETHUSDT", rows(row, row + 1))
        assert journalled.tail_fault("ETHUSDT", MINUTE_MS) == ""
    assert path.read_bytes() == before
    journalled.append("ETHUSDT", rows(100 + behind - 1, 100 + behind))
    assert_same(read_tail(journalled.root, "ETHUSDT", MINUTE_MS), rows(0, 100 + behind))


def test_a_tail_tells_no_row_that_was_corrected(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 100))
    corrected = CORRECTED.between(at(99), at(101))
    journalled.append("ETHUSDT", corrected)
    assert_same(read_tail(journalled.root, "ETHUSDT", MINUTE_MS), rows(0, 100).merge(corrected))


def test_in_what_a_tail_differs_is_told_and_repaired(store: KlineStore) -> None:
    store.append("ETHUSDT", WALK)
    path = store.root / "tails" / "ETHUSDT-1m.npy"
    good = path.read_bytes()
    table = np.load(path)
    for spoilt, says in ((table[:-100], "ends at"), (np.delete(table, 5, 0), "1 rows of the months are not in it")):
        np.save(path, spoilt)
        assert says in store.tail_fault("ETHUSDT", MINUTE_MS)
    table[7, 1:5] *= 2
    np.save(path, table)
    assert "1 rows are not as in the months" in store.tail_fault("ETHUSDT", MINUTE_MS)
    path.write_bytes(b"torn")
    assert store.tail_fault("ETHUSDT", MINUTE_MS) == "cannot be read"
    store.repair_tail("ETHUSDT", MINUTE_MS)
    assert store.tail_fault("ETHUSDT", MINUTE_MS) == ""
    assert path.read_bytes() == good
    path.unlink()
    assert store.tail_fault("ETHUSDT", MINUTE_MS) == ""


# -- what the verbs ask -----------------------------------------------------------------------------------------------


def test_series_are_named_by_their_folders(store: KlineStore) -> None:
    assert store.series() == []
    store.append("ETHUSDT", rows(0, 5))
    store.append("BTC-USD", random_walk_klines(3, HOUR_MS))
    (store.root / "notes-of-mine").mkdir()
    assert store.series() == [("BTC-USD", HOUR_MS), ("ETHUSDT", MINUTE_MS)]


def test_inspect_reads_every_file_and_says_what_ails_it(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 1600))
    journalled.append("ETHUSDT", rows(1600, 1610))
    assert [(state.path.name, state.rows, state.fault) for state in journalled.inspect("ETHUSDT", MINUTE_MS)] == [
        ("2023-11.parquet", 1500, ""),
        ("2023-12.parquet", 100, ""),
        ("2023-12.new.parquet", 10, ""),
    ]
    (journalled.root / "ETHUSDT-1m" / "2023-11.parquet").write_bytes(b"torn")
    first, *others = journalled.inspect("ETHUSDT", MINUTE_MS)
    assert "not a Parquet file" in first.fault
    assert not any(state.fault for state in others)


def test_gaps_tell_what_the_venue_said(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(5, 20).merge(rows(30, 40)).merge(rows(50, 60)))
    store.remember_absent("ETHUSDT", MINUTE_MS, [(at(0), at(5)), (at(32), at(45))], now_ms=at(100))
    assert store.gaps("ETHUSDT", MINUTE_MS) == [
        Gap(start_ms=at(20), end_ms=at(30)),
        Gap(start_ms=at(40), end_ms=at(45), absent_ms=at(100)),
        Gap(start_ms=at(45), end_ms=at(50)),
    ]


# -- trimming ---------------------------------------------------------------------------------------------------------

HOURS = random_walk_klines(400 * 24, HOUR_MS, start_ms=START_MS)


def test_whole_months_that_are_older_go(store: KlineStore) -> None:
    year = random_walk_klines(400 * 24 * 4, 15 * MINUTE_MS)  # from 2023-11-15 to 2024-12-19
    store.append("ETHUSDT", year)
    absent = [(START_MS - DAY_MS, START_MS), (START_MS + 300 * DAY_MS, START_MS + 301 * DAY_MS)]
    store.remember_absent("ETHUSDT", 15 * MINUTE_MS, absent, now_ms=START_MS)
    oldest_ms = START_MS + 100 * DAY_MS  # 2024-02-23
    gone = store.trim("ETHUSDT", 15 * MINUTE_MS, oldest_ms)
    assert [path.name for path in gone] == ["2023-11.parquet", "2023-12.parquet", "2024-01.parquet"]
    assert store.first("ETHUSDT", 15 * MINUTE_MS) == 1_706_745_600_000  # 2024-02-01
    assert_same(everything(store, 15 * MINUTE_MS), year.between(1_706_745_600_000, 2**62))
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
    assert store.tail_fault("ETHUSDT", HOUR_MS) == ""


def test_of_a_series_without_klines_nothing_is_trimmed(store: KlineStore) -> None:
    assert store.trim("ETHUSDT", MINUTE_MS, 2**62) == []


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


# -- a full disk ------------------------------------------------------------------------------------------------------

FULL = """
import resource, sys
from pathlib import Path
from core.clock import MINUTE_MS
from core.errors import WorkerError
from market.store.kline_store import KlineStore
from tests.fakes.klines import random_walk_klines

root, how, start_ms = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
walk = random_walk_klines(3000, start_ms=start_ms)
at = lambda row: start_ms + row * MINUTE_MS
store = KlineStore(root, journal_rows=40, small_bytes=0)
filler = root.parent / "filler"

def full(on):
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if on else resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    elif on:
        with filler.open("wb", buffering=0) as handle:
            try:
                while True:
                    handle.write(bytes(512))
            except OSError:
                pass
    else:
        filler.unlink()

def check(rows):
    for one in (store, KlineStore(root)):
        held = one.read("ETHUSDT", MINUTE_MS, 0, 2**62)
        assert len(held) == rows and one.latest("ETHUSDT", MINUTE_MS) == at(rows - 1)
    assert [path for path in root.rglob("*") if path.name.startswith(".tmp-")] == []

store.append("ETHUSDT", walk.between(at(0), at(1600)))
for rows in (1610, 1700):  # to the journal; to the month
    full(True)
    try:
        store.append("ETHUSDT", walk.between(at(1600), at(rows)))
    except WorkerError as error:
        said = str(error)
    else:
        raise AssertionError("it was written")
    check(1600)
    try:
        store.remember_absent("ETHUSDT", MINUTE_MS, [(at(row), at(row + 1)) for row in range(2000, 2900, 2)], 0)
    except WorkerError:
        pass
    else:
        raise AssertionError("it was written")
    full(False)
assert store.append("ETHUSDT", walk.between(at(1600), at(1700))) == 100
check(1700)
assert store.tail_fault("ETHUSDT", MINUTE_MS) == ""
print(said)
"""


@pytest.mark.parametrize(("how", "says"), [("limit", "File too large"), ("tmpfs", "No space left on device")])
def test_a_disk_that_is_full_costs_nothing_that_was_stored(tmp_path: Path, how: str, says: str) -> None:
    root, command = tmp_path / "disk" / "klines", [sys.executable, "-c", FULL]
    root.parent.mkdir()
    if how == "tmpfs":
        unshared = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
        mount = f"mount -t tmpfs -o size=1m none {root.parent}"
        if (
            not shutil.which("unshare")
            or subprocess.run([*unshared, mount], capture_output=True, check=False).returncode
        ):
            pytest.skip("no file system can be mounted here")
        command = [*unshared, f'{mount} && exec "$@"', "sh", *command]
    done = subprocess.run(
        [*command, str(root), how, str(at(0))],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[-1]
    assert says in line
    assert "check the space" in line
    assert str(root) in line


# -- several processes ------------------------------------------------------------------------------------------------

WRITER = """
import json
import sys
from pathlib import Path
from core.clock import MINUTE_MS
from market.store.kline_store import KlineStore
from tests.fakes.klines import random_walk_klines
store, start_ms = KlineStore(Path(sys.argv[1]), **json.loads(sys.argv[4])), int(sys.argv[3])
walk = random_walk_klines(3000, start_ms=start_ms)
with store.writing():
    latest = store.latest("ETHUSDT", MINUTE_MS)
    row = 0 if latest is None else (latest - start_ms) // MINUTE_MS + 1
    print(row, flush=True)
    while sys.argv[2] == "append":
        row = row + 37 if row < 3000 else 1300  # goes round: the last part is written over and over
        store.append("ETHUSDT", walk.between(start_ms + (row - 60) * MINUTE_MS, start_ms + row * MINUTE_MS))
        print(row, flush=True)
    sys.stdin.read()
"""


def writer(root: Path, what: str, **limits: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), what, str(at(0)), json.dumps(limits)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_there_is_one_writer_and_its_lock_ends_with_it(store: KlineStore) -> None:
    process = writer(store.root, "wait")
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ConfigError, match="another process is writing"):
            store.append("ETHUSDT", WALK)
        assert len(everything(store)) == 0
    finally:
        finish(process)
    with store.writing(), store.writing():
        assert store.append("ETHUSDT", WALK) == 3000


def test_what_killed_writers_left_is_swept(store: KlineStore) -> None:
    store.append("ETHUSDT", rows(0, 10))
    leftover = store.root / "ETHUSDT-1m" / ".tmp-2023-11.parquet-abc"
    leftover.write_bytes(b"half")
    with store.writing():
        assert not leftover.exists()


@pytest.mark.parametrize("limits", [{}, {"journal_rows": 100, "small_bytes": 0}], ids=["months", "journals"])
def test_kills_at_any_moment_lose_nothing_that_was_stored(store: KlineStore, limits: dict[str, int]) -> None:
    chance = random.Random(5)
    stored = 0
    for _ in range(8):
        process = writer(store.root, "append", **limits)
        try:
            assert process.stdout is not None
            for _ in range(chance.randint(1, 12)):
                stored = max(stored, min(int(process.stdout.readline()), 3000))
                seen = everything(store)  # while it is being written
                assert_same(seen, rows(0, len(seen)))
                assert len(seen) >= stored
            time.sleep(chance.uniform(0, 0.05))  # so that the kill falls anywhere in the next appends
        finally:
            finish(process)
        seen = everything(store)
        assert len(seen) >= stored
        assert_same(seen, rows(0, len(seen)))
        assert store.repair("ETHUSDT", MINUTE_MS) == []
        assert not list(store.root.rglob(".tmp-*"))
    assert store.append("ETHUSDT", WALK) == 3000 - len(seen)
    assert_same(everything(store), WALK)


def test_a_file_that_cannot_be_read_is_named(store: KlineStore) -> None:
    store.append("ETHUSDT", random_walk_klines(10))
    path = store.root / "ETHUSDT-1m" / "absent.json"
    path.mkdir()
    with pytest.raises(WorkerError, match=r"absent\.json: cannot be read: Is a directory; check the owner and mode"):
        store.gaps("ETHUSDT", MINUTE_MS)


def test_no_damage_to_a_month_goes_unnoticed(store: KlineStore) -> None:
    """Wherever a byte is another one: the file is refused, or what is read is what was written."""
    store.append("ETHUSDT", WALK)
    path = sorted(store.root.rglob("2*.parquet"))[0]
    content, written = path.read_bytes(), unpacked(path, MINUTE_MS)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        at = int(rng.integers(len(content)))
        damaged[at : at + int(rng.integers(1, 64))] = rng.bytes(1)
        path.write_bytes(damaged)
        try:
            found = unpacked(path, MINUTE_MS)
        except Damaged:
            refused += 1
        else:
            assert_same(found, written)
    assert refused > 300


def test_a_month_of_before_there_were_checksums_is_read(store: KlineStore) -> None:
    store.append("ETHUSDT", WALK)
    path = sorted(store.root.rglob("2*.parquet"))[0]
    written = unpacked(path, MINUTE_MS)
    pl.read_parquet(path).write_parquet(path)
    assert_same(unpacked(path, MINUTE_MS), written)
