"""The base of a question: the moment when its interval begins.

By the network's rule the base is the nonce block's time, cut down to the minute. The block's time comes from the chain,
or from the height if the dry-run node asks; if it is not known, it is guessed from when the question came.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from chain.follower import Block
from core.clock import MINUTE_MS, SECOND_MS, iso
from core.errors import StaleKlines
from core.settings import BaseRule
from core.topic import Topic
from node.dry_run_heights import NEW_MS, block_time_ms

AWAITED_BLOCKS, AWAITED_MS = 3, 3 * SECOND_MS  # how far ahead of the newest block, and how long, a block is waited for
OLDEST_MS = 10 * MINUTE_MS  # before the answer; an older base belongs to another question
AHEAD_MS = 2 * SECOND_MS  # most that a block's time may be ahead of our clock


class BaseSource(StrEnum):
    """The source of a base."""

    CHAIN = "chain"  # time of the nonce's block, from the chain
    DRY_RUN = "dry_run"  # from the height: the dry-run node counts heights from 1970
    GUESS = "guess"  # from when the question came
    ASKED = "asked"  # the interval begins with the answer


SURE = frozenset({BaseSource.CHAIN, BaseSource.DRY_RUN})  # with these the window is known as well


class Asked(NamedTuple):  # made in half the time of a dataclass, once per question
    """The time at which a question came, and what the question may wait for."""

    ms: int
    may_hold: bool = False  # True if the question may wait until it can be answered
    may_wait: bool = False  # True if the question may wait until the answer is worth most


class Base(NamedTuple):
    """The beginning of one question's interval."""

    ms: int
    source: BaseSource
    block_ms: int | None = None  # time of the nonce's block; None if it is not known


class Chain(Protocol):
    """The part of a chain's follower that bases and waits read; no call waits."""

    @property
    def newest(self) -> Block | None: ...

    @property
    def block_ms(self) -> float | None: ...

    def time_of(self, height: int) -> int | None: ...

    def window_end(self, topic_id: int, height: int) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bases:
    """Decides the base of each question.

    Args:
        rule: BASE_RULE, for topics without a rule of their own.
        node_delay_ms: NODE_DELAY_S: from a nonce block to the node's question.
        chains: followers by chain id.
    """

    rule: BaseRule
    node_delay_ms: int
    chains: Mapping[str | None, Chain]

    def of(self, topic: Topic, height: int | None, asked_ms: int, now_ms: int, *, may_wait: bool) -> Base:
        """Return the base of a question that came at ``asked_ms`` and is answered at ``now_ms``.

        Raises:
            StaleKlines: the nonce's block is about to come, and the question may wait for it.
        """
        if height is None or (topic.base or self.rule) == BaseRule.ASKED:
            return Base(ms=now_ms, source=BaseSource.ASKED)
        found = self._found(topic, height, asked_ms, now_ms, may_wait=may_wait)
        return (
            found
            if -AHEAD_MS <= now_ms - found.ms <= oldest_base_ms(topic)
            else Base(ms=now_ms, source=BaseSource.ASKED, block_ms=found.block_ms)
        )

    def block_time(self, topic: Topic, height: int) -> int | None:
        """Return the time of a block of a topic's chain; None if it is not known."""
        chain = self.chains.get(topic.network)
        return chain.time_of(height) if chain else None

    def _found(self, topic: Topic, height: int, asked_ms: int, now_ms: int, *, may_wait: bool) -> Base:
        block_ms = block_time_ms(height)
        if -AHEAD_MS <= asked_ms - block_ms <= NEW_MS:
            return _at(block_ms, BaseSource.DRY_RUN)
        chain = self.chains.get(topic.network)
        if chain is not None:
            header_ms = chain.time_of(height)
            if header_ms is not None and header_ms <= now_ms + AHEAD_MS:
                return _at(header_ms, BaseSource.CHAIN)
            newest = chain.newest
            is_next = newest is not None and newest.height < height <= newest.height + AWAITED_BLOCKS
            if may_wait and is_next and 0 <= now_ms - asked_ms < AWAITED_MS:
                raise StaleKlines(f"topic {topic.key}: the time of block {height} is awaited since {iso(asked_ms)}")
        return Base(ms=(asked_ms - self.node_delay_ms) // MINUTE_MS * MINUTE_MS, source=BaseSource.GUESS)


def oldest_base_ms(topic: Topic) -> int:
    """Return how long before the answer a topic's interval may have begun, in ms."""
    return min(OLDEST_MS, topic.horizon_ms // 2)


def _at(block_ms: int, source: BaseSource) -> Base:
    return Base(ms=block_ms // MINUTE_MS * MINUTE_MS, source=source, block_ms=block_ms)


ASKED_ONLY = Bases(rule=BaseRule.ASKED, node_delay_ms=0, chains={})
