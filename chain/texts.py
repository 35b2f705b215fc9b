"""Reading the texts of a chain's host, which are not trusted: each has a form and a largest length.

All raise ValueError, whose text names what was expected and what was there.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

LONGEST_LINE = 300  # characters of a metadata text that are kept; the chain's own limit is 255
MOST_ITEMS = 10_000  # of a list in a body

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ADDRESS = re.compile(r"allo1[02-9ac-hj-np-z]{38,80}")
_DECIMAL = re.compile(r"-?[0-9]{1,80}(\.[0-9]{0,80})?([eE][-+]?[0-9]{1,4})?")
NOT_A_NUMBER = "NaN"  # the chain writes it where a value cannot be calculated, such as a loss without one inferer


def chain_id(value: Any) -> str:
    """Return a chain id; it may become part of a log line or of a key."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
        raise ValueError(f"a chain id is letters, digits, dots and dashes, was {str(value)[:80]!r}")
    return value


def whole(value: Any) -> int:
    """Return a height, an id or a length.

    >>> whole("1414"), whole(7)
    (1414, 7)
    """
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,18}", str(value)):
        raise ValueError(f"a height or id is a whole number, was {str(value)[:80]!r}")
    return int(value)


def time_ms(value: Any) -> int:
    """Return the milliseconds since the epoch of an RFC 3339 text with a zone, cut down.

    >>> time_ms("1970-01-01T00:00:01.171988872Z"), time_ms("1970-01-01T00:00:02Z")
    (1171, 2000)
    """
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"a time has a zone, was {value!r}")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def address(value: Any) -> str:
    """Return the address of a wallet; its checksum is not tested.

    >>> address("allo1yjy7uan0rtsxz2jm33xfhjawuhvz8pfveqd7l3")
    'allo1yjy7uan0rtsxz2jm33xfhjawuhvz8pfveqd7l3'
    """
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ValueError(f"an address begins with allo1 and has 43 characters or more, was {str(value)[:100]!r}")
    return value


def decimal(value: Any) -> str:
    """Return a decimal as the chain wrote it.

    >>> decimal("0.0001141734609252337"), decimal("1E-18"), decimal("NaN")
    ('0.0001141734609252337', '1E-18', 'NaN')
    """
    if not isinstance(value, str) or not (value == NOT_A_NUMBER or _DECIMAL.fullmatch(value)):
        raise ValueError(f"a decimal is digits in a text, was {str(value)[:100]!r}")
    return value


def flag(value: Any) -> bool:
    """Return a boolean, which may not be another type: the text "false" is true to Python."""
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, was {str(value)[:80]!r}")
    return value


def line(value: Any) -> str:
    """Return free text on one line, cut to ``LONGEST_LINE`` characters, without control characters.

    >>> line("ETH 10min\\x1b[31m\\nprediction")
    'ETH 10min [31m prediction'
    """
    if not isinstance(value, str):
        raise ValueError(f"expected a text, was {str(value)[:80]!r}")
    return "".join(sign if sign.isprintable() else " " for sign in value[:LONGEST_LINE])


def items(value: Any) -> list[Any]:
    """Return a list of bounded length; null is an empty list, as Go's JSON writes either.

    >>> items(None), items([1])
    ([], [1])
    """
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MOST_ITEMS:
        raise ValueError(f"expected a list of at most {MOST_ITEMS} items, was {str(value)[:80]!r}")
    return value


def numbers_only(values: Mapping[str, str]) -> dict[str, str]:
    """Leave out what the chain could not calculate.

    >>> numbers_only({"a": "0.5", "b": "NaN"})
    {'a': '0.5'}
    """
    return {key: value for key, value in values.items() if value != NOT_A_NUMBER}
