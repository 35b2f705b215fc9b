"""What the tests of the kline store share: a series over the end of a month."""

import io
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from core.clock import DAY_MS, MINUTE_MS
from klines.klines import Klines
from market.store.kline_store import KlineStore
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


CORRECTED = random_walk_klines(3000, start_ms=int(WALK.open_time_ms[0]), seed=9)


def names(store: KlineStore) -> list[str]:
    return sorted(path.name for path in (store.root / "ETHUSDT-1m").iterdir())


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
