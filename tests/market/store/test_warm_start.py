"""The newest klines for serving: written by the store, read without its libraries, never trusted blindly."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.clock import HOUR_MS, MINUTE_MS
from klines.klines import COLUMNS, Klines
from market.store.kline_store import KlineStore
from market.store.warm_start import TAIL_ROWS, read_tail
from tests.fakes.klines import random_walk_klines

WALK = random_walk_klines(TAIL_ROWS + 500)


def same(one: Klines, other: Klines) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("open_time_ms", *COLUMNS))


def tail_of(store: KlineStore) -> Klines:
    return read_tail(store.root, "ETHUSDT", MINUTE_MS)


@pytest.fixture
def store(tmp_path: Path) -> KlineStore:
    return KlineStore(tmp_path)


def test_it_is_what_the_store_has_newest(store: KlineStore) -> None:
    assert not len(tail_of(store))
    for start, end in ((0, 100), (100, 4_400), (4_300, 4_500)):
        part = WALK.between(int(WALK.open_time_ms[start]), int(WALK.open_time_ms[end - 1]) + 1)
        store.append("ETHUSDT", part)
        newest = WALK.between(0, part.end_ms).tail(TAIL_ROWS)
        assert same(tail_of(store), newest)


def test_older_klines_that_come_later_do_not_push_newer_ones_out(store: KlineStore) -> None:
    store.append("ETHUSDT", WALK.tail(300))
    store.append("ETHUSDT", WALK.between(0, int(WALK.open_time_ms[-300])))
    assert same(tail_of(store), WALK.tail(TAIL_ROWS))
    store.append("ETHUSDT", random_walk_klines(10, start_ms=int(WALK.open_time_ms[0]) - HOUR_MS))
    assert same(tail_of(store), WALK.tail(TAIL_ROWS))


def test_a_store_of_before_gets_one_with_its_next_klines(store: KlineStore) -> None:
    store.append("ETHUSDT", WALK.between(0, int(WALK.open_time_ms[-1])))
    (store.root / "tails" / "ETHUSDT-1m.npy").unlink()
    store.append("ETHUSDT", WALK.tail(1))
    assert same(tail_of(store), WALK.tail(TAIL_ROWS))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x93NUMPY\x01\x00garbage", id="torn"),
        pytest.param(b"not a table at all" * 100, id="foreign"),
        pytest.param(None, id="prices that cannot be"),
    ],
)
def test_a_damaged_one_is_skipped_and_written_anew(store: KlineStore, content: bytes | None) -> None:
    store.append("ETHUSDT", WALK.between(0, int(WALK.open_time_ms[-1])))
    path = store.root / "tails" / "ETHUSDT-1m.npy"
    if content is None:
        table = np.load(path)
        table[7, 4] *= -1
        np.save(path, table)
    else:
        path.write_bytes(content)
    assert not len(tail_of(store))
    store.append("ETHUSDT", WALK.tail(1))
    assert same(tail_of(store), WALK.tail(TAIL_ROWS))


def test_reading_it_loads_no_polars(store: KlineStore) -> None:
    store.append("ETHUSDT", WALK)
    code = f"""
import sys
from pathlib import Path
from market.store.warm_start import read_tail
assert len(read_tail(Path({str(store.root)!r}), "ETHUSDT", 60_000)) == {TAIL_ROWS}
assert "polars" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
