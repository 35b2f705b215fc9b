"""The price ratio of two venues: exact where it is constant, robust where minutes are wrong, and silent in doubt."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from klines.klines import Floats, Klines
from market.price_ratio import HALF_LIFE_ROWS, LEAST_ROWS, MOST_APART, MOST_SPREAD, WINDOW_ROWS, PriceRatio, price_ratio
from tests.fakes.klines import only, random_walk_klines, times

KLINES = random_walk_klines(WINDOW_ROWS)


def ratio_of(factor: float | Floats, klines: Klines = KLINES) -> PriceRatio | None:
    """Of a venue whose prices are so many times those of another one."""
    return price_ratio(times(klines, factor), klines)


def value_of(factor: float | Floats, klines: Klines = KLINES) -> float:
    ratio = ratio_of(factor, klines)
    assert ratio is not None
    return ratio.value


@given(
    factor=st.floats(math.exp(-0.029), math.exp(0.029)),
    missing=st.tuples(*2 * [st.sets(st.integers(0, WINDOW_ROWS - 1), max_size=60)]),
)
def test_a_constant_factor_is_found_whatever_is_missing(factor: float, missing: tuple[set[int], set[int]]) -> None:
    one, other = (only(KLINES, [row for row in range(WINDOW_ROWS) if row not in rows]) for rows in missing)
    ratio = price_ratio(times(one, factor), other)
    assert ratio is not None
    assert ratio.value == pytest.approx(factor, rel=1e-12)
    assert ratio.rows == WINDOW_ROWS - len(missing[0] | missing[1])
    assert ratio.spread < 1e-12


def test_a_price_times_the_ratio_is_at_the_other_prices_and_back() -> None:
    other = replace(times(KLINES, 0.999), volume=KLINES.volume / 4)
    there, back = price_ratio(other, KLINES), price_ratio(KLINES, other)
    assert there is not None
    assert back is not None
    assert 2000.0 * there.value == pytest.approx(1998.0)
    assert there.value * back.value == pytest.approx(1.0)
    assert (there.flow, back.flow) == pytest.approx((0.25, 4.0))
    assert (there.newest_ms, there.rows) == (KLINES.end_ms, WINDOW_ROWS)


@given(
    offset=st.integers(0, 4),
    size=st.floats(0.001, 5.0),
    signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=WINDOW_ROWS, max_size=WINDOW_ROWS),
)
def test_every_fifth_minute_wrong_does_not_move_it(offset: int, size: float, signs: list[float]) -> None:
    is_wrong = np.arange(WINDOW_ROWS) % 5 == offset
    factors = np.exp(np.where(is_wrong, size * np.array(signs), 5e-4))
    assert value_of(factors) == pytest.approx(math.exp(5e-4), rel=1e-12)


@given(wrong=st.sets(st.integers(0, WINDOW_ROWS - 1), max_size=120), size=st.floats(-1.0, 1.0))
def test_wrong_minutes_of_less_than_half_the_weight_leave_it_among_the_right_ones(wrong: set[int], size: float) -> None:
    is_wrong = np.isin(np.arange(WINDOW_ROWS), list(wrong))
    weights = 0.5 ** ((WINDOW_ROWS - np.arange(WINDOW_ROWS)) / HALF_LIFE_ROWS)
    assume(weights[is_wrong].sum() < 0.49 * weights.sum())
    right = 5e-4 + 2e-4 * np.random.default_rng(2).standard_normal(WINDOW_ROWS)
    ratio = ratio_of(np.exp(np.where(is_wrong, size, right)))
    if ratio is not None:  # or they were so many that the spread says it
        assert right[~is_wrong].min() <= math.log(ratio.value) + 1e-12
        assert math.log(ratio.value) - 1e-12 <= right[~is_wrong].max()


def test_a_ratio_that_has_jumped_is_followed_once_half_the_weight_is_new() -> None:
    factors = np.full(WINDOW_ROWS, 1.0)
    followed = []
    for minutes in range(1, 12):
        factors[-minutes:] = 1.002
        followed.append(value_of(factors) > 1.001)
    assert followed == [minutes >= HALF_LIFE_ROWS for minutes in range(1, 12)]


@pytest.mark.parametrize("interval_ms", [MINUTE_MS, HOUR_MS])
def test_the_median_is_the_weighted_one_of_the_shared_candles(interval_ms: int) -> None:
    """Of twelve candles, added up from the smallest ratio on."""
    shifts = 1e-4 * np.array([9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0, 0.0, -1.0, -2.0])
    weights = {shift: 2.0 ** (-(11 - place) / HALF_LIFE_ROWS) for place, shift in enumerate(shifts.tolist())}
    reached, expected = 0.0, math.nan
    for shift in sorted(weights):
        reached += weights[shift]
        if reached >= sum(weights.values()) / 2:
            expected = shift
            break
    value = value_of(np.exp(shifts), random_walk_klines(12, interval_ms))
    assert math.log(value) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("shared", "known"), [(0, False), (LEAST_ROWS - 1, False), (LEAST_ROWS, True)])
def test_too_few_shared_candles_say_nothing(shared: int, known: bool) -> None:
    one, other = KLINES.rows(0, 100), KLINES.rows(100 - shared, WINDOW_ROWS)
    assert (price_ratio(other, one) is not None) == known


@pytest.mark.parametrize(("new", "known"), [(LEAST_ROWS - 1, False), (LEAST_ROWS, True)])
def test_nine_new_candles_do_not_become_enough_by_those_of_yesterday(new: int, known: bool) -> None:
    old = replace(KLINES, open_time_ms=KLINES.open_time_ms - DAY_MS)
    ratio = ratio_of(1.001, old.merge(KLINES.tail(new)))
    assert (ratio is not None) == known
    assert ratio is None or ratio.rows == new


def test_a_venue_that_goes_on_alone_does_not_make_the_ratio_young() -> None:
    longer = KLINES.merge(random_walk_klines(150, start_ms=KLINES.end_ms))
    ratio = price_ratio(KLINES, longer)
    assert ratio is not None
    assert (ratio.newest_ms, ratio.rows) == (KLINES.end_ms, WINDOW_ROWS)


def test_a_minute_without_a_trade_says_nothing() -> None:
    """An exchange that stands still repeats its last close, while the other one's prices move on."""
    stands = np.arange(WINDOW_ROWS) >= WINDOW_ROWS - 30
    still = np.where(stands, KLINES.close[WINDOW_ROWS - 31], KLINES.close)
    volume = np.where(stands, 0.0, KLINES.volume)
    other = replace(KLINES, open=still, high=still, low=still, close=still, volume=volume)
    ratio = price_ratio(other, times(KLINES, np.where(stands, 1.004, 1.0)))
    assert ratio is not None
    assert (ratio.value, ratio.newest_ms) == (1.0, KLINES.end_ms - 30 * MINUTE_MS)


@pytest.mark.parametrize("sign", [-1, 1])
def test_what_is_too_far_apart_is_not_the_same_thing(sign: int) -> None:
    for apart, known in ((0.99 * MOST_APART, True), (1.01 * MOST_APART, False), (math.log(1000), False)):
        assert (ratio_of(math.exp(sign * apart)) is not None) == known


def test_what_does_not_move_together_has_no_ratio() -> None:
    for spread, known in ((0.9 * MOST_SPREAD, True), (1.1 * MOST_SPREAD, False)):
        # A third of them at the median, and two thirds as far from it as the spread.
        thirds = np.arange(WINDOW_ROWS) % 3
        ratio = ratio_of(np.exp(np.where(thirds == 0, 0.0, np.where(thirds == 1, spread, -spread))))
        assert (ratio is not None) == known
        assert ratio is None or ratio.spread == pytest.approx(spread)
    assert price_ratio(random_walk_klines(600, sigma=4e-3), random_walk_klines(600, seed=9, sigma=4e-3)) is None


def test_a_currency_that_loses_its_peg_is_not_followed_and_is_again_once_it_is_back() -> None:
    """An hour at par, half an hour on the way to 0.93, half an hour there, an hour back."""
    factors = np.concatenate([np.ones(60), np.linspace(1.0, 0.93, 30), np.full(30, 0.93), np.full(60, 0.9995)])
    ratios = [ratio_of(factors[:rows], KLINES.rows(0, rows)) for rows in range(1, len(factors) + 1)]
    values = np.array([math.nan if ratio is None else ratio.value for ratio in ratios])
    assert np.isnan(values[: LEAST_ROWS - 1]).all()
    assert (values[LEAST_ROWS - 1 : 60] == 1.0).all()
    assert np.isnan(values[85:120]).all(), "lost: no value is given"
    assert values[-1] == pytest.approx(0.9995, rel=1e-12)
    assert np.nanmin(values) >= math.exp(-MOST_APART)
