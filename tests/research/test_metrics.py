"""Directions, reliability and the Forge builder kit's metrics, against figures worked out by hand or drawn."""

import math
from itertools import pairwise

import numpy as np
import pytest

from research.metrics import FORGE, by_decile, forge, forge_passed, hits, normal_tail, reliability

RNG = np.random.default_rng(0)


def test_a_coin_is_right_half_of_the_time_and_no_p_says_otherwise() -> None:
    truth, said = RNG.standard_normal((2, 20_000))
    found = hits(truth, said, np.abs(said), np.arange(20_000), 1)
    assert found.rate == pytest.approx(0.5, abs=0.012)
    assert 0.01 < found.p < 0.99
    assert found.band[0] < found.rate < found.band[1]


def test_a_slight_edge_is_found_and_overlap_takes_it_back() -> None:
    steps = RNG.standard_normal(20_050)
    truth = np.convolve(steps, np.ones(50), "valid")[:20_000]  # the sum of the next fifty moves
    edge = truth + 20 * RNG.standard_normal(20_000)
    fresh = hits(RNG.permutation(truth), edge, np.abs(edge), np.arange(20_000), 1)
    overlapping = hits(truth, np.repeat(edge[::50], 50), np.abs(edge), np.arange(20_000), 50)
    assert fresh.effective > 10_000
    assert overlapping.effective < 2_000, "fifty rows share most of their truth"


def test_symbols_that_move_together_are_one_observation() -> None:
    truth, said = RNG.standard_normal((2, 4_000))
    alone = hits(truth, said, np.abs(said), np.arange(4_000), 1)
    twins = hits(np.tile(truth, 3), np.tile(said, 3), np.tile(np.abs(said), 3), np.tile(np.arange(4_000), 3), 1)
    assert twins.rate == alone.rate
    assert alone.effective <= 4_000
    assert twins.effective < 6_000, "not three times as many"
    assert twins.p == pytest.approx(alone.p, abs=0.01)


def test_rows_that_did_not_move_have_no_direction() -> None:
    found = hits(np.array([0.0, 1.0, -1.0, 0.0]), np.ones(4), np.ones(4), np.arange(4), 1)
    assert (found.rows, found.rate) == (2, 0.5)
    nothing = hits(np.zeros(3), np.ones(3), np.ones(3), np.arange(3), 1)
    assert nothing.rows == 0
    assert math.isnan(nothing.p)


def test_tenths_are_of_equal_size_and_in_order() -> None:
    values = RNG.standard_normal(1_003)
    groups = by_decile(values)
    assert {len(group) for group in groups} == {100, 101}
    assert all(values[low].max() <= values[high].min() for low, high in pairwise(groups))
    assert len(by_decile(np.array([2.0, 1.0]))) == 2


def test_a_forecast_that_means_what_it_says_lies_on_the_diagonal() -> None:
    said = RNG.uniform(1, 3, 50_000)
    for part in reliability(said + RNG.standard_normal(50_000), said, np.arange(50_000), 1):
        assert part.truth == pytest.approx(part.forecast, abs=0.06)
        assert part.error == pytest.approx(5_000**-0.5, rel=0.25), "independent rows of spread 1"


def test_forge_by_hand() -> None:
    truth, said = np.array([1.0, -2.0, 3.0, -4.0, 0.0]), np.array([0.5, -1.0, -1.0, -2.0, 0.3])
    found = forge(truth, said)
    assert found["directional_accuracy"] == 0.75, "of the four that moved"
    assert found["czar_improvement"] == pytest.approx((1 + 2 - 3 + 4) / 10)
    missed = (1 * 0.25 + 2 * 1 + 3 * 16 + 4 * 4) / 10
    assert found["wrmse_improvement"] == pytest.approx(1 - (missed / ((1 + 8 + 27 + 64) / 10)) ** 0.5)
    assert found["pearson_r"] == pytest.approx(np.corrcoef(truth, said)[0, 1])


def test_forge_counts_wilsons_bound_and_the_p_value_of_independent_rows() -> None:
    """400 of 1,000 flips wrong, in an order without memory: by the formulas of Wilson and of the z-test."""
    right = RNG.permutation(np.repeat([1.0, -1.0], [600, 400]))
    found = forge(np.ones(1_000), right)
    n = found["directional_rows"]
    assert n == pytest.approx(1_000, rel=0.08)
    centre, spread = 0.6 + 1.96**2 / (2 * n), 1.96 * (0.24 / n + 1.96**2 / (4 * n**2)) ** 0.5
    assert found["directional_accuracy_low"] == pytest.approx((centre - spread) / (1 + 1.96**2 / n))
    assert found["directional_accuracy_p"] == pytest.approx(normal_tail((0.1 - 0.5 / n) * 2 * n**0.5))


def test_forge_counts_rows_that_repeat_for_fewer() -> None:
    truth = np.repeat(RNG.standard_normal(500), 20)
    said = np.repeat(RNG.standard_normal(500), 20)
    found = forge(truth, said)
    assert found["directional_rows"] < 1_000
    assert found["pearson_rows"] < 1_000


@pytest.mark.parametrize(
    ("said", "count"),
    [
        pytest.param(lambda truth: truth, 7, id="the truth itself"),
        pytest.param(lambda truth: -truth, 1, id="its opposite: correlated, for sure"),
        pytest.param(np.zeros_like, 0, id="naive"),
    ],
)
def test_how_many_of_the_seven(said: object, count: int) -> None:
    truth = np.random.default_rng(1).standard_normal(2_000)
    passed = forge_passed(forge(truth, said(truth)))  # type: ignore[operator]
    assert len(passed) == count
    assert set(passed) <= set(FORGE)


def test_a_market_that_stands_still_passes_nothing() -> None:
    assert forge_passed(forge(np.zeros(50), np.ones(50))) == []
