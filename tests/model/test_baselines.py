"""The baselines of a change of volatility: what they expect, and that they read nothing that had not come true."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.klines import Floats
from model.baselines import deviation, trailing_fit

DAY, ROWS, LAG, LEAST = 24, 168, 3, 20


def levels(count: int, seed: int = 0, *, missing: bool = True) -> tuple[Floats, Floats]:
    """Logarithms of base volatilities that return to their mean, and the changes over the next three epochs."""
    noise = np.random.default_rng(seed).standard_normal(count + LAG)
    level = np.zeros(count + LAG)
    for row in range(1, count + LAG):
        level[row] = 0.9 * level[row - 1] + noise[row]
    if missing:
        level[::17] = np.nan
    return level[:count], level[LAG:] - level[:count]


def test_the_deviation_is_from_the_mean_of_the_last_day_with_the_epoch_itself() -> None:
    base, _ = levels(60)
    dev = deviation(base, DAY)
    assert dev[0] != dev[0], "an epoch without a volatility has none"
    assert dev[1] == 0
    assert dev[50] == pytest.approx(base[50] - np.nanmean(base[27:51]))


def test_the_trailing_fit_is_least_squares_of_what_had_come_true() -> None:
    base, change = levels(400)
    dev = deviation(base, DAY)
    fitted = trailing_fit(change, dev, ROWS, LAG, LEAST)
    for row in (30, 200, 399):
        past = slice(max(0, row - LAG + 1 - ROWS), row - LAG + 1)
        there = np.isfinite(change[past] + dev[past])
        slope, intercept = np.polyfit(dev[past][there], change[past][there], 1)
        assert fitted[row] == pytest.approx(intercept + slope * dev[row])
    assert np.isnan(fitted[:LEAST]).all(), "a fit of a few rows is none"


@given(cut=st.integers(30, 299), seed=st.integers(0, 9))
def test_no_baseline_reads_what_came_true_later(cut: int, seed: int) -> None:
    base, change = levels(300, seed)
    other, changed = base.copy(), change.copy()
    other[cut + 1 :], changed[cut - LAG + 1 :] = 5.0, 7.0  # what no epoch up to the cut can know
    dev, dev_otherwise = deviation(base, DAY), deviation(other, DAY)
    np.testing.assert_array_equal(dev[: cut + 1], dev_otherwise[: cut + 1])
    fitted, otherwise = (trailing_fit(*pair, ROWS, LAG, LEAST) for pair in ((change, dev), (changed, dev_otherwise)))
    np.testing.assert_array_equal(fitted[: cut + 1], otherwise[: cut + 1])


def test_a_volatility_that_does_not_vary_is_expected_not_to() -> None:
    still = np.zeros(100)
    assert np.nansum(np.abs(trailing_fit(still, deviation(still, DAY), ROWS, LAG, LEAST))) == 0
