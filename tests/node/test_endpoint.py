"""The official node's rules for URLs and statuses."""

from decimal import Decimal

import pytest

from core.errors import UnusableForecast
from core.topic import Target, Topic
from node.endpoint import inference_url, submission


def topic(endpoint: str, **parameters: str) -> Topic:
    return Topic(
        topic_id=64,
        token="BTC",
        symbol="BTCUSDT",
        target=Target.LOG_RETURN,
        horizon_min=480,
        endpoint=endpoint,
        parameters=tuple(parameters.items()),
    )


@pytest.mark.parametrize(
    ("asked", "url"),
    [
        pytest.param(
            topic("http://inference:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}", Token="BTC"),
            "http://inference:8000/inference/BTC?topic=64&height=5400",
            id="the example's",
        ),
        pytest.param(topic("http://h/{Token}/{Token}", Token="BTC"), "http://h/BTC/BTC", id="every occurrence"),
        pytest.param(topic("http://h/{token}", Token="BTC"), "http://h/{token}", id="keys keep their case"),
        pytest.param(topic("http://h/{X}", X="a b/ü&?"), "http://h/a b/ü&?", id="nothing is escaped"),
        pytest.param(topic("http://h/{TopicId}", TopicId="7"), "http://h/64", id="the node's own come first"),
        pytest.param(topic("http://h/{A}", A="{B}", B="x"), "http://h/x", id="parameters in their order"),
        pytest.param(topic("http://h/"), "http://h/", id="nothing to replace"),
    ],
)
def test_url(asked: Topic, url: str) -> None:
    assert inference_url(asked, 5400) == url


@pytest.mark.parametrize("base", ["http://127.0.0.1:8000", "http://127.0.0.1:8000/"])
@pytest.mark.parametrize(
    ("endpoint", "rest"),
    [
        ("http://inference:8000/inference/BTC?topic=1", "/inference/BTC?topic=1"),
        ("HTTPS://user@h:1/a//b?u=http://x/y", "/a//b?u=http://x/y"),
        ("http://inference:8000", ""),
        ("http://inference?topic=1", "?topic=1"),
    ],
)
def test_base_url_replaces_scheme_host_and_port_alone(endpoint: str, rest: str, base: str) -> None:
    assert inference_url(topic(endpoint), 1, base) == "http://127.0.0.1:8000" + rest


@pytest.mark.parametrize("status", [201, 204, 301, 400, 404, 500, 503])
def test_only_200_is_read(status: int) -> None:
    with pytest.raises(UnusableForecast, match=str(status)):
        submission(status, b"1.5")
    assert submission(200, b"1.5") == Decimal("1.5")
