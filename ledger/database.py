"""The answers in SQLite or PostgreSQL. Every call waits for the disk or the network: not for the event loop."""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from core.clock import Clock
from core.errors import ConfigError
from core.files import disk_refusal
from core.topic import Topic
from ledger.answers import Answer
from ledger.schema import KEY, QUESTION, answers, check_answers, is_large, make_ready, one_line, set_aside, shown

CACHE_KB = 256  # of pages, a connection
BUSY_S = 2.0  # how long SQLite waits for another process's write
CONNECT_S = 5  # for a PostgreSQL server to greet; by itself its driver waits two minutes
ROOM_BYTES = 1 << 18  # of a new SQLite file with its write-ahead log and that log's index
MARKS = "(" + ", ".join("?" * len(answers.c)) + ")"  # a row's place in SQLite's INSERT
# Rows of one INSERT. executemany takes Python's lock for each row: at 32 connections it left 0.81 and 0.86 of the
# answers (two noisy runs). Only these numbers: SQLite keeps a prepared statement of up to 600 kB for each of them.
ROWS_AT_ONCE = (256, 64, 16, 4, 1)
FAULTS = (sa.exc.SQLAlchemyError, OSError)  # of a database that may be well again later


class Database:
    """Reads and writes the table of answers.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL.
        clock: for the name under which a damaged file is set aside.
    Attributes:
        refusal: why the disk of an SQLite file takes nothing; empty if it does.
    Raises:
        ConfigError: not the URL of a database that can be used.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._clock = clock
        self._engine = open_engine(url)
        self._insert = _insert(self._engine.dialect.name)
        single = str(self._insert.compile(self._engine, column_keys=[column.name for column in answers.c]))
        self._sql = {rows: single.replace(MARKS, ", ".join([MARKS] * rows), 1) for rows in ROWS_AT_ONCE}
        self._file = Path(self._engine.url.database or "") if self._engine.dialect.name == "sqlite" else None
        self.refusal = disk_refusal(self._file.parent, ROOM_BYTES) if self._file else ""

    def make_ready(self) -> None:
        """Check the database, and make the tables of an empty one."""
        if self.refusal and self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        make_ready(self._engine, self._clock)

    @property
    def is_large(self) -> bool:
        """True if ``make_ready`` leaves the answers unchecked: call ``check``."""
        return is_large(self._engine)

    def check(self) -> None:
        """Read all answers of an SQLite file, for as long as that takes.

        Raises:
            sqlalchemy.exc.DatabaseError: the file is damaged.
        """
        if self._file:
            engine = _file_engine(self._file.absolute(), "mode=ro")
            with engine.connect() as connection:
                check_answers(connection)

    def set_aside(self, error: Exception) -> None:
        """Rename a file that was found damaged; ``make_ready`` makes a new one. Raises OSError if the disk refuses."""
        set_aside(self._engine, self._clock, error)

    def newest(self, topics: Sequence[Topic], count: int) -> dict[str, list[Answer]]:
        """Return each topic's answers of the greatest heights, by ``Topic.key``, lowest height first."""
        return _newest(self._engine, topics, count)

    def newest_unwritable(self, topics: Sequence[Topic], count: int) -> dict[str, list[Answer]]:
        """Do as ``newest`` without writing beside the file, as SQLite usually does; empty if that is not possible."""
        for engine in _readers(self._file.absolute()) if self._file else ():
            try:
                return _newest(engine, topics, count)
            except sa.exc.SQLAlchemyError:
                continue
            finally:
                engine.dispose()
        return {}

    def find(self, topic: Topic, height: int) -> Answer | None:
        """Return the answer to a question; None if the database has no answer."""
        with self._engine.connect() as connection:
            query = sa.select(answers).where(*_key_is(topic.network or "", topic.topic_id, height))
            row = connection.execute(query).mappings().first()
        return Answer(**row) if row else None

    def write(self, batch: Sequence[Answer]) -> None:
        """Write all of the batch or nothing; the first answer to a question stays."""
        with self._engine.begin() as connection:
            if self._file is None:
                connection.execute(self._insert, [answer._asdict() for answer in batch])
                return
            # Past SQLAlchemy, which binds row by row at four times the cost.
            first = 0
            for rows, statement in self._sql.items():
                while len(batch) - first >= rows:
                    some = batch[first : (first := first + rows)]
                    connection.exec_driver_sql(statement, tuple(chain.from_iterable(some)))

    def note_block_time(self, answer: Answer, block_ms: int) -> None:
        """Write the time of the nonce's block into the row of an answer."""
        where = _key_is(answer.network, answer.topic_id, answer.height)
        with self._engine.begin() as connection:
            connection.execute(answers.update().where(*where).values(block_ms=block_ms))

    def disconnect(self) -> None:
        """Close all connections; the next call opens a new one. A file opened on a read-only disk stays read-only."""
        self._engine.dispose()

    def unusable(self, error: Exception) -> ConfigError:
        """Return the error that stops a start because of ``error``."""
        return ConfigError(
            f"DATABASE_URL={shown(self._engine.url)}: cannot be used: {one_line(error)}; "
            "check that it is there and may be written"
        )

    @property
    def remedy(self) -> dict[str, str]:
        """Fields for a log line: the database, and the remedy if the database refuses answers."""
        if self._file is None:
            return {
                "database": shown(self._engine.url),
                "remedy": "look at the database; answers go on, and are written then",
            }
        folder = str(self._file.parent)
        todo = f"make room in {folder}, or mount it writable; if it is locked, end what locks it"
        remedy = f"{todo}; answers go on, and are written then"
        return {"folder": folder, "remedy": remedy}


def _key_is(network: str, topic_id: int, height: int | None) -> tuple[sa.ColumnElement[bool], ...]:
    return answers.c.network == network, answers.c.topic_id == topic_id, answers.c.height == height


def _newest(engine: sa.Engine, topics: Sequence[Topic], count: int) -> dict[str, list[Answer]]:
    found = {}
    for topic in topics:
        query = (
            sa.select(answers)
            .where(answers.c.network == (topic.network or ""), answers.c.topic_id == topic.topic_id)
            .order_by(answers.c.height.desc())
            .limit(count)
        )
        with engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        found[topic.key] = [Answer(**row) for row in reversed(rows)]
    return found


def _insert(dialect: str) -> sa.Insert:
    """Return the INSERT that lets the first answer stay, unless the question behind its key has changed since."""
    insert: Any = sqlite.insert(answers)
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415 -- a tenth of a second of every other start

        insert = postgresql.insert(answers)
    values = {column.name: insert.excluded[column.name] for column in answers.c if column.name not in KEY}
    changed = sa.or_(*(answers.c[name] != insert.excluded[name] for name in QUESTION))
    guarded: sa.Insert = insert.on_conflict_do_update(index_elements=KEY, set_=values, where=changed)
    return guarded


def _readers(path: Path) -> Iterator[sa.Engine]:
    """Yield ways to read an SQLite file beside which nothing can be written: after a kill, after an orderly end."""
    yield _file_engine(path, "mode=ro")  # after a kill the files that SQLite needs beside it are there
    log_file = path.with_name(f"{path.name}-wal")
    if not (log_file.exists() and log_file.stat().st_size):
        yield _file_engine(path, "immutable=1")


def open_made(url: str, mode: Literal["ro", "rw"] = "ro", *, cache_kb: int = CACHE_KB) -> sa.Engine:
    """Return the engine of a database that another process has made; an SQLite file is opened anew by each connection.

    So a file that was set aside as damaged is never read or written again, and none is made: one that is not there
    raises OperationalError at the first use.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL.
        mode: of an SQLite file: ``ro`` never writes, not even beside the file.
        cache_kb: of pages, an SQLite connection.
    Raises:
        ConfigError: not the URL of a database that can be used.
    """
    engine = open_engine(url)
    if engine.dialect.name != "sqlite":
        return engine
    return _file_engine(file_of(url) or Path(), f"mode={mode}", cache_kb)


def file_of(url: str) -> Path | None:
    """Return the absolute path of an SQLite file; None for another database."""
    parsed = sa.make_url(url)
    return Path(parsed.database or "").absolute() if parsed.get_backend_name() == "sqlite" else None


def _file_engine(path: Path, query: str, cache_kb: int = CACHE_KB) -> sa.Engine:
    def connect() -> sqlite3.Connection:  # polars takes the rows of a file in a thread of its own
        connection = sqlite3.connect(f"{path.as_uri()}?{query}", uri=True, timeout=BUSY_S, check_same_thread=False)
        connection.execute("PRAGMA synchronous=NORMAL").close()
        connection.execute(f"PRAGMA cache_size=-{cache_kb}").close()
        return connection

    return sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.NullPool)


def open_engine(url: str, *, busy_s: float = BUSY_S) -> sa.Engine:
    """Return the engine of a database, which is opened with the first connection.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL.
        busy_s: how long SQLite waits for another process's write.
    Raises:
        ConfigError: not the URL of a database that can be used.
    """
    try:
        parsed = sa.make_url(url)
        dialect = parsed.get_backend_name()
        if dialect == "sqlite" and parsed.database in {None, "", ":memory:"}:
            raise ConfigError("DATABASE_URL: answers must outlive the process; name a file, as in sqlite:////data/a.db")
        if dialect not in {"sqlite", "postgresql"}:
            raise ConfigError(f"DATABASE_URL: must begin with sqlite:/// or postgresql://, was {dialect}://")
        engine = _engine(parsed, busy_s)
    except sa.exc.ArgumentError as error:
        raise ConfigError("DATABASE_URL is no database URL; give one like sqlite:////data/ledger.sqlite3") from error
    except ModuleNotFoundError as error:
        raise ConfigError(f"DATABASE_URL={shown(parsed)}: its driver {error.name} is not installed") from error
    return engine


def _engine(url: sa.URL, busy_s: float) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        if url.get_driver_name().startswith("psycopg") and "connect_timeout" not in url.query:
            url = url.update_query_dict({"connect_timeout": str(CONNECT_S)})
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": busy_s})

    @sa.event.listens_for(engine, "connect")
    def _tune(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL").close()
        connection.execute("PRAGMA synchronous=NORMAL").close()
        # SQLite's default of two megabytes fills up over the first hours; old pages are not read here.
        connection.execute(f"PRAGMA cache_size=-{CACHE_KB}").close()

    return engine
