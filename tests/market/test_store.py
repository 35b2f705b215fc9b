"""The kline store: merges, months, damage, several processes, and kills at any moment."""

import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError, WorkerError
from market.klines import COLUMNS, Klines
from market.store import ABSENT_FOR_MS, KlineStore, Span, without
from tests.fakes import START_MS, random_walk_klines

REPOSITORY = Path(__file__).parents[2]
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
    assert json.loads(path.read_bytes()) == [[at(0), at(5), at(100)]]


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


# -- several processes ------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from core.clock import MINUTE_MS
from market.store import KlineStore
from tests.fakes import random_walk_klines
store, start_ms = KlineStore(Path(sys.argv[1])), int(sys.argv[3])
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


def writer(root: Path, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), what, str(at(0))],
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


def test_kills_at_any_moment_lose_nothing_that_was_stored(store: KlineStore) -> None:
    chance = random.Random(5)
    stored = 0
    for _ in range(8):
        process = writer(store.root, "append")
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
