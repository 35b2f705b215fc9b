"""Klines of tests."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from core.clock import MINUTE_MS
from klines.klines import COLUMNS, PRICE_COLUMNS, Bools, Floats, Ints, Klines
from klines.spans import interval_name
from tests.fakes.clock import START_MS


def random_walk_klines(
    rows: int,
    interval_ms: int = MINUTE_MS,
    seed: int = 0,
    start_ms: int = START_MS,
    sigma: float = 6e-4,
    first: float = 2000.0,
    shocks: Floats | None = None,
) -> Klines:
    """Return a driftless random walk with plausible ranges and volumes; no skill is to be had in it.

    Args:
        shocks: ``(rows,)`` returns in units of sigma, in place of normal ones.
    """
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(rows)  # drawn either way: shocks that are given change no range or volume
    close = first * np.exp(np.cumsum(sigma * (normal if shocks is None else shocks)))
    opened = np.concatenate([[first], close[:-1]])
    spread = np.exp(np.abs(rng.standard_normal((2, rows))) * sigma / 2)
    volume = rng.lognormal(3.0, 0.7, rows)
    taker = volume * rng.uniform(0.3, 0.7, rows)
    return Klines(
        interval_ms=interval_ms,
        open_time_ms=start_ms // interval_ms * interval_ms + interval_ms * np.arange(rows, dtype=np.int64),
        open=opened,
        high=np.maximum(opened, close) * spread[0],
        low=np.minimum(opened, close) / spread[1],
        close=close,
        volume=volume,
        quote_volume=volume * close,
        trades=np.round(volume * 3) + 1,
        taker_buy_base=taker,
        taker_buy_quote=taker * close,
    )


def write_klines(folder: Path, symbol: str, klines: Klines) -> None:
    """Write a file as recordings have them."""
    folder.mkdir(exist_ok=True)
    first, last = (
        datetime.fromtimestamp(edge / 1000, UTC).strftime("%Y%m%d")
        for edge in (int(klines.open_time_ms[0]), klines.end_ms - 1)
    )
    columns = {"open_time": klines.open_time_ms, **{name: getattr(klines, name) for name in COLUMNS}}
    pl.DataFrame(columns).write_parquet(folder / f"{symbol}-{interval_name(klines.interval_ms)}-{first}-{last}.parquet")


def times(klines: Klines, factor: float | Floats) -> Klines:
    """The same candles at other prices; the factor may be another one for each candle."""
    return replace(klines, **{name: getattr(klines, name) * factor for name in PRICE_COLUMNS})


def only(klines: Klines, rows: Sequence[int] | Ints | Bools) -> Klines:
    """Those rows alone, by their numbers or by True."""
    return Klines.from_table(klines.interval_ms, klines.open_time_ms[rows], klines.table()[rows])


def assert_same(
    left: Klines, right: Klines, columns: tuple[str, ...] = COLUMNS, *, rtol: float = 0.0, atol: float = 1e-8
) -> None:
    """Fail unless the times are equal, and the columns as far as texts of eight decimals can say."""
    np.testing.assert_array_equal(left.open_time_ms, right.open_time_ms)
    for name in columns:
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=rtol, atol=atol, err_msg=name)


assert_exact = partial(assert_same, atol=0.0)


def same(left: Klines, right: Klines) -> bool:
    """True if all numbers are equal; a flow that is not known equals none."""
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in ("open_time_ms", *COLUMNS))
