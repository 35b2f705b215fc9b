"""A volatility answer is the network's number: the sample deviation of the one-minute log-returns over the horizon."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import MINUTE_MS
from core.topic import Target, Topic
from klines.klines import Floats
from klines.truth import truth_of
from model.forecaster import Naive, value
from model.heads import head_of, naive, panel_of, truth
from node.config_file import topics_from_config
from tests.catalogue import scalar_topics, write_configs
from tests.fakes.clock import START_MS
from tests.fakes.klines import random_walk_klines

LONGEST_MIN = 240


def defined(close: Floats, horizon_min: int) -> float:
    """The definition, of the last closes of a horizon (admission criteria of the network, volatility topics)."""
    returns = np.diff(np.log(close[-horizon_min - 1 :]))
    return float(np.std(returns, ddof=1) * np.sqrt(horizon_min))


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> tuple[Topic, ...]:
    """Every volatility topic of the catalogue, configured by its id and token alone."""
    asked = [topic for topic in scalar_topics() if topic.target == Target.VOLATILITY]
    return topics_from_config(*write_configs(Path(tmp_path_factory.mktemp("configs")), asked))


@given(
    seed=st.integers(0, 2**32 - 1),
    price=st.floats(1e-4, 1e5),
    a_minute=st.floats(1e-5, 1e-2),
    drift=st.floats(-3.0, 3.0),  # deviations a minute
)
def test_every_volatility_topic_is_answered_by_the_network_s_definition(
    topics: tuple[Topic, ...], seed: int, price: float, a_minute: float, drift: float
) -> None:
    assert {topic.horizon for topic in topics} == {"5m", "15m", "4h"}
    shocks = np.random.default_rng(seed).standard_normal(2 * LONGEST_MIN) + drift
    klines = random_walk_klines(len(shocks), sigma=a_minute, first=price, shocks=shocks)
    asked_ms = START_MS + (len(klines) - LONGEST_MIN) * MINUTE_MS
    for topic in topics:
        panel, head = panel_of(topic.horizon_min), head_of(topic)
        answered = value(topic, Naive.forecast(klines, topic.symbol, head), anchor=1.0)
        assert answered == pytest.approx(defined(klines.close, topic.horizon_min), rel=1e-12)
        row = len(klines) - 1 - LONGEST_MIN
        came_true = defined(klines.close[: row + 1 + topic.horizon_min], topic.horizon_min)
        assert truth(klines, panel, head)[row] * topic.unit == pytest.approx(came_true, rel=1e-12)
        assert truth_of(topic, klines, asked_ms, "test").value == pytest.approx(came_true, rel=1e-12)


def test_each_row_of_a_market_whose_moves_are_nearly_alike_keeps_the_definition(topics: tuple[Topic, ...]) -> None:
    """The mean square less the squared mean was wrong in the tenth digit there."""
    klines = random_walk_klines(400, sigma=1e-8, first=20.0, shocks=1e5 + np.random.default_rng(7).standard_normal(400))
    for horizon_min in (5, 15, LONGEST_MIN):
        topic = next(topic for topic in topics if topic.horizon_min == horizon_min)
        ours = naive(klines, panel_of(horizon_min), head_of(topic))[LONGEST_MIN:] * topic.unit
        wanted = [defined(klines.close[: row + 1], horizon_min) for row in range(LONGEST_MIN, len(klines))]
        np.testing.assert_allclose(ours, wanted, rtol=1e-12)
