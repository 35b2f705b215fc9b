"""The losses for training: the numpy ones' values, and gradients that a training survives."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.losses import LOSS_NAMES, loss_named
from model.losses import loss
from model.training.objectives import torch_loss

NAMES = sorted(set(LOSS_NAMES.values()))
SIZES = st.floats(-200, 200, allow_subnormal=False)
STDS = st.floats(1e-5, 1e3)


def tensor(*values: float, grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


@pytest.mark.parametrize("name", NAMES)
@given(z=SIZES, q=SIZES, other=SIZES, std=STDS)
def test_two_forecasts_differ_as_the_networks_loss_says(
    name: str, z: float, q: float, other: float, std: float
) -> None:
    """A difference, because czar's term of the truth alone is left out."""
    y, p = np.full(2, z * std), np.array([q, other]) * std
    ours = torch_loss(name)(torch.from_numpy(y), torch.from_numpy(p), torch.tensor(std, dtype=torch.float64))
    theirs = loss(name)(y, p, std)
    size = 1e-9 * max(1.0, float(np.abs(theirs).max()))
    assert (ours[0] - ours[1]).item() == pytest.approx(theirs[0] - theirs[1], rel=1e-9, abs=size)


@pytest.mark.parametrize("name", NAMES)
@given(y=SIZES)
def test_a_perfect_forecast_loses_nothing(name: str, y: float) -> None:
    assert torch_loss(name)(tensor(y), tensor(y), tensor(1.0)).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_are_finite_everywhere(name: str, dtype: torch.dtype) -> None:
    sizes = [0.0, *(sign * 10.0**power for power in range(-12, 13, 2) for sign in (1, -1))]
    y, p = torch.tensor(sizes, dtype=dtype)[:, None], torch.tensor(sizes, dtype=dtype)[None].requires_grad_()
    for std in (1e-6, 1.0):
        losses = torch_loss(name)(y * std, p * std, torch.tensor(std, dtype=dtype))
        (gradient,) = torch.autograd.grad(losses.sum(), p)
        assert losses.shape == (len(sizes), len(sizes))
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
@given(y=st.floats(-8, 8), p=st.floats(-8, 8))
def test_the_gradient_is_the_slope_of_the_networks_loss(name: str, y: float, p: float) -> None:
    step = 1e-6
    assume(min(abs(p), abs(p - y), abs(abs(p - y) - 1)) > 3 * step)  # a kink, or a joint of two branches
    forecast = tensor(p, grad=True)
    (gradient,) = torch.autograd.grad(torch_loss(name)(tensor(y), forecast, tensor(1.0)).sum(), forecast)
    below, above = loss(name)(np.full(2, y), np.array([p - step, p + step]), 1.0)
    assert gradient.item() == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-6)


def test_czar_pays_for_a_direction_from_the_first_step_on() -> None:
    """Its slope at no forecast is 1 per standard deviation, towards the truth: what training starts from."""
    forecast = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    losses = torch_loss("czar")(tensor(0.02, -0.02, 4.0), forecast, tensor(0.01))
    (gradient,) = torch.autograd.grad(losses.sum(), forecast)
    np.testing.assert_allclose(gradient.numpy(), [-100.0, 100.0, -100.0])


def test_every_spelling_of_a_loss_is_known_and_no_other() -> None:
    for name, ours in LOSS_NAMES.items():
        assert loss_named(name) is loss_named(ours)
    with pytest.raises(ConfigError, match=r"mse.*czar.*'rmse'"):
        torch_loss("rmse")
