"""Rolling sums and volatilities of returns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import HOUR_MS
from core.topic import Volatility
from klines.klines import Klines
from klines.returns import realised_volatility, rolling_sum
from tests.fakes.klines import random_walk_klines

WALK = random_walk_klines(600)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.integers(1, 45))
def test_rolling_sums_are_sums(values: list[float], rows: int) -> None:
    array = np.array(values)
    expected = [array[i + 1 - rows : i + 1].sum() if i + 1 >= rows else np.nan for i in range(len(array))]
    np.testing.assert_allclose(rolling_sum(array, rows), expected, atol=1e-9)


@pytest.mark.parametrize("steps", [2, 5, 15])
def test_volatility_is_the_sample_deviation_of_one_minute_returns(steps: int) -> None:
    returns = np.diff(np.log(WALK.close))
    assert realised_volatility(WALK, steps)[100] == pytest.approx(np.std(returns[100 - steps : 100], ddof=1), rel=1e-9)


def test_hourly_volatility_is_scaled_to_a_minute() -> None:
    hours = random_walk_klines(200, interval_ms=HOUR_MS, sigma=6e-3)
    returns = np.diff(np.log(hours.close))
    assert realised_volatility(hours, 8)[50] == pytest.approx(np.std(returns[42:50], ddof=1) / 60**0.5, rel=1e-9)


@pytest.mark.parametrize(("klines", "minutes"), [(WALK, 1), (random_walk_klines(200, interval_ms=HOUR_MS), 60)])
def test_the_root_mean_square_is_about_zero_and_its_horizon_is_the_root_of_the_sum(
    klines: Klines, minutes: int
) -> None:
    returns = np.diff(np.log(klines.close))[85:100]
    rms = realised_volatility(klines, 15, about_mean=False)[100]
    assert rms == pytest.approx(np.sqrt(np.mean(returns**2) / minutes), rel=1e-9)
    assert rms * Volatility.RMS_HORIZON.factor(15 * minutes) == pytest.approx(np.sqrt(np.sum(returns**2)), rel=1e-9)
    deviation = np.std(returns, ddof=1) / minutes**0.5
    assert realised_volatility(klines, 15)[100] * Volatility.STD_ANNUAL.factor(15) == pytest.approx(
        deviation * 525_600**0.5, rel=1e-9
    )


def test_a_flat_market_has_no_volatility() -> None:
    flat = random_walk_klines(50, sigma=0.0)
    np.testing.assert_array_equal(realised_volatility(flat, 5)[5:], 0.0)
