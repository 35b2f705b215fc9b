"""Which rows of a batch are klines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import MINUTE_MS, iso
from core.errors import MalformedKlines
from klines.checks import CONTRADICTING, MOST_REJECTED, check_rows
from klines.klines import COLUMNS, PRICE_COLUMNS, Floats, Klines
from klines.spans import INTERVALS_MS
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines

ROWS = 200
WALK = random_walk_klines(ROWS)
COLUMNS_OF = {name: getattr(WALK, name) for name in COLUMNS}


def changed(**cells: float) -> dict[str, Floats]:
    """The walk's columns with other numbers in row 5."""
    columns = {name: column.copy() for name, column in COLUMNS_OF.items()}
    for name, cell in cells.items():
        columns[name][5] = cell
    return columns


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        pytest.param({"close": float("nan")}, "price is not finite", id="a price that is no number"),
        pytest.param({"high": float("inf")}, "price is not finite", id="a price without end"),
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
def test_one_bad_row_is_rejected_and_the_others_are_used(cells: dict[str, float], reason: str) -> None:
    """And klines with such a row cannot be made, if a price or the volume is wrong."""
    if cells.keys().isdisjoint({"trades", "taker_buy_quote", "quote_volume", "taker_buy_base"}):
        with pytest.raises(MalformedKlines, match=f"{reason}.*: kline at {iso(int(WALK.open_time_ms[5]))} has open"):
            Klines(interval_ms=MINUTE_MS, open_time_ms=WALK.open_time_ms, **changed(**cells))
    found = check_rows(MINUTE_MS, WALK.open_time_ms, changed(**cells))
    (row,) = found.rejected
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
    strict = check_rows(MINUTE_MS, WALK.open_time_ms, changed(**cells), strict=True)
    assert strict.rejected == found.marked
    assert len(strict.klines) == ROWS - 1


def test_a_venue_whose_volumes_all_contradict_each_other_still_tells_prices() -> None:
    found = check_rows(MINUTE_MS, WALK.open_time_ms, COLUMNS_OF | {"taker_buy_base": WALK.volume * 2})
    assert len(found.marked) == ROWS
    np.testing.assert_array_equal(found.klines.close, WALK.close)


@pytest.mark.parametrize("digits", [np.float32, lambda column: np.array([float(f"{cell:.6g}") for cell in column])])
def test_rounding_contradicts_nothing(digits: Callable[..., Any]) -> None:
    """Numbers of 32 bits, and texts of six digits."""
    flat = {name: np.full(ROWS, 1234.5678) for name in PRICE_COLUMNS}
    volumes = {"volume": WALK.volume, "taker_buy_base": WALK.volume}
    quotes = dict.fromkeys(("quote_volume", "taker_buy_quote"), WALK.volume * 1234.5678)
    columns = {name: np.array(digits(column), np.float64) for name, column in (flat | volumes | quotes).items()}
    found = check_rows(MINUTE_MS, WALK.open_time_ms, columns)
    assert not found.rejected
    assert not found.marked


def test_no_real_candle_contradicts_itself(shared_data: Path) -> None:
    """Of 1,556,056 spot candles and 43,198 of futures, all that there are here."""
    rows = 0
    for file in sorted(shared_data.glob("*/*.parquet")):
        frame = pl.read_parquet(file)
        interval_ms = INTERVALS_MS[file.name.split("-")[1]]
        columns = {name: frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in COLUMNS}
        found = check_rows(interval_ms, frame["open_time"].to_numpy(), columns)
        assert not found.rejected
        assert not found.marked
        rows += len(frame)
    assert rows == 1_599_254


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
    assert all(reason in row.reason for row in found.rejected)
    assert len(found.klines) + len(found.rejected) == ROWS
    assert 1 <= len(found.rejected) <= 2  # of two different rows of one time nobody knows which is right


def test_most_rows_that_are_no_klines_spoil_the_batch() -> None:
    times = np.where(np.arange(ROWS) < 110, -1, WALK.open_time_ms)
    with pytest.raises(MalformedKlines, match=r"110 of 200 rows are no klines.*kline at a time that cannot be read"):
        check_rows(MINUTE_MS, times, COLUMNS_OF)
    swapped = COLUMNS_OF | {"open": WALK.low, "high": WALK.open, "low": WALK.high}
    with pytest.raises(MalformedKlines, match="200 of 200 rows are no klines: low is above open or close"):
        check_rows(MINUTE_MS, WALK.open_time_ms, swapped)


@given(order=st.permutations(list(range(30))), twice=st.lists(st.integers(0, 29), max_size=10))
def test_order_and_repetition_change_nothing(order: list[int], twice: list[int]) -> None:
    rows = np.array([*order, *twice])
    found = check_rows(MINUTE_MS, WALK.open_time_ms[rows], {name: column[rows] for name, column in COLUMNS_OF.items()})
    assert not found.rejected
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
    assert len(found.rejected) <= MOST_REJECTED * len(times)
