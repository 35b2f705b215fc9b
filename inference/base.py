"""When the interval of a question begins: its base, by the best rule for which enough is known.

The network's rule is the nonce block's time, cut down to the minute. The block's time is told by the chain; for the
heights of the dry-run node it follows from the height; else it is guessed from when the question came.
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

AWAITED_BLOCKS, AWAITED_MS = 3, 3 * SECOND_MS  # a height so little above the newest is waited for, but not for long
OLDEST_MS = 10 * MINUTE_MS  # before the answer; an older base is not the base of this question
AHEAD_MS = 2 * SECOND_MS  # by which a block's time may be ahead of our clock


class BaseSource(StrEnum):
    """How a base is known."""

    CHAIN = "chain"  # the chain told the nonce block's time
    DRY_RUN = "dry_run"  # the dry-run node's heights are counted from 1970
    GUESS = "guess"  # from when the question came
    ASKED = "asked"  # the interval begins with the answer


SURE = frozenset({BaseSource.CHAIN, BaseSource.DRY_RUN})  # then the window is known as well


class Asked(NamedTuple):  # a tuple, and not a dataclass: each question has one, and it is made in half the time
    """When a question came, and what it may wait for."""

    ms: int
    may_hold: bool = False  # for what makes it answerable
    may_wait: bool = False  # for the moment at which an answer is worth most


class Base(NamedTuple):
    """The beginning of one question's interval."""

    ms: int
    source: BaseSource
    block_ms: int | None = None  # the nonce block's time, where it is known


class Chain(Protocol):
    """What is read of a chain's follower; none of it waits."""

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
        rule: BASE_RULE, for topics that have none of their own.
        node_delay_ms: NODE_DELAY_S: from a nonce block to the node's question.
        chains: followers by chain id.
    """

    rule: BaseRule
    node_delay_ms: int
    chains: Mapping[str | None, Chain]

    def of(self, topic: Topic, height: int | None, asked_ms: int, now_ms: int, *, may_wait: bool) -> Base:
        """The base of a question that came at ``asked_ms`` and is answered at ``now_ms``.

        Raises:
            StaleKlines: the nonce block is about to be told, and ``may_wait`` says that the question can wait for it.
        """
        asked = Base(ms=now_ms, source=BaseSource.ASKED)
        if height is None or (topic.base or self.rule) == BaseRule.ASKED:
            return asked
        found = self._found(topic, height, asked_ms, now_ms, may_wait=may_wait)
        oldest_ms = min(OLDEST_MS, topic.horizon_ms // 2)
        return (
            found
            if 0 <= now_ms - found.ms <= oldest_ms
            else Base(ms=now_ms, source=BaseSource.ASKED, block_ms=found.block_ms)
        )

    def block_time(self, topic: Topic, height: int) -> int | None:
        """When a block of a topic's chain was made, as the chain told; None where it did not."""
        chain = self.chains.get(topic.network)
        return chain.time_of(height) if chain else None

    def _found(self, topic: Topic, height: int, asked_ms: int, now_ms: int, *, may_wait: bool) -> Base:
        block_ms = block_time_ms(height)
        if -AHEAD_MS <= asked_ms - block_ms <= NEW_MS:
            return _at(block_ms, BaseSource.DRY_RUN)
        chain = self.chains.get(topic.network)
        if chain is not None:
            told_ms = chain.time_of(height)
            if told_ms is not None and told_ms <= now_ms + AHEAD_MS:
                return _at(told_ms, BaseSource.CHAIN)
            newest = chain.newest
            is_next = newest is not None and newest.height < height <= newest.height + AWAITED_BLOCKS
            if may_wait and is_next and 0 <= now_ms - asked_ms < AWAITED_MS:
                raise StaleKlines(f"topic {topic.key}: the time of block {height} is awaited since {iso(asked_ms)}")
        return Base(ms=(asked_ms - self.node_delay_ms) // MINUTE_MS * MINUTE_MS, source=BaseSource.GUESS)


def _at(block_ms: int, source: BaseSource) -> Base:
    return Base(ms=block_ms // MINUTE_MS * MINUTE_MS, source=source, block_ms=block_ms)


ASKED_ONLY = Bases(rule=BaseRule.ASKED, node_delay_ms=0, chains={})
