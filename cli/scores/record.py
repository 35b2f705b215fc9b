"""The ledger as the verbs read it: straight from the database, which they never write, with or without the monitor."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from cli.place import Place
from core.clock import MINUTE_MS
from core.errors import ConfigError, WorkerError
from core.settings import Market, Settings
from core.topic import Topic
from klines.klines import Floats, Ints
from ledger.schema import DAMAGED, SCHEMA_VERSION, answers, one_line, schema, scores, shown

ROWS_AT_ONCE = 10_000
BUSY_S = 2.0  # how long SQLite waits for a process that holds the whole file
START = "scripts/run starts everything (with Docker: docker compose up -d)"
READ: Mapping[str, type[np.generic]] = {
    "end_ms": np.int64,
    "version": np.object_,
    "reason": np.object_,
    "loss": np.float64,
    "naive_loss": np.float64,
    "right_direction": np.float64,
    "error_bp": np.float64,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """The scores of one topic over a span; N rows, in order of time."""

    end_ms: Ints  # (N,) of the interval
    version: npt.NDArray[np.object_]  # (N,)
    reason: npt.NDArray[np.object_]  # (N,) why the answer cannot be scored; empty if it was
    loss: Floats  # (N,) in the topic's own loss; NaN if it was not scored, as in the columns below
    naive_loss: Floats  # (N,) of the naive forecast that knew as much
    right_direction: Floats  # (N,) 1 or 0; NaN also if truth or answer did not move from the base
    error_bp: Floats  # (N,)

    def __len__(self) -> int:
        return len(self.end_ms)


class ScoreRecord:
    """Reads the table of scores.

    Args:
        connection: to a database of this release's schema.
    """

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def scores_of(self, topic: Topic, since_ms: int, until_ms: int) -> Scores:
        """Return a topic's scores whose interval ended in ``[since_ms, until_ms)``."""
        query = _query(topic, since_ms, until_ms, *(scores.c[name] for name in READ))
        parts: dict[str, list[Any]] = {name: [np.empty(0, kind)] for name, kind in READ.items()}
        for rows in self._partitions(query):
            for (name, kind), column in zip(READ.items(), zip(*rows, strict=True), strict=True):
                parts[name].append(np.array(column, kind))  # a null becomes NaN
        return Scores(**{name: np.concatenate(some) for name, some in parts.items()})

    def rows(self, topic: Topic, since_ms: int, until_ms: int) -> Iterator[Sequence[sa.Row[Any]]]:
        """Yield the whole rows of the same span, some thousands at a time."""
        return self._partitions(_query(topic, since_ms, until_ms, scores))

    def count(self, topic: Topic, since_ms: int, until_ms: int) -> int:
        """Return the number of rows of the same span."""
        found = self._connection.execute(_query(topic, since_ms, until_ms, sa.func.count()).order_by(None))
        return int(found.scalar_one())

    def newest_end_ms(self, topics: Sequence[Topic]) -> int | None:
        """Return the end of the newest interval that was scored; None without a score of these topics."""
        ends = (
            self._connection.execute(sa.select(sa.func.max(scores.c.end_ms)).where(*_is_of(scores, topic))).scalar()
            for topic in topics
        )
        return max((end for end in ends if end is not None), default=None)

    def first_due_ms(self, topics: Sequence[Topic]) -> int | None:
        """Return when the interval of the oldest answer of these topics is over; None without an answer."""
        query = sa.select(sa.func.coalesce(answers.c.block_ms, answers.c.base_ms), answers.c.horizon_min)
        dues = []
        for topic in topics:
            row = self._connection.execute(
                query.where(*_is_of(answers, topic)).order_by(answers.c.height).limit(1)
            ).first()
            if row:
                dues.append(row[0] // MINUTE_MS * MINUTE_MS + row[1] * MINUTE_MS)
        return min(dues, default=None)

    def _partitions(self, query: sa.Select[Any]) -> Iterator[Sequence[sa.Row[Any]]]:
        found = self._connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query)
        yield from found.partitions()


def _is_of(table: sa.Table, topic: Topic) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.network == (topic.network or ""), table.c.topic_id == topic.topic_id


def _query(topic: Topic, since_ms: int, until_ms: int, *columns: Any) -> sa.Select[Any]:
    ends = scores.c.end_ms
    return sa.select(*columns).where(*_is_of(scores, topic), ends >= since_ms, ends < until_ms).order_by(ends)


def ledger_url(settings: Settings, place: Place) -> str:
    """Return the URL of the ledger of a place: a simulated market has a ledger of its own."""
    if place.market is Market.SIMULATED:
        settings = settings.model_copy(update={"database_url": ""})
    return settings.model_copy(update={"data_dir": place.folder}).ledger_url


@contextmanager
def reading(url: str) -> Iterator[sa.Connection]:
    """Open a database of this release's schema, and report its faults in one line.

    Raises:
        ConfigError: its schema is another release's, or its driver is not installed; says what to do.
        WorkerError: not there yet, locked, damaged, or not to be reached; says what to do.
    """
    parsed = sa.make_url(url)
    try:
        engine = _engine(parsed)
    except ModuleNotFoundError as error:
        raise ConfigError(f"DATABASE_URL={shown(parsed)}: its driver {error.name} is not installed") from error
    try:
        with engine.connect() as connection:
            _check_schema(connection, parsed)
            yield connection
    except sa.exc.SQLAlchemyError as error:
        raise WorkerError(_fault(parsed, error)) from error
    finally:
        engine.dispose()


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, poolclass=sa.NullPool)
    path = Path(url.database or "").absolute()
    if not path.is_file():
        raise WorkerError(f"{path}: not there yet: nothing has been answered here; {START}")
    uri = f"{path.as_uri()}?mode=ro"
    return sa.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=BUSY_S), poolclass=sa.NullPool
    )


def _check_schema(connection: sa.Connection, url: sa.URL) -> None:
    tables = sa.inspect(connection).get_table_names()
    if answers.name not in tables and schema.name not in tables:
        raise WorkerError(f"{_name(url)}: empty: nothing has been answered here; {START}")
    found = 1
    if schema.name in tables:
        found = connection.execute(sa.select(sa.func.max(schema.c.version))).scalar() or 1
    if found > SCHEMA_VERSION:
        raise ConfigError(
            f"{_name(url)}: has schema {found}, this release reads {SCHEMA_VERSION}; use the release that wrote it"
        )
    if found < SCHEMA_VERSION or scores.name not in tables:
        raise ConfigError(
            f"{_name(url)}: has schema {found} of an earlier release, this release reads {SCHEMA_VERSION}; "
            "python -m ledger brings it up to date without losing a row (scripts/run does so at its start)"
        )


def _name(url: sa.URL) -> str:
    return str(Path(url.database or "").absolute()) if url.get_backend_name() == "sqlite" else shown(url)


def _fault(url: sa.URL, error: Exception) -> str:
    said, name = one_line(error), _name(url)
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
    if code in DAMAGED:
        return f"{name}: is damaged ({said}); inference sets it aside and begins a new one at its next start"
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return f"{name}: is locked by another process ({said}); ask again, or end what holds it"
    return f"{name}: cannot be read: {said}; check that it is there and that this user may read it"
