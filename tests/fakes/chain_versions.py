"""Recorded bodies of emissions v5 in the forms of v9 and v10, as the chain's published interface files have them.

Read from documentation, not seen live.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.venue_server import Answer

Ask = Callable[[str], Answer]


def translated(api: str, path: str, query: Mapping[str, str], ask: Ask) -> Answer | None:
    """Answer a path of a version from the recorded version; None if the version has no such path.

    Args:
        path: behind the version's prefix.
        ask: answers a path of the recorded version.
    """
    number = int(api[1:])
    kind, *rest = path.split("/")
    is_own = kind == "topics" and len(rest) == 4
    if is_own and (rest[3] == "latest_input_inference") != (number >= 10):
        return None
    if number < 9:
        return ask(path)
    if kind == "worker_submission_window_status":
        registered = json.loads(ask(f"worker_registered/{rest[0]}/{query['address']}").body)
        return Answer(json.dumps(registered | {"is_open": False, "is_whitelisted": True, "is_topic_active": True}))
    if kind in {"can_submit_worker_payload", "is_whitelisted_topic_worker"}:
        return Answer(json.dumps({kind: True}))
    answer = ask("/".join([kind, *rest[:3], "latest_inference"]) if is_own else path)
    if answer.status != 200:
        return answer
    body = json.loads(answer.body)
    if kind == "latest_network_inferences":
        body = {name: body[name] for name in ("network_inferences", "inference_block_height")}
    return Answer(json.dumps(body if number < 10 else v10_of("own" if is_own else kind, body)))


def v10_of(kind: str, body: Any) -> Any:
    """Return a recorded body as v10 has it; ``kind`` is the first part of the path, ``own`` of a worker's own value."""
    change = _CHANGED.get(kind)
    return change(body) if change else body


def _topic(body: Any) -> Any:
    body["topic"] |= {
        "c_norm": "0.75",
        "topic_type": "TOPIC_TYPE_REGRESSION",
        "output_arity": "TOPIC_OUTPUT_ARITY_SINGLE",
        "require_unity": False,
        "unity_tolerance": "0",
        "max_labels_per_submission": "1",
        "label_whitelist": [],
        "label_default_value": "0",
        "label_case_sensitive": False,
    }
    return body | {"topic_stake": "1"}


def _own(body: Any) -> Any:
    item = body.pop("latest_inference")
    return {"latest_input_inference": item | {"value": "0", "values": [{"label": "y", "value": item["value"]}]}}


def _inferences(body: Any) -> Any:
    for item in body["inferences"]["inferences"]:
        item["values"] = [item.pop("value")]
    return body


def _labelled(value: str) -> Any:
    return [{"label_id": 0, "label_name": "y", "value": value}]


def _network_inferences(body: Any) -> Any:
    bundle = body["network_inferences"]
    return {
        "network_inferences": {
            "topic_id": bundle["topic_id"],
            "block_height": bundle["reputer_request_nonce"]["reputer_nonce"]["block_height"],
            "combined_value": _labelled(bundle["combined_value"]),
            "inferer_values": [
                {"worker": item["worker"], "values": _labelled(item["value"])} for item in bundle["inferer_values"]
            ],
            "forecaster_values": [],
            "naive_value": _labelled(bundle["naive_value"]),
            "one_out_inferer_values": [
                {"withheld_inferer": item["worker"], "combined_inference": _labelled(item["value"])}
                for item in bundle["one_out_inferer_values"]
            ],
            "one_out_forecaster_values": [],
            "one_in_forecaster_values": [],
            "one_out_inferer_forecaster_values": [],
        },
        "inference_block_height": body["inference_block_height"],
    }


def _reputers(body: Any) -> Any:
    bundles = body["loss_bundles"]["reputer_value_bundles"]
    return {"loss_bundles": [item["value_bundle"] for item in bundles]}


_CHANGED: Mapping[str, Callable[[Any], Any]] = {
    "topics": _topic,
    "own": _own,
    "inferences": _inferences,
    "latest_network_inferences": _network_inferences,
    "reputer_loss_bundles": _reputers,
}
