"""Which rows of a batch are klines, and which of them are believed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import MINUTE_MS
from core.errors import MalformedKlines
from klines.checks import CONTRADICTING, MOST_REFUSED, RejectedRow, check_rows, separate_rows
from klines.klines import COLUMNS, PRICE_COLUMNS, Klines
from klines.plausible import doubts_of
from klines.spans import INTERVALS
from market.quarantine import FILE, Quarantine
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines

ROWS = 200
WALK = random_walk_klines(ROWS)
INTERVALS_MS = {name: interval_ms for interval_ms, name in INTERVALS.items()}
COLUMNS_OF = {name: getattr(WALK, name) for name in COLUMNS}


def changed(**cells: float) -> dict[str, "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    """The walk's columns with other numbers in row 5."""
    columns = {name: column.copy() for name, column in COLUMNS_OF.items()}
    for name, cell in cells.items():
        columns[name][5] = cell
    return columns


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        pytest.param({"close": float("nan")}, "not finite", id="a price that is no number"),
        pytest.param({"high": float("inf")}, "not finite", id="a price without end"),
        pytest.param({"low": 0.0}, "above 0", id="a price of zero"),
        pytest.param({"open": -1.0}, "above 0", id="a price below zero"),
        pytest.param({"low": 9e9}, "low is above", id="low above open and close"),
        pytest.param({"high": 1e-9}, "high is below", id="high below open and close"),
        pytest.param({"volume": float("nan")}, "volume is not finite", id="no volume"),
        pytest.param({"volume": -1.0}, "below 0", id="volume below zero"),
        pytest.param({"trades": -1.0}, "below 0", id="trades below zero"),
        pytest.param({"quote_volume": float("inf")}, "infinite", id="a flow without end"),
    ],
)
def test_one_bad_row_is_set_aside_and_the_others_are_used(cells: dict[str, float], reason: str) -> None:
    found = check_rows(MINUTE_MS, WALK.open_time_ms, changed(**cells))
    (row,) = found.refused
    assert reason in row.reason
    assert row.open_time_ms == WALK.open_time_ms[5]
    assert len(found.klines) == ROWS - 1
    assert WALK.open_time_ms[5] not in found.klines.open_time_ms


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        pytest.param({"taker_buy_base": WALK.volume[5] * 1.001}, "taker volume is above volume", id="takers"),
        pytest.param(
            {"taker_buy_quote": WALK.quote_volume[5] * 1.001}, "taker quote volume is above", id="takers' quote volume"
        ),
        pytest.param(
            {"quote_volume": WALK.high[5] * WALK.volume[5] * 1.0001}, "between low and high times", id="quote above"
        ),
        pytest.param(
            {"quote_volume": WALK.low[5] * WALK.volume[5] * 0.9999, "taker_buy_quote": 1.0},
            "between low and high times",
            id="quote below",
        ),
        pytest.param({"volume": WALK.volume[5] * 2}, "between low and high times", id="volume"),
        pytest.param({"volume": 0.0}, "between low and high times", id="quote volume without volume"),
    ],
)
def test_volumes_that_contradict_each_other_are_not_known_and_the_candle_is_used(
    cells: dict[str, float], reason: str
) -> None:
    found = check_rows(MINUTE_MS, WALK.open_time_ms, changed(**cells))
    (row,) = found.marked
    assert reason in row.reason
    assert (row.open_time_ms, row.place) == (WALK.open_time_ms[5], 5)
    np.testing.assert_array_equal(found.klines.open_time_ms, WALK.open_time_ms)
    np.testing.assert_array_equal(found.klines.close, WALK.close)
    for name in CONTRADICTING:
        np.testing.assert_array_equal(np.isnan(getattr(found.klines, name)), np.arange(ROWS) == 5)
    strict = separate_rows(MINUTE_MS, WALK.open_time_ms, changed(**cells), strict=True)
    assert strict.refused == found.marked
    assert len(strict.klines) == ROWS - 1


def test_a_venue_whose_volumes_all_contradict_each_other_still_tells_prices() -> None:
    found = check_rows(MINUTE_MS, WALK.open_time_ms, COLUMNS_OF | {"taker_buy_base": WALK.volume * 2})
    assert len(found.marked) == ROWS
    np.testing.assert_array_equal(found.klines.close, WALK.close)
    assert np.isnan(found.klines.taker_buy_base).all()


@pytest.mark.parametrize("digits", [np.float32, lambda column: np.array([float(f"{cell:.6g}") for cell in column])])
def test_rounding_contradicts_nothing(digits: Callable[..., Any]) -> None:
    """Numbers of 32 bits, and texts of six digits."""
    flat = {name: np.full(ROWS, 1234.5678) for name in PRICE_COLUMNS}
    volumes = {"volume": WALK.volume, "taker_buy_base": WALK.volume}
    quotes = dict.fromkeys(("quote_volume", "taker_buy_quote"), WALK.volume * 1234.5678)
    columns = {name: np.array(digits(column), np.float64) for name, column in (flat | volumes | quotes).items()}
    found = check_rows(MINUTE_MS, WALK.open_time_ms, columns)
    assert not found.refused
    assert not found.marked


def test_no_real_candle_contradicts_itself(shared_data: Path) -> None:
    """Of 1,556,056 spot candles and 43,198 of futures, all that there are here."""
    rows = 0
    for file in sorted(shared_data.glob("*/*.parquet")):
        frame = pl.read_parquet(file)
        interval_ms = INTERVALS_MS[file.name.split("-")[1]]
        columns = {name: frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in COLUMNS}
        found = check_rows(interval_ms, frame["open_time"].to_numpy(), columns)
        assert not found.refused
        assert not found.marked
        rows += len(frame)
    assert rows == 1_599_254


def test_a_time_that_cannot_be_read_is_told_in_words(tmp_path: Path) -> None:
    times = WALK.open_time_ms.copy()
    times[:110] = -1
    with pytest.raises(MalformedKlines, match=r"110 of 200 rows are no klines.*row of a time that cannot be read"):
        check_rows(MINUTE_MS, times, COLUMNS_OF)
    times[1:110] = WALK.open_time_ms[1:110]
    aside = Quarantine(tmp_path)
    aside.put("binance", "ETHUSDT", MINUTE_MS, check_rows(MINUTE_MS, times, COLUMNS_OF).refused, START_MS)
    assert json.loads((tmp_path / FILE).read_text())["open_time_ms"] is None


@pytest.mark.parametrize(
    ("at_ms", "reason"),
    [
        pytest.param(int(WALK.open_time_ms[5]) + 1, "grid", id="off the grid"),
        pytest.param(int(WALK.open_time_ms[5]) // 1000 // 60_000 * 60_000, "2009", id="seconds"),
        pytest.param(int(WALK.open_time_ms[-1]) + 60 * MINUTE_MS, "future", id="to come"),
        pytest.param(int(WALK.open_time_ms[9]), "two different rows", id="another row's time"),
    ],
)
def test_a_row_of_a_wrong_time_is_set_aside(at_ms: int, reason: str) -> None:
    times = WALK.open_time_ms.copy()
    times[5] = at_ms
    found = check_rows(MINUTE_MS, times, COLUMNS_OF, now_ms=WALK.end_ms)
    assert all(reason in row.reason for row in found.refused)
    assert len(found.klines) + len(found.refused) == ROWS
    assert 1 <= len(found.refused) <= 2  # of two different rows of one time nobody knows which is right


def test_a_batch_of_other_columns_is_no_batch() -> None:
    swapped = dict(COLUMNS_OF) | {"open": WALK.low, "high": WALK.open, "low": WALK.high}
    with pytest.raises(MalformedKlines):
        check_rows(MINUTE_MS, WALK.open_time_ms, swapped)


@given(order=st.permutations(list(range(30))), twice=st.lists(st.integers(0, 29), max_size=10))
def test_order_and_repetition_change_nothing(order: list[int], twice: list[int]) -> None:
    rows = np.array([*order, *twice])
    found = check_rows(MINUTE_MS, WALK.open_time_ms[rows], {name: column[rows] for name, column in COLUMNS_OF.items()})
    assert not found.refused
    np.testing.assert_array_equal(found.klines.open_time_ms, WALK.open_time_ms[:30])
    np.testing.assert_array_equal(found.klines.close, WALK.close[:30])


CELLS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0.5, 2.0)


@given(
    times=st.lists(st.integers(0, 20).map(lambda n: START_MS + n * 30_000), min_size=1, max_size=12),
    table=st.lists(st.lists(CELLS, min_size=9, max_size=9), min_size=12, max_size=12),
)
def test_what_comes_out_always_keeps_the_rules(times: list[int], table: list[list[float]]) -> None:
    columns = {name: np.array([table[row][at] for row in range(len(times))]) for at, name in enumerate(COLUMNS)}
    try:
        found = check_rows(MINUTE_MS, np.array(times, np.int64), columns)
    except MalformedKlines:
        return
    assert len(found.klines) <= len(times)  # and building them has checked every rule
    assert len(found.refused) <= MOST_REFUSED * len(times)


def test_refused_rows_are_kept_once_and_counted(tmp_path: Path) -> None:
    aside = Quarantine(tmp_path / "klines")
    row = RejectedRow(
        open_time_ms=START_MS, reason="low is above open or close", row=(1.0, float("inf"), *[float("nan")] * 7)
    )
    aside.put("binance", "ETHUSDT", MINUTE_MS, [row], START_MS)
    aside.put("binance", "ETHUSDT", MINUTE_MS, [row], START_MS + MINUTE_MS)
    aside.put("kraken", "ETHUSDT", MINUTE_MS, [row], START_MS)
    assert aside.counts == {
        ("binance", "ETHUSDT", row.reason): 1,
        ("kraken", "ETHUSDT", row.reason): 1,
    }
    lines = [json.loads(line) for line in (tmp_path / "klines" / FILE).read_text().splitlines()]
    assert [line["venue"] for line in lines] == ["binance", "kraken"]
    assert lines[0]["high"] == "inf"
    assert lines[0]["low"] is None


def test_a_disk_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "klines").write_text("no folder")
    aside = Quarantine(tmp_path / "klines")
    aside.put("binance", "ETHUSDT", MINUTE_MS, [RejectedRow(open_time_ms=0, reason="x", row=(1.0,) * 9)], 0)
    assert sum(aside.counts.values()) == 1


FOLDERS = ("*-1m-20221106-*", "*-1m-20230322-*")


@pytest.mark.parametrize("pattern", FOLDERS, ids=["the FTX week", "the halt of 2023-03-24"])
def test_what_really_happened_is_believed(shared_data: Path, pattern: str) -> None:
    """BTC fell by a quarter within days, SOL by two thirds, and once trading stood still: none of it is a spike."""
    for file in sorted((shared_data / "spot").glob(f"{pattern}.parquet")):
        frame = pl.read_parquet(file)
        names = dict(zip(COLUMNS, COLUMNS, strict=True))
        columns = {name: frame[name].cast(pl.Float64).to_numpy() for name in names}
        found = check_rows(MINUTE_MS, frame["open_time"].to_numpy(), columns)
        assert not found.refused
        klines = found.klines
        told: Klines | None = None
        for start in range(0, len(klines), 500):
            batch = klines.between(
                int(klines.open_time_ms[start]), int(klines.open_time_ms[min(start + 500, len(klines)) - 1]) + 1
            )
            assert not doubts_of(batch, told).spikes
            told = batch
