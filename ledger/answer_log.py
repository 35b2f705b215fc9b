"""The answers that were given, so that a question asked again gets the same one, after a restart too.

The first answer to (network, topic, height) wins. Asking is a look into memory. An answer is with the operating system,
in the journal, before it is sent; the database is written by a thread of its own, within milliseconds, and read only at
start and for questions older than what memory holds. While the disk is full or read-only, at the start as well as
later, answers are kept in memory and written once it takes them.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import sqlite

from core.clock import Clock
from core.errors import ConfigError, WorkerError
from core.files import disk_refusal
from core.seldom import Seldom
from core.topic import Topic
from ledger.answers import Answer
from ledger.background_writer import BackgroundWriter
from ledger.journal import Journal, remove
from model.forecaster import NAIVE, PERSISTENCE

SCHEMA_VERSION = 4
RECENT = 128  # answers kept in memory per topic: a day of ten-minute epochs
READS_CLOSE_S = 0.2  # nobody waits for an answer any more when the ledger is closed
READ_S = 1.0  # for the database to say what was answered before; the node waits without end, so we must not
READS_WAITING = 1_000  # questions about the past that may wait for the database: about what it answers in READ_S
# An answer is committed this much later, with those that came in the meantime. Each commit takes the event loop's core
# and Python's lock for a while: under load two hundred a second cost a tenth of all answers.
GATHER_S, BUSY_GATHER_S = 0.005, 0.1
CACHE_KB = 256  # of pages, a connection
BUSY_S = 2.0  # how long SQLite waits for another process's write
DAMAGED = {11, 26}  # SQLITE_CORRUPT, SQLITE_NOTADB
ROOM_BYTES = (
    1 << 18
)  # what a new SQLite file needs on the disk, with its index of shared memory and its write-ahead log

log = structlog.get_logger()

metadata = sa.MetaData()
schema = sa.Table("ledger_schema", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("network", sa.String, primary_key=True),  # empty when the config does not say
    sa.Column("topic_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("height", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("value", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("symbol", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),  # Topic.asked
    sa.Column("horizon_min", sa.Integer, nullable=False),
    sa.Column("anchor", sa.Float, nullable=False),
    sa.Column("anchor_asof_ms", sa.BigInteger, nullable=False),
    sa.Column("asof_ms", sa.BigInteger, nullable=False),
    sa.Column("answered_ms", sa.BigInteger, nullable=False),
    sa.Column("market", sa.String, nullable=False),
    sa.Column("venue", sa.String, nullable=False, server_default=""),
    sa.Column("truth_ratio", sa.Float, nullable=False, server_default="1"),
    sa.Column("forecast", sa.String, nullable=False, server_default=""),  # network, naive, or empty: not known
    sa.Column("asked_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("base_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("base_source", sa.String, nullable=False, server_default="asked"),
    sa.Column("block_ms", sa.BigInteger, nullable=True),  # the nonce block's time, filled in when the chain tells it
    sa.Column("elapsed_ms", sa.BigInteger, nullable=False, server_default="0"),
)
# What each schema brought: columns, whose defaults the rows of before get, and what those rows meant by their values.
ADDED: Mapping[int, tuple[str, ...]] = {
    2: ("venue", "truth_ratio"),
    3: ("forecast",),
    4: ("asked_ms", "base_ms", "base_source", "block_ms", "elapsed_ms"),
}
REWRITTEN: Mapping[int, tuple[sa.Update, ...]] = {
    3: (
        answers.update().where(answers.c.target == "volatility").values(target="volatility std"),
        answers.update().where(answers.c.version == PERSISTENCE).values(forecast=NAIVE),
    ),
    # Their interval began with the answer.
    4: (answers.update().values(asked_ms=answers.c.answered_ms, base_ms=answers.c.answered_ms),),
}
KEY = tuple(column.name for column in answers.primary_key)
QUESTION = ("market", "symbol", "target", "horizon_min")  # with other ones it was another question
MARKS = "(" + ", ".join("?" * len(answers.c)) + ")"  # a row's place in SQLite's INSERT
# In one INSERT, as many as there are: after each the writing thread and the event loop contend for Python's lock. Only
# these numbers, as SQLite keeps a prepared statement of each, of up to 600 kB: with any number they pile up over hours.
ROWS_AT_ONCE = (256, 64, 16, 4, 1)


class Ledger:
    """The answers of the configured topics.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL.
        topics: whose newest answers are held in memory.
        market: BINANCE or SIMULATED; what was answered from the other one is as if never asked.
        clock: for the name of a damaged file set aside.
        folder: of the journal.
        recent: answers per topic held in memory.
    Raises:
        ConfigError: the database cannot be used, and no full or read-only disk is to blame; one line with its name and
            the remedy.
    """

    def __init__(
        self, url: str, topics: Iterable[Topic], market: str, clock: Clock, folder: Path, *, recent: int = RECENT
    ) -> None:
        self._market = market
        self._capacity = recent
        self._recent: dict[str, dict[int, Answer]] = {}  # Topic.key -> height -> answer, oldest entry first
        self._elsewhere: dict[str, int] = {}  # Topic.key -> greatest height that only the database may know
        self._unwritten: dict[tuple[str, int], Answer] = {}  # queued for the database
        self.failures = 0  # writes and reads that failed
        self._seldom = Seldom()
        self.dropped = 0  # answers that could not be queued for writing
        self.unjournalled = 0  # answers that a kill before they are in the database would lose
        self._remembering = threading.Lock()  # held for a few dictionary operations and a write to the page cache
        self._topics = tuple(topics)
        self._clock = clock
        self._engine = _open(url)
        self._insert = _insert(self._engine.dialect.name)
        single = str(self._insert.compile(self._engine, column_keys=[column.name for column in answers.c]))
        self._sql = {rows: single.replace(MARKS, ", ".join([MARKS] * rows), 1) for rows in ROWS_AT_ONCE}
        self._journal = Journal(folder)
        self._begun = False  # whether the tables are there and memory has the newest of what they hold
        self._refusal = _disk_refusal(self._engine.url)
        if self._refusal:
            self._count_failure("ledger_not_written", self._refusal)
        try:
            self._begin()
        except (sa.exc.SQLAlchemyError, OSError) as error:
            if not self._refusal:
                raise _unusable(self._engine.url, error) from error
            self._load_unwritable()
        self._writer = BackgroundWriter[Answer]("ledger", self._write, gather_s=GATHER_S, busy_gather_s=BUSY_GATHER_S)
        self._reading_since_s: float | None = None  # when the read began that is under way
        self._reads = BackgroundWriter[tuple[Topic, int, Future[None]]](
            "ledger-reads", self._look_up, capacity=READS_WAITING
        )

    def recall(self, topic: Topic, height: int) -> Answer | None:
        """The answer to this question, if memory has it."""
        key = (topic.key, height)
        answer = self._recent.get(topic.key, {}).get(height) or self._unwritten.get(key)
        return answer if answer and answer.answers(topic, self._market) else None

    def newest(self, topic: Topic) -> Answer | None:
        """The answer that was given last to this very question, as far as memory has it."""
        known = [one for one in self._recent.get(topic.key, {}).values() if one.answers(topic, self._market)]
        return max(known, key=lambda one: one.answered_ms, default=None)

    def look_up(self, topic: Topic, height: int) -> "Future[None]":
        """``fetch`` in a thread of the ledger's own, one question after the other.

        Returns:
            what is done when memory has all there is; whoever gives up waiting, after ``READ_S``, cancels it.
        Raises:
            WorkerError: the database has left an earlier question without an answer, or too many are waiting.
        """
        done: Future[None] = Future()
        began_s = self._reading_since_s
        hangs = began_s is not None and time.monotonic() - began_s > READ_S
        if hangs or not self._reads.put((topic, height, done)):
            raise silent(topic, height)
        return done

    def _look_up(self, batch: Sequence[tuple[Topic, int, "Future[None]"]]) -> Sequence[Any]:
        for topic, height, done in batch:
            if not done.set_running_or_notify_cancel():
                continue
            self._reading_since_s = time.monotonic()
            try:
                self.fetch(topic, height)
            except Exception as error:  # noqa: BLE001 -- whoever waits is told
                done.set_exception(error)
            else:
                done.set_result(None)
            finally:
                self._reading_since_s = None
        return ()

    def may_be_elsewhere(self, topic: Topic, height: int) -> bool:
        """Whether the database may have an answer that memory has not: then ``fetch`` before answering anew."""
        if height > self._elsewhere.get(topic.key, -1):
            return False
        return height not in self._recent.get(topic.key, {}) and (topic.key, height) not in self._unwritten

    def fetch(self, topic: Topic, height: int) -> None:
        """Bring an answer from the database into memory, if there is one. Waits: not for the event loop.

        A database that cannot be read is logged and counted; the question is then answered anew.
        """
        where = (
            answers.c.network == (topic.network or ""),
            answers.c.topic_id == topic.topic_id,
            answers.c.height == height,
        )
        try:
            with self._engine.connect() as connection:
                row = connection.execute(sa.select(answers).where(*where)).mappings().first()
        except sa.exc.SQLAlchemyError as error:
            self._count_failure("ledger_not_read", _one_line(error))
            return
        if row and (answer := _answer(row)).answers(topic, self._market):
            with self._remembering:
                self._remember(answer, (topic.key, height))

    def keep(self, answer: Answer) -> Answer:
        """Record an answer, unless its question has one already.

        Returns:
            the answer that stands: ``answer``, or the one that came before it.
        """
        if answer.height is None:
            return answer
        key = (answer.key, answer.height)
        try:
            with self._remembering:
                standing = self._remember(answer, key)
                if standing is not answer:
                    return standing
                self._unwritten[key] = answer
                self._journal.append(answer)
        except OSError as error:  # the disk: answers need none
            self.unjournalled += 1
            self._say("answer_not_journalled", error.strerror or str(error))
        if not self._writer.put(answer):
            self.dropped += 1
            self._unwritten.pop(key, None)
        return answer

    def note_block_times(self, time_of: Callable[[Topic, int], int | None], since_ms: int) -> None:
        """Fill in the times of nonce blocks that the chain has told since their questions were answered. Waits.

        Args:
            time_of: a block's time in ms, None while it is not known.
            since_ms: answers of before are not looked at any more.
        """
        for topic in self._topics:
            for height, answer in list(self._recent.get(topic.key, {}).items()):
                if (
                    answer.block_ms is not None
                    or answer.answered_ms < since_ms
                    or (answer.key, height) in self._unwritten
                ):
                    continue
                if (block_ms := time_of(topic, height)) is not None:
                    self._note_block_time(answer, height, block_ms)

    def _note_block_time(self, answer: Answer, height: int, block_ms: int) -> None:
        where = (answers.c.network == answer.network, answers.c.topic_id == answer.topic_id, answers.c.height == height)
        try:
            with self._engine.begin() as connection:
                connection.execute(answers.update().where(*where).values(block_ms=block_ms))
        except sa.exc.SQLAlchemyError as error:
            self._count_failure("ledger_not_written", _one_line(error))
            return
        with self._remembering:
            self._recent[answer.key][height] = answer._replace(block_ms=block_ms)

    @property
    def unwritten(self) -> int:
        """How many answers the database does not have yet."""
        return len(self._unwritten)

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is queued and close the database."""
        self._reads.close(min(timeout_s, READS_CLOSE_S))
        if left := self._writer.close(timeout_s):
            log.error("ledger_closed_early", answers_in_journal_alone=left)
        self._journal.close(all_written=not self._unwritten and not self.dropped)
        self._engine.dispose()

    def _remember(self, answer: Answer, key: tuple[str, int]) -> Answer:
        topic, height = key
        known = self._recent.setdefault(topic, {})
        standing = known.get(height) or self._unwritten.get(key)
        if standing and _same_question(standing, answer):
            return standing
        known[height] = answer
        if len(known) > self._capacity:
            oldest = next(iter(known))
            self._elsewhere[topic] = max(oldest, self._elsewhere.get(topic, -1))
            del known[oldest]
        return answer

    def _begin(self) -> None:
        """Make the database ready; later again where the disk refused at the start."""
        database = self._engine.url.database
        try:
            if self._refusal and database:
                Path(database).parent.mkdir(parents=True, exist_ok=True)
            _make_ready(self._engine, self._clock)
            if self._journal.left:
                with self._engine.begin() as connection:
                    self._put(connection, self._journal.left)
                log.info("journal_replayed", answers=len(self._journal.left))
            for topic in self._topics:
                self._load(topic, self._engine)
        except BaseException:
            self._engine.dispose()
            raise
        self._journal.forget_left()
        self._begun = True

    def _load_unwritable(self) -> None:
        """Read what was answered before without writing beside the file, as SQLite usually does."""
        known = 0
        for engine in _readers(self._engine.url):
            try:
                for topic in self._topics:
                    self._load(topic, engine)
                known = sum(map(len, self._recent.values()))
                break
            except sa.exc.SQLAlchemyError:
                continue
            finally:
                engine.dispose()
        with self._remembering:
            for answer in self._journal.left:
                self._remember(answer, (answer.key, answer.height or 0))
        log.warning(
            "ledger_waits",
            answers_known=known + len(self._journal.left),
            meanwhile="answers are kept in memory; after a restart before they are written, a question may get another",
        )

    def _load(self, topic: Topic, engine: sa.Engine) -> None:
        newest = (
            sa.select(answers)
            .where(answers.c.network == (topic.network or ""), answers.c.topic_id == topic.topic_id)
            .order_by(answers.c.height.desc())
            .limit(self._capacity)
        )
        with engine.connect() as connection:
            rows = connection.execute(newest).mappings().all()
        found = {a.height: a for a in map(_answer, reversed(rows)) if a.height is not None}
        with self._remembering:
            # Before what this process answered since its start, while the database could not be read.
            self._recent[topic.key] = found | self._recent.get(topic.key, {})
            if len(found) == self._capacity:
                self._elsewhere[topic.key] = max(min(found) - 1, self._elsewhere.get(topic.key, -1))

    def _write(self, batch: Sequence[Answer]) -> Sequence[Answer]:
        if self._journal.is_long:
            self._shorten_journal()
        try:
            if not self._begun:
                self._begin()
            with self._engine.begin() as connection:
                self._put(connection, batch)
        except (sa.exc.SQLAlchemyError, OSError, ConfigError) as error:
            self._count_failure("ledger_not_written", _one_line(error), answers=len(batch))
            self._engine.dispose()  # what was opened on a read-only disk stays read-only
            return batch
        for answer in batch:
            self._unwritten.pop((answer.key, answer.height or 0), None)
        return ()

    def _shorten_journal(self) -> None:
        try:
            with self._remembering:
                before = self._journal.begin_anew(tuple(self._unwritten.values()))
        except OSError as error:
            self._say("journal_not_shortened", error.strerror or str(error))
        else:
            remove(before)  # megabytes, for which no answer is to wait

    def _put(self, connection: sa.Connection, batch: Sequence[Answer]) -> None:
        if self._engine.dialect.name != "sqlite":
            connection.execute(self._insert, [answer._asdict() for answer in batch])
            return
        # SQLAlchemy would bind row by row, at four times the cost; under load that is a tenth of all there is.
        first = 0
        for rows, statement in self._sql.items():
            while len(batch) - first >= rows:
                some = batch[first : (first := first + rows)]
                connection.exec_driver_sql(statement, tuple(chain.from_iterable(some)))

    def _count_failure(self, event: str, reason: str, **more: object) -> None:
        self.failures += 1
        self._say(event, reason, **more)

    def _say(self, event: str, reason: str, **more: object) -> None:
        if count := self._seldom.due(event):
            log.error(event, reason=reason, count=count, **_remedy(self._engine.url), **more)


def silent(topic: Topic, height: int) -> WorkerError:
    """What is said when the database does not say whether a question was answered before."""
    return WorkerError(
        f"topic {topic.key}: whether height {height} was answered before is not known: the ledger's database does not "
        f"answer within {READ_S:g} s; look at DATABASE_URL and the disk of DATA_DIR"
    )


def _same_question(one: Answer, other: Answer) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("network", *QUESTION))


def _answer(row: sa.RowMapping) -> Answer:
    return Answer(**row)


def _insert(dialect: str) -> sa.Insert:
    """The first answer stays, unless the question behind its key has changed since."""
    insert: Any = sqlite.insert(answers)
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415 -- a tenth of a second of every other start

        insert = postgresql.insert(answers)
    others = {column.name: insert.excluded[column.name] for column in answers.c if column.name not in KEY}
    changed = sa.or_(*(answers.c[name] != insert.excluded[name] for name in QUESTION))
    guarded: sa.Insert = insert.on_conflict_do_update(index_elements=KEY, set_=others, where=changed)
    return guarded


def _remedy(url: sa.URL) -> dict[str, str]:
    if url.get_backend_name() != "sqlite" or not url.database:
        return {"database": _shown(url), "remedy": "look at the database; answers go on, and are written then"}
    folder = Path(url.database).parent
    return {
        "folder": str(folder),
        "remedy": f"make room in {folder}, or mount it writable; answers go on, and are written then",
    }


def _disk_refusal(url: sa.URL) -> str:
    """Why the disk of an SQLite file takes nothing; empty if it does."""
    if url.get_backend_name() != "sqlite" or not url.database:
        return ""
    return disk_refusal(Path(url.database).parent, ROOM_BYTES)


def _readers(url: sa.URL) -> Iterator[sa.Engine]:
    """Ways to read an SQLite file beside which nothing can be written: after a kill, and after an end in order."""
    path = Path(url.database or "").absolute()
    yield _reader(f"{path.as_uri()}?mode=ro")  # the files that it needs beside it are still there
    log_file = path.with_name(f"{path.name}-wal")
    if not (log_file.exists() and log_file.stat().st_size):
        yield _reader(f"{path.as_uri()}?immutable=1")


def _reader(uri: str) -> sa.Engine:
    return sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=sa.pool.NullPool)


def _open(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        dialect = parsed.get_backend_name()
        if dialect == "sqlite" and parsed.database in {None, "", ":memory:"}:
            raise ConfigError("DATABASE_URL: answers must outlive the process; name a file, as in sqlite:////data/a.db")
        if dialect not in {"sqlite", "postgresql"}:
            raise ConfigError(f"DATABASE_URL: must begin with sqlite:/// or postgresql://, was {dialect}://")
        engine = _engine(parsed)
    except sa.exc.ArgumentError as error:
        raise ConfigError("DATABASE_URL is no database URL; give one like sqlite:////data/ledger.sqlite3") from error
    except ModuleNotFoundError as error:
        raise ConfigError(f"DATABASE_URL={_shown(parsed)}: its driver {error.name} is not installed") from error
    return engine


def _make_ready(engine: sa.Engine, clock: Clock) -> None:
    """Check the database and its tables; a damaged SQLite file is set aside and a new one begun."""
    try:
        _prepare(engine)
    except sa.exc.SQLAlchemyError as error:
        if not _is_damaged(error) or not engine.url.database:
            raise
        engine.dispose()
        _set_aside(Path(engine.url.database), clock.now_ms(), _one_line(error))
        _prepare(engine)


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_S})

    @sa.event.listens_for(engine, "connect")
    def _tune(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL").close()
        connection.execute("PRAGMA synchronous=NORMAL").close()
        # SQLite's own two megabytes fill up over the first hours; nobody reads old pages here.
        connection.execute(f"PRAGMA cache_size=-{CACHE_KB}").close()

    return engine


def _prepare(engine: sa.Engine) -> None:
    """Check the file, make the tables or what has come to them since, and refuse what a newer release wrote."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            if verdict != "ok":
                raise sa.exc.DatabaseError("PRAGMA quick_check", None, _Damaged(str(verdict)))
        metadata.create_all(connection)
        found = connection.execute(sa.select(sa.func.max(schema.c.version))).scalar_one()
        if found is None:
            connection.execute(schema.insert().values(version=SCHEMA_VERSION))
        elif 1 <= found < SCHEMA_VERSION:
            for version in range(found + 1, SCHEMA_VERSION + 1):
                for column in (answers.c[name] for name in ADDED[version]):
                    definition = sa.schema.CreateColumn(column).compile(dialect=engine.dialect)
                    connection.exec_driver_sql(f"ALTER TABLE {answers.name} ADD COLUMN {definition}")
                for statement in REWRITTEN.get(version, ()):
                    connection.execute(statement)
            connection.execute(schema.insert().values(version=SCHEMA_VERSION))
        elif found != SCHEMA_VERSION:
            raise ConfigError(
                f"DATABASE_URL={_shown(engine.url)}: has schema {found}, this release reads {SCHEMA_VERSION}; "
                "use the release that wrote it, or another database"
            )


class _Damaged(Exception):
    """SQLite read the file and found it inconsistent."""

    sqlite_errorcode = 11


def _is_damaged(error: sa.exc.SQLAlchemyError) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF in DAMAGED


def _set_aside(path: Path, now_ms: int, reason: str) -> None:
    """Keep a damaged file for whoever wants to look at it; its write-ahead log goes with it."""
    aside = path.with_name(f"{path.name}.damaged-{now_ms}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    log.error("ledger_damaged", file=str(path), set_aside=str(aside), reason=reason, remedy="a new one is begun")


def _unusable(url: sa.URL, error: Exception) -> ConfigError:
    return ConfigError(
        f"DATABASE_URL={_shown(url)}: cannot be used: {_one_line(error)}; check that it is there and may be written"
    )


def _shown(url: sa.URL) -> str:
    return url.render_as_string(hide_password=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())
