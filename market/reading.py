"""Answers of any venue, read: JSON, columns of numbers, prices."""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from core.errors import MalformedKlines
from market.klines import Floats


def json_of(body: bytes) -> Any:
    """What a body says.

    Raises:
        MalformedKlines: it is not JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedKlines(f"the answer is not JSON but {body[:60]!r}") from error


def floats(name: str, cells: Iterable[Any]) -> Floats:
    """A column, numbers or texts of numbers.

    Raises:
        MalformedKlines: a cell is neither; names the column.
    """
    try:
        return np.array([float(cell) for cell in cells], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedKlines(f"a cell of column {name} is no number: {error}") from error


def price_of(symbol: str, value: object) -> float:
    """A price, a number or the text of one.

    Raises:
        MalformedKlines: it is not finite and above 0.
    """
    try:
        price = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        price = math.nan
    if not (math.isfinite(price) and price > 0):
        raise MalformedKlines(f"the price of {symbol} must be finite and above 0, was {value!r}")
    return price
