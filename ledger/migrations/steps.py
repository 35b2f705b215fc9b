"""Take a database through the migrations that it lacks."""

import time
from pathlib import Path

import sqlalchemy as sa
import structlog
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from ledger.schema import revision

log = structlog.get_logger()


def take_steps(connection: sa.Connection, found: int) -> None:
    """Upgrade from schema ``found`` to the newest one, inside the connection's transaction."""
    scripts = ScriptDirectory(str(Path(__file__).parent))
    context = MigrationContext.configure(connection)
    if context.get_current_revision() is None:  # releases before schema 5 kept the number in a table of their own
        context.stamp(scripts, revision(found))
    steps = scripts.iterate_revisions("head", revision(found))
    with Operations.context(context):
        for step in reversed(list(steps)):
            log.info("ledger_upgrade_begun", schema=step.revision, step=step.doc)
            began_s = time.monotonic()
            step.module.upgrade()
            context.stamp(scripts, step.revision)
            log.info("ledger_upgrade_done", schema=step.revision, took_s=round(time.monotonic() - began_s, 1))
