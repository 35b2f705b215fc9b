"""What config.json files of these tests are made of."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from core.topic import Topic

EXAMPLE = Path(__file__).parents[2] / "config.example.json"
Read = Callable[[object], tuple[Topic, ...]]
ENDPOINT = "http://inference:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}"


def entry(topic_id: object = 1, /, name: Any = "apiAdapter", **parameters: object) -> dict[str, Any]:
    return {
        "topicId": topic_id,
        "inferenceEntrypointName": name,
        "parameters": {"InferenceEndpoint": ENDPOINT, "Token": "ETH"} | parameters,
    }


def config(*entries: object, **wallet: object) -> dict[str, Any]:
    return {"wallet": {"chainId": "allora-testnet-1"} | wallet, "worker": list(entries)}


def by_parts(rows: Iterable[tuple[Any, list[str]]]) -> list[Any]:
    """Parameters whose ids are the parts that a line must have."""
    return [pytest.param(*row, id=" ".join(row[1])[:60]) for row in rows]


def written(folder: Path, *entries: object, **wallet: object) -> Path:
    """Write a config.json; return its path."""
    path = folder / "config.json"
    path.write_text(json.dumps(config(*entries, **wallet)))
    return path
