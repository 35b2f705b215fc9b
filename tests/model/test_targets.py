"""Truths, naive forecasts and the scaling of targets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klines.klines import Klines
from model.heads import Head, Kind
from model.panels import HOUR, MINUTE, Panel
from model.targets import decode, encode, naive, truth
from tests.fakes.klines import random_walk_klines

WALK = random_walk_klines(600)
HEADS = [Head(Kind.RETURN, 10), Head(Kind.VOLATILITY, 5), Head(Kind.VOLATILITY, 15), Head(Kind.RMS, 15)]


def without(klines: Klines, row: int) -> Klines:
    """The same klines with one missing."""
    return klines.between(0, int(klines.open_time_ms[row])).merge(
        klines.between(int(klines.open_time_ms[row + 1]), 2**62)
    )


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.key)
def test_truth_is_what_follows_and_naive_is_what_was(head: Head) -> None:
    steps, row, returns = head.horizon_min, 200, np.diff(np.log(WALK.close))
    ahead, behind = returns[row : row + steps], returns[row - steps : row]
    came_true, guess = truth(WALK, MINUTE, head), naive(WALK, MINUTE, head)
    if head.kind is Kind.RETURN:
        assert came_true[row] == pytest.approx(np.log(WALK.close[row + steps] / WALK.close[row]))
        assert guess[row] == 0
    else:
        for number, window in ((came_true[row], ahead), (guess[row], behind)):
            of_rms = np.sqrt(np.mean(window**2))
            assert number == pytest.approx(of_rms if head.kind is Kind.RMS else np.std(window, ddof=1))
    assert np.isnan(came_true[-steps:]).all()
    assert np.isfinite(came_true[steps:-steps]).all()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.key)
@given(cut=st.integers(100, 500))
def test_no_truth_reads_past_its_horizon_and_no_naive_forecast_the_future(head: Head, cut: int) -> None:
    past = WALK.tail(600).between(0, int(WALK.open_time_ms[cut]))
    whole, part = truth(WALK, MINUTE, head), truth(past, MINUTE, head)
    np.testing.assert_array_equal(whole[: cut - head.horizon_min], part[: cut - head.horizon_min])
    np.testing.assert_array_equal(naive(WALK, MINUTE, head)[:cut], naive(past, MINUTE, head))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.key)
def test_a_hole_in_the_future_leaves_no_truth(head: Head) -> None:
    holed, steps = without(WALK, 300), head.horizon_min
    came_true = truth(holed, MINUTE, head)
    assert np.isfinite(came_true[299 - steps])
    assert np.isnan(came_true[300 - steps : 300]).all()
    assert np.isfinite(came_true[300])


@pytest.mark.parametrize("panel", [MINUTE, HOUR], ids=lambda panel: panel.name)
@pytest.mark.parametrize("kind", list(Kind))
@given(value=st.floats(1e-7, 0.2), scale=st.floats(1.1e-6, 0.05), sign=st.sampled_from([-1, 1]))
def test_scaling_round_trips(panel: Panel, kind: Kind, value: float, scale: float, sign: int) -> None:
    head = Head(kind, 480)
    values = np.array([value if kind.is_volatility else sign * value])
    scales = np.array([scale])
    np.testing.assert_allclose(
        decode(encode(values, scales, panel, head), scales, panel, head), values, rtol=1e-9, atol=1e-12
    )


def test_an_output_of_0_is_the_present_state() -> None:
    zero, scale = np.zeros(1), np.array([6e-3])
    assert decode(zero, scale, HOUR, Head(Kind.RETURN, 480))[0] == 0
    assert decode(zero, scale, HOUR, Head(Kind.VOLATILITY, 480))[0] == pytest.approx(6e-3 / 60**0.5)
