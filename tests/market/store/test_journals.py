"""Journals of large months: what counts, when a month takes its journal in, and kills in between."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import MINUTE_MS
from klines.klines import Klines
from klines.spans import Span
from market.store.inspection import tail_fault
from market.store.kline_store import TAIL_BEHIND_MS, KlineStore
from market.store.warm_start import read_tail
from tests.fakes.klines import assert_exact, same
from tests.market.store.month_end import CORRECTED, DAMAGES, MONTH_END_MS, WALK, at, everything, names, parquet, rows


def test_few_rows_of_a_large_month_are_written_alone(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 100))
    month = journalled.root / "ETHUSDT-1m" / "2023-11.parquet"
    before = month.read_bytes()
    for row in range(100, 140):
        assert journalled.append("ETHUSDT", rows(row - 60, row + 1)) == 1
        assert journalled.append("ETHUSDT", rows(row - 60, row + 1)) == 0
        assert_exact(everything(KlineStore(journalled.root)), rows(0, row + 1))
        assert journalled.latest("ETHUSDT", MINUTE_MS) == at(row)
        assert journalled.missing("ETHUSDT", MINUTE_MS, at(0), at(row + 1)) == []
    assert month.read_bytes() == before
    assert names(journalled) == ["2023-11.new.parquet", "2023-11.parquet"]
    journalled.append("ETHUSDT", rows(140, 141))
    assert names(journalled) == ["2023-11.parquet"]
    assert_exact(everything(journalled), rows(0, 141))


def test_a_small_month_has_no_journal(store: KlineStore) -> None:
    for row in range(50):
        store.append("ETHUSDT", rows(row, row + 1))
    assert names(store) == ["2023-11.parquet"]


def test_a_month_that_is_over_takes_its_journal_in(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 1490))
    journalled.append("ETHUSDT", rows(1490, 1500))
    assert names(journalled) == ["2023-11.new.parquet", "2023-11.parquet"]
    journalled.append("ETHUSDT", rows(1500, 1501))
    assert names(journalled) == ["2023-11.parquet", "2023-12.parquet"]
    assert_exact(everything(journalled), rows(0, 1501))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_costs_its_own_rows_alone(journalled: KlineStore, damage: Callable[[bytes], bytes]) -> None:
    journalled.append("ETHUSDT", rows(0, 1000))
    for row in range(1000, 1030):
        journalled.append("ETHUSDT", rows(row, row + 1))
    path = journalled.root / "ETHUSDT-1m" / "2023-11.new.parquet"
    path.write_bytes(damage(path.read_bytes()) + b" ")  # of another length: the disk's clock may stand still
    assert_exact(everything(journalled), rows(0, 1000))
    (damaged,) = journalled.repair("ETHUSDT", MINUTE_MS)
    assert damaged.name.startswith("2023-11.new.damaged-")
    assert journalled.missing("ETHUSDT", MINUTE_MS, at(0), at(1030)) == [(at(1000), at(1030))]
    journalled.append("ETHUSDT", rows(1000, 1030))
    assert_exact(everything(journalled), rows(0, 1030))


def test_a_damaged_month_leaves_its_journal(journalled: KlineStore) -> None:
    journalled.append("ETHUSDT", rows(0, 100))
    journalled.append("ETHUSDT", rows(100, 110))
    month = journalled.root / "ETHUSDT-1m" / "2023-11.parquet"
    month.write_bytes(month.read_bytes()[:-10])
    assert_exact(everything(journalled), rows(100, 110))
    (damaged,) = journalled.repair("ETHUSDT", MINUTE_MS)
    assert damaged.name.startswith("2023-11.damaged-")
    assert_exact(everything(journalled), rows(100, 110))
    assert journalled.latest("ETHUSDT", MINUTE_MS) == at(109)
    assert journalled.append("ETHUSDT", rows(0, 100)) == 100
    assert_exact(everything(journalled), rows(0, 110))


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
    for name in [name for name in before if name.startswith("tails") and before[name] != after[name]]:
        del now[name]  # before the months that correct what is in it
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
            assert tail_fault(again, "ETHUSDT", MINUTE_MS) == ""
            again.append("ETHUSDT", batch)
            assert again.append("ETHUSDT", batch) == 0
            assert_exact(everything(again), wanted)
            assert again.missing("ETHUSDT", MINUTE_MS, at(1400), at(1660)) == holes_of(wanted, 1400, 1660)
            assert again.latest("ETHUSDT", MINUTE_MS) == int(wanted.open_time_ms[-1])
            expected = wanted
        once = KlineStore(Path(folder) / "once")
        once.append("ETHUSDT", expected)
        store = KlineStore(root, journal_rows=journal_rows, small_bytes=small_bytes)
        assert_exact(everything(store), everything(once))
        assert tail_fault(store, "ETHUSDT", MINUTE_MS) == ""
        store.append("ETHUSDT", rows(1700, 1700 + TAIL_BEHIND_MS // MINUTE_MS))
        assert same(read_tail(root, "ETHUSDT", MINUTE_MS), everything(store))  # what a kill left undone is done by then


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
