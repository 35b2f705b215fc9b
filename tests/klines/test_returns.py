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


@pytest.mark.parametrize(("klines", "minutes"), [(WALK, 1), (random_walk_klines(200, interval_ms=HOUR_MS), 60)])
@pytest.mark.parametrize("steps", [2, 5, 15])
def test_a_volatility_is_per_minute_about_the_mean_or_about_zero(klines: Klines, minutes: int, steps: int) -> None:
    returns = np.diff(np.log(klines.close))[100 - steps : 100]
    deviation, rms = (realised_volatility(klines, steps, about_mean=about_mean)[100] for about_mean in (True, False))
    assert deviation == pytest.approx(np.std(returns, ddof=1) / minutes**0.5, rel=1e-9)
    assert rms == pytest.approx(np.sqrt(np.mean(returns**2) / minutes), rel=1e-9)
    of_horizon, of_year = Volatility.RMS_HORIZON.factor(steps * minutes), Volatility.STD_ANNUAL.factor(steps)
    assert rms * of_horizon == pytest.approx(np.sqrt(np.sum(returns**2)), rel=1e-9)
    assert deviation * of_year == pytest.approx(np.std(returns, ddof=1) * (525_600 / minutes) ** 0.5, rel=1e-9)


def test_a_flat_market_has_no_volatility() -> None:
    flat = random_walk_klines(50, sigma=0.0)
    np.testing.assert_array_equal(realised_volatility(flat, 5)[5:], 0.0)
