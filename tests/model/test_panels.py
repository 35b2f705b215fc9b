"""Panels: which topics a network answers, and what its training reads."""

import pytest

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from core.errors import ConfigError
from core.topic import Target, Topic
from model.heads import head_of
from model.panels import HOUR, MINUTE, Panel, panel_of, panels_for, training_start_ms
from tests.fakes.clock import START_MS


def topic(topic_id: int, symbol: str, target: Target, horizon_min: int) -> Topic:
    return Topic(topic_id=topic_id, token=symbol[:3], symbol=symbol, target=target, horizon_min=horizon_min)


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
