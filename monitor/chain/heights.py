"""How far a network's chain has come: by its RPC interface if that may be asked, else by LCD."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from chain.emissions import Emissions
from chain.events import settled_of
from chain.follower import Follower
from chain.rpc import Rpc
from chain.shapes import Settled
from core.clock import Clock

POLL_S = (0.1, 6.0)  # the shortest and the longest between two looks at the newest block; a block takes about 5 s
FIRST_POLL_S = 1.0  # until the time between blocks is known
LEAST_BACK = 3  # blocks by which a lower height of a later time tells that the chain began anew
KEPT_BLOCKS = 64  # whose settled epochs are remembered: topics of one length often settle together


class Newest(NamedTuple):
    """The newest block that is known."""

    height: int
    time_ms: int


class Heights:
    """The newest block of a chain, the times of its blocks, and what a block settled. For one thread.

    Args:
        urls: of RPC, best first. While none tells the newest block, LCD is asked; without any, no block's events are
            known.
        chain_id: of the network; None takes what the hosts say.
        poll_s: the shortest and the longest pause between two looks at the newest block.
    """

    def __init__(
        self,
        urls: Sequence[str],
        chain_id: str | None,
        clock: Clock,
        *,
        poll_s: tuple[float, float] = POLL_S,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._told = threading.Event()  # RPC told something new
        self._follower = (
            Follower(urls, chain_id, clock, poll_s=poll_s, by_clock=False, on_block=self._told.set) if urls else None
        )
        self._rpc = Rpc(urls, clock) if urls else None
        self._poll_s, self._seconds = poll_s, seconds
        self._asked_s = float("-inf")
        self._first: Newest | None = None
        self._newest: Newest | None = None
        self._first_s = self._newest_s = 0.0  # when they were first seen
        self._blocks: dict[int, list[Settled]] = {}  # what blocks settled, by height
        if self._follower:
            self._follower.start()

    @property
    def has_events(self) -> bool:
        """True if what a block settled can be asked for."""
        return self._rpc is not None

    @property
    def requests(self) -> int:
        """Requests to RPC since the start."""
        return sum(part.requests for part in (self._follower, self._rpc) if part)

    @property
    def fault(self) -> str:
        """Why RPC tells nothing new; empty if it does, or is not asked."""
        return self._follower.fault if self._follower else ""

    @property
    def block_ms(self) -> float | None:
        """Mean time between blocks in milliseconds; None if too few are known."""
        if self._follower and (block_ms := self._follower.block_ms) is not None:
            return block_ms
        first, newest = self._first, self._newest
        if first is None or newest is None or newest.height - first.height < 10:
            return None
        return (newest.time_ms - first.time_ms) / (newest.height - first.height)

    def newest(self, emissions: Emissions) -> Newest | None:
        """Return the newest block; None before the first. LCD is asked while RPC is not, or tells nothing.

        Raises:
            chain.addresses.ChainFault: LCD is asked, and no host tells.
        """
        if self._follower and not self._follower.fault:
            if (followed := self._follower.newest) is not None:
                self._take(Newest(followed.height, followed.time_ms))
        elif self._pause_s <= 0:
            self._asked_s = self._seconds()
            seen = emissions.host()
            self._take(Newest(seen.height, seen.time_ms))
        return self._newest

    def wait(self, longest_s: float) -> bool:
        """Wait until there may be a new block, or for ``longest_s``; True if there may be one."""
        if self._follower and not self._follower.fault:
            is_told = self._told.wait(longest_s)
            self._told.clear()
            return is_told
        pause_s = self._pause_s
        is_soon = 0 < pause_s <= longest_s  # below 0: LCD was not asked, as no host is known
        self._told.wait(pause_s if is_soon else longest_s)
        return is_soon

    @property
    def _pause_s(self) -> float:
        """Seconds until LCD is asked for its newest block."""
        pause_s = FIRST_POLL_S if self._pace_s is None else self._pace_s
        return self._asked_s + min(max(pause_s, self._poll_s[0]), self._poll_s[1]) - self._seconds()

    def _take(self, block: Newest) -> None:
        newest = self._newest
        if newest is None or block.height > newest.height or _began_anew(newest, block):
            if newest is None or block.height < newest.height:
                self._first, self._first_s = block, self._seconds()
            self._newest, self._newest_s = block, self._seconds()

    @property
    def _pace_s(self) -> float | None:
        """Seconds between blocks by our clock, as a recorded chain may be played fast; None if too few are known."""
        if self._first is None or self._newest is None or (blocks := self._newest.height - self._first.height) < 10:
            return None
        return (self._newest_s - self._first_s) / blocks

    def time_of(self, height: int) -> int | None:
        """Return the time of a block in milliseconds; None if it is not known."""
        return self._follower.time_of(height) if self._follower else None

    def settled(self, height: int) -> list[Settled]:
        """Return what a block settled, of all topics; asked once.

        Raises:
            chain.addresses.ChainFault: no host tells, or none has the block any more.
        """
        if self._rpc is None:
            return []
        if height not in self._blocks:
            self._blocks[height] = self._rpc.ask("/block_results", {"height": height}, settled_of)
            for old in sorted(self._blocks)[:-KEPT_BLOCKS]:
                del self._blocks[old]
        return self._blocks[height]

    def forget(self) -> None:
        """Forget what blocks settled: the chain began anew."""
        self._blocks.clear()

    def close(self) -> None:
        """End the thread that follows the blocks."""
        if self._follower:
            self._follower.stop()


def _began_anew(newest: Newest, block: Newest) -> bool:
    return newest.height - block.height >= LEAST_BACK and block.time_ms > newest.time_ms
