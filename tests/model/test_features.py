"""Features: causal, of finite memory, alike live and stored, neutral where a venue has no number."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS
from klines.klines import COLUMNS, Klines
from model.features import (
    FEATURES,
    FLAT,
    LIMIT,
    WARMUP,
    compute,
    describe,
    present_scale,
    rows_needed,
    unbroken_needed,
)
from model.heads import HOUR, MINUTE
from tests.fakes.klines import random_walk_klines

ROWS = rows_needed(MINUTE) + 400
LEADER_WALK = random_walk_klines(ROWS, seed=1, first=40_000.0)
WALK = random_walk_klines(ROWS, seed=2)
TABLE = compute(WALK, LEADER_WALK, MINUTE)


def changed_after(klines: Klines, cut: int, seed: int) -> Klines:
    """The same klines up to row ``cut``, another market from there on."""
    future = random_walk_klines(len(klines), seed=seed, first=float(klines.close[cut - 1]) * 3, sigma=5e-3)
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(klines, name)[:cut], getattr(future, name)[cut:]]) for name in COLUMNS
    }
    return replace(klines, **columns)


def without(klines: Klines, row: int) -> Klines:
    """The same klines with one missing."""
    return klines.between(0, int(klines.open_time_ms[row])).merge(
        klines.between(int(klines.open_time_ms[row + 1]), 2**62)
    )


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(WARMUP, ROWS - 1), seed=st.integers(10, 99))
def test_no_feature_reads_the_future(cut: int, seed: int) -> None:
    other = compute(changed_after(WALK, cut, seed), changed_after(LEADER_WALK, cut, seed + 1), MINUTE)
    np.testing.assert_array_equal(other.x[:cut], TABLE.x[:cut])
    np.testing.assert_array_equal(other.scale[:cut], TABLE.scale[:cut])


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(rows_needed(MINUTE), ROWS))
def test_live_features_equal_stored_ones(cut: int) -> None:
    end_ms = int(WALK.open_time_ms[cut - 1]) + 1
    live = [run.between(0, end_ms).tail(rows_needed(MINUTE)) for run in (WALK, LEADER_WALK)]
    table = compute(live[0], live[1], MINUTE)
    assert table.usable.tolist() == [False] * (rows_needed(MINUTE) - 1) + [True]
    window = slice(cut - MINUTE.lookback, cut)
    np.testing.assert_array_equal(table.x[-MINUTE.lookback :], TABLE.x[window])
    assert table.scale[-1] == TABLE.scale[cut - 1]


@pytest.mark.parametrize("newest", [0, 1, MINUTE.lookback, ROWS, ROWS + 1])
def test_the_newest_rows_alone_are_the_newest_of_all(newest: int) -> None:
    holed = without(WALK, ROWS - 300)
    led = describe(LEADER_WALK, MINUTE.memory)
    table, whole = compute(holed, LEADER_WALK, MINUTE, led=led, newest=newest), compute(holed, LEADER_WALK, MINUTE)
    for name in ("open_time_ms", "x", "scale", "close", "usable"):
        wanted = getattr(whole, name)[max(0, len(holed) - newest) :]
        np.testing.assert_array_equal(getattr(table, name), wanted, err_msg=name)


@given(end=st.integers(WARMUP, ROWS))
def test_the_present_scale_is_the_last_row_s(end: int) -> None:
    run = WALK.between(0, int(WALK.open_time_ms[end - 1]) + 1)
    assert present_scale(run) == pytest.approx(TABLE.scale[end - 1], rel=1e-12)


def test_a_window_that_lacks_one_candle_of_memory_is_not_usable() -> None:
    short = [run.tail(rows_needed(MINUTE) - 1) for run in (WALK, LEADER_WALK)]
    assert not compute(short[0], short[1], MINUTE).usable.any()


@pytest.mark.parametrize("of_leader", [False, True], ids=["hole in the symbol", "hole in the leader"])
def test_no_window_is_near_a_hole(of_leader: bool) -> None:
    hole = ROWS - unbroken_needed(MINUTE) - 50
    own, led = (WALK, without(LEADER_WALK, hole)) if of_leader else (without(WALK, hole), LEADER_WALK)
    table = compute(own, led, MINUTE)
    usable = table.open_time_ms[table.usable]
    after = usable[usable > WALK.open_time_ms[hole]]
    assert after[0] == WALK.open_time_ms[hole] + unbroken_needed(MINUTE) * WALK.interval_ms
    assert len(usable) - len(after) == hole - rows_needed(MINUTE) + 1


@settings(max_examples=20, deadline=None)
@given(hole=st.integers(2, rows_needed(MINUTE) - unbroken_needed(MINUTE)))
def test_a_hole_further_back_shortens_the_memory_alike_live_and_stored(hole: int) -> None:
    holed = without(WALK, ROWS - unbroken_needed(MINUTE) - hole)
    stored, live = (compute(run, LEADER_WALK, MINUTE) for run in (holed, holed.tail(rows_needed(MINUTE))))
    assert live.usable[-1]
    np.testing.assert_array_equal(live.x[-MINUTE.lookback :], stored.x[-MINUTE.lookback :])
    np.testing.assert_allclose(stored.x[-1], TABLE.x[-1], atol=0.02)


def test_features_are_free_of_the_price_level_and_of_the_unit_of_volume() -> None:
    scaled = replace(
        WALK,
        **{name: getattr(WALK, name) * 1e-6 for name in ("open", "high", "low", "close")},
        volume=WALK.volume * 1e6,
        taker_buy_base=WALK.taker_buy_base * 1e6,
    )
    np.testing.assert_allclose(compute(scaled, LEADER_WALK, MINUTE).x[WARMUP:], TABLE.x[WARMUP:], atol=1e-4)


def test_features_are_of_the_order_of_one() -> None:
    assert np.abs(TABLE.x).max() <= LIMIT
    for column, name in enumerate(FEATURES):
        if "day" not in name and "week" not in name:  # the walk is not long enough for those
            assert 0.02 < TABLE.x[TABLE.usable, column].std() < 3, name


def test_a_venue_without_flow_columns_gets_neutral_numbers() -> None:
    none = np.full(len(WALK), np.nan)
    bare = replace(WALK, quote_volume=none, trades=none, taker_buy_base=none, taker_buy_quote=none)
    table = compute(bare, LEADER_WALK, MINUTE)
    unknown = {name for name in FEATURES if name.startswith(("trades", "taker"))}
    assert len(unknown) == 5
    for name in unknown:
        assert (table.x[:, FEATURES.index(name)] == 0).all()
    others = [column for column, name in enumerate(FEATURES) if name not in unknown]
    np.testing.assert_array_equal(table.x[:, others], TABLE.x[:, others])
    assert table.usable[-1]


def test_a_market_that_stands_still_gives_finite_numbers() -> None:
    flat, nothing = random_walk_klines(ROWS, sigma=0.0), np.zeros(ROWS)
    flat = replace(flat, volume=nothing, trades=nothing, taker_buy_base=nothing)
    table = compute(flat, flat, MINUTE)
    assert np.isfinite(table.x).all()
    assert (table.scale >= FLAT).all()


def test_the_leader_stands_beside_itself() -> None:
    table = compute(LEADER_WALK, LEADER_WALK, MINUTE)
    own, led = FEATURES.index("return"), FEATURES.index("leader_return")
    np.testing.assert_array_equal(table.x[:, own], table.x[:, led])


def test_hours_have_the_same_features() -> None:
    hours = random_walk_klines(rows_needed(HOUR) + 5, interval_ms=HOUR_MS, sigma=6e-3)
    table = compute(hours, hours, HOUR)
    assert table.x.shape == (len(hours), len(FEATURES))
    assert table.usable.sum() == 6


def test_no_klines_give_no_rows() -> None:
    none = Klines.empty(MINUTE.interval_ms)
    assert compute(none, LEADER_WALK, MINUTE).x.shape == (0, len(FEATURES))
    assert not compute(WALK, none, MINUTE).usable.any()


@pytest.mark.parametrize(
    ("name", "period_ms"), [("day", DAY_MS), ("half_day", DAY_MS // 2), ("hour", HOUR_MS), ("week", 7 * DAY_MS)]
)
def test_the_calendar_is_the_place_in_each_period_from_the_epoch(name: str, period_ms: int) -> None:
    phase = 2 * np.pi * (WALK.open_time_ms % period_ms) / period_ms
    for kind, expected in (("sin", np.sin(phase)), ("cos", np.cos(phase))):
        np.testing.assert_array_equal(TABLE.x[:, FEATURES.index(f"{name}_{kind}")], expected.astype(np.float32))
