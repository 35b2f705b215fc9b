"""Scores in the topic's loss and unit."""

from dataclasses import replace

import numpy as np
import pytest

from core.errors import UnusableForecast
from core.topic import Target, Topic, Volatility
from model.calibration import POOLED, Calibration
from model.features import Floats32
from model.heads import Head, Kind
from model.judging.evaluation import Score, TopicForecasts, outputs, score
from model.panels import MINUTE, panels_for
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
