"""A chain of many topics on loopback, invented: every epoch is answered by every worker, settled and paid."""

import json
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from core.clock import Clock
from tests.chain.fake import FakeChain
from tests.fakes.venue_server import Answer

EPOCH, LAG, WINDOW = 60, 60, 12  # blocks: five minutes, and a window of a minute
API = "v10"
NO_PATH = Answer('{"code":12,"message":"Not Implemented","details":[]}', 501)
NO_ITEM = Answer('{"code":2,"message":"collections: not found: key","details":[]}', 500)


class BusyChain(FakeChain):
    """One network's host of LCD (emissions v10) and RPC; ``counted`` counts the requests by the kind of path.

    The epochs of the topics begin at different blocks, so that hardly any settle together.

    Args:
        topics: ids.
        workers: addresses; each answers every epoch with a value of its own.
    """

    def __init__(
        self, chain_id: str, topics: Collection[int], workers: Sequence[str], clock: Clock, *, block_ms: int = 5_000
    ) -> None:
        super().__init__(chain_id, block_ms=block_ms, height=1_000_000, blocks=1_500, clock=clock)
        self._phases = {topic_id: place * 13 % EPOCH for place, topic_id in enumerate(sorted(topics))}
        self._workers = workers
        self.outside: set[str] = set()  # workers that are not in the active set
        self.balance = "1000000000"  # uallo, of every wallet; also the price of gas
        self.answers_own = True  # False: no worker's own value is there
        self.counted: Counter[str] = Counter()
        self._counting = threading.Lock()

    def newest_nonce(self, topic_id: int, height: int) -> int:
        """Return the nonce of a topic's newest epoch at a height."""
        return height - (height - self._phases[topic_id]) % EPOCH

    def value(self, topic_id: int, nonce: int, worker: str) -> str:
        """Return what a worker answered."""
        return f"{topic_id}.{nonce}{self._workers.index(worker):02}"

    def _rpc(self, path: str, query: dict[str, str]) -> Answer:
        parts = path.strip("/").split("/")
        with self._counting:
            self.counted["/".join(parts[2:3] if parts[0] == "emissions" else parts)] += 1
        if fault := self.faults.get(path, self.faults.get("")):
            return fault
        if parts[0] in {"cosmos", "feemarket"}:
            return self._of_node(path)
        if parts[0] != "emissions":
            return super()._rpc(path, query)
        if parts[1] != API:
            return NO_PATH
        found = self._emissions(parts[2:], self.height)
        return found if isinstance(found, Answer) else Answer(json.dumps(found))

    def _of_node(self, path: str) -> Answer:
        height = self.height
        name = path.rpartition("/v1beta1/")[2]
        if name.startswith("blocks/"):
            at = height if name == "blocks/latest" else int(name.removeprefix("blocks/"))
            if at not in self.times:
                return Answer('{"code": 3, "message": "requested block is not there"}', 400)
            header = {"chain_id": self.chain_id, "height": str(at), "time": self._text(at)}
            return Answer(json.dumps({"block": {"header": header}}))
        found: dict[str, Any] = {
            "node_info": {
                "default_node_info": {"network": self.chain_id},
                "application_version": {"version": "0.17.0"},
            },
            "syncing": {"syncing": False},
            "current_plan": {"plan": None},
        }
        if name in found:
            return Answer(json.dumps(found[name]))
        key = "price" if path.startswith("/feemarket") else "balance"
        return Answer(json.dumps({key: {"denom": "uallo", "amount": self.balance}}))

    def _emissions(self, parts: Sequence[str], height: int) -> object:
        kind, *rest = parts
        fixed: dict[str, Any] = {
            "next_topic_id": {"next_topic_id": "1000"},
            "params": {"params": {"max_top_inferers_to_reward": "48"}},
            "is_topic_active": {"is_active": True},
            "can_submit_worker_payload": {"can_submit_worker_payload": True},
            "worker_submission_window_status": {"is_registered": True, "is_whitelisted": True},
            "current_lowest_inferer_score": {"score": None},
            "stake_reputer_authority": {"authority": "1000"},
        }
        if kind in fixed:
            return fixed[kind]
        topic_id = int(rest[0])
        if topic_id not in self._phases:
            return NO_ITEM
        newest = self.newest_nonce(topic_id, height)
        found: object = NO_ITEM
        if kind == "topics" and len(rest) == 1:
            found = self._topic(topic_id, newest)
        elif kind == "topics" and height < newest + WINDOW and self.answers_own:
            own = {"block_height": str(newest), "inferer": rest[2], "value": self.value(topic_id, newest, rest[2])}
            found = {"latest_input_inference": own}
        elif kind == "unfulfilled_worker_nonces":
            nonces = [{"block_height": str(newest)}] if height < newest + WINDOW else []
            found = {"nonces": {"nonces": nonces}}
        elif kind == "inferences":
            found = {"inferences": {"inferences": self._inferences(topic_id, int(rest[1]), height)}}
        elif kind == "latest_network_inferences":
            found = {"network_inferences": self._bundle(topic_id, newest, {"block_height": str(height)})}
        elif kind == "reputer_loss_bundles":
            bundle = self._bundle(topic_id, int(rest[1]), _requested(int(rest[1])))
            found = {"loss_bundles": [bundle | {"reputer": who} for who in self._workers[:4]]}
        return found

    def _topic(self, topic_id: int, newest: int) -> object:
        return {
            "topic": {
                "id": str(topic_id),
                "metadata": f"topic {topic_id}",
                "loss_method": "mse",
                "epoch_last_ended": str(newest),
                "epoch_length": str(EPOCH),
                "ground_truth_lag": str(LAG),
                "worker_submission_window": str(WINDOW),
                "allow_negative": True,
            },
            "weight": "1",
        }

    def _inferences(self, topic_id: int, nonce: int, height: int) -> list[object]:
        if not nonce + WINDOW <= height < nonce + 4 * EPOCH:
            return []
        return [
            {"block_height": str(nonce), "inferer": who, "value": self.value(topic_id, nonce, who)}
            for who in self._active
        ]

    @property
    def _active(self) -> list[str]:
        return [who for who in self._workers if who not in self.outside]

    def _bundle(self, topic_id: int, nonce: int, of: dict[str, Any]) -> dict[str, Any]:
        values = [{"worker": who, "value": self.value(topic_id, nonce, who)} for who in self._active]
        return {
            **of,
            "combined_value": f"{topic_id}.5",
            "naive_value": f"{topic_id}.6",
            "inferer_values": values,
            "one_out_inferer_values": values,
        }

    def _block_results(self, query: dict[str, str]) -> object:
        height = int(query["height"])
        nonce = height - LAG - EPOCH
        events = []
        for topic_id in self._phases if self._active else ():
            if self.newest_nonce(topic_id, nonce) == nonce:
                events += self._settling(topic_id, nonce, height)
        return {"height": str(height), "finalize_block_events": events}

    def _settling(self, topic_id: int, nonce: int, height: int) -> list[object]:
        lists = {"topic_id": str(topic_id), "actor_type": "ACTOR_TYPE_INFERER_UNSPECIFIED", "addresses": self._active}
        numbers = ["0.5" for _ in self._active]
        bundle = self._bundle(topic_id, nonce, _requested(nonce))
        told: list[tuple[str, dict[str, Any]]] = [
            ("NetworkLossSet", {"topic_id": str(topic_id), "block_height": str(nonce), "value_bundle": bundle}),
            ("ScoresSet", {**lists, "block_height": str(nonce), "scores": numbers}),
            ("EMAScoresSet", {**lists, "nonce": str(nonce), "scores": numbers}),
            ("RewardsSettled", {**lists, "block_height": str(height), "rewards": numbers}),
        ]
        return [
            {
                "type": f"emissions.{API}.Event{name}",
                "attributes": [{"key": key, "value": json.dumps(value)} for key, value in attributes.items()],
            }
            for name, attributes in told
        ]


def _requested(nonce: int) -> dict[str, Any]:
    return {"reputer_request_nonce": {"reputer_nonce": {"block_height": str(nonce)}}}
