"""Scores in the topic's loss and unit, calibration, and that luck counts for nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import IncompatibleModel, UnusableForecast
from core.topic import Target, Topic, Volatility
from model.calibration import (
    BIAS_LIMITS,
    LEAST_HORIZONS,
    LEAST_WINDOWS,
    POOLED,
    Calibration,
    Evidence,
    bias,
    fit,
    gains,
    trust,
)
from model.evaluation import Score, TopicForecasts, outputs, score
from model.features import Floats32
from model.heads import MINUTE, Head, Kind, panels_for
from model.windows import Rows, build
from tests.fakes.klines import random_walk_klines

ROWS = 3600
WALKS = {"BTCUSDT": random_walk_klines(ROWS, seed=1), "ETHUSDT": random_walk_klines(ROWS, seed=2)}
RETURN, VOLATILITY = Head(Kind.RETURN, 10), Head(Kind.VOLATILITY, 15)


def topic(topic_id: int, symbol: str, target: Target, horizon_min: int, loss: str = "mse") -> Topic:
    return Topic(topic_id=topic_id, token=symbol[:3], symbol=symbol, target=target, horizon_min=horizon_min, loss=loss)


TOPICS = (
    topic(1, "ETHUSDT", Target.PRICE, 10),
    topic(2, "ETHUSDT", Target.LOG_RETURN, 10, "czar"),
    topic(3, "BTCUSDT", Target.LOG_RETURN, 10, "ztae"),
    topic(4, "BTCUSDT", Target.VOLATILITY, 15),
    topic(5, "ETHUSDT", Target.PRICE, 10, "czar"),
    topic(6, "ETHUSDT", Target.VOLATILITY, 15, "mae"),
)
PLAN = panels_for(TOPICS)[MINUTE]
WINDOWS = build(PLAN, WALKS)
EVERY = WINDOWS.rows(0, 2**62)
JUDGE = EVERY[WINDOWS.open_time_ms[EVERY] >= np.median(WINDOWS.open_time_ms[EVERY])]
TRUSTING = Calibration(
    factors={symbol: {head.key: 1.0 for head in PLAN.heads} for symbol in PLAN.symbols}
    | {POOLED: {VOLATILITY.key: 1.0}}
)


def foresight(rows: Rows) -> Floats32:
    """What a network that knew the future would say; where there is no truth, 0."""
    return np.nan_to_num(WINDOWS.target[rows])


def test_a_forecaster_that_knows_the_future_makes_no_error() -> None:
    scores = {one.topic: one for one in score(WINDOWS, JUDGE, foresight(JUDGE), PLAN.heads, TRUSTING)}
    assert scores.keys() == set("123456")
    for number in "1346":
        assert scores[number].ratio < 1e-3, number
    assert scores["2"].difference < -0.2  # czar keeps a term of the truth alone
    assert scores["2"].model_loss == pytest.approx(scores["5"].model_loss)  # of a price, czar sees the return


def test_no_skill_is_worth_what_the_naive_forecast_is_worth() -> None:
    silent = np.zeros((len(JUDGE), len(PLAN.heads)), np.float32)
    for one in score(WINDOWS, JUDGE, silent, PLAN.heads, TRUSTING):
        if one.topic in {"1", "2", "3", "5"}:
            assert one.ratio == 1.0
            assert one.difference == 0.0
    price = score(WINDOWS, JUDGE, foresight(JUDGE), PLAN.heads, Calibration())[0]
    assert price.ratio == 1.0  # an uncalibrated symbol's return has lambda 0


def test_a_price_is_judged_in_price_and_from_the_last_close() -> None:
    one = score(WINDOWS, JUDGE, np.zeros((len(JUDGE), len(PLAN.heads)), np.float32), PLAN.heads, TRUSTING)[0]
    close, rows = WALKS["ETHUSDT"].close, JUDGE[(WINDOWS.symbol[JUDGE] == 1) & np.isfinite(WINDOWS.truth[JUDGE, 0])]
    at = rows - ROWS
    assert one.rows == len(rows)
    assert one.naive_loss == pytest.approx(np.mean((close[at + 10] - close[at]) ** 2))


def test_the_std_of_the_z_losses_is_known_before_the_judged_rows() -> None:
    one = {s.topic: s for s in score(WINDOWS, JUDGE, foresight(JUDGE), PLAN.heads, TRUSTING)}["3"]
    start_ms = int(WINDOWS.open_time_ms[JUDGE].min())
    before = WALKS["BTCUSDT"].between(0, start_ms)
    past = np.log(before.close[10:] / before.close[:-10])
    rows = JUDGE[(WINDOWS.symbol[JUDGE] == 0) & np.isfinite(WINDOWS.truth[JUDGE, 0])]
    expected = np.mean(np.abs(np.tanh(WINDOWS.truth[rows, 0] / past.std())))
    assert one.naive_loss == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_losses_of_a_volatility_are_in_the_topic_s_unit(loss: str) -> None:
    """Huber is a square near 0 and a line far from it: only in the right unit is it the network's."""
    per_minute = TopicForecasts(
        topic=topic(1, "BTCUSDT", Target.VOLATILITY, 15, loss),
        open_time_ms=np.zeros(2, np.int64),
        came_true=np.array([1e-3, 2e-3]),
        forecast=np.array([2e-3, 9e-3]),
        naive=np.array([1e-3, 2e-3]),
        close=np.ones(2),
        std=1.0,
    )
    a_year = replace(per_minute, topic=replace(per_minute.topic, volatility=Volatility.STD_ANNUAL))
    errors = np.array([1e-3, 7e-3]) * 525_600**0.5  # 0.72 and 5.07
    expected = {"mse": errors**2, "mae": errors, "huber": [errors[0] ** 2 / 2, errors[1] - 0.5]}
    np.testing.assert_allclose(a_year.losses, expected[loss])
    np.testing.assert_array_equal(a_year.naive_losses, 0.0)
    assert (per_minute.losses < a_year.losses).all()


def test_a_network_with_other_heads_is_scored_on_those_it_has() -> None:
    said = foresight(JUDGE)[:, [PLAN.heads.index(VOLATILITY)]]
    scores = score(WINDOWS, JUDGE, said, [VOLATILITY], TRUSTING)
    assert [one.topic for one in scores] == ["4"]
    assert scores[0].ratio < 1e-3


def test_outputs_come_in_batches_and_must_be_finite() -> None:
    rows = EVERY[:25]
    said = outputs(lambda x_BLF: x_BLF[:, -1, :2], WINDOWS, rows, batch=10)
    np.testing.assert_array_equal(said, WINDOWS.x[rows, :2])
    with pytest.raises(UnusableForecast, match="25 of 50 outputs"):
        outputs(lambda x_BLF: np.stack([x_BLF[:, -1, 0], x_BLF[:, -1, 0] * np.nan], axis=1), WINDOWS, rows)


@pytest.mark.parametrize(
    ("model", "naive", "ratio"),
    [(0.5, 1.0, 0.5), (0.0, 0.0, 1.0), (0.1, 0.0, float("inf"))],
    ids=["skill", "still", "worse"],
)
def test_a_ratio_is_a_number_even_where_nothing_moved(model: float, naive: float, ratio: float) -> None:
    one = Score(topic="1", loss="mse", rows=3, model_loss=model, naive_loss=naive)
    assert one.ratio == ratio
    assert one.to_json()["difference"] == model - naive


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


def said_of(rows: Rows, output: Floats32 | None = None) -> Evidence:
    return Evidence(rows=rows, output=foresight(rows) if output is None else output)


def test_calibration_of_foresight_is_trust_and_of_noise_is_none() -> None:
    trusted = fit(WINDOWS, said_of(EVERY))
    noise = np.random.default_rng(0).standard_normal((len(EVERY), len(PLAN.heads))).astype(np.float32) * 0.1
    doubted = fit(WINDOWS, said_of(EVERY, noise))
    for symbol in PLAN.symbols:
        assert trusted.factor(symbol, RETURN) > 0.98
        assert trusted.factor(symbol, VOLATILITY) == pytest.approx(1.0, abs=1e-6)
        assert doubted.factor(symbol, RETURN) == 0.0
    assert trusted.factor("DOGEUSDT", RETURN) == 0.0
    assert trusted.factor("DOGEUSDT", VOLATILITY) == pytest.approx(1.0, abs=1e-6)


def test_other_rows_than_those_of_validation_may_say_how_far_a_return_is_to_be_trusted() -> None:
    """A head of which they say nothing is calibrated on the validation rows; volatility always is."""
    noise = np.random.default_rng(0).standard_normal((len(EVERY), len(PLAN.heads))).astype(np.float32) * 0.1
    fitted = fit(WINDOWS, said_of(EVERY, noise), said_of(EVERY))
    assert fitted.factor("ETHUSDT", RETURN) > 0.98
    assert fitted.factor("BTCUSDT", VOLATILITY) != pytest.approx(1.0, abs=1e-3)
    silent = foresight(EVERY)
    silent[:, PLAN.heads.index(RETURN)] = np.nan
    assert fit(WINDOWS, said_of(EVERY, noise), said_of(EVERY, silent)).factor("ETHUSDT", RETURN) == 0.0


def test_a_symbol_that_the_common_share_harms_gets_none() -> None:
    said, ether = foresight(EVERY), WINDOWS.symbol[EVERY] == PLAN.symbols.index("ETHUSDT")
    said[~ether] *= -0.05
    said[ether] *= 0.5
    fitted = fit(WINDOWS, said_of(EVERY, said))
    assert fitted.factor("ETHUSDT", RETURN) > 0.5
    assert fitted.factor("BTCUSDT", RETURN) == 0.0


def test_the_recurrent_network_is_listened_to_where_it_adds_something() -> None:
    column, rng = PLAN.heads.index(RETURN), np.random.default_rng(0)
    truth = foresight(EVERY).astype(np.float64)
    path, noise = 0.5 * truth, rng.standard_normal(truth.shape).astype(np.float32) * 0.2
    trusted = Evidence(rows=EVERY, output=path)
    for recurrent, heard in (
        (truth.astype(np.float32) * 0.3, True),
        (noise, False),
        (-truth.astype(np.float32), False),
    ):
        found = gains(WINDOWS, EVERY, path, recurrent, trusted)
        assert bool(found[column] > 0.9) is heard
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
    fitted = fit(WINDOWS, said_of(chosen, said))
    pooled = fitted.factors[POOLED][VOLATILITY.key]
    assert (fitted.factor("ETHUSDT", VOLATILITY) > 1.3) == own
    assert (fitted.factor("ETHUSDT", VOLATILITY) == pooled) != own


def test_calibration_survives_json() -> None:
    fitted = fit(WINDOWS, said_of(EVERY))
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
