"""A recorded chain on loopback, replayed as a host of the REST interface (LCD) and of CometBFT's RPC at once."""

import bisect
import gzip
import json
import re
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from core.clock import Clock, SystemClock
from tests.chain.fake import FakeChain
from tests.fakes.chain_versions import translated
from tests.fakes.venue_server import Answer

CUT = Path(__file__).parents[1] / "data" / "chain_three_epochs.jsonl.gz"
OURS = "allo1yjy7uan0rtsxz2jm33xfhjawuhvz8pfveqd7l3"  # the worker that was this product

# What the recorded chain answered to what it has not; of bundles of reputers it is a guess.
NO_PATH = Answer('{"code":12,"message":"Not Implemented","details":[]}', 501)
NO_ITEM = Answer('{"code":2,"message":"collections: not found: key","details":[]}', 500)
NO_TOPIC = Answer('{"code":2,"message":"error getting topic","details":[]}', 500)
EMPTY = {
    "inferences": '{"inferences":{"inferences":[]}}',
    "network_loss": (
        '{"loss_bundle":{"topic_id":"2","reputer_request_nonce":{"reputer_nonce":{"block_height":"0"}},"reputer":"",'
        '"extra_data":null,"combined_value":"0","inferer_values":[],"forecaster_values":[],"naive_value":"0",'
        '"one_out_inferer_values":[],"one_out_forecaster_values":[],"one_in_forecaster_values":[],'
        '"one_out_inferer_forecaster_values":[]}}'
    ),
    "worker_inference_scores_at_block": '{"scores":{"scores":[]}}',
    "reputer_loss_bundles": '{"loss_bundles":{"reputer_value_bundles":[]}}',
}
PRUNED_AFTER = 120  # blocks from an epoch's nonce until its inferences and losses were gone
RECORDED_API = "v5"
_ADDRESS = re.compile(r"allo1[02-9a-z]{38}")

# Faults, for ``faults``: a path of the request's, or "" for all.
DOWN = Answer(hang_up=True)
HTML = Answer("<html><body>502 Bad Gateway</body></html>", 502)
HTML_PAGE = Answer("<html><body>please log in</body></html>", 200)
HALF = Answer('{"topic":{"id":"2","creator":"allo1', cut=True)
BUSY = Answer("too many requests", 429, {"Retry-After": "7"})


def recorded(path: Path = CUT) -> list[dict[str, Any]]:
    """Read the lines of a recording, compressed or not."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return [json.loads(line) for line in text.splitlines()]


def at_query(body: str, height: int) -> str:
    """Return a body of the network's inference with the height of another query: the body has no other nonce."""
    return re.sub(r'("reputer_nonce":\{"block_height":)"[0-9]+"', rf'\1"{height}"', body)


class ChainReplay(FakeChain):
    """A recording as a host: ``with ChainReplay(recorded()).running() as chain`` and ``chain.url`` for LCD and RPC.

    The recording begins now and runs as ``clock`` does; after its end it stands still. Times of blocks are moved to
    now, and their distances divided by ``speed``. Beside FakeChain's switches (``faults``, ``catching_up``,
    ``lie_ms``, ``earliest``, ``chain_id``): ``api`` (the one version that it speaks), ``lag_blocks`` (how far it is
    behind), ``is_pruned`` (it has nothing of epochs that are settled), ``hold`` (nothing is answered before it is set),
    ``bodies`` (of a path, in the recorded version's form, instead of the recorded).

    Args:
        lines: of ``recorded``: blocks, bodies with the moment at which they were read, and bodies without a moment.
        clock: of the replay; time passes as it does there.
        speed: how many recorded seconds pass in one.
        height: of the newest block at the beginning; the recording's first without.
    """

    def __init__(
        self,
        lines: Iterable[Mapping[str, Any]],
        *,
        clock: Clock | None = None,
        speed: float = 1.0,
        height: int | None = None,
        chain_id: str = "localnet",
    ) -> None:
        self.clock = clock or SystemClock()
        self._speed = speed
        self._from_ms = self._began_ms = 0
        self._blocks: dict[int, tuple[int, list[Any]]] = {}  # time in ms and events by height
        self._read: dict[str, tuple[list[int], list[Answer]]] = {}  # moments in ms and answers by path
        self._fixed: dict[str, Answer] = {}
        for line in lines:
            if "block" in line:
                time_ms = round(datetime.fromisoformat(line["time"]).timestamp() * 1000)
                self._blocks[line["block"]] = time_ms, line["events"]
            elif "at_ms" in line:
                moments, answers = self._read.setdefault(line["path"], ([], []))
                moments.append(line["at_ms"])
                answers.append(Answer(line["body"], line["status"]))
            else:
                self._fixed[line["path"]] = Answer(line["body"], line["status"])
        self.first, self.last = min(self._blocks), max(self._blocks)
        self._workers = {who for _, events in self._blocks.values() for who in re.findall(_ADDRESS, json.dumps(events))}
        self._seen_ms = [self._seen_at_ms(height) for height in range(self.first, self.last + 1)]
        self.api, self.lag_blocks, self.is_pruned = RECORDED_API, 0, False
        self.hold: threading.Event | None = None
        self.bodies: dict[str, Answer] = {}
        super().__init__(chain_id, height=self.first if height is None else height)

    def restart(self, height: int, blocks: int = 0) -> None:
        """Begin the recording anew at a height, with the times of now; ``blocks`` is not used."""
        self._begin(height, blocks, 0)

    def _begin(self, height: int, blocks: int, newest_ms: int) -> None:
        self._from_ms, self._began_ms = self._seen_at_ms(height), self.clock.now_ms()
        self._grow()

    @property
    def moment_ms(self) -> int:
        """The recorded moment that is now."""
        return round(self._from_ms + (self.clock.now_ms() - self._began_ms) * self._speed)

    @property
    def is_over(self) -> bool:
        """True when the recording's last block has been made."""
        return self.moment_ms >= self._seen_ms[-1]

    def shown_ms(self, recorded_ms: int) -> int:
        """Return a recorded moment as the replay shows it."""
        return round(self._began_ms + (recorded_ms - self._from_ms) / self._speed)

    def _seen_at_ms(self, height: int) -> int:
        """A block is there when the next one has its time: a header has the time of the votes for the block before."""
        next_ms, _ = self._blocks.get(height + 1, (0, []))
        return next_ms or self._blocks[height][0] + 2_000

    def _grow(self) -> None:
        newest = self.first + bisect.bisect_right(self._seen_ms, self.moment_ms) - 1 - self.lag_blocks
        self.times = {at: self.shown_ms(self._blocks[at][0]) for at in range(self.first, max(newest, self.first) + 1)}

    def _rpc(self, path: str, query: dict[str, str]) -> Answer:
        fault = self.faults.get(path, self.faults.get(""))
        if fault is None and path.startswith(("/cosmos/", "/emissions/", "/feemarket/")):
            asked = f"{path}?denom={query['denom']}" if "denom" in query else path
            fault = self._lcd(asked, query)
        if self.hold is not None:
            self.hold.wait(10)
        return fault or super()._rpc(path, query)

    def _block_results(self, query: dict[str, str]) -> object:
        height = int(query.get("height", 0)) or max(self.times)
        if height not in self.times or height < self.earliest:
            return f"could not find results for height #{height}"
        return {"height": str(height), "txs_results": None, self.events_name: self._blocks[height][1]}

    def _lcd(self, path: str, query: dict[str, str]) -> Answer:
        with self._making:
            self._grow()
            height = max(self.times)
        if path.startswith("/cosmos/base/tendermint/"):
            return self._node(path.rpartition("/v1beta1/")[2], height)
        if not path.startswith("/emissions/"):
            return self._recorded(path) or NO_PATH
        _, _, api, kind, *rest = path.split("/")
        if api != self.api:
            return NO_PATH
        answer = translated(api, "/".join([kind, *rest]), query, lambda inner: self._emissions(inner, height))
        return NO_PATH if answer is None else answer

    def _node(self, name: str, height: int) -> Answer:
        if name == "blocks/latest":
            header = {"chain_id": self.chain_id, "height": str(height), "time": self._text(height)}
            return Answer(json.dumps({"block_id": {}, "block": {"header": header}}))
        if name == "syncing":
            return Answer(json.dumps({"syncing": self.catching_up}))
        if name == "node_info":
            node = {"default_node_info": {"network": self.chain_id}, "application_version": {"version": "0.6.0"}}
            return Answer(json.dumps(node))
        return NO_PATH

    def _emissions(self, path: str, height: int) -> Answer:
        """Answer a read in the recorded version; ``path`` is behind the version."""
        kind, *rest = path.split("/")
        if path in self.bodies:
            return self.bodies[path]
        if kind in EMPTY and len(rest) == 2 and self._is_gone(int(rest[1]), height):
            return Answer(EMPTY[kind])
        found = self._recorded(f"/emissions/{RECORDED_API}/{path}")
        if kind == "topic_last_reputer_commit_info":
            found = self._last_reputer_commit(rest[0]) or found
        if found is not None and kind == "latest_network_inferences":
            return Answer(at_query(str(found.body), height), found.status)
        if found is not None:
            return found
        if kind in EMPTY:
            return Answer(EMPTY[kind])
        return NO_PATH if kind not in self._kinds else NO_TOPIC if kind == "topics" and len(rest) == 1 else NO_ITEM

    @property
    def _kinds(self) -> set[str]:
        return {path.split("/")[3] for path in [*self._fixed, *self._read] if path.startswith("/emissions/v5/")}

    def _is_gone(self, nonce: int, height: int) -> bool:
        return height >= nonce + PRUNED_AFTER or (self.is_pruned and height > nonce)

    def _recorded(self, path: str) -> Answer | None:
        """Return the newest body of a path; that of topic 2 or of the recorded worker where there is no other."""
        moments, answers = self._read.get(path, ([], []))
        kind = path.split("/")[3] if path.startswith("/emissions/") else path.split("/")[2]
        # A host that lags answers from the moment of its newest block.
        moment_ms = min(self.moment_ms, self._seen_at_ms(max(self.times)) + 4_000)
        if number := bisect.bisect_right(moments, moment_ms):
            return answers[number - 1]
        if path in self._fixed:
            return self._fixed[path]
        if moments or kind in EMPTY:
            return None
        twin = re.sub(r"/[13](?=/|$)", "/2", path)
        if kind in {"worker_registered", "bank"} and set(re.findall(_ADDRESS, path)) <= self._workers:
            twin = re.sub(_ADDRESS, OURS, twin)
        return self._fixed.get(twin)

    def _last_reputer_commit(self, topic_id: str) -> Answer | None:
        """The path was not read while the economy was recorded; the events of the blocks tell the same."""
        for height in sorted(self.times, reverse=True):
            for event in self._blocks[height][1]:
                said = {attribute["key"]: attribute["value"] for attribute in event["attributes"]}
                if event["type"].endswith("EventReputerLastCommitSet") and json.loads(said["topic_id"]) == topic_id:
                    commit = {"block_height": str(height), "nonce": json.loads(said["nonce"])}
                    return Answer(json.dumps({"last_commit": commit}))
        return None
