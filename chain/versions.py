"""Paths, fields and labelled values of each version of the emissions API. Other modules need not know the version.

v5 is read as a real chain answered it. v9 and v10 follow the chain's published interface files and were never seen
live. A field is found by its name and not by the version, so that a host that is between two versions is read as well;
fields that this module does not know are passed over. Wrong forms raise ValueError, LookupError or TypeError.
"""

import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from chain.shapes import Inference, Losses, NetworkInference, Reputers, ScoreSeen, TopicSeen
from chain.texts import address, decimal, flag, items, line, numbers_only, whole

# Tried in this order. A version after v10 is read as v10; v6 to v8 lie between v5 and v9, which agree in what is read.
VERSIONS = ("v10", "v9", "v11", "v8", "v7", "v6", "v5")
MULTI = "TOPIC_OUTPUT_ARITY_MULTI"

PATHS: Mapping[str, str] = MappingProxyType(
    {
        "node_info": "/cosmos/base/tendermint/v1beta1/node_info",
        "syncing": "/cosmos/base/tendermint/v1beta1/syncing",
        "newest_block": "/cosmos/base/tendermint/v1beta1/blocks/latest",
        "block": "/cosmos/base/tendermint/v1beta1/blocks/{height}",
        "balance": "/cosmos/bank/v1beta1/balances/{address}/by_denom?denom=uallo",
        "upgrade": "/cosmos/upgrade/v1beta1/current_plan",
        "gas_price": "/feemarket/v1/gas_price/uallo",
        "params": "/emissions/{api}/params",
        "next_topic_id": "/emissions/{api}/next_topic_id",
        "topic": "/emissions/{api}/topics/{topic}",
        "is_active": "/emissions/{api}/is_topic_active/{topic}",
        "window": "/emissions/{api}/worker_submission_window_status/{topic}?address={address}",
        "registered": "/emissions/{api}/worker_registered/{topic}/{address}",
        "whitelisted": "/emissions/{api}/is_whitelisted_topic_worker/{topic}/{address}",
        "can_submit": "/emissions/{api}/can_submit_worker_payload/{topic}/{address}",
        "open_nonces": "/emissions/{api}/unfulfilled_worker_nonces/{topic}",
        "open_windows": "/emissions/{api}/open_worker_submission_windows/{topic}",
        "latest_inference": "/emissions/{api}/topics/{topic}/workers/{address}/latest_input_inference",
        "inferences": "/emissions/{api}/inferences/{topic}/{nonce}",
        "forecasts": "/emissions/{api}/forecasts/{topic}/{nonce}",
        "losses": "/emissions/{api}/network_loss/{topic}/{nonce}",
        "scores": "/emissions/{api}/worker_inference_scores_at_block/{topic}/{nonce}",
        "reputers": "/emissions/{api}/reputer_loss_bundles/{topic}/{nonce}",
        "stake": "/emissions/{api}/stake_reputer_authority/{topic}/{address}",
        "network_inference": "/emissions/{api}/latest_network_inferences/{topic}",
        "score_ema": "/emissions/{api}/inferer_score_ema/{topic}/{address}",
        "lowest_score": "/emissions/{api}/current_lowest_inferer_score/{topic}",
        "active_inferers": "/emissions/{api}/active_inferers/{topic}",
        "active_forecasters": "/emissions/{api}/active_forecasters/{topic}",
        "reward_fraction": "/emissions/{api}/previous_inference_reward_fraction/{topic}/{address}",
        "last_worker_commit": "/emissions/{api}/topic_last_worker_commit_info/{topic}",
        "last_reputer_commit": "/emissions/{api}/topic_last_reputer_commit_info/{topic}",
    }
)
# Before v10 a worker's own inference had one value and another path.
_OLDER = {"latest_inference": "/emissions/{api}/topics/{topic}/workers/{address}/latest_inference"}


def path_of(name: str, api: str, arguments: Mapping[str, object]) -> str:
    """Return the path of a read.

    Args:
        name: a key of ``PATHS``.
        api: version that the host speaks, such as ``v10``; empty for a path of no version.
        arguments: ``topic``, ``nonce`` and ``address``, as far as the path has them.

    >>> path_of("latest_inference", "v9", {"topic": 2, "address": "allo1x"})
    '/emissions/v9/topics/2/workers/allo1x/latest_inference'
    >>> path_of("latest_inference", "v10", {"topic": 2, "address": "allo1x"})
    '/emissions/v10/topics/2/workers/allo1x/latest_input_inference'
    """
    template = _OLDER.get(name) if api and int(api[1:]) < 10 else None
    return (template or PATHS[name]).format(api=api, **arguments)


def topic_of(body: Any) -> TopicSeen:
    """Read a topic; ``is_active`` is not in the body."""
    topic = body["topic"]
    (epoch_length, in_seconds), (lag, _), (window, _) = (
        _length(topic, name) for name in ("epoch_length", "ground_truth_lag", "worker_submission_window")
    )
    return TopicSeen(
        topic_id=whole(topic["id"]),
        metadata=line(topic["metadata"]),
        loss_method=line(topic["loss_method"]),
        epoch_length=epoch_length,
        ground_truth_lag=lag,
        window=window,
        in_seconds=in_seconds,
        newest_nonce=whole(topic.get("epoch_last_ended", "0")),
        allow_negative=flag(topic["allow_negative"]),
        is_multi=topic.get("output_arity") == MULTI,
        labels=tuple(line(label) for label in items(topic.get("label_whitelist"))),
        weight=decimal(body.get("weight") or "0"),
    )


def _length(topic: Any, name: str) -> tuple[int, bool]:
    """Return a length, and whether it is in seconds: announced, and not released, so the form is a guess.

    >>> _length({"epoch_length": "30"}, "epoch_length"), _length({"epoch_length": "180s"}, "epoch_length")
    ((30, False), (180, True))
    >>> _length({"epoch_length_seconds": "180"}, "epoch_length")
    (180, True)
    """
    if (in_seconds := topic.get(f"{name}_seconds")) is not None:
        return whole(in_seconds), True
    text = str(topic[name])
    return whole(text.removesuffix("s")), text.endswith("s")


def value_of(value: Any) -> str:
    """Return a value: the decimal, also if it stands alone in a list; several values as JSON, labels first.

    >>> value_of("0.5"), value_of([{"label": "y", "value": "0.5"}]), value_of(["0.5"])
    ('0.5', '0.5', '0.5')
    >>> value_of([{"label_id": 1, "label_name": "up", "value": "0.5"}, {"label_name": "down", "value": "0.25"}])
    '[["up","0.5"],["down","0.25"]]'
    """
    if isinstance(value, str):
        return decimal(value)
    entries = [_labelled(entry) for entry in items(value)]
    if not entries:
        raise ValueError("expected a value, was an empty list")
    return entries[0][1] if len(entries) == 1 else json.dumps(entries, separators=(",", ":"), ensure_ascii=False)


def _labelled(entry: Any) -> tuple[str, str]:
    if isinstance(entry, str):  # the label is known by its place alone
        return "", decimal(entry)
    return line(entry.get("label", entry.get("label_name", ""))), decimal(entry["value"])


def _first_of(item: Mapping[str, Any], *names: str) -> Any:
    """Return the first field that is there and not empty: a retired field stands beside its successor as "" or []."""
    for name in names:
        if item.get(name):
            return item[name]
    raise LookupError(f"none of {', '.join(names)} is there")


def _by_address(listed: Any, *value_names: str) -> dict[str, str]:
    """Return the values of a list of addresses with values, without values that could not be calculated."""
    values = {}
    for item in items(listed):
        who = address(_first_of(item, "worker", "withheld_inferer", "inferer", "address"))
        values[who] = value_of(_first_of(item, *value_names))
    return numbers_only(values)


def inference_of(item: Any) -> Inference:
    """Read a submitted value, of a worker or of a list."""
    return Inference(
        nonce=whole(item["block_height"]),
        inferer=address(item["inferer"]),
        value=value_of(_first_of(item, "values", "value")),
    )


def inferences_of(body: Any) -> tuple[Inference, ...]:
    """Read the inferences of an epoch; empty before the submission window has closed, and after the pruning."""
    return tuple(inference_of(item) for item in items((body["inferences"] or {}).get("inferences")))


def latest_inference_of(body: Any) -> Inference | None:
    """Read a worker's own newest inference; None if the host sends null or one of no nonce."""
    item = body["latest_input_inference"] if "latest_input_inference" in body else body["latest_inference"]
    return None if item is None or not whole(item["block_height"]) else inference_of(item)


def losses_of(body: Any) -> Losses | None:
    """Read an epoch's losses; None for the bundle of zeros that stands for losses that are not there."""
    return _losses(body["loss_bundle"])


def _losses(bundle: Any) -> Losses | None:
    nonce = _nonce_of(bundle) if bundle else 0
    if not nonce:
        return None
    return Losses(
        nonce=nonce,
        combined=value_of(bundle["combined_value"]),
        naive=value_of(bundle["naive_value"]),
        inferers=_by_address(bundle["inferer_values"], "values", "value"),
        one_out=_by_address(bundle["one_out_inferer_values"], "values", "value"),
    )


def _nonce_of(bundle: Any) -> int:
    """Return the height that a bundle names; 0 if none."""
    for name in ("nonce", "block_height"):
        if name in bundle:
            return whole(bundle[name])
    return whole(((bundle["reputer_request_nonce"] or {}).get("reputer_nonce") or {}).get("block_height", "0"))


def losses_of_event(attributes: Mapping[str, Any]) -> Losses | None:
    """Read the losses in the event that a settling block has.

    Args:
        attributes: of ``EventNetworkLossSet`` by name, read as JSON. Older chains have the bundle of the query, newer
            chains have lists side by side.
    """
    if attributes.get("value_bundle"):
        return _losses(attributes["value_bundle"])
    bundle = attributes["bundle"]
    who = [address(one) for one in items(bundle["inferer_addresses"])]
    return Losses(
        nonce=whole(attributes["nonce"]),
        combined=decimal(bundle["combined_value"]),
        naive=decimal(bundle["naive_value"]),
        inferers=side_by_side(who, bundle["inferer_values"]),
        one_out=side_by_side(who, bundle["one_out_inferer_values"]),
    )


def side_by_side(who: Iterable[Any], values: Any) -> dict[str, str]:
    """Return values by address from two lists of one length.

    Raises:
        ValueError: the lists have different lengths.
    """
    pairs = zip(who, items(values), strict=True)
    return numbers_only({address(one): decimal(value) for one, value in pairs})


def reputer_losses_of(body: Any) -> Reputers:
    """Read each reputer's losses; stakes are not in the body."""
    listed = body["loss_bundles"]
    if isinstance(listed, Mapping):
        listed = [item["value_bundle"] for item in items(listed.get("reputer_value_bundles"))]
    read = {address(bundle["reputer"]): _losses(bundle) for bundle in items(listed)}
    return Reputers(losses={who: losses for who, losses in read.items() if losses is not None})


def network_inference_of(body: Any) -> NetworkInference | None:
    """Read the network's inference; None if there is none."""
    bundle = body["network_inferences"]
    if not bundle or not bundle["combined_value"]:
        return None
    return NetworkInference(
        height=_nonce_of(bundle),
        nonce=whole(body.get("inference_block_height", "0")),
        combined=value_of(bundle["combined_value"]),
        naive=value_of(bundle["naive_value"] or bundle["combined_value"]),
        inferers=_by_address(bundle["inferer_values"], "values", "value"),
        one_out=_by_address(bundle["one_out_inferer_values"], "combined_inference", "values", "value"),
        weights=_by_address(body.get("inferer_weights"), "weight"),
    )


def scores_of(body: Any) -> dict[str, str]:
    """Read the scores of an epoch by address; empty if there are none."""
    return {address(item["address"]): decimal(item["score"]) for item in items((body["scores"] or {}).get("scores"))}


def score_of(body: Any) -> ScoreSeen | None:
    """Read one score; None where the host sends null."""
    score = body["score"]
    return None if score is None else ScoreSeen(nonce=whole(score["block_height"]), score=decimal(score["score"]))


def nonces_of(body: Any) -> tuple[int, ...]:
    """Read the nonces that are open, oldest first."""
    return tuple(sorted(whole(item["block_height"]) for item in items((body["nonces"] or {}).get("nonces"))))


def forecasters_of(body: Any) -> tuple[str, ...]:
    """Read the addresses of an epoch's forecasters."""
    return tuple(address(item["forecaster"]) for item in items(body["forecasts"]["forecasts"]))


def last_commit_of(body: Any) -> tuple[int, int] | None:
    """Read nonce and height of the last commit; None if there was no commit."""
    commit = body["last_commit"]
    nonce = whole(commit["nonce"]["block_height"]) if commit and commit["nonce"] else 0
    return (nonce, whole(commit["block_height"])) if nonce else None


def last_nonce_of(body: Any) -> int | None:
    """Read the nonce of the last commit; None if there was no commit."""
    commit = last_commit_of(body)
    return commit and commit[0]


# The chain's releases, by their first two numbers, and the API that came with each.
_RELEASES = {
    (0, 6): "v5",
    (0, 7): "v6",
    (0, 8): "v7",
    (0, 9): "v8",
    **{(0, minor): "v9" for minor in range(10, 17)},
    (0, 17): "v10",
}


def api_of(release: str) -> str | None:
    """Return the version of the API that a release of the chain's program speaks; None: it is not known here.

    >>> api_of("v0.17.0"), api_of("0.12.2"), api_of("v0.18.0"), api_of("emerald")
    ('v10', 'v9', None, None)
    """
    found = re.match(r"v?([0-9]{1,4})\.([0-9]{1,4})", release)
    return _RELEASES.get((int(found[1]), int(found[2]))) if found else None
