"""The newest klines for serving: written by the store, read without its libraries, never trusted blindly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.clock import HOUR_MS, MINUTE_MS
from klines.klines import Klines
from market.store.kline_store import KlineStore
from market.store.warm_start import TAIL_ROWS, read_tail
from tests.fakes.klines import random_walk_klines, same

WALK = random_walk_klines(TAIL_ROWS + 500)


def tail_of(store: KlineStore) -> Klines:
    return read_tail(store.root, "ETHUSDT", MINUTE_MS)


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


def with_negative_price(path: Path) -> None:
    table = np.load(path)
    table[7, 4] *= -1
    np.save(path, table)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(Path.unlink, id="of a store of before there was one"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"\x93NUMPY\x01\x00garbage"), id="torn"),
        pytest.param(lambda path: path.write_bytes(b"not a table at all" * 100), id="foreign"),
        pytest.param(with_negative_price, id="prices that cannot be"),
    ],
)
def test_one_that_cannot_be_used_is_skipped_and_written_anew(store: KlineStore, spoil: Callable[[Path], None]) -> None:
    store.append("ETHUSDT", WALK.between(0, int(WALK.open_time_ms[-1])))
    spoil(store.root / "tails" / "ETHUSDT-1m.npy")
    assert not len(tail_of(store))
    store.append("ETHUSDT", WALK.tail(1))
    assert same(tail_of(store), WALK.tail(TAIL_ROWS))
