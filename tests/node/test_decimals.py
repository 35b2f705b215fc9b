"""The text of a number on its way to the chain."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UnusableForecast
from node.decimals import decimal_text
from node.endpoint import parse_decimal

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
