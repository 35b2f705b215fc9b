"""A chain on loopback that speaks CometBFT's RPC and fails as it is told to."""

import json
import threading
from datetime import UTC, datetime

from chain.events import WINDOW_OPENED
from core.clock import Clock
from tests.fakes.clock import START_MS
from tests.fakes.venue_server import Answer, Venue

PAGE = 20  # headers that /blockchain gives at once
Attributes = dict[str, str]


class FakeChain(Venue):
    """A chain's node: ``with FakeChain(...).running() as chain`` and ``chain.url``.

    What it answers otherwise is set at any time: ``faults["/status"] = Answer(...)`` for one path, ``faults[""]`` for
    all; ``catching_up``, ``lie_ms`` (added to every time that it tells), ``wrapped`` (False: the bare result, as some
    proxies answer), ``earliest`` (lower heights are pruned). Two nodes of one chain share ``times``.

    Args:
        chain_id: of the network.
        block_ms: between the blocks that it makes by itself.
        height: of the newest block at the beginning.
        blocks: how many there are then.
        clock: makes it make blocks as time passes, the newest at the beginning now; without, ``add_block`` does.
        newest_ms: time of the newest block at the beginning, without a clock.
    """

    def __init__(
        self,
        chain_id: str = "allora-testnet-1",
        *,
        block_ms: int = 5_000,
        height: int = 1_000,
        blocks: int = 40,
        clock: Clock | None = None,
        newest_ms: int = START_MS,
    ) -> None:
        super().__init__()
        self.chain_id, self.block_ms = chain_id, block_ms
        self.faults: dict[str, Answer] = {}
        self.catching_up, self.wrapped, self.lie_ms = False, True, 0
        self.earliest = 1
        self.events_name = "finalize_block_events"
        self._clock = clock
        self.times: dict[int, int] = {}  # header time in milliseconds by height, as it is in truth
        self._windows: dict[int, list[tuple[str, Attributes]]] = {}
        self._making = threading.RLock()
        self._begin(height, blocks, clock.now_ms() if clock else newest_ms)
        self.handler = self._rpc

    def restart(self, height: int, blocks: int = 1) -> None:
        """Begin anew, as a development chain does; the newest block is at a height and a block later than before."""
        newest_ms = self._clock.now_ms() if self._clock else max(self.times.values()) + self.block_ms
        self._begin(height, blocks, newest_ms)

    def _begin(self, height: int, blocks: int, newest_ms: int) -> None:
        with self._making:
            first = max(1, height - blocks + 1)
            self.times = {at: newest_ms - (height - at) * self.block_ms for at in range(first, height + 1)}
            self._windows = {}

    @property
    def height(self) -> int:
        """Of the newest block."""
        with self._making:
            self._grow()
            return max(self.times)

    def time_of(self, height: int) -> int:
        """Time of a block in milliseconds, as it is in truth."""
        with self._making:
            self._grow()
            return self.times[height]

    def add_block(self, height: int | None = None, time_ms: int | None = None) -> int:
        """Make a block, by default the next one at its time; returns its height."""
        with self._making:
            newest = max(self.times)
            height = newest + 1 if height is None else height
            self.times[height] = self.times[newest] + self.block_ms if time_ms is None else time_ms
            return height

    def open_window(
        self,
        topic_id: int,
        height: int,
        window_end: int,
        event: str = f"emissions.v10.{WINDOW_OPENED}",
    ) -> None:
        """Let a block say that it is a nonce of a topic, and until which height."""
        said = {"topic_id": topic_id, "nonce_block_height": height, "window_end_block": window_end}
        quoted = {name: json.dumps(str(value)) for name, value in said.items()}
        self._windows.setdefault(height, []).append((event, quoted | {"mode": "EndBlock"}))

    def _grow(self) -> None:
        while self._clock and max(self.times.values()) + self.block_ms <= self._clock.now_ms():
            self.add_block()

    def _rpc(self, path: str, query: dict[str, str]) -> Answer:
        if fault := self.faults.get(path, self.faults.get("")):
            return fault
        with self._making:
            self._grow()
            routes = {
                "/health": lambda _: {},
                "/status": self._status,
                "/blockchain": self._blockchain,
                "/block_results": self._block_results,
            }
            if path not in routes:
                return Answer("404 page not found", 404)
            result = routes[path](query)
        if isinstance(result, str):
            error = {"code": -32603, "message": "Internal error", "data": result}
            return Answer(json.dumps({"jsonrpc": "2.0", "id": -1, "error": error}), 500)
        return Answer(json.dumps({"jsonrpc": "2.0", "id": -1, "result": result} if self.wrapped else result))

    def _status(self, query: dict[str, str]) -> object:
        newest = max(self.times)
        return {
            "node_info": {"network": self.chain_id, "version": "0.38.12"},
            "sync_info": {
                "latest_block_height": str(newest),
                "latest_block_time": self._text(newest),
                "earliest_block_height": str(max(self.earliest, min(self.times))),
                "catching_up": self.catching_up,
            },
        }

    def _blockchain(self, query: dict[str, str]) -> object:
        newest = max(self.times)
        top = min(int(query.get("maxHeight", 0)) or newest, newest)
        low = max(int(query.get("minHeight", 0)), self.earliest, min(self.times), top - PAGE + 1)
        if low > top:
            return f"min height {low} can't be greater than max height {top}"
        return {
            "last_height": str(newest),
            "block_metas": [
                {"header": {"chain_id": self.chain_id, "height": str(height), "time": self._text(height)}}
                for height in range(top, low - 1, -1)
                if height in self.times
            ],
        }

    def _block_results(self, query: dict[str, str]) -> object:
        height = int(query.get("height", 0)) or max(self.times)
        if height not in self.times or height < self.earliest:
            return f"could not find results for height #{height}"
        events = [("emissions.v9.EventEMAScoresSet", {"topic_id": '"1"'}), *self._windows.get(height, [])]
        return {
            "height": str(height),
            "txs_results": None,
            self.events_name: [
                {
                    "type": event,
                    "attributes": [{"key": key, "value": said, "index": True} for key, said in attributes.items()],
                }
                for event, attributes in events
            ],
        }

    def _text(self, height: int) -> str:
        """RFC 3339 in nanoseconds, without the zeros at its end, as Go writes it."""
        seconds, millis = divmod(self.times[height] + self.lie_ms, 1000)
        fraction = f"{millis:03d}988872".rstrip("0")
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction}Z"
