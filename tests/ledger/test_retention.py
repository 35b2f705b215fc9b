"""Old answers go, with their scores, a few at a time; the rest stays."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.clock import DAY_MS, MINUTE_MS
from ledger.database import open_engine
from ledger.retention import STEP_ROWS, trim
from ledger.schema import answers, scores
from ledger.upgrade import bring_up_to_date
from tests.fakes.clock import START_MS
from tests.ledger.test_answer_log import answer

ROWS = 3 * STEP_ROWS  # half of them older than a day, and all but two scored


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    bring_up_to_date(url)
    engine = open_engine(url)
    start_ms = START_MS - DAY_MS - ROWS // 2 * MINUTE_MS
    with engine.begin() as connection:
        rows = [answer(n)._replace(answered_ms=start_ms + n * MINUTE_MS)._asdict() for n in range(ROWS)]
        connection.execute(answers.insert(), [row | {"answered_ms": min(row["answered_ms"], START_MS)} for row in rows])
        names = {column.name for column in scores.c if not column.nullable}
        filled = {name: 0 if name.endswith("_ms") else "" for name in names}
        scored = [filled | {name: row[name] for name in names & row.keys()} for row in rows[1:-1]]
        connection.execute(scores.insert(), scored)
        connection.execute(answers.update().where(answers.c.height == ROWS - 1).values(answered_ms=START_MS))
    yield engine
    engine.dispose()


def heights(engine: sa.Engine, table: sa.Table) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(sa.select(table.c.height).order_by(table.c.height)).scalars())


def test_what_is_older_goes_and_the_rest_stays(engine: sa.Engine) -> None:
    assert trim(engine, START_MS, 1, 10 * ROWS) == ROWS // 2
    assert heights(engine, answers) == list(range(ROWS // 2, ROWS))
    assert heights(engine, scores) == list(range(ROWS // 2, ROWS - 1))
    assert trim(engine, START_MS, 1, 10 * ROWS) == 0


def test_the_oldest_go_first_and_no_more_than_allowed(engine: sa.Engine) -> None:
    most = STEP_ROWS + 7
    assert trim(engine, START_MS, 1, most) == most
    assert heights(engine, answers) == list(range(most, ROWS))
    assert heights(engine, scores) == list(range(most, ROWS - 1))


def test_a_clock_that_runs_years_ahead_deletes_nothing_more(engine: sa.Engine) -> None:
    assert trim(engine, START_MS + 4000 * DAY_MS, 1, 10 * ROWS) == ROWS // 2
    assert trim(engine, START_MS + 4000 * DAY_MS, 400, 10 * ROWS) == 0


def test_an_empty_ledger_has_nothing_to_delete(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    bring_up_to_date(url)
    empty = open_engine(url)
    assert trim(empty, START_MS, 400, 1000) == 0
    empty.dispose()
