"""Windows and splits: what they hold, what they leave out, and that no part reads into the next."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import MINUTE_MS
from core.errors import TrainingFailed
from core.topic import Target, Topic
from klines.klines import Klines
from model.features import compute, rows_needed, unbroken_needed
from model.heads import LEADER, MINUTE, PanelPlan, panels_for
from model.windows import LEAST_ROWS, Windows, build, purged_split
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines

ROWS = 3200
WALKS = {"BTCUSDT": random_walk_klines(ROWS, seed=1), "ETHUSDT": random_walk_klines(ROWS, seed=2)}


def plan_for(*topics: tuple[str, Target, int]) -> PanelPlan:
    asked = [
        Topic(topic_id=number, token=symbol[:3], symbol=symbol, target=target, horizon_min=minutes)
        for number, (symbol, target, minutes) in enumerate(topics, 1)
    ]
    return panels_for(asked)[MINUTE]


PLAN = plan_for(("ETHUSDT", Target.PRICE, 10), ("BTCUSDT", Target.VOLATILITY, 15))
WINDOWS = build(PLAN, WALKS)


def without(klines: Klines, row: int) -> Klines:
    """The same klines with one missing."""
    return klines.between(0, int(klines.open_time_ms[row])).merge(
        klines.between(int(klines.open_time_ms[row + 1]), 2**62)
    )


def times_of(windows: Windows, rows: "np.ndarray[Any, Any]", symbol: str) -> list[int]:
    mine = windows.symbol[rows] == windows.plan.symbols.index(symbol)
    return [(int(time) - START_MS) // MINUTE_MS for time in windows.open_time_ms[rows[mine]]]


def test_a_window_is_the_features_up_to_its_row() -> None:
    rows = WINDOWS.rows(0, 2**62)[[0, -1]]
    x_BLF = WINDOWS.gather(rows)
    for window, row in zip(x_BLF, rows, strict=True):
        symbol = PLAN.symbols[WINDOWS.symbol[row]]
        table = compute(WALKS[symbol], WALKS[LEADER], MINUTE)
        last = int(np.flatnonzero(table.open_time_ms == WINDOWS.open_time_ms[row])[0])
        np.testing.assert_array_equal(window, table.x[last - MINUTE.lookback + 1 : last + 1])


def test_rows_have_memory_and_a_future() -> None:
    times = times_of(WINDOWS, WINDOWS.rows(0, 2**62), "ETHUSDT")
    assert times == list(range(rows_needed(MINUTE) - 1, ROWS - 10))  # some head has its truth: the shorter horizon


def test_a_hole_leaves_no_window_across_it() -> None:
    hole = 2000
    windows = build(PLAN, {"BTCUSDT": WALKS["BTCUSDT"], "ETHUSDT": without(WALKS["ETHUSDT"], hole)})
    left = times_of(windows, windows.rows(0, 2**62), "ETHUSDT")
    assert left == [*range(rows_needed(MINUTE) - 1, hole - 10), *range(hole + unbroken_needed(MINUTE), ROWS - 10)]
    every = windows.rows(0, 2**62)
    assert times_of(windows, every, "BTCUSDT") == times_of(WINDOWS, WINDOWS.rows(0, 2**62), "BTCUSDT")


@pytest.mark.parametrize("lookback", [MINUTE.lookback - 20, MINUTE.lookback, MINUTE.lookback + 20])
def test_windows_of_another_length_are_those_that_would_have_been_built(lookback: int) -> None:
    walks = {"BTCUSDT": without(WALKS["BTCUSDT"], 1900), "ETHUSDT": without(WALKS["ETHUSDT"], 2600)}
    here, there = build(PLAN, walks).reading(lookback), build(PLAN.reading(lookback), walks)
    rows = here.rows(0, 2**62)
    longer = max(lookback, MINUTE.lookback)
    np.testing.assert_array_equal(rows, build(PLAN.reading(longer), walks).rows(0, 2**62))
    assert here.gather(rows).shape == (len(rows), lookback, here.x.shape[1])
    np.testing.assert_array_equal(here.gather(rows), there.gather(rows))


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_the_phases_of_a_stride_share_out_the_rows(stride: int) -> None:
    parts = [WINDOWS.rows(0, 2**62, stride=stride, phase=phase) for phase in range(stride)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), WINDOWS.rows(0, 2**62))
    ticks = WINDOWS.open_time_ms[parts[0]] // MINUTE_MS
    assert (ticks % stride == 0).all()


def test_a_symbol_without_klines_has_no_rows() -> None:
    windows = build(PLAN, {"BTCUSDT": WALKS["BTCUSDT"], "ETHUSDT": Klines.empty(MINUTE_MS)})
    assert times_of(windows, windows.rows(0, 2**62), "ETHUSDT") == []
    assert len(windows.rows(0, 2**62))


@settings(max_examples=25, deadline=None)
@given(horizon=st.integers(2, 240), rows=st.integers(2000, ROWS), hole=st.integers(20, 1900))
def test_no_label_of_one_part_reads_into_the_next(horizon: int, rows: int, hole: int) -> None:
    plan = plan_for(("ETHUSDT", Target.VOLATILITY, horizon), ("ETHUSDT", Target.PRICE, 5))
    walks = {"BTCUSDT": WALKS["BTCUSDT"].tail(rows), "ETHUSDT": without(WALKS["ETHUSDT"].tail(rows), hole)}
    windows = build(plan, walks)
    try:
        split = purged_split(windows)
    except TrainingFailed:
        return
    parts = [
        (split.train_start_ms, split.train_end_ms),
        (split.validate_start_ms, split.validate_end_ms),
        (split.judge_start_ms, split.judge_end_ms),
    ]
    for earlier, later in pairwise(parts):
        last_read = int(windows.open_time_ms[windows.rows(*earlier)].max()) + max(horizon, 5) * MINUTE_MS
        assert last_read < int(windows.open_time_ms[windows.rows(*later)].min())
    assert min(len(windows.rows(*part)) for part in parts) >= LEAST_ROWS
    assert not set(windows.rows(*parts[0])) & set(windows.rows(*parts[2]))


def test_every_symbol_is_cut_at_the_same_moments() -> None:
    walks = {"BTCUSDT": WALKS["BTCUSDT"], "ETHUSDT": WALKS["ETHUSDT"].tail(2000)}  # listed later
    assert purged_split(build(PLAN, walks)) == purged_split(WINDOWS)


def test_three_days_are_enough_for_four_hours() -> None:
    walk = random_walk_klines(4 * 1440)  # and the day that the first window remembers
    windows = build(plan_for(("BTCUSDT", Target.PRICE, 240)), {"BTCUSDT": walk})
    split = purged_split(windows)
    assert split.judge_end_ms == walk.end_ms - 240 * MINUTE_MS  # the newest row whose truth is known


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(rows_needed(MINUTE) - 1, "no window without a hole", id="none at all"),
        pytest.param(rows_needed(MINUTE) + 30, r"\d+ to train, \d+ to validate, \d+ to judge", id="too few"),
    ],
)
def test_too_little_history_is_an_error_that_counts_the_rows(rows: int, message: str) -> None:
    windows = build(PLAN, {symbol: walk.tail(rows) for symbol, walk in WALKS.items()})
    with pytest.raises(TrainingFailed, match=message):
        purged_split(windows)
