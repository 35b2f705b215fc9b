"""The decimal text that the network accepts, as this project writes it."""

import math
from decimal import Decimal

from core.errors import UnusableForecast

# Bounds of a non-zero inference on the chain. Source: BoundedExp40Dec, allora-chain math/bounded_dec.go.
SMALLEST = Decimal("1e-40")
LARGEST = Decimal("1e40")


def decimal_text(value: float) -> str:
    """Digits for the node's decimal parser: at most 17 significant ones, no quotes, exponent, blank or newline.

    The text is the shortest that gives ``value`` back.

    Raises:
        UnusableForecast: not finite, or neither 0 nor between 1e-40 and 1e40 in size.

    >>> decimal_text(1e-7), decimal_text(-0.0), decimal_text(2650.25)
    ('0.0000001', '0', '2650.25')
    """
    value = float(value)  # numpy's floats have another repr
    if not math.isfinite(value):
        raise UnusableForecast(f"a forecast must be finite, was {value}")
    if value == 0:
        return "0"  # also for -0.0
    text = repr(value)
    if "e" not in text:  # between 1e-4 and 1e16, where repr writes plain digits; most answers are
        return text
    exact = Decimal(text)
    if not SMALLEST <= exact.copy_abs() <= LARGEST:
        raise UnusableForecast(f"a forecast must be 0 or between 1e-40 and 1e40 in size, was {value}")
    return format(exact, "f")
