"""Heads: names, panels, truths, naive forecasts and the scaling of targets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from core.topic import Target, Topic, Volatility
from klines.klines import Klines
from model.heads import (
    HOUR,
    MINUTE,
    Head,
    Kind,
    Panel,
    decode,
    encode,
    head_of,
    naive,
    panel_of,
    panels_for,
    realised_volatility,
    rolling_sum,
    training_start_ms,
    truth,
)
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines

WALK = random_walk_klines(600)
HEADS = [Head(Kind.RETURN, 10), Head(Kind.VOLATILITY, 5), Head(Kind.VOLATILITY, 15), Head(Kind.RMS, 15)]


def topic(topic_id: int, symbol: str, target: Target, horizon_min: int) -> Topic:
    return Topic(topic_id=topic_id, token=symbol[:3], symbol=symbol, target=target, horizon_min=horizon_min)


def without(klines: Klines, row: int) -> Klines:
    """The same klines with one missing."""
    return klines.between(0, int(klines.open_time_ms[row])).merge(
        klines.between(int(klines.open_time_ms[row + 1]), 2**62)
    )


@pytest.mark.parametrize("key", ["return-5m", "return-8h", "volatility-24h", "return-7d"])
def test_a_key_names_its_head(key: str) -> None:
    assert Head.parse(key).key == key


@pytest.mark.parametrize("key", ["price-5m", "return", "return-", "return-m", "return-5", "return-0m", "volatility-1m"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError):
        Head.parse(key)


def test_topics_are_grouped_into_panels_and_share_heads() -> None:
    topics = [
        topic(1, "ETHUSDT", Target.PRICE, 10),
        topic(2, "SOLUSDT", Target.LOG_RETURN, 10),
        topic(3, "SOLUSDT", Target.VOLATILITY, 15),
        topic(4, "ETHUSDT", Target.PRICE, 1440),
    ]
    plans = panels_for(topics)
    assert list(plans) == [MINUTE, HOUR]
    assert plans[MINUTE].symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    assert [head.key for head in plans[MINUTE].heads] == ["return-10m", "volatility-15m"]
    assert plans[MINUTE].gap_ms == 15 * MINUTE_MS
    assert plans[HOUR].symbols == ("BTCUSDT", "ETHUSDT")
    assert head_of(topics[0]) == head_of(topics[1])


@pytest.mark.parametrize(("minutes", "panel"), [(1, MINUTE), (240, MINUTE), (300, HOUR), (10080, HOUR)])
def test_a_horizon_has_a_panel(minutes: int, panel: Panel) -> None:
    assert panel_of(minutes) is panel


def test_a_long_horizon_of_odd_minutes_is_refused_with_its_topic() -> None:
    with pytest.raises(ConfigError, match=r"topic 7: .*250m"):
        panels_for([topic(7, "ETHUSDT", Target.PRICE, 250)])


def test_training_reads_whole_days_and_the_hour_panel_eight_times_as_many() -> None:
    # the minute panel's first window remembers a day and half an hour, the hour panel's 22 days
    assert training_start_ms(MINUTE, 90, START_MS + HOUR_MS) == START_MS - 91 * DAY_MS
    assert training_start_ms(HOUR, 90, START_MS + HOUR_MS) == START_MS - (720 + 22) * DAY_MS


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.integers(1, 45))
def test_rolling_sums_are_sums(values: list[float], rows: int) -> None:
    array = np.array(values)
    expected = [array[i + 1 - rows : i + 1].sum() if i + 1 >= rows else np.nan for i in range(len(array))]
    np.testing.assert_allclose(rolling_sum(array, rows), expected, atol=1e-9)


@pytest.mark.parametrize("steps", [2, 5, 15])
def test_volatility_is_the_sample_deviation_of_one_minute_returns(steps: int) -> None:
    returns = np.diff(np.log(WALK.close))
    assert realised_volatility(WALK, steps)[100] == pytest.approx(np.std(returns[100 - steps : 100], ddof=1), rel=1e-9)


def test_hourly_volatility_is_scaled_to_a_minute() -> None:
    hours = random_walk_klines(200, interval_ms=HOUR_MS, sigma=6e-3)
    returns = np.diff(np.log(hours.close))
    assert realised_volatility(hours, 8)[50] == pytest.approx(np.std(returns[42:50], ddof=1) / 60**0.5, rel=1e-9)


@pytest.mark.parametrize(("klines", "minutes"), [(WALK, 1), (random_walk_klines(200, interval_ms=HOUR_MS), 60)])
def test_the_root_mean_square_is_about_zero_and_its_horizon_is_the_root_of_the_sum(
    klines: Klines, minutes: int
) -> None:
    returns = np.diff(np.log(klines.close))[85:100]
    rms = realised_volatility(klines, 15, Kind.RMS)[100]
    assert rms == pytest.approx(np.sqrt(np.mean(returns**2) / minutes), rel=1e-9)
    assert rms * Volatility.RMS_HORIZON.factor(15 * minutes) == pytest.approx(np.sqrt(np.sum(returns**2)), rel=1e-9)
    deviation = np.std(returns, ddof=1) / minutes**0.5
    assert realised_volatility(klines, 15)[100] * Volatility.STD_ANNUAL.factor(15) == pytest.approx(
        deviation * 525_600**0.5, rel=1e-9
    )


@pytest.mark.parametrize(
    ("volatility", "head"),
    [
        *((word, Head(Kind.VOLATILITY, 15)) for word in Volatility if word.startswith("std")),
        *((word, Head(Kind.RMS, 15)) for word in Volatility if word.startswith("rms")),
    ],
)
def test_the_measure_of_a_volatility_decides_its_head_and_the_unit_does_not(volatility: Volatility, head: Head) -> None:
    asked = replace(topic(1, "ETHUSDT", Target.VOLATILITY, 15), volatility=volatility)
    assert head_of(asked) == head
    assert Head.parse(head.key) == head


def test_a_flat_market_has_no_volatility() -> None:
    flat = random_walk_klines(50, sigma=0.0)
    np.testing.assert_array_equal(realised_volatility(flat, 5)[5:], 0.0)


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
@given(value=st.floats(1e-7, 0.2), scale=st.floats(1e-6, 0.05), sign=st.sampled_from([-1, 1]))
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
