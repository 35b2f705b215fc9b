"""Delete what is older than LEDGER_DAYS."""

import sqlalchemy as sa

from core.clock import DAY_MS
from ledger.schema import KEY, alarms, answers, candle_days, scores

STEP_ROWS = 500  # deleted together: some milliseconds, in which inference's rows wait for the file
CANDLES_BEFORE_DAYS = 300  # a score reads candles of up to 240 days before its answer


def trim(engine: sa.Engine, now_ms: int, days: int, most_rows: int) -> int:
    """Delete the oldest answers and their scores, in small transactions; then alarms and checksums as old.

    Args:
        now_ms: a clock that runs ahead deletes nothing: the newest answer counts as now if it is older.
        days: answers that were given within the last days stay.
        most_rows: of answers deleted in this call.
    Returns:
        the number of deleted answers; fewer than ``most_rows`` if none is left to delete.
    """
    deleted = 0
    with engine.connect() as connection:
        newest_ms = connection.execute(sa.select(sa.func.max(answers.c.answered_ms))).scalar_one()
        if newest_ms is None:
            return 0
    before_ms = min(now_ms, newest_ms) - days * DAY_MS
    while deleted < most_rows:
        rows = min(STEP_ROWS, most_rows - deleted)
        some = _delete(engine, before_ms, rows)
        deleted += some
        if some < rows:
            _delete_small(engine, before_ms)
            break
    return deleted


def _delete_small(engine: sa.Engine, before_ms: int) -> None:
    """Delete old rows of the small tables; writes nothing where there are none."""
    over = alarms.c.ended_ms < before_ms
    unread = candle_days.c.day < before_ms // DAY_MS - CANDLES_BEFORE_DAYS
    for table, old in ((alarms, over), (candle_days, unread)):
        with engine.connect() as connection:
            there = connection.execute(sa.select(sa.literal(1)).select_from(table).where(old).limit(1)).first()
        if there:
            with engine.begin() as connection:
                connection.execute(table.delete().where(old))


def _delete(engine: sa.Engine, before_ms: int, rows: int) -> int:
    key = [answers.c[name] for name in KEY]
    # An answer that was given while the clock stood far in the past is as old as its block.
    old = answers.c.answered_ms < before_ms, sa.func.coalesce(answers.c.block_ms, 0) < before_ms
    oldest = sa.select(*key).where(*old).order_by(answers.c.answered_ms, *key).limit(rows)
    with engine.begin() as connection:
        # In this order: without their answers the scores would not be found again.
        connection.execute(scores.delete().where(sa.tuple_(*(scores.c[name] for name in KEY)).in_(oldest)))
        return connection.execute(answers.delete().where(sa.tuple_(*key).in_(oldest))).rowcount
