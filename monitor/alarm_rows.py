"""Alarms, and their table, which the monitor alone reads and writes."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import sqlalchemy as sa

from core.clock import DAY_MS
from ledger.database import open_made
from ledger.schema import alarms


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something that a person should see to. ``name`` and ``subject`` say which alarm it is."""

    name: str  # the setting is ALARM_<NAME>
    subject: str  # Topic.key, symbol, panel or part; empty if there is only one
    what: str  # happened, in a line
    since_ms: int
    remedy: str  # what to do, in a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An alarm from its begin to its end: a row of the table."""

    name: str
    subject: str
    since_ms: int
    what: str
    remedy: str
    sent_ms: int | None = None  # when the first address accepted the alarm
    ended_ms: int | None = None  # None: it holds
    end_sent_ms: int | None = None  # when the first address accepted the recovery message


COLUMNS = tuple(field.name for field in fields(Kept))
KEY = ("name", "subject", "since_ms")


class AlarmRows:
    """Reads and writes the table.

    Args:
        url: SQLAlchemy URL of the ledger. A missing SQLite file is an error and is not made.
    Raises:
        ConfigError: not the URL of a database that can be used.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_made(url, "rw")

    def read(self, now_ms: int) -> list[Kept]:
        """All rows that hold or ended within the last day, oldest first.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database is locked, damaged, not there or has no such table.
        """
        recent = sa.or_(alarms.c.ended_ms.is_(None), alarms.c.ended_ms >= now_ms - DAY_MS)
        query = sa.select(*(alarms.c[name] for name in COLUMNS)).where(recent).order_by(alarms.c.since_ms)
        with self._engine.connect() as connection:
            return [Kept(**row) for row in connection.execute(query).mappings()]

    def write(self, several: Iterable[Kept]) -> None:
        """Write all of the rows or nothing.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: as ``read``.
        """
        with self._engine.begin() as connection:
            for kept in several:
                values = asdict(kept)
                for name in ("what", "remedy"):  # a venue's message may have a NUL, which PostgreSQL does not take
                    values[name] = values[name].replace("\0", "")
                where = [alarms.c[name] == values[name] for name in KEY]
                if not connection.execute(alarms.update().where(*where).values(**values)).rowcount:
                    connection.execute(alarms.insert().values(**values))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
