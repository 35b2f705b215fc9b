"""A follower beside a replayed chain, a block at a time."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chain.emissions import networks
from core.topic import Target, Topic
from ledger.answers import Answer
from ledger.database import Database
from ledger.epochs import Epoch, EpochBook
from monitor.chain.epoch_follower import EpochFollower
from monitor.chain.heights import Heights
from monitor.chain.looker import Looker
from tests.chain.fake import FakeChain
from tests.fakes.chain_replay import OURS
from tests.fakes.clock import FakeClock, eventually

BLOCK_MS = 2_000


def topics(*ids: int, network: str = "localnet", worker: str = OURS) -> list[Topic]:
    """Topics of a network that one worker answers."""
    asset = "ETH"
    return [
        Topic(
            topic_id=topic_id,
            token=asset,
            symbol=f"{asset}USDT",
            target=Target.PRICE,
            horizon_min=10,
            network=network,
            worker=worker,
        )
        for topic_id in ids
    ]


def submitted(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[int, int], str]:
    """Our values in a recording, by topic id and nonce."""
    found = {}
    for line in lines:
        if line.get("path", "").endswith(f"{OURS}/latest_inference") and line["status"] == 200:
            seen = json.loads(line["body"])["latest_inference"]
            found[int(seen["topic_id"]), int(seen["block_height"])] = seen["value"]
    return found


def answer(topic_id: int, nonce: int, value: str, network: str = "localnet") -> Answer:
    """Ours, as the ledger keeps it."""
    return Answer(network, topic_id, nonce, value, "v", "ETHUSDT", "price", 10, 1.0, 0, 0, 0, "BINANCE")


class Desk:
    """A ledger, a chain on loopback and the followers that come and go.

    Args:
        url: of the ledger.
        has_rpc: False follows over LCD alone.
    """

    def __init__(
        self, url: str, chain: FakeChain, clock: FakeClock, followed: Sequence[Topic], *, has_rpc: bool = True
    ) -> None:
        self.chain, self.clock, self.followed = chain, clock, followed
        self.network = followed[0].network or ""
        self.book = EpochBook(url)
        self._has_rpc = has_rpc
        self.start()

    def start(self) -> None:
        """Let a new follower begin; the old one is as good as killed."""
        urls = [self.chain.url] if self._has_rpc else []
        self.heights = Heights(urls, self.network, self.clock, poll_s=(0.005, 0.005), seconds=self.clock.elapsed_s)
        self.follower = EpochFollower(
            self.network,
            self.followed,
            self.book,
            self.clock,
            emissions=lambda: networks([self.chain.url], self.clock).get(self.network),
            heights=self.heights,
        )
        self.looker = Looker(self.follower, self.book, self.clock, self.clock.elapsed_s)

    def kill(self) -> None:
        """End the follower; nothing that it knew is kept."""
        self.heights.close()

    def restart(self) -> None:
        """Kill the follower and start another."""
        self.kill()
        self.start()

    def run(self, until: int, *, looks: bool = False, stride: int = 1) -> None:
        """Let the chain come to a height, so many blocks at a time, and the follower step each time."""
        while self.chain.height < until:
            self.clock.time_ms += BLOCK_MS * stride
            self.step()
            if looks:
                self.looker.step()

    def step(self) -> None:
        """Let the follower step at the chain's newest block."""
        if self._has_rpc:
            eventually(self._is_there, what="the newest block in the follower")
        self.follower.step()

    def _is_there(self) -> bool:
        return self.heights.time_of(self.chain.height) is not None or "/status" in self.chain.faults

    def sleep(self, until: int) -> None:
        """Let the chain come to a height while the follower does not run."""
        while self.chain.height < until:
            self.clock.time_ms += BLOCK_MS

    def epoch(self, topic_id: int, nonce: int) -> Epoch | None:
        """Return the row of an epoch; None: it has none."""
        return self.rows(topic_id).get(nonce)

    def rows(self, topic_id: int) -> dict[int, Epoch]:
        """Return a topic's rows by nonce, without the moment of their writing."""
        found = self.book.epochs_of(f"{self.network}/{topic_id}", 1000)
        return {epoch.nonce: epoch._replace(seen_ms=0) for epoch, _ in found}


@contextmanager
def desk(
    folder: Path,
    chain: FakeChain,
    clock: FakeClock,
    followed: Sequence[Topic],
    answers: Sequence[Answer] = (),
    *,
    has_rpc: bool = True,
) -> Iterator[Desk]:
    """Run a chain with a ledger of these answers."""
    url = f"sqlite:///{folder / 'ledger.sqlite3'}"
    database = Database(url, clock)
    database.make_ready()
    database.write(list(answers))
    database.disconnect()
    with chain.running():
        made = Desk(url, chain, clock, followed, has_rpc=has_rpc)
        try:
            yield made
        finally:
            made.kill()
            made.book.close()
