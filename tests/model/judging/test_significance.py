"""The error of a mean over time, where rows share a part of their truth, have holes, or are several in a candle."""

import math

import numpy as np
import pytest

from klines.klines import Floats
from model.judging.significance import horizons, mean_over_time, student_tail


@pytest.mark.parametrize(
    ("t", "freedom", "chance"),
    [
        pytest.param(0.0, 1, 0.5, id="no lead"),
        pytest.param(6.3138, 1, 0.05, id="1"),
        pytest.param(2.9200, 2, 0.05, id="2"),
        pytest.param(2.3534, 3, 0.05, id="3"),
        pytest.param(2.1318, 4, 0.05, id="4"),
        pytest.param(3.3649, 5, 0.01, id="5"),
        pytest.param(2.7638, 10, 0.01, id="10"),
        pytest.param(1.6973, 30, 0.05, id="30"),
        pytest.param(-2.0003, 60, 0.975, id="60, lower side"),
        pytest.param(-math.inf, 7, 1.0, id="without end"),
    ],
)
def test_student_tail_gives_the_printed_tables(t: float, freedom: int, chance: float) -> None:
    assert student_tail(t, freedom) == pytest.approx(chance, abs=2e-5)


def overlapping(rng: np.random.Generator, rows: int, steps: int) -> Floats:
    """Sums of ``steps`` neighbouring numbers of variance 1."""
    total = np.concatenate([[0.0], np.cumsum(rng.standard_normal(rows + steps - 1))])
    sums: Floats = total[steps:] - total[:-steps]
    return sums


@pytest.mark.parametrize("steps", [1, 5, 60])
def test_overlapping_rows_are_worth_about_one_per_horizon(steps: int) -> None:
    rng, rows = np.random.default_rng(steps), 12_000
    found = [mean_over_time(overlapping(rng, rows, steps), np.arange(rows), steps) for _ in range(200)]
    spread = float(np.std([one.value for one in found]))
    error = float(np.mean([one.error**2 for one in found])) ** 0.5
    assert error == pytest.approx(spread, rel=0.15), "the error is that of the mean, over many tries"
    worth = float(np.mean([one.effective for one in found]))
    assert worth == pytest.approx(rows / steps, rel=0.2)


def test_holes_are_not_values() -> None:
    rng, rows, steps = np.random.default_rng(0), 4000, 10
    values, ticks = overlapping(rng, rows, steps), np.arange(rows)
    ticks[rows // 2 :] += 3000
    apart, together = mean_over_time(values, ticks, steps), mean_over_time(values, np.arange(rows), steps)
    assert apart.horizons == pytest.approx(rows / steps, abs=1)
    assert (apart.value, apart.rows) == (together.value, together.rows)
    assert apart.error == pytest.approx(together.error, rel=0.5)


def test_time_is_counted_in_horizons_however_thin_the_rows_lie() -> None:
    assert horizons(np.arange(0, 1000, 5), 10) == pytest.approx(99.6)
    assert horizons(np.arange(0, 1000, 50), 10) == pytest.approx(19.1), "a row in fifty candles covers one horizon each"
    assert horizons(np.arange(0), 10) == 0


def test_rows_of_one_candle_are_one_observation() -> None:
    values = overlapping(np.random.default_rng(1), 3000, 5)
    once = mean_over_time(values, np.arange(3000), 5)
    twice = mean_over_time(np.repeat(values, 2), np.repeat(np.arange(3000), 2), 5)
    assert twice.error == pytest.approx(once.error)
    assert twice.effective == pytest.approx(once.effective)


@pytest.mark.parametrize(
    ("values", "freedom"),
    [
        pytest.param(np.array([]), 0, id="no rows"),
        pytest.param(np.array([1.0]), 0, id="one row"),
        pytest.param(np.full(100, np.nan), 0, id="no numbers"),
        pytest.param(np.full(100, np.inf), 0, id="without end"),
    ],
)
def test_where_nothing_can_be_said_nothing_is(values: Floats, freedom: int) -> None:
    found = mean_over_time(values, np.arange(len(values)), 5)
    assert found.freedom == freedom
    assert math.isnan(found.p_below)
    assert math.isnan(found.p_above)


def test_rows_that_are_all_equal_are_certain() -> None:
    lead = mean_over_time(np.full(1000, -0.25), np.arange(1000), 10)
    assert (lead.p_below, lead.p_above) == (0.0, 1.0)
    none = mean_over_time(np.zeros(1000), np.arange(1000), 10)
    assert (none.p_below, none.p_above) == (1.0, 1.0), "no difference is no evidence of one"
