"""Heads: their keys, and which head answers a topic."""

import pytest

from core.errors import ConfigError
from core.topic import Target, Topic, Volatility
from model.heads import Head, Kind, head_of


@pytest.mark.parametrize("key", ["return-5m", "return-8h", "volatility-24h", "return-7d"])
def test_a_key_names_its_head(key: str) -> None:
    assert Head.parse(key).key == key


@pytest.mark.parametrize("key", ["price-5m", "return", "return-", "return-m", "return-5", "return-0m", "volatility-1m"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError):
        Head.parse(key)


@pytest.mark.parametrize(
    ("volatility", "head"),
    [
        *((word, Head(Kind.VOLATILITY, 15)) for word in Volatility if word.startswith("std")),
        *((word, Head(Kind.RMS, 15)) for word in Volatility if word.startswith("rms")),
    ],
)
def test_the_measure_of_a_volatility_decides_its_head_and_the_unit_does_not(volatility: Volatility, head: Head) -> None:
    asked = Topic(
        topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.VOLATILITY, horizon_min=15, volatility=volatility
    )
    assert head_of(asked) == head
    assert Head.parse(head.key) == head
