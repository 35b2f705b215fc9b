"""The losses: the reference implementations' values, and what the formulas promise."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.losses import CZAR_ALPHA, CZAR_EPSILON, CZAR_TAU, LOSS_NAMES, LOSSES
from klines.klines import Floats
from model.losses import loss
from model.training.objectives import torch_loss
from tests.core.sdk import Reference, reference_losses

NAMES = tuple(LOSS_NAMES)
czar = loss("czar")
SIZES = st.floats(-50, 50, allow_subnormal=False)
REFERENCE = Path(__file__).parents[1] / "data" / "reference_losses.json"
SDK_LOSSES = ["huber", "logcosh", "mae", "mse", "zptae", "ztae"]


def assert_agrees(name: str, y: Floats, p: Floats, std: Floats, value: Floats) -> None:
    ours = np.array([loss(name)(y[i : i + 1], p[i : i + 1], std[i])[0] for i in range(len(y))])
    np.testing.assert_allclose(ours, value, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", sorted(set(LOSS_NAMES.values())))
def test_the_reference_implementations_agree(name: str) -> None:
    rows = np.array([row[1:] for row in json.loads(REFERENCE.read_text())["rows"] if row[0] == name])
    assert len(rows) >= 60
    assert_agrees(name, *rows.T)


@pytest.mark.parametrize("name", [loss.name for loss in LOSSES if loss.of_returns])
def test_the_golden_values_agree(shared_data: Path, name: str) -> None:
    rows = [r for r in json.loads((shared_data / "losses_golden.json").read_text())["rows"] if r["loss"] == name]
    assert len(rows) >= 64
    assert_agrees(name, *np.array([[r[key] for key in ("y_true", "y_pred", "std", "value")] for r in rows]).T)


@pytest.fixture(scope="module")
def sdk() -> dict[str, Reference]:
    spec = importlib.util.find_spec("allora_sdk")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs .venv/bin/pip install --no-deps allora-sdk==1.3.0; why so: docs/decisions/0001")
    return reference_losses(Path(next(iter(spec.submodule_search_locations))).parent)


@pytest.mark.parametrize("name", SDK_LOSSES)
@given(z=st.floats(-1e8, 1e8), q=st.floats(-1e8, 1e8), std=st.floats(1e-6, 1e3))
def test_the_package_agrees_on_any_value(sdk: dict[str, Reference], name: str, z: float, q: float, std: float) -> None:
    y, p = z * std, q * std
    ours = loss(name)(np.array([y]), np.array([p]), std)[0]
    assert ours == pytest.approx(sdk[name](y, p, std), rel=1e-9, abs=1e-14)


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


@pytest.mark.parametrize("name", NAMES)
@given(y=SIZES, near=st.floats(0, 20), further=st.floats(0, 20), side=st.sampled_from([-1, 1]))
def test_a_forecast_further_off_on_the_same_side_is_no_better(
    name: str, y: float, near: float, further: float, side: int
) -> None:
    closer, wider = loss(name)(np.full(2, y), y + side * np.array([near, near + further]), 1.0)
    assert closer <= wider + 1e-9


@given(y=SIZES, p=SIZES, std=st.floats(1e-3, 1e3))
def test_czars_softening_depends_on_the_truth_alone(y: float, p: float, std: float) -> None:
    """What is left when the part with the forecast is taken off, and what a perfect forecast still loses."""
    z, q = np.array([y * std]), np.array([p * std])
    y_N, p_N, std_N = (torch.from_numpy(value) for value in (z, q, np.array([std])))
    core = torch_loss("czar")(y_N, p_N, std_N).numpy()
    assert (czar(z, q, std) - core)[0] == pytest.approx(czar(z, z, std)[0], rel=1e-9, abs=1e-9 * max(1.0, core[0]))


@pytest.mark.parametrize("size", [0.0, 1e-3, 0.1, 0.5, 1.0, 2.0, 10.0])
def test_czars_softening_is_the_formula_with_its_root_searched(size: float) -> None:
    """Term for term as it is defined; ``e`` by halving, where ours takes the root of the quadratic."""
    d = CZAR_ALPHA / np.sqrt(3)
    k = 1 + d**2

    def saved(a: float) -> float:
        return float(k * (np.arctan(a + d) - np.arctan(d)))

    low, high = 0.0, 10.0
    for _ in range(200):
        e = (low + high) / 2
        low, high = (e, high) if d / k * e**2 + e < saved(CZAR_EPSILON) else (low, e)
    steep, slope = k * 2 * d / (1 + d**2) ** 2, k / (1 + d**2)
    least = 0.5 * steep * e**2 + slope * e  # of truth 0 and forecast e, which is too large

    full = e + d / k * e**2
    temperature = CZAR_TAU * abs(1 - k * (np.pi / 2 - np.arctan(d)) / full)
    softened = np.log1p(np.exp((1 - saved(size) / full) / temperature)) / np.log1p(np.exp(1 / temperature)) * least
    assert czar(np.array([size]), np.array([size]), 1.0)[0] == pytest.approx(softened, rel=1e-12)


def test_losses_take_whole_arrays() -> None:
    y, p = np.linspace(-2, 2, 7)[:, None], np.linspace(-3, 3, 5)[None, :]
    for name in NAMES:
        whole = loss(name)(y, p, 0.7)
        assert whole.shape == (7, 5)
        assert whole[2, 3] == pytest.approx(loss(name)(y[2], p[0, 3:4], 0.7)[0])
