"""The decimal text of an answer: how this project writes it, and how the node and the chain read it.

Source: allora-chain math/dec.go and math/bounded_dec.go, and the parser they use, cockroachdb/apd v3.
"""

import math
import re
from decimal import Decimal, InvalidOperation

from core.errors import UnusableForecast

# Bounds of a non-zero inference on the chain: BoundedExp40Dec.
SMALLEST = Decimal("1e-40")
LARGEST = Decimal("1e40")
_DECIMAL = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITE = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_NAN = re.compile(rb"[+-]?s?nan[0-9]*", re.IGNORECASE)
_MAX_EXPONENT = 100_000  # the limit of apd, for zeros too


def decimal_text(value: float) -> str:
    """Digits for the node's decimal parser: at most 17 significant ones, no quotes, exponent, blank or newline.

    The text is the shortest that gives ``value`` back.

    Raises:
        UnusableForecast: ``value`` is not finite, or neither 0 nor between 1e-40 and 1e40 in size.

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


def parse_decimal(body: bytes) -> Decimal:
    """Read a 200 body as the node and the chain do: one finite decimal and nothing else.

    Raises:
        UnusableForecast: the reason, on one line.

    >>> parse_decimal(b"-1.2e-7")
    Decimal('-1.2E-7')
    """
    shown = repr(body[:60])[1:]
    if not body:
        raise UnusableForecast("the body is empty: the node takes that for no inference")
    if not _DECIMAL.fullmatch(body):
        raise UnusableForecast(f"{shown} {_fault(body)}")
    try:
        value = Decimal(body.decode("ascii"))
    except InvalidOperation as error:  # an exponent beyond even Python's range
        raise UnusableForecast(f"{shown} has an exponent out of range") from error
    if abs(value.adjusted()) > _MAX_EXPONENT:
        raise UnusableForecast(f"{shown} has an exponent out of range")
    if value != 0 and not SMALLEST <= value.copy_abs() <= LARGEST:  # abs() would round
        raise UnusableForecast(f"{shown} is neither 0 nor between 1e-40 and 1e40 in size")
    return value


def _fault(body: bytes) -> str:
    """Why the node or the chain refuses ``body``."""
    if _NAN.fullmatch(body):
        return "parses, but the chain refuses NaN"
    if _INFINITE.fullmatch(body):
        return "is infinite"
    if not body.isascii():
        return "is not ASCII"
    if re.search(rb"\s", body):
        return "has a blank or a newline in it"
    if body[:1] in b"\"'":
        return "is in quotes: a JSON string is no decimal"
    return "is not a decimal"
