"""Calibration: luck is not trusted, an edge nearly wholly, and a bias is taken away."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.calibration import BIAS_LIMITS, POOLED
from model.features import Floats32
from model.training.calibrating import LEAST_HORIZONS, LEAST_WINDOWS, Evidence, bias, fit, gains, trust
from model.windows import Rows
from tests.fakes.klines import random_walk_klines
from tests.model.judging.test_evaluation import EVERY, PLAN, RETURN, VOLATILITY, WINDOWS, foresight

ROWS = 3600
WALKS = {"BTCUSDT": random_walk_klines(ROWS, seed=1), "ETHUSDT": random_walk_klines(ROWS, seed=2)}


@pytest.mark.parametrize("loss", ["mse", "mae", "czar", "ztae", "zptae"])
@pytest.mark.parametrize("steps", [5, 60])
def test_luck_is_given_little_weight(steps: int, loss: str) -> None:
    """Forecasts of noise, with overlapping truths and a drift in both, over 100 markets: few are believed at all."""
    rng = np.random.default_rng(0)
    believed = []
    for _ in range(100):
        moves = rng.standard_normal(4000 + steps)
        came_true = np.convolve(moves, np.ones(steps), "valid")[1:4001] / steps**0.5
        forecast = 0.1 * np.convolve(rng.standard_normal(4000 + 99), np.ones(100) / 10, "valid")[:4000] + 0.03
        believed.append(trust(forecast, came_true, np.arange(4000), steps, loss))
    assert np.mean(np.array(believed) > 0) < 0.1


def test_an_edge_is_given_nearly_its_weight() -> None:
    rng = np.random.default_rng(0)
    forecast = rng.standard_normal(4000)
    came_true = 0.6 * forecast + rng.standard_normal(4000)
    assert 0.5 < trust(forecast, came_true, np.arange(4000), 1, "mse") < 0.65
    assert 0.95 < trust(forecast / 5, came_true, np.arange(4000), 1, "mse") <= 1.0  # never made larger
    assert trust(-forecast, came_true, np.arange(4000), 1, "mse") == 0.0  # never turned around
    beside = trust(forecast, came_true, np.arange(4000), 1, "mse", beside=0.3 * forecast)
    assert 0.2 < beside < 0.35, "what is left to be said is half of it"


def test_each_loss_has_a_share_of_its_own() -> None:
    """Truths mostly small and sometimes huge: squared error believes the huge ones, absolute error the others."""
    rng = np.random.default_rng(1)
    forecast = rng.choice([-1.0, 1.0], 4000)
    came_true = forecast * np.where(rng.uniform(size=4000) < 0.05, 16.0, 0.2) + 0.1 * rng.standard_normal(4000)
    found = {loss: trust(forecast, came_true, np.arange(4000), 1, loss) for loss in ("mse", "mae")}
    assert found["mae"] == pytest.approx(0.2, abs=0.03)
    assert found["mse"] > 0.8


@pytest.mark.parametrize("rows", [0, 1, (LEAST_HORIZONS - 10) * 60])
def test_few_horizons_are_no_evidence(rows: int) -> None:
    moved = np.linspace(0.1, 1, rows)
    assert trust(moved, moved, np.arange(rows), 60, "mse") == 0.0


def test_rows_of_several_symbols_at_one_time_are_no_more_evidence_than_one() -> None:
    rng, ticks = np.random.default_rng(3), np.arange(900)
    forecast = rng.standard_normal(900)
    came_true = 0.08 * forecast + rng.standard_normal(900)
    once = trust(forecast, came_true, ticks, 1, "mse")
    five_times = trust(np.tile(forecast, 5), np.tile(came_true, 5), np.tile(ticks, 5), 1, "mse")
    assert 0 < once == pytest.approx(five_times, abs=0.01)


@settings(max_examples=30)
@given(factor=st.floats(0.01, 20))
def test_the_bias_takes_a_factor_away_within_its_limits(factor: float) -> None:
    forecast = np.random.default_rng(0).uniform(1, 2, 50)
    for loss in ("mse", "mae"):
        assert bias(forecast, forecast * factor, loss) == pytest.approx(np.clip(factor, *BIAS_LIMITS))


def evidence_of(rows: Rows, output: Floats32 | None = None) -> Evidence:
    return Evidence(rows=rows, output=foresight(rows) if output is None else output)


def test_calibration_of_foresight_is_trust_and_of_noise_is_none() -> None:
    trusted = fit(WINDOWS, evidence_of(EVERY))
    noise = np.random.default_rng(0).standard_normal((len(EVERY), len(PLAN.heads))).astype(np.float32) * 0.1
    doubted = fit(WINDOWS, evidence_of(EVERY, noise))
    for symbol in PLAN.symbols:
        assert trusted.factor(symbol, RETURN) > 0.98
        assert trusted.factor(symbol, VOLATILITY) == pytest.approx(1.0, abs=1e-6)
        assert doubted.factor(symbol, RETURN) == 0.0
    assert trusted.factor("DOGEUSDT", RETURN) == 0.0
    assert trusted.factor("DOGEUSDT", VOLATILITY) == pytest.approx(1.0, abs=1e-6)


def test_other_rows_than_those_of_validation_may_say_how_far_a_return_is_to_be_trusted() -> None:
    """A head without outputs there is calibrated on the validation rows; volatility always is."""
    noise = np.random.default_rng(0).standard_normal((len(EVERY), len(PLAN.heads))).astype(np.float32) * 0.1
    fitted = fit(WINDOWS, evidence_of(EVERY, noise), evidence_of(EVERY))
    assert fitted.factor("ETHUSDT", RETURN) > 0.98
    assert fitted.factor("BTCUSDT", VOLATILITY) != pytest.approx(1.0, abs=1e-3)
    silent = foresight(EVERY)
    silent[:, PLAN.heads.index(RETURN)] = np.nan
    assert fit(WINDOWS, evidence_of(EVERY, noise), evidence_of(EVERY, silent)).factor("ETHUSDT", RETURN) == 0.0


def test_a_symbol_that_the_common_share_harms_gets_none() -> None:
    said, ether = foresight(EVERY), WINDOWS.symbol[EVERY] == PLAN.symbols.index("ETHUSDT")
    said[~ether] *= -0.05
    said[ether] *= 0.5
    fitted = fit(WINDOWS, evidence_of(EVERY, said))
    assert fitted.factor("ETHUSDT", RETURN) > 0.5
    assert fitted.factor("BTCUSDT", RETURN) == 0.0


def test_the_recurrent_network_counts_where_it_adds_something() -> None:
    column, rng = PLAN.heads.index(RETURN), np.random.default_rng(0)
    truth = foresight(EVERY).astype(np.float64)
    path, noise = 0.5 * truth, rng.standard_normal(truth.shape).astype(np.float32) * 0.2
    trusted = Evidence(rows=EVERY, output=path)
    for recurrent, counts in (
        (truth.astype(np.float32) * 0.3, True),
        (noise, False),
        (-truth.astype(np.float32), False),
    ):
        found = gains(WINDOWS, EVERY, path, recurrent, trusted)
        assert bool(found[column] > 0.9) is counts
        assert found[PLAN.heads.index(VOLATILITY)] == 1.0
    doubted = Evidence(rows=EVERY, output=-path)
    assert gains(WINDOWS, EVERY, -path, truth.astype(np.float32), doubted)[column] == 0.0, "no sum to add to"


@pytest.mark.parametrize(("rows", "own"), [(LEAST_WINDOWS * 15 - 1, False), (LEAST_WINDOWS * 15, True)])
def test_a_symbol_with_few_validation_rows_has_the_bias_of_all(rows: int, own: bool) -> None:
    ether = PLAN.symbols.index("ETHUSDT")
    bitcoin, few = EVERY[WINDOWS.symbol[EVERY] != ether], EVERY[WINDOWS.symbol[EVERY] == ether][:rows]
    chosen = np.sort(np.concatenate([bitcoin, few]))
    said = foresight(chosen)
    said[WINDOWS.symbol[chosen] == ether] -= 0.3  # of ether, a quarter too low
    fitted = fit(WINDOWS, evidence_of(chosen, said))
    pooled = fitted.factors[POOLED][VOLATILITY.key]
    assert (fitted.factor("ETHUSDT", VOLATILITY) > 1.3) == own
    assert (fitted.factor("ETHUSDT", VOLATILITY) == pooled) != own
