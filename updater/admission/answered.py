"""Measured from the ledger's newest answers: the time between blocks, and how late each topic was answered.

inference writes the ledger; here it is only read. If it cannot be read nothing is measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
import structlog

from core.clock import DAY_MS, HOUR_MS, SECOND_MS
from core.errors import ConfigError
from core.topic import Topic
from ledger.database import FAULTS, file_of, open_made
from ledger.schema import one_line

NEWEST_DAYS = 7
MOST_ROWS = 2016  # of a topic: seven days of five minutes
FEWEST_PAIRS = 20  # of blocks, an hour or more apart
BLOCK_MS_RANGE = (500.0, 60_000.0)  # outside it the heights belong to two chains, or the times are wrong
ANSWERS, ALL_BUT = 50, 2  # of the newest answers 96 % were at least as late as the third earliest

CHAIN, DRY_RUN = "chain", "dry_run"  # the values of base_source with a sure time of the nonce block

NEWEST = sa.text(
    "SELECT height, answered_ms, base_ms, base_source, block_ms FROM answers "
    "WHERE network = :network AND topic_id = :topic_id AND answered_ms >= :since_ms ORDER BY height DESC LIMIT :rows"
)

log = structlog.get_logger()


class Row(NamedTuple):
    """One answer of the ledger, in its columns' units."""

    height: int
    answered_ms: int
    base_ms: int
    base_source: str
    block_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The measurements of a topic; None and 0: not measured."""

    block_ms: float | None = None  # between two blocks of its network
    nonce_ms: int = 0  # time of the topic's newest nonce block
    known_s: float | None = None  # from base to answer: nearly all of the newest answers came no earlier


def answered_of(ledger_url: str, topics: Iterable[Topic], now_ms: int) -> Mapping[str, Answered]:
    """The measurements by ``Topic.key``; empty if the ledger is missing or cannot be read."""
    topics = tuple(topics)
    try:
        rows = _rows(ledger_url, topics, now_ms - NEWEST_DAYS * DAY_MS)
    except (*FAULTS, ConfigError) as error:
        log.warning(
            "ledger_not_read", reason=one_line(error), meanwhile="block times and waits are assumed, not measured"
        )
        return {}
    nonces = {
        key: {row.height: row.block_ms for row in of if row.base_source == CHAIN and row.block_ms}
        for key, of in rows.items()
    }
    between: dict[str | None, float | None] = {}
    for network in {topic.network for topic in topics}:
        together: dict[int, int] = {}
        for topic in topics:
            if topic.network == network:
                together |= nonces.get(topic.key, {})
        between[network] = block_ms_of(together)
    return {
        topic.key: Answered(
            block_ms=between[topic.network],
            nonce_ms=nonces[topic.key][max(nonces[topic.key])] if nonces.get(topic.key) else 0,
            known_s=known_s_of(rows.get(topic.key, ())),
        )
        for topic in topics
    }


def _rows(ledger_url: str, topics: Sequence[Topic], since_ms: int) -> Mapping[str, Sequence[Row]]:
    path = file_of(ledger_url)
    if path and not path.is_file():  # nothing was answered yet
        return {}
    engine = open_made(ledger_url)
    try:
        with engine.connect() as connection:
            return {
                topic.key: [
                    Row(*row)
                    for row in connection.execute(
                        NEWEST,
                        {
                            "network": topic.network or "",
                            "topic_id": topic.topic_id,
                            "since_ms": since_ms,
                            "rows": MOST_ROWS,
                        },
                    )
                ]
                for topic in topics
            }
    finally:
        engine.dispose()


def block_ms_of(times: Mapping[int, int]) -> float | None:
    """Time between two blocks: the median over pairs an hour apart, which a halt or a wrong time does not move.

    Args:
        times: in ms, by height, of some of a chain's blocks.
    Returns:
        None if too few blocks are known, or the median lies outside BLOCK_MS_RANGE.

    >>> block_ms_of({height: 5300 * height for height in range(0, 6000, 60)})
    5300.0
    """
    by_time = sorted((time_ms, height) for height, time_ms in times.items())
    time_ms, height = np.array(by_time, np.int64).reshape(-1, 2).T
    later = np.searchsorted(time_ms, time_ms + HOUR_MS)
    first = np.flatnonzero(later < len(time_ms))
    if len(first) < FEWEST_PAIRS:
        return None
    later = later[first]
    found = float(np.median((time_ms[later] - time_ms[first]) / (height[later] - height[first])))
    low, high = BLOCK_MS_RANGE
    return found if low <= found <= high else None


def known_s_of(rows: Sequence[Row]) -> float | None:
    """Seconds from base to answer that 95 % of the newest answers reached; None if they are too few.

    Args:
        rows: the newest first.
    """
    sure = [row.answered_ms - row.base_ms for row in rows if row.base_source in {CHAIN, DRY_RUN}][:ANSWERS]
    return sorted(sure)[ALL_BUT] / SECOND_MS if len(sure) == ANSWERS else None
