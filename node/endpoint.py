"""The official node's rules: which URL the node asks, and which answers it can submit.

Source: allora-offchain-node adapter/api/apiadapter and usecase/build_commit_worker_payload (v0.9.1).
"""

import re
from decimal import Decimal

from core.errors import UnusableForecast
from core.topic import Topic, fill_placeholders
from node.decimals import parse_decimal


def inference_url(topic: Topic, height: int, base_url: str | None = None) -> str:
    """The URL the node asks for ``topic`` at a nonce.

    Args:
        topic: from config.json.
        height: the nonce's block height.
        base_url: replaces the endpoint's scheme, host and port on a machine without Docker's network.

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
    """The value that the node would sign for an answer.

    Raises:
        UnusableForecast: the node would submit nothing; the text says why.
    """
    if status != 200:
        raise UnusableForecast(f"status {status}: the node reads 200 alone")
    return parse_decimal(body)
