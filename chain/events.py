"""Read the events of a block: windows that it opened, epochs that it settled.

The types of events carry a version of their own, other than the API's: events are known by the last part of the type.
"""

import json
from collections.abc import Iterator
from typing import Any

from chain.shapes import Losses, Settled
from chain.texts import whole
from chain.versions import losses_of_event, side_by_side

WINDOW_OPENED = "EventWorkerSubmissionWindowOpened"
LOSSES_SET, SCORES_SET, REWARDS_SETTLED = "EventNetworkLossSet", "EventScoresSet", "EventRewardsSettled"
EMAS_SET = "EventEMAScoresSet"
INFERER = "ACTOR_TYPE_INFERER_UNSPECIFIED"


def windows_of(result: Any) -> dict[int, dict[int, int]]:
    """Return the last height of each worker submission window that a block opened, by nonce and topic id.

    Args:
        result: of ``/block_results``.
    """
    ends: dict[int, dict[int, int]] = {}
    for event in _events(result, WINDOW_OPENED):
        attributes = {attribute["key"]: attribute["value"] for attribute in event["attributes"]}
        topic_id, nonce, end = (
            whole(attributes[name].strip('"')) for name in ("topic_id", "nonce_block_height", "window_end_block")
        )
        ends.setdefault(nonce, {})[topic_id] = end
    return ends


def settled_of(result: Any) -> list[Settled]:
    """Return what a block settled: losses, scores and rewards of inferers, for each topic and epoch.

    A rewards event names the settling block and not its nonce; the losses and scores of the same block do. Where a
    block settled several epochs of one topic, which rewards are whose cannot be told: those epochs have no rewards.

    Args:
        result: of ``/block_results``.
    """
    height = whole(result["height"])
    losses: dict[tuple[int, int], Losses] = {}
    scores: dict[tuple[int, int], dict[str, str]] = {}
    emas: dict[tuple[int, int], dict[str, str]] = {}
    rewards: dict[int, list[dict[str, str]]] = {}
    for event in _events(result, LOSSES_SET, SCORES_SET, EMAS_SET, REWARDS_SETTLED):
        attributes = _attributes(event)
        topic_id, name = whole(attributes["topic_id"]), _name(event)
        if name == LOSSES_SET:
            if (seen := losses_of_event(attributes)) is not None:
                losses[topic_id, seen.nonce] = seen
        elif attributes.get("actor_type", INFERER) in {INFERER, 0}:
            listed = attributes["rewards" if name == REWARDS_SETTLED else "scores"]
            values = side_by_side(attributes["addresses"], listed)
            if name == SCORES_SET:
                scores[topic_id, whole(attributes["block_height"])] = values
            elif name == EMAS_SET:
                emas[topic_id, whole(attributes["nonce"])] = values
            else:
                rewards.setdefault(topic_id, []).append(values)
    epochs = sorted({*losses, *scores})
    alone = {topic_id for topic_id, _ in epochs if sum(topic_id == other for other, _ in epochs) == 1}
    return [
        Settled(
            topic_id=topic_id,
            nonce=nonce,
            height=height,
            scores=scores.get((topic_id, nonce), {}),
            rewards=rewards[topic_id][0] if topic_id in alone and len(rewards.get(topic_id, [])) == 1 else {},
            score_emas=emas.get((topic_id, nonce), {}),
            losses=losses.get((topic_id, nonce)),
        )
        for topic_id, nonce in epochs
    ]


def _name(event: Any) -> str:
    return str(event["type"]).rpartition(".")[2]


def _events(result: Any, *names: str) -> Iterator[Any]:
    """Yield a block's last events of these names; older releases of CometBFT have another name for the list."""
    for listed in ("finalize_block_events", "end_block_events"):
        for event in result.get(listed) or ():
            if _name(event) in names:
                yield event


def _attributes(event: Any) -> dict[str, Any]:
    """Return the attributes by name, each read as the JSON text that it is; ``mode`` alone is plain text."""
    attributes = {attribute["key"]: attribute["value"] for attribute in event["attributes"]}
    return {key: json.loads(value) for key, value in attributes.items() if key != "mode"}
