"""The ledger's tables, and the upgrade of an older release's tables."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
import structlog

from core.clock import Clock
from core.errors import ConfigError
from core.sources import NAIVE, PERSISTENCE

SCHEMA_VERSION = 5
DAMAGED = {11, 26}  # SQLITE_CORRUPT, SQLITE_NOTADB

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
# By schema: the columns that it added (older rows get their defaults), and the older values that it rewrote.
ADDED: Mapping[int, tuple[str, ...]] = {
    2: ("venue", "truth_ratio"),
    3: ("forecast",),
    4: ("asked_ms", "base_ms", "base_source", "block_ms", "elapsed_ms"),
    5: (),
}
REWRITTEN: Mapping[int, tuple[sa.Update, ...]] = {
    3: (
        answers.update().where(answers.c.target == "volatility").values(target="volatility std"),
        answers.update().where(answers.c.version == PERSISTENCE).values(forecast=NAIVE),
    ),
    # Before schema 4 each interval began with its answer.
    4: (answers.update().values(asked_ms=answers.c.answered_ms, base_ms=answers.c.answered_ms),),
}
KEY = tuple(column.name for column in answers.primary_key)
QUESTION = ("market", "symbol", "target", "horizon_min")  # if one of them differs, it was another question


def make_ready(engine: sa.Engine, clock: Clock) -> None:
    """Check the database and bring its tables up to date; set a damaged SQLite file aside and begin a new one.

    Raises:
        ConfigError: a newer release wrote it.
    """
    try:
        _prepare(engine)
    except sa.exc.SQLAlchemyError as error:
        if not _is_damaged(error) or not engine.url.database:
            raise
        engine.dispose()
        _set_aside(Path(engine.url.database), clock.now_ms(), one_line(error))
        _prepare(engine)


def shown(url: sa.URL) -> str:
    """Return a database URL without its password."""
    return url.render_as_string(hide_password=True)


def one_line(error: Exception) -> str:
    """Return the message of the database's driver, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _prepare(engine: sa.Engine) -> None:
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
                f"DATABASE_URL={shown(engine.url)}: has schema {found}, this release reads {SCHEMA_VERSION}; "
                "use the release that wrote it, or another database"
            )


class _Damaged(Exception):
    """SQLite read the file and found it inconsistent."""

    sqlite_errorcode = 11


def _is_damaged(error: sa.exc.SQLAlchemyError) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return code & 0xFF in DAMAGED


def _set_aside(path: Path, now_ms: int, reason: str) -> None:
    """Rename a damaged file and its write-ahead log, so that an operator can look at them."""
    aside = path.with_name(f"{path.name}.damaged-{now_ms}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    log.error("ledger_damaged", file=str(path), set_aside=str(aside), reason=reason, remedy="a new one is begun")
