"""The official node's rules: which URL it asks, and which answers it can submit.

Source: allora-offchain-node adapter/api/apiadapter and usecase/build_commit_worker_payload (v0.9.1), allora-chain
math/dec.go and math/bounded_dec.go, and the parser they use, cockroachdb/apd v3.
"""

import re
from decimal import Decimal, InvalidOperation

from core.errors import UnusableForecast
from core.topic import Topic, fill_placeholders
from node.decimals import LARGEST, SMALLEST

_DECIMAL = re.compile(rb"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITE = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_NAN = re.compile(rb"[+-]?s?nan[0-9]*", re.IGNORECASE)
_MAX_EXPONENT = 100_000  # apd's, also for zeros


def inference_url(topic: Topic, height: int, base_url: str | None = None) -> str:
    """The URL the node asks for ``topic`` at a nonce.

    Args:
        topic: from config.json.
        height: the nonce's block height.
        base_url: put in the place of the endpoint's scheme, host and port, where the node's own network is absent.

    >>> from core.topic import Target
    >>> eth = Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=10,
    ...     endpoint="http://inference:8000/inference/{Token}?topic={TopicId}", parameters=(("Token", "ETH"),))
    >>> inference_url(eth, 120), inference_url(eth, 120, "http://127.0.0.1:8000")
    ('http://inference:8000/inference/ETH?topic=1', 'http://127.0.0.1:8000/inference/ETH?topic=1')
    """
    url = fill_placeholders(topic.endpoint, topic_id=topic.topic_id, height=height, parameters=dict(topic.parameters))
    if base_url is None:
        return url
    return base_url.rstrip("/") + re.sub(r"^[A-Za-z]+://[^/?#]*", "", url)


def submission(status: int, body: bytes) -> Decimal:
    """The value the node would sign for this answer of the endpoint.

    Raises:
        UnusableForecast: it would submit nothing; the text says why.
    """
    if status != 200:
        raise UnusableForecast(f"status {status}: the node reads 200 alone")
    return parse_decimal(body)


def parse_decimal(body: bytes) -> Decimal:
    """A 200 body as the node and the chain read it: one finite decimal and nothing else.

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
    """Why the parser, or what looks at its result, refuses ``body``."""
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
