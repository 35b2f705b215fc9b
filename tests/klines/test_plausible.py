"""Candles of real markets are believed."""

from pathlib import Path

import polars as pl
import pytest

from core.clock import MINUTE_MS
from klines.checks import check_rows
from klines.klines import COLUMNS, Klines
from klines.plausible import doubts_of


@pytest.mark.parametrize("week", ["20221106", "20230322"], ids=["the FTX week", "the halt of 2023-03-24"])
def test_what_really_happened_is_believed(shared_data: Path, week: str) -> None:
    """BTC fell by a quarter within days, SOL by two thirds, and once trading stood still: none of it is a spike."""
    for file in sorted((shared_data / "spot").glob(f"*-1m-{week}-*.parquet")):
        frame = pl.read_parquet(file)
        columns = {name: frame[name].cast(pl.Float64).to_numpy() for name in COLUMNS}
        found = check_rows(MINUTE_MS, frame["open_time"].to_numpy(), columns)
        assert not found.rejected
        believed: Klines | None = None
        for first in range(0, len(found.klines), 500):
            batch = found.klines.rows(first, first + 500)
            assert not doubts_of(batch, believed).spikes
            believed = batch
