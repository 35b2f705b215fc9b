"""Every scalar topic of the catalogue as an operator of both networks would configure it: a file for each network."""

import json
from collections.abc import Sequence
from pathlib import Path

from core.topic import CLASSIFICATION, CatalogueTopic, catalogue

ENDPOINT = "http://inference:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}&network="


def scalar_topics() -> list[CatalogueTopic]:
    """The catalogue without its classification topics."""
    return [topic for topic in catalogue().values() if topic.target != CLASSIFICATION]


def write_configs(folder: Path, topics: Sequence[CatalogueTopic]) -> tuple[Path, ...]:
    """One config.json for each network of ``topics``; what it can leave to the catalogue it does."""
    paths = []
    for network in sorted({topic.network for topic in topics}):
        entries = [
            {
                "topicId": topic.topic_id,
                "inferenceEntrypointName": "apiAdapter",
                "parameters": {"InferenceEndpoint": ENDPOINT + network, "Token": topic.asset},
            }
            for topic in topics
            if topic.network == network
        ]
        paths.append(folder / f"{network}.json")
        paths[-1].write_text(json.dumps({"wallet": {"chainId": network}, "worker": entries}))
    return tuple(paths)
