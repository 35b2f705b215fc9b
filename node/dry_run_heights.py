"""The heights of the dry-run node: one block every five seconds, counted from 1970.

All processes and restarts agree on the heights, and a height gives the time of its block. A topic's nonces are the
multiples of its epoch length.
"""

from core.clock import MINUTE_MS, SECOND_MS
from core.topic import Topic

BLOCK_MS = 5 * SECOND_MS
WINDOW_BLOCKS = 60  # longest time a nonce stays open
NEW_MS = 5 * MINUTE_MS  # a height this recent is the dry-run node's: real chains are not so high


def block_height(now_ms: int) -> int:
    """The height at a moment.

    >>> block_height(1_700_000_000_000)
    340000000
    """
    return now_ms // BLOCK_MS


def block_time_ms(height: int) -> int:
    """The moment of a height."""
    return height * BLOCK_MS


def epoch_blocks(topic: Topic) -> int:
    """Length of a topic's epoch: by the catalogue, else the horizon."""
    return topic.epoch_length_blocks or max(1, topic.horizon_ms // BLOCK_MS)


def epoch_start(topic: Topic, height: int) -> int:
    """The nonce height of the epoch that ``height`` lies in."""
    return height - height % epoch_blocks(topic)


def window_blocks(topic: Topic) -> int:
    """Return the number of blocks for which a nonce of a topic stays open."""
    return min(WINDOW_BLOCKS, epoch_blocks(topic))
