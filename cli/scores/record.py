"""The ledger as the verbs read it: straight from the database, which they never write, with or without the monitor."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from core.clock import DAY_MS, MINUTE_MS
from core.errors import ConfigError, WorkerError
from core.topic import Topic
from ledger.database import file_of, open_made
from ledger.schema import SCHEMA_VERSION, answers, is_damaged, one_line, scores, shown, version_of
from ledger.scores import START_MS, ScoreBook

ROWS_AT_ONCE = 10_000
START = "scripts/run starts everything (with Docker: docker compose up -d)"


class NothingAnswered(WorkerError):
    """There is no ledger yet, or an empty one."""


class NotScorable(NamedTuple):
    """Some answers of one version whose intervals ended on one day, and that cannot be scored."""

    version: str
    day: int  # UTC, since 1970
    reason: str
    answers: int  # that many


class ScoreRecord:
    """Reads the scores.

    Args:
        book: reads the same database; ``reading`` closes it.
        connection: to a database of this release's schema.
    """

    def __init__(self, book: ScoreBook, connection: sa.Connection) -> None:
        self.book = book
        self._connection = connection

    def not_scorable(self, topic: Topic, since_ms: int, until_ms: int) -> list[NotScorable]:
        """Count a topic's answers that cannot be scored, and whose intervals ended in ``[since_ms, until_ms)``."""
        groups = (scores.c.version, scores.c.end_ms // DAY_MS, scores.c.reason)
        query = sa.select(*groups, sa.func.count()).where(*_is_in(topic, since_ms, until_ms), scores.c.reason != "")
        return [NotScorable(*row) for row in self._connection.execute(query.group_by(*groups).order_by(*groups))]

    def rows(self, topic: Topic, since_ms: int, until_ms: int) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield the whole rows of the same span, some thousands at a time, by the end of their intervals."""
        query = sa.select(scores).where(*_is_in(topic, since_ms, until_ms)).order_by(scores.c.end_ms, scores.c.height)
        found = self._connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query)
        yield from found.partitions()

    def count(self, topic: Topic, since_ms: int, until_ms: int) -> int:
        """Return the number of rows of the same span."""
        query = sa.select(sa.func.count()).select_from(scores).where(*_is_in(topic, since_ms, until_ms))
        return int(self._connection.execute(query).scalar_one())

    def newest_end_ms(self, topics: Sequence[Topic]) -> int | None:
        """Return the end of the newest interval that was scored; None without a score of these topics."""
        ends = (
            self._connection.execute(sa.select(sa.func.max(scores.c.end_ms)).where(*_is_of(scores, topic))).scalar()
            for topic in topics
        )
        return max((end for end in ends if end is not None), default=None)

    def first_due_ms(self, topics: Sequence[Topic]) -> int | None:
        """Return when the interval of the oldest answer of these topics is over; None without an answer."""
        query = sa.select(START_MS + answers.c.horizon_min * MINUTE_MS).order_by(answers.c.height).limit(1)
        dues = (self._connection.execute(query.where(*_is_of(answers, topic))).scalar() for topic in topics)
        return min((due for due in dues if due is not None), default=None)


def _is_of(table: sa.Table, topic: Topic) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.network == (topic.network or ""), table.c.topic_id == topic.topic_id


def _is_in(topic: Topic, since_ms: int, until_ms: int) -> tuple[sa.ColumnElement[bool], ...]:
    return *_is_of(scores, topic), scores.c.end_ms >= since_ms, scores.c.end_ms < until_ms


@contextmanager
def reading(url: str) -> Iterator[ScoreRecord]:
    """Open a database of this release's schema, and report its faults in one line.

    Raises:
        ConfigError: its schema is another release's, or its driver is not installed; says what to do.
        WorkerError: not there yet, locked, damaged, or not to be reached; says what to do.
    """
    engine, parsed = open_made(url), sa.make_url(url)
    if (path := file_of(url)) and not path.is_file():
        raise NothingAnswered(f"{path}: not there yet: nothing has been answered here; {START}")
    book = ScoreBook(url)
    try:
        with engine.connect() as connection:
            _check_schema(connection, parsed)
            yield ScoreRecord(book, connection)
    except sa.exc.SQLAlchemyError as error:
        raise WorkerError(_fault(parsed, error)) from error
    finally:
        book.close()
        engine.dispose()


def _check_schema(connection: sa.Connection, url: sa.URL) -> None:
    try:
        found = version_of(connection)
    except ConfigError as error:  # it names the address of this connection, which is none
        raise ConfigError(f"{_name(url)}: {str(error).partition(': ')[2]}") from error
    if found is None:
        raise NothingAnswered(f"{_name(url)}: empty: nothing has been answered here; {START}")
    if found < SCHEMA_VERSION:
        raise ConfigError(
            f"{_name(url)}: has schema {found} of an earlier release, this release reads {SCHEMA_VERSION}; "
            "python -m ledger upgrades it and keeps every row (scripts/run does so at its start)"
        )


def _name(url: sa.URL) -> str:
    return str(Path(url.database or "").absolute()) if url.get_backend_name() == "sqlite" else shown(url)


def _fault(url: sa.URL, error: sa.exc.SQLAlchemyError) -> str:
    said, name = one_line(error), _name(url)
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
    if is_damaged(error):
        return f"{name}: is damaged ({said}); inference sets it aside and begins a new one at its next start"
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return f"{name}: is locked by another process ({said}); ask again, or end what holds it"
    return f"{name}: cannot be read: {said}; check that it is there and that this user may read it"
