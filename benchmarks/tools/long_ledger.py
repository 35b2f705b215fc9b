"""A ledger as years of answers leave it, made by SQL: millions of answers, with their scores."""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from core.clock import DAY_MS, MINUTE_MS, SystemClock
from core.topic import Topic
from ledger.schema import answers, make_ready, scores

EPOCH_MS = 5 * MINUTE_MS  # between answers
STEPS_TOGETHER = 2_000
FAST = ("journal_mode=WAL", "synchronous=OFF", "cache_size=-1000000", "temp_store=MEMORY", "wal_autocheckpoint=100000")

ANSWERS = """
INSERT INTO answers
WITH RECURSIVE steps(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM steps WHERE n + 1 < :end),
bases AS (SELECT (:begin_ms + n * :epoch_ms) / 60000 * 60000 AS base_ms FROM steps)
SELECT network, topic_id, base_ms / 5000,
    CASE substr(target, 1, 5)
        WHEN 'price' THEN printf('%.8f', 100 + random() % 1000 / 1e3)
        WHEN 'log_r' THEN printf('%.12f', random() % 1000 / 1e6)
        ELSE printf('%.12f', 0.002 + abs(random() % 1000) / 1e6) END,
    'minute-20261101T000000Z-' || substr('00000' || (base_ms / (7 * 86400000) % 100000), -6),
    symbol, target, horizon_min, 100.0, base_ms + 73000, base_ms, base_ms + 73100 + place, :market, 'binance', 1.0,
    'network', base_ms + 21000, base_ms, 'chain', base_ms + 17000, 73000
FROM bases CROSS JOIN asked
"""
SCORES = """
INSERT INTO scores
SELECT network, topic_id, height, answered_ms, version, forecast, base_ms, base_ms + horizon_min * 60000,
    base_ms + horizon_min * 60000 + 90000, '', venue, CAST(value AS REAL), CAST(value AS REAL) * 1.0001, 1e-6,
    CAST(value AS REAL), CAST(value AS REAL), abs(random() % 1000) / 1e9 * 0.9, abs(random() % 1000) / 1e9,
    abs(random() % 1000) / 1e9, random() & 1, random() % 1000 / 10.0, ''
FROM answers WHERE rowid > :after AND rowid <= :up_to AND answered_ms < :scored_ms
"""


def make_ledger(path: Path, topics: Sequence[Topic], rows: int, market: str) -> float:
    """Make the database; return how many seconds it took.

    The answers to all topics lie in the order in which they were given. Those of the last day have no scores yet.

    Args:
        rows: of answers, about.
    """
    began_s, now_ms = time.perf_counter(), SystemClock().now_ms()
    engine = sa.create_engine(f"sqlite:///{path}")
    make_ready(engine, SystemClock())
    engine.dispose()
    steps = -(-rows // len(topics))
    given = {"begin_ms": now_ms - steps * EPOCH_MS, "epoch_ms": EPOCH_MS, "market": market}
    database = sqlite3.connect(path)
    for pragma in FAST:
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TEMP TABLE asked (place, network, topic_id, symbol, target, horizon_min)")
    database.executemany(
        "INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?)",
        [
            (place, topic.network or "", topic.topic_id, topic.symbol, topic.asked, topic.horizon_min)
            for place, topic in enumerate(topics)
        ],
    )
    for first in range(0, steps, STEPS_TOGETHER):
        with database:
            database.execute(ANSWERS, given | {"first": first, "end": min(steps, first + STEPS_TOGETHER)})
    together = STEPS_TOGETHER * len(topics)
    for after in range(0, steps * len(topics), together):
        with database:
            database.execute(SCORES, {"after": after, "up_to": after + together, "scored_ms": now_ms - DAY_MS})
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return time.perf_counter() - began_s


def forget_last_day(path: Path) -> int:
    """Delete the scores of the last day's answers, so that they are made; return the number of answers."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        newest_ms = connection.execute(sa.select(sa.func.max(answers.c.answered_ms))).scalar_one()
        old = scores.c.end_ms >= newest_ms - DAY_MS
        for key in connection.execute(sa.select(scores.c.network, scores.c.topic_id).distinct()).all():
            mine = sa.and_(scores.c.network == key.network, scores.c.topic_id == key.topic_id, old)
            connection.execute(scores.delete().where(mine))
        count: int = connection.execute(
            sa.select(sa.func.max(sa.literal_column("rowid"))).select_from(answers)
        ).scalar_one()
    engine.dispose()
    return count
