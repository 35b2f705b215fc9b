"""Delete what is older than LEDGER_DAYS."""

import sqlalchemy as sa

from core.clock import DAY_MS
from ledger.schema import KEY, answers, scores

STEP_ROWS = 500  # deleted together: some milliseconds, in which inference's rows wait for the file


def trim(engine: sa.Engine, now_ms: int, days: int, most_rows: int) -> int:
    """Delete the oldest answers and their scores, in small transactions.

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
    before_ms = min(now_ms, newest_ms or 0) - days * DAY_MS
    while deleted < most_rows:
        rows = min(STEP_ROWS, most_rows - deleted)
        some = _delete(engine, before_ms, rows)
        deleted += some
        if some < rows:
            break
    return deleted


def _delete(engine: sa.Engine, before_ms: int, rows: int) -> int:
    key = [answers.c[name] for name in KEY]
    oldest = sa.select(*key).where(answers.c.answered_ms < before_ms).order_by(answers.c.answered_ms, *key).limit(rows)
    with engine.begin() as connection:
        # In this order: without their answers the scores would not be found again.
        connection.execute(scores.delete().where(sa.tuple_(*(scores.c[name] for name in KEY)).in_(oldest)))
        return connection.execute(answers.delete().where(sa.tuple_(*key).in_(oldest))).rowcount
