"""Scores in the topic's loss and unit, calibration, and that luck counts for nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import IncompatibleModel, UnusableForecast
from core.topic import Target, Topic, Volatility
from model.calibration import BIAS_LIMITS, LEAST_HORIZONS, LEAST_WINDOWS, POOLED, Calibration, bias, fit, shrinkage
from model.evaluation import Score, TopicForecasts, outputs, score
from model.features import Floats32
from model.heads import MINUTE, Head, Kind, panels_for
from model.windows import Rows, build
from tests.fakes import random_walk_klines

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


@pytest.mark.parametrize("steps", [5, 60])
def test_luck_is_given_no_weight(steps: int) -> None:
    """Forecasts of noise, with overlapping truths and a drift in both, over 200 markets: hardly any is believed."""
    rng = np.random.default_rng(0)
    believed = []
    for _ in range(200):
        moves = rng.standard_normal(4000 + steps)
        came_true = np.convolve(moves, np.ones(steps), "valid")[1:4001]
        forecast = np.convolve(rng.standard_normal(4000 + 99), np.ones(100) / 10, "valid")[:4000] + 0.3
        believed.append(shrinkage(forecast, came_true, np.arange(4000), steps))
    assert np.mean(np.array(believed) > 0) < 0.03


def test_an_edge_is_given_nearly_its_weight() -> None:
    rng = np.random.default_rng(0)
    forecast = rng.standard_normal(4000)
    came_true = 0.6 * forecast + rng.standard_normal(4000)
    assert 0.5 < shrinkage(forecast, came_true, np.arange(4000), 1) < 0.6
    assert shrinkage(forecast / 5, came_true, np.arange(4000), 1) == 1.0  # never made larger
    assert shrinkage(-forecast, came_true, np.arange(4000), 1) == 0.0  # never turned around


@pytest.mark.parametrize("rows", [0, 1, (LEAST_HORIZONS - 10) * 60])
def test_few_horizons_are_no_evidence(rows: int) -> None:
    moved = np.linspace(0.1, 1, rows)
    assert shrinkage(moved, moved, np.arange(rows), 60) == 0.0


def test_rows_with_holes_between_them_count_as_far_apart_as_they_are() -> None:
    rng = np.random.default_rng(3)
    forecast, steps = rng.standard_normal(600), 10
    came_true = 0.3 * forecast + rng.standard_normal(600)
    far = shrinkage(forecast, came_true, np.arange(600) * 100, steps)
    near = shrinkage(forecast, came_true, np.arange(600), steps)
    white = 1 / 600**0.5 * 3
    slope = forecast @ came_true / (forecast @ forecast)
    assert far == pytest.approx(slope - white, abs=0.02)
    assert near != far


@settings(max_examples=30)
@given(factor=st.floats(0.01, 20))
def test_the_bias_takes_a_factor_away_within_its_limits(factor: float) -> None:
    forecast = np.random.default_rng(0).uniform(1, 2, 50)
    assert bias(forecast, forecast * factor) == pytest.approx(np.clip(factor, *BIAS_LIMITS))


def test_calibration_of_foresight_is_trust_and_of_noise_is_none() -> None:
    trusted = fit(WINDOWS, EVERY, foresight(EVERY))
    noise = np.random.default_rng(0).standard_normal((len(EVERY), len(PLAN.heads))).astype(np.float32) * 0.1
    doubted = fit(WINDOWS, EVERY, noise)
    for symbol in PLAN.symbols:
        assert trusted.factor(symbol, RETURN) == pytest.approx(1.0, abs=1e-6)
        assert trusted.factor(symbol, VOLATILITY) == pytest.approx(1.0, abs=1e-6)
        assert doubted.factor(symbol, RETURN) == 0.0
    assert trusted.factor("DOGEUSDT", RETURN) == 0.0
    assert trusted.factor("DOGEUSDT", VOLATILITY) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("rows", "own"), [(LEAST_WINDOWS * 15 - 1, False), (LEAST_WINDOWS * 15, True)])
def test_a_symbol_with_few_validation_rows_has_the_bias_of_all(rows: int, own: bool) -> None:
    ether = PLAN.symbols.index("ETHUSDT")
    bitcoin, few = EVERY[WINDOWS.symbol[EVERY] != ether], EVERY[WINDOWS.symbol[EVERY] == ether][:rows]
    chosen = np.sort(np.concatenate([bitcoin, few]))
    said = foresight(chosen)
    said[WINDOWS.symbol[chosen] == ether] -= 0.3  # of ether, a quarter too low
    fitted = fit(WINDOWS, chosen, said)
    pooled = fitted.factors[POOLED][VOLATILITY.key]
    assert (fitted.factor("ETHUSDT", VOLATILITY) > 1.3) == own
    assert (fitted.factor("ETHUSDT", VOLATILITY) == pooled) != own


def test_calibration_survives_json() -> None:
    fitted = fit(WINDOWS, EVERY, foresight(EVERY))
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
