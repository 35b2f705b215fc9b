"""Bring a database to this release's schema, without losing a row."""

from pathlib import Path

import sqlalchemy as sa
import structlog

from core.errors import ConfigError
from core.files import disk_refusal
from ledger.database import ROOM_BYTES, open_engine
from ledger.schema import SCHEMA_VERSION, is_away, is_damaged, make_tables, one_line, shown, take_turn, version_of

PATIENCE_S = 10.0  # for a process that writes; a commit of inference takes milliseconds
BUSY = "another process works on it without a pause: end that one, and run `python -m ledger` again"
REMEDIES = {  # by the error code of SQLite or PostgreSQL
    5: BUSY,
    "55P03": BUSY,
    13: "make room: an upgrade needs about as much as the file has; then run `python -m ledger` again",
}

log = structlog.get_logger()


def bring_up_to_date(url: str, patience_s: float = PATIENCE_S) -> None:
    """Make the tables of an empty database, or upgrade those of an older release, in one transaction.

    Nothing is done where inference can go on without: on a disk that takes nothing, to a damaged file, which inference
    sets aside, and while PostgreSQL is away. Each is logged.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL.
        patience_s: how long to wait while another process writes into SQLite.
    Raises:
        ConfigError: the database cannot be used, is locked, or a newer release wrote it. One line with the remedy.
    """
    engine = open_engine(url, busy_s=patience_s)
    try:
        with engine.connect() as connection:
            _bring_up_to_date(connection)
    except sa.exc.SQLAlchemyError as error:
        engine.dispose()  # with which SQLite gives back what the failed upgrade took of the disk
        _go_on_without(engine.url, error)
    finally:
        engine.dispose()


def _go_on_without(url: sa.URL, error: sa.exc.SQLAlchemyError) -> None:
    folder = Path(url.database or "").parent
    if is_damaged(error):
        remedy = "none is needed: inference sets the file aside at its start and begins a new one"
        log.error("ledger_not_upgraded", reason=one_line(error), remedy=remedy)
    elif url.get_backend_name() == "sqlite" and (refusal := disk_refusal(folder, ROOM_BYTES)):
        remedy = f"make room in {folder}, or mount it writable; then run `python -m ledger` again"
        log.error("ledger_not_upgraded", reason=refusal, remedy=remedy)
    elif is_away(error):
        remedy = "look at the server; answers go on; if an older release made the tables, run `python -m ledger` again"
        log.error("ledger_not_upgraded", database=shown(url), reason=one_line(error), remedy=remedy)
    else:
        cause = getattr(error, "orig", None)
        code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorcode", 0) & 0xFF
        remedy = REMEDIES.get(code, "check that it is there and may be written")
        raise ConfigError(
            f"DATABASE_URL={shown(url)}: cannot be brought up to date: {one_line(error)}; {remedy}"
        ) from error


def _bring_up_to_date(connection: sa.Connection) -> None:
    found = version_of(connection)
    if found is None:
        make_tables(connection)
    elif found < SCHEMA_VERSION:
        if connection.dialect.name == "sqlite":
            # The rows of an index are sorted there, for which a container's small /tmp has no room.
            connection.exec_driver_sql("PRAGMA temp_store=MEMORY")
        take_turn(connection)
        found = version_of(connection) or 0  # another process may have upgraded it meanwhile
        if found < SCHEMA_VERSION:
            _upgrade(connection, found)
        connection.commit()


def _upgrade(connection: sa.Connection, found: int) -> None:
    try:
        from ledger.migrations.steps import take_steps  # noqa: PLC0415 -- most starts need no Alembic
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"DATABASE_URL={shown(connection.engine.url)}: has schema {found}, and its upgrade needs {error.name}; "
            "install the extra monitor (scripts/setup does), and run `python -m ledger` again"
        ) from error
    take_steps(connection, found)
