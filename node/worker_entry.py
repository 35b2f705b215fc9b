"""An entry of ``worker`` in config.json for a question, to paste."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.topic import default_symbol
from node.json_text import JsonNode, JsonObject
from node.topic_entry import Reader, read_topic
from node.versions import ENTRYPOINT

ENDPOINT = "http://inference:8000/inference/{Token}?topic={TopicId}&height={BlockHeight}"


def worker_entry(topic_id: int, parameters: Mapping[str, str | None], endpoint: str = ENDPOINT) -> dict[str, Any]:
    """Return the entry of a topic.

    Args:
        parameters: ``Token`` and what else is known of the question; None and empty ones are left out.
        endpoint: where inference is asked, with the node's placeholders in it.
    """
    token = parameters["Token"] or ""
    known = {name: value for name, value in parameters.items() if value}
    given = {"InferenceEndpoint": endpoint, **known, "Symbol": default_symbol(token)}
    return {"topicId": topic_id, "inferenceEntrypointName": ENTRYPOINT, "parameters": given}


def refusal(entry: Mapping[str, Any], network: str) -> str:
    """Return why this release does not answer by an entry; empty if it does."""
    parameters = JsonObject(tuple(entry["parameters"].items()))
    node = JsonNode(Path("config.json"), "worker", JsonObject((*entry.items(), ("parameters", parameters))))
    reader = Reader(())
    try:
        topic = read_topic(node, network, True, reader)
    except ConfigError as error:
        reader.faults.append(str(error))
        topic = None
    return "" if topic else "; ".join(reader.faults) or "it is not complete"
