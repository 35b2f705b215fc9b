"""Topics, horizons and the shipped catalogue."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.losses import LOSS_NAMES
from core.topic import CLASSIFICATION, Target, Topic, catalogue, horizon_text, parse_horizon


def test_the_catalogue_is_the_networks_list(shared_data: Path) -> None:
    listed = json.loads((shared_data / "topics.json").read_text("utf-8"))["topics"]
    ours = [asdict(topic) for topic in catalogue().values()]
    for topic in ours:
        del topic["volatility"]  # the list does not say it
    assert ours == listed


def test_every_catalogue_topic_can_become_a_topic() -> None:
    scalar = [topic for topic in catalogue().values() if topic.target != CLASSIFICATION]
    assert len(scalar) == 55
    for known in scalar:
        topic = Topic(
            topic_id=known.topic_id,
            token=known.asset,
            symbol=f"{known.asset}USDT",
            target=Target(known.target),
            horizon_min=parse_horizon(known.horizon),
            loss=LOSS_NAMES[known.loss],
        )
        assert topic.horizon == known.horizon


@given(minutes=st.integers(1, 7 * 1440))
def test_a_horizon_survives_its_text(minutes: int) -> None:
    assert parse_horizon(horizon_text(minutes)) == minutes


@pytest.mark.parametrize("text", ["", "m", "10", "0m", "10s", " 10m", "10m\n", "10M", "1.5h", "-5m", "8d", "٣m"])
def test_what_is_no_horizon_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="10m, 8h or 7d"):
        parse_horizon(text)


@pytest.mark.parametrize(("topic_id", "horizon_min"), [(0, 5), (-1, 5), (1, 0), (1, 7 * 1440 + 1)])
def test_a_topic_cannot_be_wrong(topic_id: int, horizon_min: int) -> None:
    with pytest.raises(ConfigError):
        Topic(topic_id=topic_id, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=horizon_min)
