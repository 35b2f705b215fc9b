"""The baselines on invented klines: skill where there is some, none where there is none, real klines where they are."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.clock import DAY_MS, MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Floats, Klines
from model.panels import panels_for
from model.windows import Split, build
from research.backtest.baselines import BASELINES
from research.backtest.stage import Forecasts, Stage
from research.data import recording_of
from tests.fakes.clock import START_MS
from tests.research.tape import BTC, ETH, SOL, clustered

VOLATILITY_60 = replace(BTC, topic_id=9004, horizon_min=60)
RETURN = Topic(topic_id=9005, token="BTC", symbol="BTCUSDT", target=Target.LOG_RETURN, horizon_min=10)
TOPICS = (ETH, BTC, VOLATILITY_60, RETURN)


def stage_of(klines: Mapping[str, Klines], *topics: Topic, days: tuple[float, float, float], first_ms: int) -> Stage:
    """Train on ``days[0]`` days, validate on ``days[1]``, forecast ``days[2]``, a day after ``first_ms`` begins it."""
    (plan,) = panels_for(topics).values()
    windows = build(plan, klines)
    edges = first_ms + np.cumsum([1.1, *days]) * DAY_MS // MINUTE_MS * MINUTE_MS
    gap_ms = plan.gap_ms
    start, stop, now, end = (int(edge) for edge in edges)
    return Stage(
        windows=windows,
        klines=klines,
        trained=tuple(symbol for symbol in plan.symbols if symbol != "SOLUSDT"),
        split=Split(
            train_start_ms=start,
            train_end_ms=stop - gap_ms,
            validate_start_ms=stop,
            validate_end_ms=now - gap_ms,
            judge_start_ms=now,
            judge_end_ms=now,
        ),
        rows=windows.rows(now, end, stride=7),
        now_ms=now,
        seed=0,
        quick=True,
    )


def ratio(stage: Stage, topic: Topic, said: Floats) -> float:
    """Squared error over that of the naive forecast."""
    rows, column = stage.rows_of(topic), stage.column(topic)
    truth, naive = stage.windows.truth[rows, column], stage.windows.naive[rows, column]
    assert said.shape == truth.shape
    assert np.isfinite(said).all()
    return float(np.mean((truth - said) ** 2) / np.mean((truth - naive) ** 2))


@pytest.fixture(scope="module")
def skilled() -> Stage:
    klines = {symbol: clustered(9, seed) for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT"), 1)}
    return stage_of(klines, *TOPICS, SOL, days=(4, 1, 2.5), first_ms=START_MS)


@pytest.fixture(scope="module")
def said(skilled: Stage) -> dict[str, Forecasts]:
    """What each baseline forecasts, by its name."""
    return {name: baseline.forecast(skilled, lambda _: None) for name, baseline in BASELINES.items()}


@pytest.mark.parametrize("name", ["har", "ridge", "lightgbm"])
def test_volatility_that_comes_in_clusters_is_foreseen(skilled: Stage, said: dict[str, Forecasts], name: str) -> None:
    for topic in (BTC, SOL):
        assert ratio(skilled, topic, said[name][topic.key]) < 0.9, topic
        assert (said[name][topic.key] >= 0).all()


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "har"])
def test_a_walk_is_not_foreseen(skilled: Stage, said: dict[str, Forecasts], name: str) -> None:
    for topic in (ETH, RETURN):
        assert ratio(skilled, topic, said[name][topic.key]) > 0.95, topic


def test_each_forecasts_what_it_applies_to(skilled: Stage, said: dict[str, Forecasts]) -> None:
    for name, baseline in BASELINES.items():
        asked = {topic.key for topic in skilled.windows.plan.topics if baseline.applies(topic, topic == SOL)}
        assert asked <= said[name].keys(), name
    assert not BASELINES["har"].applies(ETH, False)
    assert not BASELINES["guide"].applies(BTC, False)
    assert not BASELINES["example"].applies(ETH, True), "a regression for each symbol knows no other"


@pytest.mark.parametrize("name", ["lightgbm", "guide"])
def test_equal_seeds_give_equal_forecasts(skilled: Stage, said: dict[str, Forecasts], name: str) -> None:
    again = BASELINES[name].forecast(skilled, lambda _: None)
    for key in again:
        np.testing.assert_array_equal(said[name][key], again[key])


def test_har_is_least_squares_of_the_last_volatilities(skilled: Stage, said: dict[str, Forecasts]) -> None:
    """Against the same equations solved from the klines themselves, for one symbol."""
    close = skilled.klines["BTCUSDT"].close
    returns = np.diff(np.log(close), prepend=np.nan)

    def last(steps: int) -> Floats:
        windows = np.lib.stride_tricks.sliding_window_view(returns, steps)
        return np.concatenate([np.full(steps - 1, np.nan), windows.std(axis=1, ddof=1)])

    x = np.stack([np.ones(len(close)), *(last(steps) for steps in (15, 60, 240, 1440))], axis=1)
    y = np.append(last(15)[15:], np.full(15, np.nan))
    fit = skilled.of_symbol(skilled.fitting("train", "validate"), "BTCUSDT")
    weights = np.linalg.lstsq(x[fit], y[fit], rcond=None)[0]
    np.testing.assert_allclose(said["har"][BTC.key], np.maximum(x[skilled.rows_of(BTC)] @ weights, 0), rtol=1e-6)


def test_the_example_regresses_the_next_bar_on_this_one(skilled: Stage) -> None:
    """In a market that drifts by the same step every minute the next bar's mean close is known exactly."""
    before: Floats = np.arange(1_000.0, 1_000.0 + 0.5 * 9 * 1440, 0.5)
    after: Floats = before + 0.5
    klines = {
        symbol: replace(
            skilled.klines[symbol],
            open=before,
            low=before,
            close=after,
            high=after,
        )
        for symbol in ("BTCUSDT", "ETHUSDT")
    }
    stage = stage_of(klines, ETH, BTC, days=(4, 1, 2.5), first_ms=START_MS)
    said = BASELINES["example"].forecast(stage, lambda _: None)[ETH.key]
    close = stage.windows.close[stage.rows_of(ETH)]
    np.testing.assert_allclose(close * np.exp(said), close + 0.5 * 5.5, rtol=1e-6)


def test_real_volatility_is_foreseen(shared_data: Path) -> None:
    plans = list(panels_for([BTC, VOLATILITY_60]).values())
    recording = recording_of(plans, shared_data / "spot", shared_data, ())
    first_ms = 1_704_067_200_000  # 2024-01-01
    klines = recording.until(plans[0], first_ms, first_ms + 45 * DAY_MS)
    stage = stage_of(klines, BTC, VOLATILITY_60, days=(25, 4, 14), first_ms=first_ms)
    for name, most in (("har", 0.9), ("lightgbm", 0.87)):
        said = BASELINES[name].forecast(stage, lambda _: None)
        for topic in (BTC, VOLATILITY_60):
            assert 0.5 < ratio(stage, topic, said[topic.key]) < most, (name, topic.horizon)
