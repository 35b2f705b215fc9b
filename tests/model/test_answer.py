"""Answers: in the topic's unit, within the band, and brought forward to the moment of the question."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UnusableForecast
from core.sources import PERSISTENCE
from core.topic import Target, Volatility
from model.answer import MOST_MINUTES, carried, value
from model.forecaster import HeadForecast
from model.heads import Head, Kind, head_of
from tests.model.test_forecaster import RETURN_10M, forecast, topic


@given(sigmas=st.floats(-7.99, 7.99), scale=st.floats(1e-6, 0.05), anchor=st.floats(1e-8, 1e8))
def test_a_price_is_the_anchor_moved_by_the_log_return(sigmas: float, scale: float, anchor: float) -> None:
    move = sigmas * scale * 10**0.5
    answer = value(topic(), forecast(move, scale), anchor)
    assert answer > 0
    assert np.log(answer / anchor) == pytest.approx(move, abs=1e-12)
    assert value(topic(Target.LOG_RETURN), forecast(move, scale), anchor) == move


@pytest.mark.parametrize(
    ("volatility", "factor"),
    [
        (Volatility.STD, 1.0),
        (Volatility.STD_HORIZON, 10**0.5),
        (Volatility.STD_ANNUAL, 525_600**0.5),
        (Volatility.RMS, 1.0),
        (Volatility.RMS_HORIZON, 10**0.5),
        (Volatility.RMS_ANNUAL, 525_600**0.5),
    ],
)
def test_a_volatility_is_answered_in_the_topic_s_unit(volatility: Volatility, factor: float) -> None:
    asked = replace(topic(Target.VOLATILITY), volatility=volatility)
    answer = value(asked, forecast(4e-4, head=head_of(asked)), anchor=1.0)
    assert answer == pytest.approx(4e-4 * factor)
    with pytest.raises(UnusableForecast, match=r"sane is 1e-05 to 0\.025"):  # whatever the unit
        value(asked, forecast(0.026, head=head_of(asked)), anchor=1.0)


@pytest.mark.parametrize(
    ("number", "target", "anchor", "reason"),
    [
        pytest.param(float("nan"), Target.PRICE, 2000.0, "return-10m of v is nan", id="not a number"),
        pytest.param(float("inf"), Target.LOG_RETURN, 2000.0, "return-10m of v is inf", id="infinite"),
        pytest.param(None, Target.PRICE, 2000.0, "return-10m of v is None", id="nothing"),
        pytest.param(0.0127, Target.PRICE, 2000.0, r"topic 1: .* 0.0127, sane is -0.0126 to 0.0126", id="up too far"),
        pytest.param(-0.0127, Target.LOG_RETURN, 2000.0, "sane is -0.0126 to 0.0126", id="down too far"),
        pytest.param(0.0, Target.PRICE, 0.0, "anchor price must be finite and above 0, was 0.0", id="anchor zero"),
        pytest.param(0.0, Target.PRICE, float("nan"), "anchor price .* was nan", id="anchor no number"),
        pytest.param(0.0, Target.PRICE, -1.0, "anchor price .* was -1.0", id="anchor negative"),
        pytest.param(0.0, Target.LOG_RETURN, float("inf"), "anchor price .* was inf", id="anchor infinite"),
        pytest.param(0.01, Target.PRICE, 1.79e308, "price inf from anchor", id="price too large"),
        pytest.param(0.0, Target.VOLATILITY, 1.0, "sane is 1e-05 to 0.025", id="volatility zero"),
        pytest.param(-5e-4, Target.VOLATILITY, 1.0, "sane is 1e-05 to 0.025", id="volatility negative"),
        pytest.param(0.9e-5, Target.VOLATILITY, 1.0, "sane is 1e-05 to 0.025", id="volatility tiny"),
        pytest.param(0.026, Target.VOLATILITY, 1.0, "sane is 1e-05 to 0.025", id="volatility huge"),
    ],
)
def test_an_absurd_number_is_refused_by_name(number: float | None, target: Target, anchor: float, reason: str) -> None:
    head = Head(Kind.VOLATILITY, 10) if target is Target.VOLATILITY else RETURN_10M
    with pytest.raises(UnusableForecast, match=reason):
        value(topic(target), forecast(number, head=head), anchor)


@pytest.mark.parametrize("scale", [float("nan"), 0.0, -1.0])
def test_no_volatility_passes_a_band_that_is_none(scale: float) -> None:
    head = Head(Kind.VOLATILITY, 10)
    with pytest.raises(UnusableForecast):
        value(topic(Target.VOLATILITY), forecast(0.0, scale, head), 1.0)


def test_a_forecast_of_another_symbol_or_head_answers_nothing() -> None:
    with pytest.raises(UnusableForecast, match="asks for return-10m of ETHUSDT, was given return-10m of BTCUSDT"):
        value(topic(), replace(forecast(0.0), symbol="BTCUSDT"), 1.0)
    with pytest.raises(UnusableForecast, match="asks for return-20m of ETHUSDT, was given return-10m of ETHUSDT"):
        value(topic(horizon_min=20), forecast(0.0), 1.0)


def volatile(v: float, horizon_min: int = 15, version: str = "some") -> HeadForecast:
    head = Head(Kind.VOLATILITY, horizon_min)
    return HeadForecast(symbol="ETHUSDT", head=head, version=version, asof_ms=0, volatility=v, scale=v)


@given(
    v=st.floats(1e-6, 1e-2),
    move=st.floats(-0.05, 0.05),
    seconds=st.floats(0.0, 180.0),
    horizon_min=st.sampled_from([2, 5, 15, 60, 240]),
)
def test_a_volatility_learns_from_the_move_since_the_close(
    v: float, move: float, seconds: float, horizon_min: int
) -> None:
    close = 2000.0
    now = carried(volatile(v, horizon_min), close, close * np.exp(move), round(seconds * 1000)).volatility
    assert now is not None
    assert np.isfinite(now)
    assert now > 0
    expected, came = v**2 * seconds / 60, move**2
    if came > 1.01 * expected + 1e-12:
        assert now > v, "more than was expected: it rises"
    elif came < 0.99 * expected - 1e-12:
        assert now < v


def test_what_came_as_expected_and_a_question_at_the_close_change_no_volatility() -> None:
    v = 6e-4
    assert carried(volatile(v), 2000.0, 2000.0, 0).volatility == pytest.approx(v, rel=1e-12)
    assert carried(volatile(v), 2000.0, 2000.0, -500).volatility == pytest.approx(v, rel=1e-12), (
        "a clock a little behind"
    )
    moved = carried(volatile(v), 2000.0, 2000.0 * np.exp(v * 0.5**0.5), 30_000)
    assert moved.volatility == pytest.approx(v, rel=1e-9)
    late = carried(volatile(v), 2000.0, 2000.0, 10**9).volatility
    assert late == pytest.approx(v * (1 - 0.05 * MOST_MINUTES) ** 0.5), (
        "a forecast that is far too old is not driven to 0"
    )


def test_a_long_horizon_learns_less() -> None:
    v, anchor = 6e-4, 2000.0 * np.exp(3e-3)
    news = [carried(volatile(v, h), 2000.0, anchor, 20_000).volatility or 0.0 for h in (5, 15, 60, 240)]
    assert news[0] == news[1] > news[2] > news[3] > v


def test_a_return_a_naive_forecast_and_the_hours_stay_what_they_are() -> None:
    moved = HeadForecast(
        symbol="ETHUSDT", head=Head(Kind.RETURN, 10), version="some", asof_ms=0, log_return=1e-3, scale=6e-4
    )
    for made in (moved, volatile(6e-4, version=PERSISTENCE), volatile(6e-4, 480)):
        assert carried(made, 2000.0, 2010.0, 30_000) is made
