"""Calibrations as manifests hold them."""

import json

import pytest

from core.errors import IncompatibleModel
from model.calibration import Calibration
from tests.fakes.klines import random_walk_klines

ROWS = 3600
WALKS = {"BTCUSDT": random_walk_klines(ROWS, seed=1), "ETHUSDT": random_walk_klines(ROWS, seed=2)}


def test_calibration_survives_json() -> None:
    fitted = Calibration(
        factors={
            "*": {"volatility-15m": 1.1},
            "ETHUSDT": {"return-10m-czar": 0.5, "volatility-15m": 0.9},
            "BTCUSDT": {"return-10m-czar": 0.0},
        }
    )
    assert Calibration.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([], id="a list"),
        pytest.param({"ETHUSDT": {"return-10m": {"bias": 1.0}}}, id="wrong factor"),
        pytest.param({"ETHUSDT": {"return": {"lambda": 1.0}}}, id="no head"),
        pytest.param({"ETHUSDT": {"return-10m": {"lambda": 1.5}}}, id="lambda above 1"),
        pytest.param({"ETHUSDT": {"return-10m": {"lambda": "x"}}}, id="no number"),
        pytest.param({"*": {"volatility-15m": {"bias": float("nan")}}}, id="not finite"),
    ],
)
def test_what_is_no_calibration_is_refused(value: object) -> None:
    with pytest.raises(IncompatibleModel):
        Calibration.from_json(value)
