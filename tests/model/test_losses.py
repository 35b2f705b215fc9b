"""The losses: the reference implementations' values, and what the formulas promise."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from model.losses import NAMES, OF_STANDARDISED_RETURNS, czar, loss

SIZES = st.floats(-50, 50, allow_subnormal=False)


@pytest.mark.parametrize("name", sorted(OF_STANDARDISED_RETURNS))
def test_the_reference_implementations_agree(shared_data: Path, name: str) -> None:
    rows = [r for r in json.loads((shared_data / "losses_golden.json").read_text())["rows"] if r["loss"] == name]
    y, p, std, value = (np.array([row[key] for row in rows]) for key in ("y_true", "y_pred", "std", "value"))
    ours = np.array([loss(name)(y[i : i + 1], p[i : i + 1], std[i])[0] for i in range(len(rows))])
    assert len(rows) >= 64
    np.testing.assert_allclose(ours, value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(("mse", "sqe", "se"), 6.25, id="squared"),
        pytest.param(("mae", "abse", "ae"), 2.5, id="absolute"),
        pytest.param(("huber",), 2.0, id="huber"),
        pytest.param(("logcosh",), np.log(np.cosh(2.5)), id="logcosh"),
        pytest.param(("ztae",), np.tanh(0.5) + np.tanh(0.75), id="ztae"),
    ],
)
def test_a_name_and_its_aliases_are_one_function(names: tuple[str, ...], expected: float) -> None:
    for name in names:
        assert loss(name)(np.array([1.0]), np.array([-1.5]), 2.0)[0] == pytest.approx(expected)


def test_an_unknown_loss_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"mse.*czar.*'rmse'"):
        loss("rmse")


@pytest.mark.parametrize("name", NAMES)
@given(y=SIZES, p=SIZES)
def test_a_perfect_forecast_is_never_beaten_and_signs_are_alike(name: str, y: float, p: float) -> None:
    lose, true, other = loss(name), np.array([y]), np.array([p])
    missed = lose(true, other, 1.0)[0]
    assert np.isfinite(missed)
    assert missed >= lose(true, true, 1.0)[0] - 1e-9
    assert missed >= -1e-12
    if y:  # czar takes a truth of 0 for positive
        assert missed == pytest.approx(lose(-true, -other, 1.0)[0], rel=1e-9, abs=1e-12)


@given(y=st.floats(0.01, 20))
def test_czar_joins_its_three_branches(y: float) -> None:
    step = 1e-9
    for joint in (0.0, y):
        below, above = czar(np.array([y, y]), np.array([joint - step, joint + step]), 1.0)
        assert below == pytest.approx(above, abs=1e-6)


@given(y=st.floats(0.01, 20))
def test_czar_is_linear_around_no_forecast(y: float) -> None:
    """An edge in direction pays in proportion to its size, with the same slope on both sides of 0."""
    step = 1e-5
    left, middle, right = czar(np.full(3, y), np.array([-step, 0.0, step]), 1.0)
    assert (left - middle) / step == pytest.approx(1.0, abs=1e-3)
    assert (middle - right) / step == pytest.approx(1.0, abs=1e-3)


def test_losses_take_whole_arrays() -> None:
    y, p = np.linspace(-2, 2, 7)[:, None], np.linspace(-3, 3, 5)[None, :]
    for name in NAMES:
        whole = loss(name)(y, p, 0.7)
        assert whole.shape == (7, 5)
        assert whole[2, 3] == pytest.approx(loss(name)(y[2], p[0, 3:4], 0.7)[0])
