"""The text of a number on its way to the chain."""

import math
import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UnusableForecast
from node.decimals import decimal_text, parse_decimal

sizes = st.floats(1e-40, 1e40)
allowed = st.one_of(st.just(0.0), st.just(-0.0), sizes, sizes.map(lambda x: -x))


@given(value=allowed)
def test_the_node_reads_the_very_number(value: float) -> None:
    text = decimal_text(value)
    assert float(parse_decimal(text.encode("ascii"))) == value
    assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text)
    assert len(text.lstrip("-0.").replace(".", "").rstrip("0")) <= 18


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(0.0, "0", id="zero"),
        pytest.param(-0.0, "0", id="negative zero"),
        pytest.param(-0.0012, "-0.0012", id="log-return"),
        pytest.param(1e-7, "0.0000001", id="no exponent below"),
        pytest.param(1e22, "1" + "0" * 22, id="no exponent above"),
        pytest.param(1e-40, "0." + "0" * 39 + "1", id="smallest"),
        pytest.param(1e40, "1" + "0" * 40, id="largest"),
        pytest.param(np.float64(2650.25), "2650.25", id="numpy float64"),
        pytest.param(np.float32(0.5), "0.5", id="numpy float32"),
    ],
)
def test_text(value: float, text: str) -> None:
    assert decimal_text(value) == text


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, 9.99e-41, -1e-300, 5e-324, math.nextafter(1e40, math.inf), -1e300],
    ids=str,
)
def test_what_the_chain_refuses_is_refused_here(value: float) -> None:
    with pytest.raises(UnusableForecast, match="a forecast must be"):
        decimal_text(value)


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
