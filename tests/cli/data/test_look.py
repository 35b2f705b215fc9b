"""``birnn data verify``, ``gaps`` and ``trim``."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, MINUTE_MS, SystemClock
from klines.klines import COLUMNS, Klines
from market.store.kline_store import KlineStore
from market.store.retention import BACKTEST_DAYS
from model.panels import MINUTE, training_start_ms
from research.backtest.walk import SPAN_DAYS
from tests.cli.data.stand import (
    at,
    data,
    row_of,
)
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines


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
    assert row_of(shown, "ETHUSDT-1m") == ["ETHUSDT-1m", "2023-11-15 16:40", "2023-11-15 16:50", "10", "not asked yet"]
    store.remember_absent("ETHUSDT", MINUTE_MS, [(at(1000), at(1010))], now_ms=START_MS + DAY_MS)
    _, shown, _ = data(tmp_path, "gaps", "--interval", "1m")
    assert row_of(shown, "ETHUSDT-1m")[-1] == "no klines (asked 2023-11-16 00:00)"
    refused = {at(1000): "low is above open or close"}
    store.remember_absent("ETHUSDT", MINUTE_MS, [(at(1000), at(1001))], START_MS + DAY_MS, refused)
    told = json.loads(data(tmp_path, "gaps", "--interval", "1m", "--json")[1])["gaps"]
    assert [(one["rows"], one["venue's answer"]) for one in told] == [
        (1, "rows rejected: low is above open or close (asked 2023-11-16 00:00)"),
        (9, "no klines (asked 2023-11-16 00:00)"),
    ]
    _, shown, _ = data(tmp_path, "verify", "--offline")
    assert (
        "ETHUSDT-1m: 1 row rejected, the first of 2023-11-15 16:40Z: low is above open or close (asked for again "
        "by the first sync after 2023-11-17 00:00Z)"
    ) in shown
    assert data(tmp_path, "gaps", "--symbol", "BTCUSDT")[1] == f"no gaps\nklines: {store.root.parent}\n"


def test_the_margin_covers_what_a_backtest_walks_over() -> None:
    assert BACKTEST_DAYS > SPAN_DAYS


@pytest.mark.parametrize("keep_days", [None, 40])
def test_months_that_nothing_reads_are_deleted(tmp_path: Path, keep_days: int | None) -> None:
    now_ms = SystemClock().now_ms()
    store = KlineStore(tmp_path / "klines" / "binance")
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
    assert data(tmp_path, "trim", *arguments, TRAINING_DAYS="30")[1].startswith("nothing is old enough to be deleted\n")
