"""Follow a chain's blocks in the background: the newest block, the times of blocks, the windows of nonces."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import structlog

from chain.addresses import TIMEOUT_S, ChainFault, Untold
from chain.events import windows_of
from chain.rpc import STATUS, Block, Rpc, Status, headers_of, status_of
from core.backoff import backoff
from core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, Clock, iso
from core.seldom import Seldom
from node.addresses import is_public

__all__ = ["Block", "Follower"]

REMEMBERED_MS = 2 * HOUR_MS  # headers that are fetched; ten minutes later they are forgotten
MOST_HEIGHTS = 20_000  # remembered at most
PAGE = 20  # headers in one answer of CometBFT
AHEAD_MS = 30 * SECOND_MS  # most that a new block's time may be ahead of our clock
LATE_MS = 2 * MINUTE_MS  # most that the newest block may be behind our clock
STUCK_S, STUCK_BLOCKS = 20.0, 5.0  # without a new block for longer than both: the next address
MOST_BEHIND = 2  # blocks that one address may be behind another address
FEWEST_BLOCKS = 10  # for the mean time between blocks
FIRST_POLL_S = 1.0  # until the time between blocks is known
POLL_S = (0.5, 2.0)  # the shortest and the longest afterwards
LONGEST_FILL_REST_S = 30.0  # after headers could not be had: one second, doubling up to this
MOST_WISHES, TRIES = 16, 3  # heights whose windows are to be asked for, and tries for each
WISHES_A_TURN = 4  # a question waits three seconds for its window; turns are up to two seconds apart
REMEDY = "check RPC_URLS (none: the chain is not asked) and the chain; until then NODE_DELAY_S stands in for it"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Known:
    times: Mapping[int, int] = field(default_factory=dict)  # header time in ms by height
    newest: Block | None = None
    block_ms: float | None = None


class Follower:
    """One chain's newest blocks, in memory. Reading them takes no lock and never waits.

    The thread asks ``/status`` every half block (0.5 to 2 s), ``/blockchain`` for missed headers (20 in a request, at
    most one request per status), and ``/block_results`` once for each nonce whose window is wanted.

    A block's time is believed if it fits the clock, or the clock as it would run if it had not been set since block and
    clock last agreed. Believed times stay known while the chain cannot be asked, because a block never changes.

    Args:
        urls: RPC addresses, best first; see ``chain.rpc.Rpc``.
        chain_id: of the wallet; None takes the first id that an address returns.
        clock: for comparing block times.
        topics: ids of the topics whose windows may be asked for.
        on_block: called in the follower's thread whenever something new is known; it must return at once.
        timeout_s: of the requests; see ``chain.rpc.Rpc``.
        poll_s: the shortest and the longest pause between two statuses.
        by_clock: False believes a chain that is not public at any time: it may be recorded. Its heights must go on.
        seconds: a monotonic clock.
    """

    def __init__(
        self,
        urls: Sequence[str],
        chain_id: str | None,
        clock: Clock,
        topics: Iterable[int] = (),
        *,
        on_block: Callable[[], None] = lambda: None,
        timeout_s: float = TIMEOUT_S,
        poll_s: tuple[float, float] = POLL_S,
        by_clock: bool = True,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.chain_id = chain_id
        self.fault = "the chain was not asked yet"  # why nothing new is known: host and reason; empty if all is well
        self._rpc = Rpc(urls, clock, timeout_s=timeout_s, seconds=seconds)
        self._clock = clock
        self._topics = frozenset(topics)
        self._on_block = on_block
        self._shortest_poll_s, self._longest_poll_s = poll_s
        self._by_clock = by_clock
        self._seconds = seconds
        self._known = _Known()
        self._agreed: tuple[int, float] | None = None  # both clocks, when a block's time last fitted
        self._newest_s = 0.0  # when the newest block was first seen
        self._first: tuple[int, float] | None = None  # height of the first block that was seen, and when
        self._fill_again_s = float("-inf")
        self._fill_failures = 0  # in a row
        self._windows: Mapping[int, Mapping[int, int]] = {}  # last height by nonce and topic
        self._wishes: dict[int, int] = {}  # how often the windows of a height were asked for
        self._seldom = Seldom()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"chain-{chain_id}", daemon=True)

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the thread; after ``timeout_s`` a thread that hangs in a request is left behind."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def requests(self) -> int:
        """How many were sent."""
        return self._rpc.requests

    @property
    def newest(self) -> Block | None:
        """The newest believed block; None before the first block."""
        return self._known.newest

    @property
    def block_ms(self) -> float | None:
        """Mean time between the remembered blocks in milliseconds; None while fewer than ten are known."""
        return self._known.block_ms

    def time_of(self, height: int) -> int | None:
        """Return the time of a block's header in milliseconds; None if it is not known: not made yet, or hours old."""
        return self._known.times.get(height)

    def window_end(self, topic_id: int, height: int) -> int | None:
        """Return the height at which the submission window of a nonce ends, by the events of the nonce's block.

        The first call for a known block returns None and has the window asked for. Also None if the block opened no
        window of this topic.
        """
        if topic_id not in self._topics:
            return None
        ends = self._windows.get(height)
        if ends is None and height in self._known.times and len(self._wishes) < MOST_WISHES:
            self._wishes.setdefault(height, 0)
        return ends.get(topic_id) if ends else None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except ChainFault as fault:
                self._failed(str(fault))
            except Exception as error:  # noqa: BLE001 -- an unexpected answer must not end the thread
                self._failed(f"{type(error).__name__}: {error}")
            self._stopping.wait(max(self._poll_s, self._rpc.rests_s))

    @property
    def _poll_s(self) -> float:
        known, first = self._known, self._first
        poll_s = FIRST_POLL_S if known.block_ms is None else known.block_ms / 2000
        if first and known.newest and not self._fits_clock(self.chain_id):  # a recorded chain may be played fast
            blocks = known.newest.height - first[0]
            poll_s = min(poll_s, (self._newest_s - first[1]) / blocks / 2) if blocks >= FEWEST_BLOCKS else poll_s
        return min(max(poll_s, self._shortest_poll_s), self._longest_poll_s)

    def _failed(self, reason: str) -> None:
        self.fault = reason
        if count := self._seldom.due("chain_unavailable"):
            _log.warning("chain_unavailable", chain_id=self.chain_id, reason=reason, remedy=REMEDY, count=count)

    def _turn(self) -> None:
        status = self._rpc.ask(STATUS, {}, self._believed)
        self.chain_id = self.chain_id or status.chain_id
        if self.fault and self._seldom.due("chain_followed"):
            _log.info("chain_followed", chain_id=self.chain_id, height=status.newest.height)
        self.fault = ""
        self._take(status.newest)
        self._fill(max(status.earliest, 1))
        self._ask_for_windows()

    def _believed(self, result: Any) -> Status:
        status = status_of(result)
        block, newest = status.newest, self._known.newest
        if self.chain_id not in {None, status.chain_id}:
            raise ChainFault(f"the chain's id is {status.chain_id}, the wallet's chainId is {self.chain_id}")
        if status.catching_up:
            raise ChainFault(f"the node is catching up, at height {block.height}")
        if self._fits_clock(status.chain_id):
            self._check_time(block)
        if newest is None or _has_restarted(newest, block):
            return status
        if block.height > newest.height and block.time_ms <= newest.time_ms:
            raise ChainFault(f"time goes back: {_named(block)} comes after {_named(newest)}")
        if newest.height - block.height > MOST_BEHIND:
            raise ChainFault(f"the node is {newest.height - block.height} blocks behind, at height {block.height}")
        if block.height <= newest.height:
            if self._known.times.get(block.height, block.time_ms) != block.time_ms:
                known = Block(height=block.height, time_ms=self._known.times[block.height])
                raise ChainFault(f"{_named(block)} was {_named(known)} before")
            waited_s = self._seconds() - self._newest_s
            if waited_s > max(STUCK_S, STUCK_BLOCKS * (self._known.block_ms or 0) / 1000):
                raise ChainFault(f"no new block for {waited_s:.0f} s, the newest is {_named(newest)}")
        return status

    def _fits_clock(self, chain_id: str | None) -> bool:
        """True if the times of the chain's blocks have to fit the clock."""
        return self._by_clock or is_public(chain_id)

    def _check_time(self, block: Block) -> None:
        now_ms, now_s = self._clock.now_ms(), self._seconds()
        if -AHEAD_MS <= now_ms - block.time_ms <= LATE_MS:
            self._agreed = now_ms, now_s
            return
        if self._agreed is not None:
            agreed_ms, agreed_s = self._agreed
            if -AHEAD_MS <= agreed_ms + (now_s - agreed_s) * 1000 - block.time_ms <= LATE_MS:
                return  # the clock was set
        off_s = (block.time_ms - now_ms) / 1000
        where = f"{off_s:.0f} s ahead of" if off_s > 0 else f"{-off_s:.0f} s behind"
        raise ChainFault(f"{_named(block)} is {where} our clock: the chain stands still or lies, or the clock is wrong")

    def _take(self, block: Block) -> None:
        newest = self._known.newest
        times = dict(self._known.times)
        if newest is not None and block.height <= newest.height:
            if not _has_restarted(newest, block):
                return
            self._forget(newest, block)
            self._first, times = None, {}
        times[block.height] = block.time_ms
        self._newest_s = self._seconds()
        self._first = self._first or (block.height, self._newest_s)
        self._remember(times)

    def _forget(self, newest: Block, block: Block) -> None:
        self._windows = {}
        if count := self._seldom.due("chain_restarted"):
            _log.warning(
                "chain_restarted",
                chain_id=self.chain_id,
                before=_named(newest),
                now=_named(block),
                remedy="nothing if the chain began anew; else one of RPC_URLS is of another chain: take it out",
                count=count,
            )

    def _remember(self, times: Mapping[int, int]) -> None:
        height = max(times)
        newest = Block(height=height, time_ms=times[height])
        oldest_ms = newest.time_ms - REMEMBERED_MS - 10 * MINUTE_MS
        kept = {at: ms for at, ms in times.items() if ms > oldest_ms and at > height - MOST_HEIGHTS}
        lowest = min(kept)
        blocks = height - lowest
        mean_ms = (newest.time_ms - kept[lowest]) / blocks if blocks >= FEWEST_BLOCKS else None
        self._known = _Known(MappingProxyType(kept), newest, mean_ms)
        self._on_block()

    def _fill(self, earliest: int) -> None:
        top = self._missing(earliest)
        if top is None or self._seconds() < self._fill_again_s:
            return
        low = max(earliest, top - PAGE + 1)
        try:
            page = self._rpc.ask(
                "/blockchain", {"minHeight": low, "maxHeight": top}, lambda result: self._page(result, low, top)
            )
        except ChainFault as fault:
            self._fill_failures += 1
            self._fill_again_s = self._seconds() + backoff(self._fill_failures, 1.0, LONGEST_FILL_REST_S)
            if count := self._seldom.due("chain_headers_missing"):
                remedy = "nothing: the newest blocks are known without; asked again"
                _log.info("chain_headers_missing", heights=[low, top], reason=str(fault), remedy=remedy, count=count)
            return
        self._fill_failures = 0
        known = self._known.times
        changed = [height for height, ms in page.items() if known.get(height, ms) != ms]
        if changed:  # unseen, the chain began anew and has come further than before
            height = max(changed)
            self._forget(Block(height=height, time_ms=known[height]), Block(height=height, time_ms=page[height]))
            known = {height: ms for height, ms in known.items() if height > top}
        self._remember({**known, **page})

    def _missing(self, earliest: int) -> int | None:
        """Return the highest height to remember whose time is not known; None if all are."""
        known = self._known
        if known.newest is None:
            return None
        for height in range(known.newest.height, max(earliest, known.newest.height - MOST_HEIGHTS + 1) - 1, -1):
            ms = known.times.get(height)
            if ms is None:
                return height
            if known.newest.time_ms - ms >= REMEMBERED_MS:
                return None
        return None

    def _page(self, result: Any, low: int, top: int) -> dict[int, int]:
        headers = headers_of(result)
        if any(chain_id != self.chain_id for _, chain_id in headers.values()) or not all(
            low <= height <= top for height in headers
        ):
            raise ChainFault(f"/blockchain has headers of another chain, or others than {low} to {top}")
        if top not in headers:
            raise Untold(f"/blockchain has no header of block {top}")
        after_ms = self._known.times[top + 1]
        for height in sorted(headers, reverse=True):
            if headers[height][0] >= after_ms:
                raise ChainFault(
                    f"time goes back: block {height + 1} or a later one is of {iso(after_ms)}, "
                    f"{_named(Block(height=height, time_ms=headers[height][0]))}"
                )
            after_ms = headers[height][0]
        return {height: ms for height, (ms, _) in headers.items()}

    def _ask_for_windows(self) -> None:
        for height in list(self._wishes)[:WISHES_A_TURN]:
            try:
                ends = self._rpc.ask("/block_results", {"height": height}, windows_of).get(height, {})
            except ChainFault as fault:
                self._wishes[height] += 1
                if self._wishes[height] < TRIES:
                    return
                ends = {}
                if count := self._seldom.due("chain_window_unknown"):
                    remedy = "name an RPC address in RPC_URLS that answers /block_results"
                    _log.warning("chain_window_unknown", height=height, reason=str(fault), remedy=remedy, count=count)
            known = {at: then for at, then in self._windows.items() if at in self._known.times}
            self._windows = {**known, height: ends}
            del self._wishes[height]
            self._on_block()


def _has_restarted(newest: Block, block: Block) -> bool:
    """True if a block is not higher than the newest known block but made later: the chain began anew."""
    return block.height <= newest.height and block.time_ms > newest.time_ms


def _named(block: Block) -> str:
    return f"block {block.height} of {iso(block.time_ms)}"
