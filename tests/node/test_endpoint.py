"""The official node's rules for URLs and bodies."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UnusableForecast
from core.topic import Target, Topic
from node.endpoint import inference_url, parse_decimal, submission


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


@pytest.mark.parametrize(
    "body",
    [
        "65000.123",
        "-0.0012",
        "+1.5",
        "1e-7",
        "1.2E+5",
        ".5",
        "5.",
        "0",
        "-0",
        "1." + "3" * 50,
        "007",
        "1e-40",
        "-1e40",
        "0e-50",
        "0.000e9",
        "9" * 40,
        "10000000000000000000000000000000000000000.000",
    ],
)
def test_bodies_the_node_accepts(body: str) -> None:
    assert parse_decimal(body.encode()) == Decimal(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"1\n", "newline"),
        (b" 1", "blank"),
        (b"1 ", "blank"),
        (b"1\t", "blank"),
        (b"\r\n", "blank"),
        (b'"1"', "quotes"),
        (b"'1'", "quotes"),
        (b"1,000", "not a decimal"),
        (b"1_000", "not a decimal"),
        (b"0x10", "not a decimal"),
        (b"1.2.3", "not a decimal"),
        (b'{"value":1}', "not a decimal"),
        (b"[1]", "not a decimal"),
        (b"null", "not a decimal"),
        (b"true", "not a decimal"),
        (b".", "not a decimal"),
        (b"+", "not a decimal"),
        (b"--1", "not a decimal"),
        (b"e5", "not a decimal"),
        (b"1e", "not a decimal"),
        (b"1e5.5", "not a decimal"),
        (b"1\x00", "not a decimal"),
        (b"<html>busy</html>", "not a decimal"),
        (b"NaN", "NaN"),
        (b"-nan12", "NaN"),
        (b"sNaN", "NaN"),
        (b"Infinity", "infinite"),
        (b"-inf", "infinite"),
        ("٣".encode(), "ASCII"),  # Python's Decimal takes Arabic digits, full-width ones and underscores
        ("\uff11".encode(), "ASCII"),
        ("1\u00a0".encode(), "ASCII"),
        (b"\xff\xfe", "ASCII"),
        (b"9.99e-41", "1e-40 and 1e40"),
        (b"0." + b"0" * 40 + b"1", "1e-40 and 1e40"),
        (b"1.0000000000000000000000000000000000000000001e40", "1e-40 and 1e40"),
        (b"-1e41", "1e-40 and 1e40"),
        (b"0e100001", "exponent"),
        (b"1e-99999999999999999999", "exponent"),
        (b"1e" + b"9" * 5000, "exponent"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_bodies_the_node_refuses(body: bytes, reason: str) -> None:
    with pytest.raises(UnusableForecast, match=reason) as caught:
        parse_decimal(body)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


@given(body=st.binary(max_size=12) | st.text("0123456789+-.eE_ \n", max_size=12).map(str.encode))
def test_any_body_is_a_decimal_within_bounds_or_refused(body: bytes) -> None:
    try:
        value = parse_decimal(body)
    except UnusableForecast:
        return
    assert value == 0 or Decimal("1e-40") <= abs(value) <= Decimal("1e40")
    assert not set(body) - set(b"0123456789+-.eE")


@pytest.mark.parametrize("status", [201, 204, 301, 400, 404, 500, 503])
def test_only_200_is_read(status: int) -> None:
    with pytest.raises(UnusableForecast, match=str(status)):
        submission(status, b"1.5")
    assert submission(200, b"1.5") == Decimal("1.5")
