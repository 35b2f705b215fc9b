"""Old answers go, with their scores, a few at a time; the rest stays."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.clock import DAY_MS, MINUTE_MS
from ledger.database import open_engine
from ledger.retention import CANDLES_BEFORE_DAYS, STEP_ROWS, trim
from ledger.schema import alarms, answers, candle_days, epochs, scores
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


def test_alarms_and_checksums_of_candles_go_once_no_answer_needs_them(engine: sa.Engine) -> None:
    before_ms = START_MS - DAY_MS
    day = {"venue": "binance", "symbol": "ETHUSDT", "interval_ms": MINUTE_MS, "checksum": 1}
    alarm: dict[str, object] = {"name": "clock", "subject": "", "what": "", "remedy": "", "end_sent_ms": None}
    ended = [None, before_ms - 1, before_ms, START_MS]
    days = [before_ms // DAY_MS - CANDLES_BEFORE_DAYS + number for number in (-2, -1, 0, 1)]
    with engine.begin() as connection:
        connection.execute(alarms.insert(), [alarm | {"since_ms": n, "ended_ms": ms} for n, ms in enumerate(ended)])
        connection.execute(candle_days.insert(), [day | {"day": number} for number in days])
    assert trim(engine, START_MS, 1, STEP_ROWS) == STEP_ROWS
    with engine.connect() as connection:
        assert len(connection.execute(sa.select(alarms)).all()) == 4, "old answers go first"
    trim(engine, START_MS, 1, 10 * ROWS)
    with engine.connect() as connection:
        assert list(connection.execute(sa.select(alarms.c.since_ms)).scalars()) == [0, 2, 3]
        assert list(connection.execute(sa.select(candle_days.c.day)).scalars()) == days[2:]


def test_an_answer_that_was_given_while_the_clock_stood_in_the_past_is_as_old_as_its_block(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(answers.update().where(answers.c.height == 3).values(block_ms=START_MS))
        connection.execute(answers.update().where(answers.c.height == 4).values(block_ms=START_MS - 2 * DAY_MS))
    assert trim(engine, START_MS, 1, 10 * ROWS) == ROWS // 2 - 1
    assert heights(engine, answers) == [3, *range(ROWS // 2, ROWS)]


def test_an_empty_ledger_has_nothing_to_delete(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    bring_up_to_date(url)
    empty = open_engine(url)
    assert trim(empty, START_MS, 400, 1000) == 0
    empty.dispose()


def test_details_of_old_epochs_are_found_without_reading_the_epochs_whose_details_are_gone(engine: sa.Engine) -> None:
    old = sa.select(epochs.c.nonce).where(epochs.c.seen_ms < START_MS, epochs.c.detail.is_not(None))
    query = str(old.order_by(epochs.c.seen_ms).compile(compile_kwargs={"literal_binds": True}))
    with engine.connect() as connection:
        (plan,) = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    assert "USING INDEX epochs_with_detail (seen_ms<?)" in plan[-1]
