"""The ledger's tables. ``python -m ledger`` brings those of an older release up to date."""

import sqlite3
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
import structlog

from core.clock import Clock
from core.errors import ConfigError

SCHEMA_VERSION = 5
DAMAGED = {11, 26}  # SQLITE_CORRUPT, SQLITE_NOTADB
# A start checks so much: 0.2 s of reading. A year of 55 topics is 5 GB, and 37 s of a cold disk.
CHECKED_AT_START_BYTES = 32 << 20
AWAY_STATES = ("08", "57P", "53300")  # PostgreSQL's codes begin so: connection lost, going down, all slots taken
# What a server that is starting, ending or full answers to a login; the driver gives no code then.
AWAY_WORDS = ("the database system is", "too many clients", "connection slots")
LOCK = 0xB12  # of PostgreSQL, for making and upgrading tables; any number that nobody else uses
LOCK_S = 10

log = structlog.get_logger()

metadata = sa.MetaData()
revisions = sa.Table(  # Alembic's own; its one row names the schema
    "alembic_version",
    metadata,
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
# Where releases up to schema 4 look. It stays at 4: the last of them can work on these tables, the others refuse.
earlier = sa.Table("ledger_schema", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
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
    sa.Column("block_ms", sa.BigInteger, nullable=True),  # time of the nonce's block; filled in later
    sa.Column("elapsed_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("answers_by_time", "answered_ms"),
)
# Written by the monitor alone. A row for each answer whose interval is over.
scores = sa.Table(
    "scores",
    metadata,
    sa.Column("network", sa.String, primary_key=True),
    sa.Column("topic_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("height", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("answered_ms", sa.BigInteger, nullable=False),  # of the answer that was scored
    sa.Column("version", sa.String, nullable=False),
    sa.Column("forecast", sa.String, nullable=False),
    sa.Column("start_ms", sa.BigInteger, nullable=False),  # of the interval
    sa.Column("end_ms", sa.BigInteger, nullable=False),
    sa.Column("scored_ms", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String, nullable=False),  # why the answer cannot be scored; empty if it was
    sa.Column("venue", sa.String, nullable=False),  # of the truth
    sa.Column("value", sa.Float, nullable=True),
    sa.Column("truth", sa.Float, nullable=True),
    sa.Column("truth_sd", sa.Float, nullable=True),
    sa.Column("naive", sa.Float, nullable=True),  # the naive forecast that knows what the answer knew
    sa.Column("plain_naive", sa.Float, nullable=True),  # the naive forecast of the base
    sa.Column("loss", sa.Float, nullable=True),
    sa.Column("naive_loss", sa.Float, nullable=True),
    sa.Column("plain_naive_loss", sa.Float, nullable=True),
    sa.Column("right_direction", sa.Boolean, nullable=True),  # null: truth or answer did not move from the base
    sa.Column("error_bp", sa.Float, nullable=True),
    sa.Column("loss_name", sa.String, nullable=False, server_default=""),  # Topic.loss
    sa.Index("scores_by_end", "network", "topic_id", "end_ms"),
)
# A checksum of each day of candles that scores were made from: a series that was repaired has another.
candle_days = sa.Table(
    "candle_days",
    metadata,
    sa.Column("venue", sa.String, primary_key=True),
    sa.Column("symbol", sa.String, primary_key=True),
    sa.Column("interval_ms", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),  # since 1970
    sa.Column("checksum", sa.BigInteger, nullable=False),
)
alarms = sa.Table(
    "alarms",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("subject", sa.String, primary_key=True),  # Topic.key, symbol, panel, or empty
    sa.Column("since_ms", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("what", sa.String, nullable=False),
    sa.Column("remedy", sa.String, nullable=False),
    sa.Column("sent_ms", sa.BigInteger, nullable=True),  # null: not sent yet
    sa.Column("ended_ms", sa.BigInteger, nullable=True),
    sa.Column("end_sent_ms", sa.BigInteger, nullable=True),
)
HAS_DETAIL = sa.text("detail IS NOT NULL")
# What the chain made of an epoch of a topic. Written by the monitor alone; ledger.epochs says what each column is.
epochs = sa.Table(
    "epochs",
    metadata,
    sa.Column("network", sa.String, primary_key=True),
    sa.Column("topic_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("nonce", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("block_ms", sa.BigInteger, nullable=True),
    sa.Column("seen_ms", sa.BigInteger, nullable=False),
    sa.Column("stage", sa.String, nullable=False),
    sa.Column("worker", sa.String, nullable=False),
    sa.Column("arrival", sa.String, nullable=False),
    sa.Column("value", sa.String, nullable=True),
    sa.Column("active", sa.Boolean, nullable=True),
    sa.Column("combined", sa.String, nullable=True),
    sa.Column("combined_without", sa.String, nullable=True),
    sa.Column("naive", sa.String, nullable=True),
    sa.Column("combined_loss", sa.String, nullable=True),
    sa.Column("combined_loss_without", sa.String, nullable=True),
    sa.Column("naive_loss", sa.String, nullable=True),
    sa.Column("loss", sa.String, nullable=True),
    sa.Column("score", sa.String, nullable=True),
    sa.Column("score_ema", sa.String, nullable=True),
    sa.Column("reward", sa.String, nullable=True),
    sa.Column("settled_height", sa.BigInteger, nullable=True),
    sa.Column("missing", sa.String, nullable=False),
    sa.Column("detail", sa.LargeBinary, nullable=True),
    sa.Index("epochs_by_time", "seen_ms"),
    # For trimming: without it each look for old details reads the rows of all the days whose details are gone.
    sa.Index("epochs_with_detail", "seen_ms", sqlite_where=HAS_DETAIL, postgresql_where=HAS_DETAIL),
)
# The newest look at a network (topic_id 0) or a topic, for processes that do not ask the chain themselves.
sightings = sa.Table(
    "sightings",
    metadata,
    sa.Column("network", sa.String, primary_key=True),
    sa.Column("topic_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("seen_ms", sa.BigInteger, nullable=False),
    sa.Column("body", sa.String, nullable=False),  # JSON
)
balances = sa.Table(
    "balances",
    metadata,
    sa.Column("network", sa.String, primary_key=True),
    sa.Column("address", sa.String, primary_key=True),
    sa.Column("read_ms", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("amount", sa.String, nullable=False),  # uallo
)
# What TRUTH_VENUE=auto and BASE_RULE=auto stand for. A row is written once and never changed.
adoptions = sa.Table(
    "adoptions",
    metadata,
    sa.Column("setting", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
    sa.Column("evidence", sa.String, nullable=False),
    sa.Column("adopted_ms", sa.BigInteger, nullable=False),
)
KEY = tuple(column.name for column in answers.primary_key)
QUESTION = ("market", "symbol", "target", "horizon_min")  # if one of them differs, it was another question


class OlderSchema(ConfigError):
    """The database has the schema of an older release."""


def revision(version: int) -> str:
    """Name a schema as Alembic does.

    >>> revision(5)
    '0005'
    """
    return f"{version:04}"


def make_ready(engine: sa.Engine, clock: Clock) -> None:
    """Check the answers and make the tables of an empty database; set a damaged SQLite file aside and begin a new one.

    Of a large file only the first pages are looked at: ``check_answers`` reads the rest.

    Raises:
        OlderSchema: ``python -m ledger`` has to upgrade it first.
        ConfigError: a newer release or another program wrote it.
    """
    try:
        _prepare(engine)
    except sa.exc.SQLAlchemyError as error:
        if not is_damaged(error) or not engine.url.database:
            raise
        set_aside(engine, clock, error)
        _prepare(engine)


def is_large(engine: sa.Engine) -> bool:
    """True if the answers of an SQLite file are not checked at the start."""
    path = Path(engine.url.database or "")
    with suppress(FileNotFoundError):
        return engine.dialect.name == "sqlite" and path.stat().st_size > CHECKED_AT_START_BYTES
    return False


def check_answers(connection: sa.Connection) -> None:
    """Read all answers of an SQLite file, and nothing of what the monitor wrote.

    Raises:
        sqlalchemy.exc.DatabaseError: the file is damaged.
    """
    verdict = connection.exec_driver_sql(f"PRAGMA quick_check({answers.name})").scalars().first()
    if verdict != "ok":
        raise sa.exc.DatabaseError("PRAGMA quick_check", None, _Damaged(str(verdict)))


def version_of(connection: sa.Connection) -> int | None:
    """Return the number of the database's schema, at most SCHEMA_VERSION; None if it is empty.

    Raises:
        ConfigError: a newer release or another program wrote it.
    """
    inspector = sa.inspect(connection)
    name = None
    if inspector.has_table(revisions.name):
        name = connection.execute(sa.select(sa.func.max(revisions.c.version_num))).scalar_one()
    if name is None and inspector.has_table(earlier.name):
        name = connection.execute(sa.select(sa.func.max(earlier.c.version))).scalar_one()
    if name is None:
        if inspector.has_table(answers.name):
            raise ConfigError(
                f"DATABASE_URL={shown(connection.engine.url)}: has a table {answers.name} of another program; "
                "choose another database"
            )
        return None
    found = int(name) if str(name).isdecimal() else 0
    if not 1 <= found <= SCHEMA_VERSION:
        raise ConfigError(
            f"DATABASE_URL={shown(connection.engine.url)}: has schema {found or name}, this release reads "
            f"{SCHEMA_VERSION}; use the release that wrote it, or another database"
        )
    return found


def make_tables(connection: sa.Connection) -> None:
    """Make the tables of an empty database; nobody sees a part of them, and a kill leaves none."""
    take_turn(connection)
    if version_of(connection) is None:
        metadata.create_all(connection)
        connection.execute(revisions.insert().values(version_num=revision(SCHEMA_VERSION)))
        connection.execute(earlier.insert().values(version=4))
    connection.commit()


def take_turn(connection: sa.Connection) -> None:
    """Begin a transaction; wait for another process that makes or upgrades tables, or writes into SQLite.

    Raises:
        sqlalchemy.exc.OperationalError: it takes too long.
    """
    connection.rollback()
    if connection.dialect.name == "sqlite":
        # Said here, because Python's driver begins a transaction only when rows are written, not for tables.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")


def shown(url: sa.URL) -> str:
    """Return a database URL without its password."""
    return url.render_as_string(hide_password=True)


def one_line(error: Exception) -> str:
    """Return the message of the database's driver, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _prepare(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        found = version_of(connection)
        if found and engine.dialect.name == "sqlite" and not is_large(engine):
            check_answers(connection)
        if found is None:
            make_tables(connection)
        elif found < SCHEMA_VERSION:
            raise OlderSchema(
                f"DATABASE_URL={shown(engine.url)}: has schema {found}, this release writes {SCHEMA_VERSION}; "
                "run `python -m ledger`, which upgrades it and keeps every row"
            )


class _Damaged(Exception):
    """SQLite read the file and found it inconsistent."""

    sqlite_errorcode = 11


def is_damaged(error: Exception) -> bool:
    """True if SQLite says that the file is damaged, or no database."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF in DAMAGED


def is_away(error: Exception) -> bool:
    """True if the PostgreSQL server cannot be reached, or is starting, ending or full.

    False if the server refuses our password, role or database name, and for an error of a statement.
    """
    cause = getattr(error, "orig", None)
    if not isinstance(error, sa.exc.OperationalError) or isinstance(cause, sqlite3.Error):
        return False
    if state := getattr(cause, "sqlstate", None):
        return str(state).startswith(AWAY_STATES)
    said = one_line(error)
    return "FATAL" not in said or any(words in said for words in AWAY_WORDS)


def set_aside(engine: sa.Engine, clock: Clock, error: Exception) -> None:
    """Rename a damaged file and its write-ahead log, so that an operator can look at them.

    Raises:
        OSError: the disk refuses it.
    """
    engine.dispose()
    path = Path(engine.url.database or "")
    aside = path.with_name(f"{path.name}.damaged-{clock.now_ms()}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    log.error(
        "ledger_damaged", file=str(path), set_aside=str(aside), reason=one_line(error), remedy="a new one is begun"
    )
