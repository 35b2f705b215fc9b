"""Directions and reliability, against figures worked out by hand or drawn."""

import math
from itertools import pairwise

import numpy as np
import pytest

from research.report.metrics import by_decile, hits, reliability

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
