"""INSERT that puts a row in the place of one with the same key, in SQLite and PostgreSQL."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite


def upsert(engine: sa.Engine, table: sa.Table) -> sa.Insert:
    """Return the INSERT that puts a row in the place of one with the same key."""
    insert: Any = sqlite.insert(table)
    if engine.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415 -- a tenth of a second of every other start

        insert = postgresql.insert(table)
    keys = [column.name for column in table.primary_key]
    values = {column.name: insert.excluded[column.name] for column in table.c if column.name not in keys}
    statement: sa.Insert = insert.on_conflict_do_update(index_elements=keys, set_=values)
    return statement
